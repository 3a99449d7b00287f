"""What an image looks like around a place: a small grid of channels for each image, a finer one of its colours alone, and
means over rectangles of them.

The grids are the only thing that the context model sees of pixels. They are kept on disk as two files.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.dataset import Dataset
from rarefill.files import writing
from rarefill.layouts.ground import Colours
from rarefill.layouts.sums import Frame, Frames, Sums
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
_COLOURS = 3  # channels of the finer grid: lightness, green to red, blue to yellow, as CIE Lab in 8 bits
_FORMAT = 2  # of the cache's files; raise it when channels change
_AT_ONCE = 256  # images whose grids wait to be written
_KEPT = 256  # images whose sums stay in memory, some 600 kB each
_KEPT_COLOURS = 128  # some 800 kB each

Grid = NDArray[np.float16]
Fine = NDArray[np.uint8]
Plane = NDArray[np.floating]
S = TypeVar("S")


class Layer(Generic[S]):
    """One grid of each image, all of the same channels. May be read from many threads."""

    def __init__(
        self,
        frames: Sequence[Frame],
        values: NDArray[Any],
        summed: Callable[[Frame, NDArray[Any], NDArray[np.intp] | None], S],
        kept: int,
    ) -> None:
        """Take what was computed.

        Args:
            frames: of each image.
            values: (cells of all images, C), one image behind the other.
            summed: sums up a grid, without some rectangles of cells.
            kept: sums that stay in memory.
        """
        self._summed = summed
        self.frames = tuple(frames)
        self._starts = np.cumsum([0, *(frame.cells for frame in frames)])
        self._values = values
        self.sums = lru_cache(maxsize=kept)(self._sums)
        self._frames = Frames.of(self.frames)
        self._one = self._frames.at(np.zeros(1, dtype=np.intp)) if len(set(self.frames)) == 1 else None

    def at(self, image: int | NDArray[np.intp]) -> Frames:
        """The frames of places: `image` is the row of all of them, or that of each one."""
        return self._frames.at(np.atleast_1d(image)) if self._one is None else self._one

    def __len__(self) -> int:
        return len(self.frames)

    def grid(self, image: int) -> NDArray[Any]:
        """(rows, columns, C) of one image."""
        frame = self.frames[image]
        flat = self._values[self._starts[image] : self._starts[image + 1]]
        return np.asarray(flat).reshape(frame.rows, frame.columns, -1)

    def without(self, image: int, left_out: NDArray[np.intp]) -> S:
        """One image's sums without rectangles of cells, as `Sums.of` takes them."""
        return self._summed(self.frames[image], self.grid(image), left_out)

    def _sums(self, image: int) -> S:
        return self._summed(self.frames[image], self.grid(image), None)


class Surroundings(Layer[Sums]):
    """The grids of a dataset's images: float16 `CHANNELS`.

    Attributes:
        colours: the finer grids, uint8 lightness, green to red, blue to yellow.
    """

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
        frames = tuple(Frame.of(*size) for size in sizes)
        fine = tuple(frame.fine for frame in frames)
        shapes = (sum(f.cells for f in frames), len(CHANNELS)), (sum(f.cells for f in fine), _COLOURS)
        values, colours = _kept_or_made(dataset, frames, shapes, cache, progress)
        super().__init__(frames, values, Sums.of, _KEPT)
        self.colours = Layer(fine, colours, Colours.of, _KEPT_COLOURS)


def grids(picture: NDArray[np.uint8], frame: Frame) -> tuple[Grid, Fine]:
    """Both grids of one image.

    Args:
        picture: uint8 (rows * work_px, columns * work_px, 3) RGB.
        frame: the sizes.

    Returns:
        float16 (rows, columns, C), each channel some 0 to 1 or -1 to 1; uint8 of `frame.fine`.
    """
    import cv2

    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    fine = np.stack([_pooled(band, frame.fine) for band in np.moveaxis(lab, 2, 0)], axis=2)
    colours = np.clip(np.rint(fine * _IN_8_BITS + _FROM), 0, 255).astype(np.uint8)
    return _channels(np.asarray(lab / np.float32(100), np.float32), frame).astype(np.float16), colours


_IN_8_BITS, _FROM = np.array([2.55, 1, 1], dtype=np.float32), np.array([0, 128, 128], dtype=np.float32)


def _channels(lab: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """float32 (rows, columns, C) of CIE Lab in hundreds."""
    import cv2

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


def _made(dataset: Dataset, frames: Sequence[Frame], progress: Progress) -> Iterator[tuple[Grid, Fine]]:
    """The grids in the order of the images, made on all cores."""

    def one(image: int) -> tuple[Grid, Fine]:
        return grids(picture(dataset, image, frames[image]), frames[image])

    workers = os.cpu_count() or 1
    with progress.bar("surroundings", len(frames), "images") as bar, ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(frames), _AT_ONCE):
            for found in pool.map(one, range(first, min(first + _AT_ONCE, len(frames)))):
                yield found
                bar.advance()


def _kept_or_made(
    dataset: Dataset,
    frames: Sequence[Frame],
    shapes: tuple[tuple[int, int], tuple[int, int]],
    cache: Path | None,
    progress: Progress,
) -> tuple[Grid, Fine]:
    """Both grids of all images, (cells of all images, C) each, mapped from the cache's files where there are some."""
    if cache is None:
        channels, colours = np.empty(shapes[0], np.float16), np.empty(shapes[1], np.uint8)
        at = fine_at = 0
        for grid, fine in _made(dataset, frames, progress):
            n, fine_n = (g.shape[0] * g.shape[1] for g in (grid, fine))
            channels[at : at + n], colours[fine_at : fine_at + fine_n] = (
                grid.reshape(n, -1),
                fine.reshape(fine_n, -1),
            )
            at, fine_at = at + n, fine_at + fine_n
        return channels, colours
    kinds = ("<f2", "u1")
    paths = [cache / f"surroundings-{dataset.digest}-{_FORMAT}.{end}" for end in ("f16", "u8")]
    sizes = [np.dtype(kind).itemsize * n * c for kind, (n, c) in zip(kinds, shapes, strict=True)]
    if any(not p.is_file() or p.stat().st_size != size for p, size in zip(paths, sizes, strict=True)):
        with writing(paths[0]) as f, writing(paths[1]) as g:
            for grid, fine in _made(dataset, frames, progress):
                f.write(grid.astype("<f2").tobytes())
                g.write(fine.tobytes())
    channels, colours = (
        np.memmap(path, dtype=kind, mode="r", shape=shape) if shape[0] else np.empty(shape, kind)
        for path, kind, shape in zip(paths, kinds, shapes, strict=True)
    )
    return channels, colours
