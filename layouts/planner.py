"""The plan: how many objects go onto which backgrounds, and what could not be planned."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rarefill.bank import SMALLEST_PX, Bank
from rarefill.dataset import Dataset
from rarefill.errors import LayoutError
from rarefill.layouts import obstacles
from rarefill.layouts.backgrounds import Backgrounds
from rarefill.layouts.placing import NO_SHAPE, Placer, Spot
from rarefill.layouts.priors import affinity, companions, together
from rarefill.recipe import LayoutConfig
from rarefill.scene import Layout, Placement
from rarefill.seeds import Stage, rng

USED_UP = "every background used"
DOTS = f"all its real objects are below {SMALLEST_PX} px"
CROWDS = "all its real objects are crowds"
_SHAPELESS = (DOTS, CROWDS, NO_SHAPE)
_BARREN = 50
"""Backgrounds in a row that could not take a single object of a category, after which it is given up."""
_CROWDED = 10
"""Tries for each object placed, above which it is the places that lack, not the backgrounds."""
_ADVICE = {
    NO_SHAPE: f"it needs a real object on another image, no crowd and {SMALLEST_PX} px or more each way",
    DOTS: f"it needs one of {SMALLEST_PX} px or more each way to take a shape from; label one, or enlarge the images",
    CROWDS: "it needs a single one to take a shape from; label one",
    USED_UP: "lower the count, raise max_reuse or per_image, or add images",
    obstacles.OVER: "lower the count or raise max_overlap",
    obstacles.NEAR: "lower the count, per_image or margin_px",
    obstacles.EDGE: "lower the count, or add images with room for an object of this size",
    obstacles.REGION: "lower the count or widen the region",
    obstacles.SMALL: "lower min_px",
}


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What of a budget could not be planned, and why; its text is one line for people.

    Attributes:
        category: its name.
        asked: objects.
        placed: objects.
        reasons: how often each reason spoke against a place, or a background, tried.
        least_px: the smallest side that was allowed; 0 where nothing is known of the category.
    """

    category: str
    asked: int
    placed: int
    reasons: dict[str, int] = field(default_factory=dict)
    least_px: float = 0.0

    def __str__(self) -> str:
        least = f" (min {self.least_px:.3g} px)" if self.least_px else ""
        places = sum(self._places().values())
        after = f" after {places} tries" if places else ""
        return f"placed {self.placed} of {self.asked} {self.category!r}{least}{after}: {self.why}"

    @property
    def why(self) -> str:
        """What stood in the way most, and what to do."""
        places = self._places()
        if places and sum(places.values()) > _CROWDED * self.placed:
            worst = max(places, key=lambda reason: places[reason])
        else:
            worst = next((reason for reason in _SHAPELESS if reason in self.reasons), USED_UP)
        return f"{worst}; {_ADVICE[worst]}"

    def _places(self) -> dict[str, int]:
        return {r: n for r, n in self.reasons.items() if r not in {*_SHAPELESS, USED_UP}}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All layouts of a run, in order, and what is missing."""

    layouts: tuple[Layout, ...]
    shortfalls: tuple[Shortfall, ...]


class Planner:
    """Plans layouts. The same inputs give the same plan; `elsewhere` may be called from many threads."""

    def __init__(self, dataset: Dataset, bank: Bank, config: LayoutConfig, *, seed: int) -> None:
        self._dataset, self._config, self._seed = dataset, config, seed
        self._placer = Placer(dataset, bank, config, seed=seed)

    def plan(
        self, budget: Mapping[str, int], *, images: int | None = None, used: Mapping[int, int] | None = None
    ) -> Plan:
        """Spread a budget over backgrounds.

        Args:
            budget: objects to place, by category.
            images: layouts to make, those without placements counted; None for as many as the objects need.
            used: how often each background (row in `dataset.images`) was used before; copies go on from there.

        Raises:
            LayoutError: more images are asked for than the backgrounds may give.
            DataError: the dataset has no such category.
        """
        n_images, most_each = len(self._dataset.images), self._config.max_reuse
        counts = np.zeros(n_images, dtype=np.int64)
        for image, n in (used or {}).items():
            counts[image] = n
        if images is not None and not used and images > n_images * most_each:
            raise LayoutError(
                f"{images} images asked for, but {n_images} backgrounds used {most_each} times at most give "
                f"{n_images * most_each}; lower images or raise max_reuse"
            )
        making = _Making(self._dataset, self._placer, self._config, self._seed, budget, counts)
        return making.plan(images)

    def elsewhere(self, layout: Layout, index: int, attempt: int) -> Placement | None:
        """Another place, size and shape on the same background for a placement that was refused.

        Args:
            layout: its other placements stand in the way.
            index: of the placement to move.
            attempt: from 1; each names another draw.

        Returns:
            The new placement, or None when no place was found.
        """
        old = layout.placements[index]
        scene = self._placer.scene(layout.image)
        for i, other in enumerate(layout.placements):
            if i != index:
                scene.add(other.mask)
        spot = Spot(layout.image, layout.copy, index, attempt)
        return self._placer.place(old.category, scene, spot, Counter(), depth=old.depth)


class _Making:
    """One plan in the making."""

    def __init__(
        self,
        dataset: Dataset,
        placer: Placer,
        config: LayoutConfig,
        seed: int,
        budget: Mapping[str, int],
        used: NDArray[np.int64],
    ) -> None:
        self._dataset, self._placer, self._config, self._seed = dataset, placer, config, seed
        self._asked = {name: n for name, n in budget.items() if n > 0}
        self._left = dict(self._asked)
        self._reasons: dict[str, Counter[str]] = {name: Counter() for name in self._asked}
        self._barren: Counter[str] = Counter()
        self._least: dict[str, float] = {}
        self._choice = rng(seed, Stage.PLAN)
        self._backgrounds = Backgrounds(self._choice, used, config.max_reuse)
        self._held = together(dataset)
        self._open: list[str] = []
        for name in self._asked:
            self._begin(name)

    def plan(self, images: int | None) -> Plan:
        """Make all layouts: those with objects first, then as many untouched ones as belong to them."""
        share = self._config.untouched
        filled = None if images is None else min(images - round(share * images), sum(self._asked.values()))
        layouts = self._filled(filled) if share < 1 else []
        if images is not None:
            n_untouched = images - len(layouts)
        elif share < 1:
            n_untouched = round(len(layouts) * share / (1 - share))
        else:
            n_untouched = len(self._dataset.images)
        untouched = [
            Layout(image, self._backgrounds.take(image)) for image in self._backgrounds.spare(n_untouched)
        ]
        shortfalls = tuple(
            Shortfall(name, asked, asked - left, dict(self._reasons[name]), self._least.get(name, 0.0))
            for name, asked in self._asked.items()
            if (left := self._left[name]) > 0
        )
        return Plan(tuple(_mixed(layouts, untouched)), shortfalls)

    def _begin(self, name: str) -> None:
        row = self._dataset.category_row(name)
        shapeless = self._shapeless(name)
        if shapeless is not None:
            self._reasons[name][shapeless] += 1
            return
        self._least[name] = self._placer.known(name).least_px
        self._backgrounds.open(name, affinity(self._held, row))
        self._open.append(name)

    def _shapeless(self, name: str) -> str | None:
        """Why no object of a category can be given a shape on any background, or None."""
        rows = self._dataset.rows_of(name)
        if not rows.size:
            return CROWDS if self._dataset.rows_of(name, crowds=True).size else NO_SHAPE
        if self._placer.known(name).shapes.exemplars:
            return None
        boxes = self._dataset.annotations.boxes[rows]
        dots = (boxes[:, 2:] - boxes[:, :2] < SMALLEST_PX).any(axis=1).all()
        return DOTS if dots else NO_SHAPE

    def _filled(self, n: int | None) -> list[Layout]:
        """Layouts with objects, n at most, until the budget is spent or nothing more can be placed."""
        layouts: list[Layout] = []
        while self._open and (n is None or len(layouts) < n):
            quota = (
                None if n is None else math.ceil(sum(self._left[c] for c in self._open) / (n - len(layouts)))
            )
            first = self._drawn()
            image = self._backgrounds.next(first)
            if image is None:
                self._reasons[first][USED_UP] += 1
                self._open.remove(first)
                continue
            placements = self._on(image, self._wanted(first, image, quota))
            if placements:
                layouts.append(Layout(image, self._backgrounds.take(image, first), placements))
            self._close(first, barren=not any(p.category == first for p in placements))
        return layouts

    def _drawn(self) -> str:
        """A category, in proportion to what is left of its budget."""
        left = np.cumsum([self._left[c] for c in self._open])
        return self._open[int(np.searchsorted(left, self._choice.integers(left[-1]), side="right"))]

    def _wanted(self, first: str, image: int, quota: int | None) -> dict[str, int]:
        """How many of which categories to try on an image, the first one first."""
        limit = min(self._config.per_image or 1_000_000, quota or 1_000_000)
        others = [c for c in self._open if c != first]
        wanted: Counter[str] = Counter({first: 1})
        if quota is not None:
            wanted.update(self._drawn() for _ in range(limit - 1))
            return {name: min(n, self._left[name]) for name, n in wanted.items()}
        rows = [self._dataset.category_row(c) for c in others]
        chances = companions(self._held, self._dataset.category_row(first), rows)
        chosen = [first, *(c for c, p in zip(others, chances, strict=True) if self._choice.random() < p)]
        here = self._dataset.annotations.category[self._dataset.rows_in(image)]
        for name in chosen:
            shown = self._placer.known(name).prior.count(self._choice)
            already = int(np.count_nonzero(here == self._dataset.category_row(name)))
            room = limit - sum(wanted.values()) + wanted[name]
            wanted[name] = min(max(1, shown - already), room, self._left[name])
        return dict(wanted)

    def _on(self, image: int, wanted: Mapping[str, int]) -> tuple[Placement, ...]:
        scene = self._placer.scene(image)
        copy = int(self._backgrounds.copies[image])
        placements: list[Placement] = []
        for name, n in wanted.items():
            for _ in range(n):
                spot = Spot(image, copy, len(placements))
                placement = self._placer.place(name, scene, spot, self._reasons[name])
                if placement is None:
                    break  # the next one would stand before the same walls
                scene.add(placement.mask)
                placements.append(placement)
                self._left[name] -= 1
        return tuple(placements)

    def _close(self, first: str, *, barren: bool) -> None:
        """End what is spent, and what found no place on too many backgrounds in a row."""
        self._barren[first] = self._barren[first] + 1 if barren else 0
        given_up = self._barren[first] >= max(_BARREN, len(self._dataset.images) // 20)
        self._open = [c for c in self._open if self._left[c] > 0 and not (given_up and c == first)]


def _mixed(layouts: list[Layout], untouched: list[Layout]) -> list[Layout]:
    """Untouched layouts spread evenly among the others."""
    total = len(layouts) + len(untouched)
    places = {int((i + 0.5) * total / len(untouched)) for i in range(len(untouched))}
    filled, spare = iter(layouts), iter(untouched)
    return [next(spare) if i in places else next(filled) for i in range(total)]
