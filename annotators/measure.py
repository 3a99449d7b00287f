"""What was painted, measured from evidence: the pixels that differ from the background, and the outline that they show."""

from collections.abc import Iterable
from functools import reduce

import numpy as np

from rarefill import geometry
from rarefill.annotators import outline, segmenter
from rarefill.annotators.outline import Outline, Source
from rarefill.annotators.segmenter import Segment
from rarefill.bank import Bank, Slack, loose
from rarefill.geometry import Box, Mask
from rarefill.recipe import CheckerConfig
from rarefill.scene import Reason, Render, Verdict

EXACT = frozenset({"paste"})
"""Generators whose alpha is the object's own. That of all others is the silhouette asked for, which they may not keep to."""


def in_front(render: Render, index: int) -> list[int]:
    """The placements that are painted after one, those that may hide it."""
    placements = render.layout.placements
    own = (placements[index].depth, index)
    return [i for i, p in enumerate(placements) if (p.depth, i) > own]


def painted(render: Render, index: int) -> Mask | None:
    """The pixels that one placement's paint laid down, hidden ones included; None where it changed nothing.

    A pixel of the alpha mask belongs to the object even where it came out in the background's own colour; but
    whole rows and columns at the mask's border in which no pixel differs show no object, and are left out.
    """
    mask = render.paints[index].mask
    if mask is None:
        return None
    height, width = mask.pixels.shape
    rows, cols = slice(mask.y, mask.y + height), slice(mask.x, mask.x + width)
    differs = (render.pixels[rows, cols] != render.background[rows, cols]).any(axis=2)
    shown = Mask.of(differs & mask.pixels, mask.x, mask.y)
    if shown is None:
        return None
    frame = Mask(shown.x, shown.y, np.ones(shown.pixels.shape, dtype=bool))
    return Mask.of(mask.pixels & frame.window(mask.x, mask.y, width, height), mask.x, mask.y)


def measured(render: Render, index: int, segment: Segment | None = None) -> Outline | None:
    """The outline of what was painted, hidden pixels included; None where the paint changed nothing.

    A generator that knows its object's pixels is believed, and so is the silhouette of a redrawn object, whose label is
    the file's. Of any other the silhouette is only what was planned.
    """
    planned, paint = painted(render, index), render.paints[index]
    if planned is None or paint.touched is None:
        return None if planned is None else Outline(planned, Source.SILHOUETTE)
    if paint.generator in EXACT or render.layout.placements[index].redraws is not None:
        return Outline(planned, Source.SILHOUETTE)
    fronts = [mask for i in in_front(render, index) if (mask := render.paints[i].touched) is not None]
    near = [mask for mask in fronts if mask.overlap_px(paint.touched)]
    unknown = reduce(_either, near) if near else None
    return outline.measured(
        render.pixels, render.background, planned, paint.touched, unknown=unknown, segment=segment
    )


def visible(
    render: Render, index: int, covers: Iterable[int], segment: Segment | None = None
) -> tuple[Mask | None, float]:
    """What still shows of one painted object.

    Args:
        render: the picture.
        index: which of its placements.
        covers: placements whose paint lies in front.
        segment: a segmenter to measure with.

    Returns:
        The visible pixels, None where nothing is left, and their share of what was painted, 0 to 1.
    """
    found = measured(render, index, segment)
    return _shown(render, found, covers) if found is not None else (None, 0.0)


def _shown(render: Render, found: Outline, covers: Iterable[int]) -> tuple[Mask | None, float]:
    whole = found.mask
    left = without(whole, (mask for i in covers if (mask := render.paints[i].mask) is not None))
    return left, (left.area / whole.area if left is not None else 0.0)


def verdict(render: Render, index: int, bank: Bank, config: CheckerConfig) -> Verdict:
    """What the paint alone says of one placement: UNCHECKED with its label, or NOT_PAINTED, or HIDDEN.

    A redrawn object keeps the file's box: that is where it has to be found again. Where the evidence is of something else
    than the silhouette, the label is the silhouette's, and `asked_overlap` tells how little of it the evidence shows.
    """
    found = measured(render, index, segmenter.asked(config.segmenter))
    if found is None:
        return Verdict(index, Reason.NOT_PAINTED)
    mask, shown = _shown(render, found, in_front(render, index))
    if mask is None or shown < config.min_visible:
        return Verdict(index, Reason.HIDDEN)
    placement = render.layout.placements[index]
    box = placement.label or label_box(render, mask, bank.slack(placement.category))
    asked = found.agreement if found.source is Source.DEPARTS else geometry.iou(placement.box, mask.box)
    return Verdict(index, Reason.UNCHECKED, asked_overlap=round(asked, 4), box=box, mask=mask)


def label_box(render: Render, mask: Mask, slack: Slack) -> Box:
    """The box that people who leave this slack would draw around an object, inside the image."""
    height, width = render.pixels.shape[:2]
    drawn = loose(mask.box, slack)
    box = Box(*(round(v, 2) for v in drawn.xyxy)).clipped(width, height)
    return box or mask.box


def without(mask: Mask, covers: Iterable[Mask]) -> Mask | None:
    """What of a mask no cover hides, or None where nothing is left."""
    left: Mask | None = mask
    for cover in covers:
        if left is not None:
            left = left.minus(cover)
    return left


def _either(a: Mask, b: Mask) -> Mask:
    """The pixels of both."""
    x1, y1 = min(a.x, b.x), min(a.y, b.y)
    width = int(max(a.box.x2, b.box.x2)) - x1
    height = int(max(a.box.y2, b.box.y2)) - y1
    both = Mask.of(a.window(x1, y1, width, height) | b.window(x1, y1, width, height), x1, y1)
    if both is None:
        raise AssertionError("a mask has at least one pixel")
    return both
