"""Which cells of size x place x surroundings x light a category's objects fill, real and planned.

A cell is plausible as far as the prior and the context draw it: what is drawn and can be is counted, each draw by its
odds. Coverage is the share of that plausible mass in cells that hold at least one object.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray

if TYPE_CHECKING:
    from rarefill.layouts.context import Context

_SIZES: Final = 4
_GRID: Final = 3
_CLUSTERS: Final = 6
_LIGHTS: Final = 3
_SHAPE: Final = (_SIZES, _GRID * _GRID, _CLUSTERS, _LIGHTS)
Edges = tuple[float, float, float, float]
"""A box: x1 y1 x2 y2."""
N_CELLS: Final = int(np.prod(_SHAPE))
_NEED: Final = 0.2
"""Weight of each axis against the log odds: a bin that holds three times as many makes a place 1.2 times less wanted."""
_HELD: Final = 3.0
"""Weight of the cell itself: one that holds an object is 8 times less wanted than an empty one."""
_MOST_ODDS: Final = 4.0  # log: one draw in a perfect place shall not outweigh all others
_SAME: Final = 0.3
"""IoU with an object planned on another copy of the background above which a place counts as used before."""
SAME_COST: Final = 3.0
"""What it takes from a place's log odds."""
_AT_ONCE: Final = 2000  # real objects
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

    def of(self, image: int | NDArray[np.intp], boxes: FloatArray, frame: FloatArray) -> NDArray[np.intp]:
        """The cell of each place, 0 to `N_CELLS` - 1.

        Args:
            image: row of the background; or intp (n,), that of each place, those of one image beside each other.
            boxes: float64 (n, 4) in its pixels.
            frame: float64 (1, 2) or (n, 2), width and height of the background.
        """
        x1, y1, x2, y2 = boxes.T
        area = np.maximum(x2 - x1, 1e-6) * np.maximum(y2 - y1, 1e-6)
        size = np.searchsorted(self._edges, 0.5 * np.log(area))
        x, y = (
            np.clip(((low + high) * (_GRID / 2 / side)).astype(np.intp), 0, _GRID - 1)
            for low, high, side in ((x1, x2, frame[:, 0]), (y1, y2, frame[:, 1]))
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
    _used: dict[int, list[Edges]] = field(default_factory=dict)
    _margins: list[list[int]] = field(init=False)
    _wished: list[FloatArray] = field(init=False)
    _filled: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        counts = (self.real + self.planned).reshape(_SHAPE)
        axes = range(len(_SHAPE))
        margins = [counts.sum(axis=tuple(b for b in axes if b != a)) for a in axes]
        self._margins = [held.tolist() for held in margins]
        self._wished = [-_NEED * np.log1p(held) for held in margins]
        self._filled = -_HELD * np.log1p(self.real + self.planned)

    @classmethod
    def begin(cls, dataset: Dataset, category: str, cells: Cells) -> "Coverage":
        """With the category's real objects counted."""
        rows = dataset.rows_of(category)
        rows = rows[np.argsort(dataset.annotations.image[rows], kind="stable")]
        real = np.zeros(N_CELLS, dtype=np.int64)
        for some in np.array_split(rows, max(1, len(rows) // _AT_ONCE)):
            image = dataset.annotations.image[some].astype(np.intp)
            frames = np.stack([dataset.images.width[image], dataset.images.height[image]], axis=1).astype(
                float
            )
            held = cells.of(image, dataset.annotations.boxes[some], frames)
            real += np.bincount(held, minlength=N_CELLS)
        return cls(cells, real)

    def wish(self, cells: NDArray[np.intp]) -> FloatArray:
        """How much less each place is needed for what its cell, and its size, place, surroundings and light hold already.

        The cell keeps objects from standing where there is one. Of hundreds of cells ten real objects leave all but a
        few empty: along each of the four by itself it shows what kind of places is lacking.

        Args:
            cells: intp (n,).

        Returns:
            float64 (n,), 0 and below.
        """
        size, place, kind, light = self._wished
        need = np.add.outer(np.add.outer(size, place), np.add.outer(kind, light)).reshape(-1) + self._filled
        return np.asarray(need[cells])

    def used(self, image: int) -> list[Edges]:
        """Where the last objects were planned on earlier copies of a background."""
        return list(self._used.get(image, ()))

    def draw(self, cell: NDArray[np.intp], log_odds: FloatArray) -> None:
        """Count places that were drawn and could be, by their odds."""
        self.mass += np.bincount(cell, np.exp(np.minimum(log_odds, _MOST_ODDS)), N_CELLS)

    def add(self, image: int, box: Edges, cell: int) -> None:
        """Count an object planned at a box, of a cell."""
        self.planned[cell] += 1
        self._filled[cell] = -_HELD * math.log1p(self.real[cell] + self.planned[cell])
        rest = cell
        for axis in reversed(range(len(_SHAPE))):
            rest, at = divmod(rest, _SHAPE[axis])
            self._margins[axis][at] = n = self._margins[axis][at] + 1
            self._wished[axis][at] = -_NEED * math.log1p(n)
        remember(self._used.setdefault(image, []), box)

    def covered(self) -> Covered | None:
        """Before and after; None where nothing was drawn."""
        total = float(self.mass.sum())
        if not total:
            return None
        held = self.real > 0
        before, after = (float(self.mass[where].sum()) / total for where in (held, held | (self.planned > 0)))
        return Covered(before, after)


def remember(used: list[Edges], box: Edges) -> None:
    """Add a box to those of a background; the oldest are forgotten."""
    used.append(box)
    del used[:-_REMEMBERED]


def repeats(box: Edges, used: Iterable[Edges]) -> bool:
    """Whether a box has much in common with one of others."""
    x1, y1, x2, y2 = box
    for left, top, right, bottom in used:
        if left < x2 and right > x1 and top < y2 and bottom > y1:
            common = (min(x2, right) - max(x1, left)) * (min(y2, bottom) - max(y1, top))
            # Their union is the sum of both less what they have in common.
            if (1 + _SAME) * common > _SAME * ((x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)):
                return True
    return False
