"""The labels of a finished picture: painted objects as measured, and the background's own, as far as they still show."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from rarefill import geometry
from rarefill.annotators import measure, segmenter
from rarefill.dataset import Dataset
from rarefill.geometry import Box, Mask
from rarefill.recipe import CheckerConfig
from rarefill.scene import Instance, Reason, Render, Verdict

Dropped = tuple[tuple[int, float], ...]
"""Rows of annotations that paint hides, with the share that still shows."""


def remeasure(
    dataset: Dataset, render: Render, verdicts: Sequence[Verdict], config: CheckerConfig
) -> tuple[tuple[Instance, ...], Dropped]:
    """Every object that holds in a picture.

    A redrawn object takes the place of its annotation and has its label: the file's own, or what of it no new object
    hides. It covers no pixel that its real object did not cover, so that it hides nothing itself.

    Args:
        dataset: the real data.
        render: the finished picture: what was refused is no longer in it.
        verdicts: of its placements, in any order; placements without one count as refused.
        config: what hides an object.

    Returns:
        The background's objects in the file's order, then the painted ones in the placements' order, without those
        that others painted later hide; and the background's objects that no longer show enough to keep a label.
    """
    accepted = {v.index: v for v in verdicts if v.accepted}
    redraws = {i: row for i in accepted if (row := render.layout.placements[i].redraws) is not None}
    new = [i for i in accepted if i not in redraws]
    kept: list[Instance] = []
    redrawn: dict[int, Instance] = {}
    dropped: list[tuple[int, float]] = []
    for row in map(int, dataset.rows_in(render.layout.image)):
        instance, shown = left_of(dataset, row, covers(dataset, render, row, new), config.min_visible)
        if instance is None:
            dropped.append((row, round(shown, 4)))
        elif row in redraws.values():
            redrawn[row] = instance
        else:
            kept.append(instance)
    for index in sorted(accepted):
        if index not in redraws:
            painted = _painted(render, accepted[index], accepted, config)
        else:
            painted = _redrawn(dataset, render, accepted[index], redrawn.get(redraws[index]))
        if painted is not None:
            kept.append(painted)
    return tuple(kept), tuple(dropped)


def covers(dataset: Dataset, render: Render, row: int, indices: Iterable[int]) -> list[Mask]:
    """The pixels of those painted objects that stand in front of a real one.

    One that was planned behind it spares its pixels. Of a real object known by its box only nobody knows these: it
    stands in front where more of its box is spared than painted.

    Args:
        dataset: the real data.
        render: the picture.
        row: of the real object's annotation.
        indices: of the painted objects.
    """
    found = []
    whole = None
    for i in indices:
        mask, spared = render.paints[i].mask, render.layout.placements[i].spared
        if mask is None:
            continue
        if spared is not None and dataset.mask(row) is None:
            whole = whole or pixels(dataset.box(row))
            if whole.overlap_px(spared) > whole.overlap_px(mask):
                continue
        found.append(mask)
    return found


def left_of(
    dataset: Dataset, row: int, fronts: Sequence[Mask], min_visible: float
) -> tuple[Instance | None, float]:
    """A background's object under the paint in front of it, None when too little of it shows; and its visible share.

    What the paint does not reach keeps the file's exact label. A crowd has no outline to re-measure.
    """
    category = dataset.names[int(dataset.annotations.category[row])]
    box, mask, crowd = dataset.box(row), dataset.mask(row), bool(dataset.annotations.crowd[row])
    untouched = Instance(category, box, mask, annotation=row, crowd=crowd)
    whole = mask if mask is not None else pixels(box)
    near = () if crowd else [m for m in fronts if whole.overlap_px(m)]
    if not near:
        return untouched, 1.0
    left = measure.without(whole, near)
    if left is None:
        return None, 0.0
    shown = left.area / whole.area
    if shown < min_visible:
        return None, shown
    measured = shrunk(box, whole.box, left.box)
    if mask is None and measured == box:
        return untouched, shown  # paint inside a box leaves the box as it is
    return (
        Instance(category, measured, left if mask is not None else None, annotation=row, changed=True),
        shown,
    )


def pixels(box: Box) -> Mask:
    """The pixels of a box; of one that holds no pixel's centre, the pixel about its own centre."""
    x, y = (int(v) for v in box.center)
    return geometry.box_mask(box) or Mask(x, y, np.ones((1, 1), dtype=bool))


def shrunk(box: Box, before: Box, after: Box) -> Box:
    """A box after paint covered some of its pixels.

    Only sides that the paint moved inward are re-measured: the file's fractions of a pixel stay on the others.

    Args:
        box: as the file has it.
        before: tight about the object's pixels without paint.
        after: tight about those that still show.
    """
    old = zip(box.xyxy, before.xyxy, after.xyxy, strict=True)
    x1, y1, x2, y2 = (side if b == a else a for side, b, a in old)
    return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else after


def _painted(
    render: Render, verdict: Verdict, accepted: Iterable[int], config: CheckerConfig
) -> Instance | None:
    """A painted object as it shows now, None when too little of it does.

    Since it was checked, others may have been painted in front of it, and what was refused hides it no longer.
    """
    index = verdict.index
    front = [i for i in measure.in_front(render, index) if i in accepted]
    mask, shown = measure.visible(render, index, front, segmenter.asked(config.segmenter))
    if mask is None or shown < config.min_visible:
        return None
    category = render.layout.placements[index].category
    box = (
        mask.box
        if verdict.box is None or verdict.mask is None
        else shrunk(verdict.box, verdict.mask.box, mask.box)
    )
    return Instance(category, box, mask, score=_score(verdict), how=_how(render, verdict))


def _redrawn(dataset: Dataset, render: Render, verdict: Verdict, real: Instance | None) -> Instance | None:
    """A background's object with its new look; None where others hide it."""
    if real is None or real.annotation is None:
        return None
    how = _how(render, verdict) | {"redraws": int(dataset.annotations.id[real.annotation])}
    return replace(real, annotation=None, redraws=real.annotation, score=_score(verdict), how=how)


def _score(verdict: Verdict) -> float | None:
    return None if verdict.reason is Reason.UNCHECKED else verdict.score


def _how(render: Render, verdict: Verdict) -> dict[str, str | int | float | bool]:
    """The record of one paint and its verdict."""
    paint = render.paints[verdict.index]
    return paint.how | {
        "generator": paint.generator,
        "verdict": str(verdict.reason),
        "threshold": verdict.threshold,
        "overlap": verdict.overlap,
        "asked_overlap": verdict.asked_overlap,
    }
