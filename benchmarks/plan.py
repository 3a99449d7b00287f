"""How fast layouts are planned, and how that grows with the objects that stand on a background.

    python benchmarks/plan.py
    python benchmarks/plan.py --stream 1000000

Every object, real or planned, has a mask. The figures are of this process's CPU time, on one core; the ratios compare
cases of the same run, so that they mean something on any machine. With context, the surroundings of all images are
known before the clock starts, as they are from the cache of an earlier run.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from rarefill import geometry
from rarefill.bank import Bank, Exemplar
from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.geometry import Mask
from rarefill.layouts import Context, Planner
from rarefill.recipe import LayoutConfig

WIDTH, HEIGHT = 1920, 1080
OBJECTS = (5, 20, 100, 500, 1000)
LAYOUTS = 1000
REUSE = 40  # layouts on each background: what is drawn for a place serves several


def blob(rng: np.random.Generator, x: int, y: int, side: int) -> Mask:
    rows, cols = np.mgrid[:side, :side] - (side - 1) / 2
    radius = side / 2 * (1 - 0.3 * rng.random() * np.cos(3 * np.arctan2(rows, cols)) ** 2)
    mask = Mask.of(np.hypot(rows, cols) <= radius, x, y)
    assert mask is not None
    return mask


def world(objects: int, images: int, folder: Path) -> tuple[Dataset, Bank]:
    """Images with so many objects each, one in twenty of them rare; masks as run lengths."""
    rng = np.random.default_rng(objects)
    for i in range(images):
        coarse = rng.integers(0, 256, (9, 16, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i}.jpg"), picture)
    masks, image, rare, segmentation = [], [], [], []
    for i in range(images):
        for n in range(objects):
            side = int(rng.integers(14, 28))
            mask = blob(rng, int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side)), side)
            masks.append(mask)
            image.append(i)
            rare.append(n % 20 == i % 20 or n == 0)
            counts = geometry.rle_counts(mask.full(HEIGHT, WIDTH)).decode()
            segmentation.append(json.dumps({"size": [HEIGHT, WIDTH], "counts": counts}).encode())
    n = len(masks)
    dataset = Dataset(
        folder / "benchmark.json",
        folder,
        "coco",
        (Category(1, "common"), Category(2, "rare")),
        Images(
            np.arange(images) + 1,
            np.full(images, WIDTH, np.int32),
            np.full(images, HEIGHT, np.int32),
            [f"{i}.jpg" for i in range(images)],
        ),
        Annotations(
            np.arange(n) + 1,
            np.array(image, np.int32),
            np.array(rare, np.int32),
            np.array([m.box.xyxy for m in masks], dtype=float),
            np.array([float(m.area) for m in masks]),
            np.zeros(n, dtype=bool),
            segmentation,
        ),
    )
    rows = np.flatnonzero(rare)[:400]
    bank = Bank(Exemplar(int(r), image[r], "rare", masks[r], "mask", 1.0, complete=True) for r in rows)
    return dataset, bank


def timed(data: Dataset, bank: Bank, per_image: int, context: Context | None) -> tuple[float, float]:
    """Layouts and objects planned in a second of this process."""
    config = LayoutConfig(max_reuse=REUSE, per_image=per_image, untouched=0.0)
    planner = Planner(data, bank, config, seed=0, context=context)
    for _ in planner.stream({"rare": per_image}):
        pass
    layouts = min(LAYOUTS, len(data.images) * REUSE)
    start = time.process_time()
    plan = planner.plan({"rare": layouts * per_image}, images=layouts)
    seconds = time.process_time() - start
    placed = sum(len(layout.placements) for layout in plan.layouts)
    return len(plan.layouts) / seconds, placed / seconds


def table() -> None:
    """Layouts a second by objects in a scene, with and without context, with 1 and with 2 objects a layout."""
    print(f"{'':>13} {'context':>16} {'no context':>16} {'objects planned':>16} {'time,':>6} {'objects,':>8}")
    print(
        f"{'objects/scene':>13} {'1 each':>8}{'2 each':>8} {'1 each':>8}{'2 each':>8} {'a second':>16} {'ratio':>6} {'ratio':>8}"
    )
    first = None
    for objects in OBJECTS:
        with TemporaryDirectory() as folder:
            data, bank = world(objects, max(8, min(25, 3000 // objects)), Path(folder))
            context = Context(data)
            found = [timed(data, bank, n, c) for c in (context, None) for n in (1, 2)]
        first = first or found[0][0]
        speeds = [f"{layouts:>8.0f}" for layouts, _ in found]
        most = max(placed for _, placed in found)
        print(
            f"{objects:>13} {speeds[0]}{speeds[1]} {speeds[2]}{speeds[3]} {most:>16.0f} "
            f"{first / found[0][0]:>6.2f} {objects / OBJECTS[0]:>8.0f}",
            flush=True,
        )


def stream(n: int) -> None:
    """Plan n layouts one by one and say how much memory that took at most by then."""
    with TemporaryDirectory() as folder:
        data, bank = world(20, 60, Path(folder))
        config = LayoutConfig(max_reuse=n, per_image=1, untouched=0.0)
        layouts = Planner(data, bank, config, seed=0, context=Context(data)).stream({"rare": n})
        told, start, i = [n // 100, n // 10, n // 2, n], time.process_time(), 0
        for i, _ in enumerate(layouts, start=1):
            if i in told:
                print(
                    f"{i:>9} layouts  {peak_mb():6.0f} MB at most  {i / (time.process_time() - start):6.0f} a second",
                    flush=True,
                )
        if i < n:
            print(f"ended after {i} layouts")


def peak_mb() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", type=int, metavar="N", help="plan N layouts one by one, and watch memory")
    asked = parser.parse_args()
    if asked.stream:
        stream(asked.stream)
    else:
        table()


if __name__ == "__main__":
    main()
