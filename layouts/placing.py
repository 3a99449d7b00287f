"""Finding a place for one object on one background.

Places are drawn from the prior, sieved, weighed by the context and by what the plan still lacks, and the first that
meets every constraint is taken, the most wanted first. What is left of them serves the next objects there.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.layouts.candidates import EACH, FLOORS, Candidates, Held, Kept, levels
from rarefill.layouts.coverage import Cells, Coverage, bins
from rarefill.layouts.ignored import regions
from rarefill.layouts.known import Knowledge, Known
from rarefill.layouts.obstacles import NEAR, Background, Obstacles, region_of
from rarefill.layouts.priors import Draws
from rarefill.layouts.shapes import drawn_at, thrown_back
from rarefill.layouts.standing import Standing, standing
from rarefill.layouts.wishes import Wish, Wishes
from rarefill.recipe import LayoutConfig
from rarefill.scene import Placement
from rarefill.seeds import Stage, rng

if TYPE_CHECKING:
    from rarefill.layouts.context import Context

NO_SHAPE = "no shape to give it"
UNLIKELY = "an unlikely place"
_FEWEST, _MOST = 24, 320
"""Places drawn and weighed together at first: more where more objects will come to the background."""
_TRIED = 96  # what they count for at most, of the tries of an object: they serve others too
_FURTHER = 48  # after those
_ABOUT = 0.35
"""Log units about the size drawn for an object that its places may have: small ones find room more easily, and a plan
that took whatever finds room would fill up with them. Only the last places tried may have any size."""
_FAR = 1e6
"""What a floor counts for beside the draw: whatever the draw, a place below fewer of them comes first."""
_SIZED = 256  # draws that tell which sizes a category has
_BACKGROUNDS = 200_000  # annotations on the backgrounds that stay in memory, some 300 bytes each
_MASKS = 1024  # decoded masks that do


@dataclass(frozen=True, slots=True)
class Spot:
    """Names one placement: what its random stream derives from where no earlier one's serves it."""

    image: int
    copy: int
    index: int
    attempt: int = 0


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
        self._dataset, self._config, self._seed = dataset, config, seed
        self._context = context
        self._region = region_of(config.region)
        self._ignored = regions(dataset)
        self.known = Knowledge(dataset, bank, config).of
        each = max(1, len(dataset.annotations) // max(1, len(dataset.images)))
        self._background = lru_cache(max(16, _BACKGROUNDS // (each + 10)))(self._seen)
        self._mask = lru_cache(_MASKS)(dataset.mask)

    def scene(self, image: int) -> Obstacles:
        """What stands in the way on a background before anything is planned on it."""
        return Obstacles(self._background(image), self._config, self._region)

    def _seen(self, image: int) -> Background:
        return Background(self._dataset, image, self._ignored.get(image), self._mask)

    def coverage(self, category: str) -> Coverage:
        """A fresh count of what a category's places are like.

        Raises:
            DataError: the dataset has no such category.
            ValueError: the category has no box.
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
            kept: what was drawn for earlier objects, which serves this one too; None for a draw of its own.
            expected: how many objects of the category may come to the background, this one counted.
        """
        known = self.known(category)

        def begin() -> Wishes:
            source = rng(self._seed, Stage.PLACE, spot.image, spot.copy, spot.index, spot.attempt)
            return Wishes(source, known.prior, self._config, (scene.width, scene.height))

        held = Held(begin()) if kept is None else kept.of(category, spot.image, begin)
        n = min(max(_FEWEST, EACH * expected), _MOST)
        wish = held.wishes.next(beside, coverage, n // EACH if expected > 1 else 1)
        against: dict[str, int] = {}
        tries, most = self._config.tries, len(FLOORS) - 1
        while tries > 0:
            lasting = held if wish.beside is None else Held(held.wishes)
            places = lasting.get(cut=wish.cut)
            counted = EACH * places.left if places is not None else n
            if places is None:
                n = n if tries >= _TRIED else min(n, tries)
                places = self._candidates(held.wishes.rng, n, known, scene, spot.image, wish, coverage)
                if places is None:
                    against = {NO_SHAPE: 1}
                    break
                lasting.put(places, cut=wish.cut)
            tries -= min(counted, _TRIED)
            most = most if tries > 0 else len(FLOORS)
            taken = self._taken(held.wishes.rng, places, known, scene, wish, most, against, last=tries <= 0)
            if taken is not None:
                i, found = taken
                if coverage is not None:
                    coverage.add(spot.image, places.shown[i], int(places.cells[i]), places.bins[:, i])
                held.used(places.shown[i])
                if kept is not None:
                    kept.weigh(category, spot.image)
                score = round(1 / (1 + math.exp(-float(places.odds[i]))), 3)
                return Placement(
                    category,
                    found.mask,
                    depth,
                    wish.seed,
                    shape=found.shape,
                    score=score,
                    whole=found.whole,
                    spared=found.spared,
                )
            lasting.put(None, cut=wish.cut)
            # What the edge or another object was to hide found no place: all of it may show.
            wish = wish.whole()
            n, most = _FURTHER, len(FLOORS)
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
        boxes = drawn_at(draws, picks)
        if wish.cut:
            boxes = known.edges.over(rng, boxes, scene.width, scene.height)
        else:
            boxes = thrown_back(boxes, scene.width, scene.height)
        rows, against = scene.sieve(boxes, known.shapes.fill[picks.exemplar], known.least_px, cut=wish.cut)
        rows = rows[np.argsort(picks.log_size[rows], kind="stable")]
        boxes = boxes[rows]
        shown = np.clip(boxes, 0, (scene.width, scene.height) * 2) if wish.cut else boxes
        odds, fresh = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
        cells = np.zeros(len(rows), dtype=np.intp)
        if self._context is not None and len(rows):
            odds = self._context.scores(known.category, image, boxes)
        if coverage is not None and len(rows):
            cells = coverage.cells.of(image, shown, scene.width, scene.height)
            coverage.draw(cells, odds)
            fresh = coverage.again(image, shown) == 0
        warmth = self._config.temperature
        return Candidates(
            boxes,
            shown,
            odds,
            levels(odds, warmth),
            cells,
            bins(cells),
            odds / warmth,
            fresh,
            picks.log_size[rows],
            picks,
            rows,
            n,
            against,
        )

    def _taken(
        self,
        rng: np.random.Generator,
        held: Candidates,
        known: Known,
        scene: Obstacles,
        wish: Wish,
        most: int,
        against: dict[str, int],
        *,
        last: bool,
    ) -> tuple[int, Standing] | None:
        """The most wanted of some places that can be, by its row; None where none can.

        A draw without replacement by odds and need (Gumbel), those below fewer floors first; what lies below `most`
        of them is not looked at.
        """
        some = slice(None) if last else held.about(wish.log_size - known.shapes.air, _ABOUT)
        near = scene.near(held.shown[some])
        free = held.open[some] if near is None else held.open[some] & ~near
        likely = held.level[some] < most
        rows = (free & likely).nonzero()[0] + (some.start or 0)
        if rows.size:
            wanted = held.weight[rows] - np.log(rng.standard_exponential(rows.size))
            if wish.coverage is not None:
                wanted += wish.coverage.wish(held.cells[rows], held.bins[:, rows])
            wanted -= _FAR * held.level[rows]
        for _ in range(rows.size):
            at = int(wanted.argmax())
            wanted[at] = -np.inf
            row = int(rows[at])
            found = standing(
                known, scene, held.boxes[row], held.picks, int(held.rows[row]), wish, self._config.max_overlap
            )
            if isinstance(found, Standing):
                held.open[row] = False
                held.left -= 1
                return row, found
            _count(against, found, 1)
            if found != NEAR and not wish.behind:
                held.open[row] = False
        for reason, n in held.against.items():
            _count(against, reason, n)
        _count(against, NEAR, 0 if near is None else int(np.count_nonzero(near & held.open[some])))
        _count(against, UNLIKELY, int(np.count_nonzero(free & ~likely)))
        return None

    def _draws(self, rng: np.random.Generator, n: int, known: Known, scene: Obstacles, wish: Wish) -> Draws:
        size, jitter = (scene.width, scene.height), self._config.jitter
        if wish.beside is not None:
            near = known.prior.near(rng, n, Draws.of(wish.beside.whole or wish.beside.box), *size, jitter)
            if near is not None:
                return near
        return known.prior.draw(rng, n, *size, jitter)


def _count(reasons: dict[str, int], reason: str, n: int) -> None:
    if n:
        reasons[reason] = reasons.get(reason, 0) + n
