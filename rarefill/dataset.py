"""A COCO (or YOLO) dataset, read, checked, columnar.

`load` is the one door: it reads either format, finds every problem in one pass, and gives columns whose rows are
what the rest of rarefill means by an image, a category or an annotation.
"""

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill import geometry
from rarefill.errors import DataError
from rarefill.geometry import Box, Mask
from rarefill.progress import SILENT, Progress
from rarefill.scene import Pixels

if TYPE_CHECKING:
    from rarefill.checks import Settled, Table


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
        area: float64 (M,), as in the file, the box's area where the file has none or 0.
        crowd: bool (M,), COCO's iscrowd.
        segmentation: M undecoded JSON values, polygons or run lengths; b"" where there is no segmentation.
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
        format: what was read. Of YOLO, a class's index is its category's row, and its id is the index plus one;
            so writing YOLO by row gives every class its old index.
        skipped: in lenient reading, one line for each annotation or image that was left out.
        incomplete: rows of the images that lost an annotation so: something on them has no label.
    """

    path: Path
    root: Path
    format: Literal["coco", "yolo"]
    categories: tuple[Category, ...]
    images: Images
    annotations: Annotations
    skipped: tuple[str, ...] = field(default=())
    incomplete: frozenset[int] = frozenset()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The categories' names, by row."""
        return tuple(c.name for c in self.categories)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """bool (N,): the images that new ones may be made of, because no label of theirs was left out; all where none is whole."""
        whole = np.ones(len(self.images), dtype=bool)
        whole[list(self.incomplete)] = False
        return whole if whole.any() else ~whole

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
        """One annotation's pixels from its polygons or run lengths.

        None where the file has a box only, or a segmentation so thin that it covers no pixel.

        Raises:
            DataError: run lengths that only look like it.
        """
        raw = bytes(self.annotations.segmentation[row])
        if not raw:
            return None
        image = int(self.annotations.image[row])
        height, width = int(self.images.height[image]), int(self.images.width[image])
        value: Any = msgspec.json.decode(raw)
        try:
            if isinstance(value, dict):
                return geometry.mask_from_rle(value["counts"], *value["size"])
            return Mask.of(geometry.from_polygons(value, height, width))
        except ValueError as e:
            place = f"the annotation with id {self.annotations.id[row]}"
            raise DataError(f"{self.path.name}: {place}: segmentation cannot be drawn: {e}") from e

    def source(self) -> dict[str, Any]:
        """The file anew, decoded, with every key as it stands there: COCO's JSON or data.yaml.

        Raises:
            DataError: the file is gone or no longer what it was.
        """
        from rarefill import read_coco, read_yolo

        if self.format == "yolo":
            return read_yolo.document(self.path)
        return read_coco.parsed(self.path, read_coco.content(self.path))

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

        Images that lost an annotation count too: others are painted on when that is mended.

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
        if self.incomplete:
            h.update(f"incomplete {sorted(self.incomplete)}\n".encode())
        return h.hexdigest()[:16]


def load(
    path: Path,
    images: Path | None = None,
    *,
    lenient: bool = False,
    check_files: bool = True,
    named: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Dataset:
    """Read a dataset and check all of it in one pass.

    Image files are checked by their headers and ends; damage in between shows when they are read. PNG files, and in
    lenient reading JPEG files, are looked at whole, so that they can be left out.

    Args:
        path: a COCO file, YOLO's data.yaml (its `train` is read, nothing else), or a folder that holds one of them.
        images: the image folder; by default it is looked for beside the file.
        lenient: leave out bad annotations and images, and report each, instead of stopping.
        check_files: whether to look at the image files.
        named: categories that the data must have; a name that is misspelt is told before any image file is looked at.
        progress: shows the counts.

    Raises:
        DataError: a category that is not there, or the first twenty problems, each with its place, and how many more.
    """
    from rarefill import checks, image_files, read_coco, read_yolo

    path = image_files.annotations_in(path)
    problems = checks.Problems()
    yolo = path.suffix.lower() in {".yaml", ".yml"}
    if yolo:
        table, root = read_yolo.read(path, images, problems, progress, named)
    else:
        table = read_coco.read(path, problems)
        if not problems.of(checks.Section.CATEGORY):
            check_names(named, table.category_name, path.name)
        root = image_files.find_root(path, table.file_name, images, needed=check_files)
    checks.check(table, problems)
    checks.check_files(
        table, root, problems, opened=yolo, look=check_files, inside=lenient, progress=progress
    )
    settled = checks.settle(table, problems, lenient=lenient)
    dataset = _held(path, root, "yolo" if yolo else "coco", table, settled)
    for line in (*dataset.skipped[: checks.SHOWN], *_uncounted(len(dataset.skipped) - checks.SHOWN)):
        progress.say(line)
    return dataset


def _uncounted(n: int) -> list[str]:
    return [f"and {n} more left out"] if n > 0 else []


def _held(
    path: Path, root: Path, format: Literal["coco", "yolo"], table: "Table", settled: "Settled"
) -> Dataset:
    """The rows that hold, as a dataset."""
    images, rows = settled.images, settled.annotations
    new_row = np.full(len(table.image_id), -1, dtype=np.int32)
    new_row[images] = np.arange(len(images), dtype=np.int32)
    boxes, area = table.clipped[rows], table.area[rows]
    names = zip(table.category_id.tolist(), table.category_name, table.supercategory, strict=True)
    whole = len(rows) == len(table.segmentation)
    return Dataset(
        path=path,
        root=root,
        format=format,
        categories=tuple(Category(*category) for category in names),
        images=Images(
            id=table.image_id[images],
            width=table.width[images].astype(np.int32),
            height=table.height[images].astype(np.int32),
            file_name=[table.file_name[row] for row in images.tolist()],
        ),
        annotations=Annotations(
            id=table.annotation_id[rows],
            image=new_row[table.image_rows[rows]],
            category=table.category_rows[rows].astype(np.int32),
            boxes=boxes,
            area=np.where(area > 0, area, geometry.areas(boxes)),
            crowd=table.crowd[rows],
            segmentation=table.segmentation if whole else [table.segmentation[row] for row in rows.tolist()],
        ),
        skipped=settled.skipped,
        incomplete=frozenset(new_row[settled.incomplete].tolist()),
    )


def check_names(names: Iterable[str], known: Sequence[str], where: str) -> None:
    """Whether each name is that of a category, where any category is known.

    Raises:
        DataError: one is not; the message names the nearest.
    """
    for name in names:
        if known and name not in known:
            raise DataError(unknown_name(name, known, where))


def unknown_name(name: str, known: Sequence[str], where: str) -> str:
    """The one line for a name that is not there, with the nearest that is."""
    folded = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"it has: {', '.join(known)}"
    return f"no category named {name!r} in {where}; {hint}"
