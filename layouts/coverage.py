"""Which cells of size x place x surroundings x light a category's objects fill, real and planned.

A cell is plausible as far as the prior and the context draw it: what is drawn and can be is counted, each draw by its
odds. Coverage is the share of that plausible mass in cells that hold at least one object.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import BoolArray, FloatArray

if TYPE_CHECKING:
    from rarefill.layouts.context import Context

_SIZES: Final = 4
_GRID: Final = 3
_CLUSTERS: Final = 6
_LIGHTS: Final = 3
_SHAPE: Final = (_SIZES, _GRID * _GRID, _CLUSTERS, _LIGHTS)
N_CELLS: Final = int(np.prod(_SHAPE))
_FIRST: Final = np.cumsum((0, *_SHAPE[:-1]))
"""Where the bins of each axis begin when all axes' stand in one row."""
_NEED: Final = 0.2
"""Weight of each axis against the log odds: a bin that holds three times as many makes a place 1.2 times less wanted."""
_HELD: Final = 3.0
"""Weight of the cell itself: one that holds an object is 8 times less wanted than an empty one."""
_MOST_ODDS: Final = 4.0  # log: one draw in a perfect place shall not outweigh all others
_SAME: Final = 0.3
"""IoU with an object planned on another copy of the background above which a place counts as used before."""
SAME_COST: Final = 3.0
"""What it takes from a place's log odds."""
_REMEMBERED: Final = 16
"""Planned boxes kept for each background; memory stays flat however long a plan."""


@dataclass(frozen=True, slots=True)
class Covered:
    """What of the plausible cells holds an object of a category, 0 to 1.

    Attributes:
        before: by real objects.
        after: by real and planned ones.
    """

    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.before:.0%} of its plausible places were like a real object's, {self.after:.0%} with the planned ones"


class Cells:
    """The cells of one category's places, by number."""

    def __init__(self, log_sizes: FloatArray, context: "Context | None") -> None:
        """`log_sizes`: float64 (n,), log of sqrt(width * height) as the prior draws them: bins hold as many each."""
        self._edges = np.quantile(log_sizes, np.arange(1, _SIZES) / _SIZES)
        self._context = context

    def of(self, image: int, boxes: FloatArray, width: int, height: int) -> NDArray[np.intp]:
        """The cell of each place, 0 to `N_CELLS` - 1.

        Args:
            image: row of the background.
            boxes: float64 (n, 4) in its pixels.
            width: of the background.
            height: of the background.
        """
        x1, y1, x2, y2 = boxes.T
        area = np.maximum(x2 - x1, 1e-6) * np.maximum(y2 - y1, 1e-6)
        size = np.searchsorted(self._edges, 0.5 * np.log(area))
        x, y = (
            np.clip(((low + high) * (_GRID / 2 / side)).astype(np.intp), 0, _GRID - 1)
            for low, high, side in ((x1, x2, width), (y1, y2, height))
        )
        cell = (size * _GRID + y) * _GRID + x
        if self._context is None:
            return np.asarray(cell * (_CLUSTERS * _LIGHTS))
        cluster, light = self._context.cells(image, boxes).astype(np.intp).T
        return np.asarray((cell * _CLUSTERS + np.clip(cluster, 0, _CLUSTERS - 1)) * _LIGHTS + light)


