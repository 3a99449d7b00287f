"""An object cut out of its box: a learned cutter, GrabCut, and both together, and a gate that says how far to trust the result."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rarefill.geometry import BoolArray, Box, FloatArray, Mask
from rarefill.scene import Pixels

WEIGHTS: Final = Path(__file__).parent / "weights" / "cutter.safetensors"
"""The learned cutter's."""
GOOD = 0.86
"""Quality from which a cut-out is as good as a mask that a person drew quickly: on everyday photographs, three quarters of its pixels
and of that mask's are in both, as a rule."""
FAIR = 0.73
"""Quality from which it passes the gate. Where a class has few objects, those between the two count as well."""
ROUNDED_BOX = 0.1
"""Quality of the ellipse that stands in for a cut-out that failed."""

CONTEXT: Final = 0.35
"""Of the box's longer side, on each side: what the surroundings are known from."""
_LARGEST_PX = 128  # of the crop's longer side: larger objects are cut at this scale, 20 ms each
_SMALLEST_PX = (
    32  # of the box's longer side: smaller objects are enlarged, as a border needs pixels to lie on
)
_ITERATIONS = 3
_SURE = 0.9
"""The cutter's share of a pixel from which on GrabCut may not change it."""
_BIN = 6.0
"""Width of a bin of colours, 8-bit Lab units."""
_FEWEST_OUTSIDE = 50
"""Pixels of surroundings that tell what is strange."""
_RARE = 2e-3
"""Share of the surroundings' pixels below which a colour is strange to them: tried from 1e-4 on true masks and on cells."""
_STEP = 5.0
"""Smallest colour step that counts as a border, 8-bit Lab units; about twice what an eye tells apart."""


def cut(picture: Pixels, box: Box, others: FloatArray) -> tuple[Mask | None, float]:
    """The object in a box.

    Args:
        picture: uint8 (H, W, 3).
        box: inside the picture, its sides 3 pixels or more.
        others: float64 (N, 4), boxes of the other objects on the picture.

    Returns:
        Its mask, clipped to the box, and the gate's quality from 0 to 1; None and 0 where nothing was found.
    """
    from rarefill import cutter  # torch is loaded where there is something to cut

    height, width = picture.shape[:2]
    pad = max(4.0, CONTEXT * max(box.width, box.height))
    around = Box(box.x1 - pad, box.y1 - pad, box.x2 + pad, box.y2 + pad).clipped(width, height)
    if around is None:
        return None, 0.0
    x1, y1, x2, y2 = (int(v) for v in (around.x1, around.y1, np.ceil(around.x2), np.ceil(around.y2)))
    crop = picture[y1:y2, x1:x2]
    longer = max(box.width, box.height)
    scale = min(_LARGEST_PX / max(crop.shape[:2]), max(1.0, _SMALLEST_PX / longer))
    size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    zoom = np.array([size[0] / crop.shape[1], size[1] / crop.shape[0]] * 2)
    origin = np.array([x1, y1, x1, y1])
    inner = (np.array(box.xyxy) - origin) * zoom
    others = (others - origin) * zoom
    strange = _strange(small, inner)
    share = cutter.shares(picture, box, Box(x1, y1, x2, y2), size)
    share[~_within(share.shape, inner)] = 0
    best, trust = None, 0.0
    for found in (by_colours(small, inner, others), _tidy(share >= 0.5), _guided(small, share)):
        if found is None:
            continue
        now = float(np.sqrt(quality(small, found, inner, strange) * agreement(found, share)))
        if now > trust:
            best, trust = found, now
    if best is None:
        return None, 0.0
    back = cv2.resize(
        best.astype(np.float32),
        (crop.shape[1], crop.shape[0]),
        interpolation=cv2.INTER_LINEAR if scale < 1 else cv2.INTER_AREA,
    )
    mask = Mask.of(back >= 0.5, x1, y1)
    return mask, trust if mask is not None else 0.0


