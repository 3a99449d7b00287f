"""COCO's average precision, matched once by pycocotools and then counted for any weighting of the test images.

pycocotools matches detections to objects image by image; only the counting of matches depends on which images a test
has. So the matches are kept, and a test with some images drawn twice and others not at all costs a cumulative sum.
With every weight 1 the figures are pycocotools' own.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.layouts.ignored import regions
from rarefill.proof.study import Figures

AREAS = ("all", "small", "medium", "large")
_RECALLS = np.linspace(0.0, 1.00, 101)
_MANY = 100
"""Objects on one image above which 300 detections an image are looked at instead of COCO's 100."""


class Detection(TypedDict):
    """One row of a COCO results file; bbox is left, top, width, height in pixels."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A test part, ready to be held against detections.

    Attributes:
        coco: pycocotools' own index; annotation ids from 1.
        image_ids: by the order of weights.
        names: category names by id.
        most: detections an image that count.
    """

    coco: Any
    image_ids: tuple[int, ...]
    names: Mapping[int, str]
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What became of one category's detections within one range of areas, the surest detection first.

    Attributes:
        image: int32 (D,), each detection's image, as an index into weights.
        true: bool (T, D), matched to an object that counts, at each of T thresholds of IoU.
        ignored: bool (T, D), neither right nor wrong: on a crowd or of another size.
        objects: int64 (N,), objects that count on each image.
    """

    image: NDArray[np.int32]
    true: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


Table = dict[tuple[str, str], Matches]
"""Matches by category name and area."""


def truth(dataset: Dataset) -> Truth:
    """A dataset as pycocotools wants it. Regions that its file tells evaluators to ignore are crowds of every class."""
    a, images = dataset.annotations, dataset.images
    ids = [c.id for c in dataset.categories]
    held: list[dict[str, Any]] = []

    def add(image: int, category: int, box: Sequence[float], area: float, *, crowd: bool) -> None:
        x1, y1, x2, y2 = map(float, box)
        held.append(
            {
                "id": len(held) + 1,  # 0 would mean "no match"
                "image_id": int(images.id[image]),
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": area,
                "iscrowd": int(crowd),
            }
        )

    for row in range(len(a)):
        of = ids[int(a.category[row])]
        add(int(a.image[row]), of, a.boxes[row], float(a.area[row]), crowd=bool(a.crowd[row]))
    for image, boxes in regions(dataset).items():
        for box in boxes:
            for category in ids:
                add(image, category, box, float((box[2] - box[0]) * (box[3] - box[1])), crowd=True)
    coco = _silent_index(
        {
            "images": [{"id": int(i)} for i in images.id],
            "categories": [{"id": c.id, "name": c.name} for c in dataset.categories],
            "annotations": held,
        }
    )
    counts = np.bincount(a.image[~a.crowd], minlength=1)
    return Truth(
        coco,
        tuple(sorted(int(i) for i in images.id)),  # COCOeval's order
        {c.id: c.name for c in dataset.categories},
        300 if int(counts.max()) > _MANY else 100,
    )


def _silent_index(document: dict[str, Any]) -> Any:
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
    return coco


def results(test: Truth, detections: Sequence[Detection]) -> Any:
    """Detections as pycocotools' index, in their order."""
    with redirect_stdout(io.StringIO()):
        return test.coco.loadRes([dict(d) for d in detections]) if detections else COCO()


def match(test: Truth, detections: Sequence[Detection]) -> Table:
    """Match detections to objects, by pycocotools.

    Args:
        test: the objects.
        detections: of the test's images and categories alone; in any order.
    """
    with redirect_stdout(io.StringIO()):
        run = COCOeval(test.coco, results(test, detections), "bbox")
        run.params.maxDets = [test.most]
        run.params.areaRngLbl = list(AREAS)
        run.evaluate()
    n_images, n_areas = len(run.params.imgIds), len(AREAS)
    thresholds = len(run.params.iouThrs)
    table: Table = {}
    for c, category in enumerate(run.params.catIds):
        for s, area in enumerate(AREAS):
            at = (c * n_areas + s) * n_images
            table[test.names[category], area] = pooled(run.evalImgs[at : at + n_images], thresholds)
    return table


