"""An audit as one HTML page: objects large with their labels drawn, and buttons for what is wrong. It loads nothing."""

import html
import math
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rarefill import files, pictures, preview
from rarefill.audit import ANSWERS, Drawn, Item
from rarefill.geometry import Box, Mask
from rarefill.plan_page import data_url, embedded
from rarefill.scene import Kind, Pixels

PICTURES_BYTES = 12_000_000
"""Of all pictures together, before base64 makes them a third larger."""
_MOST_BYTES = 45_000  # of one picture, where there are few
_CONTEXT = 0.6  # of the object's longer side, shown on each side of it
_LEAST_PX = 48  # side of the smallest crop
_ENLARGED_PX = 320  # crops below this are enlarged here: browsers do it in ways of their own
_TITLES = {"run": "Audit of painted objects", "real": "Suspicious labels of the real data"}
_HELP = {
    "run": [
        (
            "Right: a person would have drawn this label here, about so. Box off: the class is right, but the box cuts "
            "off a part, or has a margin that your own labels have not. Wrong class: it is something else, or nothing. "
            "Bad picture: the label may stand, but nobody would take this for a photograph."
        ),
        "The checker's score is not shown, so that it sways nobody.",
    ],
    "real": [
        (
            "Each tile is a place where a detector that did not train on the image disagrees with the label file. "
            "Often the label is right and the detector is wrong: the list says where to look first."
        ),
    ],
}


def write(path: Path, name: str, run: str, drawn: Drawn, total: int, images: Path) -> Path:
    """Write the page of a run's sample.

    Args:
        path: of the page.
        name: of the run, for people.
        run: `audit.identity` of it.
        drawn: the sample.
        total: painted objects in the run.
        images: the run's folder of images.

    Returns:
        The page's path.

    Raises:
        DataError: an image is gone.
        RunError: the page cannot be written.
    """
    most = min(_MOST_BYTES, PICTURES_BYTES // max(1, len(drawn.items)))
    order = sorted(range(len(drawn.items)), key=lambda i: drawn.items[i].file)
    entries: dict[int, dict[str, Any]] = {}
    for file, rows in groupby(order, key=lambda i: drawn.items[i].file):
        pixels = pictures.read(images / file)
        entries |= {i: _item(drawn.items[i], pixels, most) for i in rows}
    document = {
        "run": run,
        "name": name,
        "seed": drawn.seed,
        "n": drawn.asked,
        "choices": list(ANSWERS),
        "items": [entries[i] for i in range(len(entries))],
    }
    summary = f"{len(drawn.items):,} of {total:,} painted objects, drawn by category, score and size (seed {drawn.seed})."
    files.write_bytes(path, page("run", name, summary, document).encode())
    return path


def _item(item: Item, pixels: Pixels, most: int) -> dict[str, Any]:
    redrawn = ", redrawn" if item.kind is Kind.REDRAWN else ""
    note = f"{item.box.width:.0f} × {item.box.height:.0f} px{redrawn}"  # noqa: RUF001
    return entry(item.id, item.category, note, pixels, item.box, item.mask, most)


def entry(
    id: str,
    category: str,
    note: str,
    pixels: Pixels,
    box: Box,
    mask: Mask | None,
    most: int = _MOST_BYTES,
    *,
    asked: Box | None = None,
) -> dict[str, Any]:
    """What the page knows of one object, as JSON values; the box and the outline in thousandths of its picture.

    Args:
        id: names it in the answers.
        category: as labelled.
        note: stands beside the category.
        pixels: the whole image, (H, W, C).
        box: the label.
        mask: its pixels, or None.
        most: bytes of the picture.
        asked: the box asked for, where the page shows it too.
    """
    x, y, side, crop = _crop(pixels, box)
    drawn: dict[str, Any] = {
        "id": id,
        "category": category,
        "note": note,
        "picture": data_url(crop, most),
        "box": _thousandths(box, x, y, side),
        "path": "" if mask is None else _path(mask, side, x, y),
    }
    return drawn if asked is None else drawn | {"asked": _thousandths(asked, x, y, side)}


def _thousandths(box: Box, x: int, y: int, side: int) -> list[float]:
    """Left, top, width and height of a box in thousandths of a crop."""
    corners = (np.array(box.xyxy) - (x, y, x, y)) * (1000 / side)
    return [round(float(v), 1) for v in (*corners[:2], *(corners[2:] - corners[:2]))]


def _crop(pixels: Pixels, box: Box) -> tuple[int, int, int, Pixels]:
    """Left, top and side of the square about an object, and its pixels for eyes; grey outside the image."""
    height, width = pixels.shape[:2]
    side = max(_LEAST_PX, math.ceil(max(box.width, box.height) * (1 + 2 * _CONTEXT)))
    x, y = (_start(c, side, size) for c, size in zip(box.center, (width, height), strict=True))
    crop = np.full((side, side, 3), 128, np.uint8)
    inside = preview.lit(pixels)[max(0, y) : y + side, max(0, x) : x + side]
    top, left = max(0, -y), max(0, -x)
    crop[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    if side < _ENLARGED_PX:
        crop = np.asarray(cv2.resize(crop, (_ENLARGED_PX, _ENLARGED_PX), interpolation=cv2.INTER_CUBIC))
    return x, y, side, crop


def _start(middle: float, side: int, size: int) -> int:
    """Where a crop begins: about the middle, moved inside the image where it fits."""
    start = round(middle - side / 2)
    return (size - side) // 2 if side >= size else min(max(0, start), size - side)


def _path(mask: Mask, side: int, x: int, y: int) -> str:
    """A mask's outlines along its pixels' edges as an SVG path, in thousandths of a crop."""
    fine = 4 if max(mask.pixels.shape) <= 128 else 1
    fat = mask.pixels.astype(np.uint8).repeat(fine, axis=0).repeat(fine, axis=1)
    found, _ = cv2.findContours(np.pad(fat, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in found:
        points = cv2.approxPolyDP(contour, fine * max(0.35, side / 900), closed=True)[:, 0]
        if len(points) > 2:
            share = ((points - 0.5) / fine + (mask.x - x, mask.y - y)) * (1000 / side)
            parts.append("M" + "L".join(f"{u:.0f} {v:.0f}" for u, v in share) + "Z")
    return "".join(parts)


def page(kind: str, name: str, summary: str, document: dict[str, Any]) -> str:
    """The HTML text of an audit.

    Args:
        kind: "run" for painted objects, "real" for labels of the data.
        name: of the run or of the data.
        summary: a sentence about the sample.
        document: what the page knows, as JSON values.
    """
    import jinja2

    folder = resources.files("rarefill") / "templates"
    plan_css, css, script, text = (
        (folder / file).read_text(encoding="utf-8")
        for file in ("plan.css", "audit.css", "audit.js", "audit.html")
    )
    template = jinja2.Environment(autoescape=False).from_string(text)  # noqa: S701 # names are escaped below
    return template.render(
        title=_TITLES[kind],
        name=html.escape(name),
        summary=html.escape(summary),
        help=_HELP[kind],
        choices=len(document["choices"]),
        css=plan_css + css,
        script=script,
        document=embedded(document),
    )
