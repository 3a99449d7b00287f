"""Photometric changes: drawn within what a category shows, applied by albumentations."""

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.generators.looks import Looks
from rarefill.generators.window import Colours
from rarefill.geometry import BoolArray


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Photometric parameters, drawn once: light first, then contrast about the object's mean, then shift.

    Attributes:
        gain: float32 (C,), the place's light against the exemplar's.
        contrast: factor about the object's mean.
        shift: float32 (C,), brightness and tint, in the image's units.
    """

    gain: NDArray[np.float32]
    contrast: float
    shift: NDArray[np.float32]


def draw(
    rng: np.random.Generator, looks: Looks, pixels: Colours, gain: NDArray[np.float32], strength: float
) -> Change:
    """Draw a change that keeps an object within what its category shows.

    An object that lies outside the spread already, as one of the extreme tenth does, is not moved further out.

    Args:
        rng: where chance comes from.
        looks: the category's.
        pixels: float32 (n, C), the object's.
        gain: (C,), from `light`.
        strength: 0 for no chance at all, to 1.
    """
    mean = pixels.mean(axis=0)
    before, lit = float(mean.mean()), float((mean * gain).mean())
    low, high = looks.brightness
    floor, ceiling = min(low, before), max(high, before)
    target = float(np.clip(lit, floor, ceiling))
    gain = gain * np.float32(target / lit if lit > 0 else 1.0)
    moved = target + strength * 0.3 * (high - low) * rng.uniform(-1, 1)
    tint = strength * 0.5 * looks.tint * rng.standard_normal(len(mean)).astype(np.float32)
    shift = np.clip(moved, floor, ceiling) - target + (tint - tint.mean())
    spread = float(pixels.mean(axis=1).std())
    contrast = float(np.exp(strength * 0.4 * rng.uniform(-1, 1)))
    flat, rich = looks.contrast
    if spread > 0:
        contrast = float(np.clip(contrast, min(1.0, flat / spread), max(1.0, rich / spread)))
    return Change(gain, contrast, np.asarray(shift, dtype=np.float32))


class Photometry:
    """Applies changes with albumentations' transforms, in float32 of one or three bands: 16 bits lose nothing."""

    def __init__(self) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network otherwise
        import albumentations

        self._contrast = albumentations.RandomBrightnessContrast(p=1)
        self._shift = albumentations.RGBShift(p=1)

    def apply(self, colours: Colours, change: Change, inside: BoolArray, ceiling: float) -> Colours:
        """Colours under a change, held between 0 and `ceiling`; contrast turns about the mean of what is inside."""
        unit = colours * (change.gain / np.float32(ceiling))
        centre = float(unit[inside].mean())
        unit = self._contrast.apply(unit, alpha=change.contrast, beta=centre * (1 - change.contrast))
        unit = self._shift.apply(unit, noise_map=change.shift / np.float32(ceiling))
        return np.asarray(unit, dtype=np.float32).reshape(colours.shape) * np.float32(ceiling)
