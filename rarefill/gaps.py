"""What a dataset lacks: which categories are rare, how their objects look, and how many to make.

A category is rare when LVIS's repeat factor, r = max(1, sqrt(t / f)), lies above 1: when the share f of images that
show it lies below the threshold t. LVIS's own t = 0.001 says nothing of a few hundred images, so t is by default what
the average category of this dataset has: the mean f of all categories that have objects.

`auto` raises each rare category until r is 1: as many more images as that takes, each with as many objects as its
real images hold, and at most ten objects for each real one, because more would only repeat them.

An evaluation is better than a count: with one, the categories that are weak, whose AP lies clearly below the median, share
a budget evenly, and categories that it did not measure are judged by their count. See `rarefill.amounts` for the rules.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rarefill import amounts, geometry
from rarefill.amounts import PER_EXEMPLAR
from rarefill.dataset import Dataset, unknown_name
from rarefill.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from rarefill.evaluation import Evaluation

SIZES = ("small", "medium", "large")
"""COCO's: area below 32 x 32, below 96 x 96, and above."""
PLACES = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)
"""Thirds of the image, by the box's centre."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
EDGE_PX = 1.0
"""A box this near to the image's edge is taken as cut by it: annotators stop a pixel short."""
_SIDES_PX = (32.0, 96.0)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """A dataset's categories as columns, by row. Crowds are counted apart and in nothing else.

    Attributes:
        where: the annotation file's name.
        n_images: images in the dataset, with objects or without.
        names: C names.
        images: int64 (C,), images that show the category.
        objects: int64 (C,).
        crowds: int64 (C,).
        sizes: int64 (C, 3), objects that are small, medium, large.
        quantiles_px: float64 (C, 5), of the square root of the objects' area, at `QUANTILES`; NaN without objects.
        truncated: float64 (C,), share of objects that touch the image's edge; NaN without objects.
        neighbours: float64 (C,), mean number of other objects whose boxes meet the object's; NaN without objects.
        overlap: float64 (C,), mean share of an object's box that the one other box covering most of it covers; NaN
            without objects.
        center: float64 (C, 2), mean x and y of the boxes' centres, as shares of the image; NaN without objects.
        cells: int64 (C, 3, 3, 3), objects by size, then row and column of the image's thirds.
        threshold: the share of images below which a category is rare.
        rule: the threshold in words.
        repeat: float64 (C,), LVIS's repeat factor; NaN without objects.
        auto: int64 (C,), objects that `--fill auto` would make.
        per_exemplar: the most of these for each real object.
        ap: float64 (C,), what the evaluation measured, 0 to 1; NaN where it did not.
        evaluation: where that comes from; None without one.
    """

    where: str
    n_images: int
    names: tuple[str, ...]
    images: Ints
    objects: Ints
    crowds: Ints
    sizes: Ints
    quantiles_px: Floats
    truncated: Floats
    neighbours: Floats
    overlap: Floats
    center: Floats
    cells: Ints
    threshold: float
    rule: str
    repeat: Floats
    auto: Ints
    per_exemplar: int
    ap: Floats
    evaluation: "Evaluation | None" = None

    @property
    def share(self) -> Floats:
        """float64 (C,): each category's share of all objects."""
        return np.asarray(self.objects / max(1, int(self.objects.sum())))

    @property
    def rare(self) -> tuple[str, ...]:
        """Categories that the rule calls rare, the rarest first."""
        rows = np.flatnonzero(self.repeat > 1)
        return tuple(self.names[row] for row in rows[np.argsort(-self.repeat[rows], kind="stable")])

    @property
    def weak(self) -> tuple[str, ...]:
        """Categories whose AP is clearly below the median, the weakest first; none without an evaluation."""
        rows = np.flatnonzero(amounts.weak(self.ap))
        return tuple(self.names[row] for row in rows[np.argsort(self.ap[rows], kind="stable")])

    @property
    def lacking(self) -> NDArray[np.bool_]:
        """bool (C,): what `auto` makes more of: weak where an AP is known, rare where none is."""
        return np.asarray(np.where(np.isnan(self.ap), self.repeat > 1, amounts.weak(self.ap)))

    @property
    def missing(self) -> tuple[str, ...]:
        """Categories without one object: there is nothing to make more of."""
        return tuple(name for name, n in zip(self.names, self.objects, strict=True) if not n)

    def unseen(self, category: str) -> tuple[str, ...]:
        """Cells of size and place that the real data never shows, like "small top left"."""
        return tuple(
            f"{SIZES[size]} {PLACES[row][column]}"
            for size, row, column in np.argwhere(self.cells[self.names.index(category)] == 0)
        )


