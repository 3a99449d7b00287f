"""What the embedded model sees of a window: the layout's map, and the window with the object's area removed.

Training and painting share this file: a difference between them would be a difference the model never learned.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
"""uint8 (H, W, 3)."""
Bits = NDArray[np.bool_]
"""bool (H, W)."""

CANNY: Final = (60.0, 140.0)
"""Canny's thresholds on the stretched grey window, for gradients by L2."""
STRETCH: Final = 4.0
"""The most that a dull window's contrast is raised before edges are sought: beyond it they are noise."""
CLEARANCE_PX: Final = 2
"""Edges so near to the removed area are left out: in training they would tell where the object's outline ran."""


def grown(mask: Bits, margin_px: int) -> Bits:
    """The mask with a margin around it, as wide in every direction.

    Args:
        mask: bool (H, W).
        margin_px: 0 or above.
    """
    if margin_px == 0:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1, 2 * margin_px + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc).astype(bool))


def edges(pixels: Rgb) -> Bits:
    """Canny's edges of a window whose contrast is first brought to the full range, within limits."""
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 0.8).astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    gain = min(255 / max(high - low, 1.0), STRETCH)
    full = np.clip((grey - low) * gain, 0, 255).astype(np.uint8)
    return np.asarray(cv2.Canny(full, *CANNY, L2gradient=True).astype(bool))


def control_map(pixels: Rgb, mask: Bits, hidden: Bits, *, redraw: bool) -> Rgb:
    """The ControlNet's picture of the layout.

    Args:
        pixels: the window as it is; where `redraw` is false, nothing under `hidden` is used.
        mask: the object's silhouette.
        hidden: the area that is painted: the silhouette and a margin.
        redraw: whether the object's own edges are kept.

    Returns:
        uint8 (H, W, 3), 0 or 255: the silhouette, edges of the scene, edges of the object.
    """
    found = edges(pixels)
    outside = found & ~grown(hidden, CLEARANCE_PX)
    inside = found & mask if redraw else np.zeros_like(mask)
    return np.stack([mask, outside, inside], axis=2).astype(np.uint8) * np.uint8(255)
