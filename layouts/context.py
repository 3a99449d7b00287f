"""Where a category belongs, learned from the user's images alone: what surrounds its real objects, against what
surrounds random places of the same images.
"""

import threading
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.layouts.around import ALONE, COMPANY, GROUP, Around, frequent, running, runs
from rarefill.layouts.kinds import Kinds
from rarefill.layouts.leaning import Leaning, learned
from rarefill.layouts.priors import Draws, Prior, Priors
from rarefill.layouts.ratio import Places, Ratio, fit
from rarefill.layouts.surroundings import Surroundings
from rarefill.layouts.turning import long_axes
from rarefill.progress import SILENT, Progress

_MOST_REAL = 400  # real objects that a model learns from; an even sample where there are more
_N_RANDOM = 2000  # random places
_MOST_IMAGES = 400  # that the random places are on; those with the category come to it
_PLAUSIBLE = 24  # places that an image is judged by
_JITTER = 0.1  # log units, of the sizes of places
_SEED = 20221


class Context:
    """Context models, each made when its category is first asked for. May be used from many threads."""

    def __init__(
        self,
        dataset: Dataset,
        bank: Bank | None = None,
        *,
        cache: Path | None = None,
        progress: Progress = SILENT,
    ) -> None:
        """Look at all images, or read what an earlier run kept.

        Args:
            dataset: whose images and annotations.
            bank: of the categories whose objects may lie along the edges around them, or across; None: no category's do.
            cache: folder where the images' grids are kept from run to run.
            progress: shows the looking, which takes some 10 ms an image.

        Raises:
            DataError: an image cannot be read.
            RunError: the cache cannot be written.
        """
        self._dataset, self._bank = dataset, bank
        self._surroundings = Surroundings(dataset, cache=cache, progress=progress)
        self._lock = threading.RLock()
        self._models: dict[str, _Model] = {}
        self._suits: dict[str, FloatArray] = {}

    def scores(self, category: str, image: int | NDArray[np.intp], boxes: FloatArray) -> FloatArray:
        """Log odds that such a place holds the category, against a random place of the dataset.

        Args:
            category: its name.
            image: row in `dataset.images`; or intp (n,), that of each place, those of one image beside each other.
            boxes: float64 (n, 4), x1 y1 x2 y2.

        Returns:
            float64 (n,), all 0 for a category without a real object.

        Raises:
            DataError: the dataset has no such category.
        """
        return self._model(category).scores(image, boxes)

    def wanted(
        self,
        category: str,
        image: int | NDArray[np.intp],
        boxes: FloatArray,
        axes_deg: FloatArray,
        temperature: float,
    ) -> tuple[FloatArray, FloatArray]:
        """`scores`, and how much likelier than any other is the way in which objects would lie there.

        Args:
            category: its name.
            image: as in `scores`.
            boxes: float64 (n, 4).
            axes_deg: float64 (n,), long axes from 0 to 180, clockwise from the right; NaN for round objects.
            temperature: below 1 likely ways are the more likely.

        Returns:
            Two of float64 (n,), log odds. The second is 0 where nothing is known. All directions together have the odds of
            any, so a place where an object may lie in any of them is wanted neither more nor less for its edges.
        """
        return self._model(category).wanted(image, boxes, axes_deg, temperature)

    def images(self, category: str) -> FloatArray:
        """How well each image suits as a whole: log of the mean odds over places and sizes as the category has them.

        Returns:
            float64 (N,), all 0 for a category without a real object.

        Raises:
            DataError: the dataset has no such category.
        """
        model = self._model(category)
        with self._lock:
            if category not in self._suits:
                self._suits[category] = model.images()
            return self._suits[category].copy()

    def cells(self, image: int | NDArray[np.intp], boxes: FloatArray) -> NDArray[np.int8]:
        """Which of the dataset's kinds of surroundings each place has, and how light they are; `image` as in `scores`.

        Returns:
            int8 (n, 2): 0 to 5, the darkest kind first, and 0 to 2, a third of all random places each.
        """
        with self._lock:
            kinds = self._kinds
        return kinds.of(image, boxes)

    @cached_property
    def _kinds(self) -> Kinds:
        return Kinds(self._surroundings, seed=_SEED)

    @cached_property
    def _priors(self) -> Priors:
        return Priors(self._dataset)

    def _model(self, category: str) -> "_Model":
        held = self._models.get(category)
        if held is not None:
            return held
        with self._lock:
            if category not in self._models:
                self._models[category] = self._learned(category)
            return self._models[category]

    def _learned(self, category: str) -> "_Model":
        row = self._dataset.category_row(category)
        around = Around(self._dataset, self._surroundings, row, frequent(self._dataset, row))
        if not self._dataset.rows_of(category).size:
            return _Model(self._dataset, around, None, None, None, Leaning())
        prior = self._priors.of(category)
        found = places(self._dataset, around, prior, category)
        among = fit(found, GROUP) if found.features[:, COMPANY].any() else None
        leaning = self._leaning(around, category)
        return _Model(self._dataset, around, prior, alone(found), among, leaning)

    def _leaning(self, around: Around, category: str) -> Leaning:
        """How the category's long objects lie to what is around them."""
        held = [] if self._bank is None else self._bank.of(category)
        if not held:
            return Leaning()
        boxes = self._dataset.annotations.boxes
        seen = [around.features(e.image, boxes[[e.annotation]]) for e in held]
        image = np.array([e.image for e in held], dtype=np.intp)
        return learned(long_axes(held), running(np.concatenate(seen)), image)


