"""How likely real boxes of a rare class are under priors learned from ten images of it.

    python benchmarks/priors.py ../shared

The folder holds `data/` with the datasets and `judge/splits.py`, which makes the splits: the class is in ten training
images, test images are the same for every seed. The figure is the mean, over the class's boxes in the test images, of
the log of the density per (log size, log aspect, x / width, foot / height), so that a difference of 0.7 means that a
real box is twice as likely. Every density is mixed with one hundredth of a very wide one, so that a single box where
a prior has nothing costs some 5 to 15 instead of the whole table.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from rarefill.dataset import Dataset, load
from rarefill.geometry import FloatArray
from rarefill.layouts.densities import LEVELS
from rarefill.layouts.priors import Prior, Priors

CASES = (
    ("bccd", "Platelets"),
    ("bccd", "WBC"),
    ("aquarium", "starfish"),
    ("hituav", "OtherVehicle"),
    ("hituav", "Car"),
    ("sen2ships", "vessel"),
)
FLOOR = 0.01
JITTER = 0.15  # the fixed deviation of size and aspect before it was fitted
PADDING = 0.4  # log units beyond the range of the training boxes

Columns = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
Density = Callable[["Real"], FloatArray]
"""float64 (n,): the logs of the density."""


class Real:
    """Boxes of a dataset: log size and log aspect, x and foot from 0 to 1, and the images' sizes."""

    def __init__(self, dataset: Dataset, category: str | None = None, *, relative: bool, whole: bool) -> None:
        a, images = dataset.annotations, dataset.images
        keep = ~a.crowd if category is None else ~a.crowd & (a.category == dataset.category_row(category))
        frame = np.stack([images.width, images.height], axis=1)[a.image]
        if whole:
            keep &= ((a.boxes[:, :2] > 1) & (a.boxes[:, 2:] < frame - 1)).all(axis=1)
        boxes = a.boxes[keep]
        self.width, self.height = frame[keep].T.astype(float)
        sides = boxes[:, 2:] - boxes[:, :2]
        self.log_size, self.log_aspect = 0.5 * np.log(sides.prod(axis=1)), np.log(sides[:, 0] / sides[:, 1])
        self.size = self.log_size - (0.5 * np.log(self.width * self.height) if relative else 0.0)
        self.x, self.foot = (boxes[:, 0] + boxes[:, 2]) / 2 / self.width, boxes[:, 3] / self.height
        self.w, self.h = sides[:, 0] / self.width, sides[:, 1] / self.height
        self.category, self.image = a.category[keep], a.image[keep]

    def __len__(self) -> int:
        return len(self.x)

    def some(self, rows: FloatArray) -> "Real":
        """Some of them."""
        out = object.__new__(Real)
        out.__dict__.update({name: column[rows] for name, column in self.__dict__.items()})
        return out


def normal(off: FloatArray, width: float) -> FloatArray:
    return np.exp(-0.5 * (off / width) ** 2) / (width * math.sqrt(2 * math.pi))


def kernels(at: Real, of: Real, spread: FloatArray, slope: float, size: FloatArray) -> FloatArray:
    """float64 (n, m): size and place by kernels that are thrown back where a box would leave the image."""
    x, y, w, h = (column[:, None] for column in (at.x, at.foot, at.w, at.h))
    across = sum(normal(image - of.x, spread[0]) for image in (x, w - x, 2 - w - x))
    total = np.zeros(across.shape)
    for image in (y, 2 * h - y, 2 - y):
        moved = image - of.foot
        total += normal(moved, spread[1]) * normal(at.size[:, None] - size - slope * moved, JITTER)
    return across * total


def uniform(train: Real) -> Density:
    """Any place, and any size and aspect among the training boxes'."""
    ends = [(v.min() - PADDING, v.max() + PADDING) for v in (train.size, train.log_aspect)]

    def density(at: Real) -> FloatArray:
        inside = np.ones(len(at), bool)
        for v, (low, high) in zip((at.size, at.log_aspect), ends, strict=True):
            inside &= (v >= low) & (v <= high)
        room = math.prod(high - low for low, high in ends)
        return np.where(inside, -math.log(room), -np.inf)

    return density


def places(of: Real) -> FloatArray:
    return np.array([of.x.var(), of.foot.var()])


def resampled(own: Real, slope: float) -> Density:
    """The boxes anew, jittered by fixed widths."""
    spread = np.clip(np.sqrt(places(own)) * len(own) ** (-1 / 6), 1e-3, 0.2)

    def density(at: Real) -> FloatArray:
        aspect = normal(at.log_aspect[:, None] - own.log_aspect, JITTER)
        return logs((kernels(at, own, spread, slope, own.size) * aspect).mean(axis=1))

    return density


