"""What a reader found, and what is wrong with it: every problem in one pass, each with its place.

Readers fill a `Table`; `check` looks at its columns; `settle` gives the rows that hold, or raises with the list.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill import image_files, segments
from rarefill.errors import DataError
from rarefill.progress import Progress

Ids = NDArray[np.int64]
UNREADABLE = int(np.iinfo(np.int64).min)
"""Stands in a column for a value that was already reported as wrong; nothing more is said of it."""
QUOTED = "; write it without quotes"
"""Said of each such id; some programs quote all of them."""
ROUNDING_PX = 1.0
"""How far a box may stick out of its image: tools round outwards. It is clipped."""
SHOWN = 20
_Problem = tuple["Section", int, str]
_ROW = re.compile(r"\[\d+\]")
_LINKS = 3  # shown of links out of the image folder: whole datasets are made of them


class Section(IntEnum):
    """Where a problem lies. Those of the file and its categories cannot be left out."""

    FILE = 0
    CATEGORY = 1
    IMAGE = 2
    ANNOTATION = 3


class Problems:
    """Everything that is wrong, in the order of the file."""

    def __init__(self) -> None:
        self._lines: list[tuple[Section, int, str]] = []

    def add(self, section: Section, row: int, line: str) -> None:
        """Note one problem: `row` is its place in the file's own list, `line` says all."""
        self._lines.append((section, row, line))

    def __len__(self) -> int:
        return len(self._lines)

    def of(self, section: Section) -> dict[int, list[str]]:
        """The lines of one section by row."""
        out: dict[int, list[str]] = {}
        for held, row, line in self._lines:
            if held == section:
                out.setdefault(row, []).append(line)
        return out

    def error(self) -> DataError:
        """The first twenty lines and the count of the rest.

        Of links out of the image folder the first three are shown, of quoted ids the first of each key.
        """
        ordered = sorted(self._lines, key=lambda problem: problem[:2])
        n_problems = len(ordered)
        ordered = _quoted_once(ordered)
        links = [
            line for section, _, line in ordered if section == Section.IMAGE and image_files.OUTSIDE in line
        ]
        alike = set(links[_LINKS:])
        lines = [line for _, _, line in ordered if line not in alike][:SHOWN]
        shown = len(lines)
        if alike:
            lines.append(
                f"and {len(alike)} more such links, {len(links)} in all: images are read from inside their folder only; "
                f"copy the files there, or name the real folder with --images-dir"
            )
        if rest := len(ordered) - len(alike) - shown:
            lines.append(f"and {rest} more problem{'s' if rest > 1 else ''}, {n_problems} in all")
        if all(section >= Section.IMAGE for section, _, _ in ordered):
            lines.append("--lenient leaves out what is bad and reports each")
        return DataError("\n".join(lines))


def _quoted_once(problems: Sequence[_Problem]) -> list[_Problem]:
    """Problems in their order; of quoted ids under one key the first stands for all and tells their number."""
    keys = [_ROW.sub("[]", line.partition(":")[2].partition(":")[0]) for _, _, line in problems]
    quoted = [key if line.endswith(QUOTED) else "" for key, (_, _, line) in zip(keys, problems, strict=True)]
    n, told, found = Counter(quoted), set(), []
    for key, (section, row, line) in zip(quoted, problems, strict=True):
        if key in told:
            continue
        if key:
            told.add(key)
        more = f", and so {n[key] - 1} more {key.strip()}" if key and n[key] > 1 else ""
        found.append((section, row, line + more))
    return found


class Places(Protocol):
    """How one format names the place of a value, file name included."""

    def category(self, row: int, key: str) -> str: ...
    def image(self, row: int, key: str) -> str: ...
    def annotation(self, row: int, key: str) -> str: ...


