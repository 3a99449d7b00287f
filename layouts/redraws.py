"""Which real objects are repainted where they stand, and on which copies of their images.

A redrawn object keeps its label, so it is painted under its own silhouette, less what lies in front of it. No file
says what lies in front; of two masks that meet it is taken to be the smaller one: a tie on a person, a cup on a table.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from rarefill.bank import SMALLEST_PX, Bank
from rarefill.dataset import Dataset
from rarefill.geometry import Box, Mask
from rarefill.layouts.backgrounds import most_uses
from rarefill.layouts.obstacles import APART_PX, REGION, SMALL, region_of
from rarefill.layouts.shortfalls import ALL_REDRAWN, BEHIND, NO_OUTLINE, NONE_REAL, UNLABELLED, Shortfall
from rarefill.recipe import LayoutConfig
from rarefill.scene import FEATHER_PX, Kind, Layout, Placement
from rarefill.seeds import Stage, rng

LEAST_FREE = 0.5
"""Share of an object's pixels that must lie free of others in front: below, little would be left to repaint."""
_SPARE, _MOST_CUT = 1.2, 5.0
"""Objects cut out for each one that is missing, were every cut-out good; and at most."""
_DRAW = 1
"""First part of the keys: the plan of new objects draws from the empty one."""


def silhouette(dataset: Dataset, bank: Bank, row: int) -> Mask | None:
    """A real object's own pixels: the file's mask, else the bank's cut-out; None where there is neither."""
    mask = dataset.mask(row)
    if mask is not None:
        return mask
    try:
        return bank.at(row).mask
    except KeyError:
        return None


def in_front(dataset: Dataset, row: int, own: Mask) -> Mask | None:
    """The pixels about a real object that belong to others in front of it; None where there are none.

    Only masks of the file count: a box holds more of what lies behind an object than of the object.
    """
    rows = np.array([r for r in dataset.rows_in(int(dataset.annotations.image[row])) if r != row], dtype=int)
    x1, y1, x2, y2 = own.box.xyxy
    boxes = dataset.annotations.boxes[rows]
    near = (boxes[:, :2] < np.array([x2, y2]) + APART_PX) & (boxes[:, 2:] > np.array([x1, y1]) - APART_PX)
    height, width = (n + 2 * FEATHER_PX for n in own.pixels.shape)
    x, y = own.x - FEATHER_PX, own.y - FEATHER_PX
    found = np.zeros((height, width), dtype=bool)
    for other in rows[near.all(axis=1)]:
        mask = dataset.mask(int(other))
        # Of two equal ones, such as an object labelled twice, the later one.
        if mask is not None and (mask.area, -other) < (own.area, -row):
            found |= mask.window(x, y, width, height)
    return Mask.of(found, x, y)


