"""Regions that a COCO file tells evaluators to ignore: nobody knows what is in them, so nothing is put there."""

import msgspec
import numpy as np

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray


class _Image(msgspec.Struct):
    id: int
    ignore: list[tuple[float, float, float, float]] = []


class _Document(msgspec.Struct):
    images: list[_Image]


def regions(dataset: Dataset) -> dict[int, FloatArray]:
    """Boxes to ignore, float64 (k, 4) x1 y1 x2 y2 inside the image, by row of the image.

    They stand in the file's images as `"ignore": [[x, y, width, height], ...]`. A key of that name that holds
    anything else is somebody else's and means nothing here.
    """
    if dataset.format != "coco":
        return {}
    try:
        content = dataset.path.read_bytes()
        if b'"ignore"' not in content:
            return {}
        images = msgspec.json.decode(content, type=_Document).images
    except (OSError, msgspec.MsgspecError):
        return {}
    row_of = {int(number): row for row, number in enumerate(dataset.images.id)}
    found: dict[int, FloatArray] = {}
    for image in images:
        if not image.ignore or image.id not in row_of:
            continue
        row = row_of[image.id]
        size = (dataset.images.width[row], dataset.images.height[row]) * 2
        boxes = np.array(image.ignore, dtype=float)
        boxes[:, 2:] += boxes[:, :2]
        boxes = np.clip(boxes, 0, size)
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)]
        if len(boxes):
            found[row] = boxes
    return found
