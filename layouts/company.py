"""How near others of the same category stand to a place.

A real object has the others of its image for company, and never itself. A random place is to have no more: one object
of its image, drawn by chance, does not count for it. Else a model would tell real places by the object that only random ones
have beside them, and of lone objects would learn that they keep away from themselves.

Source: the conditional intensity of a point process, a new point's given the others (Papangelou 1974).
"""

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray

_REACHES = np.array([1.0, 4.0, 12.0])  # in sizes of the place
N_FEATURES = len(_REACHES) + 2


def company(own: FloatArray, boxes: FloatArray, without: NDArray[np.intp] | None = None) -> FloatArray:
    """float64 (n, 5): how near the next one is at three reaches, the share of the box it covers, the log of how many.

    Args:
        own: float64 (m, 4), the category's objects on one image.
        boxes: float64 (n, 4), places on it.
        without: intp (n,), the object that does not count for each place, -1 for none.
    """
    out = np.zeros((len(boxes), N_FEATURES))
    if not len(own):
        return out
    x1, y1, x2, y2 = boxes.T[:, :, None]
    left, top, right, bottom = own.T
    # How far the one lies beyond the other: above 0 is a gap, below an overlap.
    across, down = np.maximum(left - x2, x1 - right), np.maximum(top - y2, y1 - bottom)
    covered = np.minimum(across, 0) * np.minimum(down, 0)
    squared = np.maximum(across, 0.0) ** 2 + np.maximum(down, 0.0) ** 2
    counted = np.full(len(boxes), len(own))
    if without is not None:
        rows = np.flatnonzero(without >= 0)
        squared[rows, without[rows]] = np.inf
        covered[rows, without[rows]] = 0
        counted[rows] -= 1
    area = ((x2 - x1) * (y2 - y1))[:, 0]
    gap = np.sqrt(squared.min(axis=1) / area)
    out[:, :-2] = np.exp(-gap[:, None] / _REACHES)
    out[:, -2] = covered.max(axis=1) / area
    out[:, -1] = np.log1p(counted)
    return out
