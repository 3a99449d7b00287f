"""A COCO (or YOLO) dataset, read, checked, columnar.

`load` is the one door: it reads either format, finds every problem in one pass, and gives columns whose rows are
what the rest of rarefill means by an image, a category or an annotation.
"""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill import geometry
from rarefill.errors import DataError
from rarefill.geometry import Box, Mask
from rarefill.scene import Pixels


@dataclass(frozen=True, slots=True)
class Category:
    """One class as its file has it."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The images as columns, in the file's order.

    Attributes:
        id: int64 (N,), as in the file.
        width: int32 (N,), pixels.
        height: int32 (N,), pixels.
        file_name: N names as in the file, with forward slashes, relative to the image folder.
    """

    id: NDArray[np.int64]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    file_name: Sequence[str]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """The annotations as columns, in the file's order.

    Attributes:
        id: int64 (M,), as in the file.
        image: int32 (M,), row of the image.
        category: int32 (M,), row of the category.
        boxes: float64 (M, 4), x1 y1 x2 y2, inside the image.
        area: float64 (M,), as in the file, the box's area where the file has none.
        crowd: bool (M,), COCO's iscrowd.
        segmentation: M undecoded JSON values; b"" where there is no segmentation.
    """

    id: NDArray[np.int64]
    image: NDArray[np.int32]
    category: NDArray[np.int32]
    boxes: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    segmentation: Sequence[msgspec.Raw | bytes]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A whole dataset.

    Attributes:
        path: the COCO file, or YOLO's data.yaml.
        root: the folder that `file_name` is relative to.
        format: what was read.
        skipped: in lenient reading, one line for each annotation or image that was left out.
    """

    path: Path
    root: Path
    format: Literal["coco", "yolo"]
    categories: tuple[Category, ...]
    images: Images
    annotations: Annotations
    skipped: tuple[str, ...] = field(default=())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The categories' names, by row."""
        return tuple(c.name for c in self.categories)

    @cached_property
    def _by_image(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        order = np.argsort(self.annotations.image, kind="stable")
        starts = np.searchsorted(self.annotations.image[order], np.arange(len(self.images) + 1))
        return order, starts

    def rows_in(self, image: int) -> NDArray[np.intp]:
        """Rows of the annotations on one image, in the file's order."""
        order, starts = self._by_image
        return order[starts[image] : starts[image + 1]]

    def rows_of(self, category: str, *, crowds: bool = False) -> NDArray[np.intp]:
        """Rows of one category's annotations, crowds left out unless asked for."""
        held = self.annotations.category == self.category_row(category)
        return np.flatnonzero(held if crowds else held & ~self.annotations.crowd)

    def category_row(self, name: str) -> int:
        """The row of a category.

        Raises:
            DataError: no category has this name; the message names the nearest.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(unknown_name(name, self.names, self.path.name)) from None

    def box(self, row: int) -> Box:
        """One annotation's box."""
        return Box(*(float(v) for v in self.annotations.boxes[row]))

    def has_mask(self, row: int) -> bool:
        """Whether the file gives this annotation a segmentation."""
        return bool(bytes(self.annotations.segmentation[row]))

    def mask(self, row: int) -> Mask | None:
        """One annotation's pixels from its polygons or run lengths, or None where the file has a box only."""
        raw = bytes(self.annotations.segmentation[row])
        if not raw:
            return None
        image = int(self.annotations.image[row])
        height, width = int(self.images.height[image]), int(self.images.width[image])
        value: Any = msgspec.json.decode(raw)
        if isinstance(value, dict):
            return Mask.of(geometry.from_rle(value["counts"], *value["size"]))
        return Mask.of(geometry.from_polygons(value, height, width))

    def image_path(self, image: int) -> Path:
        """The file of one image."""
        return self.root / self.images.file_name[image]

    def read(self, image: int) -> Pixels:
        """One image's pixels as decoded, (H, W, C).

        Raises:
            DataError: the file is gone, unreadable, or its size is not the entry's.
        """
        from rarefill import pictures

        pixels = pictures.read(self.image_path(image))
        wanted = (int(self.images.height[image]), int(self.images.width[image]))
        if pixels.shape[:2] != wanted:
            raise DataError(
                f"{self.image_path(image)}: expected {wanted[1]}x{wanted[0]} as in {self.path.name}, "
                f"got {pixels.shape[1]}x{pixels.shape[0]}"
            )
        return pixels

    @cached_property
    def digest(self) -> str:
        """16 hex digits that name this content: the annotations as read and every image's name, size and bytes' size.

        Caches (shapes, fitted models) are keyed by it.
        """
        h = hashlib.sha256()
        for c in self.categories:
            h.update(f"{c.id}\t{c.name}\n".encode())
        a = self.annotations
        for column in (
            self.images.id,
            self.images.width,
            self.images.height,
            a.id,
            a.image,
            a.category,
            a.boxes,
            a.crowd,
        ):
            h.update(np.ascontiguousarray(column).tobytes())
        for raw in a.segmentation:
            h.update(bytes(raw))
            h.update(b"\n")
        for row, name in enumerate(self.images.file_name):
            path = self.image_path(row)
            size = path.stat().st_size if path.exists() else -1
            h.update(f"{name}\t{size}\n".encode())
        return h.hexdigest()[:16]


def unknown_name(name: str, known: Sequence[str], where: str) -> str:
    """The one line for a name that is not there, with the nearest that is."""
    folded = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"it has: {', '.join(known)}"
    return f"no category named {name!r} in {where}; {hint}"
