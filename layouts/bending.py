"""How far a category's silhouettes may be bent: a part of how much the real ones differ from each other."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.bank import FEWEST_GOOD, Exemplar
from rarefill.geometry import Mask

MOST_BENT = 0.06
"""Largest shift, as a share of the object's size, that any category's silhouettes are bent by."""
_LEAST_BENT = 0.01  # below, nothing of it can be seen
_AT_MOST = 96  # silhouettes compared, evenly sampled: their differences are known well enough then
_SIDE = 32
_PART = 0.5
"""How far a bent outline may lie from its own, as a part of how far the nearest real one does."""
_MEAN_OF_LARGEST = 0.45
"""Mean distance between an outline and its bent self, over the largest shift: 0.28 of a disc, 0.84 of a thin bar."""
_FEW = 8.0
"""Silhouettes whose differences count by half: among few, even the nearest may be of another kind."""
_GRID = 0.35
"""Mean distance in pixels between two outlines that differ by the pixel grid alone."""


def strength(exemplars: Sequence[Exemplar]) -> float:
    """The largest shift to bend by, as a share of an object's size; 0 where nothing can be told, or all look the same.

    Trusted, complete silhouettes are laid over each other, box on box, mirrored where that suits better. The mean
    distance between two outlines is the area where they differ over an outline's length.
    """
    held = [e.mask for e in exemplars if e.source != "box" and e.complete]
    if len(held) < FEWEST_GOOD:
        return 0.0
    held = [held[i] for i in np.linspace(0, len(held) - 1, min(len(held), _AT_MOST)).round().astype(int)]
    differs = max(0.0, float(np.median(_nearest(held)))) * len(held) / (len(held) + _FEW)
    bend = min(MOST_BENT, _PART * differs / _MEAN_OF_LARGEST)
    return round(bend, 4) if bend >= _LEAST_BENT else 0.0


def _nearest(masks: Sequence[Mask]) -> NDArray[np.float64]:
    """float64 (n,): how far each outline lies from the one most like it, the pixel grid's part left out."""
    seen = [
        cv2.resize(m.pixels.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for m in masks
    ]
    pictures = np.array(seen, dtype=np.float32)
    # Smooth: two outlines a pixel apart differ by a pixel's area along all of their length.
    lengths = np.array([_length(p) for p in pictures])
    sizes = np.array([math.sqrt(m.pixels.size) for m in masks])
    flat, mirrored = (p.reshape(len(masks), -1) for p in (pictures, pictures[:, :, ::-1]))
    found = np.empty(len(masks))
    for i, one in enumerate(flat):
        others = np.minimum(np.abs(flat - one).sum(axis=1), np.abs(mirrored - one).sum(axis=1))
        others[i] = np.inf
        found[i] = float((others / (0.5 * (lengths + lengths[i]))).min()) / _SIDE - _GRID / sizes[i]
    return found


def _length(picture: NDArray[Any]) -> float:
    """Length of the outline of a mask's picture in its pixels: the slopes added up."""
    padded = np.pad(picture, 1)
    slopes = (cv2.Sobel(padded, cv2.CV_32F, *d, scale=1 / 8) for d in ((1, 0), (0, 1)))
    return float(np.hypot(*slopes).sum())
