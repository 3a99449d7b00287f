"""Four ways to set an object into a place. Each gives colours and a weight; `window.mix` does the rest.

All arrays are one crop: place and source float32 (h, w, C) in the same units, alpha float32 (h, w) from 0 to 1.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.generators.window import Colours
from rarefill.geometry import BoolArray
from rarefill.scene import FEATHER_PX

Weight = NDArray[np.float32]


def depth(inside: BoolArray) -> Weight:
    """Distance to a mask's border in pixels, from pixels' centres: positive inside, negative outside."""
    held = inside.astype(np.uint8)
    inwards, outwards = (cv2.distanceTransform(m, cv2.DIST_L2, 5) for m in (held, 1 - held))
    return np.asarray(np.where(inside, inwards - 0.5, 0.5 - outwards), dtype=np.float32)


def ramp(depth_px: Weight, half_px: float) -> Weight:
    """From 0 to 1 across a border, smoothly, this wide to either side of it."""
    t = np.clip(0.5 + depth_px / (2 * half_px), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def grown(inside: BoolArray, px: int) -> BoolArray:
    """A mask with a ring of some pixels added."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1, 2 * px + 1))
    return cv2.dilate(inside.astype(np.uint8), disc).astype(bool)


def pyramid(place: Colours, source: Colours, alpha: Weight) -> tuple[Colours, Weight]:
    """Each band of detail is mixed across a border as wide as the detail.

    Source: Burt and Adelson, A Multiresolution Spline, 1983.
    """
    inside = alpha >= 0.5
    # A border wider than a tenth of the object is a glow.
    levels = int(np.clip(np.log2(max(2.0, np.sqrt(inside.sum()))) - 3.5, 1, 3))
    mixed = _collapse(_mixed_levels(place, source, alpha, levels))
    reach = min(FEATHER_PX, 3 * 2 ** (levels - 1))
    outside = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5)
    return mixed.reshape(place.shape), np.asarray(np.clip((reach - outside) / 2, 0, 1), dtype=np.float32)


def poisson(place: Colours, source: Colours, region: BoolArray) -> tuple[Colours, Colours]:
    """The source's gradients with the place's values all along the region's border.

    Source: Perez, Gangnet and Blake, Poisson Image Editing, 2003, eq. 4: with the source's own gradients the solution
    is the source plus the membrane that interpolates the difference at the border. Solved as that, it takes any
    number of bands and bits, and what the blend does to the object's colours is known: it is the membrane.

    Returns:
        The colours, and the membrane that was added to the source.
    """
    soft = np.asarray(cv2.GaussianBlur(place - source, (0, 0), 1.0), dtype=np.float32).reshape(place.shape)
    added = membrane(soft, region)
    return source + added, added


def membrane(values: Colours, region: BoolArray) -> Colours:
    """Values inside a region from those around it: the solution of Laplace's equation, coarse to fine."""
    height, width = region.shape
    if min(height, width) > 8:
        size = ((width + 1) // 2, (height + 1) // 2)
        known = (~region).astype(np.float32)
        share = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
        sums = cv2.resize(values * known[:, :, None], size, interpolation=cv2.INTER_AREA)
        means = sums.reshape(*share.shape, -1) / np.maximum(share, 1e-3)[:, :, None]
        coarse = membrane(means.astype(np.float32), share <= 0)
        start = np.asarray(cv2.resize(coarse, (width, height)), dtype=np.float32)
        start = start.reshape(values.shape)
    else:
        start = np.zeros_like(values)
        if not region.all():
            start += values[~region].mean(axis=0)
    out = np.asarray(np.where(region[:, :, None], start, values), dtype=np.float32)
    for _ in range(12):
        mean = cv2.filter2D(out, cv2.CV_32F, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE)
        mean = mean.reshape(out.shape)
        out = np.asarray(np.where(region[:, :, None], mean, out), dtype=np.float32)
    return out


def continued(colours: Colours, depth_px: Weight, fringe_px: float) -> Colours:
    """An object's colours continued outwards from within its fringe: no trace of old surroundings is left there.

    Args:
        colours: float32 (h, w, C).
        depth_px: float32 (h, w), as `depth` gives it.
        fringe_px: how deep the old surroundings reach into the object.
    """
    core = depth_px >= fringe_px
    # An object too small to lose its fringe keeps the deeper half of itself.
    if np.count_nonzero(core) < 0.5 * np.count_nonzero(depth_px > 0):
        core = depth_px >= np.median(depth_px[depth_px > 0])
    core = core.astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(1 - core, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros((int(nearest.max()) + 1, colours.shape[2]), np.float32)
    of_label[nearest[core > 0]] = colours[core > 0]
    filled = of_label[nearest]
    smooth = cv2.GaussianBlur(filled, (0, 0), 1.0).reshape(colours.shape)
    return np.asarray(np.where(core[:, :, None] > 0, colours, smooth), dtype=np.float32)


_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32) / 4


def _mixed_levels(place: Colours, source: Colours, alpha: Weight, levels: int) -> list[Colours]:
    """The Laplacian pyramid of the mixture, finest first, the coarsest picture last."""
    mixed = []
    for _ in range(levels):
        size = (alpha.shape[1], alpha.shape[0])
        smaller = [_smaller(a) for a in (place, source)]
        details = [
            a - cv2.pyrUp(b, dstsize=size).reshape(a.shape)
            for a, b in zip((place, source), smaller, strict=True)
        ]
        mixed.append(details[0] + alpha[:, :, None] * (details[1] - details[0]))
        place, source = smaller
        alpha = _smaller(alpha[:, :, None])[:, :, 0]
    mixed.append(place + alpha[:, :, None] * (source - place))
    return mixed


def _collapse(levels: list[Colours]) -> Colours:
    out = levels[-1]
    for detail in reversed(levels[:-1]):
        size = (detail.shape[1], detail.shape[0])
        out = detail + cv2.pyrUp(out, dstsize=size).reshape(detail.shape)
    return out


def _smaller(values: Colours) -> Colours:
    half = np.asarray(cv2.pyrDown(values), dtype=np.float32)
    return half.reshape(half.shape[0], half.shape[1], values.shape[2])
