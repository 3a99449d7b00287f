"""Places as numbers: what surrounds a box, where in the image it lies, and what is annotated near it.

Nothing here sees the object itself: a box's own cells, and those that its pixels reach, are left out of every mean,
and so are those of all others of its category. A real place and an empty one are measured alike.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.layouts.company import N_FEATURES, company
from rarefill.layouts.surroundings import CHANNELS, Frame, Sums, Surroundings

GROUPS = ("image", "rings", "position", "neighbours", "company")
_C = len(CHANNELS)
_KIN = 5
"""Other categories that have neighbour features of their own, the most frequent ones."""
_FEWEST = 5  # annotations of such a category
_SIZES = {"image": 2 * _C, "rings": 2 * _C, "position": 7, "neighbours": 4 + 3 * _KIN, "company": N_FEATURES}
GROUP = np.repeat(GROUPS, [_SIZES[name] for name in GROUPS])
"""The group of each feature."""
COMPANY = GROUP == "company"
_INNER = 0.1
"""How far what is left out reaches beyond a box, in shares of its size; cells that its pixels reach come to it."""
_SHARES = np.array([0, 0.4, 1.5])
"""How far the regions reach beyond that: what is left out itself, near ring, far ring."""
_LEAST_CELLS = np.array([0, 2, 5])
_WAY = np.array([-1.0, -1.0, 1.0, 1.0])
_KEPT = 512  # images whose neighbours stay in memory


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """One image's annotations of other categories, those of one group beside each other.

    Attributes:
        boxes: float64 (m, 4).
        starts: intp (g,), the first box of each group, that of all further categories last.
        columns: intp, where the features of each group with features of its own begin.
        counts: float64, the features with all that does not depend on the place filled in.
    """

    boxes: FloatArray
    starts: NDArray[np.intp]
    columns: NDArray[np.intp]
    counts: FloatArray


class Around:
    """The features of places for one category. May be used from many threads."""

    def __init__(
        self, dataset: Dataset, surroundings: Surroundings, category: int, kin: tuple[int, ...]
    ) -> None:
        """`category`: its row. `kin`: rows of up to five others that have neighbour features of their own."""
        self._dataset, self._surroundings, self._category = dataset, surroundings, category
        self._group_of = np.full(len(dataset.categories), _KIN)
        for group, row in enumerate(kin):
            self._group_of[row] = group
        self.sums = lru_cache(maxsize=_KEPT)(self._sums)
        self.neighbours = lru_cache(maxsize=_KEPT)(self._neighbours)

    def features(self, image: int, boxes: FloatArray, without: NDArray[np.intp] | None = None) -> FloatArray:
        """The features of places on one image.

        Args:
            image: its row.
            boxes: float64 (n, 4), x1 y1 x2 y2.
            without: intp (n,), which of `own` is no company for each place, -1 for none; None: all are.

        Returns:
            float64 (n, F), NaN where nothing of a region is in the image.
        """
        sums = self.sums(image)
        parts = [
            regions(sums, boxes),
            position(sums.frame, boxes),
            beside(self.neighbours(image), boxes),
            company(self.own(image), boxes, without),
        ]
        return np.concatenate(parts, axis=1)

    def own(self, image: int) -> FloatArray:
        """float64 (m, 4), the category's own boxes on one image, in the file's order."""
        rows = self._dataset.rows_in(image)
        own = rows[self._dataset.annotations.category[rows] == self._category]
        return np.asarray(self._dataset.annotations.boxes[own])

    def _sums(self, image: int) -> Sums:
        """Without the category's own objects: a place is not to be known by those that stand near it."""
        rows = self._dataset.rows_in(image)
        own = rows[self._dataset.annotations.category[rows] == self._category]
        if not own.size:
            return self._surroundings.sums(image)
        frame = self._surroundings.frames[image]
        hidden = rectangles(frame, self._dataset.annotations.boxes[own])[:, 0]
        return Sums.of(frame, self._surroundings.grid(image), hidden)

    def _neighbours(self, image: int) -> Neighbours:
        rows = self._dataset.rows_in(image)
        rows = rows[self._dataset.annotations.category[rows] != self._category]
        group = self._group_of[self._dataset.annotations.category[rows]]
        order = np.argsort(group, kind="stable")
        groups, starts, n = np.unique(group[order], return_index=True, return_counts=True)
        columns = 4 + 3 * groups[groups < _KIN]
        counts = np.zeros(_SIZES["neighbours"])
        counts[3] = np.log1p(len(rows))
        counts[columns + 2] = np.log1p(n[groups < _KIN])
        return Neighbours(self._dataset.annotations.boxes[rows[order]], starts, columns, counts)


