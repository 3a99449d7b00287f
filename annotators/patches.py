"""What the second look learns from: objects in their boxes, and what is in a box without being the object claimed.

Every object is kept as a square view of its surroundings, its box in the middle; all that is done to it is done there. A
batch derives from (seed, fold, step) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import geometry, pictures
from rarefill.annotators import spoiled
from rarefill.annotators.samples import Pictures
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.geometry import BoolArray, Box, FloatArray
from rarefill.scene import Pixels
from rarefill.seeds import Stage, rng

PATCH_PX: Final = 48
MARGIN: Final = 0.3
"""Of a box's sides, what is seen around it on each side."""
_BOX_PX = 48  # a box's side in a view
_VIEW_PX = 3 * _BOX_PX
_MOST = 80  # objects of a category that are learned from
_KEY = 2_000_000  # first part of a key; those of folds, held-back objects and faults are below
_OFF = 0.04
"""Standard deviation of each side of a right box, as a share of the box's side: people and measurements are no better."""
_TRIES = 20
_KEPT = 1500  # views of objects, some 60 kB each; random access hits the first as often as the latest

_KINDS = {
    "object": 0.45,
    "half": 0.17,
    "shifted": 0.1,
    "resized": 0.06,
    "noise": 0.1,
    "filled": 0.07,
    "empty": 0.05,
}
"""What a patch shows, and how often."""
_PASTED = 0.4  # of objects and of halves that are pasted elsewhere, where their silhouette is known


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A box and as much again on each side, its box's side at `_BOX_PX`.

    Attributes:
        pixels: uint8 (`_VIEW_PX`, `_VIEW_PX`, 3).
        boxes: float64 (N, 4), of the objects in it, its own included, in its pixels.
        alpha: float32 (`_VIEW_PX`, `_VIEW_PX`), the object's silhouette, 0 to 1; None where none is known.
    """

    pixels: Pixels
    boxes: FloatArray
    alpha: NDArray[np.float32] | None = None


def patch(pixels: Pixels, box: Box) -> Pixels:
    """A box and `MARGIN` around it, stretched to a square: uint8 (PATCH_PX, PATCH_PX, 3), of pictures of any bands and depth."""
    three = pixels if pixels.shape[2] == 3 else pictures.rgb(pixels)
    return _stretched(three, _grown(box, MARGIN), PATCH_PX)


class Patches:
    """Draws batches from the images of some folds."""

    def __init__(
        self,
        dataset: Dataset,
        bank: Bank,
        picture: Pictures,
        *,
        images: NDArray[np.intp],
        rare: Sequence[str],
        seed: int,
        fold: int,
        batch: int,
    ) -> None:
        self._dataset, self._bank, self._picture, self._images = dataset, bank, picture, images
        self._seed, self._fold, self._batch = seed, fold, batch
        a = dataset.annotations
        inside = np.zeros(len(dataset.images), dtype=bool)
        inside[images] = True
        usable = inside[a.image] & ~a.crowd & ((a.boxes[:, 2:] - a.boxes[:, :2]).min(axis=1) >= 3)
        draw = rng(seed, Stage.FIT, _KEY, fold)
        self._rows: list[NDArray[np.intp]] = []
        for category in range(len(dataset.names)):
            rows = np.flatnonzero(usable & (a.category == category))
            self._rows.append(np.sort(draw.permutation(rows)[:_MOST]))
        weights = np.sqrt([len(rows) for rows in self._rows])
        wanted = np.array([name in rare for name in dataset.names])
        for group in (wanted, ~wanted):
            weights[group] /= max(weights[group].sum(), 1e-9)
        self._weights = weights / max(weights.sum(), 1e-9)
        self._views: dict[int, View] = {}

    def batch(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Patches uint8 (B, PATCH_PX, PATCH_PX, 3) and what they show, int64 (B,): a category's row, or their number."""
        draw = rng(self._seed, Stage.FIT, _KEY, self._fold, step)
        drawn = [self._one(draw) for _ in range(self._batch)]
        return np.stack([d[0] for d in drawn]), np.array([d[1] for d in drawn], dtype=np.int64)

    def _one(self, draw: np.random.Generator) -> tuple[Pixels, int]:
        if not self._weights.any():  # a fold that trains without a single object
            image = int(draw.choice(self._images))
            side = float(draw.uniform(8, 32))
            return patch(self._picture[image], Box(0, 0, side, side)), len(self._rows)
        label = int(draw.choice(len(self._rows), p=self._weights))
        row = int(draw.choice(self._rows[label]))
        kind = str(draw.choice(list(_KINDS), p=list(_KINDS.values())))
        view, place = (
            self._view(row),
            np.array([_BOX_PX, _BOX_PX, 2 * _BOX_PX, 2 * _BOX_PX], dtype=np.float64),
        )
        pixels, none = view.pixels, len(self._rows)
        pasted = view.alpha is not None and draw.random() < _PASTED
        if kind in {"empty", "noise", "filled"} or (pasted and kind in {"object", "half"}):
            free = self._free(draw, row)
            if free is None:
                kind, pasted = "object", False
            else:
                pixels = _on(draw, kind, free.pixels, view, place, pasted=pasted)
        if kind == "half" and not pasted:
            hole = spoiled.half(draw, place, _VIEW_PX)
            pixels = spoiled.erased(draw, pixels, hole, place, view.boxes)
        elif kind == "object" and not pasted and draw.random() < 0.15:
            hole = spoiled.beside(draw, place, _VIEW_PX)
            pixels = spoiled.erased(draw, pixels, hole, place, view.boxes)
        moved = _moved(draw, kind, place)
        if moved is None or _is_another(moved, view.boxes, kind):
            kind, moved = "object", place
        return _seen(draw, pixels, moved), label if kind == "object" else none

    def _view(self, row: int) -> View:
        held = self._views.get(row)
        if held is None:
            box, image = self._dataset.box(row), int(self._dataset.annotations.image[row])
            held = self._at(image, box, self._bank.outline(row))
            if len(self._views) < _KEPT:
                self._views[row] = held
        return held

    def _free(self, draw: np.random.Generator, row: int) -> View | None:
        """A place of an object's size that holds no object; None where none is found."""
        size = self._dataset.box(row)
        for _ in range(_TRIES):
            image = int(draw.choice(self._images))
            width, height = (int(v[image]) for v in (self._dataset.images.width, self._dataset.images.height))
            if size.width >= width or size.height >= height:
                continue
            x, y = draw.uniform(0, 1, 2) * (width - size.width, height - size.height)
            box = Box(float(x), float(y), float(x) + size.width, float(y) + size.height)
            others = self._dataset.annotations.boxes[self._dataset.rows_in(image)]
            if float(geometry.intersections(np.array([box.xyxy]), others).max(initial=0)) <= 0.1 * box.area:
                return self._at(image, box, None)
        return None

    def _at(self, image: int, box: Box, mask: geometry.Mask | None) -> View:
        around = _grown(box, 1.0)
        pixels = _stretched(self._picture[image], around, _VIEW_PX)
        rows = self._dataset.rows_in(image)
        scale = np.array([_VIEW_PX / around.width, _VIEW_PX / around.height] * 2)
        boxes = (self._dataset.annotations.boxes[rows] - np.array([around.x1, around.y1] * 2)) * scale
        near = ((boxes[:, :2] < _VIEW_PX) & (boxes[:, 2:] > 0)).all(axis=1)
        alpha = None
        if mask is not None:
            height, width = self._picture[image].shape[:2]
            full = mask.full(height, width).astype(np.uint8)[:, :, None] * np.uint8(255)
            shown = _stretched(full, around, _VIEW_PX, border=cv2.BORDER_CONSTANT)
            alpha = np.asarray(shown.astype(np.float32) / 255, dtype=np.float32)
        return View(pixels, boxes[near], alpha)


