"""Which cells of size x place x surroundings x light a category's objects fill, real and planned.

A cell is plausible as far as the prior and the context draw it: what is drawn and can be is counted, each draw by its
odds. Coverage is the share of that plausible mass in cells that hold at least one object.
"""

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
N_CELLS: Final = int(np.prod(_SHAPE))
_NEED: Final = 0.5
"""Weight of each axis against the log odds: a bin that holds three times as many makes a place 1.7 times less wanted."""
_MOST_ODDS: Final = 4.0  # log: one draw in a perfect place shall not outweigh all others
_SAME: Final = 0.3
"""IoU with an object planned on another copy of the background above which a place counts as used before."""
_SAME_COST: Final = 3.0
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
    _margins: list[NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        counts = (self.real + self.planned).reshape(_SHAPE)
        axes = range(len(_SHAPE))
        self._margins = [counts.sum(axis=tuple(b for b in axes if b != a)) for a in axes]

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

    def wish(self, cell: NDArray[np.intp]) -> FloatArray:
        """How much less each place is needed for what its size, place, surroundings and light hold already.

        Counted along each of the four by itself: of hundreds of cells ten real objects leave all but a few empty.

        Returns:
            float64 (n,), 0 and below.
        """
        at = np.unravel_index(cell, _SHAPE)
        held = [np.log1p(count[i]) for count, i in zip(self._margins, at, strict=True)]
        return np.asarray(-_NEED * np.sum(held, axis=0))

    def again(self, image: int, boxes: FloatArray) -> FloatArray:
        """What it costs to repeat a place of an earlier copy of the background, float64 (n,), 0 and below."""
        used = self._used.get(image)
        return repeats(boxes, np.array(used)) if used else np.zeros(len(boxes))

    def draw(self, cell: NDArray[np.intp], log_odds: FloatArray) -> None:
        """Count places that were drawn and could be, by their odds."""
        np.add.at(self.mass, cell, np.exp(np.minimum(log_odds, _MOST_ODDS)))

    def add(self, image: int, box: FloatArray, cell: int) -> None:
        """Count a planned object."""
        self.planned[cell] += 1
        for count, i in zip(self._margins, np.unravel_index(cell, _SHAPE), strict=True):
            count[i] += 1
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


def repeats(boxes: FloatArray, used: FloatArray) -> FloatArray:
    """What it costs places (n, 4) to be much the same as one of those used before (m, 4), float64 (n,), 0 and below."""
    x1, y1, x2, y2 = boxes.T[:, :, None]
    left, top, right, bottom = used.T
    across, down = np.minimum(x2, right) - np.maximum(x1, left), np.minimum(y2, bottom) - np.maximum(y1, top)
    common = np.maximum(across, 0) * np.maximum(down, 0)
    # Their union is the sum of both less what they have in common.
    same = (1 + _SAME) * common > _SAME * ((x2 - x1) * (y2 - y1) + (right - left) * (bottom - top))
    return np.where(same.any(axis=1), -_SAME_COST, 0.0)
