"""What a budget comes to: images with new objects for each real one, and what to think of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rarefill import amounts
from rarefill.gaps import Gaps

KEPT = (
    "Images without objects stay, and backgrounds left as they are (--untouched) come on top: "
    "both keep a detector from firing at paint."
)
"""Said beside every budget."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What a budget comes to.

    Attributes:
        fill: objects by category.
        images: with new objects, about: as many on each as real ones hold.
        ratio: of these to real images.
        warning: one line where the budget is hardly worth its time: too few beside all real images and beside those
            that show its classes, or too many; else empty.
    """

    fill: Mapping[str, int]
    images: int
    ratio: float
    warning: str


def advise(
    gaps: Gaps, fill: Mapping[str, int], *, per_image: int | None = None, images: int | None = None
) -> Advice:
    """Weigh a budget.

    Args:
        gaps: what was surveyed.
        fill: objects by category, as `gaps.budget` gives them; may be empty.
        per_image: the most objects on one image, when it is set.
        images: how many shall hold them, when it is set.
    """
    made = np.array([fill.get(name, 0) for name in gaps.names], dtype=np.int64)
    filled = amounts.images_for(made, gaps.images, gaps.objects, per_image)
    needed = images if images is not None else max(round(filled), int(made.any()))
    ratio = needed / max(1, gaps.n_images)
    # What a detector sees of a class grows with the images that show it: beside those even a small run may be much.
    grown = amounts.growth(made, gaps.images, gaps.objects, per_image)
    return Advice(dict(fill), needed, ratio, _warning(ratio, grown, gaps.n_images) if made.any() else "")


def _warning(ratio: float, grown: float, n_images: int) -> str:
    low, high = amounts.LEAST_RATIO, amounts.MOST_RATIO
    if ratio < low and grown < low:
        return (
            f"{ratio:.2f} new images for each real one is below {low:g}, and no class is on more than {1 + grown:.2f} times "
            f"the images that it was: a detector hardly sees them among {n_images:,} real ones; ask for more, or show "
            "them more often in training"
        )
    if ratio > high:
        return (
            f"{ratio:.2f} new images for each real one is above {high:g}: a detector learns the paint more than the "
            "world; ask for less, or label more real images"
        )
    return ""


def sentence(advice: Advice) -> str:
    """A budget and its ratio in one line, for people."""
    total = sum(advice.fill.values())
    return (
        f"{total:,} objects, about {advice.images:,} images, {advice.ratio:.2f} for each real one "
        f"(worth it: {amounts.LEAST_RATIO:g} to {amounts.MOST_RATIO:g})"
    )


def unmeasured(gaps: Gaps) -> Sequence[str]:
    """Categories with objects that the evaluation says nothing of; none without an evaluation."""
    if gaps.evaluation is None:
        return ()
    held = dict(zip(gaps.names, gaps.objects.tolist(), strict=True))
    return tuple(name for name in gaps.evaluation.missing if held[name])