def before(own: Real, pool: Real, slope: float) -> Density:
    """The prior that this one replaced: four boxes' worth of the pool's places and spread of sizes."""
    n = len(own)
    spread = np.sqrt((n * places(own) + 4 * places(pool)) / (n + 4))
    spread = np.minimum(spread * n ** (-1 / 6), 0.2)
    size = pool.size.copy()
    for c in np.unique(pool.category):
        size[pool.category == c] -= np.median(size[pool.category == c])
    lent = np.clip(np.median(own.size) + size, own.size.min() - 0.4, own.size.max() + 0.4)

    def density(at: Real) -> FloatArray:
        aspect = normal(at.log_aspect[:, None] - own.log_aspect, JITTER)
        mine = (kernels(at, own, spread, slope, own.size) * aspect).mean(axis=1)
        theirs = kernels(at, pool, spread, slope, lent).mean(axis=1) * aspect.mean(axis=1)
        return logs((n * mine + 4 * theirs) / (n + 4))

    return density


def fitted(prior: Prior) -> Density:
    def density(at: Real) -> FloatArray:
        return prior.log_density(
            at.log_size, at.log_aspect, at.x * at.width, at.foot * at.height, at.width, at.height
        )

    return density


def logs(density: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.log(density)


def score(density: Density, at: Real) -> float:
    """The mean log of a density at real boxes."""
    side = 0.5 * np.log(at.width * at.height)
    wide = 1 / (
        side * 2 * math.log(20)
    )  # from one pixel to the whole image, 20 times as wide as high or as high as wide
    return float(np.log((1 - FLOOR) * np.exp(density(at)) + FLOOR * wide).mean())


def densities(train: Dataset, category: str) -> dict[str, Density]:
    priors = Priors(train)
    relative, slope = priors.relative, priors.slope
    pool = Real(train, relative=relative, whole=True)
    own = Real(train, category, relative=relative, whole=True)
    if not len(own):
        own = Real(train, category, relative=relative, whole=False)
    return {
        "uniform": uniform(Real(train, relative=relative, whole=False)),
        "resampled": resampled(own, slope),
        "pooled": resampled(pool, slope),
        "before": before(own, pool, slope),
        "fitted": fitted(priors.of(category)),
    }


def split(shelf: Path, data: str, category: str, seed: int, out: Path) -> tuple[Dataset, Dataset]:
    """The training and the test part."""
    folder = shelf / "data" / data
    options = f"--rare {category} --k 10 --train-images 120 --seed {seed} --out".split()
    command = [sys.executable, str(shelf / "judge" / "splits.py"), str(folder), *options, str(out)]
    subprocess.run(command, check=True, capture_output=True)
    train, test = (
        load(out / name, folder / "images", check_files=False) for name in ("train_k10.json", "test.json")
    )
    return train, test


def row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shelf", type=Path, nargs="?", default=os.environ.get("RAREFILL_SHELF", "../shared"))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    names, weights = ("uniform", "resampled", "pooled", "before", "fitted"), []
    print(row(["class", "seed", "boxes", *names]))
    print(row(["---"] * (3 + len(names))))
    for data, category in CASES:
        found = []
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as out:
                train, test = split(args.shelf, data, category, seed, Path(out))
            models = densities(train, category)
            prior = Priors(train).of(category)
            at = Real(test, category, relative=prior.relative, whole=False)
            found.append([score(models[name], at) for name in names])
            outside = float(np.isneginf(models["fitted"](at)).mean())
            print(row([f"{data} {category}", seed, len(prior.own), *(f"{v:.2f}" for v in found[-1])]))
            for what, levels in (("form", prior.form.levels), ("place", prior.place.levels)):
                weights.append([f"{data} {category}", seed, what, *(f"{v:.2f}" for v in levels)])
            weights[-2] += [f"{prior.tied:.2f}", f"{prior.slope:.2f}", f"{outside:.3f}"]
            weights[-1] += ["", "", ""]
        table = np.array(found)
        cells = (f"**{m:.2f}** ± {s:.2f}" for m, s in zip(table.mean(0), table.std(0), strict=True))
        print(row([f"**{data} {category}**", "mean", "", *cells]))
    print()
    print(row(["class", "seed", "of", *LEVELS, "tied", "slope", "never drawn"]))
    print(row(["---"] * (6 + len(LEVELS))))
    for line in weights:
        print(row(line))


if __name__ == "__main__":
    main()