@dataclass(slots=True, eq=False)
class Coverage:
    """One category's counts while a plan is made. Not shared between threads.

    Attributes:
        cells: of its places.
        real: int64 (N_CELLS,), real objects in each cell.
        planned: int64 (N_CELLS,).
        mass: float64 (N_CELLS,), how plausible each cell has proved.
    """

    cells: Cells
    real: NDArray[np.int64]
    planned: NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_CELLS, dtype=np.int64))
    mass: FloatArray = field(default_factory=lambda: np.zeros(N_CELLS))
    _used: dict[int, list[FloatArray]] = field(default_factory=dict)
    _margins: NDArray[np.int64] = field(init=False)
    _wished: FloatArray = field(init=False)
    _filled: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        counts = (self.real + self.planned).reshape(_SHAPE)
        axes = range(len(_SHAPE))
        self._margins = np.concatenate([counts.sum(axis=tuple(b for b in axes if b != a)) for a in axes])
        self._wished = -_NEED * np.log1p(self._margins)
        self._filled = -_HELD * np.log1p(self.real + self.planned)

    @classmethod
    def begin(cls, dataset: Dataset, category: str, cells: Cells) -> "Coverage":
        """With the category's real objects counted."""
        rows = dataset.rows_of(category)
        images, boxes = dataset.annotations.image[rows], dataset.annotations.boxes[rows]
        real = np.zeros(N_CELLS, dtype=np.int64)
        for image in np.unique(images):
            size = int(dataset.images.width[image]), int(dataset.images.height[image])
            np.add.at(real, cells.of(int(image), boxes[images == image], *size), 1)
        return cls(cells, real)

    def wish(self, cells: NDArray[np.intp], bins: NDArray[np.intp]) -> FloatArray:
        """How much less each place is needed for what its cell, and its size, place, surroundings and light hold already.

        The cell keeps objects from standing where there is one. Of hundreds of cells ten real objects leave all but a
        few empty: along each of the four by itself it shows what kind of places is lacking.

        Args:
            cells: intp (n,).
            bins: intp (4, n), as `bins` gives them.

        Returns:
            float64 (n,), 0 and below.
        """
        return np.asarray(self._wished[bins].sum(axis=0) + self._filled[cells])

    def again(self, image: int, boxes: FloatArray) -> FloatArray:
        """What it costs to repeat a place of an earlier copy of the background, float64 (n,), 0 and below."""
        used = self._used.get(image)
        return repeats(boxes, np.array(used)) if used else np.zeros(len(boxes))

    def draw(self, cell: NDArray[np.intp], log_odds: FloatArray) -> None:
        """Count places that were drawn and could be, by their odds."""
        np.add.at(self.mass, cell, np.exp(np.minimum(log_odds, _MOST_ODDS)))

    def add(self, image: int, box: FloatArray, cell: int, at: NDArray[np.intp]) -> None:
        """Count an object planned at a box (4,), of a cell and its bins, intp (4,)."""
        self.planned[cell] += 1
        self._filled[cell] = -_HELD * math.log1p(self.real[cell] + self.planned[cell])
        self._margins[at] += 1
        self._wished[at] = -_NEED * np.log1p(self._margins[at])
        used = self._used.setdefault(image, [])
        used.append(box)
        del used[:-_REMEMBERED]

    def covered(self) -> Covered | None:
        """Before and after; None where nothing was drawn."""
        total = float(self.mass.sum())
        if not total:
            return None
        held = self.real > 0
        before, after = (float(self.mass[where].sum()) / total for where in (held, held | (self.planned > 0)))
        return Covered(before, after)


def bins(cell: NDArray[np.intp] | int) -> NDArray[np.intp]:
    """Where the counts of a cell's size, place, surroundings and light stand: intp (4,), or (4, n) for n cells."""
    at = np.array(np.unravel_index(cell, _SHAPE))
    return np.asarray((at.T + _FIRST).T)


def repeats(boxes: FloatArray, used: FloatArray) -> FloatArray:
    """What it costs places (n, 4) to be much the same as one of those used before (m, 4), float64 (n,), 0 and below."""
    found = same(boxes.T[:, :, None], used.T)
    return np.where(found.any(axis=1), -SAME_COST, 0.0)


def same(boxes: FloatArray, used: FloatArray) -> BoolArray:
    """Which boxes are much the same as others: (4, ...) each, in shapes that go together."""
    x1, y1, x2, y2 = boxes
    left, top, right, bottom = used
    across, down = np.minimum(x2, right) - np.maximum(x1, left), np.minimum(y2, bottom) - np.maximum(y1, top)
    common = np.maximum(across, 0) * np.maximum(down, 0)
    # Their union is the sum of both less what they have in common.
    both = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)
    return np.asarray((1 + _SAME) * common > _SAME * both)
