"""The plan: how many objects go onto which backgrounds, which real ones are redrawn, and what could not be planned."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarefill.bank import SMALLEST_PX, Bank
from rarefill.dataset import Dataset
from rarefill.errors import LayoutError
from rarefill.geometry import FloatArray
from rarefill.layouts.backgrounds import BARRED, Backgrounds, Home, most_uses
from rarefill.layouts.candidates import Kept
from rarefill.layouts.coverage import Coverage, Covered
from rarefill.layouts.obstacles import Obstacles
from rarefill.layouts.placing import NO_SHAPE, Placer, Spot
from rarefill.layouts.priors import SOONER, affinity, companions, together
from rarefill.layouts.redraws import Redraws
from rarefill.layouts.shortfalls import CROWDS, DOTS, USED_UP, Shortfall
from rarefill.recipe import LayoutConfig
from rarefill.scene import Layout, Placement
from rarefill.seeds import Stage, rng

if TYPE_CHECKING:
    from rarefill.layouts.context import Context

_BARREN = 50
"""Backgrounds in a row that could not take a single object of a category, after which it is given up."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All layouts of a run, in order, what is missing, and what of the plausible places new objects come to fill."""

    layouts: tuple[Layout, ...]
    shortfalls: tuple[Shortfall, ...]
    covered: Mapping[str, Covered] = field(default_factory=dict)


