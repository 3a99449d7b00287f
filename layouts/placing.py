"""Finding a place for one object on one background.

Places are drawn from the prior, sieved, weighed by the context and by what the plan still lacks, and the first that
meets every constraint is taken, the most wanted first. What is left of them serves the next objects there.
"""

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rarefill.bank import Bank, visible
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray, Mask
from rarefill.layouts.candidates import EACH, Candidates, Kept
from rarefill.layouts.coverage import Cells, Coverage
from rarefill.layouts.ignored import regions
from rarefill.layouts.obstacles import EDGE, NEAR, OVER, Background, Obstacles, region_of
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
_FEWEST, _MOST = 24, 96
"""Places drawn and weighed together at first: more where more objects will come to the background."""
_FURTHER = 48  # after those
_FLOORS = (0.0, -1.0, -1.75)
"""Log odds at a temperature of 1 that a place must have: the first that any of those drawn together has. The best of
a poor background will do, the last number only once others were drawn in vain: but not what is hardly ever seen.
Above 1 each degree lowers them by itself."""
_ABOUT = 0.35
"""Log units about the size drawn for an object that its places may have: small ones find room more easily, and a plan
that took whatever finds room would fill up with them. Only the last places tried may have any size."""
_SIZED = 256  # draws that tell which sizes a category has
_BACKGROUNDS = 200_000  # annotations on the backgrounds that stay in memory, some 300 bytes each
_MASKS = 1024  # decoded masks that do


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of one category.

    Attributes:
        category: its name.
        prior: of its boxes.
        shapes: its silhouettes.
        edges: where it is cut off.
        least_px: the smallest side an object of it may have.
    """

    category: str
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
        log_size: log of the root of its box's area, in pixels.
        cut: the image's edge cuts it off.
        behind: it may stand behind what is there.
        beside: an object of its kind that it keeps company with.
        coverage: what it shall add to; None where it follows the real density alone.
    """

    log_size: float
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
        each = max(1, len(dataset.annotations) // max(1, len(dataset.images)))
        self._background = lru_cache(max(16, _BACKGROUNDS // (each + 10)))(self._seen)
        self._mask = lru_cache(_MASKS)(dataset.mask)

    def scene(self, image: int) -> Obstacles:
        """What stands in the way on a background before anything is planned on it."""
        return Obstacles(self._background(image), self._config, self._region)

    def _seen(self, image: int) -> Background:
        return Background(self._dataset, image, self._ignored.get(image), self._mask)

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
        return Known(category, prior, shapes, Edges.of(self._dataset, category), least)

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
        kept: Kept | None = None,
        expected: int = 1,
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
            kept: places drawn for earlier objects, which serve this one too; None for a draw of its own.
            expected: how many objects of the category may come to the background, this one counted.
        """
        known = self.known(category)
        source = rng(self._seed, Stage.PLACE, spot.image, spot.copy, spot.index, spot.attempt)
        seed = int(source.integers(2**31))
        wish = self._wish(source, known, scene, beside, coverage)
        against: Counter[str] = Counter()
        tries, n = self._config.tries, min(max(_FEWEST, EACH * expected), _MOST)
        floors: tuple[float, ...] = _FLOORS[:-1]
        while tries > 0:
            lasting = kept if wish.beside is None else None
            held = lasting.get(category, spot.image, cut=wish.cut) if lasting is not None else None
            if held is None:
                held = self._candidates(source, min(n, tries), known, scene, spot.image, wish, coverage)
                if held is None:
                    against = Counter({NO_SHAPE: 1})
                    break
                if lasting is not None:
                    lasting.put(category, spot.image, held, cut=wish.cut)
            tries -= held.drawn
            against += held.against
            floors = floors if tries > 0 else _FLOORS
            taken = self._taken(source, held, known, scene, wish, floors, against, last=tries <= 0)
            if taken is not None:
                i, mask, shape, whole, spared = taken
                if coverage is not None:
                    coverage.add(spot.image, held.shown[i], int(held.cells[i]))
                if kept is not None:
                    kept.used(category, spot.image, held.shown[i])
                score = round(1 / (1 + math.exp(-float(held.odds[i]))), 3)
                return Placement(
                    category, mask, depth, seed, shape=shape, score=score, whole=whole, spared=spared
                )
            if lasting is not None:
                lasting.drop(category, spot.image, cut=wish.cut)
            # What the edge or another object was to hide found no place: all of it may show.
            wish = replace(wish, cut=False, behind=False)
            n, floors = _FURTHER, _FLOORS
        reasons.update(against)
        return None

    def _candidates(
        self,
        rng: np.random.Generator,
        n: int,
        known: Known,
        scene: Obstacles,
        image: int,
        wish: Wish,
        coverage: Coverage | None,
    ) -> Candidates | None:
        """Places drawn, sieved by what the background alone decides, and weighed; None without an exemplar to give."""
        draws = self._draws(rng, n, known, scene, wish)
        picks = known.shapes.choose(rng, draws.log_size, draws.log_aspect, image)
        if picks is None:
            return None
        boxes = _boxes(draws, picks)
        if wish.cut:
            boxes = known.edges.over(rng, boxes, scene.width, scene.height)
        else:
            boxes = _reflected(boxes, scene.width, scene.height)
        rows, against = scene.sieve(boxes, known.shapes.fill[picks.exemplar], known.least_px, cut=wish.cut)
        boxes = boxes[rows]
        shown = np.clip(boxes, 0, (scene.width, scene.height) * 2) if wish.cut else boxes
        odds, again = np.zeros(len(rows)), np.zeros(len(rows))
        cells = np.zeros(len(rows), dtype=np.intp)
        if self._context is not None and len(rows):
            odds = self._context.scores(known.category, image, boxes)
        if coverage is not None and len(rows):
            cells = coverage.cells.of(image, shown, scene.width, scene.height)
            coverage.draw(cells, odds)
            again = coverage.again(image, shown)
        free = np.ones(len(rows), dtype=bool)
        left = max(1, len(rows) // EACH)
        return Candidates(boxes, shown, odds, cells, again, picks, rows, n, against, free, left)

    def _taken(
        self,
        rng: np.random.Generator,
        held: Candidates,
        known: Known,
        scene: Obstacles,
        wish: Wish,
        floors: Sequence[float],
        against: Counter[str],
        *,
        last: bool,
    ) -> tuple[int, Mask, Shape, Box | None, Mask | None] | None:
        """The most wanted of some places that can be, with mask, shape, whole and spared; None where none can.

        A draw without replacement by odds and need (Gumbel); what no floor lets through is not looked at.
        """
        near = scene.near(held.shown)
        fits = held.open & ~near
        if not last:
            fits &= np.abs(held.picks.log_size[held.rows] - wish.log_size) <= _ABOUT
        rows = np.flatnonzero(fits)
        odds = held.odds[rows] / self._config.temperature
        wanted = odds + held.again[rows] + rng.gumbel(size=len(rows))
        if wish.coverage is not None:
            wanted += wish.coverage.wish(held.cells[rows])
        lowered = np.array(floors) - max(0.0, 1 - 1 / self._config.temperature)
        below = np.searchsorted(-lowered, -odds)  # how many floors each lies below
        _count(against, NEAR, int(np.count_nonzero(near & held.open)))
        _count(against, UNLIKELY, int(np.count_nonzero(below == len(floors))))
        for i in np.lexsort((-wanted, below)).tolist():
            if below[i] == len(floors):
                break
            row = int(rows[i])
            found = self._exactly(known, scene, held.boxes[row], held.picks, int(held.rows[row]), wish)
            if not isinstance(found, str):
                held.open[row] = False
                held.left -= 1
                return row, *found
            against[found] += 1
            if found != NEAR and not wish.behind:
                held.open[row] = False
        return None

    def _wish(
        self,
        rng: np.random.Generator,
        known: Known,
        scene: Obstacles,
        beside: Placement | None,
        coverage: Coverage | None,
    ) -> Wish:
        drawn = known.prior.draw(rng, 1, scene.width, scene.height, self._config.jitter)
        size, chance = float(drawn.log_size[0]), rng.random(4)
        explores = chance[3] < self._config.explore
        if self._config.habits == "off":
            return Wish(size, cut=False, behind=False, beside=None, coverage=coverage if explores else None)
        habits = known.prior.habits
        cut = bool(chance[0] < habits.truncated)
        return Wish(
            size,
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


def _count(reasons: Counter[str], reason: str, n: int) -> None:
    if n:
        reasons[reason] += n


def _as_draw(box: Box) -> Draws:
    return Draws(
        np.array([0.5 * np.log(box.area)]),
        np.array([np.log(box.width / box.height)]),
        np.array([(box.x1 + box.x2) / 2]),
        np.array([box.y2]),
    )


def _boxes(draws: Draws, picks: Picks) -> FloatArray:
    """float64 (n, 4): the silhouettes' boxes as turned, in the middle of the labels' boxes drawn."""
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
