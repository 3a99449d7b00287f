"""The shape bank: real silhouettes of each category, from the data's masks or cut out of its boxes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rarefill import warp
from rarefill.dataset import Dataset
from rarefill.geometry import Box, Mask
from rarefill.progress import SILENT, Progress
from rarefill.scene import Shape

Source = Literal["mask", "grabcut", "box"]


@dataclass(frozen=True, slots=True, eq=False)
class Exemplar:
    """One real object whose silhouette can be used again.

    Attributes:
        annotation: row in `dataset.annotations`.
        image: row in `dataset.images`.
        category: its name.
        mask: its visible pixels, in the image's frame.
        source: the data's own mask, a cut-out from its box, or a rounded box where the cut-out failed its gate.
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


class Bank:
    """Exemplars by category and by annotation."""

    def __init__(self, exemplars: Iterable[Exemplar]) -> None:
        self._at = {e.annotation: e for e in sorted(exemplars, key=lambda e: e.annotation)}
        of: dict[str, list[Exemplar]] = {}
        for exemplar in self._at.values():
            of.setdefault(exemplar.category, []).append(exemplar)
        self._of = {category: tuple(held) for category, held in of.items()}

    def of(self, category: str) -> tuple[Exemplar, ...]:
        """All exemplars of a category, in the order of the annotations; empty when there is none."""
        return self._of.get(category, ())

    def at(self, annotation: int) -> Exemplar:
        """The exemplar of one annotation row.

        Raises:
            KeyError: the annotation has no exemplar (a crowd, too small, or a category the bank was not built for).
        """
        return self._at[annotation]

    def __len__(self) -> int:
        return len(self._at)


def build(
    dataset: Dataset, categories: Sequence[str], *, cache: Path | None = None, progress: Progress = SILENT
) -> Bank:
    """The exemplars of some categories."""
    del cache, progress
    found: list[Exemplar] = []
    for category in categories:
        for row in dataset.rows_of(category):
            mask = dataset.mask(int(row))
            if mask is not None:
                image = int(dataset.annotations.image[row])
                found.append(Exemplar(int(row), image, category, mask, "mask", 1.0, complete=True))
    return Bank(found)


def silhouette(mask: Mask, shape: Shape, box: Box) -> Mask:
    """An exemplar's mask as a placement shows it: flipped, rotated, then stretched to a box's whole pixels.

    The result fills the box to within a pixel: what the silhouette covers by half or more belongs to it.
    """
    x, y, width, height = warp.whole(box)
    covered = warp.coverage(mask, warp.fit(mask, shape, width, height), width, height)
    # The finest silhouettes (a rope in two pixels) cover no pixel by half: then the best covered ones stand in.
    pixels = covered >= min(0.5, float(covered.max()))
    placed = Mask.of(pixels if covered.max() > 0 else np.ones_like(pixels), x, y)
    if placed is None:
        raise AssertionError("a silhouette has at least one pixel")
    return placed
