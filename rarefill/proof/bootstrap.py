"""How sure a difference is: test images drawn anew, and the spread between trainings, both paired between arms.

Two things could have come out otherwise. Other test images: groups of near-duplicates are drawn with replacement, the same
draws for every arm and training. Another training (another seed, other examples): three trainings are too few to draw
from, ten different means would come of it, so their part is drawn from Student's t with the spread that was seen. A difference of two arms
is taken run by run first, so what a split or a seed does to both cancels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray
from rarefill.proof.study import Estimate

DRAWS = 1000
_LEVEL = (2.5, 97.5)


def weights(groups: NDArray[np.intp], n_draws: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Tests with groups of images drawn with replacement: how often each image is in each, int64 (n_draws, N).

    Args:
        groups: (N,), each image's group, numbered from 0 without gaps.
        n_draws: how many tests.
        draw: where chance comes from.
    """
    n_groups = int(groups.max()) + 1
    counts = draw.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    return np.asarray(counts[:, groups], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """The trainings' part of every draw, shared by all arms so that pairs stay pairs.

    Attributes:
        normal: float64 (U, B), for each training and draw.
        chi: float64 (B,) from 0 to 1, quantiles that make it Student's t, whatever the number of trainings.
    """

    normal: FloatArray
    chi: FloatArray

    @classmethod
    def drawn(cls, n_units: int, n_draws: int, draw: np.random.Generator) -> "Noise":
        return cls(draw.standard_normal((n_units, n_draws)), draw.uniform(size=n_draws))

    def of(self, values: FloatArray, units: NDArray[np.intp]) -> FloatArray:
        """float64 (B,): how far the mean of these trainings could have come out elsewhere.

        Args:
            values: (n,), what each training came to.
            units: (n,), which trainings they are.
        """
        from scipy.stats import chi2

        n = len(values)
        if n < 2:  # one training says nothing of another
            return np.zeros(len(self.chi))
        spread = (values - values.mean()) / np.sqrt(n * (n - 1))
        return np.asarray(spread @ self.normal[units] * np.sqrt((n - 1) / chi2.ppf(self.chi, n - 1)))


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One arm's figure.

    Attributes:
        value: float64 (U,), each training's, NaN where it is missing.
        draws: float64 (U, B), the same on each test that was drawn; where its detections are not known, its value.
    """

    value: FloatArray
    draws: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """A figure and where it could have come out.

    Attributes:
        value: as measured.
        draws: float64 (B,).
    """

    value: float
    draws: FloatArray

    def estimate(self) -> Estimate:
        """With its 95 % interval."""
        known = self.draws[np.isfinite(self.draws)]
        low, high = np.percentile(known, _LEVEL) if len(known) else (np.nan, np.nan)
        return Estimate(value=self.value, low=float(low), high=float(high))

    def p(self) -> float:
        """Two-sided probability of a value this far from 0 where there is nothing."""
        known = self.draws[np.isfinite(self.draws)]
        least = min(int((known <= 0).sum()), int((known >= 0).sum()))
        return min(1.0, 2 * (least + 1) / (len(known) + 1))


def spread(arms: Mapping[str, Measured], weighed: Mapping[str, float], noise: Noise) -> Spread | None:
    """A weighted sum of arms, such as {"paste": 1, "rfs": -1}, over the trainings that all of them have.

    None where they have none in common.
    """
    units = common([arms[name] for name in weighed])
    if not len(units):
        return None
    value = sum(w * arms[name].value[units] for name, w in weighed.items())
    draws = sum(w * arms[name].draws[units] for name, w in weighed.items())
    one, many = np.asarray(value), np.asarray(draws)
    return Spread(float(one.mean()), many.mean(axis=0) + noise.of(one, units))


def common(arms: Sequence[Measured]) -> NDArray[np.intp]:
    """Trainings that every one of some arms has."""
    return np.flatnonzero(np.all([np.isfinite(arm.value) for arm in arms], axis=0))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in their order."""
    order = np.argsort(p, kind="stable")
    out = [1.0] * len(p)
    above = 0.0
    for rank, at in enumerate(order.tolist()):
        above = max(above, min(1.0, (len(p) - rank) * p[at]))
        out[at] = above
    return out
