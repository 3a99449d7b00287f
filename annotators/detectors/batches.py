"""Images in batches: those of one size go together, so that none is padded for another's sake."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.annotators.detectors import LEAST_SCORE, Detections
from rarefill.errors import ModelError
from rarefill.geometry import FloatArray
from rarefill.scene import Pixels


def each(
    images: Sequence[Pixels], batch: int, look: Callable[[list[Pixels]], list[Detections]]
) -> list[Detections]:
    """What `look` says of each image, in their order.

    Args:
        images: (H, W, C), any depth and bands.
        batch: images at a time, at most.
        look: takes uint8 (H, W, 3) of one size.
    """
    found: dict[int, Detections] = {}
    ordered = sorted(range(len(images)), key=lambda n: images[n].shape[:2])
    for _, same in groupby(ordered, key=lambda n: images[n].shape[:2]):
        group = list(same)
        for part in (group[at : at + batch] for at in range(0, len(group), batch)):
            seen = look([_own(pictures.rgb(images[n])) for n in part])
            found.update(zip(part, seen, strict=True))
    return [found[n] for n in range(len(images))]


def _own(pixels: Pixels) -> Pixels:
    """Pixels that torch may take as they are: it warns of arrays that cannot be written to."""
    return pixels if pixels.flags.writeable else pixels.copy()


def answered(
    found: Sequence[Mapping[str, Any]], rows: NDArray[np.int64], *, size: tuple[int, int], where: str
) -> list[Detections]:
    """What a processor of transformers reads from its model's outputs, as detections of our categories.

    Args:
        found: for each image `boxes`, `labels` and `scores`, tensors.
        rows: the category row of each of the model's labels; -1 is none of ours.
        size: height and width of the images.
        where: names the detector in errors.
    """
    return [
        detections(
            one["boxes"].cpu().numpy().astype(np.float64),
            rows[one["labels"].cpu().numpy()],
            one["scores"].cpu().numpy().astype(np.float64),
            size=size,
            where=where,
        )
        for one in found
    ]


def detections(
    boxes: FloatArray, labels: NDArray[np.int64], scores: FloatArray, *, size: tuple[int, int], where: str
) -> Detections:
    """Detections of known categories, inside the image, rounded, the best first.

    Args:
        boxes: (N, 4), x1 y1 x2 y2, in the image's pixels.
        labels: (N,), category rows; -1 is none of ours.
        scores: (N,).
        size: height and width of the image.
        where: names the detector in errors.

    Raises:
        ModelError: boxes or scores are no numbers.
    """
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ModelError(
            f"{where}: gives boxes or scores that are no numbers; its weights or its export are broken"
        )
    height, width = size
    inside = np.clip(boxes.reshape(-1, 4), 0, [width, height, width, height]).round(2)
    solid = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    kept = np.flatnonzero(solid & (labels >= 0) & (scores >= LEAST_SCORE))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return Detections(inside[kept], labels[kept].astype(np.int64), np.clip(scores[kept], 0, 1).round(4))
