"""What an image looks like around a place: a small grid of channels for each image, and means over rectangles of it.

The grids are the only thing that the context model sees of pixels. They are kept on disk as one file, and summed up
so that the mean over any rectangle costs four look-ups.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.dataset import Dataset
from rarefill.files import writing
from rarefill.geometry import FloatArray
from rarefill.progress import SILENT, Progress
from rarefill.scene import Pixels

CHANNELS = (
    "lightness",
    "green to red",
    "blue to yellow",
    "deviation",
    "fine edges",
    "coarse edges",
    "grain",
    "upright or level",
    "rising or falling",
)
CELLS = 64
"""Cells along an image's longer side."""
WORK_PX = 5
"""Pixels along a cell's side that the channels are made of."""
REACH_PX = 5
"""How many of those pixels away from a cell its channels still look: resizing 1, blur 1, differences 2, rounded up."""
_FORMAT = 1  # of the cache's files; raise it when channels change
_AT_ONCE = 256  # images whose grids wait to be written
_KEPT = 256  # images whose sums stay in memory, some 600 kB each

Grid = NDArray[np.float16]
Plane = NDArray[np.floating]


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
        return cls(width, height, columns, rows, max(1, min(WORK_PX, longer // cells)))

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
        table: float64 ((rows + 1) * (columns + 1), C + 1): entry (r, c) sums all cells above r and left of c that
            count, and in its last column how many these are.
        total: float64 (C + 1,), over the whole image.
        squares: float64 ((rows + 1) * (columns + 1), C), the same of the channels' squares.
    """

    frame: Frame
    table: FloatArray
    total: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, frame: Frame, grid: NDArray[np.floating], left_out: NDArray[np.intp] | None = None) -> "Sums":
        """Sum up a grid.

        Args:
            frame: the sizes.
            grid: float (rows, columns, C).
            left_out: intp (m, 4) x1 y1 x2 y2, rectangles of cells that do not count.
        """
        counted = np.ones((*grid.shape[:2], 1))
        for x1, y1, x2, y2 in () if left_out is None else left_out.tolist():
            counted[y1:y2, x1:x2] = 0
        values = grid.astype(np.float64) * counted
        table = _summed(np.concatenate([values, counted], axis=2))
        return cls(frame, table, table[-1], _summed(values * values))

    def over(self, rectangles: NDArray[np.intp], *, squares: bool = False) -> FloatArray:
        """Sums over rectangles of whole cells: intp (n, ..., 4) x1 y1 x2 y2 inside the grid gives float64 (n, ..., C + 1).

        With `squares` they are those of the channels' squares, (n, ..., C).
        """
        return over([(self, 0, len(rectangles))], rectangles, squares=squares)


def over(
    parts: Sequence[tuple[Sums, int, int]], rectangles: NDArray[np.intp], *, squares: bool = False
) -> FloatArray:
    """`Sums.over` of several images at once: those of each image stand beside each other, from one row to before another.

    Args:
        parts: each image's sums, its first row and the end of its rows; all rows belong to one.
        rectangles: intp (n, ..., 4).
        squares: as there.
    """
    strides = np.repeat([sums.frame.columns + 1 for sums, _, _ in parts], [end - at for _, at, end in parts])
    # Right bottom, right top, left bottom, left top.
    rows = rectangles[..., (3, 1, 3, 1)] * strides.reshape(-1, *[1] * (rectangles.ndim - 1))
    rows += rectangles[..., (2, 2, 0, 0)]
    tables = [sums.squares if squares else sums.table for sums, _, _ in parts]
    corners = np.empty((*rows.shape, tables[0].shape[1]))
    for table, (_, first, end) in zip(tables, parts, strict=True):
        corners[first:end] = table[rows[first:end]]
    return np.asarray(corners[..., 0, :] - corners[..., 1, :] - corners[..., 2, :] + corners[..., 3, :])


def _summed(values: FloatArray) -> FloatArray:
    rows, columns, channels = values.shape
    table = np.zeros((rows + 1, columns + 1, channels))
    table[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    return table.reshape(-1, channels)


class Surroundings:
    """The grids of a dataset's images. May be read from many threads."""

    def __init__(self, dataset: Dataset, *, cache: Path | None = None, progress: Progress = SILENT) -> None:
        """Compute all grids, or read what an earlier run kept.

        Args:
            dataset: whose images.
            cache: folder where grids are kept from run to run; the dataset's digest, which knows the files' sizes,
                names them.
            progress: shows the computing, which takes some 10 ms an image.

        Raises:
            DataError: an image cannot be read.
            RunError: the cache cannot be written.
        """
        sizes = zip(dataset.images.width.tolist(), dataset.images.height.tolist(), strict=True)
        self.frames = tuple(Frame.of(*size) for size in sizes)
        self._starts = np.cumsum([0, *(frame.cells for frame in self.frames)])
        self._values = _kept_or_made(dataset, self.frames, int(self._starts[-1]), cache, progress)
        self.sums = lru_cache(maxsize=_KEPT)(self._sums)
        self._frames = Frames.of(self.frames)
        self._one = self._frames.at(np.zeros(1, dtype=np.intp)) if len(set(self.frames)) == 1 else None

    def at(self, image: int | NDArray[np.intp]) -> Frames:
        """The frames of places: `image` is the row of all of them, or that of each one."""
        return self._frames.at(np.atleast_1d(image)) if self._one is None else self._one

    def __len__(self) -> int:
        return len(self.frames)

    def grid(self, image: int) -> Grid:
        """float16 (rows, columns, C) of one image."""
        frame = self.frames[image]
        flat = self._values[self._starts[image] : self._starts[image + 1]]
        return np.asarray(flat).reshape(frame.rows, frame.columns, len(CHANNELS))

    def _sums(self, image: int) -> Sums:
        return Sums.of(self.frames[image], self.grid(image))


def channels(picture: NDArray[np.uint8], frame: Frame) -> NDArray[np.float32]:
    """float32 (rows, columns, C), each some 0 to 1 or -1 to 1.

    Args:
        picture: uint8 (rows * work_px, columns * work_px, 3) RGB.
        frame: the sizes.
    """
    import cv2

    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100
    light: Plane = np.ascontiguousarray(lab[:, :, 0])
    soft: Plane = np.asarray(cv2.blur(light, (3, 3), borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)
    dx, dy = _differences(light, 1)
    wide_x, wide_y = _differences(soft, 2)
    xx, yy, xy = (_pooled(v, frame) for v in (dx * dx, dy * dy, dx * dy))
    strength = xx + yy + np.float32(1e-5)
    level = _pooled(light, frame)
    spread = np.maximum(_pooled(light * light, frame) - level * level, 0)
    return np.stack(
        [
            level,
            _pooled(lab[:, :, 1], frame),
            _pooled(lab[:, :, 2], frame),
            np.sqrt(spread),
            np.sqrt(xx + yy),
            np.sqrt(_pooled(wide_x * wide_x + wide_y * wide_y, frame)),
            np.sqrt(_pooled(np.abs(light - soft), frame)),
            (xx - yy) / strength,
            2 * xy / strength,
        ],
        axis=2,
    ).astype(np.float32)


def _differences(values: Plane, step: int) -> tuple[Plane, Plane]:
    """Central differences right and down; beyond the edge the picture goes on as its last pixel."""
    padded = np.pad(values, step, mode="edge")
    inside = slice(step, -step)
    return (
        (padded[inside, 2 * step :] - padded[inside, : -2 * step]) / 2,
        (padded[2 * step :, inside] - padded[: -2 * step, inside]) / 2,
    )


def _pooled(values: Plane, frame: Frame) -> Plane:
    blocks = values.reshape(frame.rows, frame.work_px, frame.columns, frame.work_px)
    return np.asarray(blocks.mean(axis=(1, 3)))


def picture(dataset: Dataset, image: int, frame: Frame) -> NDArray[np.uint8]:
    """uint8 (rows * work_px, columns * work_px, 3): one image in the size that `channels` takes."""
    import cv2

    width, height = frame.columns * frame.work_px, frame.rows * frame.work_px
    pixels = _decoded(dataset, image, max(width, height))
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))


def _decoded(dataset: Dataset, image: int, longer: int) -> Pixels:
    """RGB; large JPEG files at a half, a quarter or an eighth of their size, which saves most of the time."""
    import cv2

    path = dataset.image_path(image)
    spare = max(int(dataset.images.width[image]), int(dataset.images.height[image])) // longer
    if spare >= 2 and path.suffix.lower() in {".jpg", ".jpeg"} and path.is_file():
        flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}[
            8 if spare >= 8 else 4 if spare >= 4 else 2
        ]
        found = cv2.imdecode(np.fromfile(path, dtype=np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if found is not None:
            return np.ascontiguousarray(found[:, :, ::-1])
    return pictures.rgb(dataset.read(image))


def _made(dataset: Dataset, frames: Sequence[Frame], progress: Progress) -> Iterator[Grid]:
    """The grids in the order of the images, made on all cores."""

    def one(image: int) -> Grid:
        return channels(picture(dataset, image, frames[image]), frames[image]).astype(np.float16)

    workers = os.cpu_count() or 1
    with progress.bar("surroundings", len(frames), "images") as bar, ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(frames), _AT_ONCE):
            for grid in pool.map(one, range(first, min(first + _AT_ONCE, len(frames)))):
                yield grid
                bar.advance()


def _kept_or_made(
    dataset: Dataset, frames: Sequence[Frame], n_cells: int, cache: Path | None, progress: Progress
) -> Grid:
    """float16 (cells of all images, C), mapped from the cache's file where there is one."""
    shape = (n_cells, len(CHANNELS))
    if cache is None:
        values = np.empty(shape, dtype=np.float16)
        at = 0
        for grid in _made(dataset, frames, progress):
            n = grid.shape[0] * grid.shape[1]
            values[at : at + n] = grid.reshape(n, -1)
            at += n
        return values
    path = cache / f"surroundings-{dataset.digest}-{_FORMAT}.f16"
    if not path.is_file() or path.stat().st_size != 2 * n_cells * len(CHANNELS):
        with writing(path) as f:
            for grid in _made(dataset, frames, progress):
                f.write(grid.astype("<f2").tobytes())
    return np.memmap(path, dtype="<f2", mode="r", shape=shape) if n_cells else np.empty(shape, np.float16)
