"""Reading one line of layouts.jsonl: every value checked, every problem kept, nothing guessed."""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rarefill import geometry, warp
from rarefill.bank import Bank, silhouette
from rarefill.dataset import Dataset, unknown_name
from rarefill.geometry import BoolArray, Box, Mask
from rarefill.layouts import redraws
from rarefill.layouts.bending import MOST_BENT
from rarefill.layouts.shapes import for_box
from rarefill.scene import Goal, Layout, Placement, Shape
from rarefill.seeds import Stage, rng

_LAYOUT = ("image", "file", "copy", "placements")
_PLACEMENT = (
    "category",
    "box",
    "mask",
    "whole",
    "shape",
    "spared",
    "redraws",
    "depth",
    "seed",
    "prompt",
    "score",
)
_SIZED = ("size", "counts")
_MASK = ("at", *_SIZED)
_SHAPE = ("annotation", "flip", "rotation", "bend", "bend_seed")


class _BadValueError(Exception):
    """A value that is left out; its problem is noted already."""


class Reader:
    """Turns lines into layouts and collects what is wrong with them in `problems`."""

    def __init__(self, dataset: Dataset, bank: Bank | None) -> None:
        self._dataset, self._bank = dataset, bank
        self._images = {int(i): row for row, i in enumerate(dataset.images.id)}
        self._files = {name: row for row, name in enumerate(dataset.images.file_name)}
        self._annotations = {int(i): row for row, i in enumerate(dataset.annotations.id)}
        self._seen: dict[tuple[int, int], str] = {}
        self.problems: list[str] = []

    def layout(self, text: str, where: str) -> Layout | None:
        """One line's layout, or None where it has a problem."""
        before = len(self.problems)
        try:
            line = self._object(self._json(text, where), where, _LAYOUT, needed=())
            image = self._image(line, where)
            copy = self._whole(line.get("copy", 0), f"{where}: copy")
            entries = self._list(line.get("placements", []), f"{where}: placements")
        except _BadValueError:
            return None
        if (image, copy) in self._seen:
            self._note(
                where,
                f"image {self._dataset.images.id[image]} copy {copy} stands in {self._seen[image, copy]} "
                "too; give one of them another copy",
            )
        self._seen.setdefault((image, copy), where)
        placements: list[Placement] = []
        for i, entry in enumerate(entries):
            place = f"{where}: placements[{i}]"
            try:
                placements.append(self._placement(entry, place, image, copy, i))
            except _BadValueError:
                continue
            row = placements[-1].redraws
            if row is not None and any(p.redraws == row for p in placements[:-1]):
                self._note(
                    f"{place}.redraws",
                    f"{self._dataset.annotations.id[row]} is redrawn by another placement of this line; drop one",
                )
        return Layout(image, copy, tuple(placements)) if len(self.problems) == before else None

    def goals(self, text: str, where: str) -> list[Goal]:
        """What one line asks for, one goal for each placement."""
        found = []
        try:
            line = self._object(self._json(text, where), where, _LAYOUT, needed=())
            entries = self._list(line.get("placements", []), f"{where}: placements")
        except _BadValueError:
            return []
        for i, entry in enumerate(entries):
            place = f"{where}: placements[{i}]"
            try:
                if isinstance(entry, dict) and "redraws" in entry:
                    row = self._annotation(entry["redraws"], f"{place}.redraws")
                    found.append(Goal.of(self._named(row), row))
                else:
                    value = self._object(entry, place, _PLACEMENT, needed=("category",))
                    found.append(Goal(self._category(value, place)))
            except _BadValueError:
                continue
        return found

    def redraws(self, text: str, where: str) -> list[int]:
        """Rows of the annotations that one line redraws without giving a mask."""
        try:
            line = self._object(self._json(text, where), where, _LAYOUT, needed=())
            entries = self._list(line.get("placements", []), f"{where}: placements")
            named = [
                e["redraws"] for e in entries if isinstance(e, dict) and "redraws" in e and "mask" not in e
            ]
            return [self._annotation(value, f"{where}: redraws") for value in named]
        except _BadValueError:
            return []

    def _placement(self, entry: Any, where: str, image: int, copy: int, index: int) -> Placement:
        needed = () if isinstance(entry, dict) and "redraws" in entry else ("category", "box")
        value = self._object(entry, where, _PLACEMENT, needed=needed)
        if not needed:
            return self._redraw(value, where, image, copy, index)
        category = self._category(value, where)
        box = self._box(value["box"], f"{where}.box", image)
        shape = self._shape(value["shape"], f"{where}.shape", image) if "shape" in value else None
        source = rng(0, Stage.PLACE, image, copy, index)
        plain = int(source.integers(2**31))
        whole = self._whole_box(value, where, box) if "whole" in value else None
        spared = self._spared(value["spared"], f"{where}.spared") if "spared" in value else None
        if "mask" in value:
            mask = self._mask(value["mask"], f"{where}.mask", box)
        else:
            if shape is None:
                shape = self._chosen(category, where, whole or box, source, image)
            mask = self._silhouette(shape, where, whole or box)
        made = Placement(category, mask, seed=plain, shape=shape, spared=spared, whole=whole)
        return self._described(self._shown(made, where, box), value, where)

    def _shown(self, placement: Placement, where: str, box: Box) -> Placement:
        """A placement whose mask lies in its box and leaves free what is spared."""
        shown: Mask | None = placement.mask
        if placement.whole is not None:
            shown = _common(placement.mask, geometry.box_mask(box))
        if shown is not None and placement.spared is not None:
            shown = shown.minus(placement.spared)
        if shown is None:
            raise self._note(where, "shows nothing of its object; move its box, or leave out what is spared")
        return placement if shown.area == placement.mask.area else replace(placement, mask=shown)

    def _spared(self, value: Any, where: str) -> Mask:
        """The pixels of real objects in front."""
        x, y, pixels = self._placed(value, where)
        mask = Mask.of(pixels, x, y)
        if mask is None:
            raise self._note(where, "holds no pixel; leave it out")
        return mask

    def _whole_box(self, value: Mapping[str, Any], where: str, box: Box) -> Box:
        """The box that all of an object fills, moved and resized as the box of its mask was."""
        whole = self._edges(value["whole"], f"{where}.whole")
        mask = value.get("mask")
        if isinstance(mask, dict) and "at" in mask:
            x, y, pixels = self._placed(mask, f"{where}.mask")
            height, width = pixels.shape
            sx, sy = box.width / width, box.height / height
            x1, x2 = (box.x1 + (v - x) * sx for v in (whole.x1, whole.x2))
            y1, y2 = (box.y1 + (v - y) * sy for v in (whole.y1, whole.y2))
            whole = Box(x1, y1, x2, y2)
        x, y, width, height = warp.whole(whole)
        return Box(x, y, x + width, y + height)

    def _described(self, placement: Placement, value: Mapping[str, Any], where: str) -> Placement:
        """A placement with what a line says of it beyond its place."""
        return replace(
            placement,
            depth=self._whole(value.get("depth", 0), f"{where}.depth"),
            seed=self._whole(value.get("seed", placement.seed), f"{where}.seed"),
            prompt=self._text(value.get("prompt", ""), f"{where}.prompt"),
            score=self._number(value.get("score", 0.0), f"{where}.score"),
        )

    def _redraw(self, value: Mapping[str, Any], where: str, image: int, copy: int, index: int) -> Placement:
        """A real object that is repainted where it stands."""
        place = f"{where}.redraws"
        row = self._annotation(value["redraws"], place)
        number, home = self._dataset.annotations.id[row], int(self._dataset.annotations.image[row])
        if home != image:
            raise self._note(
                place, f"{number} is an object of image {self._dataset.images.id[home]}; redraw it there"
            )
        if self._dataset.annotations.crowd[row]:
            raise self._note(place, f"{number} is a crowd; only single objects can be redrawn")
        for key in ("shape", "whole", "spared"):
            if key in value:
                raise self._note(f"{where}.{key}", f"what is redrawn has its own {key}; leave it out")
        if "category" in value and self._category(value, where) != self._named(row):
            raise self._note(
                f"{where}.category",
                f"{number} is labelled {self._named(row)!r} and keeps its label; correct it, or leave it out",
            )
        own = redraws.silhouette(self._dataset, self._bank, row) if self._bank is not None else None
        part = self._part(value, where, image, row, own)
        made = redraws.placement(self._dataset, row, own or part, part)
        if made is None:
            raise self._note(place, f"{number} lies behind other objects; nothing of it is left to repaint")
        source = rng(0, Stage.PLACE, image, copy, index)
        return self._described(replace(made, seed=int(source.integers(2**31))), value, where)

    def _part(self, value: Mapping[str, Any], where: str, image: int, row: int, own: Mask | None) -> Mask:
        """The pixels to repaint: the mask given, which lies on the object, else what of its silhouette lies in the box."""
        box = self._box(value["box"], f"{where}.box", image) if "box" in value else None
        if "mask" not in value:
            if own is None:
                number = self._dataset.annotations.id[row]
                raise self._note(f"{where}.redraws", f"no silhouette of {number} is known; give it a mask")
            inside = own if box is None else _common(own, geometry.box_mask(box))
            if inside is None:
                raise self._note(
                    f"{where}.box", "holds nothing of the object; leave it out to repaint all of it"
                )
            return inside
        if box is None:
            raise self._note(
                where, "box is missing: the mask fills it; leave out the mask to repaint all of the object"
            )
        mask = self._mask(value["mask"], f"{where}.mask", box)
        beyond = mask.minus(self._dataset.mask(row) or _pixels(self._dataset.box(row)))
        if beyond is not None and (own is None or beyond.minus(own) is not None):
            raise self._note(
                f"{where}.mask", "reaches over the object; leave mask and box out to repaint all of it"
            )
        return mask

    def _named(self, row: int) -> str:
        return self._dataset.names[int(self._dataset.annotations.category[row])]

    def _annotation(self, value: Any, where: str) -> int:
        """The row of an annotation that a line names by its id."""
        number = self._whole(value, where, least=None)
        if number not in self._annotations:
            raise self._note(where, f"no annotation has id {number} in {self._dataset.path.name}")
        return self._annotations[number]

    def _image(self, line: Mapping[str, Any], where: str) -> int:
        name = self._text(line["file"], f"{where}: file") if "file" in line else None
        if "image" not in line:
            if name is None:
                raise self._note(where, "image is missing: the id of a background in the dataset's file")
            if name not in self._files:
                raise self._note(f"{where}: file", self._no_file(name))
            return self._files[name]
        number = self._whole(line["image"], f"{where}: image", least=None)
        if number not in self._images:
            hint = (
                f"; {name!r} has id {self._dataset.images.id[self._files[name]]}"
                if name in self._files
                else ""
            )
            raise self._note(
                f"{where}: image", f"no image has id {number} in {self._dataset.path.name}{hint}"
            )
        row = self._images[number]
        held = self._dataset.images.file_name[row]
        if name is not None and name != held:
            raise self._note(
                f"{where}: file", f"image {number} is {held!r}, got {name!r}; correct one, or leave file out"
            )
        return row

    def _no_file(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._files, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no image {name!r} in {self._dataset.path.name}{hint}"

    def _category(self, value: Mapping[str, Any], where: str) -> str:
        name = self._text(value["category"], f"{where}.category")
        if name not in self._dataset.names:
            raise self._note(
                f"{where}.category", unknown_name(name, self._dataset.names, self._dataset.path.name)
            )
        return name

    def _box(self, value: Any, where: str, image: int) -> Box:
        box = self._edges(value, where)
        width, height = int(self._dataset.images.width[image]), int(self._dataset.images.height[image])
        x1, y1, x2, y2 = box.xyxy
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            raise self._note(where, f"must lie inside the image of {width} x {height} pixels, got {value}")
        if round(x1) == round(x2) or round(y1) == round(y2):
            raise self._note(where, f"must hold a whole pixel, got {value}")
        return box

    def _edges(self, value: Any, where: str) -> Box:
        edges = [self._number(v, where) for v in self._list(value, where)]
        if len(edges) != 4 or not (edges[0] < edges[2] and edges[1] < edges[3]):
            raise self._note(where, f"expected [x1, y1, x2, y2] with x1 < x2 and y1 < y2, got {value}")
        return Box(*edges)

    def _mask(self, value: Any, where: str, box: Box) -> Mask:
        mask = geometry.stretched(self._decoded(self._object(value, where, _MASK, needed=_SIZED), where), box)
        if mask is None:
            raise self._note(where, "leaves no pixel in this box; leave it out to have a silhouette chosen")
        return mask

    def _placed(self, value: Any, where: str) -> tuple[int, int, BoolArray]:
        """A mask that says itself where it lies: column and row of its left top pixel, and its pixels."""
        entry = self._object(value, where, _MASK, needed=_MASK)
        at = [self._whole(v, f"{where}.at", least=None) for v in self._list(entry["at"], f"{where}.at")]
        if len(at) != 2:
            raise self._note(f"{where}.at", f"expected [x, y], got {entry['at']}")
        return at[0], at[1], self._decoded(entry, where)

    def _decoded(self, entry: Mapping[str, Any], where: str) -> BoolArray:
        size = [self._whole(v, f"{where}.size", least=1) for v in self._list(entry["size"], f"{where}.size")]
        if len(size) != 2:
            raise self._note(f"{where}.size", f"expected [height, width], got {entry['size']}")
        counts = entry["counts"]
        try:
            if not isinstance(counts, str | list):
                raise TypeError
            return geometry.from_rle(counts, *size)
        except (ValueError, TypeError) as e:
            raise self._note(
                f"{where}.counts", f"expected COCO run lengths of {size[0]} x {size[1]} pixels{_because(e)}"
            ) from None

    def _shape(self, value: Any, where: str, image: int) -> Shape:
        entry = self._object(value, where, _SHAPE, needed=("annotation",))
        row = self._annotation(entry["annotation"], f"{where}.annotation")
        number = self._dataset.annotations.id[row]
        if int(self._dataset.annotations.image[row]) == image:
            raise self._note(
                f"{where}.annotation",
                f"{number} is an object of this very image; choose another, or leave shape out",
            )
        flip = entry.get("flip", False)
        if not isinstance(flip, bool):
            raise self._note(f"{where}.flip", f"expected true or false, got {json.dumps(flip)}")
        bend = self._number(entry.get("bend", 0.0), f"{where}.bend")
        if not 0 <= bend <= MOST_BENT:
            raise self._note(
                f"{where}.bend", f"expected a share of the object from 0 to {MOST_BENT}, got {bend}"
            )
        seed = self._whole(entry.get("bend_seed", 0), f"{where}.bend_seed")
        return Shape(row, flip, self._number(entry.get("rotation", 0.0), f"{where}.rotation"), bend, seed)

    def _chosen(self, category: str, where: str, box: Box, source: Any, image: int) -> Shape:
        exemplar = (
            for_box(self._dataset, self._bank, category, box, source, image)
            if self._bank is not None
            else None
        )
        if exemplar is None:
            raise self._note(
                where, f"no silhouette of {category!r} from another image is known; give it a mask"
            )
        return Shape(exemplar.annotation, flip=bool(source.random() < 0.5))

    def _silhouette(self, shape: Shape, where: str, box: Box) -> Mask:
        try:
            if self._bank is None:
                raise KeyError
            return silhouette(self._bank.at(shape.annotation).mask, shape, box)
        except KeyError:
            number = self._dataset.annotations.id[shape.annotation]
            raise self._note(
                f"{where}.shape.annotation",
                f"no silhouette of annotation {number} is known; give a mask, or leave it out",
            ) from None

    def _json(self, text: str, where: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as e:
            raise self._note(where, f"not JSON: {e.msg} at column {e.colno}; a layout is one line") from None

    def _object(self, value: Any, where: str, known: Sequence[str], needed: Sequence[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._note(where, f"expected an object in braces, got {_short(value)}")
        missing = [key for key in needed if key not in value]
        for key in missing:
            self._note(where, f"{key} is missing")
        for key in value.keys() - set(known):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may have: {', '.join(known)}"
            self._note(where, f"unknown key {key!r}; {hint}")
        if missing:
            raise _BadValueError
        return value

    def _list(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._note(where, f"expected a list, got {_short(value)}")
        return value

    def _whole(self, value: Any, where: str, *, least: int | None = 0) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
            from_ = "" if least is None else f" of {least} or above"
            raise self._note(where, f"expected a whole number{from_}, got {_short(value)}")
        return value

    def _number(self, value: Any, where: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._note(where, f"expected a number, got {_short(value)}")
        return float(value)

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise self._note(where, f"expected text, got {_short(value)}")
        return value

    def _note(self, where: str, problem: str) -> _BadValueError:
        self.problems.append(f"{where}: {problem}")
        return _BadValueError()


def _pixels(box: Box) -> Mask:
    """Every pixel that a box touches."""
    x1, y1, x2, y2 = math.floor(box.x1), math.floor(box.y1), math.ceil(box.x2), math.ceil(box.y2)
    return Mask(x1, y1, np.ones((y2 - y1, x2 - x1), dtype=bool))


def _common(a: Mask, b: Mask | None) -> Mask | None:
    """The pixels that both masks set."""
    if b is None:
        return None
    height, width = a.pixels.shape
    return Mask.of(a.pixels & b.window(a.x, a.y, width, height), a.x, a.y)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _because(error: Exception) -> str:
    return f": {error}" if str(error) else ""