def placement(dataset: Dataset, row: int, own: Mask, part: Mask | None = None) -> Placement | None:
    """The placement that repaints a real object, or a part of its silhouette; None where nothing of that lies free."""
    front = in_front(dataset, row, own)
    part = part or own
    free = part if front is None else part.minus(front)
    if free is None:
        return None
    category = dataset.names[int(dataset.annotations.category[row])]
    return Placement(category, free, redraws=row, label=dataset.box(row), spared=front)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Redraws on layouts, with what of the budget found no place."""

    layouts: tuple[Layout, ...]
    shortfalls: tuple[Shortfall, ...]


class Redraws:
    """Draws real objects to repaint. The same inputs give the same ones."""

    def __init__(self, dataset: Dataset, bank: Bank, config: LayoutConfig, *, seed: int) -> None:
        self._dataset, self._bank, self._config, self._seed = dataset, bank, config, seed
        self._region = region_of(config.region)
        # One number for each object, the same in every round of a run: top-ups go on where the last plan stopped.
        self._order = rng(seed, Stage.PLAN, _DRAW).random(len(dataset.annotations))
        self._known: dict[int, Placement | str] = {}

    def lacking(self, asked: Mapping[str, int]) -> list[int]:
        """Objects whose outlines the bank should know too, so that as many others can be drawn as are asked for.

        Only of categories with boxes: the bank holds a sample of them. Those that come next in the order of the draw,
        and more than are missing, by the share of the sample that could not be cut out of its boxes.
        """
        found: list[int] = []
        for name, n in asked.items():
            rows = self._candidates(name, {})
            unknown = [r for r in rows if not self._dataset.has_mask(r) and self._bank.outline(r) is None]
            cut = [r for r in unknown if r in self._bank]
            known = len(rows) - len(unknown)
            per_object = min(_MOST_CUT, _SPARE * (known + len(cut)) / max(1, known))
            fresh = [r for r in unknown if r not in self._bank]
            found += fresh[: math.ceil(per_object * max(0, n - known))]
        return found

    def pack(
        self,
        asked: Mapping[str, int],
        copies: NDArray[np.int64],
        *,
        uses: Mapping[int, int] | None = None,
        most: int | None = None,
    ) -> Packed:
        """Draw objects and lay those of one image together where they do not touch.

        No object comes twice before every other one of its category came once.

        Args:
            asked: objects to redraw, by category.
            copies: int64 (N,), how often each image is used already; numbering goes on from there.
            uses: how often each annotation was drawn before.
            most: layouts at most; None for as many as it takes.
        """
        pages = _Pages(self._config, copies, most)
        counts = Counter(uses or {})
        shortfalls = []
        for name, n in asked.items():
            rows = self._dataset.rows_of(name)
            if not rows.size:
                shortfalls.append(Shortfall(name, n, 0, {NONE_REAL: 1}, kind=Kind.REDRAWN))
                continue
            refused: dict[int, str] = {}
            placed = self._category(name, n, pages, counts, refused)
            if placed < n:
                why = Counter(refused.values()) if len(refused) == len(rows) else {ALL_REDRAWN: 1}
                shortfalls.append(Shortfall(name, n, placed, dict(why), self._config.min_px, Kind.REDRAWN))
        return Packed(tuple(self._seeded(layout) for layout in pages.layouts()), tuple(shortfalls))

    def _category(
        self, name: str, n: int, pages: "_Pages", uses: Counter[int], refused: dict[int, str]
    ) -> int:
        """Lay out up to n objects of a category; how many it came to. `refused` gets those that cannot be redrawn."""
        rows = self._candidates(name, refused)
        placed = 0
        for turn in range(most_uses(self._config, home=False)):
            for row in rows:
                if placed == n:
                    return placed
                image = int(self._dataset.annotations.image[row])
                if uses[row] != turn or row in refused or not pages.room(image):
                    continue
                one = self._placement(row)
                if isinstance(one, str):
                    refused[row] = one
                elif pages.put(image, one):
                    uses[row] += 1
                    placed += 1
        return placed

    def _candidates(self, name: str, refused: dict[int, str]) -> list[int]:
        """A category's objects that may be redrawn by size, place and image, in the order in which they are drawn."""
        rows, images = self._dataset.rows_of(name), self._dataset.images
        boxes = self._dataset.annotations.boxes[rows]
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self._config.min_px
        inside = np.ones(len(rows), dtype=bool)
        if self._region is not None:
            image = self._dataset.annotations.image[rows]
            middle = (boxes[:, :2] + boxes[:, 2:]) / 2
            x, y = middle[:, 0] / images.width[image], middle[:, 1] / images.height[image]
            inside = np.asarray(shapely.contains_xy(self._region, x, y))
        refused.update(dict.fromkeys(rows[~inside].tolist(), REGION))
        refused.update(dict.fromkeys(rows[~large].tolist(), SMALL))
        whole = self._dataset.usable[self._dataset.annotations.image[rows]]
        refused.update(dict.fromkeys(rows[~whole].tolist(), UNLABELLED))
        rows = rows[large & inside & whole]
        return [int(row) for row in rows[np.argsort(self._order[rows], kind="stable")]]

    def _placement(self, row: int) -> Placement | str:
        """How an object is repainted, or why it is not."""
        if row not in self._known:
            own = self._trusted(row)
            made = None if own is None else placement(self._dataset, row, own)
            if own is None:
                self._known[row] = NO_OUTLINE
            elif made is None or made.mask.area < LEAST_FREE * own.area:
                self._known[row] = BEHIND
            else:
                self._known[row] = made
        return self._known[row]

    def _trusted(self, row: int) -> Mask | None:
        """An object's silhouette, where it is fit for use."""
        own = self._dataset.mask(row) or self._bank.outline(row)
        return None if own is None or min(own.pixels.shape) < SMALLEST_PX else own

    def _seeded(self, layout: Layout) -> Layout:
        def seed(index: int) -> int:
            source = rng(self._seed, Stage.PLAN, _DRAW, layout.image, layout.copy, index)
            return int(source.integers(2**31))

        placements = tuple(replace(p, seed=seed(i)) for i, p in enumerate(layout.placements))
        return replace(layout, placements=placements)


class _Pages:
    """Layouts that are being filled, in the order in which they were begun."""

    def __init__(self, config: LayoutConfig, copies: NDArray[np.int64], most: int | None) -> None:
        self._config, self._copies, self._most = config, copies, most
        self._begun: list[tuple[int, list[Placement]]] = []
        self._on: dict[int, list[list[Placement]]] = {}

    def layouts(self) -> Iterator[Layout]:
        """What was laid out; copies of an image are numbered on from those used before."""
        copy = Counter({image: int(self._copies[image]) for image in self._on})
        for image, placements in self._begun:
            yield Layout(image, copy[image], tuple(placements))
            copy[image] += 1

    def room(self, image: int) -> bool:
        """Whether anything more may go onto an image at all."""
        return bool(self._on.get(image)) or self._may_begin(image)

    def put(self, image: int, one: Placement) -> bool:
        """Lay an object onto the first copy of its image where it is not yet and touches no other, or a new one."""
        for held in self._on.get(image, ()):
            if len(held) < (self._config.per_image or len(held) + 1) and self._free(held, one):
                held.append(one)
                return True
        if not self._may_begin(image):
            return False
        self._on.setdefault(image, []).append([one])
        self._begun.append((image, self._on[image][-1]))
        return True

    def _may_begin(self, image: int) -> bool:
        if self._most is not None and len(self._begun) >= self._most:
            return False
        own = len(self._on.get(image, ()))
        once, in_all = (most_uses(self._config, home=home) for home in (False, True))
        return own < once and int(self._copies[image]) + own < in_all

    def _free(self, held: list[Placement], one: Placement) -> bool:
        gap = self._config.margin_px + APART_PX
        return all(_apart(one.box, other.box, gap) for other in held)


def _apart(a: Box, b: Box, gap: float) -> bool:
    return a.x2 + gap <= b.x1 or b.x2 + gap <= a.x1 or a.y2 + gap <= b.y1 or b.y2 + gap <= a.y1
