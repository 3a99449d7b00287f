"""A real object whose silhouette can be used again."""

from dataclasses import dataclass
from typing import Literal

from rarefill.dataset import Dataset
from rarefill.geometry import Mask

Source = Literal["mask", "cut", "box"]

SOURCES: tuple[Source, ...] = ("mask", "cut", "box")
FEWEST_GOOD = 3
"""Trusted masks that a category needs before its untrusted ones are left alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Exemplar:
    """One real object whose silhouette can be used again.

    Attributes:
        annotation: row in `dataset.annotations`.
        image: row in `dataset.images`.
        category: its name.
        mask: its visible pixels, in the image's frame.
        source: "mask" is the data's own, "cut" a cut-out from its box; "box" is what stands in where the cut-out
            failed its gate and is not to be trusted: a rounded box, or a part of the object.
        quality: how far the mask is to be trusted, 0 to 1.
        complete: whether all of the object is in the image: False when it touches the image's edge.
    """

    annotation: int
    image: int
    category: str
    mask: Mask
    source: Source
    quality: float
    complete: bool


def exemplar(
    dataset: Dataset, category: str, row: int, mask: Mask, source: Source, quality: float
) -> Exemplar:
    """An object with this mask; whether it is complete is read from where its box and its mask end."""
    image = int(dataset.annotations.image[row])
    # Truncated objects' boxes end within a pixel of the image's edge, whatever the mask does there.
    box, frame = dataset.box(row), mask.box
    free = min(box.x1, box.y1, frame.x1, frame.y1) >= 1
    right, bottom = int(dataset.images.width[image]) - 1, int(dataset.images.height[image]) - 1
    free = free and max(box.x2, frame.x2) <= right and max(box.y2, frame.y2) <= bottom
    return Exemplar(row, image, category, mask, source, quality, free)