def _on(
    draw: np.random.Generator, kind: str, ground: Pixels, view: View, place: FloatArray, *, pasted: bool
) -> Pixels:
    """A free place with something painted into it: the object, half of it, noise or a blur; or nothing."""
    alpha = view.alpha if view.alpha is not None else _ellipse()
    if kind == "empty":
        return ground
    if kind == "filled":
        return spoiled.erased(draw, ground, alpha >= 0.5, place, np.empty((0, 4)))
    picture: NDArray[np.float32] = np.asarray(view.pixels, dtype=np.float32)
    if kind == "noise":
        own = picture[_BOX_PX : 2 * _BOX_PX, _BOX_PX : 2 * _BOX_PX]
        other = ground.astype(np.float32)[tuple(draw.integers(0, _VIEW_PX, 2))]
        colour = own.mean(axis=(0, 1)) if draw.random() < 0.5 else other
        picture = spoiled.noise(draw, (_VIEW_PX, _VIEW_PX), colour)
    elif kind == "half":
        part = spoiled.half(draw, place, _VIEW_PX)
        alpha = np.where(part, 0, alpha).astype(np.float32)
    if pasted or kind == "noise":
        relit = (picture - 128) * draw.uniform(0.85, 1.15) + 128 + draw.uniform(-15, 15)
        picture = relit.astype(np.float32)
    soft = cv2.GaussianBlur(alpha, (0, 0), float(draw.uniform(0.3, 1.5)))[:, :, None]
    return np.asarray(np.clip(np.rint(ground + (picture - ground) * soft), 0, 255), dtype=np.uint8)


