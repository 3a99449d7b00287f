"""What was painted, measured from evidence: the paint's own pixels that show and that differ from the background."""

from collections.abc import Iterable

import numpy as np

from rarefill import geometry
from rarefill.bank import Bank, Slack, loose
from rarefill.geometry import Box, Mask
from rarefill.recipe import CheckerConfig
from rarefill.scene import Reason, Render, Verdict


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


def visible(render: Render, index: int, covers: Iterable[int]) -> tuple[Mask | None, float]:
    """What still shows of one painted object.

    Args:
        render: the picture.
        index: which of its placements.
        covers: placements whose paint lies in front.

    Returns:
        The visible pixels, None where nothing is left, and their share of what was painted, 0 to 1.
    """
    whole = painted(render, index)
    if whole is None:
        return None, 0.0
    left = without(whole, (mask for i in covers if (mask := render.paints[i].mask) is not None))
    return left, (left.area / whole.area if left is not None else 0.0)


def verdict(render: Render, index: int, bank: Bank, config: CheckerConfig) -> Verdict:
    """What the paint alone says of one placement: UNCHECKED with its label, or NOT_PAINTED, or HIDDEN.

    A redrawn object keeps the file's box: that is where it has to be found again.
    """
    if painted(render, index) is None:
        return Verdict(index, Reason.NOT_PAINTED)
    mask, shown = visible(render, index, in_front(render, index))
    if mask is None or shown < config.min_visible:
        return Verdict(index, Reason.HIDDEN)
    placement = render.layout.placements[index]
    box = placement.label or label_box(render, mask, bank.slack(placement.category))
    asked = round(geometry.iou(placement.box, mask.box), 4)
    return Verdict(index, Reason.UNCHECKED, asked_overlap=asked, box=box, mask=mask)


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
