"""Silhouettes of one category: the data's own masks, or cut out of its boxes, and which of these are to be trusted."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from rarefill import cutouts, pictures
from rarefill.dataset import Dataset
from rarefill.exemplars import FEWEST_GOOD, Exemplar, exemplar
from rarefill.progress import Progress

_HABIT = 0.75
_LACKING = 0.15
"""Share of its box by which a cut-out may end before a side, beyond the category's habit: more is a missing arm or tail.

Set by eye on starfish, fish, cells and thermal vehicles: most of what it refuses there lacks a part.
"""


def cut_all(dataset: Dataset, category: str, rows: list[int], progress: Progress) -> list[Exemplar]:
    """The exemplars of some of a category's annotations, in their order.

    Raises:
        DataError: an image cannot be read.
    """
    by_image: dict[int, list[int]] = {}
    for row in rows:
        by_image.setdefault(int(dataset.annotations.image[row]), []).append(row)
    found: list[Exemplar] = []
    with progress.bar(f"shapes of {category}", len(rows), "objects") as bar, ThreadPoolExecutor() as pool:
        work = pool.map(lambda item: _cut_image(dataset, category, *item), by_image.items())
        for held, exemplars in zip(by_image.values(), work, strict=True):
            found += exemplars
            bar.advance(len(held))
    return habitual(dataset, sorted(found, key=lambda e: e.annotation))


def habitual(dataset: Dataset, exemplars: list[Exemplar]) -> list[Exemplar]:
    """Cut-outs that differ from the category's habit are not to be trusted.

    A nucleus fills much less of its box; what lost an arm or a tail ends far before one side of it.
    """
    cut = [e for e in exemplars if e.source == "cut" and e.complete]
    if not cut:
        return exemplars
    shares = np.array([e.mask.box.area / dataset.box(e.annotation).area for e in cut])
    odd = shares < _HABIT * np.quantile(shares, 0.75)
    if len(cut) >= FEWEST_GOOD:
        left = np.array([free(dataset, e) for e in cut])
        odd |= (left - np.median(left, axis=0)).max(axis=1) > _LACKING
    refused = {e.annotation for e, no in zip(cut, odd, strict=True) if no}
    return [
        replace(e, source="box", quality=cutouts.ROUNDED_BOX) if e.annotation in refused else e
        for e in exemplars
    ]


def free(dataset: Dataset, exemplar: Exemplar) -> tuple[float, float, float, float]:
    """Share of the label's box that the silhouette leaves free at its left, top, right and bottom."""
    box, frame = dataset.box(exemplar.annotation), exemplar.mask.box
    w, h = box.width, box.height
    return (
        (frame.x1 - box.x1) / w,
        (frame.y1 - box.y1) / h,
        (box.x2 - frame.x2) / w,
        (box.y2 - frame.y2) / h,
    )


def _cut_image(dataset: Dataset, category: str, image: int, rows: list[int]) -> list[Exemplar]:
    picture = None
    found = []
    for row in rows:
        mask = dataset.mask(row)
        if mask is not None:
            found.append(exemplar(dataset, category, row, mask, "mask", 1.0))
            continue
        if picture is None:
            picture = pictures.rgb(dataset.read(image))
        others = dataset.annotations.boxes[[int(r) for r in dataset.rows_in(image) if r != row]]
        box = dataset.box(row)
        mask, quality = cutouts.cut(picture, box, others)
        if mask is not None and quality >= cutouts.FAIR:
            found.append(exemplar(dataset, category, row, mask, "cut", quality))
            continue
        mask = cutouts.rounded(box, picture.shape[1], picture.shape[0])
        if mask is not None:
            found.append(exemplar(dataset, category, row, mask, "box", cutouts.ROUNDED_BOX))
    return found
