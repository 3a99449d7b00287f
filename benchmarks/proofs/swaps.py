"""Which stage costs most? One stage at a time is swapped for an oracle, as run folders that `rarefill evaluate --run` takes.

    paste    (the study's own arm)  planned places, looks of the training part's K objects
    same     that run's boxes, each filled anew with one of the K objects that suits it: what `looks` is held against
    looks    the same boxes, filled with one of all the oracle's objects
    places   the oracle's real places, looks of the K: its pictures with their rare objects taken out, K's pasted there
    both     the oracle's pictures as they are, beside the training part
    labels   `both`, its rare labels as wrong as measured ones are

Everything is made from the training part and the oracle; the test part is not read.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from proofs import stand
from rarefill import pipeline
from rarefill.console import on_stderr
from rarefill.dataset import Dataset, load
from rarefill.errors import DataError
from rarefill.files import write_bytes
from rarefill.pictures import encode
from rarefill.recipe import Recipe
from rarefill.rundir import RunDir

COPIES = 4
"""Uses of each of the oracle's pictures by `places`: about as many new pictures as a planned run has."""
EDGE_ERROR = 0.04
"""Standard deviation of a measured label's edges, in sides of the box: a median IoU of some 0.88 with the truth."""
_GROWN = 0.12
"""Of a box's sides, taken out around it: labels are not always outside."""


def run(train: Path, oracle: Path, pictures: Path, rare: str, planned: Path, out: Path) -> None:
    """Make the run folders.

    Args:
        train: the training part, COCO.
        oracle: the oracle, COCO; ids as in `train`.
        pictures: the folder that holds the images of both.
        rare: the category.
        planned: the study's own `paste` run, whose plan is used again.
        out: for the folders `same`, `looks`, `places`, `both`, `labels`.
    """
    part, more = load(train, pictures), load(oracle, pictures)
    known = {image["id"] for image in part.source()["images"]}
    held = more.source()
    category = next(c["id"] for c in held["categories"] if c["name"] == rare)
    with_rare = {a["image_id"] for a in held["annotations"] if a["category_id"] == category}
    extra = with_rare - known
    if not extra:
        raise DataError(f"{oracle}: has no image of {rare} that {train} has not")
    boxes = list(_boxes(RunDir(planned).layouts))
    _pasted(out, "same", part.source(), pictures, boxes, part)
    _pasted(out, "looks", _union(part, held, extra), pictures, boxes, part)
    erased = out / "erased"
    scenes = _erase(more, held, extra, category, erased)
    for image in part.source()["images"]:
        stand.copy(erased / image["file_name"], pictures / image["file_name"])
    _pasted(out, "places", _union(part, scenes, extra), erased, _at(held, extra, category, rare), part)
    stand.as_run(out / "both", _only(held, extra), pictures, part)
    stand.as_run(out / "labels", _jittered(_only(held, extra), category), pictures, part)


def _pasted(
    out: Path, name: str, held: dict[str, Any], pictures: Path, lines: Iterable[str], part: Dataset
) -> None:
    """Paint a plan by paste, and let it stand as a run of the training part."""
    data, plan = out / f"{name}.json", out / f"{name}.jsonl"
    write_bytes(data, json.dumps(held).encode())
    write_bytes(plan, "".join(line + "\n" for line in lines).encode())
    recipe = Recipe.model_validate(
        {
            "data": data,
            "pictures": pictures,
            "out": out / f"{name}-run",
            "formats": ("coco",),
            "generator": {"generator": "paste"},
            "annotator": {"checker": "none"},
        }
    )
    pipeline.run(recipe, plan=plan, progress=on_stderr())
    made = load(out / f"{name}-run" / "annotations.json", out / f"{name}-run" / "images")
    stand.as_run(out / name, made.source(), out / f"{name}-run" / "images", part)


def _only(held: dict[str, Any], images: set[int]) -> dict[str, Any]:
    """Some images with their annotations."""
    return held | {
        "images": [image for image in held["images"] if image["id"] in images],
        "annotations": [dict(a) for a in held["annotations"] if a["image_id"] in images],
    }


