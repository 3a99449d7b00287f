"""What the detector trains on: crops of real images, with exemplars of rare classes pasted in.

A batch derives from (seed, fold, step) alone, so that training can stop and go on anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import geometry, pictures
from rarefill.annotators import crops
from rarefill.annotators.crops import CROP_PX, Crop
from rarefill.bank import Bank, Exemplar, loose
from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.scene import Pixels
from rarefill.seeds import Stage, rng

_NEGATIVE = 0.12  # of crops: anywhere in any image
_PASTE = 0.5  # of crops get 1 to 3 pasted objects
_DECOY = 0.3  # of pasted objects are silhouettes filled with something else, so that a seam is no evidence
_SCALE_JITTER = 0.25  # log units
_LEAST_VISIBLE = 0.4  # share of a box that must show for it to be learned
_KEPT_BYTES = 600 * 2**20


class Pictures:
    """Decoded images, uint8 (H, W, 3), as many kept as fit the memory set aside."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._kept: dict[int, Pixels] = {}
        self._free = _KEPT_BYTES

    def __getitem__(self, image: int) -> Pixels:
        kept = self._kept.get(image)
        if kept is not None:
            return kept
        picture = pictures.rgb(self._dataset.read(image))
        # Access is random: to keep the first that fit hits as often as to keep the latest.
        if picture.nbytes <= self._free:
            self._free -= picture.nbytes
            self._kept[image] = picture
        return picture


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Crops to learn from.

    Attributes:
        crops: uint8 (B, CROP_PX, CROP_PX, 3).
        boxes: B arrays float32 (N, 4), x1 y1 x2 y2 in crop pixels, inside the crop.
        labels: B arrays int64 (N,), category rows.
    """

    crops: NDArray[np.uint8]
    boxes: list[NDArray[np.float32]]
    labels: list[NDArray[np.int64]]


class Sampler:
    """Draws batches from the images of some folds."""

    def __init__(
        self,
        dataset: Dataset,
        bank: Bank,
        picture: Pictures,
        *,
        images: NDArray[np.intp],
        rare: Sequence[str],
        scale: float,
        seed: int,
        fold: int,
        batch: int,
    ) -> None:
        self._dataset, self._bank, self._picture, self._images = dataset, bank, picture, images
        self._scale, self._seed, self._fold, self._batch = scale, seed, fold, batch
        inside = np.zeros(len(dataset.images), dtype=bool)
        inside[images] = True
        usable = inside[dataset.annotations.image] & ~dataset.annotations.crowd
        self._rows = [
            np.flatnonzero(usable & (dataset.annotations.category == c)) for c in range(len(dataset.names))
        ]
        # A category of n objects is drawn as often as sqrt(n): LVIS' repeat factor without its threshold.
        weights = np.sqrt([len(rows) for rows in self._rows])
        self._weights = weights / max(weights.sum(), 1)
        exemplars = ([e for e in bank.of(name) if inside[e.image]] for name in rare)
        self._exemplars = [held for held in exemplars if held]

    def batch(self, step: int) -> Batch:
        """The batch of one training step."""
        draw = rng(self._seed, Stage.FIT, self._fold, step)
        drawn = [self._one(draw) for _ in range(self._batch)]
        return Batch(np.stack([d[0] for d in drawn]), [d[1] for d in drawn], [d[2] for d in drawn])

    def _one(self, draw: np.random.Generator) -> tuple[Pixels, NDArray[np.float32], NDArray[np.int64]]:
        image, crop = self._window(draw)
        pixels = crop.cut(self._picture[image])
        rows = self._dataset.rows_in(image)
        rows = rows[~self._dataset.annotations.crowd[rows]]
        boxes = crop.inward(self._dataset.annotations.boxes[rows])
        labels = self._dataset.annotations.category[rows].astype(np.int64)
        shown = _visible_share(boxes) >= _LEAST_VISIBLE
        boxes, labels = boxes[shown], labels[shown]
        if self._exemplars and draw.random() < _PASTE:
            for _ in range(int(draw.integers(1, 4))):
                boxes, labels = self._paste(draw, pixels, boxes, labels, crop.scale)
        if draw.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = np.stack([CROP_PX - boxes[:, 2], boxes[:, 1], CROP_PX - boxes[:, 0], boxes[:, 3]], axis=1)
        boxes = np.clip(boxes, 0, CROP_PX)
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=CROP_PX) >= 2
        return _jittered(draw, pixels), boxes[large].astype(np.float32), labels[large]

    def _window(self, draw: np.random.Generator) -> tuple[int, Crop]:
        """An image and a crop of it, most often with an object somewhere inside."""
        zoom = float(np.exp(draw.uniform(-_SCALE_JITTER, _SCALE_JITTER)))
        if draw.random() < _NEGATIVE or not self._weights.any():
            image = int(draw.choice(self._images))
            side = round(CROP_PX / (self._scale * zoom))
            height, width = self._size(image)
            at = draw.uniform(0, 1, 2) * (max(0, width - side), max(0, height - side))
            return image, crops.place(at[0], at[1], side, width, height)
        row = int(draw.choice(self._rows[int(draw.choice(len(self._rows), p=self._weights))]))
        image, box = int(self._dataset.annotations.image[row]), self._dataset.box(row)
        side = round(CROP_PX / (crops.fitting(box, self._scale) * zoom))
        height, width = self._size(image)
        corner = np.array(box.center) - draw.uniform(0.2, 0.8, 2) * side
        return image, crops.place(corner[0], corner[1], side, width, height)

    def _size(self, image: int) -> tuple[int, int]:
        return int(self._dataset.images.height[image]), int(self._dataset.images.width[image])

    def _paste(
        self,
        draw: np.random.Generator,
        pixels: Pixels,
        boxes: FloatArray,
        labels: NDArray[np.int64],
        scale: float,
    ) -> tuple[FloatArray, NDArray[np.int64]]:
        """Paste one exemplar, or a decoy in its shape, into a crop; the boxes that still show, with its own."""
        held = self._exemplars[int(draw.integers(len(self._exemplars)))]
        exemplar = held[int(draw.integers(len(held)))]
        decoy = draw.random() < _DECOY
        wanted = min(
            crops.fitting(exemplar.mask.box, scale) * float(np.exp(draw.uniform(-0.3, 0.3))), 0.8 * CROP_PX
        )
        patch, alpha = self._patch(draw, exemplar, wanted, decoy=decoy)
        if draw.random() < 0.5:
            patch, alpha = patch[:, ::-1], alpha[:, ::-1]
        height, width = alpha.shape
        x, y = (int(draw.integers(0, max(1, CROP_PX - n + 1))) for n in (width, height))
        alpha = alpha[: CROP_PX - y, : CROP_PX - x]
        height, width = alpha.shape
        under = pixels[y : y + height, x : x + width]
        mixed = under + (patch[:height, :width] - under) * alpha[:, :, None]
        pixels[y : y + height, x : x + width] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        mask = geometry.Mask.of(alpha >= 0.5, x, y)
        if mask is None:
            return boxes, labels
        shown = np.array([1 - _covered(mask, box) for box in boxes]) >= _LEAST_VISIBLE
        boxes, labels = boxes[shown], labels[shown]
        if decoy:
            return boxes, labels
        label = self._dataset.category_row(exemplar.category)
        drawn = loose(mask.box, self._bank.slack(exemplar.category))
        return np.vstack([boxes, [drawn.xyxy]]), np.append(labels, label)

    def _patch(
        self, draw: np.random.Generator, exemplar: Exemplar, scale: float, *, decoy: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """float32 (h, w, 3) and its alpha (h, w), at a crop's scale. A decoy shows a random piece of the same image."""
        picture, mask = self._picture[exemplar.image], exemplar.mask
        h, w = mask.pixels.shape
        x, y = mask.x, mask.y
        if decoy:
            x = int(draw.integers(0, max(1, picture.shape[1] - w + 1)))
            y = int(draw.integers(0, max(1, picture.shape[0] - h + 1)))
        size = (max(3, round(w * scale)), max(3, round(h * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        patch = cv2.resize(picture[y : y + h, x : x + w], size, interpolation=how).astype(np.float32)
        alpha = cv2.resize(mask.pixels.astype(np.float32), size, interpolation=how)
        feathered = cv2.GaussianBlur(alpha, (0, 0), float(draw.uniform(0.3, 1.3)))
        gain, offset = draw.uniform(0.85, 1.15), draw.uniform(-15, 15)
        return np.asarray((patch - 128) * gain + 128 + offset, dtype=np.float32), np.asarray(feathered)


def _jittered(draw: np.random.Generator, pixels: Pixels) -> Pixels:
    gain, offset = draw.uniform(0.8, 1.2), draw.uniform(-15, 15)
    curve = np.clip(np.rint((np.arange(256) - 128) * gain + 128 + offset), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(pixels), curve))


def _visible_share(boxes: FloatArray) -> FloatArray:
    """Which share of each box (N, 4) lies in the crop."""
    inside = np.clip(boxes, 0, CROP_PX)
    return np.asarray(geometry.areas(inside) / geometry.areas(boxes))


def _covered(mask: geometry.Mask, box: FloatArray) -> float:
    """Which share of a box's pixels a mask covers."""
    x1, y1 = (int(v) for v in np.floor(np.clip(box[:2], 0, CROP_PX - 1)))
    x2, y2 = (int(v) for v in np.ceil(np.clip(box[2:], 1, CROP_PX)))
    return float(mask.window(x1, y1, max(1, x2 - x1), max(1, y2 - y1)).mean())
