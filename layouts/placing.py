"""Finding a place for one object on one background."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from rarefill.bank import Bank, silhouette
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray, Mask
from rarefill.layouts.ignored import regions
from rarefill.layouts.obstacles import EDGE, OVER, Obstacles, region_of
from rarefill.layouts.priors import Draws, Prior, Priors
from rarefill.layouts.shapes import Picks, Shapes
from rarefill.recipe import LayoutConfig
from rarefill.scene import Placement, Shape
from rarefill.seeds import Stage, rng

NO_SHAPE = "no shape to give it"
_BATCHES = (4, 12, 48)
"""Places drawn and sieved together: few at first, as most objects find theirs at once; the last number repeats."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of one category.

    Attributes:
        prior: of its boxes.
        shapes: its silhouettes.
        least_px: the smallest side an object of it may have.
    """

    prior: Prior
    shapes: Shapes
    least_px: float


@dataclass(frozen=True, slots=True)
class Spot:
    """Names one placement: what its random stream derives from."""

    image: int
    copy: int
    index: int
    attempt: int = 0


class Placer:
    """Draws places from the priors until one meets every constraint. May be called from many threads."""

    def __init__(self, dataset: Dataset, bank: Bank, config: LayoutConfig, *, seed: int) -> None:
        self._dataset, self._bank, self._config, self._seed = dataset, bank, config, seed
        self._region = region_of(config.region)
        self._ignored = regions(dataset)
        self._priors = Priors(dataset)
        self._known: dict[str, Known] = {}

    def scene(self, image: int) -> Obstacles:
        """What stands in the way on a background before anything is planned on it."""
        return Obstacles(self._dataset, image, self._config, self._region, self._ignored.get(image))

    def known(self, category: str) -> Known:
        """What is known of a category; made once, and the same whichever thread makes it first.

        Raises:
            DataError: the dataset has no such category.
            ValueError: the category has no box.
        """
        if category not in self._known:
            prior = self._priors.of(category)
            least = min(self._config.min_px, prior.least_px)
            shapes = Shapes(
                self._dataset, self._bank, category, mirror=category not in self._config.no_mirror
            )
            self._known[category] = Known(prior, shapes, least)
        return self._known[category]

    def place(
        self, category: str, scene: Obstacles, spot: Spot, reasons: Counter[str], *, depth: int = 0
    ) -> Placement | None:
        """Find a place for one object, or None after as many tries as the configuration allows.

        Args:
            category: its name.
            scene: the background with what is planned on it already.
            spot: names the placement.
            reasons: counts what spoke against the places tried.
            depth: of the placement.
        """
        known = self.known(category)
        source = rng(self._seed, Stage.PLACE, spot.image, spot.copy, spot.index, spot.attempt)
        seed = int(source.integers(2**31))
        for n in _batches(self._config.tries):
            draws = known.prior.draw(source, n, scene.width, scene.height, self._config.jitter)
            picks = known.shapes.choose(source, draws.log_size, draws.log_aspect, spot.image)
            if picks is None:
                reasons[NO_SHAPE] += 1
                return None
            found = self._first(known, scene, draws, picks, reasons)
            if found is not None:
                mask, shape, overlap = found
                return Placement(category, mask, depth, seed, shape=shape, score=round(1 - overlap, 4))
        return None

    def _first(
        self, known: Known, scene: Obstacles, draws: Draws, picks: Picks, reasons: Counter[str]
    ) -> tuple[Mask, Shape, float] | None:
        """The first of a batch of draws that can be, with its overlap."""
        boxes = _reflected(_boxes(draws, picks), scene.width, scene.height)
        fill = known.shapes.fill[picks.exemplar]
        for i, why in enumerate(scene.sieve(boxes, fill, known.least_px)):
            found = why if why is not None else self._exactly(known, scene, boxes[i], picks, i)
            if not isinstance(found, str):
                return found
            reasons[found] += 1
        return None

    def _exactly(
        self, known: Known, scene: Obstacles, about: FloatArray, picks: Picks, i: int
    ) -> tuple[Mask, Shape, float] | str:
        """The i-th draw's silhouette where it would stand and its overlap, or why it cannot stand there."""
        exemplar, shape, width, height = known.shapes.turned(picks, i)
        x, y = float(about[0] + about[2]) / 2, float(about[1] + about[3]) / 2
        box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        whole = silhouette(exemplar.mask, shape, box)
        mask = whole.clipped(scene.width, scene.height)
        if mask is None or mask.area < whole.area:
            return EDGE
        reason = scene.refuses(mask, known.least_px)
        if reason is not None:
            return reason
        overlap = scene.overlap(mask)
        return OVER if overlap > self._config.max_overlap else (mask, shape, overlap)


def _batches(tries: int) -> Iterator[int]:
    """Numbers that add up to the tries."""
    for size in chain(_BATCHES, repeat(_BATCHES[-1])):
        if tries <= 0:
            return
        yield min(size, tries)
        tries -= size


def _boxes(draws: Draws, picks: Picks) -> FloatArray:
    """float64 (n, 4): the silhouettes' boxes before the small rotation, in the middle of the labels' boxes drawn."""
    y = draws.foot - np.exp(draws.log_size - draws.log_aspect / 2) / 2
    half_width = np.exp(picks.log_size + picks.log_aspect / 2) / 2
    half_height = np.exp(picks.log_size - picks.log_aspect / 2) / 2
    return np.stack([draws.x - half_width, y - half_height, draws.x + half_width, y + half_height], axis=1)


def _reflected(boxes: FloatArray, width: int, height: int) -> FloatArray:
    """Boxes that jitter pushed over the image's edge, thrown back by as much; to refuse them would favour small ones.

    Source: the reflection method for kernel densities with a boundary (Silverman 1986, section 2.10).
    """
    low = np.maximum(-boxes[:, :2], 0)
    high = np.maximum(boxes[:, 2:] - (width, height), 0)
    return np.asarray(boxes + 2 * np.tile(low - high, 2))
