"""How fast layouts are planned, and how that grows with the objects that stand on a background.

    python benchmarks/plan.py

Every object, real or planned, has a mask. The figures are of this process's CPU time, on one core; the ratios compare
cases of the same run, so that they mean something on any machine.
"""

import json
import time
from pathlib import Path

import numpy as np

from rarefill import geometry
from rarefill.bank import Bank, Exemplar
from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.geometry import Mask
from rarefill.layouts import Plan, Planner
from rarefill.recipe import LayoutConfig

WIDTH, HEIGHT = 1920, 1080
OBJECTS = (5, 20, 100, 500)
LAYOUTS = 300


def blob(rng: np.random.Generator, x: int, y: int, side: int) -> Mask:
    rows, cols = np.mgrid[:side, :side] - (side - 1) / 2
    radius = side / 2 * (1 - 0.3 * rng.random() * np.cos(3 * np.arctan2(rows, cols)) ** 2)
    mask = Mask.of(np.hypot(rows, cols) <= radius, x, y)
    assert mask is not None
    return mask


def world(objects: int, images: int) -> tuple[Dataset, Bank]:
    """Images with so many objects each, one in twenty of them rare; masks as run lengths."""
    rng = np.random.default_rng(objects)
    masks, image, rare, segmentation = [], [], [], []
    for i in range(images):
        for n in range(objects):
            side = int(rng.integers(14, 28))
            mask = blob(rng, int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side)), side)
            masks.append(mask)
            image.append(i)
            rare.append(n % 20 == 0)
            counts = geometry.rle_counts(mask.full(HEIGHT, WIDTH)).decode()
            segmentation.append(json.dumps({"size": [HEIGHT, WIDTH], "counts": counts}).encode())
    n = len(masks)
    dataset = Dataset(
        Path("benchmark.json"),
        Path(),
        "coco",
        (Category(1, "common"), Category(2, "rare")),
        Images(
            np.arange(images) + 1,
            np.full(images, WIDTH, np.int32),
            np.full(images, HEIGHT, np.int32),
            [f"{i}.png" for i in range(images)],
        ),
        Annotations(
            np.arange(n) + 1,
            np.array(image, np.int32),
            np.array(rare, np.int32),
            np.array([m.box.xyxy for m in masks]),
            np.array([float(m.area) for m in masks]),
            np.zeros(n, dtype=bool),
            segmentation,
        ),
    )
    rows = np.flatnonzero(rare)[:400]
    bank = Bank(Exemplar(int(r), image[r], "rare", masks[r], "mask", 1.0, complete=True) for r in rows)
    return dataset, bank


def timed(objects: int) -> tuple[float, Plan]:
    dataset, bank = world(objects, images=max(4, 6000 // objects // 4))
    planner = Planner(dataset, bank, LayoutConfig(max_reuse=LAYOUTS, per_image=2, untouched=0.0), seed=0)
    planner.plan({"rare": 4})
    start = time.process_time()
    plan = planner.plan({"rare": 2 * LAYOUTS}, images=LAYOUTS)
    return time.process_time() - start, plan


def main() -> None:
    print(
        f"{'objects/image':>13} {'layouts/s':>10} {'objects/s':>10} {'time, ratio':>12} {'objects, ratio':>15}"
    )
    first = None
    for objects in OBJECTS:
        seconds, plan = timed(objects)
        each = seconds / len(plan.layouts)
        first = first or each
        placed = sum(len(layout.placements) for layout in plan.layouts)
        print(
            f"{objects:>13} {1 / each:>10.0f} {placed / seconds:>10.0f} {each / first:>12.2f} "
            f"{objects / OBJECTS[0]:>15.0f}"
        )


if __name__ == "__main__":
    main()
