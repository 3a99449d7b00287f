"""Which real silhouette an object takes, and how it is turned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rarefill import warp
from rarefill.bank import Bank, Exemplar, loose
from rarefill.dataset import Dataset
from rarefill.geometry import BoolArray, Box, FloatArray
from rarefill.layouts import bending
from rarefill.layouts.boxes import Draws
from rarefill.layouts.turning import long_axis, turning
from rarefill.scene import Shape

_ENLARGED = math.log(2)
"""Log of how much an exemplar may be enlarged: beyond it is blurred beyond what the camera shows."""
_ABOUT = 48  # exemplars of about the drawn size, of which an object's are
_COMPARED = 12  # of them for one object: enough to find a near one
_FORMS = 1024  # ways to bend; few enough that their cosines stay in memory
_SOFTNESS = 0.15  # log units: exemplars that differ by less are chosen about equally often
_STRETCH = 0.08  # log units that width and height may part from the exemplar's aspect
_EVERY_DEG = 5  # turned extents are kept for these angles, and taken between them
_ANGLES = 180 // _EVERY_DEG + 1
_KEPT = 512  # images whose exemplars are known apart from all others


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """Exemplars for a batch of drawn boxes.

    Attributes:
        exemplar: (n,) rows of `Shapes.exemplars`.
        log_size: float64 (n,), of the turned silhouette: the drawn size, held to what the exemplar can be enlarged to,
            times the share of its own labelled box that the exemplar spans.
        log_aspect: float64 (n,), the turned silhouette's, moved a little towards the one drawn.
        grown: float64 (n,), log of how much the exemplar is enlarged.
        stretched: float64 (n,), log of how much more in width than in height.
        flip: bool (n,).
        rotation_deg: float64 (n,).
        bend_seed: int64 (n,).
        axis_deg: float64 (n,), directions of the long axes as turned, clockwise from the right; NaN for round ones.
    """

    exemplar: NDArray[np.intp]
    log_size: FloatArray
    log_aspect: FloatArray
    grown: FloatArray
    stretched: FloatArray
    flip: NDArray[np.bool_]
    rotation_deg: FloatArray
    bend_seed: NDArray[np.int64]
    axis_deg: FloatArray


class Shapes:
    """One category's exemplars, as columns to choose from.

    Attributes:
        exemplars: n of them.
        fill: float64 (n,), the share of its own box that each one covers.
        bend: how far silhouettes are bent, as a share of their size; those that are not to be trusted are not bent.
        turning: how they may be turned.
        air: how much larger the root of a label's area is than that of its object's tight box; log units, 0 or above.
    """

    def __init__(
        self, dataset: Dataset, bank: Bank, category: str, *, mirror: bool = True, varied: bool = True
    ) -> None:
        """`varied`: turn and bend them; else they stand as they are, mirrored at most."""
        self.exemplars = bank.of(category)
        self.bend = bending.strength(self.exemplars) if varied else 0.0
        self.turning = turning(dataset, bank, category) if varied else None
        self._mirror = mirror
        tight = np.array([e.mask.box.xyxy for e in self.exemplars], dtype=float).reshape(-1, 4)
        self._tight_size, self._tight_aspect = _measures(tight)
        # The label that will be written about each: with the air that is usual for the class, not with its own. The best cut-outs
        # have little of it, and objects would come out larger than what was drawn.
        around = loose(Box(0, 0, 1, 1), bank.slack(category))
        self.air = 0.5 * math.log(around.area)
        self._log_size = self._tight_size + self.air
        self._air_aspect = math.log(around.width / around.height)
        self.fill = np.array([e.mask.area for e in self.exemplars], dtype=float) / np.exp(
            2 * self._tight_size
        )
        self._image = np.array([e.image for e in self.exemplars], dtype=int)
        # A cut-out that is not to be trusted, or one that the image's edge cuts, stands back as one of other size would.
        self._cost = np.array(
            [0.5 * (1 - e.quality) + (0.0 if e.complete else 1.0) for e in self.exemplars], dtype=float
        )
        self._axis = np.array([long_axis(e.mask) for e in self.exemplars] if varied else [], dtype=float)
        sides = np.array([_turned_sides(e) for e in self.exemplars] if varied else []).reshape(-1, _ANGLES, 2)
        self._sizes, self._aspects = sides.mean(axis=2), sides[..., 0] - sides[..., 1]
        self._by_size = np.argsort(self._log_size, kind="stable")
        self._sorted = self._log_size[self._by_size]
        self._images = frozenset(self._image.tolist())
        self._without = lru_cache(_KEPT)(self._others)

    def gives(self, background: int) -> bool:
        """Whether there is an exemplar that is not of this image (row in `dataset.images`)."""
        return len(self._images) > (background in self._images)

    def choose(
        self,
        rng: np.random.Generator,
        log_size: FloatArray,
        log_aspect: FloatArray,
        background: int | Sequence[int],
    ) -> Picks | None:
        """An exemplar near each drawn size and aspect, never one of the background's own; None where all are.

        Every exemplar that is compared is mirrored and turned by chance first: it is near as it would stand.

        Args:
            rng: where chance comes from.
            log_size: float64 (n,).
            log_aspect: float64 (n,).
            background: row in `dataset.images`; or several, with as many objects each, one after the other.
        """
        backgrounds = [background] if isinstance(background, int) else background
        if not all(map(self.gives, backgrounds)):
            return None
        rows, some = self._compared(rng, log_size, backgrounds)
        flip = (rng.random(rows.shape, dtype=np.float32) < 0.5) & self._mirror
        angle, size, aspect = self._turned(rng, rows, flip)
        # The label's box turns with the object: its size and aspect change as the silhouette's do.
        grow = (log_size - self.air)[:, None] - size
        differs = (log_aspect - self._air_aspect)[:, None] - aspect
        distance = np.maximum(grow, -0.5 * grow) + np.abs(differs) + self._cost[rows]
        distance += 10 * np.maximum(grow - _ENLARGED, 0)
        if some is not None:
            distance[~some] = np.inf
        # The smallest of perturbed distances is a draw in proportion to exp(-distance / softness) (Gumbel).
        chance = rng.standard_exponential(rows.shape, dtype=np.float32)
        distance += _SOFTNESS * np.log(np.maximum(chance, np.finfo(np.float32).tiny))  # once in 10 M it is 0
        n = len(log_size)
        at = np.arange(n), distance.argmin(axis=1)
        # What is scaled like the label is the object, air left out.
        grown, stretched = np.minimum(grow[at], _ENLARGED), np.clip(differs[at], -_STRETCH, _STRETCH)
        seeds = rng.integers(_FORMS, size=n)
        own = self._axis[rows[at]] if self.turning is not None else np.full(n, np.nan)
        return Picks(
            rows[at],
            size[at] + grown,
            aspect[at] + stretched,
            grown,
            stretched,
            flip[at],
            angle[at],
            seeds,
            (np.where(flip[at], -own, own) + angle[at]) % 180,
        )

    def turned(self, picks: Picks, i: int) -> tuple[Exemplar, Shape, float, float]:
        """The i-th pick with its width and height in pixels, the rotation taken into account."""
        exemplar = self.exemplars[picks.exemplar[i]]
        bend = 0.0 if exemplar.source == "box" else self.bend
        seed = int(picks.bend_seed[i]) if bend else 0
        shape = Shape(exemplar.annotation, bool(picks.flip[i]), float(picks.rotation_deg[i]), bend, seed)
        width, height = warp.turned_size(exemplar.mask, shape)
        grown, half = float(picks.grown[i]), float(picks.stretched[i]) / 2
        return exemplar, shape, width * math.exp(grown + half), height * math.exp(grown - half)

    def _others(self, background: int) -> tuple[NDArray[np.intp], FloatArray]:
        """The exemplars of other images in the order of their sizes, and the sizes."""
        kept = self._image[self._by_size] != background
        return self._by_size[kept], self._sorted[kept]

    def _compared(
        self, rng: np.random.Generator, log_size: FloatArray, backgrounds: Sequence[int]
    ) -> tuple[NDArray[np.intp], BoolArray | None]:
        """Exemplars to compare for each drawn size, none of its background's own: rows (n, m).

        And which of these count, bool (n, m), where backgrounds have not as many to give; None where all do.
        """
        held = [self._without(b) if b in self._images else (self._by_size, self._sorted) for b in backgrounds]
        most = max(len(rows) for rows, _ in held)
        each, m = len(log_size) // len(held), min(most, _COMPARED)
        out, some = np.zeros((len(log_size), m), dtype=np.intp), None
        chance = rng.random(out.shape, dtype=np.float32) if most > _COMPARED else None
        for i, (rows, sizes) in enumerate(held):
            own, n = slice(i * each, (i + 1) * each), len(rows)
            if chance is None or n <= _COMPARED:
                out[own, :n] = rows
                if n < m:
                    some = np.ones(out.shape, dtype=bool) if some is None else some
                    some[own, n:] = False
                continue
            first = sizes.searchsorted(log_size[own]) - _ABOUT // 2
            first = np.minimum(np.maximum(first, 0), max(0, n - _ABOUT))
            out[own] = rows[first[:, None] + (chance[own] * min(_ABOUT, n)).astype(np.intp)]
        return out, some

    def _turned(
        self, rng: np.random.Generator, rows: NDArray[np.intp], flip: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Angles for mirrored exemplars (n, m), and the log size and log aspect that they then have."""
        if self.turning is None:
            return np.zeros(flip.shape), self._tight_size[rows], self._tight_aspect[rows]
        angle = self.turning.draw(rng, self._axis[rows], flip)
        # Mirrored and then turned is as wide as turned the other way.
        place = np.where(flip, -angle, angle) % 180 * (1 / _EVERY_DEG)
        low = place.astype(np.intp)
        part = place - low
        at = rows * _ANGLES + low
        size, aspect = (
            (1 - part) * table.take(at) + part * table.take(at + 1) for table in (self._sizes, self._aspects)
        )
        return angle, size, aspect


