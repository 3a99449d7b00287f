"""How far figures of texture tell painted windows from real ones: a second eye for seams, which needs fewer windows than a network.

Blending, warping and painting take fine detail away or sharpen borders. So detail of two sizes, its colour and the spread of
lightness are measured in five bands about each object, and a logistic regression learns from them as the network of `seams` does
from pixels: what is judged lies on scenes and has exemplars that it has not seen.
"""

from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.fidelity import seams
from rarefill.fidelity.distances import Floats, Trial
from rarefill.layouts.ratio import logistic
from rarefill.windows import Windows

BANDS: Final = ("core", "rim", "edge", "near", "far")
"""Within 0.6 of the way to the label's border; the 4 px inside of it; to 5 px beyond; to 12 px; from 14 px on. Pixels are the window's."""
EACH: Final = 4
"""Figures of a band."""
AROUND: Final = slice(EACH * BANDS.index("near"), None)
"""Columns of the bands that no painter changes: what they tell is the place."""
_FINE_PX, _MID_PX = 1.0, 3.0
_FLOOR = 0.05
_RIDGE = 0.02


def figures(windows: Windows) -> Floats:
    """Logs of standard deviations, band by band: of fine and middle detail, of fine colour and of lightness, float64 (N, 20).

    Args:
        windows: of one kind of object.
    """
    rows = [_figures(*one) for one in zip(windows.pixels, windows.share, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, EACH * len(BANDS))


def trials(pool: seams.Pool, found: Floats, *, times: int) -> list[Trial]:
    """As `seams.trials`, by figures (N, F) of the pool's windows, instead of their pixels."""
    x = (found - found.mean(axis=0)) / (found.std(axis=0) + 1e-9)
    out = []
    for _, learn, judge in seams.turns(pool, times=times):
        painted = pool.painted[learn]
        weight = np.where(painted, 0.5 / painted.sum(), 0.5 / (~painted).sum())
        weights = logistic(x[learn], painted, weight, _RIDGE)[:-1]
        out.append(Trial(x[judge] @ weights, pool.painted[judge], pool.scene[judge]))
    return out


def _figures(pixels: NDArray[np.uint8], share: Floats) -> list[float]:
    x = pixels.astype(np.float32)
    smooth, smoother = (cv2.GaussianBlur(x, (0, 0), sigma) for sigma in (_FINE_PX, _MID_PX))
    fine, mid = x - smooth, smooth - smoother
    measured = (fine, mid, fine[:, :, 0] - fine[:, :, 1], x.mean(axis=2))
    out = []
    for where in _bands(pixels.shape[0], share):
        out += [float(np.log(_FLOOR + (values[where].std() if where.any() else 0))) for values in measured]
    return out


def _bands(side: int, share: Floats) -> list[NDArray[np.bool_]]:
    """bool (S, S) for each: by how far a pixel lies from the ellipse that fills the label's box."""
    x1, y1, x2, y2 = share * side
    rows, cols = np.mgrid[:side, :side] + 0.5
    half_x, half_y = max((x2 - x1) / 2, 1.0), max((y2 - y1) / 2, 1.0)
    away = np.hypot((cols - (x1 + x2) / 2) / half_x, (rows - (y1 + y2) / 2) / half_y)
    px = (away - 1) * np.sqrt(half_x * half_y)
    rings = [(px >= low) & (px < high) for low, high in pairwise((-4, 0, 5, 12))]
    return [away < 0.6, *rings, px >= 14]