@dataclass(eq=False)
class Table:
    """A file's columns before they are checked; `*_row` is each entry's place in the file's own list.

    Attributes:
        category_id: int64 (C,).
        category_name: C names.
        supercategory: C names, empty where there is none.
        image_id: int64 (N,).
        width: int64 (N,), pixels.
        height: int64 (N,), pixels.
        file_name: N names.
        annotation_id: int64 (M,).
        of_image: int64 (M,), the image's id.
        of_category: int64 (M,), the category's id.
        xywh: float64 (M, 4), finite: left, top, width, height in pixels.
        area: float64 (M,), NaN where the file has none.
        crowd: bool (M,).
        segmentation: M undecoded JSON values; empty where there is none.
    """

    places: Places
    category_id: Ids
    category_name: list[str]
    supercategory: list[str]
    image_id: Ids
    width: Ids
    height: Ids
    file_name: list[str]
    annotation_id: Ids
    of_image: Ids
    of_category: Ids
    xywh: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    segmentation: list[msgspec.Raw | bytes]
    clipped: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    @cached_property
    def image_rows(self) -> Ids:
        """int64 (M,): the row of each annotation's image, -1 where there is none."""
        return rows_of(self.image_id, self.of_image)

    @cached_property
    def category_rows(self) -> Ids:
        """int64 (M,): the row of each annotation's category, -1 where there is none."""
        return rows_of(self.category_id, self.of_category)


def rows_of(known: Ids, wanted: Ids) -> Ids:
    """Where each id stands first among the known ones; -1 where it does not."""
    if not len(known):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    rows = order[at]
    return np.where((known[rows] == wanted) & (wanted != UNREADABLE), rows, -1)


def repeats(ids: Ids) -> Iterable[tuple[int, int]]:
    """Each row whose id an earlier row has, with that row."""
    first = rows_of(ids, ids)
    for row in np.flatnonzero((first >= 0) & (first != np.arange(len(ids)))).tolist():
        yield row, int(first[row])


def check(table: Table, problems: Problems) -> None:
    """Look at every column; boxes inside their images are left in `table.clipped`."""
    _categories(table, problems)
    _images(table, problems)
    _annotations(table, problems)
    _one_file_twice(table, problems)


def _categories(table: Table, problems: Problems) -> None:
    place = table.places.category
    for row, first in repeats(table.category_id):
        line = f"{place(row, 'id')}: {table.category_id[row]} is already the id of {table.category_name[first]!r}"
        problems.add(Section.CATEGORY, row, line)
    seen: dict[str, int] = {}
    for row, name in enumerate(table.category_name):
        if name and seen.setdefault(name, row) != row:
            line = (
                f"{place(row, 'name')}: {name!r} is already the name of id {table.category_id[seen[name]]}; "
                f"rename one, or give both one id"
            )
            problems.add(Section.CATEGORY, row, line)


def _images(table: Table, problems: Problems) -> None:
    place = table.places.image
    for row, first in repeats(table.image_id):
        line = f"{place(row, 'id')}: {table.image_id[row]} is already the id of {place(first, '')}"
        problems.add(Section.IMAGE, row, line)
        if table.file_name[row] != table.file_name[first]:
            # Whose annotations are whose? Neither image can be trusted with them.
            line = f"{place(first, 'id')}: {table.image_id[row]} is also the id of {place(row, '')}, another file"
            problems.add(Section.IMAGE, first, line)
    for key, sizes in (("width", table.width), ("height", table.height)):
        bad = ((sizes < 1) | (sizes > np.iinfo(np.int32).max)) & (sizes != UNREADABLE)
        for row in np.flatnonzero(bad).tolist():
            line = f"{place(row, key)}: must be a number of pixels above 0, got {sizes[row]}"
            problems.add(Section.IMAGE, row, line)


def _one_file_twice(table: Table, problems: Problems) -> None:
    """Entries of one file with different objects: what one labels is background to the other, so neither can be trusted."""
    first: dict[str, int] = {}
    own = rows_of(table.image_id, table.image_id) == np.arange(len(table.image_id))
    twins = [
        (row, first[name])
        for row, name in enumerate(table.file_name)
        if name and own[row] and first.setdefault(name, row) != row
    ]
    if not twins:
        return
    objects: dict[int, set[tuple[float, ...]]] = {row: set() for pair in twins for row in pair}
    for at in np.flatnonzero(np.isin(table.image_rows, list(objects))).tolist():
        key = (float(table.of_category[at]), *table.xywh[at].tolist())
        objects[int(table.image_rows[at])].add(key)
    place, said = table.places.image, "one entry must hold all objects of a file"
    for row, earlier in twins:
        if objects[row] == objects[earlier]:
            continue
        name = table.file_name[row]
        for this, other in ((row, earlier), (earlier, row)):
            line = f"{place(this, 'file_name')}: {name!r} is also the file of {place(other, '')}, with other objects; {said}"
            problems.add(Section.IMAGE, this, line)


