"""Places drawn together for one category on one background: sieved and weighed once, then taken one by one."""

from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import BoolArray, FloatArray
from rarefill.layouts.coverage import SAME_COST, same
from rarefill.layouts.shapes import Picks
from rarefill.layouts.wishes import Wishes

EACH = 8
"""Places that may stand for each object taken: fewer, and the last ones are what nobody wanted."""
FLOORS = (0.0, -1.0, -1.75)
"""Log odds at a temperature of 1 that a place must have: the first that any of those drawn together has. The best of
a poor background will do, the last number only once others were drawn in vain: but not what is hardly ever seen.
Above 1 each degree lowers them by itself."""
_MOST_KEPT = 200_000  # places, some 250 bytes each


@dataclass(slots=True, eq=False)
class Candidates:
    """Places that may hold an object as far as the background alone decides. Not shared between threads.

    Attributes:
        boxes: float64 (n, 4), of the silhouettes before the small rotation; may reach beyond the image.
        shown: float64 (n, 4), their parts inside the image.
        odds: float64 (n,), log odds by the surroundings.
        level: int (n,), how many of FLOORS each lies below.
        cells: intp (n,), of the coverage.
        bins: intp (4, n), where the coverage's counts along each axis stand.
        weight: float64 (n,), how wanted each is but for what the plan still lacks.
        fresh: bool (n,), those that are not much the same as a place of another copy of the background.
        log_size: float64 (n,), of the boxes drawn, in ascending order.
        picks: the exemplars of all places drawn.
        rows: intp (n,), the rows of `picks` that the n places are.
        drawn: how many places were drawn.
        against: why the others cannot be.
        open: bool (n,), those not taken and not found impossible.
        left: how many objects may still be taken.
    """

    boxes: FloatArray
    shown: FloatArray
    odds: FloatArray
    level: NDArray[np.intp]
    cells: NDArray[np.intp]
    bins: NDArray[np.intp]
    weight: FloatArray
    fresh: BoolArray
    log_size: FloatArray
    picks: Picks
    rows: NDArray[np.intp]
    drawn: int
    against: Counter[str]
    open: BoolArray = field(init=False)
    left: int = field(init=False)
    _columns: FloatArray = field(init=False)
    _sizes: list[float] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.rows)
        self.open = np.ones(n, dtype=bool)
        self.weight[~self.fresh] -= SAME_COST
        self.left = max(1, n // EACH)
        self._sizes = self.log_size.tolist()
        self._columns = np.ascontiguousarray(self.shown.T)

    def about(self, log_size: float, reach: float) -> slice:
        """Those of about a size."""
        return slice(bisect_left(self._sizes, log_size - reach), bisect_right(self._sizes, log_size + reach))

    def used(self, box: FloatArray) -> None:
        """An object of the category was planned at a box (4,): its like counts as repeated from now on."""
        again = same(self._columns, box) & self.fresh
        if again.any():
            self.weight[again] -= SAME_COST
            self.fresh &= ~again


@dataclass(slots=True, eq=False)
class Held:
    """What a plan keeps of one category on one background.

    Attributes:
        wishes: of its next objects.
        whole: places for objects of which all shows.
        cut: places for those that the image's edge cuts off.
    """

    wishes: Wishes
    whole: Candidates | None = None
    cut: Candidates | None = None

    def get(self, *, cut: bool) -> Candidates | None:
        """Places that may still be taken from, or None."""
        held = self.cut if cut else self.whole
        return held if held is not None and held.left > 0 else None

    def put(self, held: Candidates | None, *, cut: bool) -> None:
        """Keep for the next objects, in place of what was kept; None to forget what held no place."""
        if cut:
            self.cut = held
        else:
            self.whole = held

    def used(self, box: FloatArray) -> None:
        """An object of the category was planned at a box (4,) on the background."""
        for held in (self.whole, self.cut):
            if held is not None:
                held.used(box)

    def __len__(self) -> int:
        return sum(len(held.rows) for held in (self.whole, self.cut) if held is not None)


class Kept:
    """What a plan in the making keeps, that used last: as much as fits, so that memory stays flat."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, int], Held] = OrderedDict()
        self._sizes: dict[tuple[str, int], int] = {}
        self._total = 0

    def of(self, category: str, image: int, begin: Callable[[], Wishes]) -> Held:
        """What is kept for a category on a background, or else begun now."""
        held = self._held.get((category, image))
        if held is None:
            held = self._held[category, image] = Held(begin())
        else:
            self._held.move_to_end((category, image))
        return held

    def weigh(self, category: str, image: int) -> None:
        """Look again how much is kept there, and let go of what was used longest ago where it is too much."""
        size = len(self._held[category, image]) + 1
        self._total += size - self._sizes.get((category, image), 0)
        self._sizes[category, image] = size
        while self._total > _MOST_KEPT and len(self._held) > 1:
            key, _ = self._held.popitem(last=False)
            self._total -= self._sizes.pop(key, 0)


def levels(odds: FloatArray, temperature: float) -> NDArray[np.intp]:
    """How many of FLOORS log odds (n,) at a temperature lie below."""
    lowered = np.array(FLOORS) - max(0.0, 1 - 1 / temperature)
    return np.searchsorted(-lowered, -odds / temperature)
