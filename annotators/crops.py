"""The square crops in which the checker learns and looks: one scale for a dataset, so that small objects are workable."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rarefill import pictures
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray
from rarefill.scene import Pixels

CROP_PX = 192
SMALL_PX = 24.0
"""What the small objects of the categories to judge measure after scaling (the 20th percentile): 3 cells of the
detector's finest level."""
LARGE_SHARE = 0.6
"""An object larger than this share of a crop's side is seen at a smaller scale of its own."""
_SCALES = (0.05, 4.0)
_GREY = 114  # stands where a crop reaches over the image


@dataclass(frozen=True, slots=True)
class Crop:
    """A square part of an image, seen at CROP_PX x CROP_PX.

    Attributes:
        x: left column in the image; may be negative where the image is narrower than the crop.
        y: top row.
        side: in the image's pixels.
    """

    x: int
    y: int
    side: int

    @property
    def scale(self) -> float:
        """Crop pixels per image pixel."""
        return CROP_PX / self.side

    def cut(self, pixels: Pixels) -> Pixels:
        """uint8 (CROP_PX, CROP_PX, 3) from an image's pixels of any depth; grey outside the image."""
        if pixels.dtype != np.uint8:
            pixels = pictures.rgb(pixels)  # 16 bit is scaled by the whole image's range
        height, width = pixels.shape[:2]
        x1, y1 = max(0, self.x), max(0, self.y)
        x2, y2 = min(width, self.x + self.side), min(height, self.y + self.side)
        part = pictures.rgb(pixels[y1:y2, x1:x2])
        left, top = x1 - self.x, y1 - self.y
        if part.shape[:2] != (self.side, self.side):
            right, bottom = self.side - left - part.shape[1], self.side - top - part.shape[0]
            part = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_CONSTANT, value=[_GREY] * 3)
        how = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (CROP_PX, CROP_PX), interpolation=how))

    def inward(self, boxes: FloatArray) -> FloatArray:
        """Boxes (N, 4) of the image in the crop's pixels, not clipped."""
        return np.asarray((boxes - np.array([self.x, self.y] * 2)) * self.scale)

    def outward(self, boxes: FloatArray) -> FloatArray:
        """Boxes (N, 4) of the crop in the image's pixels."""
        return np.asarray(boxes / self.scale + np.array([self.x, self.y] * 2))


def place(x: float, y: float, side: int, width: int, height: int) -> Crop:
    """The crop whose left top corner is nearest to (x, y) and which leaves an image only where that is smaller."""
    free_x, free_y = width - side, height - side
    left = min(max(0, round(x)), free_x) if free_x > 0 else free_x // 2
    top = min(max(0, round(y)), free_y) if free_y > 0 else free_y // 2
    return Crop(left, top, side)


def around(box: Box, scale: float, width: int, height: int) -> Crop:
    """The crop in which an object is judged, painted or real: centred on it, at its scale."""
    side = round(CROP_PX / fitting(box, scale))
    x, y = box.center
    return place(x - side / 2, y - side / 2, side, width, height)


def fitting(box: Box, scale: float) -> float:
    """The dataset's scale, or the smaller one at which a large object still fits its crop."""
    return min(scale, LARGE_SHARE * CROP_PX / max(box.width, box.height))


def dataset_scale(dataset: Dataset, categories: Sequence[str]) -> float:
    """Crop pixels per image pixel at which the small ones of every category to judge are workable."""
    smallest = [
        float(np.percentile(np.sqrt(sides[:, 0] * sides[:, 1]), 20))
        for sides in (_sides(dataset, c) for c in categories)
        if len(sides)
    ]
    wanted = SMALL_PX / min(smallest) if smallest else 1.0
    return float(np.clip(wanted, *_SCALES))


def _sides(dataset: Dataset, category: str) -> FloatArray:
    boxes = dataset.annotations.boxes[dataset.rows_of(category)]
    return np.asarray(boxes[:, 2:] - boxes[:, :2])
