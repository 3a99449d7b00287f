"""Finding a place for one object on one background.

Places are drawn from the prior, sieved, weighed by the context and by what the plan still lacks, and the first that
meets every constraint is taken, the most wanted first.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarefill.bank import Bank, visible
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray, Mask
from rarefill.layouts.coverage import Cells, Coverage
from rarefill.layouts.ignored import regions
from rarefill.layouts.obstacles import EDGE, OVER, Obstacles, region_of
from rarefill.layouts.partly import LEAST_SHOWN, Edges
from rarefill.layouts.priors import Draws, Prior, Priors
from rarefill.layouts.shapes import Picks, Shapes
from rarefill.recipe import LayoutConfig
from rarefill.scene import FEATHER_PX, Placement, Shape
from rarefill.seeds import Stage, rng

if TYPE_CHECKING:
    from rarefill.layouts.context import Context

NO_SHAPE = "no shape to give it"
UNLIKELY = "an unlikely place"
_BATCHES = (16, 24, 48)
"""Places drawn and weighed together; the last number repeats."""
_FLOORS = (0.0, -1.0, -2.5)
"""Log odds at a temperature of 1 that a place must have in the first batch, the second, and after: the best of a poor
background will do, but not what is hardly ever seen."""
_SIZED = 256  # draws that tell which sizes a category has


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of one category.

    Attributes:
        prior: of its boxes.
        shapes: its silhouettes.
        edges: where it is cut off.
        least_px: the smallest side an object of it may have.
    """

    prior: Prior
    shapes: Shapes
    edges: Edges
    least_px: float


@dataclass(frozen=True, slots=True)
class Spot:
    """Names one placement: what its random stream derives from."""

    image: int
    copy: int
    index: int
    attempt: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """What is decided of an object before its place is.

    Attributes:
        cut: the image's edge cuts it off.
        behind: it may stand behind what is there.
        beside: an object of its kind that it keeps company with.
        coverage: what it shall add to; None where it follows the real density alone.
    """

    cut: bool
    behind: bool
    beside: Placement | None
    coverage: Coverage | None


