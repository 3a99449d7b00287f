"""A plan as one HTML page: pictures, what is asked for on them, and tools to edit it. It works from disk and loads nothing."""

import base64
import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from rarefill import files, preview
from rarefill.dataset import Dataset
from rarefill.geometry import Mask
from rarefill.scene import Layout, Pixels, Placement

SHOWN = 300
"""Layouts on one page, at most."""
PICTURES_BYTES = 10_500_000
"""Of all pictures together, before base64 makes them a third larger."""
_MOST_BYTES = 160_000  # of one picture, where there are few
_STEPS = ((960, 80), (800, 76), (640, 72), (512, 66), (400, 58), (320, 50))
"""Longest side and WebP quality, tried in this order."""


def write(
    path: Path,
    dataset: Dataset,
    plan: Path,
    layouts: Sequence[Layout],
    *,
    notes: Sequence[str] = (),
    shown: int = SHOWN,
) -> Path:
    """Write the page of a plan.

    Args:
        path: of the page.
        dataset: whose images they are.
        plan: the file, whose lines the page hands on as they are, except for what is edited.
        layouts: all of its lines, as `read_plan` gives them.
        notes: lines that the page begins with, as `plan_notes.notes` gives them.
        shown: layouts with placements to show at most; the others stay in the plan unseen.

    Returns:
        The page's path.

    Raises:
        DataError: a background cannot be read.
        RunError: the page cannot be written.
    """
    lines = [line.rstrip("\r\n") for line in plan.read_text(encoding="utf-8").split("\n") if line.strip()]
    document = plan_document(dataset, lines, layouts, shown=shown)
    text = _page(plan.name, dataset.path.name, document, layouts, notes)
    files.write_bytes(path, text.encode())
    return path


