"""Places as numbers: what surrounds a box, where in the image it lies, and what is annotated near it.

Nothing here sees the object itself: a box's own cells, and those that its pixels reach, are left out of every mean,
and so are those of all others of its category. A real place and an empty one are measured alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.layouts import ground
from rarefill.layouts.company import N_FEATURES, company
from rarefill.layouts.sums import Frames, Sums, over
from rarefill.layouts.surroundings import CHANNELS, Surroundings

GROUPS = ("image", "rings", "directions", "position", "ground", "neighbours", "company")
_C = len(CHANNELS)
_KIN = 5
"""Other categories that have neighbour features of their own, the most frequent ones."""
_FEWEST = 5  # annotations of such a category
_SIZES = {
    "image": 2 * _C,
    "rings": 2 * _C,
    "directions": 4,
    "position": 7,
    "ground": ground.N_FEATURES,
    "neighbours": 4 + 3 * _KIN,
    "company": N_FEATURES,
}
GROUP = np.repeat(GROUPS, [_SIZES[name] for name in GROUPS])
"""The group of each feature."""
COMPANY = GROUP == "company"
ALONE = slice(0, len(GROUP) - N_FEATURES)
"""All groups but company, which stands last."""
_REGIONS = slice(0, 4 * _C)
_DIRECTIONS = slice(_REGIONS.stop, _REGIONS.stop + _SIZES["directions"])
_POSITION = slice(_DIRECTIONS.stop, _DIRECTIONS.stop + _SIZES["position"])
_GROUND = slice(_POSITION.stop, _POSITION.stop + _SIZES["ground"])
_BESIDE = slice(_GROUND.stop, ALONE.stop)
_COMPANY = slice(ALONE.stop, len(GROUP))
_INNER = 0.1
"""How far what is left out reaches beyond a box, in shares of its size; cells that its pixels reach come to it."""
_SHARES = np.array([0, 0.4, 1.5])
"""How far the regions reach beyond that: what is left out itself, near ring, far ring."""
_LEAST_CELLS = np.array([0, 2, 5])
_WAY = np.array([-1.0, -1.0, 1.0, 1.0])
_UPRIGHT, _RISING = CHANNELS.index("upright or level"), CHANNELS.index("rising or falling")
_KEPT = 512  # images whose neighbours stay in memory
_KEPT_COLOURS = 128  # whose sums of colours do, of those that show the category


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
        self.own = lru_cache(maxsize=_KEPT)(self._own)
        self.sums = lru_cache(maxsize=_KEPT)(self._sums)
        self._colours_without_own = lru_cache(maxsize=_KEPT_COLOURS)(self._hiding_own)
        self.neighbours = lru_cache(maxsize=_KEPT)(self._neighbours)

    def features(
        self, image: int | NDArray[np.intp], boxes: FloatArray, without: NDArray[np.intp] | None = None
    ) -> FloatArray:
        """The features of places.

        Args:
            image: its row; or intp (n,), that of each place, those of one image beside each other.
            boxes: float64 (n, 4), x1 y1 x2 y2.
            without: intp (n,), which of `own` is no company for each place, -1 for none; None: all are.

        Returns:
            float64 (n, F), NaN where nothing of a region is in the image.
        """
        held, frames = runs(image, len(boxes)), self._surroundings.at(image)
        out = np.empty((len(boxes), len(GROUP)))
        out[:, _REGIONS] = regions([(self.sums(i), at, end) for i, at, end in held], frames, boxes)
        out[:, _DIRECTIONS] = directions(out[:, _REGIONS], boxes)
        out[:, _POSITION] = position(frames, boxes)
        colours = [(self._colours(i), at, end) for i, at, end in held]
        out[:, _GROUND] = ground.ground(colours, self._surroundings.colours.at(image), boxes)
        for i, at, end in held:
            out[at:end, _BESIDE] = beside(self.neighbours(i), boxes[at:end])
            less = None if without is None else without[at:end]
            out[at:end, _COMPANY] = company(self.own(i), boxes[at:end], less)
        return out

    def _own(self, image: int) -> FloatArray:
        """float64 (m, 4), the category's own boxes on one image, in the file's order."""
        rows = self._dataset.rows_in(image)
        own = rows[self._dataset.annotations.category[rows] == self._category]
        return np.asarray(self._dataset.annotations.boxes[own])

    def _sums(self, image: int) -> Sums:
        """Without the category's own objects: a place is not to be known by those that stand near it."""
        own = self.own(image)
        if not len(own):
            return self._surroundings.sums(image)
        return self._surroundings.without(image, rectangles(self._surroundings.at(image), own)[:, 0])

    def _colours(self, image: int) -> ground.Colours:
        """The same of the finer grid; where nothing is hidden it is the one that all categories share."""
        shared = self._surroundings.colours.sums
        return self._colours_without_own(image) if len(self.own(image)) else shared(image)

    def _hiding_own(self, image: int) -> ground.Colours:
        layer = self._surroundings.colours
        return layer.without(image, ground.hidden(layer.at(image), self.own(image)))

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


