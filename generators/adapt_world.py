"""Which turns of a picture could have been taken by the same camera of the same world.

Training may show a window turned only if a turned window could be real: what training shows, painting repeats. Mirroring left
to right is left to the recipe (`no_mirror`). The two turns here are decided from the data, and not taken where it says too little.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from rarefill.dataset import Dataset
from rarefill.generators.compact_conditioning import Rgb

_FEWEST: Final = 30
"""Objects of one category from which a tendency can be told from chance."""
_PERSPECTIVE: Final = 0.2
"""Correlation of an object's size with its height in the image, from which near things are below and far ones above."""
_STANDING: Final = 0.7
"""Mean of log aspect over its deviation, from which a category's objects stand or lie."""
_UNEVEN: Final = 0.1
"""Log ratio of contrast along rows and along columns, from which the sensor treats them differently."""
_LOOKED_AT: Final = 24


@dataclass(frozen=True, slots=True)
class World:
    """What may be turned.

    Attributes:
        upside: by half a turn: nothing is above or below.
        quarter: by quarter turns: rows and columns are alike, too.
    """

    upside: bool = False
    quarter: bool = False


def world(dataset: Dataset, picture: Callable[[int], Rgb]) -> World:
    """The world that a dataset shows.

    Args:
        dataset: its boxes tell whether there is an above and a below.
        picture: uint8 (H, W, 3) by its row; a few tell whether rows and columns are alike.
    """
    if has_up(dataset):
        return World()
    n = len(dataset.images)
    rows = np.linspace(0, n - 1, min(n, _LOOKED_AT)).round().astype(int)
    ratios = [unevenness(picture(int(row))) for row in rows]
    return World(upside=True, quarter=abs(float(np.mean(ratios))) < _UNEVEN)


def has_up(dataset: Dataset) -> bool:
    """Whether some category's objects grow towards one edge of the image, or all stand or lie; or too few to say."""
    a = dataset.annotations
    sides = a.boxes[:, 2:] - a.boxes[:, :2]
    log_size, log_aspect = np.log(sides.prod(axis=1)), np.log(sides[:, 0] / sides[:, 1])
    y = (a.boxes[:, 1] + a.boxes[:, 3]) / dataset.images.height[a.image]
    told = False
    for category in range(len(dataset.names)):
        rows = np.flatnonzero((a.category == category) & ~a.crowd)
        if len(rows) < _FEWEST:
            continue
        told = True
        if abs(_correlation(log_size[rows], y[rows])) > _PERSPECTIVE:
            return True
        if abs(float(log_aspect[rows].mean())) > _STANDING * float(log_aspect[rows].std()) + 0.02:
            return True
    return not told


def unevenness(pixels: Rgb) -> float:
    """Log of the contrast between neighbours in a row over that between neighbours in a column."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    along, across = np.square(np.diff(grey, axis=1)).mean(), np.square(np.diff(grey, axis=0)).mean()
    return float(np.log((along + 1e-3) / (across + 1e-3)))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
