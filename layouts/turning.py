"""How a category's objects stand: from the axes of its real silhouettes, and from what its whole dataset shows.

The long axis of an outline has a direction from 0 to 180 degrees. Where these crowd about one direction, the world has an
up, and objects are turned a little only. Where they spread, as cells and vehicles seen from above do, an object may be
turned any way, so that the axes of what is placed follow those of the real ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.bank import Bank, Exemplar
from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray, Mask

TURN_DEG = 4.0
MOST_TURNED_DEG = 10.0
"""Deviation, and most, of a turn in a world with an up."""
ELONGATED = 1.5
"""Length over width from which an outline's axis says something: a picture stretched by a tenth tilts that of a rounder one."""
_LEAST_PX = 6
"""Shorter sides have no axis but the pixel grid's."""
_KAPPAS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Concentrations that are thought equally likely where axes crowd at all: from a mild tendency to a strict one."""
_UPRIGHT = math.log(20)
"""Log odds that a world has an up before anything is known of it: most pictures are photographs."""
_NEITHER = math.log(10)
"""What it adds in favour of free turning that no category's boxes stand, lie, or grow towards an edge."""
_POOLED = 0.5
"""Weight of the other categories' evidence: they share the camera, not all of their habits."""
_MOST_POOLED = math.log(20)
"""What the others may add at most in favour of free turning: alone they balance what was believed, and no more."""
_FREE = math.log(3)
"""Log odds for spread axes from which objects are turned freely."""
_SURE = 3.0
"""Standard errors that a tendency has to exceed as well."""
_FEWEST = 30
"""Boxes of a category from which a tendency can be told from chance."""
_LEANING = 0.5
"""Mean of log aspect over its deviation, from which a category's boxes stand or lie: turned freely, they would do neither."""
_PERSPECTIVE = 0.3
"""Correlation of size with height in the image, from which there is a near below and a far above."""
_JITTER_DEG = 10.0
"""Deviation about a real axis: a few real ones stand for those between them."""
_UNKNOWN = 4.0
"""Axes of any direction that are added to the real ones: with few of these, all are possible."""


@dataclass(frozen=True, slots=True, eq=False)
class Turning:
    """How objects of one category may be turned.

    Attributes:
        free: any way; else a little about how they stand.
        axes_deg: float64 (n,), the real silhouettes' long axes from 0 to 180, clockwise from the right.
    """

    free: bool
    axes_deg: FloatArray

    def draw(self, rng: np.random.Generator, own_deg: FloatArray, flip: NDArray[np.bool_]) -> FloatArray:
        """Angles in whole degrees, one for each object, from -180 to 180.

        Args:
            rng: where chance comes from.
            own_deg: float64, the objects' axes as they are, NaN for round ones.
            flip: of the same shape: mirrored before they are turned.
        """
        if not self.free:
            angle = np.clip(rng.normal(0, TURN_DEG, own_deg.shape), -MOST_TURNED_DEG, MOST_TURNED_DEG)
            return np.asarray(np.round(angle))
        anyway = rng.uniform(-180, 180, own_deg.shape)
        if not len(self.axes_deg):
            return np.asarray(np.round(anyway))
        real = self.axes_deg[rng.integers(len(self.axes_deg), size=own_deg.shape)]
        real = real + rng.normal(0, _JITTER_DEG, own_deg.shape) + 180 * rng.integers(2, size=own_deg.shape)
        unknown = rng.random(own_deg.shape) < _UNKNOWN / (_UNKNOWN + len(self.axes_deg))
        angle = np.where(unknown | np.isnan(own_deg), anyway, real - np.where(flip, -own_deg, own_deg))
        return np.asarray(np.round((angle + 180) % 360 - 180))


def turning(dataset: Dataset, bank: Bank, category: str) -> Turning:
    """How objects of a category may be turned: any way where the evidence is for it, else a little.

    Args:
        dataset: all of whose boxes are looked at.
        bank: of this category and possibly others.
        category: whose objects.
    """
    axes = {name: axes_of(bank.of(name)) for name in dataset.names}
    own = axes[category]
    up = standing(dataset)
    others = sum(spread(held) for name, held in axes.items() if name != category)
    odds = spread(own) + min(_POOLED * others, _MOST_POOLED) + (_NEITHER if up is False else 0) - _UPRIGHT
    return Turning(free=not up and odds >= _FREE, axes_deg=own)