def survey(
    dataset: Dataset,
    *,
    threshold: float | None = None,
    per_exemplar: int = PER_EXEMPLAR,
    evaluation: "Evaluation | None" = None,
) -> Gaps:
    """Measure what each category has and lacks.

    Args:
        dataset: what to measure.
        threshold: the share of images below which a category is rare, above 0; by default the mean over categories.
        per_exemplar: the most objects that `auto` makes for each real one.
        evaluation: how well a detector knows each category; `auto` then makes more of the weak ones.

    Raises:
        UsageError: the threshold is no share.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(
            f"the threshold of rare categories must be a share above 0 and up to 1, got {threshold}"
        )
    a, n = dataset.annotations, len(dataset.names)
    rows = np.flatnonzero(~a.crowd)
    of, boxes = a.category[rows], a.boxes[rows]
    frame = np.stack((dataset.images.width, dataset.images.height), axis=1)[a.image[rows]].astype(np.float64)
    side, center = np.sqrt(a.area[rows]), (boxes[:, :2] + boxes[:, 2:]) / 2 / frame
    size = np.searchsorted(_SIDES_PX, side, side="right")
    column, line = np.clip((center * 3).astype(np.int64), 0, 2).T
    cells = np.zeros((n, 3, 3, 3), dtype=np.int64)
    np.add.at(cells, (of, size, line, column), 1)
    cut = ((boxes[:, :2] <= EDGE_PX) | (boxes[:, 2:] >= frame - EDGE_PX)).any(axis=1)
    neighbours, overlap = crowding(a.image[rows], boxes)
    objects = np.bincount(of, minlength=n)
    images = np.bincount(np.unique(np.stack((a.image[rows], of)), axis=1)[1], minlength=n)
    frequency = images / len(dataset.images)
    limit = float(frequency[objects > 0].mean()) if threshold is None and objects.any() else threshold or 1.0
    repeat = np.array([repeat_factor(f, limit) if f else math.nan for f in frequency.tolist()])
    measured = evaluation.ap if evaluation else {}
    found = Gaps(
        where=dataset.path.name,
        n_images=len(dataset.images),
        names=dataset.names,
        images=images,
        objects=objects,
        crowds=np.bincount(a.category[a.crowd], minlength=n),
        sizes=cells.sum(axis=(2, 3)),
        quantiles_px=np.stack([_quantiles(side[of == row]) for row in range(n)]),
        truncated=_means(of, np.asarray(cut, dtype=np.float64), n),
        neighbours=_means(of, neighbours, n),
        overlap=_means(of, overlap, n),
        center=np.stack([_means(of, center[:, axis], n) for axis in (0, 1)], axis=1),
        cells=cells,
        threshold=limit,
        rule="the mean over categories" if threshold is None else "as asked for",
        repeat=repeat,
        auto=np.zeros(n, dtype=np.int64),
        per_exemplar=per_exemplar,
        ap=np.array([measured.get(name, math.nan) for name in dataset.names], dtype=np.float64),
        evaluation=evaluation,
    )
    return replace(found, auto=_auto(found))


def repeat_factor(frequency: float, threshold: float) -> float:
    """How often an image with the category is shown in training (LVIS, Gupta et al. 2019, appendix B)."""
    return max(1.0, math.sqrt(threshold / frequency))


def _auto(found: Gaps) -> Ints:
    """Objects that `--fill auto` makes of each category, within three images for each real one."""
    had = found.images, found.objects
    if found.evaluation is None:
        made = amounts.raised(*had, found.threshold * found.n_images, found.per_exemplar)
    else:
        wanted_images = amounts.RATIO * found.n_images
        made = amounts.shared(found.lacking, *had, wanted_images, found.per_exemplar)
    return amounts.capped(made, *had, amounts.MOST_RATIO * found.n_images)


def crowding(image: NDArray[np.int32], boxes: Floats) -> tuple[Floats, Floats]:
    """How close objects stand, on boxes (M, 4) of images (M,).

    Returns:
        float64 (M,), other boxes that meet the box; float64 (M,), share of it that the most covering one covers.
    """
    neighbours, overlap = np.zeros(len(boxes)), np.zeros(len(boxes))
    order = np.argsort(image, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(image[order])) + 1):
        if len(rows) < 2:
            continue
        for part in np.array_split(rows, 1 + len(rows) // 1000):
            common = geometry.intersections(boxes[part], boxes[rows])
            common[part[:, None] == rows[None, :]] = 0
            neighbours[part] = (common > 0).sum(axis=1)
            overlap[part] = common.max(axis=1) / geometry.areas(boxes[part])
    return neighbours, overlap


def _means(of: NDArray[np.int32], values: Floats, n: int) -> Floats:
    """float64 (n,): the mean of each category's values, NaN where it has none."""
    counts = np.bincount(of, minlength=n)
    sums = np.bincount(of, weights=values, minlength=n)
    return np.asarray(np.divide(sums, counts, out=np.full(n, np.nan), where=counts > 0))