def _moved(draw: np.random.Generator, kind: str, place: FloatArray) -> FloatArray | None:
    """The box that is claimed: right to within `_OFF`, or moved or resized."""
    box = place + draw.normal(0, _OFF * _BOX_PX, 4)
    if kind == "shifted":
        angle, far = draw.uniform(0, 2 * np.pi), draw.uniform(0.35, 0.65)
        way = np.array([np.cos(angle), np.sin(angle)])
        box = box + np.tile(far * _BOX_PX * way / np.abs(way).max(), 2)
    elif kind == "resized":
        factor = np.exp(draw.choice([-1, 1]) * draw.uniform(0.4, 0.6))
        sides = np.where(draw.random(2) < 0.7, factor, 1.0) if draw.random() < 0.5 else np.full(2, factor)
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * sides
        if (sides == 1.0).all():
            return None
        box = np.concatenate([middle - half, middle + half])
    return np.asarray(box)


def _is_another(moved: FloatArray, boxes: FloatArray, kind: str) -> bool:
    """Whether a box that was moved away fits some object after all."""
    if kind not in {"shifted", "resized"}:
        return False
    return bool((geometry.ious(moved[None], boxes) >= 0.6).any())


def _seen(draw: np.random.Generator, pixels: Pixels, box: FloatArray) -> Pixels:
    """A patch of a view, mirrored, softened and relit at random."""
    shown = np.asarray(patch(pixels, Box(*(float(v) for v in box))), dtype=np.float32)
    if draw.random() < 0.5:
        shown = shown[:, ::-1]
    if draw.random() < 0.5:
        shown = np.asarray(cv2.GaussianBlur(shown, (0, 0), float(draw.uniform(0.3, 1.0))), dtype=np.float32)
    relit = (shown - 128) * draw.uniform(0.8, 1.2) + 128 + draw.uniform(-15, 15)
    grainy = relit + draw.normal(0, draw.uniform(0, 4), relit.shape)
    return np.asarray(np.clip(np.rint(grainy), 0, 255), dtype=np.uint8)


def _ellipse() -> NDArray[np.float32]:
    """A silhouette that fills its box, for objects whose own is not known."""
    at = (np.mgrid[:_VIEW_PX, :_VIEW_PX] + 0.5 - _VIEW_PX / 2) / (_BOX_PX / 2)
    inside: BoolArray = np.hypot(*at) <= 1
    return inside.astype(np.float32)


def _grown(box: Box, by: float) -> Box:
    w, h = by * box.width, by * box.height
    return Box(box.x1 - w, box.y1 - h, box.x2 + w, box.y2 + h)


def _stretched(pixels: Pixels, box: Box, side: int, border: int = cv2.BORDER_REPLICATE) -> Pixels:
    """A box of an image as a square, uint8 (side, side, C) or (side, side); the image's edge goes on beyond it."""
    if pixels.dtype != np.uint8:
        pixels = pictures.rgb(pixels)  # 16 bit is scaled by the whole image's range
    height, width = pixels.shape[:2]
    x1, y1 = (min(max(0, int(np.floor(v)) - 1), n - 1) for v, n in ((box.x1, width), (box.y1, height)))
    x2, y2 = (
        max(low + 1, min(n, int(np.ceil(v)) + 1)) for low, v, n in ((x1, box.x2, width), (y1, box.y2, height))
    )
    part = np.ascontiguousarray(pixels[y1:y2, x1:x2])
    scale = np.array([side / box.width, side / box.height])
    size = np.array([x2 - x1, y2 - y1])
    # A large object is shrunk to twice the size wanted by even means first: lines of it would be skipped otherwise.
    less = np.maximum(1, np.ceil(size * np.minimum(1, 2 * scale))).astype(int)
    if (less < size).any():
        part = np.asarray(cv2.resize(part, (int(less[0]), int(less[1])), interpolation=cv2.INTER_AREA))
    shrunk = less / size
    offset = (np.array([x1, y1]) - (box.x1, box.y1)) * scale
    how = np.zeros((2, 3))
    how[[0, 1], [0, 1]] = scale / shrunk
    how[:, 2] = offset + 0.5 * scale / shrunk - 0.5  # of pixels' middles: a source pixel i covers i to i + 1
    return np.asarray(cv2.warpAffine(part, how, (side, side), flags=cv2.INTER_LINEAR, borderMode=border))
