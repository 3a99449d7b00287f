"""What a sensor leaves in a picture: its noise and its sharpness, measured where no object is, and carried over."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.generators.window import Colours
from rarefill.geometry import BoolArray

_BLURS = (0.0, 0.4, 0.55, 0.7, 0.85, 1.0, 1.25, 1.5, 1.8, 2.2)
"""Standard deviations tried, pixels: beyond the last a scene is out of focus and no blur is natural."""
_SHARPER = 1.15
"""A ratio of fineness below this is chance: real crops of one picture differ by as much."""


def noise(pixels: Colours, where: BoolArray) -> Colours:
    """Standard deviation of the noise in each band, float32 (C,)."""
    high = pictures.grain(pixels)[where]
    if not high.size:
        return np.zeros(pixels.shape[2], np.float32)
    return np.asarray(np.median(high, axis=0) / pictures.GRAIN_OF_NOISE, dtype=np.float32)


def fineness(pixels: Colours, where: BoolArray) -> float:
    """How much of the detail is fine: detail under a pixel against detail of some two pixels. Blur lowers it."""
    grey = pixels.mean(axis=2)
    once = cv2.GaussianBlur(grey, (0, 0), 0.8)
    twice = cv2.GaussianBlur(once, (0, 0), 1.6)
    if not where.any():
        return 0.0
    return float(np.abs(grey - once)[where].mean() / (np.abs(once - twice)[where].mean() + 1e-6))


def blur_to_match(pixels: Colours, where: BoolArray, wanted: float) -> float:
    """The blur, as a standard deviation in pixels, that brings an object down to a place's fineness; 0 for none."""
    if wanted <= 0 or fineness(pixels, where) < _SHARPER * wanted:
        return 0.0
    for sigma in _BLURS[1:]:
        if fineness(blurred(pixels, sigma), where) <= wanted:
            return sigma
    return _BLURS[-1]


def blurred(pixels: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur that keeps the array's shape; none for 0."""
    if sigma <= 0:
        return pixels
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), dtype=np.float32).reshape(pixels.shape)


def grain(
    shape: tuple[int, int], missing: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noise of a standard deviation per band, float32 (h, w, C); the same grain in all bands, as luminance noise is."""
    return rng.standard_normal((*shape, 1), dtype=np.float32) * missing


def matched(
    rng: np.random.Generator,
    moved: Colours,
    alpha: NDArray[np.float32],
    place: Colours,
    near: BoolArray,
    known: BoolArray,
) -> tuple[Colours, NDArray[np.float32], dict[str, str | int | float | bool]]:
    """Blur what is sharper than its place, then add the noise that the place has and the object lacks.

    Args:
        rng: of the grain.
        moved: float32 (h, w, C), the object with some of its own surroundings.
        alpha: float32 (h, w), its share, blurred with it.
        place: float32 (h, w, C), the background's.
        near: bool (h, w), where the place is measured.
        known: bool (h, w), where `moved` has pixels.
    """
    sigma = blur_to_match(moved, known, fineness(place, near))
    moved, alpha = blurred(moved, sigma), blurred(alpha, sigma)
    around = near & known
    missing = lacking(moved, around if around.any() else known, place, near)
    return (
        moved + grain(alpha.shape, missing, rng),
        alpha,
        {"blur_px": sigma, "noise": round(float(missing.mean()), 2)},
    )


def lacking(moved: Colours, around: BoolArray, place: Colours, near: BoolArray) -> NDArray[np.float32]:
    """The noise that a place has and an object's own surroundings lack, float32 (C,)."""
    return np.asarray(np.sqrt(np.clip(noise(place, near) ** 2 - noise(moved, around) ** 2, 0, None)))