def axes_of(exemplars: Sequence[Exemplar]) -> FloatArray:
    """Long axes in degrees of those that are trusted, complete and elongated: float64 (n,), 0 to 180."""
    found = long_axes(exemplars)
    return found[np.isfinite(found)]


def long_axes(exemplars: Sequence[Exemplar]) -> FloatArray:
    """The same of each one: float64 (n,), NaN for those that have none to trust."""
    return np.array(
        [long_axis(e.mask) if e.source != "box" and e.complete else np.nan for e in exemplars], dtype=float
    )


def long_axis(mask: Mask) -> float:
    """Direction of an elongated silhouette's long axis, as `axis` gives it; NaN for a round one."""
    angle, length = axis(mask)
    return angle if length >= ELONGATED else math.nan


def axis(mask: Mask) -> tuple[float, float]:
    """Direction of a silhouette's long axis in degrees, 0 to 180, clockwise from the right, and its length over its width.

    From second moments, a pixel's own extent included. What is only a few pixels wide has no axis: 0 and 1.
    """
    if max(mask.pixels.shape) < _LEAST_PX:
        return 0.0, 1.0
    y, x = np.nonzero(mask.pixels)
    x, y = x - x.mean(), y - y.mean()
    xx, yy, xy = float((x * x).mean()) + 1 / 12, float((y * y).mean()) + 1 / 12, float((x * y).mean())
    half, root = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    angle = math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) % 180
    return angle, math.sqrt((half + root) / max(half - root, 1e-9))


def spread(axes_deg: FloatArray) -> float:
    """Log odds for axes that spread evenly against axes that crowd about some direction; 0 where there are none.

    Crowding is a von Mises distribution of the doubled angles, its direction unknown and integrated out:
    n angles of resultant length L have I0(kappa L) / I0(kappa)^n times the density that even spreading gives them.

    Source: Mardia and Jupp, Directional Statistics, 2000, sections 3.5.4 and 7.4.
    """
    from scipy.special import i0e

    n = len(axes_deg)
    if not n:
        return 0.0
    length = abs(np.exp(2j * np.radians(axes_deg)).sum())
    k = np.array(_KAPPAS)
    ratios = np.log(i0e(k * length)) + k * length - n * (np.log(i0e(k)) + k)
    return -float(np.logaddexp.reduce(ratios) - math.log(len(k)))


def standing(dataset: Dataset) -> bool | None:
    """Whether boxes alone show an up: some category's stand or lie, or grow towards one edge; None for too few to say.

    Objects that are turned freely would do neither. What touches the image's edge is cut by it, and left out.
    """
    a, images = dataset.annotations, dataset.images
    sides = a.boxes[:, 2:] - a.boxes[:, :2]
    size = np.stack([images.width[a.image], images.height[a.image]], axis=1)
    inside = ((a.boxes[:, :2] >= 1) & (a.boxes[:, 2:] <= size - 1) & (sides > 0)).all(axis=1) & ~a.crowd
    told = None
    for category in range(len(dataset.names)):
        rows = np.flatnonzero(inside & (a.category == category))
        if len(rows) < _FEWEST:
            continue
        told = False
        aspect = np.log(sides[rows, 0] / sides[rows, 1])
        chance = _SURE / math.sqrt(len(rows))
        if abs(float(aspect.mean())) > max(_LEANING, chance) * float(aspect.std()) + 0.02:
            return True
        y = (a.boxes[rows, 1] + a.boxes[rows, 3]) / size[rows, 1]
        area = np.log(sides[rows].prod(axis=1))
        if min(area.std(), y.std()) < 1e-6:
            continue
        if abs(float(np.corrcoef(area, y)[0, 1])) > max(_PERSPECTIVE, chance):
            return True
    return told
