"""The exact test of one place: the silhouette is drawn there, pixel by pixel, and held against what is there."""

from dataclasses import dataclass

from rarefill.bank import visible
from rarefill.geometry import Box, FloatArray, Mask
from rarefill.layouts.known import Known
from rarefill.layouts.obstacles import EDGE, OVER, Obstacles, keeps_to
from rarefill.layouts.partly import LEAST_SHOWN
from rarefill.layouts.shapes import Picks
from rarefill.layouts.wishes import Wish
from rarefill.scene import FEATHER_PX, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A silhouette that can stand where it does: a placement's `mask`, `shape`, `whole` and `spared`."""

    mask: Mask
    shape: Shape
    whole: Box | None
    spared: Mask | None


def standing(
    known: Known,
    scene: Obstacles,
    about: FloatArray,
    picks: Picks,
    i: int,
    wish: Wish,
    max_overlap: float,
    *,
    clear: bool,
) -> Standing | str:
    """The i-th pick's silhouette where it would stand, or why it cannot stand there.

    Args:
        known: of its category.
        scene: the background with what is planned on it already.
        about: float64 (4,), the box in whose middle it stands.
        picks: the exemplars drawn.
        i: which of them.
        wish: says whether it may show in part.
        max_overlap: share of an existing object, or of itself, that it may cover.
        clear: no existing object is by the box.
    """
    exemplar, shape, width, height = known.shapes.turned(picks, i)
    x1, y1, x2, y2 = about.tolist()
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    placed = visible(exemplar.mask, shape, box, scene.width, scene.height)
    if placed is None or (placed[1] is not None and not wish.cut):
        return EDGE
    (mask, whole), spared = placed, None
    overlap = 0.0 if clear and keeps_to(mask, x1, y1, x2, y2) else scene.overlap(mask)
    if wish.behind and whole is None and overlap > 0:
        front = scene.front(mask, FEATHER_PX)
        hidden = None if front is None else mask.minus(front)
        if front is None or hidden is None or hidden.area < LEAST_SHOWN * mask.area:
            return OVER
        if hidden.area < mask.area:
            mask, whole, spared = hidden, mask.box, front
            overlap = scene.overlap(mask)
    reason = scene.refuses(mask, known.least_px)
    if reason is not None:
        return reason
    return OVER if overlap > max_overlap else Standing(mask, shape, whole, spared)
