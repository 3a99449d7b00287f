"""One category's boxes as a density of size, aspect and place that can be drawn from and evaluated.

A place is told in free coordinates: 0 where the box touches the image's left or upper edge, 1 where it touches the
right or lower one. So every box drawn lies inside its image, whatever its size, and the density knows it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import Box, FloatArray
from rarefill.layouts.densities import Kernels, folded, normal, reflected
from rarefill.layouts.habits import Habits

Extent = int | NDArray[np.int32] | FloatArray
"""Width or height of the image in pixels, one for all boxes or one for each."""
LEAST_ROOM = 0.02
"""Of the image's side: a box that leaves less is placed as if it left this much."""
_ROUNDING = 1e-6  # of the free coordinates
_MOST_CELLS = 1_000_000  # of a matrix of kernels held at once
_OFFSETS_JITTER = 0.25  # of an object's size: neighbours stand no more exactly than that


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Boxes drawn from a prior, in pixels of one image.

    Attributes:
        log_size: float64 (n,), log of sqrt(width * height).
        log_aspect: float64 (n,), log of width / height.
        x: float64 (n,), middle of the foot.
        foot: float64 (n,), y of the lower edge.
    """

    log_size: FloatArray
    log_aspect: FloatArray
    x: FloatArray
    foot: FloatArray

    @classmethod
    def of(cls, box: Box) -> "Draws":
        """A box as if it had been drawn."""
        return cls(
            np.array([0.5 * np.log(box.area)]),
            np.array([np.log(box.width / box.height)]),
            np.array([(box.x1 + box.x2) / 2]),
            np.array([box.y2]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Real boxes in the units of the priors.

    Attributes:
        log_size: float64 (n,), log of sqrt(w * h), less the log of the image's own where sizes follow it.
        log_aspect: float64 (n,), log of w / h.
        feet: float64 (n, 2), x of the middle and y of the lower edge, 0 to 1 of the image.
        free: float64 (n, 2), the same in free coordinates, 0 to 1.
        image: int64 (n,), row of the image.
    """

    log_size: FloatArray
    log_aspect: FloatArray
    feet: FloatArray
    free: FloatArray
    image: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.log_size)

    def at(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Boxes":
        """Some of them."""
        places = self.feet[rows], self.free[rows]
        return Boxes(self.log_size[rows], self.log_aspect[rows], *places, self.image[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """One category's boxes as a density.

    The log of size (less `slope` times the free y) and of aspect come from `form`, the place from `place`, each by
    itself, or both from the same own box, in the share `tied` of all.

    Attributes:
        own: its boxes, at least one.
        form: of the log of size, as if at the image's upper edge, and of the log of aspect.
        place: of the free coordinates.
        tied: the share of boxes whose form and place belong together, 0 to 1.
        slope: what the way from the image's upper edge to its lower one adds to `log_size`.
        relative: whether sizes follow the image's size.
        bounds: least and largest `log_size` that is drawn, in the units of `own`.
        least_px: the smallest side among its boxes.
        counts: int64, how many a real image that holds it holds.
        habits: how often it is cut off, hidden, and with others of its kind.
    """

    own: Boxes
    form: Kernels
    place: Kernels
    tied: float
    slope: float
    relative: bool
    bounds: tuple[float, float]
    least_px: float
    counts: NDArray[np.int64]
    habits: Habits

    def draw(
        self, rng: np.random.Generator, n: int, width: Extent, height: Extent, jitter: float | None
    ) -> Draws:
        """Boxes for an image of this size, or for images of these sizes.

        Args:
            rng: the source of the choice.
            n: how many.
            width: of the image, px.
            height: of the image, px.
            jitter: the deviation of size and aspect in log units; None for the one that the data support.
        """
        u, noise = rng.random((3, n)), rng.standard_normal((4, n))
        form, place = self.form.rows(u[0]), self.place.rows(u[1])
        tied = u[2] < self.tied
        if tied.any():
            form[tied] = place[tied] = (u[0, tied] * len(self.own)).astype(np.intp)
        x, y, wide, high = self.place.columns[:, place]
        x, y = folded(x + wide * noise[0], 0.0, 1.0), folded(y + high * noise[1], 0.0, 1.0)
        size, aspect, size_width, aspect_width = self.form.columns[:, form]
        if jitter is not None:
            size_width = aspect_width = jitter
        size = self._folded(size + self.slope * y, size_width * noise[2]) + self._frame(width, height)
        aspect = aspect + aspect_width * noise[3]
        half_x, half_y = _halves(size, aspect, width, height)
        x, y = _placed(x, half_x), _placed(y, half_y)
        return Draws(size, aspect, x * width, (y + half_y) * height)

    def log_density(
        self,
        log_size: FloatArray,
        log_aspect: FloatArray,
        x: FloatArray,
        foot: FloatArray,
        width: Extent,
        height: Extent,
        jitter: float | None = None,
    ) -> FloatArray:
        """The log of the density that `draw` draws from, per unit of log size, log aspect, x / width and foot / height.

        Args:
            log_size: float64 (n,), as `Draws` has it.
            log_aspect: float64 (n,).
            x: float64 (n,), px.
            foot: float64 (n,), px.
            width: of the image, or of each one's, px.
            height: of the image, or of each one's, px.
            jitter: as in `draw`.

        Returns:
            float64 (n,), minus infinity for what is never drawn.
        """
        half_x, half_y = _halves(log_size, log_aspect, width, height)
        free = np.stack([_free(x / width, half_x), _free(foot / height - half_y, half_y)], axis=1)
        inside = (np.abs(free - 0.5) <= 0.5 + _ROUNDING).all(axis=1)
        free, size = np.clip(free, 0, 1), log_size - self._frame(width, height)
        density = np.zeros(len(free))
        step = max(1, _MOST_CELLS // (len(self.form) + len(self.place)))
        for start in range(0, len(free), step):
            rows = slice(start, start + step)
            density[rows] = self._density(size[rows], log_aspect[rows], free[rows], jitter)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.where(inside, density, 0.0) / (_room(half_x) * _room(half_y))))

    def _density(
        self, size: FloatArray, aspect: FloatArray, free: FloatArray, jitter: float | None
    ) -> FloatArray:
        """float64 (n,): per unit of free place."""
        across, down, wide, high = self.place.columns
        sizes, aspects, size_width, aspect_width = self.form.columns
        if jitter is not None:
            size_width = aspect_width = np.full_like(sizes, jitter)
        about = np.clip(sizes + self.slope * free[:, 1:], *self.bounds)
        forms = reflected(size[:, None], about, size_width, *self.bounds)
        forms *= normal(aspect[:, None] - aspects, aspect_width)
        places = reflected(free[:, :1], across, wide, 0.0, 1.0)
        places *= reflected(free[:, 1:], down, high, 0.0, 1.0)
        n = len(self.own)
        together = (forms[:, :n] * places[:, :n]).mean(axis=1)
        apart = (forms @ self.form.weights) * (places @ self.place.weights)
        return np.asarray(self.tied * together + (1 - self.tied) * apart)

    def near(
        self,
        rng: np.random.Generator,
        n: int,
        at: Draws,
        width: Extent,
        height: Extent,
        jitter: float | None = None,
    ) -> Draws | None:
        """Boxes for neighbours of one that stands there: as far off, that way, and as large as real ones are.

        Args:
            rng: the source of the choice.
            n: how many.
            at: one box.
            width: of the image, px.
            height: of the image, px.
            jitter: as in `draw`.

        Returns:
            None where too few real neighbours are known.
        """
        pairs = self.habits.pairs
        if pairs is None:
            return None
        drawn, frame = self.draw(rng, n, width, height, jitter), self._frame(width, height)
        dx, dy, ratio = pairs[rng.integers(len(pairs), size=n)].T
        noise = rng.standard_normal((3, n))
        spread = self.form.columns[2, 0] if jitter is None else jitter
        size = self._folded(at.log_size - frame + ratio, spread * noise[2]) + frame
        side = np.exp(at.log_size)
        half_x, half_y = _halves(size, drawn.log_aspect, width, height)
        _, half = _halves(at.log_size, at.log_aspect, width, height)
        x = (at.x + (dx + _OFFSETS_JITTER * noise[0]) * side) / width
        y = at.foot / height - half + (dy + _OFFSETS_JITTER * noise[1]) * side / height
        x, y = (_placed(folded(_free(v, h), 0.0, 1.0), h) for v, h in ((x, half_x), (y, half_y)))
        return Draws(size, drawn.log_aspect, x * width, (y + half_y) * height)

    def count(self, rng: np.random.Generator) -> int:
        """How many objects of the category an image shows."""
        return int(self.counts[rng.integers(len(self.counts))])

    def _folded(self, about: FloatArray, off: FloatArray) -> FloatArray:
        """Sizes so far off a middle within the bounds, thrown back into them."""
        low, high = self.bounds
        return folded(np.minimum(np.maximum(about, low), high) + off, low, high)

    def _frame(self, width: Extent, height: Extent) -> FloatArray | float:
        """What the image's size adds to the log of an object's."""
        return 0.5 * np.log(np.multiply(width, height, dtype=float)) if self.relative else 0.0


def free_places(middles: FloatArray, sides: FloatArray) -> FloatArray:
    """Free coordinates of boxes: middles and sides, float64 (n, 2), 0 to 1 of the image."""
    return np.clip(_free(middles, sides / 2), 0.0, 1.0)


def _halves(
    log_size: FloatArray,
    log_aspect: FloatArray,
    width: Extent,
    height: Extent,
) -> tuple[FloatArray, FloatArray]:
    """Half the sides, as shares of the image's."""
    return (
        np.exp(log_size + log_aspect / 2) / 2 / width,
        np.exp(log_size - log_aspect / 2) / 2 / height,
    )


def _room(halves: FloatArray) -> FloatArray:
    """How far a box's middle may go, as a share of the image's side."""
    return np.maximum(1 - 2 * halves, LEAST_ROOM)


def _free(middles: FloatArray, halves: FloatArray) -> FloatArray:
    return np.asarray((middles - 0.5) / _room(halves) + 0.5)


def _placed(free: FloatArray, halves: FloatArray) -> FloatArray:
    """Middles from free coordinates, as shares of the image's side."""
    return np.asarray((free - 0.5) * _room(halves) + 0.5)
