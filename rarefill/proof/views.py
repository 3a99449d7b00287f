"""What a trainer that trains here shows its detector: an entry of the list, moved, mirrored and lit anew by chance."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import geometry, pictures
from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.proof.mix import Mix
from rarefill.scene import Pixels
from rarefill.seeds import Stage, rng

_GREY = 114
_ZOOM = 0.35  # log units
_LEAST_VISIBLE = 0.3
_KEPT_BYTES = 700 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One picture to learn from.

    Attributes:
        pixels: uint8 (side, side, 3).
        boxes: float64 (N, 4), x1 y1 x2 y2 inside it.
        labels: int64 (N,), rows of the list's categories.
    """

    pixels: Pixels
    boxes: FloatArray
    labels: NDArray[np.int64]


class Views:
    """Draws views of a list's entries; each follows from the seed, the step and its place in the batch alone."""

    def __init__(self, mix: Mix, side: int, batch: int, seed: int) -> None:
        self._mix, self._side, self._batch, self._seed = mix, side, batch, seed
        self._kept: dict[tuple[int, int], tuple[Pixels, float]] = {}
        self._free = _KEPT_BYTES

    def batch(self, step: int) -> list[View]:
        """The views of one step: the list from end to end, shuffled anew at each pass."""
        out = []
        for k in range(step * self._batch, (step + 1) * self._batch):
            lap, at = divmod(k, len(self._mix))
            order = rng(self._seed, Stage.FIT, 1, lap).permutation(len(self._mix))
            out.append(self._view(int(order[at]), rng(self._seed, Stage.FIT, 2, k)))
        return out

    def _view(self, n: int, draw: np.random.Generator) -> View:
        dataset, row = self._mix.at(n)
        pixels, scale = self._picture(dataset, row)
        rows = dataset.rows_in(row)
        rows = rows[~dataset.annotations.crowd[rows]]
        boxes, labels = dataset.annotations.boxes[rows] * scale, self._mix.labels(dataset, rows)
        fit = self._side / max(pixels.shape[:2]) * float(np.exp(draw.uniform(-_ZOOM, _ZOOM)))
        width, height = (max(8, round(v * fit)) for v in (pixels.shape[1], pixels.shape[0]))
        how = cv2.INTER_AREA if fit < 1 else cv2.INTER_LINEAR
        small = cv2.resize(pixels, (width, height), interpolation=how)
        boxes = boxes * np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2)
        x, y = (self._offset(v, draw) for v in (width, height))
        canvas = np.full((self._side, self._side, 3), _GREY, dtype=np.uint8)
        inside = small[max(0, -y) : self._side - y, max(0, -x) : self._side - x]
        canvas[max(0, y) : max(0, y) + inside.shape[0], max(0, x) : max(0, x) + inside.shape[1]] = inside
        boxes, labels = _shown(boxes + np.array([x, y, x, y]), labels, self._side)
        if draw.random() < 0.5:
            canvas = canvas[:, ::-1]
            boxes = np.stack(
                [self._side - boxes[:, 2], boxes[:, 1], self._side - boxes[:, 0], boxes[:, 3]], 1
            )
        return View(_lit(canvas, draw), boxes, labels)

    def _offset(self, length: int, draw: np.random.Generator) -> int:
        """Where a picture lies on the canvas: inside it, or reaching over it on both sides."""
        free = self._side - length
        return round(float(draw.uniform(min(0, free), max(0, free))))

    def _picture(self, dataset: Dataset, row: int) -> tuple[Pixels, float]:
        """An image, no larger than is of use, and its scale; kept as far as memory allows."""
        key = (id(dataset), row)
        if key in self._kept:
            return self._kept[key]
        pixels = pictures.rgb(dataset.read(row))
        scale = min(1.0, 1.5 * self._side / max(pixels.shape[:2]))
        if scale < 1:
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if pixels.nbytes <= self._free:
            self._free -= pixels.nbytes
            self._kept[key] = (pixels, scale)
        return pixels, scale


def _shown(boxes: FloatArray, labels: NDArray[np.int64], side: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """Boxes of which enough lies on the canvas, cut off at its edge."""
    inside = np.clip(boxes, 0, side)
    kept = (geometry.areas(inside) >= _LEAST_VISIBLE * geometry.areas(boxes)) & (
        (inside[:, 2:] - inside[:, :2]).min(axis=1, initial=side) >= 2
    )
    return inside[kept], labels[kept]


def _lit(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Contrast, brightness and the balance of colours, changed a little."""
    gain, offset = draw.uniform(0.8, 1.2) * draw.uniform(0.93, 1.07, 3), draw.uniform(-15, 15)
    curves = (np.arange(256)[:, None] - 128) * gain + 128 + offset
    table = np.clip(np.rint(curves), 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(np.ascontiguousarray(pixels), table))