def plan_document(
    dataset: Dataset, lines: Sequence[str], layouts: Sequence[Layout], *, shown: int = SHOWN
) -> dict[str, Any]:
    """What the page knows, as JSON values: categories, pictures and, for each line of the plan, a layout."""
    filled = [i for i, layout in enumerate(layouts) if layout.placements][:shown]
    backgrounds = list(dict.fromkeys(layouts[i].image for i in filled))
    most = min(_MOST_BYTES, PICTURES_BYTES // max(1, len(backgrounds)))
    thumbs = {image: n for n, image in enumerate(backgrounds)}
    known = frozenset(filled)
    return {
        "categories": _categories(dataset, layouts),
        "thumbs": [data_url(preview.lit(dataset.read(image)), most) for image in backgrounds],
        "layouts": [
            _layout(dataset, line, i + 1, layout, thumbs[layout.image]) if i in known else {"text": line}
            for i, (line, layout) in enumerate(zip(lines, layouts, strict=True))
        ],
    }


def _categories(dataset: Dataset, layouts: Iterable[Layout]) -> list[dict[str, Any]]:
    """What can be asked for, each with its colour and the usual width and height of its real objects."""
    colors = preview.palette(p.category for layout in layouts for p in layout.placements)
    more = [name for name in dataset.names if name not in colors and len(dataset.rows_of(name))]
    colors |= preview.palette(more, first=len(colors))
    out = []
    for name, color in colors.items():
        boxes = dataset.annotations.boxes[dataset.rows_of(name)]
        sides = np.median(boxes[:, 2:] - boxes[:, :2], axis=0) if len(boxes) else np.array([32, 32])
        width, height = (max(2, round(float(v))) for v in sides)
        out.append({"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*color), "size": [width, height]})
    return out


def _layout(dataset: Dataset, line: str, number: int, layout: Layout, thumb: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(line)
    entries = value.pop("placements", [])
    width, height = int(dataset.images.width[layout.image]), int(dataset.images.height[layout.image])
    return {
        "head": _text(value),
        "file": dataset.images.file_name[layout.image],
        "line": number,
        "copy": layout.copy,
        "w": width,
        "h": height,
        "thumb": thumb,
        "items": [
            _item(entry, placement, max(width, height))
            for entry, placement in zip(entries, layout.placements, strict=True)
        ],
    }


def _item(entry: dict[str, Any], placement: Placement, longest: int) -> dict[str, Any]:
    """One placement: its text in the plan, cut around the box, and what the page draws of it."""
    box = entry.get("box", list(placement.box.xyxy))
    score = entry.get("score")
    return {
        "text": _cut(entry),
        "category": placement.category,
        "box": [int(v) if v == int(v) else v for v in box],
        "path": _path(placement.mask, longest / _STEPS[0][0]),
        "score": score if isinstance(score, int | float) else None,
        "fixed": placement.redraws is not None,
        "part": placement.whole is not None,
    }


def _cut(entry: dict[str, Any]) -> tuple[str, str, str]:
    """A placement's text before its box, the box, and the text after it; all of it before where there is no box."""
    if "box" not in entry:
        return _text(entry), "", ""
    fields = [f"{_text(key)}: " + ("\0" if key == "box" else _text(value)) for key, value in entry.items()]
    before, after = ("{" + ", ".join(fields) + "}").split("\0")
    return before, _text(entry["box"]), after


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _path(mask: Mask, pixel: float) -> str:
    """The mask's outlines as an SVG path, in thousandths of its box.

    Args:
        mask: the silhouette.
        pixel: how many pixels of the image one pixel of the picture shows: finer than half of that is not drawn.
    """
    import cv2

    height, width = mask.pixels.shape
    fine = 4 if max(height, width) <= 128 else 1
    fat = mask.pixels.astype(np.uint8).repeat(fine, axis=0).repeat(fine, axis=1)
    found, _ = cv2.findContours(np.pad(fat, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in found:
        points = cv2.approxPolyDP(contour, fine * max(0.35, pixel / 2), closed=True)[:, 0]
        if len(points) > 2:
            share = (points - 0.5) / fine / (width, height) * 1000
            parts.append("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in share) + "Z")
    return "".join(parts) or "M0 0H1000V1000H0Z"


def data_url(pixels: Pixels, most: int) -> str:
    """A picture uint8 (H, W, 3) as small WebP of so many bytes at most, or of the last size that is tried."""
    import cv2

    data = b""
    for side, quality in _STEPS:
        zoom = min(1.0, side / max(pixels.shape[:2]))
        size = tuple(max(1, round(n * zoom)) for n in (pixels.shape[1], pixels.shape[0]))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if zoom < 1 else pixels
        _, encoded = cv2.imencode(
            ".webp", np.ascontiguousarray(small[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, quality]
        )
        data = encoded.tobytes()
        if len(data) <= most:
            break
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _page(
    name: str, data: str, document: dict[str, Any], layouts: Sequence[Layout], notes: Sequence[str]
) -> str:
    import jinja2

    folder = resources.files("rarefill") / "templates"
    css, model, view, page = (
        (folder / file).read_text(encoding="utf-8")
        for file in ("plan.css", "plan_model.js", "plan_view.js", "plan.html")
    )
    filled = sum(bool(layout.placements) for layout in layouts)
    here = sum("items" in layout for layout in document["layouts"])
    placements = sum(len(layout.placements) for layout in layouts)
    summary = (
        f"{placements:,} placements on {_count(filled, 'background')}; "
        f"{_count(len(layouts) - filled, 'background')} stay untouched."
    )
    left_out = (
        f"This page shows the first {here:,} backgrounds of {filled:,}; the others stay in the download as they are."
        if here < filled
        else ""
    )
    template = jinja2.Environment(autoescape=False).from_string(page)  # noqa: S701 # names are escaped below
    return template.render(
        name=html.escape(name),
        data=html.escape(data),
        summary=summary,
        left_out=left_out,
        notes=[html.escape(note) for note in notes],
        css=css,
        model=model,
        view=view,
        document=embedded(document),
    )


def embedded(document: Any) -> str:
    """JSON that no HTML parser takes for markup, whatever names are in it."""
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
