"""Whether bent silhouettes look like real ones: against real ones that were held back.

    python benchmarks/shapes.py [FOLDER]        the folder of real datasets; RAREFILL_SHELF/data, else ../shared/data

A category's trusted silhouettes are halved by image. For each half, distances to the nearest outline of the other:

    real     from a real silhouette: how much the class differs
    bent     from one that was bent as the planner bends: no larger, if bending leaves the class as it is
    reach    from a held-back one to the bank; with 3 bent copies of each of the bank in brackets: smaller, if they add
    thrice   as `bent`, bent three times as far (and reach again in brackets): what too much of it does

All in hundredths of the object's size.
"""

import os
import sys
from pathlib import Path

import numpy as np

from rarefill import bank, dataset
from rarefill.geometry import Mask
from rarefill.layouts import bending
from rarefill.scene import Shape

CASES = {
    "bccd": ("Platelets", "WBC"),
    "aquarium": ("starfish", "fish"),
    "hituav": ("OtherVehicle",),
    "everyday": ("person",),
}
COPIES = 3


def bent(masks: list[Mask], strength: float) -> list[Mask]:
    shapes = [
        (m, Shape(0, bend=strength, bend_seed=10 * i + c)) for i, m in enumerate(masks) for c in range(COPIES)
    ]
    return [bank.silhouette(m, shape, m.box) for m, shape in shapes]


def main() -> None:
    shelf = Path(os.environ.get("RAREFILL_SHELF", "../shared")) / "data"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else shelf
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


if __name__ == "__main__":
    main()