def check_files(
    table: Table,
    root: Path,
    problems: Problems,
    *,
    opened: bool,
    look: bool,
    inside: bool,
    progress: Progress,
) -> None:
    """Names that stay inside the folder, files that are what their entries say.

    Args:
        table: the images to check.
        root: the image folder.
        problems: where to note what is wrong.
        opened: whether the reader has opened the files already, and noted those that it could not.
        look: whether to look at the files at all.
        inside: whether to look between the ends of JPEG files, too.
        progress: counts the images.
    """
    place, rows = table.places.image, []
    for row, name in enumerate(table.file_name):
        said = image_files.unsafe(name) if name else None
        if said is not None:
            problems.add(Section.IMAGE, row, f"{place(row, 'file_name')}: {said}")
        elif name and not (opened and table.width[row] == UNREADABLE):
            rows.append(row)
    if not look:
        return
    names = [table.file_name[row] for row in rows]
    pairs = zip(table.width[rows].tolist(), table.height[rows].tolist(), strict=True)
    sizes = [(max(0, width), max(0, height)) for width, height in pairs]
    with progress.bar("checking images", len(rows), "images") as bar:
        for at, key, text in image_files.check(root, names, sizes, bar, inside=inside):
            problems.add(Section.IMAGE, rows[at], f"{place(rows[at], key)}: {text}")


def _annotations(table: Table, problems: Problems) -> None:
    place, images = table.places.annotation, table.image_rows
    for row, first in repeats(table.annotation_id):
        line = f"{place(row, 'id')}: {table.annotation_id[row]} is already the id of {place(first, '')}"
        problems.add(Section.ANNOTATION, row, line)
    for row in np.flatnonzero((images < 0) & (table.of_image != UNREADABLE)).tolist():
        line = f"{place(row, 'image_id')}: no image has id {table.of_image[row]}"
        problems.add(Section.ANNOTATION, row, line)
    known = _some(table.category_id.tolist())
    unknown = (table.category_rows < 0) & (table.of_category != UNREADABLE)
    if (
        table.category_id == UNREADABLE
    ).any():  # told, and it cannot be left out: what follows from it needs no line
        unknown[:] = False
    for row in np.flatnonzero(unknown).tolist():
        line = f"{place(row, 'category_id')}: no category has id {table.of_category[row]}; there are {known}"
        problems.add(Section.ANNOTATION, row, line)
    for row in np.flatnonzero(table.area < 0).tolist():
        line = f"{place(row, 'area')}: must not be below 0, got {table.area[row]:g}"
        problems.add(Section.ANNOTATION, row, line)
    size = np.stack((_size(table.width, images), _size(table.height, images)), axis=1)
    _boxes(table, size, problems)
    for row, said in segments.check(table.segmentation, size):
        problems.add(Section.ANNOTATION, row, f"{place(row, 'segmentation')}: {said}")


def _size(sizes: Ids, rows: Ids) -> NDArray[np.float64]:
    """float64 (M,): the size of each annotation's image, infinite where it is not known."""
    if not len(sizes):
        return np.full(len(rows), np.inf)
    return np.where((rows >= 0) & (sizes[rows] >= 1), sizes[rows].astype(np.float64), np.inf)