class _Model:
    """What is known of one category; nothing where it has no real object."""

    def __init__(
        self,
        dataset: Dataset,
        around: Around,
        prior: Prior | None,
        alone: Ratio | None,
        among: Ratio | None,
        leaning: Leaning,
    ) -> None:
        """`alone` knows nothing of company; `among` does, None where no two objects share an image."""
        self._dataset, self._around, self._prior = dataset, around, prior
        self._alone, self._among, self._leaning = alone, among, leaning

    def scores(self, image: int | NDArray[np.intp], boxes: FloatArray) -> FloatArray:
        if self._alone is None or not len(boxes):
            return np.zeros(len(boxes))
        return self._odds(self._alone, image, self._around.features(image, boxes))

    def wanted(
        self, image: int | NDArray[np.intp], boxes: FloatArray, axes_deg: FloatArray, temperature: float
    ) -> tuple[FloatArray, FloatArray]:
        if self._alone is None or not len(boxes):
            return np.zeros(len(boxes)), np.zeros(len(boxes))
        found = self._around.features(image, boxes)
        odds = self._odds(self._alone, image, found)
        return odds, self._leaning.at(temperature)(axes_deg, running(found))

    def _odds(self, alone: Ratio, image: int | NDArray[np.intp], found: FloatArray) -> FloatArray:
        """An image without the category is not held against its places: it is where new ones are to come to."""
        held = runs(image, len(found))
        shown = [self._among is not None and len(self._around.own(i)) > 0 for i, _, _ in held]
        if self._among is None or not any(shown):
            return alone(found[:, ALONE])
        out = self._among(found)
        if not all(shown):
            lone = np.repeat(np.logical_not(shown), [end - at for _, at, end in held])
            out[lone] = alone(found[lone, ALONE])
        return out

    def images(self) -> FloatArray:
        n = len(self._dataset.images)
        out = np.zeros(n)
        if self._prior is None or self._alone is None:
            return out
        for image in range(n):
            rng = np.random.default_rng([_SEED, image])
            boxes = plausible(rng, self._dataset, self._prior, image, _PLAUSIBLE)
            scores = self._alone(self._around.features(image, boxes)[:, ALONE])
            out[image] = np.logaddexp.reduce(scores) - np.log(len(scores))
        return out


def alone(found: Places) -> Ratio:
    """A model of places that knows nothing of company."""
    return fit(Places(found.features[:, ALONE], found.real, found.image, found.weight), GROUP[ALONE])


def places(dataset: Dataset, around: Around, prior: Prior, category: str) -> Places:
    """What a category's model learns from: its real objects, and random places of its sizes on all kinds of images.

    Each random image weighs the same, so that images are told apart as well as places within them; so does each
    real object. No object is its own company, and one of a random place's image is none.
    """
    rows = _spread(dataset.rows_of(category), _MOST_REAL)
    image_of = dataset.annotations.image[rows].astype(np.intp)
    parts = []
    for i, r in zip(image_of.tolist(), rows, strict=True):
        box = dataset.annotations.boxes[[r]]
        itself = np.flatnonzero((around.own(i) == box).all(axis=1))[:1]
        parts.append(around.features(i, box, itself))
    images = np.union1d(_spread(np.arange(len(dataset.images)), _MOST_IMAGES), image_of)
    each = max(4, _N_RANDOM // len(images))
    for image in images.tolist():
        rng = np.random.default_rng([_SEED, image])
        boxes = anywhere(rng, dataset, prior, image, each)
        parts.append(around.features(image, boxes, one_less(rng, len(around.own(image)), each)))
    n_real, n_random = len(rows), each * len(images)
    return Places(
        np.concatenate(parts),
        np.arange(n_real + n_random) < n_real,
        np.concatenate([image_of, np.repeat(images, each)]),
        np.ones(n_real + n_random),
    )


def one_less(rng: np.random.Generator, own: int, n: int) -> NDArray[np.intp]:
    """Which of an image's own objects does not count for each of n random places; -1 where there is none."""
    return rng.integers(own, size=n) if own else np.full(n, -1)


def anywhere(rng: np.random.Generator, dataset: Dataset, prior: Prior, image: int, n: int) -> FloatArray:
    """Boxes of a category's sizes, uniformly placed wholly inside an image: float64 (n, 4)."""
    frame, sides, _ = _drawn(rng, dataset, prior, image, n)
    corner = rng.random((n, 2)) * (frame - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def plausible(rng: np.random.Generator, dataset: Dataset, prior: Prior, image: int, n: int) -> FloatArray:
    """Boxes of a category's sizes where it has them, moved wholly inside an image: float64 (n, 4)."""
    frame, sides, drawn = _drawn(rng, dataset, prior, image, n)
    corner = np.stack([drawn.x - sides[:, 0] / 2, drawn.foot - sides[:, 1]], axis=1)
    corner = np.clip(corner, 0, frame - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def _drawn(
    rng: np.random.Generator, dataset: Dataset, prior: Prior, image: int, n: int
) -> tuple[FloatArray, FloatArray, Draws]:
    width, height = int(dataset.images.width[image]), int(dataset.images.height[image])
    drawn = prior.draw(rng, n, width, height, _JITTER)
    half = np.stack([drawn.log_aspect, -drawn.log_aspect], axis=1) / 2
    frame = np.array([width, height], dtype=float)
    return frame, np.minimum(np.exp(drawn.log_size[:, None] + half), frame), drawn


def _spread(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """An even sample of at most so many."""
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).round().astype(int)])
