"""How long objects lie to the edges around them: what ten images say, whether unseen ones agree, what a plan makes of it.

    python benchmarks/leaning.py SPLITS DATA

SPLITS holds a folder DATASET-CATEGORY-SEED for each split, with train_k10.json and test.json in it (as for context.py); DATA
holds each dataset's images in DATASET/images.

`lies` is the mean cosine of the doubled angle between an object's long axis and the edges right around it, each weighing as much
as those run one way, and all objects of an image as one: 1 is along, -1 across, 0 either. `gain` is the mean log odds, over images,
that the model gives to how the test's objects lie, against any direction: above 0 it knows something of them. The plan is of 100 objects on the training images, with and
without that knowledge; the test part is read for the columns that say so, and for nothing else.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from context import printed
from numpy.typing import NDArray

from rarefill.bank import Bank, build
from rarefill.dataset import Dataset, load
from rarefill.geometry import FloatArray
from rarefill.layouts import Planner
from rarefill.layouts.around import Around, frequent, running
from rarefill.layouts.context import Context
from rarefill.layouts.leaning import learned
from rarefill.layouts.surroundings import Surroundings
from rarefill.layouts.turning import long_axes, long_axis
from rarefill.recipe import LayoutConfig

CASES = ("hituav/OtherVehicle", "sen2ships/vessel", "hituav/Car", "aquarium/starfish", "bccd/Platelets")
N = 100
Lying = tuple[FloatArray, FloatArray, NDArray[np.intp]]
"""Long axes in degrees, which way the edges around them run, and the images."""


def real(data: Dataset, shapes: Bank, category: str, cache: Path) -> Lying:
    """How a dataset's own objects lie."""
    held = shapes.of(category)
    boxes = data.annotations.boxes[[e.annotation for e in held]]
    return _lying(data, category, [e.image for e in held], boxes, long_axes(held), cache)


def planned(data: Dataset, shapes: Bank, category: str, given: Bank | None, cache: Path) -> Lying:
    """How planned ones do, where all of an object shows."""
    context = Context(data, given, cache=cache)
    config = LayoutConfig(untouched=0.0, per_image=1, max_reuse=max(4, 4 * N // len(data.images)))
    layouts = Planner(data, shapes, config, seed=0, context=context).plan({category: N}).layouts
    shown = [(x.image, p.mask) for x in layouts for p in x.placements if p.whole is None]
    axes = np.array([long_axis(mask) for _, mask in shown])
    boxes = np.array([mask.box.xyxy for _, mask in shown])
    return _lying(data, category, [image for image, _ in shown], boxes, axes, cache)


def _lying(
    data: Dataset, category: str, images: Sequence[int], boxes: FloatArray, axes: FloatArray, cache: Path
) -> Lying:
    row = data.category_row(category)
    around = Around(data, Surroundings(data, cache=cache), row, frequent(data, row))
    seen = [around.features(i, boxes[[n]]) for n, i in enumerate(images)]
    return axes, running(np.concatenate(seen)), np.array(images, dtype=np.intp)


def lies(lying: Lying) -> float:
    """The mean cosine."""
    axes, way, image = known(lying)
    doubled, share = np.radians(2 * axes), shares(image)
    along = way[:, 0] * np.cos(doubled) + way[:, 1] * np.sin(doubled)
    return float(share @ along / (share @ np.hypot(way[:, 0], way[:, 1]))) if len(axes) else float("nan")


def known(lying: Lying) -> Lying:
    """Those that have an axis, and edges around them."""
    axes, way, image = lying
    some = np.isfinite(axes) & np.isfinite(way).all(axis=1)
    return axes[some], way[some], image[some]


def shares(image: NDArray[np.intp]) -> FloatArray:
    """Each object's part of its image."""
    _, at, each = np.unique(image, return_inverse=True, return_counts=True)
    return np.asarray(1 / each[at], dtype=float)


def row(splits: Path, data: Path, case: str, seed: int) -> str:
    dataset, category = case.split("/")
    folder, cache = splits / f"{dataset}-{category}-{seed}", splits / "cache"
    train, test = (
        load(folder / name, data / dataset / "images", check_files=False)
        for name in ("train_k10.json", "test.json")
    )
    shapes, unseen = (build(part, [category], cache=cache) for part in (train, test))
    own, other = (real(part, held, category, cache) for part, held in ((train, shapes), (test, unseen)))
    leaning = learned(*own)
    axes, way, image = known(other)
    gain = float(np.average(leaning(axes, way), weights=shares(image))) if len(axes) else float("nan")
    plans = [lies(planned(train, shapes, category, given, cache)) for given in (None, shapes)]
    n = " | ".join(f"{len(known(some)[0])} of {len(some[0])}" for some in (own, other))
    figures = [leaning.concentration, lies(own), lies(other), gain, *plans]
    return f"| {case}, {seed} | {n} | " + " | ".join(f"{value:+.2f}" for value in figures) + " |"


def rows(splits: Path, data: Path, cases: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    names = (
        "long ones of ten images",
        "of the test",
        "concentration",
        "lies, ten images",
        "test",
        "gain on the test",
        "plan before",
        "plan",
    )
    yield "| split | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for case in cases:
        yield from (row(splits, data, case, seed) for seed in seeds)


if __name__ == "__main__":
    printed(__doc__, rows, CASES)
