"""What real boxes say of size, aspect, place and number: kernel densities that are sampled, never tabulated.

A draw takes a real box of the category and jitters it, so that size, aspect and place stay together as they are in
the data. A category with few boxes borrows places and the spread of sizes from all categories.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray

_BORROWED = 4.0
"""How many boxes of its own outweigh what a category borrows from all others."""
_WIDEST = 0.2  # of the image's side: a wider kernel would forget where the category lives
_CLEARLY = 0.95  # of the variance: less must be left, lest two odd images decide for all
_EDGE_PX = 1.0  # a box this near the image's edge is taken for cut off by it
_SOONER = (np.log(0.05), np.log(4.0))  # bounds on the log of affinity: every image comes, none all the time
_BEYOND = 0.4  # log units that borrowed sizes may go beyond the category's own least and largest


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


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Real boxes in the units of the priors.

    Attributes:
        log_size: float64 (n,), log of sqrt(w * h), less the log of the image's own where sizes follow it.
        log_aspect: float64 (n,), log of w / h.
        feet: float64 (n, 2), x of the middle and y of the lower edge, 0 to 1 of the image.
    """

    log_size: FloatArray
    log_aspect: FloatArray
    feet: FloatArray

    def __len__(self) -> int:
        return len(self.log_size)

    def at(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Boxes":
        """Some of them."""
        return Boxes(self.log_size[rows], self.log_aspect[rows], self.feet[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """One category's boxes as a density.

    Attributes:
        own: its boxes, at least one.
        pool: boxes of all categories; `log_size` is about each one's own category.
        typical: the category's median `log_size`.
        slope: what one image height further down adds to `log_size`.
        relative: whether sizes follow the image's size.
        spread: float64 (2,), the kernel's deviation in x and y, 0 to 1 of the image.
        least_px: the smallest side among its boxes.
        counts: int64, how many a real image that holds it holds.
    """

    own: Boxes
    pool: Boxes
    typical: float
    slope: float
    relative: bool
    spread: FloatArray
    least_px: float
    counts: NDArray[np.int64]

    def draw(self, rng: np.random.Generator, n: int, width: int, height: int, jitter: float) -> Draws:
        """Boxes for an image of this size; `jitter` is the deviation of size and aspect in log units."""
        own = rng.integers(len(self.own), size=n)
        borrowed = rng.random(n) < _BORROWED / (len(self.own) + _BORROWED)
        other = rng.integers(len(self.pool), size=n)
        feet = np.where(borrowed[:, None], self.pool.feet[other], self.own.feet[own])
        low, high = float(self.own.log_size.min()) - _BEYOND, float(self.own.log_size.max()) + _BEYOND
        lent = np.clip(self.typical + self.pool.log_size[other], low, high)
        size = np.where(borrowed, lent, self.own.log_size[own])
        noise = rng.standard_normal((4, n))
        moved = noise[:2].T * self.spread
        size = size + self.slope * moved[:, 1] + noise[2] * jitter
        if self.relative:
            size = size + 0.5 * np.log(width * height)
        places = (feet + moved) * (width, height)
        aspect = self.own.log_aspect[own] + noise[3] * jitter
        return Draws(size, aspect, places[:, 0], places[:, 1])

    def count(self, rng: np.random.Generator) -> int:
        """How many objects of the category an image shows."""
        return int(self.counts[rng.integers(len(self.counts))])


class Priors:
    """The priors of a dataset, each made when it is first asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        a, images = dataset.annotations, dataset.images
        self._rows = np.flatnonzero(~a.crowd)
        image, boxes = a.image[self._rows], a.boxes[self._rows]
        self._category = a.category[self._rows]
        frame = np.stack([images.width, images.height], axis=1)[image].astype(float)
        sides = boxes[:, 2:] - boxes[:, :2]
        log_size = 0.5 * np.log(sides.prod(axis=1))
        self.relative = _follows(log_size, 0.5 * np.log(frame.prod(axis=1)), self._category)
        if self.relative:
            log_size = log_size - 0.5 * np.log(frame.prod(axis=1))
        feet = np.stack([boxes[:, [0, 2]].mean(axis=1), boxes[:, 3]], axis=1) / frame
        self._boxes = Boxes(log_size, np.log(sides[:, 0] / sides[:, 1]), feet)
        self._whole = ((boxes[:, :2] > _EDGE_PX) & (boxes[:, 2:] < frame - _EDGE_PX)).all(axis=1)
        middles = boxes[:, [1, 3]].mean(axis=1) / frame[:, 1]
        keep = self._whole
        self.slope = perspective(
            log_size[keep], feet[keep, 1], middles[keep], self._category[keep], image[keep]
        )
        self._sides = sides

    def of(self, category: str) -> Prior:
        """One category's prior.

        Raises:
            ValueError: the category has no box.
        """
        held = self._category == self._dataset.category_row(category)
        whole = held & self._whole
        # What the edge cuts off says little of sizes; it is used only where there is nothing better.
        rows = np.flatnonzero(whole if whole.any() else held)
        if not rows.size:
            raise ValueError(f"no box of {category!r} to learn from")
        own = self._boxes.at(rows)
        n = len(own)
        variance = n * own.feet.var(axis=0) + _BORROWED * self._pool.feet.var(axis=0)
        # Scott, Multivariate Density Estimation, 1992: n ** (-1 / (d + 4)), here with d = 2.
        spread = np.minimum(np.sqrt(variance / (n + _BORROWED)) * n ** (-1 / 6), _WIDEST)
        images = self._dataset.annotations.image[self._rows[held]]
        return Prior(
            own,
            self._pool,
            float(np.median(own.log_size)),
            self.slope,
            self.relative,
            spread,
            float(self._sides[rows].min()),
            np.unique(images, return_counts=True)[1].astype(np.int64),
        )

    @cached_property
    def _pool(self) -> Boxes:
        """All whole boxes, with sizes about their own category's median."""
        keep = np.flatnonzero(self._whole) if self._whole.any() else np.arange(len(self._rows))
        pool = self._boxes.at(keep)
        size, category = pool.log_size.copy(), self._category[keep]
        for c in np.unique(category):
            size[category == c] -= np.median(size[category == c])
        return Boxes(size, pool.log_aspect, pool.feet)


def perspective(
    log_size: FloatArray,
    foot: FloatArray,
    middle: FloatArray,
    category: NDArray[np.int32],
    image: NDArray[np.int32],
) -> float:
    """What one image height further down adds to log size, over all categories with an offset for each.

    A larger object's foot lies lower by itself, in any world; its middle does not. So whether there is a perspective
    at all is asked of the middles (deviations clustered by image), and its slope is taken from the feet. The
    slope fades to 0 where the question's t falls towards 2.

    Args:
        log_size: float64 (n,).
        foot: float64 (n,), 0 to 1 of the image's height.
        middle: float64 (n,), 0 to 1 of the image's height.
        category: int (n,).
        image: int (n,).
    """
    if len(log_size) < 10:
        return 0.0
    y, x, m = (_about_means(v, category) for v in (log_size, foot, middle))
    if not (m.any() and x.any()):
        return 0.0
    tested = float(m @ y / (m @ m))
    clusters = np.bincount(image, weights=m * (y - tested * m))
    error = float(np.sqrt(clusters @ clusters) / (m @ m))
    t = tested / max(error, 1e-9)
    return max(0.0, 1 - 4 / t**2) * float(x @ y / (x @ x)) if abs(t) > 2 else 0.0


def _about_means(values: FloatArray, group: NDArray[np.int32]) -> FloatArray:
    n = np.maximum(np.bincount(group), 1)
    return np.asarray(values - (np.bincount(group, weights=values) / n)[group])


def _follows(log_size: FloatArray, log_frame: FloatArray, category: NDArray[np.int32]) -> bool:
    """Whether sizes are more alike as shares of their image than in pixels."""
    if not len(log_size) or np.ptp(log_frame) == 0:
        return False
    in_px, as_share = (_about_means(v, category) for v in (log_size, log_size - log_frame))
    return float(as_share @ as_share) < _CLEARLY * float(in_px @ in_px)


def together(dataset: Dataset) -> NDArray[np.bool_]:
    """bool (images, columns): what each image holds, crowds among them.

    The first columns are the categories; supercategories follow where the file tells several apart: with few images
    they are what can be learned of streets and kitchens.
    """
    above = sorted({c.supercategory for c in dataset.categories})
    n = len(dataset.categories)
    out = np.zeros((len(dataset.images), n + (len(above) if len(above) > 1 else 0)), dtype=bool)
    image, category = dataset.annotations.image, dataset.annotations.category
    out[image, category] = True
    if len(above) > 1:
        column = np.array([n + above.index(c.supercategory) for c in dataset.categories])
        out[image, column[category]] = True
    return out


def affinity(held: NDArray[np.bool_], category: int) -> FloatArray:
    """How much sooner than at random an image should come to a category, by what else it holds: 0.05 to 4.

    A naive Bayes ratio over what is there, smoothed by one imaginary image; it keeps a stop sign out of kitchens.
    Where all images are alike, all are near 1. An image that holds the category itself is no worse than 1.

    Args:
        held: bool (images, columns), as `together` gives it.
        category: its column.
    """
    here = held[:, category]
    others = held.copy()
    others[:, category] = False
    overall = (others.sum(axis=0) + 1) / (len(held) + 2)
    with_it, without = ((others[rows].sum(axis=0) + overall) / (rows.sum() + 1) for rows in (here, ~here))
    ratio = others @ np.log(with_it / without)
    return np.asarray(np.exp(np.clip(np.where(here, np.maximum(ratio, 0), ratio), *_SOONER)))


def companions(held: NDArray[np.bool_], category: int, others: Sequence[int]) -> FloatArray:
    """How often images with a category hold each of some others, 0 to 1."""
    here = held[held[:, category]]
    return here[:, list(others)].mean(axis=0) if len(here) else np.zeros(len(others))