def _union(part: Dataset, held: dict[str, Any], extra: set[int]) -> dict[str, Any]:
    """The training part with the oracle's further images."""
    own, more = part.source(), _only(held, extra)
    return own | {key: own[key] + more[key] for key in ("images", "annotations")}


def _boxes(layouts: Path) -> Iterable[str]:
    """A plan's places without its shapes: category and box alone, so that any exemplar may fill them."""
    for line in layouts.read_text().splitlines():
        held = json.loads(line)
        held["placements"] = [
            {key: p[key] for key in ("category", "box", "whole", "spared", "depth", "seed") if key in p}
            for p in held["placements"]
        ]
        yield json.dumps(held)


def _at(held: dict[str, Any], images: set[int], category: int, rare: str) -> Iterable[str]:
    """A plan of the real places, some uses of each image."""
    for copy in range(COPIES):
        for entry in (e for e in held["images"] if e["id"] in images):
            placements = [
                {"category": rare, "box": _corners(a["bbox"], entry)}
                for a in held["annotations"]
                if a["image_id"] == entry["id"] and a["category_id"] == category
            ]
            yield json.dumps({"image": entry["id"], "copy": copy, "placements": placements})


def _corners(bbox: list[float], entry: dict[str, Any]) -> list[int]:
    """x1 y1 x2 y2 in whole pixels of the image."""
    x, y, width, height = bbox
    right, bottom = min(entry["width"], round(x + width)), min(entry["height"], round(y + height))
    return [max(0, round(x)), max(0, round(y)), right, bottom]


def _erase(more: Dataset, held: dict[str, Any], images: set[int], category: int, out: Path) -> dict[str, Any]:
    """The oracle's images without their rare objects: filled in from around (Telea 2004), and their labels gone."""
    rows = {int(i): row for row, i in enumerate(more.images.id)}
    for image in (entry for entry in held["images"] if entry["id"] in images):
        place = out / _as_png(image["file_name"])
        if place.exists():
            continue
        pixels = more.read(rows[image["id"]])
        gone = np.zeros(pixels.shape[:2], np.uint8)
        for a in held["annotations"]:
            if a["image_id"] == image["id"] and a["category_id"] == category:
                x, y, width, height = a["bbox"]
                grow = _GROWN * max(width, height)
                left, top = round(max(0, x - grow)), round(max(0, y - grow))
                gone[top : round(y + height + grow), left : round(x + width + grow)] = 1
        filled = cv2.inpaint(np.ascontiguousarray(pixels.squeeze()), gone, 5, cv2.INPAINT_TELEA)
        write_bytes(place, encode(filled.reshape(pixels.shape), "png"))
    entries = [
        entry | {"file_name": _as_png(entry["file_name"])} if entry["id"] in images else entry
        for entry in held["images"]
    ]
    kept = [a for a in held["annotations"] if a["image_id"] not in images or a["category_id"] != category]
    return held | {"images": entries, "annotations": kept}


def _as_png(name: str) -> str:
    return str(Path(name).with_suffix(".png"))


def _jittered(held: dict[str, Any], category: int) -> dict[str, Any]:
    """Rare labels with every edge moved by chance."""
    draw = np.random.default_rng(3)
    sizes = {image["id"]: (image["width"], image["height"]) for image in held["images"]}
    for a in (a for a in held["annotations"] if a["category_id"] == category):
        x, y, width, height = a["bbox"]
        left, top, right, bottom = EDGE_ERROR * draw.standard_normal(4)
        most_x, most_y = sizes[a["image_id"]]
        x1, x2 = np.clip([x + left * width, x + (1 + right) * width], 0, most_x).tolist()
        y1, y2 = np.clip([y + top * height, y + (1 + bottom) * height], 0, most_y).tolist()
        a["bbox"] = [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
        a["area"] = round((x2 - x1) * (y2 - y1), 2)
    return held
