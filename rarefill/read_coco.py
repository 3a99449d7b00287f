"""COCO's JSON to columns: a fast way for files of the right types, and a patient one that finds all that are wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw

from rarefill.checks import Problems, Table
from rarefill.coco_entries import Places, walk
from rarefill.errors import DataError, shown

_NO_SEGMENTATION = Raw(b"")


class _Image(msgspec.Struct, gc=False):
    id: int
    width: int
    height: int
    file_name: str


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str
    supercategory: Any = ""


class _Box(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    left: float
    top: float
    width: float
    height: float


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: _Box
    area: float | None = None
    iscrowd: int | bool | None = 0
    segmentation: Raw = _NO_SEGMENTATION


class _File(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read(path: Path, problems: Problems) -> Table:
    """A file's columns; entries of the wrong type are noted in `problems`.

    Raises:
        DataError: the file cannot be read, or is no COCO file at all.
    """
    data = content(path)
    try:
        return _columns(path.name, msgspec.json.decode(data, type=_File))
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, _OddError):
        return walk(path.name, parsed(path, data), problems)


def content(path: Path) -> bytes:
    """A file's bytes, without the mark that some editors put before UTF-8.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e


class _OddError(Exception):
    """Right types, wrong values (no entries, no name, an iscrowd of 2): the patient way says where."""


def _columns(where: str, file: _File) -> Table:
    images, found, categories = file.images, file.annotations, file.categories
    crowd = np.array([a.iscrowd or 0 for a in found], dtype=np.int64)
    named = all(c.name for c in categories) and all(image.file_name for image in images)
    if not (images and found and categories and named) or ((crowd != 0) & (crowd != 1)).any():
        raise _OddError
    xywh = np.array([(b.left, b.top, b.width, b.height) for b in (a.bbox for a in found)], dtype=np.float64)
    return Table(
        places=Places(where),
        category_id=_ids([c.id for c in categories]),
        category_name=[c.name for c in categories],
        supercategory=[c.supercategory if isinstance(c.supercategory, str) else "" for c in categories],
        image_id=_ids([image.id for image in images]),
        width=_ids([image.width for image in images]),
        height=_ids([image.height for image in images]),
        file_name=[image.file_name.replace("\\", "/") for image in images],
        annotation_id=_ids([a.id for a in found]),
        of_image=_ids([a.image_id for a in found]),
        of_category=_ids([a.category_id for a in found]),
        xywh=xywh.reshape(-1, 4),
        area=np.array([np.nan if a.area is None else a.area for a in found], dtype=np.float64),
        crowd=crowd.astype(bool),
        segmentation=[a.segmentation for a in found],
    )


def _ids(values: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def parsed(path: Path, data: bytes) -> dict[str, Any]:
    """A file's JSON object as Python's own reader takes it: NaN and Infinity included.

    Raises:
        DataError: the file is no JSON, is cut off (both say where), or is no object.
    """
    try:
        value = json.loads(data)
    except json.JSONDecodeError as e:
        raise DataError(_broken(path.name, e, len(data))) from None
    except UnicodeDecodeError as e:
        raise DataError(
            f"{path.name}: not a JSON file in UTF-8: byte {e.start} is no text, the file begins with {data[:12]!r}"
        ) from None
    except RecursionError:
        raise DataError(f"{path.name}: not a COCO file: its lists are nested too deep to be read") from None
    if not isinstance(value, dict):
        hint = "; a list is what detection results are written as" if isinstance(value, list) else ""
        raise DataError(
            f"{path.name}: expected an object with images, annotations and categories, got {shown(value)}{hint}"
        )
    return value


def _broken(where: str, e: json.JSONDecodeError, n_bytes: int) -> str:
    text = e.doc.rstrip()
    place = f"line {e.lineno} column {e.colno}"
    before = shown(e.doc[max(0, e.pos - 30) : e.pos])
    if not text:
        return f"{where}: not a JSON file: it is empty ({n_bytes} bytes)"
    if e.pos >= len(text) or (e.msg.startswith("Unterminated string") and text[-1] != "}"):
        return f"{where}: cut off at {place} after {n_bytes} bytes, behind {before}; copy or download the file again"
    if text[0] not in "{[":
        return f"{where}: not a JSON file: expected {{ at line 1 column 1, got {shown(text[:20])}"
    return f"{where}: not valid JSON at {place}: {e.msg}, behind {before}"