def frequent(dataset: Dataset, category: int) -> tuple[int, ...]:
    """The most frequent other categories, at most five, none with fewer than five annotations."""
    counts = np.bincount(dataset.annotations.category, minlength=len(dataset.categories))
    counts[category] = 0
    order = np.argsort(-counts, kind="stable")[:_KIN]
    return tuple(int(row) for row in order if counts[row] >= _FEWEST)


def regions(sums: Sums, boxes: FloatArray) -> FloatArray:
    """float64 (n, 4 C): the image's means and deviations, and the means of two rings less those of the image."""
    parts = rectangles(sums.frame, boxes)
    totals = sums.over(parts)
    squares = sums.squares[-1] - sums.over(parts[:, 0], squares=True)
    pooled = np.empty_like(totals)
    np.subtract(totals[:, 1:], totals[:, :2], out=pooled[:, :2])
    np.subtract(sums.total, totals[:, 0], out=pooled[:, 2])
    with np.errstate(invalid="ignore"):
        means = pooled[:, :, :-1] / pooled[:, :, -1:]
        image = means[:, 2]
        spread = np.sqrt(np.maximum(squares / pooled[:, 2, -1:] - image * image, 0))
    return np.concatenate([image, spread, means[:, 0] - image, means[:, 1] - image], axis=1)


def nearby(sums: Sums, boxes: FloatArray) -> FloatArray:
    """float64 (n, C): the means of the near ring; NaN where nothing of it is in the image."""
    parts = sums.over(rectangles(sums.frame, boxes)[:, :2])
    ring = parts[:, 1] - parts[:, 0]
    with np.errstate(invalid="ignore"):
        return np.asarray(ring[:, :-1] / ring[:, -1:])


def rectangles(frame: Frame, boxes: FloatArray) -> NDArray[np.intp]:
    """intp (n, 3, 4), whole cells: what is left out, the outer edges of the near and the far ring."""
    across, down = frame.columns / frame.width, frame.rows / frame.height
    cells = boxes * (across, down, across, down)
    size = np.sqrt((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]))[:, None]
    cells += np.maximum(_INNER * size, frame.margin) * _WAY
    # Floor of the left and the top, ceiling of the right and the bottom.
    edges = np.floor(cells * -_WAY) * -_WAY
    reach = np.ceil(np.maximum(_SHARES * size, _LEAST_CELLS))
    found = edges[:, None] + reach[:, :, None] * _WAY
    most = (frame.columns, frame.rows, frame.columns, frame.rows)
    return np.asarray(np.minimum(np.maximum(found, 0), most), dtype=np.intp)


def position(frame: Frame, boxes: FloatArray) -> FloatArray:
    """float64 (n, 7): where in the image the box lies, and its size there."""
    x1, y1, x2, y2 = boxes.T
    out = np.empty((len(boxes), 7))
    out[:, 0] = x = (x1 + x2) / frame.width - 1
    out[:, 1] = x * x
    out[:, 2] = y = (y1 + y2) / frame.height - 1
    out[:, 3] = y * y
    out[:, 4] = y2 * (2 / frame.height) - 1
    out[:, 5] = size = 0.5 * np.log((x2 - x1) * (y2 - y1) / (frame.width * frame.height))
    out[:, 6] = size * y
    return out


def beside(neighbours: Neighbours, boxes: FloatArray) -> FloatArray:
    """float64 (n, 4 + 3 * 5): how near others are at two scales and how many the image holds, all and by group.

    Between the two, the share of the box that the most covering one covers. All 0 where nothing is annotated.
    """
    out = np.empty((len(boxes), _SIZES["neighbours"]))
    out[:] = neighbours.counts
    if not len(neighbours.boxes):
        return out
    x1, y1, x2, y2 = boxes.T[:, :, None]
    left, top, right, bottom = neighbours.boxes.T
    # How far the one lies beyond the other: above 0 is a gap, below an overlap.
    across, down = np.maximum(left - x2, x1 - right), np.maximum(top - y2, y1 - bottom)
    covered = np.minimum(across, 0) * np.minimum(down, 0)
    np.maximum(across, 0, out=across)
    np.maximum(down, 0, out=down)
    squared = np.minimum.reduceat(across * across + down * down, neighbours.starts, axis=1)
    area = (x2 - x1) * (y2 - y1)
    near = np.exp(-np.sqrt(squared / area))
    far = np.sqrt(np.sqrt(near))
    out[:, 0], out[:, 1] = near.max(axis=1), far.max(axis=1)
    out[:, 2] = covered.max(axis=1) / area[:, 0]
    out[:, neighbours.columns] = near[:, : len(neighbours.columns)]
    out[:, neighbours.columns + 1] = far[:, : len(neighbours.columns)]
    return out