@cache
def digest() -> str:
    """16 hex digits of the cutter's weights: other ones cut other outlines."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:16]


def rounded(box: Box, width: int, height: int) -> Mask | None:
    """An ellipse's pixels in a box, on an image of this size: the stand-in where no cut-out is to be trusted."""
    clipped = box.clipped(width, height)
    if clipped is None:
        return None
    x1, y1, x2, y2 = (round(v) for v in clipped.xyxy)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    rows, cols = np.mgrid[y1:y2, x1:x2] + 0.5
    (cx, cy), rx, ry = clipped.center, clipped.width / 2, clipped.height / 2
    return Mask.of(np.abs((cols - cx) / rx) ** 2.5 + np.abs((rows - cy) / ry) ** 2.5 <= 1, x1, y1)


def agreement(found: BoolArray, share: NDArray[np.float32]) -> float:
    """How much of a cut-out and of the cutter's answer (h, w) is in both, as a part of what is in either; 0 to 1."""
    both = float(share[found].sum())
    return both / max(np.count_nonzero(found) + float(share[~found].sum()), 1e-6)


def _within(shape: tuple[int, ...], box: FloatArray) -> BoolArray:
    """bool (h, w): a box's whole pixels."""
    x1, y1, x2, y2 = (max(0, round(float(v))) for v in box)
    out = np.zeros(shape, dtype=bool)
    out[y1:y2, x1:x2] = True
    return out


def by_colours(small: Pixels, box: FloatArray, others: FloatArray) -> BoolArray | None:
    """bool (h, w) of the object by colours alone, one piece without holes and with a smooth border."""
    height, width = small.shape[:2]
    labels = np.where(_within((height, width), box), cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    radius = _radius(height, width, np.clip(box.round(), 0, [width, height] * 2))
    labels[radius <= 0.95] = cv2.GC_PR_FGD
    for other in others:
        ox1, oy1, ox2, oy2 = (int(max(0, v)) for v in other)
        held = labels[oy1:oy2, ox1:ox2]
        # A neighbour's box is likely its own; where it covers our middle, as one rider does on one horse, it is not.
        held[(held == cv2.GC_PR_FGD) & (radius[oy1:oy2, ox1:ox2] > 0.6)] = cv2.GC_PR_BGD
    return _settled(small, labels)


def _guided(small: Pixels, share: NDArray[np.float32]) -> BoolArray | None:
    """bool (h, w): the cutter's answer with its border moved to where the colours change."""
    labels = np.where(share >= 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[share > _SURE], labels[share < 1 - _SURE] = cv2.GC_FGD, cv2.GC_BGD
    return _settled(small, labels)


def _settled(small: Pixels, labels: NDArray[np.uint8]) -> BoolArray | None:
    """GrabCut's answer to cv2's labels (h, w), which it changes; None where one side has no pixel, or nothing is left."""
    if not ((labels == cv2.GC_BGD).any() and (labels % 2 == 1).any()):
        return None
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, labels, (0, 0, 1, 1), *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return _tidy(labels % 2 == 1)


def _tidy(found: BoolArray) -> BoolArray | None:
    """The largest piece, holes filled, its border smoothed."""
    smooth = cv2.GaussianBlur(found.astype(np.float32), (0, 0), 1.2) > 0.5
    n, pieces, stats, _ = cv2.connectedComponentsWithStats(smooth.astype(np.uint8), connectivity=4)
    if n < 2:
        return None
    largest = (pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    outlines, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(largest, outlines, -1, 1, cv2.FILLED), dtype=bool)


def _radius(height: int, width: int, box: NDArray[Any]) -> FloatArray:
    """float64 (height, width): 0 in a box's middle, 1 on the ellipse in it."""
    rows, cols = np.mgrid[:height, :width] + 0.5
    x1, y1, x2, y2 = box
    across, down = (cols - (x1 + x2) / 2) / ((x2 - x1) / 2), (rows - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return np.asarray(np.hypot(across, down), np.float64)


def _strange(small: Pixels, box: FloatArray) -> BoolArray:
    """bool (h, w): pixels whose colour hardly occurs outside the box."""
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 1.0), cv2.COLOR_RGB2LAB)
    bins = tuple((lab / _BIN).astype(np.intp).transpose(2, 0, 1))
    x1, y1, x2, y2 = (max(round(float(v)), 0) for v in box)
    outside = np.ones(lab.shape[:2], bool)
    outside[y1:y2, x1:x2] = False
    if np.count_nonzero(outside) < _FEWEST_OUTSIDE:
        return np.zeros_like(outside)
    seen = np.zeros((int(255 / _BIN) + 1,) * 3, np.float32)
    np.add.at(seen, tuple(values[outside] for values in bins), 1)
    shares = ndimage.gaussian_filter(seen, 0.8, mode="constant", truncate=2.0) / np.count_nonzero(outside)
    return np.asarray(shares[bins] < _RARE)


def quality(small: Pixels, found: BoolArray, box: FloatArray, strange: BoolArray) -> float:
    """How far a cut-out is to be trusted, 0 to 1: the geometric mean of what a good one shows, 0 where one is lacking.

    What is left over in the box and is strange to the surroundings takes from it.
    """
    shown = float(np.prod(list(scores(small, found, box).values())) ** (1 / 5))
    near = cv2.dilate(found.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    left = strange & (_radius(found.shape[0], found.shape[1], box) <= 1) & ~near
    return shown * max(1 - np.count_nonzero(left) / np.count_nonzero(found), 0.0)


def scores(small: Pixels, found: BoolArray, box: FloatArray) -> dict[str, float]:
    """What a good cut-out shows, 0 to 1 each.

    It nears all four sides of its box, fills a sane share of it, is no tangle, has a colour step all along its border,
    and lies along the box itself only where there is such a step.
    """
    rows, cols = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    tight = np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1])
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    outline, steps = _border(small, found)
    hull = cv2.contourArea(cv2.convexHull(outline)) + len(outline) / 2
    level = max(_STEP, 0.25 * float(np.percentile(steps, 75)))
    weak = steps < level
    reach = np.minimum(np.abs(outline - box[:2]).min(axis=1), np.abs(box[2:] - 1 - outline).min(axis=1))
    return {
        "reach": _ramp(float((np.abs(tight - box) / sides).max()), 0.45, 0.1),
        "fill": _ramp(float(found.sum() / (sides[0] * sides[1])), 0.05, 0.2),
        "whole": _ramp(float(found.sum() / hull), 0.3, 0.6),
        "steps": _ramp(float(1 - weak.mean()), 0.45, 0.9),
        "free": _ramp(float((weak & (reach <= 1.5)).mean()), 0.35, 0.05),
    }


