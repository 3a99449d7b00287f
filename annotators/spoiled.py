"""What looks like an object and is none: parts of objects, and silhouettes of noise. The detector learns to refuse them.

Relatives of the errors that `faults` plants, and never the same: here a cut lies at any angle, takes any share about a
half and is filled from elsewhere or from a blur; noise is a blur of white noise in a real object's silhouette. What the
calibration promises of planted errors therefore rests on errors that no model was shown.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import BoolArray, FloatArray
from rarefill.scene import Pixels

_TAKEN = (0.35, 0.65)  # share of an object that a cut takes away
_APART = (0.85, 1.15)  # of its sides, how far from an object the place beside it lies
_TRIES = 10
_LEAST_PX = 8.0
"""Shorter side in a crop below which half an object is not told from a whole one."""


def half(draw: np.random.Generator, box: FloatArray, side: int) -> BoolArray:
    """bool (side, side): a part of a box, cut off along a line at any angle.

    Args:
        draw: decides the angle and the share, `_TAKEN`.
        box: float64 (4,), x1 y1 x2 y2 in the crop's pixels.
        side: of the crop.
    """
    x1, y1, x2, y2 = _inside(box, side)
    angle, share = draw.uniform(0, 2 * np.pi), draw.uniform(*_TAKEN)
    across = beyond(angle, share, x2 - x1, y2 - y1)
    out = np.zeros((side, side), dtype=bool)
    out[y1:y2, x1:x2] = across
    return out


def beyond(angle: float, share: float, width: int, height: int) -> BoolArray:
    """bool (height, width): the pixels on one side of a line across a box, a share of all."""
    v, u = np.mgrid[:height, :width]
    along = (u + 0.5) / width * np.cos(angle) + (v + 0.5) / height * np.sin(angle)
    return np.asarray(along > np.quantile(along, 1 - share))


def beside(draw: np.random.Generator, box: FloatArray, side: int) -> BoolArray:
    """bool (side, side): a place of a box's size next to it, so that a seam near an object says nothing of it."""
    angle, far = draw.uniform(0, 2 * np.pi), draw.uniform(*_APART)
    way = np.array([np.cos(angle), np.sin(angle)])
    step = far * (box[2:] - box[:2]) * way / np.abs(way).max()
    x1, y1, x2, y2 = _inside(box + np.tile(step, 2), side)
    out = np.zeros((side, side), dtype=bool)
    out[y1:y2, x1:x2] = True
    return out


def large(boxes: FloatArray) -> BoolArray:
    """Which of the boxes (N, 4) are large enough to be halved."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= _LEAST_PX)


def erased(
    draw: np.random.Generator, pixels: Pixels, hole: BoolArray, box: FloatArray, boxes: FloatArray
) -> Pixels:
    """A crop with a hole filled, uint8 (S, S, 3): by another place of it, or by what a blur makes of what is around.

    Args:
        draw: decides which, where from and how soft the border is.
        pixels: uint8 (S, S, 3).
        hole: bool (S, S).
        box: float64 (4,), of the object that loses a part: none of it fills the hole.
        boxes: float64 (N, 4), of all objects: another place holds none of them, or the blur it is.
    """
    picture = pixels.astype(np.float32)
    source = _elsewhere(draw, picture, box, boxes) if draw.random() < 0.5 else None
    filled = source if source is not None else _blurred(draw, picture, box)
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), float(draw.uniform(0.4, 1.5)))[:, :, None]
    return np.asarray(np.clip(np.rint(picture + (filled - picture) * soft), 0, 255), dtype=np.uint8)


def noise(
    draw: np.random.Generator, size: tuple[int, int], colour: NDArray[np.float32]
) -> NDArray[np.float32]:
    """float32 (h, w, 3): blurred white noise, grey or coloured, about a colour near the one given."""
    width, height = size
    sigma = float(np.exp(draw.uniform(np.log(0.4), np.log(max(0.5, min(size) / 4)))))
    white = draw.normal(0, 1, (height, width, 3)).astype(np.float32)
    if draw.random() < 0.5:
        white[:] = white[:, :, :1]
    field = np.asarray(cv2.GaussianBlur(white, (0, 0), sigma)).reshape(height, width, 3)
    strength = draw.uniform(6, 45) / (float(field.std()) + 1e-6)
    return np.asarray(colour + draw.normal(0, 25, 3) + field * strength, dtype=np.float32)


def _elsewhere(
    draw: np.random.Generator, picture: NDArray[np.float32], box: FloatArray, boxes: FloatArray
) -> NDArray[np.float32] | None:
    """The crop moved so that a place without objects lies over a box; None where none is found."""
    side = picture.shape[0]
    size = box[2:] - box[:2]
    if (size >= side).any():
        return None
    for _ in range(_TRIES):
        corner = draw.uniform(0, side - size)
        there = np.concatenate([corner, corner + size])
        meets = (boxes[:, :2] < there[2:]).all(axis=1) & (there[:2] < boxes[:, 2:]).all(axis=1)
        if not meets.any():
            dx, dy = (round(float(v)) for v in corner - box[:2])
            move = np.array([[1, 0, -dx], [0, 1, -dy]], dtype=np.float32)
            return np.asarray(cv2.warpAffine(picture, move, (side, side), borderMode=cv2.BORDER_REFLECT))
    return None


def _blurred(draw: np.random.Generator, picture: NDArray[np.float32], box: FloatArray) -> NDArray[np.float32]:
    """The crop as a blur makes it of everything but a box, and some of its grain again."""
    side = picture.shape[0]
    x1, y1, x2, y2 = _inside(box, side)
    known = np.ones((side, side, 1), dtype=np.float32)
    known[y1:y2, x1:x2] = 1e-4
    sigma = max(1.5, float(draw.uniform(0.2, 0.5)) * max(x2 - x1, y2 - y1))
    coarse = max(1, int(sigma / 3))  # a wide blur needs no fine pixels

    def blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
        small = cv2.resize(values, None, fx=1 / coarse, fy=1 / coarse, interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(small, (0, 0), sigma / coarse)
        return np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR))

    smooth = blurred(picture * known) / blurred(known)[:, :, None]
    grain = draw.normal(0, 1, picture.shape) * draw.uniform(0, 6)
    return np.asarray(smooth + grain, dtype=np.float32)


def _inside(box: FloatArray, side: int) -> tuple[int, int, int, int]:
    """Columns and rows of a box in a crop, at least one of each."""
    x1, y1 = (min(max(0, round(float(v))), side - 1) for v in box[:2])
    x2, y2 = (min(side, max(low + 1, round(float(v)))) for low, v in zip((x1, y1), box[2:], strict=True))
    return x1, y1, x2, y2
