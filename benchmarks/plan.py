"""How fast layouts are planned, and how that grows with the objects that stand on a background.

    python benchmarks/plan.py
    python benchmarks/plan.py --scenes 20 --repeats 9
    python benchmarks/plan.py --stream 1000000

Every object, real or planned, has a mask. The figures are of this process's CPU time, on one core; the ratios compare
cases of the same run, so that they mean something on any machine. Each is the median of some repeats, which take turns with
those of the other cases: on a machine that others use, single ones differ by a third. With context, the surroundings of
all images are known before the clock starts, as they are from the cache of an earlier run.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from rarefill.bank import Bank, Exemplar
from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.geometry import Mask
from rarefill.layouts import Context, Planner
from rarefill.recipe import LayoutConfig

WIDTH, HEIGHT = 1920, 1080
OBJECTS = (5, 20, 100, 500, 1000)
LAYOUTS = 1000
MANY, FEW = 40, 4
"""Layouts on each background: what is drawn for a place serves several. A recipe says 4 unless told otherwise."""


def blob(rng: np.random.Generator, x: int, y: int, side: int) -> Mask:
    rows, cols = np.mgrid[:side, :side] - (side - 1) / 2
    radius = side / 2 * (1 - 0.3 * rng.random() * np.cos(3 * np.arctan2(rows, cols)) ** 2)
    mask = Mask.of(np.hypot(rows, cols) <= radius, x, y)
    assert mask is not None
    return mask


def run_lengths(mask: Mask) -> list[int]:
    """COCO's run lengths of a mask on the whole image, column by column, the first ones empty."""
    columns = mask.window(mask.x, 0, mask.pixels.shape[1], HEIGHT).T.ravel()
    change = np.flatnonzero(np.diff(columns, prepend=False, append=False)) + mask.x * HEIGHT
    return np.diff(change, prepend=0, append=WIDTH * HEIGHT).tolist()


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
            segmentation.append(json.dumps({"size": [HEIGHT, WIDTH], "counts": run_lengths(mask)}).encode())
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


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed: layouts on each background, objects on each layout, with context or without."""

    uses: int
    objects: int = 1
    context: bool = True

    def planner(self, data: Dataset, bank: Bank, context: Context) -> Planner:
        config = LayoutConfig(max_reuse=self.uses, per_image=self.objects, untouched=0.0)
        planner = Planner(data, bank, config, seed=0, context=context if self.context else None)
        for _ in planner.stream({"rare": self.objects}):
            pass
        return planner


CASES = (
    Case(MANY),
    Case(FEW),
    Case(MANY, 2),
    Case(FEW, 2),
    Case(MANY, context=False),
    Case(FEW, context=False),
)


def timed(case: Case, planner: Planner, images: int) -> float:
    """Layouts planned in a second of this process, on as few of the images as it takes."""
    layouts = min(LAYOUTS, images * case.uses)
    others = range(-(-layouts // case.uses), images)
    start = time.process_time()
    plan = planner.plan(
        {"rare": layouts * case.objects}, images=layouts, used=dict.fromkeys(others, case.uses)
    )
    return len(plan.layouts) / (time.process_time() - start)


def table(scenes: Sequence[int], repeats: int) -> None:
    """Layouts a second by objects in a scene, with and without context, with 1 and with 2 objects a layout."""
    print(
        f"{'':>13} {'1 each, context':>17} {'2 each, context':>17} {'1 each, none':>17} {'time,':>6} {'objects,':>8}"
    )
    uses = f"{f'{MANY} uses':>9}{f'{FEW}':>8}"
    print(f"{'objects/scene':>13} {uses} {uses} {uses} {'ratio':>6} {'ratio':>8}")
    first = None
    for objects in scenes:
        images = max(8, min(100, 4000 // objects))
        with TemporaryDirectory() as folder:
            data, bank = world(objects, images, Path(folder))
            context = Context(data, bank)
            planners = [case.planner(data, bank, context) for case in CASES]
            found = [
                [timed(case, planner, images) for case, planner in zip(CASES, planners, strict=True)]
                for _ in range(repeats)
            ]
        speeds = np.median(found, axis=0)
        first = first or speeds[0]
        cells = [f"{a:>9.0f}{b:>8.0f}" for a, b in speeds.reshape(-1, 2)]
        ratios = f"{first / speeds[0]:>6.2f} {objects / scenes[0]:>8.0f}"
        print(f"{objects:>13} {' '.join(cells)} {ratios}", flush=True)


def stream(n: int) -> None:
    """Plan n layouts one by one and say how much memory that took at most by then."""
    with TemporaryDirectory() as folder:
        data, bank = world(20, 60, Path(folder))
        config = LayoutConfig(max_reuse=n, per_image=1, untouched=0.0)
        layouts = Planner(data, bank, config, seed=0, context=Context(data, bank)).stream({"rare": n})
        told, start, i = [n * part // 100 for part in (1, 5, 10, 25, 50, 75, 100)], time.process_time(), 0
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
    parser.add_argument("--scenes", type=int, nargs="+", default=OBJECTS, help="objects in a scene")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if asked.stream:
        stream(asked.stream)
    else:
        table(asked.scenes, asked.repeats)


if __name__ == "__main__":
    main()
