"""Draws where plans put objects, as outlines on plain paper: no pixel of an image is shown.

    python benchmarks/plan_sheets.py DATA OUT
    python benchmarks/plan_sheets.py DATA OUT --cases hituav/Car --objects 60 --previews LOOK

DATA holds a folder for each dataset, with annotations.json and images/. For each case OUT gets a sheet: all real boxes of
the category in one frame, the planned silhouettes in the same frame over the real boxes, and six single layouts, real
objects grey (those of the category dark), planned ones in colour. With --previews the plan is drawn on its images as
well, for the eye alone.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from rarefill.bank import build
from rarefill.dataset import Dataset, load
from rarefill.geometry import Mask
from rarefill.layouts import Context, Planner
from rarefill.preview import plan_sheets
from rarefill.recipe import LayoutConfig
from rarefill.scene import Layout

CASES = (
    "bccd/Platelets",
    "aquarium/starfish",
    "hituav/OtherVehicle",
    "sen2ships/vessel",
    "everyday/stop sign",
)
WIDE, NARROW, GAP, FINE = 456, 300, 12, 2
SINGLE = 6
PAPER, FRAME, INK = (250, 250, 248), (236, 237, 234), (60, 62, 68)
REAL, OTHER, NEW = (70, 74, 84), (176, 179, 184), (216, 84, 20)

Corners = tuple[float, float, float, float]


class Panel:
    """A frame of one shape, in which things stand at shares of its width and height."""

    def __init__(self, width: int, shape: float) -> None:
        self.size = (width * FINE, round(width * shape) * FINE)
        self.image = Image.new("RGB", self.size, FRAME)
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def box(self, corners: Corners, color: tuple[int, int, int], *, strong: int, filled: int = 0) -> None:
        at = [v * s for v, s in zip(corners, self.size * 2, strict=True)]
        self._draw.rectangle(at, outline=(*color, strong), fill=(*color, filled), width=FINE)

    def outline(self, mask: Mask, width: int, height: int) -> None:
        padded = np.pad(mask.pixels.astype(np.uint8), 1)
        for part in cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            points = (part[:, 0] - 0.5 + (mask.x, mask.y)) * self.size / (width, height)
            if len(points) > 2:
                corners = [(float(x), float(y)) for x, y in points]
                self._draw.polygon(corners, fill=(*NEW, 120), outline=(*NEW, 255))


def made(data: Dataset, category: str, n: int, cache: Path) -> list[Layout]:
    bank = build(data, [category], cache=cache)
    context = Context(data, bank, cache=cache)
    planner = Planner(data, bank, LayoutConfig(untouched=0.0), seed=0, context=context)
    plan = planner.plan({category: n})
    for lacking in plan.shortfalls:
        print(lacking)
    print(f"{category}: {len(plan.layouts)} layouts; {plan.covered.get(category)}", flush=True)
    return list(plan.layouts)


def shares(data: Dataset, row: int) -> Corners:
    image = data.annotations.image[row]
    size = (int(data.images.width[image]), int(data.images.height[image])) * 2
    x1, y1, x2, y2 = (float(v / s) for v, s in zip(data.annotations.boxes[row], size, strict=True))
    return x1, y1, x2, y2


def sheet(data: Dataset, category: str, layouts: Sequence[Layout], title: str) -> Image.Image:
    index, images = data.category_row(category), data.images
    shape = float(np.median(images.height / images.width))
    real, planned = Panel(WIDE, shape), Panel(WIDE, shape)
    rows = data.rows_of(category)
    for row in rows[:: max(1, len(rows) // 300)]:
        real.box(shares(data, int(row)), REAL, strong=90, filled=14)
        planned.box(shares(data, int(row)), REAL, strong=26, filled=8)
    for layout in layouts:
        size = int(images.width[layout.image]), int(images.height[layout.image])
        for placement in layout.placements:
            planned.outline(placement.mask, *size)
    panels = [[real, planned], []]
    seen: set[int] = set()
    for layout in itertools.islice(
        (x for x in layouts if x.image not in seen and not seen.add(x.image)), SINGLE
    ):
        width, height = int(images.width[layout.image]), int(images.height[layout.image])
        one = Panel(NARROW, shape)
        for row in data.rows_in(layout.image).tolist():
            own = data.annotations.category[row] == index
            one.box(shares(data, row), REAL if own else OTHER, strong=220, filled=90 if own else 60)
        for placement in layout.placements:
            one.outline(placement.mask, width, height)
        panels[-1].append(one)
        if len(panels[-1]) == 3:
            panels.append([])
    return laid(panels, title)


def laid(panels: Sequence[Sequence[Panel]], title: str) -> Image.Image:
    """Rows of panels under a line of words."""
    gap, head = GAP * FINE, 26 * FINE
    held = [row for row in panels if row]
    width = gap + max(sum(p.size[0] + gap for p in row) for row in held)
    out = Image.new("RGB", (width, head + sum(row[0].size[1] + gap for row in held)), PAPER)
    ImageDraw.Draw(out).text((gap, 6 * FINE), title, INK, font_size=13 * FINE)
    y = head
    for row in held:
        x = gap
        for panel in row:
            out.paste(panel.image, (x, y))
            x += panel.size[0] + gap
        y += row[0].size[1] + gap
    small = out.resize((out.width // FINE, out.height // FINE), Image.Resampling.LANCZOS)
    return small.quantize(96, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument(
        "--cache", type=Path, help="where silhouettes and grids are kept; a run's own unless said"
    )
    parser.add_argument("--previews", type=Path, help="folder for the plans drawn on their images")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for case in args.cases:
        name, category = case.split("/")
        folder = args.data / name
        data = load(folder / "annotations.json", folder / "images", check_files=False)
        layouts = made(data, category, args.objects, args.cache or Path("~/.cache/rarefill").expanduser())
        title = f"{name}, {category}: real boxes; planned over real; single layouts"
        sheet(data, category, layouts, title).save(args.out / f"plan-{name}.png", optimize=True)
        if args.previews is not None:
            plan_sheets(data, layouts[:9], args.previews / name)


if __name__ == "__main__":
    main()
