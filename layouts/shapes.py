"""Which real silhouette an object takes, and how it is turned."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill import warp
from rarefill.bank import Bank, Exemplar
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray
from rarefill.scene import Shape

_ENLARGED = math.log(2)
"""Log of how much an exemplar may be enlarged: beyond it is blurred beyond what the camera shows."""
_AT_ONCE = 128  # exemplars compared for one object: enough to find a near one, few enough for a huge bank
_SOFTNESS = 0.15  # log units: exemplars that differ by less are chosen about equally often
_STRETCH = 0.08  # log units that width and height may part from the exemplar's aspect
_TURN_DEG = 4.0
_MOST_TURNED_DEG = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """Exemplars for a batch of drawn boxes.

    Attributes:
        exemplar: (n,) rows of `Shapes.exemplars`.
        log_size: float64 (n,), of the silhouette: the drawn size, held to what the exemplar can be enlarged to, times
            the share of its own labelled box that the exemplar spans.
        log_aspect: float64 (n,), the silhouette's, moved a little towards the one drawn.
        flip: bool (n,).
        rotation_deg: float64 (n,).
    """

    exemplar: NDArray[np.intp]
    log_size: FloatArray
    log_aspect: FloatArray
    flip: NDArray[np.bool_]
    rotation_deg: FloatArray


class Shapes:
    """One category's exemplars, as columns to choose from.

    Attributes:
        exemplars: n of them.
        fill: float64 (n,), the share of its own box that each one covers.
    """

    def __init__(self, dataset: Dataset, bank: Bank, category: str, *, mirror: bool = True) -> None:
        self.exemplars = bank.of(category)
        self._mirror = mirror
        rows = np.array([e.annotation for e in self.exemplars], dtype=int)
        self._log_size, self._log_aspect = _measures(dataset.annotations.boxes[rows])
        tight = np.array([e.mask.box.xyxy for e in self.exemplars], dtype=float).reshape(-1, 4)
        self._tight_size, self._tight_aspect = _measures(tight)
        self.fill = np.array([e.mask.area for e in self.exemplars], dtype=float) / np.exp(
            2 * self._tight_size
        )
        self._image = np.array([e.image for e in self.exemplars], dtype=int)
        # A cut-out that is not to be trusted, or one that the image's edge cuts, stands back as one of other size would.
        self._cost = np.array(
            [0.5 * (1 - e.quality) + (0.0 if e.complete else 1.0) for e in self.exemplars], dtype=float
        )

    def choose(
        self, rng: np.random.Generator, log_size: FloatArray, log_aspect: FloatArray, background: int
    ) -> Picks | None:
        """An exemplar near each drawn size and aspect, never one of the background's own; None where all are.

        Args:
            rng: where chance comes from.
            log_size: float64 (n,).
            log_aspect: float64 (n,).
            background: row in `dataset.images`.
        """
        n = len(log_size)
        rows = np.flatnonzero(self._image != background)
        if rows.size > _AT_ONCE:
            rows = rows[rng.integers(rows.size, size=_AT_ONCE)]
        if not rows.size:
            return None
        grow = log_size[:, None] - self._log_size[rows]
        turned = np.abs(log_aspect[:, None] - self._log_aspect[rows])
        distance = np.where(grow > 0, grow, -0.5 * grow) + turned + self._cost[rows]
        distance += np.where(grow > _ENLARGED, 10 * (grow - _ENLARGED), 0)
        # The smallest of perturbed distances is a draw in proportion to exp(-distance / softness) (Gumbel).
        chosen = rows[np.argmin(distance - _SOFTNESS * rng.gumbel(size=distance.shape), axis=1)]
        # People draw boxes with some air about small objects: what is scaled like the box is the object, air left out.
        grown = np.minimum(log_size - self._log_size[chosen], _ENLARGED)
        size = self._tight_size[chosen] + grown
        aspect = self._tight_aspect[chosen]
        aspect = aspect + np.clip(log_aspect - self._log_aspect[chosen], -_STRETCH, _STRETCH)
        flip = (rng.random(n) < 0.5) & self._mirror
        angle = np.clip(rng.normal(0, _TURN_DEG, n), -_MOST_TURNED_DEG, _MOST_TURNED_DEG)
        return Picks(chosen, size, aspect, flip, np.round(angle, 1))

    def turned(self, picks: Picks, i: int) -> tuple[Exemplar, Shape, float, float]:
        """The i-th pick with its width and height in pixels, the rotation taken into account."""
        exemplar = self.exemplars[picks.exemplar[i]]
        shape = Shape(exemplar.annotation, bool(picks.flip[i]), float(picks.rotation_deg[i]))
        turned_width, turned_height = warp.turned_size(exemplar.mask, shape)
        stretch = picks.log_aspect[i] - self._tight_aspect[picks.exemplar[i]]
        half = (math.log(turned_width / turned_height) + stretch) / 2
        return exemplar, shape, math.exp(picks.log_size[i] + half), math.exp(picks.log_size[i] - half)


def for_box(
    dataset: Dataset, bank: Bank, category: str, box: Box, rng: np.random.Generator, background: int
) -> Exemplar | None:
    """An exemplar for a box that a person drew: near its size and aspect; None where the bank has none to give."""
    size, aspect = 0.5 * math.log(box.area), math.log(box.width / box.height)
    shapes = Shapes(dataset, bank, category)
    picks = shapes.choose(rng, np.array([size]), np.array([aspect]), background)
    return shapes.exemplars[picks.exemplar[0]] if picks is not None else None


def _measures(boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log of sqrt(width * height) and of width / height of boxes (n, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return 0.5 * np.log(sides.prod(axis=1)), np.log(sides[:, 0] / sides[:, 1])
