"""Whether bent silhouettes look like real ones: against real ones that were held back. And which classes are turned.

    python benchmarks/shapes.py               datasets are in RAREFILL_SHELF/data, else in ../shared/data
    python benchmarks/shapes.py --turning     how each class of each dataset may be turned; some minutes of cutting out

A category's trusted silhouettes are halved by image. For each half, distances to the nearest outline of the other:

    real     from a real silhouette: how much the class differs
    bent     from one that was bent as the planner bends: no larger, if bending leaves the class as it is
    reach    from a held-back one to the bank; with 3 bent copies of each of the bank in brackets: smaller, if they add
    thrice   as `bent`, bent three times as far (and reach again in brackets): what too much of it does

All in hundredths of the object's size.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from rarefill import bank, dataset
from rarefill.geometry import Mask
from rarefill.layouts import bending, turning
from rarefill.scene import Shape

CASES = {
    "bccd": ("Platelets", "WBC"),
    "aquarium": ("starfish", "fish"),
    "hituav": ("OtherVehicle",),
    "everyday": ("person",),
}
COPIES = 3
FEWEST, MOST = 10, 14  # objects of a class that is asked how it may be turned, and classes of a dataset


def bent(masks: list[Mask], strength: float) -> list[Mask]:
    shapes = [
        (m, Shape(0, bend=strength, bend_seed=10 * i + c)) for i, m in enumerate(masks) for c in range(COPIES)
    ]
    return [bank.silhouette(m, shape, m.box) for m, shape in shapes]


def turned(folder: Path) -> None:
    print(f"{'class':<28} {'up by boxes':>12} {'axes':>5} {'log odds of spread':>19}  turned")
    for name in (*CASES, "sen2ships"):
        data = dataset.load(folder / name / "annotations.json")
        classes = [c for c in data.names if len(data.rows_of(c)) >= FEWEST][:MOST]
        shapes = bank.build(data, classes)
        for one in classes:
            known = turning.turning(data, shapes, one)
            odds = turning.spread(known.axes_deg)
            up = {True: "yes", False: "no", None: "too few"}[turning.standing(data)]
            label = f"{name} {one}"
            print(
                f"{label:<28} {up:>12} {len(known.axes_deg):>5} {odds:>19.1f}  {'freely' if known.free else 'a little'}"
            )


def compared(folder: Path) -> None:
    print(f"{'category':<24} {'n':>4} {'bend':>6} {'real':>6} {'bent':>6} {'reach':>14} {'thrice':>15}")
    for name, categories in CASES.items():
        data = dataset.load(folder / name / "annotations.json")
        shapes = bank.build(data, categories)
        for category in categories:
            held = [e for e in shapes.of(category) if e.source != "box" and e.complete]
            strength = bending.strength(held)
            images = sorted({e.image for e in held})
            rows = []
            for side in (0, 1):
                kept = [e.mask for e in held if images.index(e.image) % 2 == side]
                out = [e.mask for e in held if images.index(e.image) % 2 != side]
                ours, far = (bent(kept, f * strength) if strength else kept for f in (1, 3))
                real = bending.apart(kept, out).min(axis=1).mean()
                moved = bending.apart(ours, out).min(axis=1).mean()
                thrice = bending.apart(far, out).min(axis=1).mean()
                reach = [bending.apart(out, kept + more).min(axis=1).mean() for more in ([], ours, far)]
                rows.append((real, moved, thrice, *reach))
            real, moved, thrice, alone, more, wild = 100 * np.mean(rows, axis=0)
            label = f"{name} {category}"
            print(
                f"{label:<24} {len(held):>4} {100 * strength:>6.1f} {real:>6.2f} {moved:>6.2f} "
                f"{alone:>6.2f} ({more:.2f}) {thrice:>8.2f} ({wild:.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turning", action="store_true", help="how each class may be turned, instead")
    asked = parser.parse_args()
    folder = Path(os.environ.get("RAREFILL_SHELF", "../shared")) / "data"
    (turned if asked.turning else compared)(folder)


if __name__ == "__main__":
    main()
