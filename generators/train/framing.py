"""Windows around objects that are known: framed as painting frames them, then moved, scaled and turned a little."""

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.generators import window
from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.train.shelf import Rgb
from rarefill.generators.window import Framing
from rarefill.geometry import Box, FloatArray, Mask
from rarefill.scene import FEATHER_PX

T = TypeVar("T", np.uint8, np.float32)

ZOOMS: Final = (0.8, 1.3)
"""A window's side, as a factor of the side that painting would take."""
MOVED: Final = 0.6
"""How far an object is moved off the middle, as a part of the way to the window's edge."""
TURNED_SHARE: Final = 0.4
"""Turned windows are resampled once more and so a little softer: most stay as they are."""
_TURN_DEG, _MOST_TURNED_DEG = 4.0, 10.0  # as layouts turn silhouettes


@dataclass(frozen=True, slots=True)
class Frame:
    """A square of a picture.

    Attributes:
        x: column of its left edge in the picture; may be negative.
        y: row of its top edge.
        side: in the picture's pixels.
        turned_deg: the square is turned so far about its middle.
    """

    x: int
    y: int
    side: int
    turned_deg: float = 0.0


def about(box: Box, rng: np.random.Generator, framing: Framing) -> Frame:
    """A frame about an object: near the one that painting would take, with all of the object in it."""
    longer = math.ceil(max(box.width, box.height))
    side = max(round(window.side_px(box, framing) * zoom(rng)), longer + 2 * (FEATHER_PX + 1))
    free = np.array([side - box.width, side - box.height]) / 2
    moved = rng.uniform(-MOVED, MOVED, 2) * free
    turned = rng.random() < TURNED_SHARE
    angle = float(np.clip(rng.normal(0, _TURN_DEG), -_MOST_TURNED_DEG, _MOST_TURNED_DEG))
    x, y = (int(v) for v in np.round(np.array(box.center) + moved - side / 2))
    return Frame(x, y, side, angle if turned else 0.0)


def zoom(rng: np.random.Generator) -> float:
    """A factor for a window's side, about 1."""
    return float(np.exp(rng.uniform(*np.log(ZOOMS))))


def cut(picture: Rgb, mask: Mask | None, frame: Frame, size: int) -> tuple[Rgb, Bits]:
    """A frame's pixels and mask, zoomed to `size`; what lies over the picture's edge is mirrored in.

    Args:
        picture: uint8 (H, W, 3).
        mask: of the object, in the picture's frame; None for a frame without one.
        frame: overlaps the picture.
        size: in pixels.

    Returns:
        uint8 (size, size, 3), and bool (size, size): a mask that covers no pixel by half is where it covers most.
    """
    # A turned square needs its corners' surroundings; the zoom by cubics is done in the same step.
    spare = math.ceil(frame.side * 0.09) if frame.turned_deg else 0
    x, y, side = frame.x - spare, frame.y - spare, frame.side + 2 * spare
    pixels = _mirrored(picture, x, y, side)
    covered = (
        np.zeros((side, side), np.float32)
        if mask is None
        else mask.window(x, y, side, side).astype(np.float32)
    )
    if frame.turned_deg:
        out = max(frame.side, size)
        matrix = _about_middle(frame.turned_deg, out / frame.side, side, out)
        pixels = _warped(pixels, matrix, out, cv2.INTER_CUBIC)
        covered, side = _warped(covered, matrix, out, cv2.INTER_LINEAR), out
    if side != size:
        how = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(pixels, (size, size), interpolation=how), np.uint8)
        covered = np.asarray(cv2.resize(covered, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    most = float(covered.max())
    found = covered >= min(0.5, most) if most > 0 else np.zeros(covered.shape, bool)
    return np.ascontiguousarray(pixels, np.uint8), np.asarray(found, bool)


def _about_middle(turned_deg: float, zoomed: float, side: int, out: int) -> FloatArray:
    """From pixels of a square of `side` to pixels of a square of `out`, middles together, float64 (2, 3)."""
    matrix = np.asarray(cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turned_deg, zoomed), float)
    matrix[:, 2] += (out - side) / 2
    return matrix


def _warped(values: NDArray[T], matrix: FloatArray, out: int, how: int) -> NDArray[T]:
    moved = cv2.warpAffine(values, matrix, (out, out), flags=how, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, values.dtype)


def _mirrored(picture: Rgb, x: int, y: int, side: int) -> Rgb:
    height, width = picture.shape[:2]
    inside = picture[max(0, y) : y + side, max(0, x) : x + side]
    pads = (max(0, -y), max(0, y + side - height), max(0, -x), max(0, x + side - width))
    if not any(pads):
        return inside
    return np.asarray(cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REFLECT))
