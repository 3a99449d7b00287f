"""Pictures for people: a plan drawn on its backgrounds, and real objects beside painted ones."""

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarefill import files, pictures
from rarefill.dataset import Dataset
from rarefill.geometry import Box, iou
from rarefill.scene import Layout, Pixels, Placement

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

Color = tuple[int, int, int]

TILE_PX = 112
"""Side of a contact sheet's tile."""
_CONTEXT = 0.6  # of the object's longer side, shown on each side of it
_LEAST_PX = 24  # side of the smallest crop: below, nothing of the surroundings would be seen

_PAPER, _INK, _FAINT = (250, 250, 248), (28, 30, 34), (120, 124, 132)
_PALETTE: tuple[Color, ...] = (
    (255, 196, 0),
    (0, 200, 255),
    (255, 92, 138),
    (110, 230, 90),
    (190, 140, 255),
    (255, 140, 60),
    (60, 235, 200),
    (245, 245, 245),
)
_GOLDEN = 0.618034
_DARK = 110.0  # 99th percentile of an 8-bit picture: below, people see little of it
_MARGIN, _GAP = 32, 6


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One category on a contact sheet.

    Attributes:
        category: its name.
        real: tiles of real objects, uint8 (s, s, 3) each, as `tile` cuts them.
        painted: tiles of painted objects, of the same size.
        note: what stands beside the heading, such as "200 painted, 187 accepted".
    """

    category: str
    real: Sequence[Pixels]
    painted: Sequence[Pixels]
    note: str = ""


def tile(pixels: Pixels, box: Box, *, side: int = TILE_PX, ticks: bool = True) -> Pixels:
    """An object with what surrounds it: uint8 (side, side, 3).

    Args:
        pixels: the whole image, (H, W, C).
        box: the object.
        side: of the tile in pixels.
        ticks: mark the box's corners; the object itself stays free.
    """
    import cv2
    from PIL import Image, ImageDraw

    height, width = pixels.shape[:2]
    crop = max(_LEAST_PX, math.ceil(max(box.width, box.height) * (1 + 2 * _CONTEXT)))
    x, y = (_start(c, crop, size) for c, size in zip(box.center, (width, height), strict=True))
    picture = np.full((crop, crop, 3), _PAPER, dtype=np.uint8)
    inside = lit(pixels)[max(0, y) : y + crop, max(0, x) : x + crop]
    top, left = max(0, -y), max(0, -x)
    picture[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    zoom = side / crop
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    out = Image.fromarray(cv2.resize(picture, (side, side), interpolation=how))
    if ticks:
        corners = [(v - o) * zoom for v, o in zip(box.xyxy, (x, y, x, y), strict=True)]
        _ticks(ImageDraw.Draw(out), corners, (255, 255, 255), side)
    return np.asarray(out)


def contact_sheet(groups: Sequence[Group], *, columns: int = 6, title: str = "") -> Pixels:
    """Real objects on the left, painted ones on the right, one block for each category: uint8 (H, W, 3)."""
    from PIL import Image, ImageDraw

    side = max((len(t) for g in groups for t in (*g.real, *g.painted)), default=TILE_PX)
    block = columns * side + (columns - 1) * _GAP
    width = 2 * _MARGIN + 2 * block + 2 * _MARGIN
    head = 52 if title else 0
    rows = [max(1, math.ceil(max(len(g.real), len(g.painted)) / columns)) for g in groups]
    heights = [78 + n * (side + _GAP) + 26 for n in rows]
    sheet = Image.new("RGB", (width, _MARGIN + head + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN - 4), title, _INK, font=_font(26))
    y = _MARGIN + head
    for group, height in zip(groups, heights, strict=True):
        heading = _font(22)
        draw.text((_MARGIN, y), group.category, _INK, font=heading)
        after = _MARGIN + draw.textlength(group.category, font=heading) + 14
        draw.text((after, y + 6), group.note, _FAINT, font=_font(15))
        for name, tiles, x in (
            ("Real", group.real, _MARGIN),
            ("Painted", group.painted, 3 * _MARGIN + block),
        ):
            draw.text((x, y + 38), name, _FAINT, font=_font(16))
            draw.line((x, y + 62, x + block - 1, y + 62), fill=(206, 208, 212), width=1)
            if not tiles:
                draw.text((x, y + 78), "none", _FAINT, font=_font(15))
            for i, one in enumerate(tiles):
                at = (x + i % columns * (side + _GAP), y + 72 + i // columns * (side + _GAP))
                sheet.paste(Image.fromarray(np.ascontiguousarray(one)), at)
        y += height
    return np.asarray(sheet)


def plan_sheets(
    dataset: Dataset, layouts: Iterable[Layout], out: Path, *, columns: int = 3, rows: int = 3
) -> list[Path]:
    """Draw the placements of a plan on their backgrounds, some layouts to a sheet.

    Args:
        dataset: whose images they are.
        layouts: untouched ones are left out.
        out: the folder that gets plan-001.png and so on.
        columns: of a sheet.
        rows: of a sheet.

    Returns:
        The sheets' files.

    Raises:
        DataError: a background cannot be read.
        RunError: a sheet cannot be written.
    """
    filled = [layout for layout in layouts if layout.placements]
    colors = palette(p.category for layout in filled for p in layout.placements)
    per_sheet = columns * rows
    paths = []
    for start in range(0, len(filled), per_sheet):
        chosen = filled[start : start + per_sheet]
        title = f"Layouts {start + 1} to {start + len(chosen)} of {len(filled)}: size in pixels, score of the place"
        sheet = _plan_sheet(dataset, chosen, columns, title, colors)
        paths.append(out / f"plan-{start // per_sheet + 1:03d}.png")
        files.write_bytes(paths[-1], pictures.encode(sheet, "png"))
    return paths


def _plan_sheet(
    dataset: Dataset, layouts: Sequence[Layout], columns: int, title: str, colors: dict[str, Color]
) -> Pixels:
    from PIL import Image, ImageDraw

    width, height, caption = 520, 416, 30
    n_rows = math.ceil(len(layouts) / columns)
    size = (
        2 * _MARGIN + columns * (width + 2 * _GAP),
        _MARGIN + 56 + n_rows * (height + caption + 2 * _GAP) + _GAP,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 8), title, _INK, font=_font(24))
    x = _MARGIN + draw.textlength(title, font=_font(24)) + 28
    for name in sorted({p.category for layout in layouts for p in layout.placements}):
        draw.rounded_rectangle((x, _MARGIN, x + 14, _MARGIN + 14), 3, fill=colors[name], outline=_INK)
        draw.text((x + 22, _MARGIN - 3), name, _INK, font=_font(17))
        x += 46 + draw.textlength(name, font=_font(17))
    for i, layout in enumerate(layouts):
        picture = _drawn(dataset, layout, colors, width, height)
        at = (
            _MARGIN + i % columns * (width + 2 * _GAP),
            _MARGIN + 56 + i // columns * (height + caption + 2 * _GAP),
        )
        sheet.paste(picture, (at[0] + (width - picture.width) // 2, at[1] + (height - picture.height) // 2))
        words = f"{dataset.images.file_name[layout.image]}, copy {layout.copy}"
        font = _font(13)
        while draw.textlength(words, font=font) > width and len(words) > 8:
            words = "..." + words[7:]
        draw.text((at[0], at[1] + height + 6), words, _FAINT, font=font)
    return np.asarray(sheet)


def _drawn(dataset: Dataset, layout: Layout, colors: dict[str, Color], width: int, height: int) -> "Image":
    """One background with its placements, scaled to fit width x height."""
    import cv2
    from PIL import Image, ImageDraw

    pixels = lit(dataset.read(layout.image))
    zoom = min(width / pixels.shape[1], height / pixels.shape[0])
    size = (round(pixels.shape[1] * zoom), round(pixels.shape[0] * zoom))
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = Image.fromarray(cv2.resize(pixels, size, interpolation=how))
    draw = ImageDraw.Draw(picture)
    for placement in layout.placements:
        color = colors[placement.category]
        for outline in _outlines(placement, zoom):
            draw.line(outline, fill=(0, 0, 0), width=4, joint="curve")
            draw.line(outline, fill=color, width=2, joint="curve")
        _ticks(draw, _around(placement.box, zoom).xyxy, color, max(size))
    taken = [_around(p.box, zoom) for p in layout.placements]
    for placement in layout.placements:
        _label(draw, placement, zoom, size, colors[placement.category], taken)
    return picture


def _outlines(placement: Placement, zoom: float) -> list[list[tuple[float, float]]]:
    """The mask's outlines along its pixels' edges, closed, in the zoomed picture."""
    import cv2

    mask, fine = placement.mask, 4
    fat = mask.pixels.astype(np.uint8).repeat(fine, axis=0).repeat(fine, axis=1)
    found, _ = cv2.findContours(np.pad(fat, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    closed = [np.concatenate([f[:, 0], f[:1, 0]]) for f in found]
    return [
        [(float(x), float(y)) for x, y in ((points - 0.5) / fine + (mask.x, mask.y)) * zoom]
        for points in closed
    ]


def _around(box: Box, zoom: float) -> Box:
    return Box(*(v * zoom + d for v, d in zip(box.xyxy, (-3, -3, 3, 3), strict=True)))


def _label(
    draw: "ImageDraw",
    placement: Placement,
    zoom: float,
    size: tuple[int, int],
    color: Color,
    taken: list[Box],
) -> None:
    """Name, size and score beside a box, where neither another object nor another label lies; nothing where there is no room."""
    box, font = placement.box, _font(13)
    name = placement.category if placement.redraws is None else f"redraw {placement.category}"
    at = _around(box, zoom)
    sides = f"{box.width:.0f} x {box.height:.0f}"
    figures = f"{sides}, {placement.score:.2f}" if placement.score else sides  # 0 is a person's placement
    for words in (f"{name} {figures}", figures, sides):
        wide, high = draw.textlength(words, font=font) + 8, 18.0
        x = min(max(0.0, at.x1), size[0] - wide)
        y = min(max(0.0, at.y1), size[1] - high)
        corners = ((x, at.y1 - high - 1), (x, at.y2 + 1), (at.x2 + 1, y), (at.x1 - wide - 1, y))
        for left, top in corners:
            if left < 0 or top < 0 or left + wide > size[0] or top + high > size[1]:
                continue
            label = Box(left, top, left + wide, top + high)
            if any(iou(label, other) > 0 for other in taken):
                continue
            taken.append(label)
            draw.rounded_rectangle(label.xyxy, 4, fill=color)
            draw.text((left + 4, top + 2), words, (0, 0, 0), font=font)
            return


def _ticks(draw: "ImageDraw", corners: Sequence[float], color: Color, side: int) -> None:
    """Short strokes at a box's four corners."""
    x1, y1, x2, y2 = (float(round(v)) for v in corners)
    long = max(3.0, min(0.28 * min(x2 - x1, y2 - y1), 0.09 * side))
    for dark in (True, False):
        for x, way_x in ((x1, 1), (x2, -1)):
            for y, way_y in ((y1, 1), (y2, -1)):
                stroke = ((x + way_x * long, y), (x, y), (x, y + way_y * long))
                draw.line(stroke, fill=(0, 0, 0) if dark else color, width=3 if dark else 1)


