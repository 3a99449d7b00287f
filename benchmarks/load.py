"""Claim: a COCO file of train2017's size loads in at most half the time and half the memory of pycocotools' COCO().

    python benchmarks/load.py

Makes the file in a temporary folder (118 287 images, 860 001 annotations with polygons), loads it with both in fresh
processes in turn, and prints the best times, the peak memory and the ratios. Neither looks at image files; rarefill's
time includes every check of the annotations.
"""

import argparse
import importlib
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

IMAGES, ANNOTATIONS, CATEGORIES = 118_287, 860_001, 80
POOL = 5_000
"""Different objects; each annotation is one of them. Readers see numbers as text and cannot tell."""


def pool(rng: random.Random) -> list[str]:
    """The keys of an object that do not name it: polygons as long as train2017's, with their box and area."""
    entries = []
    for _ in range(POOL):
        n, radius = max(3, round(rng.lognormvariate(3.1, 0.7))), rng.uniform(4, 100)
        x, y = rng.uniform(radius, 640 - radius), rng.uniform(radius, 480 - radius)
        turns = sorted(rng.uniform(0, 2 * math.pi) for _ in range(n))
        reach = [radius * rng.uniform(0.6, 1) for _ in range(n)]
        points = [
            (round(x + r * math.cos(t), 2), round(y + r * math.sin(t), 2))
            for t, r in zip(turns, reach, strict=True)
        ]
        xs, ys = zip(*points, strict=True)
        box = [min(xs), min(ys), round(max(xs) - min(xs) + 0.01, 2), round(max(ys) - min(ys) + 0.01, 2)]
        entry = {
            "segmentation": [[v for point in points for v in point]],
            "area": round(box[2] * box[3] * 0.7, 4),
            "iscrowd": 0,
            "bbox": box,
        }
        entries.append(json.dumps(entry)[:-1])
    return entries


def write(path: Path) -> None:
    """A file like instances_train2017.json: same counts, same keys, about the same length."""
    rng = random.Random(7)
    entries = pool(rng)
    with path.open("w") as f:
        f.write(
            '{"info": {"description": "made by benchmarks/load.py"}, "licenses": [{"id": 4}], "images": ['
        )
        f.write(
            ", ".join(
                f'{{"license": 4, "file_name": "{n:012}.jpg", "coco_url": "images/train2017/{n:012}.jpg", '
                f'"height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", "id": {n * 5}}}'
                for n in range(IMAGES)
            )
        )
        f.write('], "annotations": [')
        for n in range(ANNOTATIONS):
            f.write(
                f"{', ' if n else ''}{rng.choice(entries)}, "
                f'"image_id": {5 * rng.randrange(IMAGES)}, "category_id": {1 + rng.randrange(CATEGORIES)}, "id": {n + 1}}}'
            )
        categories = [
            {"supercategory": "thing", "id": n + 1, "name": f"thing {n + 1}"} for n in range(CATEGORIES)
        ]
        f.write(f'], "categories": {json.dumps(categories)}}}')


def ours(path: Path) -> int:
    from rarefill.dataset import load

    return len(load(path, check_files=False).annotations)


def theirs(path: Path) -> int:
    from pycocotools.coco import COCO

    return len(COCO(str(path)).anns)


LOADERS: dict[str, Callable[[Path], int]] = {"rarefill": ours, "pycocotools": theirs}


def child(name: str, path: Path) -> None:
    """Load once, in this process; say the seconds and the peak memory in MiB."""
    import resource

    # Imports are over before the clock starts.
    for module in ("rarefill.checks", "rarefill.read_coco", "rarefill.read_yolo", "pycocotools.coco"):
        if module.startswith(name):
            importlib.import_module(module)
    began = time.perf_counter()
    held = LOADERS[name](path)
    seconds = time.perf_counter() - began
    assert held == ANNOTATIONS, held
    unit = 1024 if sys.platform != "darwin" else 1024**2
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit]))


def measured(name: str, path: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, "--child", name, "--file", str(path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    seconds, mib = json.loads(lines[-1])
    return seconds, mib


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=3, help="loads of each, in turn; the best counts")
    arguments.add_argument("--child", choices=sorted(LOADERS), help=argparse.SUPPRESS)
    arguments.add_argument("--file", type=Path, help="a file made before; by default one is made and removed")
    given = arguments.parse_args()
    if given.child:
        child(given.child, given.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / "instances_made.json"
        if not path.exists():
            write(path)
        print(f"{IMAGES:,} images, {ANNOTATIONS:,} annotations, {path.stat().st_size / 2**20:,.0f} MiB")
        runs = {name: [] for name in LOADERS}
        for _ in range(given.runs):
            for name in LOADERS:
                runs[name].append(measured(name, path))
        best = {name: [min(column) for column in zip(*found, strict=True)] for name, found in runs.items()}
    for name, (seconds, mib) in best.items():
        print(f"{name:12} {seconds:6.2f} s  {mib:7,.0f} MiB at most")
    time_ratio, memory_ratio = (a / b for a, b in zip(best["rarefill"], best["pycocotools"], strict=True))
    print(f"rarefill / pycocotools: time {time_ratio:.2f}, memory {memory_ratio:.2f} (claim: 0.50 each)")


if __name__ == "__main__":
    main()