def for_box(
    dataset: Dataset, bank: Bank, category: str, box: Box, rng: np.random.Generator, background: int
) -> Exemplar | None:
    """An exemplar for a box that a person drew: near its size and aspect; None where the bank has none to give."""
    size, aspect = 0.5 * math.log(box.area), math.log(box.width / box.height)
    shapes = Shapes(dataset, bank, category, varied=False)
    picks = shapes.choose(rng, np.array([size]), np.array([aspect]), background)
    return shapes.exemplars[picks.exemplar[0]] if picks is not None else None


def _turned_sides(exemplar: Exemplar) -> FloatArray:
    """Log width and log height of a silhouette turned by 0, 5, ... 180 degrees: float64 (37, 2)."""
    corners = warp.corners(exemplar.mask)
    angles = np.radians(np.arange(0, 180 + _EVERY_DEG, _EVERY_DEG))
    x = np.outer(np.cos(angles), corners[:, 0]) - np.outer(np.sin(angles), corners[:, 1])
    y = np.outer(np.sin(angles), corners[:, 0]) + np.outer(np.cos(angles), corners[:, 1])
    return np.asarray(np.log(np.stack([np.ptp(x, axis=1), np.ptp(y, axis=1)], axis=1)))


def _measures(boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log of sqrt(width * height) and of width / height of boxes (n, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return 0.5 * np.log(sides.prod(axis=1)), np.log(sides[:, 0] / sides[:, 1])


def drawn_at(draws: Draws, picks: Picks) -> FloatArray:
    """float64 (n, 4): the silhouettes' boxes as turned, in the middle of the labels' boxes drawn."""
    y = draws.foot - np.exp(draws.log_size - draws.log_aspect / 2) / 2
    half_width = np.exp(picks.log_size + picks.log_aspect / 2) / 2
    half_height = np.exp(picks.log_size - picks.log_aspect / 2) / 2
    return np.stack([draws.x - half_width, y - half_height, draws.x + half_width, y + half_height], axis=1)


def thrown_back(boxes: FloatArray, size: FloatArray) -> FloatArray:
    """Boxes that jitter pushed over the image's edge, thrown back by as much; to refuse them would favour small ones.

    Args:
        boxes: float64 (n, 4).
        size: float64 (n, 2) or (1, 2), width and height of the image.

    Source: the reflection method for kernel densities with a boundary (Silverman 1986, section 2.10).
    """
    low = np.maximum(-boxes[:, :2], 0)
    high = np.maximum(boxes[:, 2:] - size, 0)
    return np.asarray(boxes + np.tile(2 * (low - high), 2))