def palette(names: Iterable[str], *, first: int = 0) -> dict[str, Color]:
    """A colour for each name, by alphabet, from the palette's `first` on."""
    return {name: _color(first + i) for i, name in enumerate(sorted(set(names)))}


def _color(i: int) -> Color:
    """The palette's; beyond it hues a golden section of the circle apart, light and strong by turns."""
    if i < len(_PALETTE):
        return _PALETTE[i]
    red, green, blue = colorsys.hsv_to_rgb(i * _GOLDEN % 1, *((0.85, 0.95), (0.45, 1.0), (0.9, 0.7))[i % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def lit(pixels: Pixels) -> Pixels:
    """uint8 (H, W, 3) for eyes: what is nearly black (a calm sea in the infra-red) is lifted until it shows."""
    picture = pictures.rgb(pixels)
    bright = float(np.percentile(picture, 99))
    if bright >= _DARK:
        return picture
    lifted = picture.astype(np.float32) * (_DARK / max(bright, 16.0))
    return np.asarray(np.clip(lifted, 0, 255), dtype=np.uint8)


def _start(middle: float, crop: int, size: int) -> int:
    """Where a crop begins: about the middle, moved inside the image where it fits."""
    start = round(middle - crop / 2)
    return (size - crop) // 2 if crop >= size else min(max(0, start), size - crop)


def _font(size: int) -> "FreeTypeFont | ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(size=size)