def _boxes(table: Table, size: NDArray[np.float64], problems: Problems) -> None:
    """Boxes need a size and lie inside their image, size: float64 (M, 2)."""
    place, xywh = table.places.annotation, table.xywh
    start, end = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    outside = np.asarray(((start < -ROUNDING_PX) | (end > size + ROUNDING_PX)).any(axis=1))
    empty = np.asarray(~(xywh[:, 2:] > 0).all(axis=1))
    table.clipped = np.concatenate((np.clip(start, 0, size), np.clip(end, 0, size)), axis=1)
    gone = np.asarray(~(table.clipped[:, 2:] > table.clipped[:, :2]).all(axis=1)) & ~outside & ~empty
    _hint(table, size, outside, problems)
    for row in np.flatnonzero(empty | outside | gone).tolist():
        got = xywh[row].tolist()
        if empty[row]:
            side = "width" if not got[2] > 0 else "height"
            said = f"{side} must be above 0, got {got}"
        else:
            inside = f"{size[row, 0]:.0f}x{size[row, 1]:.0f}" if np.isfinite(size[row]).all() else "unknown"
            said = f"must lie inside its image ({inside}), got {got}, which is {_edges(got)}"
        problems.add(Section.ANNOTATION, row, f"{place(row, 'bbox')}: {said}")


def _edges(xywh: Sequence[float]) -> str:
    x, y, w, h = xywh
    return f"x {x:g} to {x + w:g}, y {y:g} to {y + h:g}"


def _hint(table: Table, size: NDArray[np.float64], outside: NDArray[np.bool_], problems: Problems) -> None:
    """When most boxes are wrong in the same way, one line names the way."""
    n, xywh = len(table.xywh), table.xywh
    if n and float(xywh.max()) <= 1 and (xywh[:, 2:] < 1).any() and (np.isfinite(size) & (size > 2)).all():
        line = "every box lies between 0 and 1; COCO's bbox is in pixels: multiply by the image's width and height"
    elif outside.sum() * 2 > n:
        ordered = np.asarray(((xywh[:, 2:] > xywh[:, :2]) & (xywh[:, 2:] <= size + ROUNDING_PX)).all(axis=1))
        if not ordered[outside].all():
            return
        line = "most boxes lie outside their images but would fit as x1 y1 x2 y2; COCO's bbox is left, top, width, height"
    else:
        return
    problems.add(Section.FILE, 0, f"{table.places.category(-1, '')}: {line}")


def _some(ids: Sequence[int], most: int = 12) -> str:
    listed = ", ".join(map(str, ids[:most]))
    return listed + (f" and {len(ids) - most} more" if len(ids) > most else "") if ids else "none"


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """The rows that hold, and a line for each that does not.

    Attributes:
        images: rows of the table's images, in order.
        annotations: rows of the table's annotations, in order.
        incomplete: rows of those of the images that lose an annotation.
        skipped: one line for each image or annotation left out.
    """

    images: NDArray[np.intp]
    annotations: NDArray[np.intp]
    incomplete: NDArray[np.intp]
    skipped: tuple[str, ...]


def settle(table: Table, problems: Problems, *, lenient: bool) -> Settled:
    """Which rows hold.

    Raises:
        DataError: there are problems, and reading is strict or they cannot be left out.
    """
    n_images, n_annotations = len(table.image_id), len(table.annotation_id)
    fatal = problems.of(Section.FILE) or problems.of(Section.CATEGORY)
    if len(problems) and (fatal or not lenient):
        raise problems.error()
    bad_images, bad = problems.of(Section.IMAGE), problems.of(Section.ANNOTATION)
    keep_image = np.ones(n_images, dtype=bool)
    keep_image[list(bad_images)] = False
    keep = np.ones(n_annotations, dtype=bool)
    keep[list(bad)] = False
    of = table.image_rows
    lost = np.flatnonzero((of >= 0) & ~keep_image[of]) if n_images else np.zeros(0, dtype=np.intp)
    with_them = np.bincount(of[lost], minlength=n_images).tolist()
    keep[lost] = False
    skipped = [
        "; ".join(lines) + f"; left out with its {with_them[row]} annotation{'s' * (with_them[row] != 1)}"
        for row, lines in sorted(bad_images.items())
    ]
    skipped += ["; ".join(lines) + "; left out" for _, lines in sorted(bad.items())]
    if not keep.any():
        raise DataError(
            "\n".join(
                [*skipped[:SHOWN], f"{table.places.category(-1, '')}: nothing is left after leaving out"]
            )
        )
    losing = np.zeros(n_images, dtype=bool)
    losing[of[~keep & (of >= 0)]] = True
    return Settled(
        np.flatnonzero(keep_image), np.flatnonzero(keep), np.flatnonzero(losing & keep_image), tuple(skipped)
    )
