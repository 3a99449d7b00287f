"""What real boxes say of size, aspect, place and number: kernel densities, by category.

A category's density is a mixture of levels: kernels at its own boxes, at those of its supercategory, of categories
that are alike, and of all, and a broad floor. Boxes that are lent are moved and stretched about the category's own
middle. How much each level weighs is what makes the category's boxes most likely when their image is left out: with
ten boxes it borrows, with five hundred it hardly does.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.layouts.boxes import Boxes, Draws, Prior, free_places
from rarefill.layouts.densities import (
    EVEN,
    Kernels,
    Level,
    alike,
    evenly,
    fitted,
    shrunk_moments,
    weighed,
)
from rarefill.layouts.habits import Observed

__all__ = ["Boxes", "Draws", "Prior", "Priors", "affinity", "companions", "perspective", "together"]

_BORROWED = 6.0
"""How many boxes of its own outweigh the spread that a category borrows from all others."""
_CLEARLY = 0.95  # of the variance: less must be left, lest two odd images decide for all
_EDGE_PX = 1.0  # a box this near the image's edge is taken for cut off by it
SOONER = (np.log(0.05), np.log(4.0))  # bounds on the log of affinity: every image comes, none all the time
_BEYOND = (0.4, 0.6)
"""Log units that sizes may go beyond the category's own least and largest: two of its deviations, within these."""
_LEAST_WIDTH = 0.05  # of kernels, in log units and as a share of the image: labels are no more exact
_BROAD = 2.0  # times the category's deviation of size and aspect
_MOST = 800  # boxes that a lent level may have
_MOST_FITTED = 300  # own boxes that the widths and weights are fitted to
_ALIKE = 8  # categories to borrow from as alike
_TRUSTED = 10.0  # boxes that make half of an alike category's weight
_TIED = np.array(
    [0.5, 3.5]
)  # what form and place tied together and apart weigh before the data speak, in boxes


