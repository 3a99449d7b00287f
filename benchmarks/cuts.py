"""How well objects are cut out of their boxes, on datasets whose real masks are known.

    python benchmarks/cuts.py ../shared [names] [--most 250]

Each object is cut out of its labelled box as `rarefill` does where a dataset has boxes alone, by the colours alone (GrabCut), by
the learned cutter alone, and by both with the gate, and held against the mask that people drew.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from rarefill import cutouts, cutter, dataset, pictures
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray, Mask, mask_iou
from rarefill.scene import Pixels

LEAST_PX = 12
BAD = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shelf", type=Path, help="folder with data/")
    parser.add_argument("names", nargs="*", default=["everyday", "sen2ships"])
    parser.add_argument("--most", type=int, default=250, help="objects of a dataset, drawn by chance")
    given = parser.parse_args()
    print("| dataset | cut by | objects | share | median IoU | mean IoU | below 0.6 | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.names:
        data = dataset.load(given.shelf / "data" / name / "annotations.json")
        for line in rows(data, name, given.most):
            print(line, flush=True)


def rows(data: Dataset, name: str, most: int) -> list[str]:
    """The table's lines of one dataset."""
    a = data.annotations
    large = (a.boxes[:, 2:] - a.boxes[:, :2]).min(axis=1) >= LEAST_PX
    known = [int(r) for r in np.flatnonzero(large & ~a.crowd) if data.mask(int(r)) is not None]
    drawn = np.random.default_rng(0).permutation(known)[:most]
    found: dict[str, list[tuple[float, float]]] = {"colours": [], "cutter": [], "both": []}
    spent = dict.fromkeys(found, 0.0)
    for row in sorted(drawn.tolist(), key=lambda r: int(a.image[r])):
        image = int(a.image[row])
        picture, truth, box = pictures.rgb(data.read(image)), data.mask(row), data.box(row)
        others = a.boxes[[int(r) for r in data.rows_in(image) if r != row]]
        for how, cut in (("colours", by_colours), ("cutter", by_cutter), ("both", cutouts.cut)):
            begun = time.process_time()
            mask, trust = cut(picture, box, others)
            spent[how] += time.process_time() - begun
            overlap = 0.0 if mask is None or truth is None else mask_iou(mask, truth)
            found[how].append((overlap, trust))
    lines = []
    for how, pairs in found.items():
        overlaps, trusts = np.array(pairs).T
        parts = [(how, np.ones(len(pairs), dtype=bool))]
        if how == "both":
            parts.append((f"both, trusted ({cutouts.GOOD:g} and above)", trusts >= cutouts.GOOD))
        for label, own in parts:
            some = overlaps[own] if own.any() else np.zeros(1)
            cells = (
                name,
                label,
                own.sum(),
                f"{own.mean():.0%}",
                f"{np.median(some):.2f}",
                f"{some.mean():.2f}",
            )
            ms = 1000 * spent[how] / len(pairs)
            lines.append(f"| {' | '.join(map(str, cells))} | {np.mean(some < BAD):.0%} | {ms:.0f} |")
    return lines


def by_colours(picture: Pixels, box: Box, others: FloatArray) -> tuple[Mask | None, float]:
    """GrabCut inside the box, at the image's own size."""
    frame = around(picture, box)
    x1, y1, x2, y2 = (int(v) for v in frame.xyxy)
    origin = np.array([x1, y1, x1, y1])
    small = np.ascontiguousarray(picture[y1:y2, x1:x2])
    found = cutouts.by_colours(small, np.array(box.xyxy) - origin, others - origin)
    return (None if found is None else Mask.of(found, x1, y1)), 1.0


def by_cutter(picture: Pixels, box: Box, others: FloatArray) -> tuple[Mask | None, float]:
    """What the network takes for the object by half or more."""
    del others
    frame = around(picture, box)
    share = cutter.shares(picture, box, frame, (int(frame.width), int(frame.height)))
    return Mask.of(share >= 0.5, int(frame.x1), int(frame.y1)), 1.0


def around(picture: Pixels, box: Box) -> Box:
    """Whole pixels of a box and of some surroundings."""
    pad = max(4.0, cutouts.CONTEXT * max(box.width, box.height))
    height, width = picture.shape[:2]
    x1, y1 = max(0, int(box.x1 - pad)), max(0, int(box.y1 - pad))
    return Box(x1, y1, min(width, int(np.ceil(box.x2 + pad))), min(height, int(np.ceil(box.y2 + pad))))


if __name__ == "__main__":
    main()