def runs(image: int | NDArray[np.intp], n: int) -> list[tuple[int, int, int]]:
    """Which of n places are on which image: its row, the first of its places, the end of them.

    Args:
        image: the row of all places; or intp (n,), that of each one, those of one image beside each other.
        n: how many places.
    """
    if not isinstance(image, np.ndarray):
        return [(int(image), 0, n)]
    starts = [0, *((image[1:] != image[:-1]).nonzero()[0] + 1).tolist()] if n else []
    return [(int(image[at]), at, end) for at, end in zip(starts, [*starts[1:], n], strict=False)]


def regions(parts: Sequence[tuple[Sums, int, int]], frames: Frames, boxes: FloatArray) -> FloatArray:
    """float64 (n, 4 C): the image's means and deviations, and the means of two rings less those of the image.

    Args:
        parts: each image's sums, the first of its places and the end of them.
        frames: of the places.
        boxes: float64 (n, 4).
    """
    places = rectangles(frames, boxes)
    totals = over(parts, places)
    each = [end - at for _, at, end in parts]
    whole = np.repeat([sums.total for sums, _, _ in parts], each, axis=0)
    squares = np.repeat([sums.squares[-1] for sums, _, _ in parts], each, axis=0)
    squares -= over(parts, places[:, 0], squares=True)
    pooled = np.empty_like(totals)
    np.subtract(totals[:, 1:], totals[:, :2], out=pooled[:, :2])
    np.subtract(whole, totals[:, 0], out=pooled[:, 2])
    with np.errstate(invalid="ignore"):
        means = pooled[:, :, :-1] / pooled[:, :, -1:]
        image = means[:, 2]
        spread = np.sqrt(np.maximum(squares / pooled[:, 2, -1:] - image * image, 0))
    return np.concatenate([image, spread, means[:, 0] - image, means[:, 1] - image], axis=1)


def directions(around: FloatArray, boxes: FloatArray) -> FloatArray:
    """float64 (n, 4): how far the edges in both rings run one way, and how far across the box's longer side.

    What stands on a road lies along it, whichever way the road runs; what the rings alone say of that is true of one
    road only.

    Args:
        around: float64 (n, 4 C), as `regions` gives them.
        boxes: float64 (n, 4).
    """
    upright, rising = (around[:, 2 * _C + at : 4 * _C : _C] + around[:, [at]] for at in (_UPRIGHT, _RISING))
    x1, y1, x2, y2 = boxes.T
    log_aspect = np.log((x2 - x1) / (y2 - y1))
    return np.concatenate([np.hypot(upright, rising), upright * log_aspect[:, None]], axis=1)


def running(features: FloatArray) -> FloatArray:
    """float64 (n, 2): which way the edges in the near ring run, as cosine and sine of the doubled angle, clockwise from the
    right, times how far they run one way, 0 to 1; NaN where nothing of the ring is in the image.

    Args:
        features: float64 (n, F) or (n, 4 C and more), as `Around.features` gives them.
    """
    image, near = features[:, [_UPRIGHT, _RISING]], features[:, [2 * _C + _UPRIGHT, 2 * _C + _RISING]]
    return -(image + near)  # the channels tell where lightness changes, which is across an edge


def nearby(surroundings: Surroundings, image: int | NDArray[np.intp], boxes: FloatArray) -> FloatArray:
    """float64 (n, C): the means of the near ring; NaN where nothing of it is in the image.

    Args:
        surroundings: of the dataset.
        image: as in `runs`.
        boxes: float64 (n, 4).
    """
    held = [(surroundings.sums(i), at, end) for i, at, end in runs(image, len(boxes))]
    parts = over(held, rectangles(surroundings.at(image), boxes)[:, :2])
    ring = parts[:, 1] - parts[:, 0]
    with np.errstate(invalid="ignore"):
        return np.asarray(ring[:, :-1] / ring[:, -1:])


def rectangles(frames: Frames, boxes: FloatArray) -> NDArray[np.intp]:
    """intp (n, 3, 4), whole cells: what is left out, the outer edges of the near and the far ring."""
    cells = boxes * frames.scale
    size = np.sqrt((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]))[:, None]
    cells += np.maximum(_INNER * size, frames.margin) * _WAY
    # Floor of the left and the top, ceiling of the right and the bottom.
    edges = np.floor(cells * -_WAY) * -_WAY
    reach = np.ceil(np.maximum(_SHARES * size, _LEAST_CELLS))
    found = edges[:, None] + reach[:, :, None] * _WAY
    return np.asarray(np.minimum(np.maximum(found, 0), frames.most[:, None]), dtype=np.intp)


def position(frames: Frames, boxes: FloatArray) -> FloatArray:
    """float64 (n, 7): where in the image the box lies, and its size there."""
    x1, y1, x2, y2 = boxes.T
    width, height = frames.size.T
    out = np.empty((len(boxes), 7))
    out[:, 0] = x = (x1 + x2) / width - 1
    out[:, 1] = x * x
    out[:, 2] = y = (y1 + y2) / height - 1
    out[:, 3] = y * y
    out[:, 4] = y2 * (2 / height) - 1
    out[:, 5] = size = 0.5 * np.log((x2 - x1) * (y2 - y1) / (width * height))
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
