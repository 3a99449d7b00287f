"""One image's grid of channels, summed up so that the mean over any rectangle costs four look-ups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray

Table = NDArray[Any]
CELLS = 64
"""Cells along an image's longer side."""
WORK_PX = 6
"""Pixels along a cell's side that the channels are made of."""
FINE_PX = 2
"""Of those, pixels along a fine cell's side."""
REACH_PX = 5
"""How many of those pixels away from a cell its channels still look: resizing 1, blur 1, differences 2, rounded up."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of one image and of its grid.

    Attributes:
        width: of the image, pixels.
        height: of the image, pixels.
        columns: of the grid.
        rows: of the grid.
        work_px: pixels along a cell's side in the picture that the channels are made of.
    """

    width: int
    height: int
    columns: int
    rows: int
    work_px: int

    @classmethod
    def of(cls, width: int, height: int) -> "Frame":
        """Cells as square as can be, none smaller than a pixel."""
        longer = max(width, height)
        cells = min(CELLS, longer)
        columns, rows = (max(1, round(side * cells / longer)) for side in (width, height))
        work_px = min(WORK_PX, longer // cells)
        return cls(width, height, columns, rows, max(1, work_px - work_px % FINE_PX))

    @property
    def fine(self) -> "Frame":
        """The same image in fine cells, a whole number of which fills each cell."""
        each = max(1, self.work_px // FINE_PX)
        return Frame(self.width, self.height, self.columns * each, self.rows * each, self.work_px // each)

    @property
    def cells(self) -> int:
        return self.columns * self.rows

    @property
    def margin(self) -> int:
        """Cells around a box that its own pixels may reach."""
        return -(-REACH_PX // self.work_px)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The frames of places, as columns: k rows are those of k places, a single one is that of all of them.

    Attributes:
        size: float64 (k, 2), width and height of the image, pixels.
        scale: float64 (k, 4), cells in a pixel along x, y, x, y.
        most: float64 (k, 4), columns and rows of the grid, twice.
        margin: float64 (k, 1), cells around a box that its own pixels may reach.
    """

    size: FloatArray
    scale: FloatArray
    most: FloatArray
    margin: FloatArray

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> "Frames":
        size = np.array([(f.width, f.height) for f in frames], dtype=float).reshape(-1, 2)
        cells = np.array([(f.columns, f.rows) for f in frames], dtype=float).reshape(-1, 2)
        margin = np.array([[f.margin] for f in frames], dtype=float).reshape(-1, 1)
        return cls(size, np.tile(cells / size, 2), np.tile(cells, 2), margin)

    def at(self, rows: NDArray[np.intp]) -> "Frames":
        """Some of them."""
        return Frames(self.size[rows], self.scale[rows], self.most[rows], self.margin[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """One image's grid, summed up from the left top: a summed-area table (Crow, SIGGRAPH 1984).

    Attributes:
        frame: the sizes.
        table: float64 (uint32 of unsigned) ((rows + 1) * (columns + 1), C + 1): entry (r, c) sums all cells above r and left of c that
            count, and in its last column how many these are.
        total: of its kind (C + 1,), over the whole image.
        squares: of its kind ((rows + 1) * (columns + 1), C), the same of the channels' squares.
    """

    frame: Frame
    table: Table
    total: Table
    squares: Table

    @classmethod
    def of(
        cls,
        frame: Frame,
        grid: NDArray[np.number],
        left_out: NDArray[np.intp] | None = None,
        *,
        squares: bool = True,
    ) -> "Sums":
        """Sum up a grid.

        Args:
            frame: the sizes.
            grid: float or unsigned of at most 16 bits (rows, columns, C), of these at most 65,536 cells.
            left_out: intp (m, 4) x1 y1 x2 y2, rectangles of cells that do not count.
            squares: whether to sum up those, too.
        """
        kind: type[np.number] = np.uint32 if grid.dtype.kind == "u" else np.float64
        counted = np.ones((*grid.shape[:2], 1), dtype=kind)
        for x1, y1, x2, y2 in () if left_out is None else left_out.tolist():
            counted[y1:y2, x1:x2] = 0
        values = grid.astype(kind) * counted
        table = _summed(np.concatenate([values, counted], axis=2))
        return cls(frame, table, table[-1], _summed(values * values if squares else values[:, :, :0]))

    def over(self, rectangles: NDArray[np.intp], *, squares: bool = False) -> Table:
        """Sums over rectangles of whole cells: intp (n, ..., 4) x1 y1 x2 y2 inside the grid gives (n, ..., C + 1).

        With `squares` they are those of the channels' squares, (n, ..., C).
        """
        return over([(self, 0, len(rectangles))], rectangles, squares=squares)


def over(
    parts: Sequence[tuple[Sums, int, int]], rectangles: NDArray[np.intp], *, squares: bool = False
) -> Table:
    """`Sums.over` of several images at once: those of each image stand beside each other, from one row to before another.

    Args:
        parts: each image's sums, its first row and the end of its rows; all rows belong to one.
        rectangles: intp (n, ..., 4).
        squares: as there.
    """
    strides = np.repeat([sums.frame.columns + 1 for sums, _, _ in parts], [end - at for _, at, end in parts])
    sides = np.moveaxis(rectangles, -1, 0)
    # Right bottom, right top, left bottom, left top.
    rows = sides[[3, 1, 3, 1]] * strides.reshape(-1, *[1] * (rectangles.ndim - 2))
    rows += sides[[2, 2, 0, 0]]
    tables = [sums.squares if squares else sums.table for sums, _, _ in parts]
    corners = np.empty((*rows.shape, tables[0].shape[1]), dtype=tables[0].dtype)
    for table, (_, first, end) in zip(tables, parts, strict=True):
        for held, at in zip(corners, rows, strict=True):
            # Several times as fast as table[at[first:end]], which looks whether each row exists, and copies twice.
            table.take(at[first:end], axis=0, out=held[first:end], mode="clip")
    found = corners[0] - corners[1]  # of unsigned ones what falls below 0 comes back
    found -= corners[2]
    found += corners[3]
    return np.asarray(found)


def _summed(values: Table) -> Table:
    rows, columns, channels = values.shape
    table = np.zeros((rows + 1, columns + 1, channels), dtype=values.dtype)
    np.cumsum(values, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    return table.reshape((rows + 1) * (columns + 1), channels)
