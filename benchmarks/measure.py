"""How far the measurement of a painted object is off: on real and rendered objects whose boxes or masks are known.

    python benchmarks/measure.py [--shelf ../shared] [--most 80] [--part test]

A real object is taken for "painted": the background is the same window with the object inpainted, as wide about it as a
generator repaints, and the planned silhouette is a wrong one: its own, shifted, scaled and bent (where masks are
known), or another object's of its category in a box that is off (where only boxes are). Rendered cells are exact: the
same field is rendered with and without the cell, and with other noise where it is painted.

`--part tune` takes the objects that the measurement's constants were chosen on.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from rarefill import bank, cutouts, dataset, geometry
from rarefill.annotators import outline
from rarefill.bank import Bank, Slack
from rarefill.geometry import Box, Mask
from rarefill.scene import Pixels, Shape

SIZES = (0, 16, 32, 64, 128, 10_000)
LEVELS = {"exact": 0.0, "slight": 0.04, "marked": 0.1}
"""Standard deviation of each side's error, as a share of the object's side; shifts are half of it."""
NO_SLACK: Slack = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Case:
    """One object taken for painted, and what is known of it: its box, and its mask or None."""

    data: str
    level: str
    picture: Pixels
    background: Pixels
    planned: Mask
    touched: Mask
    box: Box
    mask: Mask | None
    slack: Slack = NO_SLACK


def off(box: Box, amount: float, rng: np.random.Generator, width: int, height: int) -> Box:
    """A box whose sides and place are off by this share of its sides."""
    w, h = box.width * np.exp(rng.normal(0, amount)), box.height * np.exp(rng.normal(0, amount))
    cx, cy = np.array(box.center) + rng.normal(0, amount / 2, 2) * (box.width, box.height)
    x1, y1 = round(cx - w / 2), round(cy - h / 2)
    wrong = Box(x1, y1, x1 + max(3, round(w)), y1 + max(3, round(h)))
    return wrong.clipped(width, height) or box


def grown(mask: Mask, by: float, width: int, height: int) -> np.ndarray:
    inside = mask.full(height, width).astype(np.uint8)
    return cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3) <= by


def painted(
    data: str,
    level: str,
    picture: Pixels,
    truth: Mask,
    planned: Mask,
    rng: np.random.Generator,
    label: Box,
    slack: Slack,
) -> Case:
    """A real object as if it were paint: its background is inpainted, its ring repainted."""
    height, width = picture.shape[:2]
    touched = grown(planned, rng.uniform(2, 7), width, height) | grown(truth, 2, width, height)
    mask = Mask.of(touched)
    x1, y1, x2, y2 = (int(v) for v in mask.box.xyxy)
    x1, y1, x2, y2 = max(0, x1 - 12), max(0, y1 - 12), min(width, x2 + 12), min(height, y2 + 12)
    crop, hole = picture[y1:y2, x1:x2], touched[y1:y2, x1:x2]
    zoom = min(1.0, 160 / max(hole.shape))
    size = (max(1, round(hole.shape[1] * zoom)), max(1, round(hole.shape[0] * zoom)))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    away = cv2.resize(hole.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    filled = cv2.inpaint(small, cv2.dilate(away, np.ones((3, 3), np.uint8)), 4, cv2.INPAINT_TELEA)
    filled = cv2.resize(filled, hole.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)
    filled += rng.normal(0, outline.noise(crop.astype(np.float32)), (*hole.shape, 1))
    background = picture.copy()
    background[y1:y2, x1:x2][hole] = np.clip(np.rint(filled), 0, 255).astype(np.uint8)[hole]
    known = None if slack != NO_SLACK or label != truth.box else truth
    return Case(data, level, picture, background, planned, mask, label, known, slack)


def real(name: str, path: Path, pictures: Path, *, part: str, most: int) -> Iterator[Case]:
    """Objects of a real dataset: every second image is for tuning where there is no split of its own."""
    found = dataset.load(path, pictures, lenient=True)
    rng = np.random.default_rng(7)
    rows = [r for n in found.names for r in rng.permutation(found.rows_of(n))[:most]]
    boxes = not any(found.has_mask(int(r)) for r in rows[:20])
    if not boxes:
        rows = [r for r in rows if found.annotations.image[r] % 2 == (part == "test")]
    rows = rng.permutation(rows)[: 3 * most]
    shapes = (
        bank.build(found, [n for n in found.names if len(found.rows_of(n))], cache=CACHE)
        if boxes
        else Bank([])
    )
    for row in sorted(map(int, rows), key=lambda r: found.annotations.image[r]):
        image, box = int(found.annotations.image[row]), found.box(row)
        picture = np.ascontiguousarray(outline.pictures.rgb(found.read(image)))
        height, width = picture.shape[:2]
        if min(box.width, box.height) < 4 or box.area > 0.5 * width * height:
            continue
        category = found.names[int(found.annotations.category[row])]
        for level, amount in LEVELS.items():
            draw = np.random.default_rng([row, len(level)])
            if boxes:
                slack = shapes.slack(category)
                others = [e for e in shapes.of(category) if e.annotation != row]
                if not others:
                    continue
                tight = bank.tight(box, slack)
                wrong = off(tight, amount, draw, width, height)
                shape = others[int(draw.integers(len(others)))]
                planned = bank.silhouette(shape.mask, Shape(shape.annotation), wrong).clipped(width, height)
                truth = cutouts.rounded(tight, width, height)
                if truth is None or planned is None:
                    continue
                yield painted(name, level, picture, truth, planned, draw, box, slack)
            else:
                truth = found.mask(row)
                if truth is None or truth.area < 12:
                    continue
                planned = truth
                if amount:
                    bent = Shape(row, bend=amount / 2, bend_seed=row)
                    planned = bank.silhouette(truth, bent, off(truth.box, amount, draw, width, height))
                    planned = planned.clipped(width, height)
                yield painted(name, level, picture, truth, planned, draw, truth.box, NO_SLACK)


def rendered(*, part: str, most: int) -> Iterator[Case]:
    """Cells of the demo's slides, each field with and without one of them."""
    from dataclasses import replace

    from rarefill.demo import camera, smear

    for n in range(most // 3):
        rng = np.random.default_rng([n, part == "test"])
        slide = smear.slide(rng)
        field = smear.smear(rng, slide, platelets=2)
        stack = smear.layers(field)
        masks = smear.masks(stack)
        picture = camera.photograph(slide, field.optics, stack)
        other = camera.photograph(slide, replace(field.optics, seed=field.optics.seed + 1), stack)
        height, width = picture.shape[:2]
        kinds = [c.category for c in field.cells]
        for kind in ("RBC", "WBC", "Platelets"):
            last = [
                i for i, k in enumerate(kinds) if k == kind and masks[i] is not None and masks[i].area > 40
            ]
            if not last:
                continue
            i, truth = last[-1], masks[last[-1]]
            without = camera.photograph(slide, field.optics, [*stack[:i], *stack[i + 1 :]])
            for level, amount in LEVELS.items():
                draw = np.random.default_rng([n, i, len(level)])
                planned = truth
                if amount:
                    bent = Shape(0, bend=amount / 2, bend_seed=n)
                    planned = bank.silhouette(truth, bent, off(truth.box, amount, draw, width, height))
                    planned = planned.clipped(width, height)
                touched = grown(planned, draw.uniform(2, 7), width, height) | grown(truth, 2, width, height)
                done = np.where(touched[:, :, None], other, without)
                yield Case("rendered", level, done, without, planned, Mask.of(touched), truth.box, truth)


def error(case: Case, mask: Mask) -> tuple[float, float | None]:
    """IoU of the box, and of the mask where it is known."""
    height, width = case.picture.shape[:2]
    box = bank.loose(mask.box, case.slack).clipped(width, height) or mask.box
    return geometry.iou(box, case.box), None if case.mask is None else geometry.mask_iou(mask, case.mask)


CACHE = Path(os.environ.get("RAREFILL_CACHE", "~/.cache/rarefill")).expanduser()


def cases(shelf: Path, part: str, most: int, splits: Path | None) -> Iterator[Case]:
    yield from rendered(part=part, most=most)
    for name in ("bccd", "aquarium"):
        own = splits / name / ("test.json" if part == "test" else "train_k40.json") if splits else None
        yield from real(
            name,
            own or shelf / "data" / name / "annotations.json",
            shelf / "data" / name / "images",
            part=part,
            most=most,
        )
    for name in ("everyday", "sen2ships"):
        yield from real(
            name,
            shelf / "data" / name / "annotations.json",
            shelf / "data" / name / "images",
            part=part,
            most=most,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shelf", type=Path, default=Path(os.environ.get("RAREFILL_SHELF", "../shared")))
    parser.add_argument("--splits", type=Path, help="folder of the judge's splits of bccd and aquarium")
    parser.add_argument("--part", choices=("test", "tune"), default="test")
    parser.add_argument("--most", type=int, default=60, help="objects of a category")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    used, spent = [], []
    for case in cases(args.shelf, args.part, args.most, args.splits):
        start = time.perf_counter()
        found = outline.measured(case.picture, case.background, case.planned, case.touched)
        spent.append(time.perf_counter() - start)
        used.append(str(found.source))
        planned, now = error(case, case.planned), error(case, found.mask)
        side = float(np.sqrt(case.box.area))
        rows[case.data, case.level].append((side, planned[0], now[0], planned[1] or np.nan, now[1] or np.nan))
    print(
        f"{'':10} {'silhouette':8} {'side px':>9} {'n':>4}  {'box: planned measured  better worse':36}  mask: planned measured"
    )
    for (data, level), values in rows.items():
        table = np.array(values)
        for low, high in pairwise(SIZES):
            here = table[(table[:, 0] >= low) & (table[:, 0] < high)]
            if len(here) < 5:
                continue
            line(f"{data:10} {level:8} {low:4}-{high if high < 10_000 else '':<4}", here)
        large = table[table[:, 0] >= 32]
        if len(large) >= 5:
            line(f"{data:10} {level:8} {'32 and up':9}", large)
    counts = {name: used.count(name) for name in sorted(set(used))}
    print(
        f"{len(used)} measurements; {counts}; {1000 * np.median(spent):.1f} ms each (median), {1000 * np.quantile(spent, 0.95):.1f} ms (95 %)"
    )


def line(head: str, here: np.ndarray) -> None:
    gain = here[:, 2] - here[:, 1]
    median = np.median(here, axis=0)
    mask = "" if np.isnan(median[3]) else f"{median[3]:.3f} {median[4]:.3f}"
    print(
        f"{head} {len(here):4}  {median[1]:.3f} {median[2]:.3f}  tenth {np.quantile(here[:, 1], 0.1):.2f} {np.quantile(here[:, 2], 0.1):.2f}"
        f"  {(gain > 0.02).mean():4.0%} {(gain < -0.02).mean():4.0%}   {mask}"
    )


if __name__ == "__main__":
    main()