class Planner:
    """Plans layouts. The same inputs give the same plan; `elsewhere` may be called from many threads."""

    def __init__(
        self,
        dataset: Dataset,
        bank: Bank,
        config: LayoutConfig,
        *,
        seed: int,
        context: "Context | None" = None,
    ) -> None:
        """`context`: what ranks backgrounds and places; None goes by the priors alone."""
        self._dataset, self._bank, self._config, self._seed = dataset, bank, config, seed
        self._context = context
        self._placer = Placer(dataset, bank, config, seed=seed, context=context)

    def plan(
        self,
        budget: Mapping[str, int],
        *,
        redraw: Mapping[str, int] | None = None,
        images: int | None = None,
        used: Mapping[int, int] | None = None,
        redrawn: Mapping[int, int] | None = None,
    ) -> Plan:
        """Spread a budget over backgrounds; layouts with redraws come after those with new objects.

        Args:
            budget: new objects to place, by category.
            redraw: real objects to repaint where they stand, by category; they change nothing about the new ones.
            images: layouts to make, those without placements counted; None for as many as the objects need.
            used: how often each background (row in `dataset.images`) was used before; copies go on from there.
            redrawn: how often each real object (row in `dataset.annotations`) was planned to be redrawn before.

        Raises:
            LayoutError: more images are asked for than the backgrounds may give.
            DataError: the dataset has no such category.
        """
        n_images = len(self._dataset.images)
        counts = np.zeros(n_images, dtype=np.int64)
        for image, n in (used or {}).items():
            counts[image] = n
        given = self._given([*budget, *(redraw or ())])
        n_usable = np.count_nonzero(self._dataset.usable)
        if images is not None and not used and images > given:
            raise LayoutError(
                f"{images} images asked for, but {n_usable} backgrounds give {given} at most; lower images or raise "
                "max_reuse"
            )
        making = self._making(budget, counts)
        if not redraw:
            return making.plan(images)
        drawing = Redraws(self._dataset, self._bank, self._config, seed=self._seed)
        share = None
        if images is not None:
            needed = len(drawing.pack(redraw, counts, uses=redrawn).layouts)
            share = self._shared(images, sum(budget.values()), needed)
        new = making.plan(None if images is None or share is None else images - share)
        most = None if share is None else share - round(self._config.untouched * share)
        packed = drawing.pack(redraw, making.copies, uses=redrawn, most=most)
        layouts = making.with_untouched(packed.layouts, share)
        return Plan((*new.layouts, *layouts), (*new.shortfalls, *packed.shortfalls), new.covered)

    def stream(self, budget: Mapping[str, int]) -> Iterator[Layout]:
        """Layouts with new objects, one by one as they are found: a plan of any length in the same memory.

        They are those of `plan`, less the untouched ones, as long as the budget lasts and backgrounds are left.

        Raises:
            DataError: the dataset has no such category.
        """
        return self._making(budget, np.zeros(len(self._dataset.images), dtype=np.int64)).filled()

    def _given(self, names: Iterable[str]) -> int:
        """How many images the backgrounds give at most."""
        home = np.zeros(len(self._dataset.images), dtype=bool)
        for name in names if self._config.home else ():
            home[self._dataset.annotations.image[self._dataset.rows_of(name)]] = True
        here, elsewhere = (most_uses(self._config, home=at_home) for at_home in (True, False))
        return int(np.where(home, here, elsewhere)[self._dataset.usable].sum())

    def _making(self, budget: Mapping[str, int], counts: NDArray[np.int64]) -> "_Making":
        used = np.where(self._dataset.usable, counts, BARRED)
        return _Making(self._dataset, self._placer, self._config, self._seed, budget, used, self._context)

    def _shared(self, images: int, objects: int, redraws: int) -> int:
        """How many of the images go to redraws: what these need, or as fair a part where there are too few.

        Args:
            images: in all, untouched ones counted.
            objects: new ones; each may have an image of its own.
            redraws: images that the real ones to repaint need.
        """
        if not objects:
            return images
        need, other = (math.ceil(n / (1 - self._config.untouched)) for n in (redraws, objects))
        fair = need if need + other <= images else round(images * need / (need + other))
        return min(max(fair, 1), images - 1)

    def elsewhere(self, layout: Layout, index: int, attempt: int) -> Placement | None:
        """Another place, size and shape on the same background for a placement that was refused.

        A real object that is redrawn stays where it is: another attempt at it looks different by its seed alone.

        Args:
            layout: its other placements stand in the way.
            index: of the placement to move.
            attempt: from 1; each names another draw.

        Returns:
            The new placement, or None when no place was found.
        """
        old = layout.placements[index]
        if old.redraws is not None:
            return old
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
        context: "Context | None",
    ) -> None:
        self._dataset, self._placer, self._config, self._seed = dataset, placer, config, seed
        self._context = context
        self._coverage: dict[str, Coverage] = {}
        self._asked = {name: n for name, n in budget.items() if n > 0}
        self._left = dict(self._asked)
        # Backgrounds that suit come sooner than others: twice the mean is seldom exceeded.
        most = most_uses(config, home=False)
        usable = max(1, int(np.count_nonzero(used < most)))
        self._each = {name: math.ceil(2 * n / usable) for name, n in self._asked.items()}
        self._reasons: dict[str, Counter[str]] = {name: Counter() for name in self._asked}
        self._barren: Counter[str] = Counter()
        self._least: dict[str, float] = {}
        self._choice = rng(seed, Stage.PLAN)
        self._backgrounds = Backgrounds(self._choice, used, most)
        self._kept = Kept(rng(seed, Stage.PLACE), self._upcoming)
        self._held = together(dataset)
        self._open: list[str] = []
        for name in self._asked:
            self._begin(name)
        rows = [dataset.category_row(name) for name in self._open]
        self._company = {
            first: dict(zip(self._open, companions(self._held, row, rows).tolist(), strict=True))
            for first, row in zip(self._open, rows, strict=True)
        }

    def plan(self, images: int | None) -> Plan:
        """Make all layouts: those with objects first, then as many untouched ones as belong to them."""
        share = self._config.untouched
        filled = None if images is None else min(images - round(share * images), sum(self._asked.values()))
        found = list(self.filled(filled)) if share < 1 else []
        layouts = self._untouched_among(found, images)
        shortfalls = tuple(
            Shortfall(name, asked, asked - left, dict(self._reasons[name]), self._least.get(name, 0.0))
            for name, asked in self._asked.items()
            if (left := self._left[name]) > 0
        )
        covered = {name: what for name, c in self._coverage.items() if (what := c.covered()) is not None}
        return Plan(tuple(layouts), shortfalls, covered)

    @property
    def copies(self) -> NDArray[np.int64]:
        """int64 (N,): how often each background is used by now."""
        return self._backgrounds.copies

    def with_untouched(self, layouts: Sequence[Layout], images: int | None) -> list[Layout]:
        """Layouts made elsewhere, whose backgrounds are used from now on, and the untouched ones that belong to them."""
        for layout in layouts:
            self._backgrounds.take(layout.image)
        return self._untouched_among(layouts, images)

    def _untouched_among(self, layouts: Sequence[Layout], images: int | None) -> list[Layout]:
        """Layouts with objects, and so many untouched ones that there are `images`, or that their share is right."""
        share = self._config.untouched
        if images is not None:
            n = images - len(layouts)
        elif share < 1:
            n = round(len(layouts) * share / (1 - share))
        else:
            n = int(np.count_nonzero(self._dataset.usable))
        spare = self._backgrounds.spare(n)
        return _mixed(layouts, [Layout(image, self._backgrounds.take(image)) for image in spare])

    def _begin(self, name: str) -> None:
        row = self._dataset.category_row(name)
        shapeless = self._shapeless(name)
        if shapeless is not None:
            self._reasons[name][shapeless] += 1
            return
        self._least[name] = self._placer.known(name).least_px
        self._coverage[name] = self._placer.coverage(name)
        self._backgrounds.open(name, self._suits(name, row), self._home(row))
        self._open.append(name)

    def _suits(self, name: str, row: int) -> FloatArray:
        """How much sooner than at random each image should come to a category, 0.05 to 4, by what it holds and shows."""
        held = affinity(self._held, row)
        if self._context is None:
            return held
        shown = self._context.images(name) / self._config.temperature
        # Both see what else an image holds. Where the context tells images apart, half of the one keeps it from counting
        # twice; where it cannot, as with three objects, what an image holds is all that keeps stop signs out of kitchens.
        told = min(1.0, float(shown.std()))
        both = (1 - 0.5 * told) * np.log(held) + shown - np.median(shown)
        return np.asarray(np.exp(np.clip(both, *SOONER)))

    def _home(self, row: int) -> Home | None:
        """The scenes that hold a category; where they are most of all, they have as large a share."""
        if not self._config.home:
            return None
        here = self._held[:, row]
        return Home(here, max(self._config.home, float(here.mean())), most_uses(self._config, home=True))

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

    def filled(self, n: int | None = None) -> Iterator[Layout]:
        """Layouts with objects, n at most, until the budget is spent or nothing more can be placed."""
        made = 0
        while self._open and (n is None or made < n):
            quota = None if n is None else math.ceil(sum(self._left[c] for c in self._open) / (n - made))
            first = self._drawn()
            image = self._backgrounds.next(first)
            if image is None:
                self._reasons[first][USED_UP] += 1
                self._open.remove(first)
                continue
            scene = self._placer.scene(image)
            placements = self._on(image, scene, self._wanted(first, scene, quota))
            copy = self._backgrounds.take(image, first) if placements else 0
            self._close(first, barren=not any(p.category == first for p in placements))
            if placements:
                made += 1
                yield Layout(image, copy, placements)

    def _upcoming(self, name: str, n: int) -> list[int]:
        """Images that come next to a category, as many as its budget may need."""
        return self._backgrounds.upcoming(name, min(n, self._left[name] - 1))

    def _drawn(self) -> str:
        """A category, in proportion to what is left of its budget."""
        if len(self._open) == 1:
            return self._open[0]
        left = np.cumsum([self._left[c] for c in self._open])
        return self._open[int(np.searchsorted(left, self._choice.integers(left[-1]), side="right"))]

    def _wanted(self, first: str, scene: Obstacles, quota: int | None) -> dict[str, int]:
        """How many of which categories to try on a background, the first one first."""
        limit = min(self._config.per_image or 1_000_000, quota or 1_000_000)
        others = [c for c in self._open if c != first]
        if quota is not None and not others:
            return {first: min(limit, self._left[first])}
        if quota is not None:
            drawn = Counter([first, *(self._drawn() for _ in range(limit - 1))])
            return {name: min(n, self._left[name]) for name, n in drawn.items()}
        wanted = {first: 1}
        chances = self._company[first]
        chosen = [first, *(c for c in others if self._choice.random() < chances[c])]
        here = scene.category
        for name in chosen:
            shown = self._placer.known(name).prior.count(self._choice)
            already = int(np.count_nonzero(here == self._dataset.category_row(name)))
            room = limit - sum(wanted.values()) + wanted.get(name, 0)
            wanted[name] = min(max(1, shown - already), room, self._left[name])
        return wanted

    def _on(self, image: int, scene: Obstacles, wanted: Mapping[str, int]) -> tuple[Placement, ...]:
        copy = int(self._backgrounds.copies[image])
        placements: list[Placement] = []
        added = 0
        for name, n in wanted.items():
            uses = self._backgrounds.uses(image, name)
            beside = None
            for i in range(n):
                if len(placements) > added:
                    scene.add(placements[added].mask)
                    added += 1
                spot = Spot(image, copy, len(placements))
                placement = self._placer.place(
                    name,
                    scene,
                    spot,
                    self._reasons[name],
                    beside=beside,
                    coverage=self._coverage[name],
                    kept=self._kept,
                    expected=min(uses * n - i, self._left[name], max(n - i, self._each[name])),
                )
                if placement is None:
                    break  # the next one would stand before the same walls
                placements.append(placement)
                beside = placement
                self._left[name] -= 1
        return tuple(placements)

    def _close(self, first: str, *, barren: bool) -> None:
        """End what is spent, and what found no place on too many backgrounds in a row."""
        self._barren[first] = self._barren[first] + 1 if barren else 0
        given_up = self._barren[first] >= max(_BARREN, len(self._dataset.images) // 20)
        if given_up or not all(self._left[c] for c in self._open):
            self._open = [c for c in self._open if self._left[c] > 0 and not (given_up and c == first)]


def _mixed(layouts: Sequence[Layout], untouched: Sequence[Layout]) -> list[Layout]:
    """Untouched layouts spread evenly among the others."""
    total = len(layouts) + len(untouched)
    places = {int((i + 0.5) * total / len(untouched)) for i in range(len(untouched))}
    filled, spare = iter(layouts), iter(untouched)
    return [next(spare) if i in places else next(filled) for i in range(total)]
