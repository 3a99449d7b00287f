"""Kernel densities in two coordinates, each the sum of several levels: how much a category borrows is fitted, not set.

A level is a set of boxes: the category's own, those of its supercategory, of alike categories, of all, and a broad
floor. The weights of the levels and the width of the own kernels are those under which the category's boxes are most
likely when the image that they stand on is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray

LEVELS = ("own", "supercategory", "similar", "pool", "broad")
TOWARDS = np.array([1.0, 0.75, 1.0, 0.75, 0.5])
"""What the levels weigh before the data speak, in boxes: one box of its own outweighs a fifth of it."""
EVEN = 3.0
"""A kernel this wide, folded into 0 to 1, is flat to the last digit (a wrapped normal's first harmonic)."""
_GRID = (0.7, 1.0, 1.4, 2.0)  # times Scott's width, for the kernels at the category's own boxes
_ROUNDS = 100
_MOST_CELLS = 2_000_000  # of a matrix of kernels held at once


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Boxes that one level of a density stands on.

    Attributes:
        points: float64 (m, 2).
        weights: float64 (m,), of any sum above 0.
        image: int (m,), the image that each stands on; -1 for none.
        width: float64 (2,), the kernels' deviation.
    """

    points: FloatArray
    weights: FloatArray
    image: NDArray[np.int64]
    width: FloatArray

    def __len__(self) -> int:
        return len(self.points)

    def scaled(self, factor: float) -> "Level":
        """The same with wider or narrower kernels."""
        return Level(self.points, self.weights, self.image, self.width * factor)


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """A density as a weighted sum of kernels, those of the own boxes first.

    Attributes:
        columns: float64 (4, m), the points' two coordinates and the kernels' two deviations.
        weights: float64 (m,), they add up to 1.
        ends: float64 (m,), the weights' running sum, 1 at the end.
        levels: float64 (5,), what each level weighs, in the order of LEVELS.
    """

    columns: FloatArray
    weights: FloatArray
    ends: FloatArray
    levels: FloatArray

    @classmethod
    def of(cls, levels: Sequence[Level], shares: FloatArray) -> Self:
        """Levels, each with its share of the whole."""
        held = [(level, share) for level, share in zip(levels, shares, strict=True) if len(level)]
        weights = np.concatenate([share * level.weights / level.weights.sum() for level, share in held])
        weights /= weights.sum()
        ends = np.cumsum(weights)
        ends[-1] = 1.0
        points = np.concatenate([level.points for level, _ in held])
        widths = np.concatenate([np.tile(level.width, (len(level), 1)) for level, _ in held])
        return cls(np.concatenate([points, widths], axis=1).T.copy(), weights, ends, shares)

    def __len__(self) -> int:
        return len(self.weights)

    def rows(self, u: FloatArray) -> NDArray[np.intp]:
        """The kernels that numbers from 0 to 1 fall on."""
        return np.searchsorted(self.ends, u, side="right")


def folded(values: FloatArray, low: float, high: float) -> FloatArray:
    """Values thrown back at both ends as often as it takes: a draw of a kernel that is reflected there.

    Source: the reflection method for densities with a boundary (Silverman 1986, section 2.10).
    """
    room = high - low
    return np.asarray(low + room - np.abs((values - low) % (2 * room) - room))


def reflected(
    values: FloatArray, about: FloatArray, width: FloatArray | float, low: float, high: float
) -> FloatArray:
    """The density of `folded(about + width * normal)`: values (n, 1) and about, width (m,) give (n, m).

    Exact where the width is below the room and `about` lies in it; a width of EVEN or more is flat.
    """
    room = high - low
    wide = np.asarray(width >= EVEN * room)
    safe = np.where(wide, room, width)
    total = normal(values - about, safe)
    total += normal(2 * low - values - about, safe)
    total += normal(2 * high - values - about, safe)
    if safe[~wide].max(initial=0.0) > 0.2 * room:  # the next ones are a whole room away
        total += normal(values - 2 * room - about, safe) + normal(values + 2 * room - about, safe)
    if wide.any():
        total = np.where(wide, 1 / room, total)
    return np.where((values < low) | (values > high), 0.0, total)


def normal(off: FloatArray, width: FloatArray | float) -> FloatArray:
    """The density of a normal distribution so far off its middle."""
    return np.asarray(np.exp(-0.5 * (off / width) ** 2) / (width * np.sqrt(2 * np.pi)))


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What the own boxes say of a density.

    Attributes:
        factor: times the own level's width.
        shares: float64 (5,), what each level weighs, in the order of LEVELS.
        left_out: float64 (n,), the density at the own boxes when their image is left out.
        kernels: float64 (n, n), each own box's kernel (columns) at each (rows), those left out 0.
        others: int64 (n,), how many of them were not left out, at least 1.
    """

    factor: float
    shares: FloatArray
    left_out: FloatArray
    kernels: FloatArray
    others: NDArray[np.int64]


def fitted(levels: Sequence[Level], *, bounded: bool) -> Fit:
    """The own kernels' width and what each level weighs.

    Both are those under which each own box is most likely by the boxes of other images (by other boxes, where there
    is one image only), with TOWARDS as a Dirichlet prior on the weights.

    Args:
        levels: in the order of LEVELS; all but the first and the last may be empty.
        bounded: whether both coordinates end at 0 and 1.
    """
    own, lent = levels[0], levels[1:]
    towards = np.where([len(level) > 0 for level in levels], TOWARDS, 0.0)
    alone = len(np.unique(own.image)) == 1
    kept = ~np.eye(len(own), dtype=bool) if alone else own.image[:, None] != own.image
    others = np.maximum(kept.sum(axis=1), 1)
    lent_at = [_left_out(level, own.points, own.image, bounded=bounded) for level in lent]
    fits: list[tuple[float, Fit]] = []
    for factor in _GRID:
        kernels = kept * _matrix(own.points, own.points, own.width * factor, bounded=bounded)
        columns = np.stack([kernels.sum(axis=1) / others, *lent_at], axis=1)
        shares, worth = weighed(columns, towards)
        fits.append((worth, Fit(factor, shares, columns @ shares, kernels, others)))
    return max(fits, key=lambda fit: fit[0])[1]


def weighed(densities: FloatArray, towards: FloatArray) -> tuple[FloatArray, float]:
    """The weights of a mixture whose parts are fixed, by expectation and maximisation.

    Args:
        densities: float64 (n, k), of each point under each part.
        towards: float64 (k,), what each part weighs before the points speak, in points; 0 for a part not to be used.

    Returns:
        float64 (k,), the weights; and the log of what they make of the points and of the Dirichlet prior.
    """
    densities = np.where(towards > 0, densities, 0.0)
    shares = towards / towards.sum()
    for _ in range(_ROUNDS):
        each = densities * shares
        each /= np.maximum(each.sum(axis=1, keepdims=True), 1e-300)
        shares = (each.sum(axis=0) + towards) / (each.sum() + towards.sum())
    used = towards > 0
    worth = np.log(np.maximum(densities @ shares, 1e-300)).sum() + towards[used] @ np.log(shares[used])
    return shares, float(worth)


def _left_out(level: Level, points: FloatArray, image: NDArray[np.int64], *, bounded: bool) -> FloatArray:
    """float64 (n,): a level's density at points, without what stands on the same image."""
    density = np.zeros(len(points))
    step = max(1, _MOST_CELLS // max(len(level), 1))
    for start in range(0, len(points) if len(level) else 0, step):
        rows = slice(start, start + step)
        weights = np.where(image[rows, None] == level.image, 0.0, level.weights)
        sums = (weights * _matrix(points[rows], level.points, level.width, bounded=bounded)).sum(axis=1)
        density[rows] = sums / np.maximum(weights.sum(axis=1), 1e-300)
    return density


def _matrix(points: FloatArray, about: FloatArray, width: FloatArray, *, bounded: bool) -> FloatArray:
    """float64 (n, m): the kernels at (m, 2) at each of the points (n, 2)."""
    first, second = (
        reflected(points[:, i, None], about[:, i], width[i], 0.0, 1.0)
        if bounded
        else normal(points[:, i, None] - about[:, i], width[i])
        for i in (0, 1)
    )
    return np.asarray(first * second)


def evenly(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Some of many rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.intp)]


def alike(mean: FloatArray, variance: FloatArray, one: int) -> FloatArray:
    """float64 (k,): how far normal distributions share their place with one of them, 0 to 1.

    Args:
        mean: float64 (k, d).
        variance: float64 (k, d), above 0.
        one: the row to compare with.

    Source: Bhattacharyya's coefficient, coordinates taken for independent.
    """
    both = variance + variance[one]
    apart = 0.25 * (mean - mean[one]) ** 2 / both
    unlike = 0.5 * np.log(both / (2 * np.sqrt(variance * variance[one])))
    return np.asarray(np.exp(-(apart + unlike).sum(axis=1)))


def shrunk_moments(
    values: FloatArray, group: NDArray[np.int32], n_groups: int, strength: float
) -> tuple[FloatArray, FloatArray]:
    """Means and deviations by group: deviations shrunk to the common one, means as far as the groups' own means agree.

    Args:
        values: float64 (n, d).
        group: int (n,).
        n_groups: how many there are; one without a value gets the means of all.
        strength: how many values the common deviation counts for.

    Returns:
        float64 (n_groups, d) each.

    Source: the normal means model with unequal numbers, its variance between groups by moments (Morris 1983).
    """
    n = np.bincount(group, minlength=n_groups)[:, None].astype(float)
    total = np.stack([np.bincount(group, v, n_groups) for v in values.T], axis=1)
    raw = total / np.maximum(n, 1)
    squares = np.stack([np.bincount(group, v, n_groups) for v in ((values - raw[group]) ** 2).T], axis=1)
    within = squares.sum(axis=0) / max(len(values) - int((n > 0).sum()), 1)
    variance = (squares + strength * within) / (n + strength)
    held = n[:, 0] > 0
    between = np.zeros(values.shape[1])
    grand = values.mean(axis=0)
    if held.sum() > 2:
        grand = raw[held].mean(axis=0)
        between = np.maximum(
            raw[held].var(axis=0, ddof=1) - (variance / np.maximum(n, 1))[held].mean(axis=0), 0
        )
    else:
        return np.where(n > 0, raw, grand), np.sqrt(variance)
    doubt = variance / np.maximum(n, 1)
    trust = np.divide(between, between + doubt, out=np.ones_like(doubt), where=between + doubt > 0)
    return np.where(n > 0, grand + trust * (raw - grand), grand), np.sqrt(variance)