def _quantiles(values: Floats) -> Floats:
    if not len(values):
        return np.full(len(QUANTILES), np.nan)
    found: Floats = np.quantile(values, QUANTILES)
    return found


def budget(found: Gaps | Dataset, fill: Mapping[str, int] | Literal["auto"]) -> dict[str, int]:
    """How many objects of each category to make.

    Args:
        found: what was surveyed, or a dataset to survey.
        fill: objects by category, or `auto` for what the rule gives.

    Raises:
        DataError: a name is unknown, a category has no object to start from, or `auto` finds nothing rare.
        UsageError: a count is no whole number above 0.
    """
    gaps = survey(found) if isinstance(found, Dataset) else found
    if fill == "auto":
        made = {name: int(n) for name, n in zip(gaps.names, gaps.auto, strict=True) if n}
        if not made:
            raise DataError(f"{_nothing_lacks(gaps)}; name what to make with --fill NAME=N")
        return made
    for name, n in fill.items():
        if name not in gaps.names:
            raise DataError(unknown_name(name, gaps.names, gaps.where))
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"--fill {name}={n}: the number of objects must be a whole number above 0")
        if not gaps.objects[gaps.names.index(name)]:
            raise DataError(_nothing_to_copy(gaps, name))
    if not fill:
        raise UsageError("--fill names no category; write --fill NAME=N or --fill auto")
    return dict(fill)


def _nothing_lacks(gaps: Gaps) -> str:
    if gaps.evaluation is None:
        return (
            f"nothing is rare in {gaps.where}: every category is in at least {gaps.threshold:.1%} of its "
            f"{gaps.n_images} images ({gaps.rule})"
        )
    return (
        f"nothing is weak in {gaps.evaluation.where}: every category that has objects in {gaps.where} has at least "
        f"{amounts.WEAK:g} of the median AP, {amounts.median(gaps.ap):.3f}"
    )


def _nothing_to_copy(gaps: Gaps, name: str) -> str:
    crowds = int(gaps.crowds[gaps.names.index(name)])
    held = f"only crowds ({crowds})" if crowds else "no object"
    return f"{name!r} has {held} in {gaps.where}, so there is nothing to make more of; label a few real ones first"


def as_json(gaps: Gaps, fill: Mapping[str, int] | Literal["auto"] = "auto") -> dict[str, Any]:
    """All that was found, and what `fill` comes to, for machines."""
    from rarefill.gaps_json import document

    return document(gaps, fill)


def table(gaps: Gaps, fill: Mapping[str, int] | Literal["auto"] = "auto") -> "Table":
    """All that was found, and what `fill` comes to, for people: most objects first, 100 columns wide."""
    from rarefill.gaps_table import drawn

    return drawn(gaps, fill)