class Priors:
    """The priors of a dataset, each made when it is first asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        a, images = dataset.annotations, dataset.images
        self._rows = np.flatnonzero(~a.crowd)
        image, boxes = a.image[self._rows], a.boxes[self._rows]
        self._category = a.category[self._rows]
        frame = np.stack([images.width, images.height], axis=1)[image].astype(float)
        self._sides = sides = boxes[:, 2:] - boxes[:, :2]
        log_size, log_frame = 0.5 * np.log(sides.prod(axis=1)), 0.5 * np.log(frame.prod(axis=1))
        self.relative = _follows(log_size, log_frame, self._category)
        if self.relative:
            log_size = log_size - log_frame
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2 / frame
        feet = np.stack([middles[:, 0], boxes[:, 3] / frame[:, 1]], axis=1)
        free = free_places(middles, sides / frame)
        self._boxes = Boxes(log_size, np.log(sides[:, 0] / sides[:, 1]), feet, free, image.astype(np.int64))
        keep = np.all((boxes[:, :2] > _EDGE_PX) & (boxes[:, 2:] < frame - _EDGE_PX), axis=1)
        self.slope = perspective(
            log_size[keep], free[keep, 1], middles[keep, 1], self._category[keep], image[keep]
        )
        # What the edge cuts off says little of sizes; it is used only where a category has nothing better.
        self._used = keep | ~np.isin(self._category, np.unique(self._category[keep]))
        self._forms = np.stack([log_size - self.slope * free[:, 1], self._boxes.log_aspect], axis=1)
        self._observed = Observed(dataset, self._rows, keep)

    def of(self, category: str) -> Prior:
        """One category's prior.

        Raises:
            ValueError: the category has no box.
        """
        index = self._dataset.category_row(category)
        held = self._category == index
        rows = np.flatnonzero(held & self._used)
        if not rows.size:
            raise ValueError(f"no box of {category!r} to learn from")
        own = self._boxes.at(rows)
        beyond = float(np.clip(2 * self._moments[1][index, 0], *_BEYOND))
        form, place, tied = self._fitted(index, rows)
        images = self._dataset.annotations.image[self._rows[held]]
        return Prior(
            own,
            form,
            place,
            tied,
            self.slope,
            self.relative,
            (float(own.log_size.min()) - beyond, float(own.log_size.max()) + beyond),
            float(self._sides[rows].min()),
            np.unique(images, return_counts=True)[1].astype(np.int64),
            self._observed.of(held),
        )

    def _fitted(self, index: int, rows: NDArray[np.intp]) -> tuple[Kernels, Kernels, float]:
        """The densities of form and place, and the share in which they are tied together."""
        means, deviations = self._moments
        free, spread = self._boxes.free, deviations[index, :2]
        moved = means[index, :2] + (self._forms - means[self._category, :2]) * (
            spread / np.maximum(deviations[self._category, :2], 1e-9)
        )
        moved[rows] = self._forms[rows]
        few, lent = evenly(rows, _MOST_FITTED), self._lent(index)
        broad_form = _floor(means[index, :2], np.maximum(_BROAD * spread, 5 * _LEAST_WIDTH))
        broad_place = _floor(np.full(2, 0.5), np.full(2, EVEN))
        forms = [self._level(moved, r, w, spread) for r, w in lent]
        places = [self._level(free, r, w, free[r].std(axis=0) if len(r) else spread) for r, w in lent]

        def own(points: FloatArray, some: NDArray[np.intp], deviation: FloatArray) -> Level:
            return self._level(points, some, np.ones(len(some)), deviation)

        room = deviations[index, 2:]
        form = fitted([own(moved, few, spread), *forms, broad_form], bounded=False)
        place = fitted([own(free, few, room), *places, broad_place], bounded=True)
        both = (form.kernels * place.kernels).sum(axis=1) / form.others
        shares, _ = weighed(np.stack([both, form.left_out * place.left_out], axis=1), _TIED)
        return (
            Kernels.of([own(moved, rows, spread).scaled(form.factor), *forms, broad_form], form.shares),
            Kernels.of([own(free, rows, room).scaled(place.factor), *places, broad_place], place.shares),
            float(shares[0]),
        )

    def _level(
        self, points: FloatArray, rows: NDArray[np.intp], weights: FloatArray, deviation: FloatArray
    ) -> Level:
        """A level that stands on some of the boxes."""
        # Scott, Multivariate Density Estimation, 1992: n ** (-1 / (d + 4)), here with d = 2.
        width = np.maximum(deviation * max(len(rows), 1) ** (-1 / 6), _LEAST_WIDTH)
        return Level(points[rows], weights, self._boxes.image[rows], width)

    def _lent(self, index: int) -> list[tuple[NDArray[np.intp], FloatArray]]:
        """What supercategory, similar and pool lend to a category: rows and their weights."""
        categories, used = self._dataset.categories, np.flatnonzero(self._used)
        group = self._category[used]
        above = np.array([c.supercategory == categories[index].supercategory for c in categories])
        kin = above & bool(categories[index].supercategory) & (not above.all())
        mates = evenly(used[kin[group] & (group != index)], _MOST)
        n = np.bincount(group, minlength=len(categories))
        means, deviations = self._moments
        weight = alike(means, np.maximum(deviations, _LEAST_WIDTH) ** 2, index) * n / (n + _TRUSTED)
        weight[index] = 0
        best = np.argsort(-weight, kind="stable")[:_ALIKE]
        near = np.concatenate([evenly(used[group == c], _MOST // _ALIKE) for c in best])
        of = self._category[near]
        each = weight[of] / np.maximum(np.bincount(of, minlength=len(categories)), 1)[of]
        near, each = near[each > 0], each[each > 0]
        pool = evenly(used, _MOST)
        return [(mates, np.ones(len(mates))), (near, each), (pool, np.ones(len(pool)))]

    @cached_property
    def _moments(self) -> tuple[FloatArray, FloatArray]:
        """float64 (categories, 4) each: means and deviations of form and place."""
        values = np.concatenate([self._forms, self._boxes.free], axis=1)[self._used]
        group = self._category[self._used]
        return shrunk_moments(values, group, len(self._dataset.categories), _BORROWED)


def _floor(point: FloatArray, width: FloatArray) -> Level:
    """A level of one kernel."""
    return Level(point[None], np.ones(1), np.array([-1]), width)


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
    return np.asarray(np.exp(np.clip(np.where(here, np.maximum(ratio, 0), ratio), *SOONER)))


def companions(held: NDArray[np.bool_], category: int, others: Sequence[int]) -> FloatArray:
    """How often images with a category hold each of some others, 0 to 1."""
    here = held[held[:, category]]
    return here[:, list(others)].mean(axis=0) if len(here) else np.zeros(len(others))
