"""How well ten images tell where a category belongs: held-out real places against random ones, on images unseen.

    python benchmarks/context.py SPLITS DATA

SPLITS holds a folder DATASET-CATEGORY-SEED for each split, with train_k10.json and test.json in it; DATA holds each
dataset's images in DATASET/images. The figure is the area under the ROC curve: how often a real place of the test
images scores higher than a random place there. Every real box's size is put at uniform places of the test images.

The model learns from train_k10.json alone. In the test images it knows the annotated objects of other categories, as it
does of backgrounds in use. What it knows of the category's own boxes there is which pixels not to look at, for
real and random places alike, and their company: all but the one that is asked about, and all but one for a random place. The
column "own seen" is without that; "as planned" leaves company out on images that have none, as plans do.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from rarefill.dataset import Annotations, Dataset, load
from rarefill.geometry import BoolArray, FloatArray
from rarefill.layouts.around import COMPANY, GROUP, GROUPS, Around, frequent
from rarefill.layouts.context import alone, one_less, places
from rarefill.layouts.priors import Priors
from rarefill.layouts.ratio import Places, fit
from rarefill.layouts.surroundings import Surroundings

CASES = (
    "bccd/Platelets",
    "bccd/WBC",
    "aquarium/starfish",
    "hituav/OtherVehicle",
    "hituav/Car",
    "sen2ships/vessel",
)
N_RANDOM = 3000
Rows = Callable[[Path, Path, Sequence[str], Sequence[int]], Iterator[str]]
"""Of splits, data, cases and seeds."""


def auc(real: FloatArray, random: FloatArray) -> float:
    ranks = rankdata(np.concatenate([real, random]))
    n = len(real)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(random)))


def tested(test: Dataset, around: Around, category: str) -> tuple[FloatArray, BoolArray, list[int]]:
    """Features of real and random places of the test images, which are real, and their images."""
    rows = test.rows_of(category)
    boxes, images = test.annotations.boxes[rows], test.annotations.image[rows]
    found = [(int(i), boxes[[n]], True) for n, i in enumerate(images)]
    found += list(_elsewhere(test, boxes))
    nth = [int(np.count_nonzero(images[:n] == i)) for n, i in enumerate(images)]  # of its image
    parts = []
    for n, (image, spots, kind) in enumerate(found):
        own = len(around.own(image))
        without = one_less(np.random.default_rng([1, image]), own, len(spots))
        parts.append(around.features(image, spots, np.array([nth[n]]) if kind and own else without))
    features = np.concatenate(parts)
    real = np.concatenate([np.full(len(b), kind) for _, b, kind in found])
    return features, real, [i for i, b, _ in found for _ in range(len(b))]


def _elsewhere(test: Dataset, boxes: FloatArray) -> Iterator[tuple[int, FloatArray, bool]]:
    n = len(test.images)
    for image in range(n):
        rng = np.random.default_rng(image)
        sides = (boxes[:, 2:] - boxes[:, :2])[rng.integers(len(boxes), size=-(-N_RANDOM // n))]
        frame = np.array([test.images.width[image], test.images.height[image]], dtype=float)
        sides = np.minimum(sides, frame)
        corner = rng.random(sides.shape) * (frame - sides)
        yield image, np.concatenate([corner, corner + sides], axis=1), False


def without(data: Dataset, category: str) -> Dataset:
    """The dataset without one category's annotations."""
    a = data.annotations
    keep = np.flatnonzero(a.category != data.category_row(category))
    kept = Annotations(
        a.id[keep],
        a.image[keep],
        a.category[keep],
        a.boxes[keep],
        a.area[keep],
        a.crowd[keep],
        [a.segmentation[row] for row in keep],
    )
    return replace(data, annotations=kept)


def measured(split: Path, images: Path, category: str, cache: Path) -> dict[str, float]:
    """The figures of one split, by column."""
    train, test = (load(split / name, images, check_files=False) for name in ("train_k10.json", "test.json"))
    seen, unseen = (Surroundings(data, cache=cache) for data in (train, test))
    row = train.category_row(category)
    kin = frequent(train, row)
    learned = places(train, Around(train, seen, row, kin), Priors(train).of(category), category)
    features, real, image = tested(test, Around(test, unseen, row, kin), category)
    shown = Around(without(test, category), unseen, row, kin)

    def figure(use: BoolArray, on: FloatArray) -> FloatArray:
        kept = Places(learned.features[:, use], learned.real, learned.image, learned.weight)
        return fit(kept, GROUP[use])(on[:, use])

    model = fit(learned, GROUP)
    scores, lone = model(features), ~features[:, COMPANY].any(axis=1)
    as_planned = np.where(lone, alone(learned)(features[:, ~COMPANY]), scores)
    own = model(tested(test, shown, category)[0])
    out = {
        "all": auc(scores[real], scores[~real]),
        "as planned": auc(as_planned[real], as_planned[~real]),
        "with company": _some(as_planned, real, ~lone),
        "lone": _some(as_planned, real, lone),
        "within": _within(as_planned, real, np.array(image)),
        "own seen": auc(own[real], own[~real]),
    }
    for group in GROUPS:
        for name, use in ((f"no {group}", group != GROUP), (f"only {group}", group == GROUP)):
            s = figure(use, features)
            out[name] = auc(s[real], s[~real])
    return out


def _some(scores: FloatArray, real: BoolArray, these: BoolArray) -> float:
    """The figure among some of the places; NaN where they are of one kind."""
    good, bad = scores[real & these], scores[~real & these]
    return auc(good, bad) if len(good) and len(bad) else float("nan")


def _within(scores: FloatArray, real: BoolArray, image: np.ndarray) -> float:
    """The mean over images that hold both kinds: places told apart inside one image."""
    found = [auc(scores[real & (image == i)], scores[~real & (image == i)]) for i in np.unique(image[real])]
    return float(np.mean(found))


def rows(splits: Path, data: Path, cases: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    names: list[str] = []
    for case in cases:
        dataset, category = case.split("/")
        found = [
            measured(
                splits / f"{dataset}-{category}-{seed}", data / dataset / "images", category, splits / "cache"
            )
            for seed in seeds
        ]
        if not names:
            names = list(found[0])
            yield "| | " + " | ".join(names) + " |"
            yield "|---" * (len(names) + 1) + "|"
        values = np.array([[f[name] for name in names] for f in found])
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(axis=0), values.std(axis=0), strict=True)]
        yield f"| {case} | " + " | ".join(cells) + " |"


def printed(about: str | None, rows: Rows, cases: Sequence[str]) -> None:
    """The rows of the splits that the command line names, as each is done."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", nargs="+", default=cases)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    given = parser.parse_args()
    for line in rows(given.splits, given.data, given.cases, given.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    printed(__doc__, rows, CASES)
