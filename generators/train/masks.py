"""Random masks for windows: regions that the picture itself has, blobs, ellipses, boxes, strokes."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.train.shelf import Rgb

REGION_SHARE: Final = 0.6
"""Most masks follow something that is there: silhouettes are what painting will ask for."""
AREA: Final = (0.01, 0.45)
"""The least and the most of a window that a mask covers."""


def draw(pixels: Rgb, rng: np.random.Generator) -> Bits:
    """A random mask, bool (H, W), never empty.

    Args:
        pixels: uint8 (H, W, 3), the window.
        rng: where randomness comes from.
    """
    if rng.random() < REGION_SHARE:
        found = region(pixels, rng)
        if found is not None:
            return found
    size = pixels.shape[0]
    shapes = (blob, blob, ellipse, box, stroke)
    mask = shapes[int(rng.integers(len(shapes)))](size, rng)
    if rng.random() < 0.1:
        mask = mask | blob(size, rng)
    return mask if mask.any() else ellipse(size, rng)


def region(pixels: Rgb, rng: np.random.Generator) -> Bits | None:
    """One connected region of similar colour: Otsu's threshold along a random direction of Lab.

    Returns:
        bool (H, W) with its holes filled, or None where the window has no region of a fitting size.
    """
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(np.float32)
    fitting: list[Bits] = []
    for _ in range(3):
        direction = rng.normal(size=3).astype(np.float32) * np.array([1, 2, 2], dtype=np.float32)
        flat = cv2.GaussianBlur(lab @ direction, (0, 0), rng.uniform(1.0, 2.5))
        low, high = flat.min(), flat.max()
        fitting += _components(((flat - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))
        if len(fitting) > 1:
            break
    if not fitting:
        return None
    # Whole objects are what painting asks for: regions that the window cuts count a quarter.
    weights = np.array([0.25 if _cut(mask) else 1.0 for mask in fitting])
    return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]


def _components(grey: NDArray[np.uint8]) -> list[Bits]:
    """Light and dark regions of a fitting area that do not run along more than one side of the window."""
    found: list[Bits] = []
    area = grey.size
    _, light = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    for side in (light, 1 - light):
        opened = cv2.morphologyEx(side, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        n, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
        for label in range(1, n):
            left, top, width, height, covered = stats[label]
            touched = (
                (left == 0) + (top == 0) + (left + width == grey.shape[1]) + (top + height == grey.shape[0])
            )
            if AREA[0] * area <= covered <= AREA[1] * area and touched <= 1:
                found.append(filled(labels == label))
    return found


def _cut(mask: Bits) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def filled(mask: Bits) -> Bits:
    """A mask without holes."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED).astype(bool)


def blob(size: int, rng: np.random.Generator) -> Bits:
    """A closed outline whose radius swings in low harmonics, stretched and turned."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones_like(angle)
    for harmonic in range(2, 7):
        radius += rng.normal(0, 0.35 / harmonic) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    reach = size * np.exp(rng.uniform(np.log(0.06), np.log(0.36)))
    stretch, turn = np.exp(rng.normal(0, 0.35)), rng.uniform(0, np.pi)
    across, along = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    x = across * np.cos(turn) - along * np.sin(turn)
    y = across * np.sin(turn) + along * np.cos(turn)
    corners = np.stack([x, y], axis=1) * reach + _centre(size, rng)
    return _polygon(size, corners)


def ellipse(size: int, rng: np.random.Generator) -> Bits:
    """A turned ellipse."""
    axes = size * np.exp(rng.uniform(np.log(0.06), np.log(0.34), 2))
    centre = _centre(size, rng)
    drawn = np.zeros((size, size), np.uint8)
    where = (int(centre[0]), int(centre[1]))
    return cv2.ellipse(drawn, where, (int(axes[0]), int(axes[1])), rng.uniform(0, 180), 0, 360, 1, -1).astype(
        bool
    )


def box(size: int, rng: np.random.Generator) -> Bits:
    """An upright box with rounded corners: what a class without masks has, at worst."""
    half = size * np.exp(rng.uniform(np.log(0.06), np.log(0.3), 2))
    centre = _centre(size, rng)
    y, x = np.ogrid[:size, :size]
    power = rng.choice([4.0, 8.0, 32.0])
    across, along = np.abs((x - centre[0]) / half[0]), np.abs((y - centre[1]) / half[1])
    return np.asarray(across**power + along**power < 1)


def stroke(size: int, rng: np.random.Generator) -> Bits:
    """A thick bent line."""
    drawn = np.zeros((size, size), np.uint8)
    corners = _centre(size, rng) + np.cumsum(rng.normal(0, size * 0.16, (int(rng.integers(2, 6)), 2)), axis=0)
    points = np.clip(corners, 0, size - 1).astype(np.int32).reshape(-1, 1, 2)
    thick = max(2, int(size * np.exp(rng.uniform(np.log(0.03), np.log(0.14)))))
    return cv2.polylines(drawn, [points], False, 1, thick).astype(bool)


def _centre(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Near the middle, mostly: painting puts its objects there."""
    return np.clip(rng.normal(0.5, 0.12, 2), 0.15, 0.85) * size


def _polygon(size: int, corners: NDArray[np.float64]) -> Bits:
    drawn = np.zeros((size, size), np.uint8)
    return cv2.fillPoly(drawn, [corners.round().astype(np.int32)], 1).astype(bool)
