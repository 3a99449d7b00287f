"""How far a category's silhouettes may be bent: a part of how much the real ones differ from each other."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.bank import FEWEST_GOOD, Exemplar
from rarefill.geometry import FloatArray, Mask

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
    away = apart(held, held)
    np.fill_diagonal(away, np.inf)
    sizes = np.array([math.sqrt(m.pixels.size) for m in held])
    differs = max(0.0, float(np.median(away.min(axis=1) - _GRID / sizes))) * len(held) / (len(held) + _FEW)
    bend = min(MOST_BENT, _PART * differs / _MEAN_OF_LARGEST)
    return round(bend, 4) if bend >= _LEAST_BENT else 0.0


def apart(ones: Sequence[Mask], others: Sequence[Mask]) -> FloatArray:
    """Mean distance between the outlines of every pair, box on box, mirrored where that suits better: float64 (n, m).

    In shares of the box: the area where two silhouettes differ, over the length of their outlines.
    """
    a, b = _seen(ones), _seen(others)
    lengths = [np.array([_length(p) for p in pictures]) for pictures in (a, b)]
    out = np.empty((len(a), len(b)))
    for i, one in enumerate(a):
        area = np.minimum(*(np.abs(b - p).sum(axis=(1, 2)) for p in (one, one[:, ::-1])))
        out[i] = area / (0.5 * (lengths[0][i] + lengths[1])) / _SIDE
    return out


def _seen(masks: Sequence[Mask]) -> NDArray[np.float32]:
    """Silhouettes stretched to one size: float32 (n, 32, 32)."""
    size = (_SIDE, _SIDE)
    return np.array(
        [cv2.resize(m.pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA) for m in masks],
        np.float32,
    )


def _length(picture: NDArray[Any]) -> float:
    """Length of the outline of a mask's picture in its pixels: the slopes added up."""
    padded = np.pad(picture, 1)
    slopes = (cv2.Sobel(padded, cv2.CV_32F, *d, scale=1 / 8) for d in ((1, 0), (0, 1)))
    return float(np.hypot(*slopes).sum())