def pooled(images: Sequence[Mapping[str, Any] | None], thresholds: int) -> Matches:
    """One category's matches of all images, as `COCOeval.accumulate` sorts them."""
    scores: list[FloatArray] = [np.zeros(0)]
    true: list[NDArray[np.bool_]] = [np.zeros((thresholds, 0), dtype=bool)]
    ignored: list[NDArray[np.bool_]] = [np.zeros((thresholds, 0), dtype=bool)]
    of: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
    objects = np.zeros(len(images), dtype=np.int64)
    for n, image in enumerate(images):
        if image is None:
            continue
        skipped = np.asarray(image["dtIgnore"]).astype(bool).reshape(thresholds, -1)
        scores.append(np.asarray(image["dtScores"], dtype=float))
        true.append((np.asarray(image["dtMatches"]).reshape(thresholds, -1) > 0) & ~skipped)
        ignored.append(skipped)
        of.append(np.full(len(image["dtScores"]), n, dtype=np.int32))
        objects[n] = int((np.asarray(image["gtIgnore"]) == 0).sum())
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    return Matches(
        np.concatenate(of)[order],
        np.concatenate(true, axis=1)[:, order],
        np.concatenate(ignored, axis=1)[:, order],
        objects,
    )


def average_precision(matches: Matches, weights: NDArray[np.int64]) -> FloatArray:
    """AP at each threshold of IoU, for each weighting of the images.

    Args:
        matches: of one category.
        weights: int64 (B, N), how often each image is in the test.

    Returns:
        float64 (B, T); NaN where no object is in the test. Everingham et al. 2010's interpolated AP at 101 recalls,
        as `COCOeval.accumulate` has it.
    """
    n_objects = weights @ matches.objects
    out = np.zeros((len(weights), len(matches.true)))
    # What lies behind the last hit of all changes neither a precision nor a recall.
    hits = np.flatnonzero(matches.true.any(axis=0))
    end = int(hits[-1]) + 1 if len(hits) else 0
    held = weights[:, matches.image[:end]]
    seen = np.cumsum(held, axis=1)
    for t, true in enumerate(matches.true[:, :end]):
        at = np.flatnonzero(true)
        if not len(at):
            continue
        skipped = matches.ignored[t, :end]
        counted = np.cumsum(held * ~skipped, axis=1) if skipped.any() else seen
        found = np.cumsum(held[:, at], axis=1)
        precision = found / (counted[:, at] + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = found / n_objects[:, None]
        for b in range(len(weights)):
            first = np.searchsorted(recall[b], _RECALLS, side="left")
            out[b, t] = best[b, first[first < len(at)]].sum() / len(_RECALLS)
    out[n_objects == 0] = np.nan
    return out


def figures(table: Table, names: Sequence[str]) -> dict[str, Figures]:
    """Every category's figures on the test as it is."""
    return {name: _figures(table, name) for name in names if (name, "all") in table}


def _figures(table: Table, name: str) -> Figures:
    def ap(area: str) -> FloatArray:
        matches = table[name, area]
        return np.asarray(average_precision(matches, np.ones((1, len(matches.objects)), dtype=np.int64))[0])

    whole = ap("all")
    by_size = {area: _number(float(ap(area).mean())) for area in AREAS[1:]}
    return Figures(AP=_number(float(whole.mean())), AP50=_number(float(whole[0])), **by_size)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def mean(of: Sequence[Figures]) -> Figures:
    """The mean of several categories' figures, each over the categories that have it."""

    def over(values: Sequence[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if known else None

    return Figures(
        AP=over([f.AP for f in of]),
        AP50=over([f.AP50 for f in of]),
        small=over([f.small for f in of]),
        medium=over([f.medium for f in of]),
        large=over([f.large for f in of]),
    )


def resampled(table: Table, names: Sequence[str], weights: NDArray[np.int64]) -> FloatArray:
    """Mean AP50:95 of some categories for each weighting of the images, float64 (B,).

    A category that a weighting leaves without objects is left out of its mean; NaN where none is left.
    """
    if not names:
        return np.full(len(weights), np.nan)
    each = np.stack([average_precision(table[name, "all"], weights).mean(axis=1) for name in names])
    known = ~np.isnan(each)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, each, 0).sum(axis=0) / known.sum(axis=0))
