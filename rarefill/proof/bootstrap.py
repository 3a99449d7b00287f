"""How sure a difference is: test images drawn anew, and the spread between trainings, both paired between arms.

Two things could have come out otherwise. Other test images: groups of near-duplicates are drawn with replacement, the same
draws for every arm and training. Another training (another seed, other examples): three trainings are too few to draw
from, ten different means would come of it, so their part is Student's t. What a split or a seed does to every arm alike
cancels in a difference; what is left over is taken to spread as much in one arm as in another, and is estimated from all
arms together (a two-way analysis of variance without interaction): of three trainings of one pair of arms nothing
could be said.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    """Where chance comes from when another training is imagined; the same for every question that is asked.

    Attributes:
        own: float64 (B,) standard normal, by arm: what one arm's trainings do.
        shared: float64 (B,) standard normal: what the seeds and splits do to all arms.
        chi: float64 (B,) from 0 to 1: quantiles that make both Student's t.
    """

    own: Mapping[str, FloatArray]
    shared: FloatArray
    chi: FloatArray

    @classmethod
    def drawn(cls, names: Iterable[str], n_draws: int, draw: np.random.Generator) -> "Noise":
        shared, chi = draw.standard_normal(n_draws), draw.uniform(size=n_draws)
        return cls({name: draw.standard_normal(n_draws) for name in names}, shared, chi)

    def _t(self, normal: FloatArray, freedom: int) -> FloatArray:
        """Student's t from a normal draw."""
        from scipy.stats import chi2

        return np.asarray(normal * np.sqrt(freedom / chi2.ppf(self.chi, freedom)))

    def of(self, arms: Mapping[str, "Measured"], weighed: Mapping[str, float], n: int) -> FloatArray:
        """float64 (B,): how far a weighted sum of means over n trainings could have come out elsewhere.

        Args:
            arms: all of a study, from which the spread is estimated.
            weighed: those of the sum.
            n: trainings.
        """
        spread, freedom, between = _spreads(arms)
        out = np.zeros(len(self.chi))
        if freedom:
            own = np.asarray(sum(w * self.own[name] for name, w in weighed.items()))
            out = out + self._t(own, freedom) * spread / np.sqrt(n)
        alike = sum(weighed.values())
        if alike and n > 1:  # in a difference it cancels
            out = out + alike * self._t(self.shared, n - 1) * between / np.sqrt(n)
        return out


def _spreads(arms: Mapping[str, "Measured"]) -> tuple[float, int, float]:
    """Deviation of a training from its arm and its run, its degrees of freedom, and the deviation of runs' means.

    Runs are the trainings of all arms with one split and seed. Arms that lack some of them do not count.
    """
    held = {name: int(np.isfinite(arm.value).sum()) for name, arm in arms.items()}
    whole = [arms[name] for name, n in held.items() if n == max(held.values())]
    units = common(whole)
    values = np.array([arm.value[units] for arm in whole])
    n_arms, n_units = values.shape
    if n_units < 2:
        return 0.0, 0, 0.0
    of_runs = values.mean(axis=0)
    freedom = (n_arms - 1) * (n_units - 1)
    left = values - of_runs - values.mean(axis=1, keepdims=True) + values.mean()
    spread = float(np.sqrt((left**2).sum() / freedom)) if freedom else 0.0
    return spread, freedom, float(of_runs.std(ddof=1))


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

    def level(self) -> Estimate:
        """A level of AP with its interval, which ends where AP does: at 0 and 1."""
        free = self.estimate()
        return Estimate(value=free.value, low=max(0.0, free.low), high=min(1.0, free.high))

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
    return Spread(float(one.mean()), many.mean(axis=0) + noise.of(arms, weighed, len(units)))


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