class Placer:
    """Draws places from the priors until one meets every constraint. May be called from many threads."""

    def __init__(
        self,
        dataset: Dataset,
        bank: Bank,
        config: LayoutConfig,
        *,
        seed: int,
        context: "Context | None" = None,
    ) -> None:
        self._dataset, self._bank, self._config, self._seed = dataset, bank, config, seed
        self._context = context
        self._region = region_of(config.region)
        self._ignored = regions(dataset)
        self._priors = Priors(dataset)
        self._lock = threading.Lock()
        self._known = lru_cache(None)(self._learned)

    def scene(self, image: int) -> Obstacles:
        """What stands in the way on a background before anything is planned on it."""
        return Obstacles(self._dataset, image, self._config, self._region, self._ignored.get(image))

    def known(self, category: str) -> Known:
        """What is known of a category; made once, and the same whichever thread makes it first.

        Raises:
            DataError: the dataset has no such category.
            ValueError: the category has no box.
        """
        with self._lock:
            return self._known(category)

    def _learned(self, category: str) -> Known:
        prior = self._priors.of(category)
        mirror = category not in self._config.no_mirror
        shapes = Shapes(self._dataset, self._bank, category, mirror=mirror)
        least = min(self._config.min_px, prior.least_px)
        return Known(prior, shapes, Edges.of(self._dataset, category), least)

    def coverage(self, category: str) -> Coverage:
        """A fresh count of what a category's places are like.

        Raises:
            DataError, ValueError: as `known`.
        """
        images, prior = self._dataset.images, self.known(category).prior
        width, height = int(np.median(images.width)), int(np.median(images.height))
        sizes = prior.draw(np.random.default_rng(0), _SIZED, width, height, self._config.jitter)
        return Coverage.begin(self._dataset, category, Cells(sizes.log_size, self._context))

    def place(
        self,
        category: str,
        scene: Obstacles,
        spot: Spot,
        reasons: Counter[str],
        *,
        depth: int = 0,
        beside: Placement | None = None,
        coverage: Coverage | None = None,
    ) -> Placement | None:
        """Find a place for one object, or None after as many tries as the configuration allows.

        Args:
            category: its name.
            scene: the background with what is planned on it already.
            spot: names the placement.
            reasons: counts what spoke against the places tried, where none was found.
            depth: of the placement.
            beside: another object of the category there, which it may keep company with.
            coverage: what the plan has of the category so far; the new object is counted.
        """
        known = self.known(category)
        source = rng(self._seed, Stage.PLACE, spot.image, spot.copy, spot.index, spot.attempt)
        seed = int(source.integers(2**31))
        wish = self._wish(source, known, beside, coverage)
        against: Counter[str] = Counter()
        for n, floor in _batches(self._config.tries):
            draws = self._draws(source, n, known, scene, wish)
            picks = known.shapes.choose(source, draws.log_size, draws.log_aspect, spot.image)
            if picks is None:
                against = Counter({NO_SHAPE: 1})
                break
            boxes = _boxes(draws, picks)
            if wish.cut:
                boxes = known.edges.over(source, boxes, scene.width, scene.height)
            else:
                boxes = _reflected(boxes, scene.width, scene.height)
            left, failed = scene.sieve(boxes, known.shapes.fill[picks.exemplar], known.least_px, cut=wish.cut)
            against += failed
            if not left.size:
                continue
            odds = self._odds(category, spot.image, boxes[left])
            order = self._order(source, spot.image, scene, boxes[left], odds, coverage, wish)
            for i in order:
                if odds[i] < floor * self._config.temperature:
                    against[UNLIKELY] += 1
                    continue
                found = self._exactly(known, scene, boxes[left[i]], picks, int(left[i]), wish)
                if isinstance(found, str):
                    against[found] += 1
                    continue
                mask, shape, whole, spared = found
                if coverage is not None:
                    self._count(coverage, spot.image, scene, mask)
                score = round(float(1 / (1 + np.exp(-odds[i]))), 3)
                return Placement(
                    category, mask, depth, seed, shape=shape, score=score, whole=whole, spared=spared
                )
            # What the edge or another object was to hide found no place: all of it may show.
            wish = Wish(cut=False, behind=False, beside=wish.beside, coverage=wish.coverage)
        reasons.update(against)
        return None

    def _wish(
        self, rng: np.random.Generator, known: Known, beside: Placement | None, coverage: Coverage | None
    ) -> Wish:
        chance = rng.random(4)
        explores = chance[3] < self._config.explore
        if self._config.habits == "off":
            return Wish(cut=False, behind=False, beside=None, coverage=coverage if explores else None)
        habits = known.prior.habits
        cut = bool(chance[0] < habits.truncated)
        return Wish(
            cut=cut,
            behind=not cut and bool(chance[1] < habits.occluded),
            beside=beside if chance[2] < habits.gathered else None,
            coverage=coverage if explores else None,
        )

    def _draws(self, rng: np.random.Generator, n: int, known: Known, scene: Obstacles, wish: Wish) -> Draws:
        size, jitter = (scene.width, scene.height), self._config.jitter
        if wish.beside is not None:
            near = known.prior.near(rng, n, _as_draw(wish.beside.whole or wish.beside.box), *size, jitter)
            if near is not None:
                return near
        return known.prior.draw(rng, n, *size, jitter)

    def _odds(self, category: str, image: int, boxes: FloatArray) -> FloatArray:
        """Log odds of places by their surroundings; all 0 where these are not asked."""
        if self._context is None:
            return np.zeros(len(boxes))
        return self._context.scores(category, image, boxes)

    def _order(
        self,
        rng: np.random.Generator,
        image: int,
        scene: Obstacles,
        boxes: FloatArray,
        odds: FloatArray,
        coverage: Coverage | None,
        wish: Wish,
    ) -> NDArray[np.intp]:
        """Places in the order in which they are tried: a draw without replacement by odds and need (Gumbel)."""
        wanted = odds / self._config.temperature
        if coverage is not None:
            cells = coverage.cells.of(image, boxes, scene.width, scene.height)
            coverage.draw(cells, odds)
            wanted = wanted + coverage.again(image, boxes)
            if wish.coverage is not None:
                wanted = wanted + coverage.wish(cells)
        return np.argsort(-(wanted + rng.gumbel(size=len(boxes))), kind="stable")

    def _count(self, coverage: Coverage, image: int, scene: Obstacles, mask: Mask) -> None:
        box = np.array([mask.box.xyxy])
        cell = coverage.cells.of(image, box, scene.width, scene.height)
        coverage.add(image, box[0], int(cell[0]))

    def _exactly(
        self, known: Known, scene: Obstacles, about: FloatArray, picks: Picks, i: int, wish: Wish
    ) -> tuple[Mask, Shape, Box | None, Mask | None] | str:
        """The i-th draw's silhouette where it would stand: mask, shape, whole and spared; or why it cannot stand there."""
        exemplar, shape, width, height = known.shapes.turned(picks, i)
        x, y = float(about[0] + about[2]) / 2, float(about[1] + about[3]) / 2
        box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        placed = visible(exemplar.mask, shape, box, scene.width, scene.height)
        if placed is None or (placed[1] is not None and not wish.cut):
            return EDGE
        (mask, whole), spared = placed, None
        if wish.behind and whole is None and scene.overlap(mask) > 0:
            front = scene.front(mask, FEATHER_PX)
            hidden = None if front is None else mask.minus(front)
            if front is None or hidden is None or hidden.area < LEAST_SHOWN * mask.area:
                return OVER
            if hidden.area < mask.area:
                mask, whole, spared = hidden, mask.box, front
        reason = scene.refuses(mask, known.least_px)
        if reason is not None:
            return reason
        return OVER if scene.overlap(mask) > self._config.max_overlap else (mask, shape, whole, spared)


def _batches(tries: int) -> Iterator[tuple[int, float]]:
    """Numbers that add up to the tries, each with the least log odds that are accepted."""
    floors = chain(_FLOORS, repeat(_FLOORS[-1]))
    for size, floor in zip(chain(_BATCHES, repeat(_BATCHES[-1])), floors, strict=False):
        if tries <= 0:
            return
        yield min(size, tries), floor if tries > size else _FLOORS[-1]
        tries -= size


def _as_draw(box: Box) -> Draws:
    return Draws(
        np.array([0.5 * np.log(box.area)]),
        np.array([np.log(box.width / box.height)]),
        np.array([(box.x1 + box.x2) / 2]),
        np.array([box.y2]),
    )


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
