"""COCO's entries one by one, the patient way: every key that is missing or of the wrong type is noted."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rarefill.checks import QUOTED, UNREADABLE, Problems, Section, Table
from rarefill.errors import shown

_LARGEST = int(np.iinfo(np.int64).max)
_EXACT = 2**53  # beyond it a float stands for several whole numbers
_FITS_ANYWHERE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Places:
    """Places in a COCO file: `annotations.json: annotations[17].bbox`. Row -1 is the file itself."""

    where: str

    def category(self, row: int, key: str) -> str:
        return self._place("categories", row, key)

    def image(self, row: int, key: str) -> str:
        return self._place("images", row, key)

    def annotation(self, row: int, key: str) -> str:
        return self._place("annotations", row, key)

    def _place(self, what: str, row: int, key: str) -> str:
        if row < 0:
            return self.where
        # A second place in one line needs no file name: it has no key either.
        return f"{self.where}: {what}[{row}].{key}" if key else f"{what}[{row}]"


class _Entry:
    """One entry being read: wrong values are noted and replaced by what raises no further problem."""

    def __init__(self, value: Any, section: Section, row: int, problems: Problems, places: Places) -> None:
        self._section, self._row, self._problems, self._places = section, row, problems, places
        self._keys: dict[str, Any] = {}
        if isinstance(value, dict):
            self._keys = value
        else:
            self._say("", f"expected an object, got {shown(value)}")
        self.readable = isinstance(value, dict)

    def _say(self, key: str, text: str) -> None:
        place = {
            Section.CATEGORY: self._places.category,
            Section.IMAGE: self._places.image,
            Section.ANNOTATION: self._places.annotation,
        }[self._section](self._row, key)
        place = place if key else f"{self._places.where}: {place}"
        self._problems.add(self._section, self._row, f"{place}: {text}")

    def _has(self, key: str, hint: str = "") -> bool:
        if key not in self._keys and self.readable:
            self._say(key, f"is missing{hint}")
        return key in self._keys

    def whole(self, key: str) -> int:
        """A whole number; 640.0 is one."""
        if not self._has(key):
            return UNREADABLE
        value = self._keys[key]
        if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
            value = int(value)
        if type(value) is not int or abs(value) > _LARGEST:
            most = " of at most 64 bits" if type(value) is int else ""
            hint = QUOTED if isinstance(value, str) and value.isdecimal() else ""
            self._say(key, f"must be a whole number{most}, got {shown(value)}{hint}")
            return UNREADABLE
        return value

    def text(self, key: str) -> str:
        """Words, not empty."""
        if not self._has(key):
            return ""
        value = self._keys[key]
        if not isinstance(value, str) or not value or not _encodable(value):
            self._say(key, f"must be a text, got {shown(value)}")
            return ""
        return value

    def box(self) -> Sequence[float]:
        """Left, top, width, height."""
        if not self._has("bbox", "; expected [left, top, width, height]"):
            return _FITS_ANYWHERE
        value = self._keys["bbox"]
        if not (isinstance(value, list) and len(value) == 4 and all(type(v) in (int, float) for v in value)):
            self._say("bbox", f"must be four numbers [left, top, width, height], got {shown(value)}")
            return _FITS_ANYWHERE
        if not all(map(_finite, value)):
            self._say("bbox", f"must be finite numbers, got {shown(value)}")
            return _FITS_ANYWHERE
        return value

    def area(self) -> float:
        """NaN where the file has none."""
        value = self._keys.get("area")
        if value is None:
            return math.nan
        if type(value) not in (int, float) or not _finite(value):
            self._say("area", f"must be a finite number, got {shown(value)}")
            return math.nan
        return float(value)

    def crowd(self) -> bool:
        value = self._keys.get("iscrowd", 0)
        if value not in (0, 1, None):
            self._say("iscrowd", f"must be 0 or 1, got {shown(value)}")
        return bool(value == 1)

    def get(self, key: str) -> Any:
        return self._keys.get(key)


def walk(where: str, file: dict[str, Any], problems: Problems) -> Table:
    """Columns from a decoded file. Entries keep their rows; what cannot be read is noted."""
    places = Places(where)

    def entries(key: str, section: Section) -> list[_Entry]:
        value = file.get(key)
        if not isinstance(value, list) or not value:
            got = f"must be a list with entries, got {shown(value)}" if key in file else "is missing"
            if value == [] and section == Section.ANNOTATION:
                got += "; label some objects of each class first: new ones are made after real ones"
            problems.add(Section.FILE, 0, f"{where}: {key} {got}")
            return []
        return [_Entry(v, section, row, problems, places) for row, v in enumerate(value)]

    categories = entries("categories", Section.CATEGORY)
    images = entries("images", Section.IMAGE)
    found = entries("annotations", Section.ANNOTATION)
    supers = [c.get("supercategory") for c in categories]
    return Table(
        places=places,
        category_id=_whole(categories, "id"),
        category_name=[c.text("name") for c in categories],
        supercategory=[s if isinstance(s, str) else "" for s in supers],
        image_id=_whole(images, "id"),
        width=_whole(images, "width"),
        height=_whole(images, "height"),
        file_name=[image.text("file_name").replace("\\", "/") for image in images],
        annotation_id=_whole(found, "id"),
        of_image=_whole(found, "image_id"),
        of_category=_whole(found, "category_id"),
        xywh=np.array([a.box() for a in found], dtype=np.float64).reshape(-1, 4),
        area=np.array([a.area() for a in found], dtype=np.float64),
        crowd=np.array([a.crowd() for a in found], dtype=bool),
        segmentation=[_raw(a.get("segmentation")) for a in found],
    )


def _whole(entries: Sequence[_Entry], key: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([entry.whole(key) for entry in entries], dtype=np.int64)


def _raw(value: Any) -> bytes:
    return b"" if value is None else json.dumps(value).encode()


def _finite(value: float) -> bool:
    """Whole numbers of any length are finite, but not all fit a float."""
    return abs(value) < 1e300  # NaN is not less than anything


def _encodable(text: str) -> bool:
    """JSON can escape half a character; no file system takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
