"""Finding a place for one object on one background.

Places are drawn from the prior, sieved, weighed by the context and by what the plan still lacks, and the first that
meets every constraint is taken, the most wanted first. What is left of them serves the next objects there. A plan draws
them for the backgrounds that come next as well: one call of each step for all.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.layouts.candidates import EACH, FLOORS, Candidates, Held, Kept, least
from rarefill.layouts.coverage import SAME_COST, Cells, Coverage
from rarefill.layouts.drawing import Drawing
from rarefill.layouts.ignored import regions
from rarefill.layouts.known import Knowledge, Known
from rarefill.layouts.obstacles import NEAR, Background, Obstacles, extents, region_of
from rarefill.layouts.standing import Standing, standing
from rarefill.layouts.wishes import Wish, Wishes
from rarefill.recipe import LayoutConfig
from rarefill.scene import Placement
from rarefill.seeds import Stage, rng

if TYPE_CHECKING:
    from rarefill.layouts.context import Context

NO_SHAPE = "no shape to give it"
UNLIKELY = "an unlikely place"
_FEWEST, _MOST = 48, 640
"""Places drawn and weighed together at first: more where more objects will come to the background."""
_TOGETHER = 1536  # places on all backgrounds that are drawn for at once; more would not be quicker
_TRIED = 96  # what they count for at most, of the tries of an object: they serve others too
_FURTHER = 48  # after those
_ABOUT = 0.35
"""Log units about the size drawn for an object that its places may have: small ones find room more easily, and a plan
that took whatever finds room would fill up with them. Only the last places tried may have any size."""
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
        self._drawing = Drawing(config, context)
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
        if not known.shapes.gives(spot.image):
            reasons[NO_SHAPE] += 1
            return None
        tries, most = self._config.tries, len(FLOORS) - 1
        n = self._first(expected, tries)
        held = kept.of(category, spot.image) if kept is not None else None
        if held is None:
            held = self._begun(known, scene, spot, n, coverage, kept)
        wish = held.wishes.next(beside, coverage, n // EACH if expected > 1 else 1)
        against: dict[str, int] = {}
        while tries > 0:
            lasting = held if wish.beside is None else Held(held.wishes)
            places = lasting.get(cut=wish.cut)
            counted = EACH * places.left if places is not None else n
            if places is None:
                places = self._places(held, n, known, scene, spot.image, wish, coverage)
                lasting.put(places, cut=wish.cut)
                if kept is not None:
                    kept.weigh(category, spot.image)
            tries -= min(counted, _TRIED)
            most = most if tries > 0 else len(FLOORS)
            taken = self._taken(places, known, scene, wish, most, against, last=tries <= 0)
            if taken is not None:
                return self._placed(category, spot.image, places, taken, wish, held, depth, coverage, kept)
            lasting.put(None, cut=wish.cut)
            # What the edge or another object was to hide found no place: all of it may show.
            wish = wish.whole()
            n, most = min(_FURTHER, max(tries, 1)), len(FLOORS)
        reasons.update(against)
        return None

    @staticmethod
    def _first(expected: int, tries: int) -> int:
        """How many places to draw at first for so many objects; some to spare, for those that the sieve takes."""
        n = _FEWEST if expected == 1 else min(max(_FEWEST, EACH * expected + EACH // 2), _MOST)
        return n if tries >= _TRIED else min(n, tries)

    def _begun(
        self,
        known: Known,
        scene: Obstacles,
        spot: Spot,
        n: int,
        coverage: Coverage | None,
        kept: Kept | None,
    ) -> Held:
        """Wishes for the first objects of a category on a background.

        What a plan keeps is begun for those that come next as well, and has its first n places for each.
        """
        prior, objects = known.prior, max(1, n // EACH)
        if kept is None:
            source = rng(self._seed, Stage.PLACE, spot.image, spot.copy, spot.index, spot.attempt)
            return Held(Wishes.ahead(source, prior, self._config, extents([scene], 1), 1)[0])
        images = [i for i in kept.lacking(known.category, _TOGETHER // n - 1) if known.shapes.gives(i)]
        images = [spot.image, *(i for i in images if i != spot.image)]
        scenes = [scene, *map(self.scene, images[1:])]
        sizes = np.array([(s.width, s.height) for s in scenes], dtype=float)
        wishes = Wishes.ahead(kept.rng, prior, self._config, sizes, objects)
        places = self._drawing.places(kept.rng, n, known, scenes, images, coverage)
        # The one asked for is the one used last.
        found = [Held(*both) for both in zip(wishes, places, strict=True)]
        for image, held in reversed(list(zip(images, found, strict=True))):
            kept.put(known.category, image, held)
        return found[0]

    def _places(
        self,
        held: Held,
        n: int,
        known: Known,
        scene: Obstacles,
        image: int,
        wish: Wish,
        coverage: Coverage | None,
    ) -> Candidates:
        """Places on one background alone: fewer where the edge shall cut objects, or one shall stand by another."""
        if wish.beside is not None:
            n = min(n, _FURTHER)
        elif wish.cut:
            n = min(n, max(_FEWEST, round(n * known.prior.habits.truncated)))
        (found,) = self._drawing.places(
            held.wishes.rng, n, known, [scene], [image], coverage, cut=wish.cut, beside=wish.beside
        )
        return found

    def _placed(
        self,
        category: str,
        image: int,
        places: Candidates,
        taken: tuple[int, Standing],
        wish: Wish,
        held: Held,
        depth: int,
        coverage: Coverage | None,
        kept: Kept | None,
    ) -> Placement:
        """The object at the place taken, of which coverage and what is kept now know."""
        i, found = taken
        if coverage is not None and kept is not None:
            box = places.edges(i)
            coverage.add(image, box, int(places.cells[i]))
            held.used(box)
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

    def _taken(
        self,
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

        Those below fewer floors first; what lies below `most` of them is not looked at.
        """
        some = slice(None) if last else held.about(wish.log_size - known.shapes.air, _ABOUT)
        first, weight, worst = some.start or 0, held.weight[some], least(most)
        near = scene.near(held.shown[some])
        wanted = weight.copy()
        if wish.coverage is not None:
            wanted += wish.coverage.wish(held.cells[some])
        if near is not None:
            wanted[near] = -np.inf
        while len(wanted):
            at = int(wanted.argmax())
            row = first + at
            if wanted[at] < worst:
                break
            if held.repeats(row):
                wanted[at] -= SAME_COST
                continue
            wanted[at] = -np.inf
            found = standing(
                known,
                scene,
                held.boxes[row],
                held.picks,
                int(held.rows[row]),
                wish,
                self._config.max_overlap,
                clear=bool(held.clear[row]),
            )
            if isinstance(found, Standing):
                held.take(row)
                return row, found
            if found == NEAR or wish.behind:
                _count(against, found, 1)
            else:
                held.refuse(row, found)
        for reason, n in held.against.items():
            _count(against, reason, n)
        free = weight > -np.inf
        clear = free if near is None else free & ~near
        _count(against, NEAR, int(np.count_nonzero(free)) - int(np.count_nonzero(clear)))
        _count(against, UNLIKELY, int(np.count_nonzero(clear & (weight < worst))))
        return None


def _count(reasons: dict[str, int], reason: str, n: int) -> None:
    if n:
        reasons[reason] = reasons.get(reason, 0) + n