def _border(small: Pixels, found: BoolArray) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The outline's points, int32 (N, 2) x y, and the colour step across each: float32 (N,), 8-bit Lab units."""
    outlines, _ = cv2.findContours(found.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = np.asarray(max(outlines, key=len).reshape(-1, 2), dtype=np.int32)
    far = max(2.0, 0.07 * float(np.sqrt(found.sum())))
    smooth = cv2.GaussianBlur(found.astype(np.float32), (0, 0), far)
    slopes = [cv2.Sobel(smooth, cv2.CV_32F, *d)[outline[:, 1], outline[:, 0]] for d in ((1, 0), (0, 1))]
    inward = np.stack(slopes, axis=1)
    inward = inward / (np.linalg.norm(inward, axis=1, keepdims=True) + 1e-6)
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.4 * far), cv2.COLOR_RGB2LAB).astype(np.float32)
    inside, outside = (_sampled(lab, outline + way * inward) for way in (far, -far))
    return outline, np.asarray(np.linalg.norm(inside - outside, axis=1), dtype=np.float32)


def _sampled(values: NDArray[np.float32], points: NDArray[Any]) -> NDArray[np.float32]:
    """The values (h, w, 3) at points (N, 2), x y between pixels: float32 (N, 3)."""
    x, y = points[:, 0].astype(np.float32), points[:, 1].astype(np.float32)
    out = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(-1, 3), dtype=np.float32)


def _ramp(value: float, zero: float, one: float) -> float:
    """0 at and beyond `zero`, 1 at and beyond `one`, straight between."""
    return min(1.0, max(0.0, (value - zero) / (one - zero)))
