"""Figures from arrays alone: kernel distance, nearest neighbours, area under the curve."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Groups = NDArray[np.int64]
"""int64 (N,): which picture each row comes from. Rows of one picture are alike, so errors are counted by pictures."""

SUBSETS = 100
"""As Binkowski et al. take for the spread."""


class Scale(NamedTuple):
    """What brings features to mean 0 and deviation 1; float64 (D,) each."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, features: Floats) -> "Scale":
        """From reference features, float64 (N, D). Channels that hardly move are not blown up."""
        deviation = features.std(axis=0)
        return cls(features.mean(axis=0), np.maximum(deviation, 0.1 * np.median(deviation) + 1e-12))

    def __call__(self, features: Floats) -> Floats:
        return (features - self.mean) / self.deviation


class Kid(NamedTuple):
    """A kernel distance.

    Attributes:
        value: unbiased squared MMD over all rows; 0 on average for one distribution, and so at times below 0.
        se: its standard error, by leaving out one picture at a time.
        spread: standard deviation over subsets of half the smaller set, as often printed.
    """

    value: float
    se: float
    spread: float


def kernel(x: Floats, y: Floats) -> Floats:
    """The polynomial kernel of degree 3, float64 (N, M).   Source: Binkowski et al. 2018, section 4."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def mmd2(xx: Floats, yy: Floats, xy: Floats) -> float:
    """Unbiased squared maximum mean discrepancy from kernel matrices.   Source: Gretton et al. 2012, equation 3."""
    n, m = xy.shape
    own = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(own - 2 * xy.mean())


def kid(x: Floats, y: Floats, x_groups: Groups, y_groups: Groups, rng: np.random.Generator) -> Kid:
    """Kernel distance of two sets of features.

    Args:
        x: float64 (N, D), two rows or more from two pictures or more.
        y: float64 (M, D), the same.
        x_groups: the pictures of x.
        y_groups: the pictures of y.
        rng: draws the subsets.
    """
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    variance = _jackknife(xx, yy, xy, x_groups) + _jackknife(yy, xx, xy.T, y_groups)
    size = max(2, min(len(x), len(y)) // 2)
    found = []
    for _ in range(SUBSETS):
        a, b = (rng.choice(len(side), size, replace=False) for side in (x, y))
        found.append(mmd2(xx[np.ix_(a, a)], yy[np.ix_(b, b)], xy[np.ix_(a, b)]))
    return Kid(mmd2(xx, yy, xy), float(np.sqrt(variance)), float(np.std(found)))


def _jackknife(xx: Floats, yy: Floats, xy: Floats, groups: Groups) -> float:
    """Variance of `mmd2` from x's side: all of it again without each picture in turn."""
    names = np.unique(groups)
    if len(names) < 2:
        return float("nan")
    left_out = []
    for name in names:
        keep = groups != name
        if keep.sum() >= 2:
            left_out.append(mmd2(xx[np.ix_(keep, keep)], yy, xy[keep]))
    n = len(left_out)
    return float((n - 1) / n * ((np.array(left_out) - np.mean(left_out)) ** 2).sum()) if n else float("nan")


def halves(x: Floats, groups: Groups, rng: np.random.Generator, *, times: int = 50) -> Floats:
    """Kernel distances between two halves of one set, split by pictures: what real to real gives, float64 (times,)."""
    xx, names, found = kernel(x, x), np.unique(groups), []
    for _ in range(times):
        side = np.isin(groups, rng.permutation(names)[: len(names) // 2])
        if 2 <= side.sum() <= len(x) - 2:
            found.append(mmd2(xx[np.ix_(side, side)], xx[np.ix_(~side, ~side)], xx[np.ix_(side, ~side)]))
    return np.array(found)


def nearest(x: Floats, pool: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Distance of each row to the nearest of a pool, in deviations per channel, float64 (N,); and which one it is."""
    square = (x**2).sum(1)[:, None] + (pool**2).sum(1)[None] - 2 * x @ pool.T
    distances = np.sqrt(np.maximum(square, 0) / x.shape[1])
    return distances.min(axis=1), distances.argmin(axis=1)


def auc(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """Chance that a positive row scores above a negative one, ties by half; 0.5 is guessing."""
    n, m = int(labels.sum()), int((~labels).sum())
    if n == 0 or m == 0:
        return float("nan")
    return float((rankdata(scores)[labels].sum() - n * (n + 1) / 2) / (n * m))


class Trial(NamedTuple):
    """One classifier's answers on what it did not learn from: scores (N,), labels bool (N,), pictures (N,)."""

    scores: Floats
    labels: NDArray[np.bool_]
    groups: Groups


def mean_auc(
    trials: Sequence[Trial], rng: np.random.Generator, *, times: int = 400
) -> tuple[float, float, float]:
    """Mean over trials, and its 95 % interval from drawing whole pictures anew in each."""
    value = float(np.nanmean([auc(t.scores, t.labels) for t in trials]))
    drawn = []
    for _ in range(times):
        each = []
        for t in trials:
            names = np.unique(t.groups)
            rows = np.concatenate(
                [np.flatnonzero(t.groups == g) for g in rng.choice(names, len(names), replace=True)]
            )
            each.append(auc(t.scores[rows], t.labels[rows]))
        drawn.append(np.nanmean(each))
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return value, float(low), float(high)


def quantiles(values: Floats) -> dict[str, float]:
    """Least, 5 %, quarter, median and three quarters."""
    at = {"least": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75}
    return {name: round(float(np.quantile(values, q)), 4) for name, q in at.items()}
