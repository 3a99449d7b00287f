"""Kinds of surroundings: the dataset's own places in a few clusters, and in thirds by lightness."""

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray
from rarefill.layouts.around import nearby
from rarefill.layouts.sums import Frame
from rarefill.layouts.surroundings import Surroundings

N_KINDS = 6
_N_PLACES = 3000
_MOST_IMAGES = 400
_SIZES = (0.05, 0.25)  # of random places, as shares of the image's longer side
_ROUNDS = 30


class Kinds:
    """The kinds of one dataset: k-means over what random places have near them."""

    def __init__(self, surroundings: Surroundings, *, seed: int) -> None:
        n = len(surroundings)
        rng = np.random.default_rng(seed)
        images = np.arange(n) if n <= _MOST_IMAGES else np.sort(rng.choice(n, _MOST_IMAGES, replace=False))
        each = max(4, _N_PLACES // max(len(images), 1))
        found = [
            nearby(surroundings, i, _random_boxes(rng, surroundings.frames[i], each)) for i in images.tolist()
        ]
        near = np.concatenate(found) if found else np.zeros((1, 1))
        near = near[np.isfinite(near).all(axis=1)]
        self._surroundings = surroundings
        near = near if len(near) else np.zeros((1, found[0].shape[1] if found else 1))
        self._middle = near.mean(axis=0)
        deviation = near.std(axis=0)
        self._scale = np.where(deviation > 1e-5, 1 / np.maximum(deviation, 1e-5), 0)
        self._thirds = np.quantile(near[:, 0], [1 / 3, 2 / 3])
        centres = k_means((near - self._middle) * self._scale, N_KINDS, rng)
        self._centres = centres[np.argsort(centres[:, 0], kind="stable")]

    def of(self, image: int | NDArray[np.intp], boxes: FloatArray) -> NDArray[np.int8]:
        """int8 (n, 2): kind and third of boxes (n, 4), `image` as in `runs`.

        What fills its image has the dataset's mean around it.
        """
        near = nearby(self._surroundings, image, boxes)
        near = np.where(np.isfinite(near), near, self._middle)
        kind = nearest((near - self._middle) * self._scale, self._centres)
        return np.stack([kind, np.searchsorted(self._thirds, near[:, 0])], axis=1).astype(np.int8)


def k_means(x: FloatArray, k: int, rng: np.random.Generator) -> FloatArray:
    """Centres float64 (k, F): Lloyd's rounds from spread-out starts (Arthur & Vassilvitskii, k-means++, SODA 2007).

    scipy's divides by 0 where fewer than k points differ, as those of a plain image do; here centres repeat.
    """
    centres: FloatArray = x[rng.integers(len(x))][None]
    while len(centres) < k:
        distance = ((x[:, None] - centres) ** 2).sum(axis=2).min(axis=1) + 1e-12
        centres = np.concatenate([centres, x[[rng.choice(len(x), p=distance / distance.sum())]]])
    for _ in range(_ROUNDS):
        kind = nearest(x, centres)
        moved = np.array([x[kind == i].mean(axis=0) if (kind == i).any() else centres[i] for i in range(k)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def nearest(x: FloatArray, centres: FloatArray) -> NDArray[np.intp]:
    """The nearest centre of each row."""
    # What a row's own square adds is the same for all centres.
    return np.asarray(((centres * centres).sum(axis=1) - 2 * (x @ centres.T)).argmin(axis=1))


def _random_boxes(rng: np.random.Generator, frame: Frame, n: int) -> FloatArray:
    size = np.array([frame.width, frame.height], dtype=float)
    sides = np.minimum(rng.uniform(*_SIZES, (n, 1)) * size.max(), size)
    corner = rng.random((n, 2)) * (size - sides)
    return np.concatenate([corner, corner + sides], axis=1)
