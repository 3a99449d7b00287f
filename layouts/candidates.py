"""Places drawn together for one category on one background: sieved and weighed once, then taken one by one."""

from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import BoolArray, FloatArray
from rarefill.layouts.coverage import SAME_COST, Edges, remember, repeats
from rarefill.layouts.shapes import Picks
from rarefill.layouts.wishes import Wishes

EACH = 16
"""Places that may stand for each object taken: fewer, and the last ones are what nobody wanted."""
FLOORS = (0.0, -1.0, -1.75)
"""Log odds at a temperature of 1 that a place must have: the first that any of those drawn together has. The best of
a poor background will do, the last number only once others were drawn in vain: but not what is hardly ever seen.
Above 1 each degree lowers them by itself."""
_FAR = 1e6
"""What a floor counts for beside the draw: whatever the draw, a place below fewer of them comes first."""
_MOST_ODDS = 30.0  # log
_ROUNDING = 1e-9
_MOST_WANTED = _FAR / 10  # of log odds over the temperature, which may be as low as it likes
_MOST_KEPT = 200_000  # places, some 250 bytes each


@dataclass(slots=True, eq=False)
class Candidates:
    """Places that may hold an object as far as the background alone decides. Not shared between threads.

    Attributes:
        boxes: float64 (n, 4), of the silhouettes before the small rotation; may reach beyond the image.
        shown: float64 (n, 4), their parts inside the image.
        odds: float64 (n,), log odds by the surroundings.
        cells: intp (n,), of the coverage.
        weight: float64 (n,), how wanted each is, chance counted, but for what the plan still lacks; minus infinity for
            those taken and those found impossible.
        log_size: float64 (n,), of the boxes drawn, in ascending order.
        picks: the exemplars of all places drawn.
        rows: intp (n,), the rows of `picks` that the n places are.
        drawn: how many places were drawn.
        against: why the others cannot be.
        used: where the last objects were planned on other copies of the background.
        clear: bool (n,), those that no existing object is by.
        left: how many objects may still be taken.
    """

    boxes: FloatArray
    shown: FloatArray
    odds: FloatArray
    cells: NDArray[np.intp]
    weight: FloatArray
    log_size: FloatArray
    picks: Picks
    rows: NDArray[np.intp]
    drawn: int
    against: Counter[str]
    used: list[Edges]
    clear: BoolArray
    left: int = field(init=False)
    _sizes: list[float] = field(init=False)
    _repeats: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.left = max(1, -(-len(self.rows) // EACH))
        self._sizes = self.log_size.tolist()
        self._repeats = set()

    def about(self, log_size: float, reach: float) -> slice:
        """Those of about a size."""
        return slice(bisect_left(self._sizes, log_size - reach), bisect_right(self._sizes, log_size + reach))

    def take(self, row: int) -> None:
        """An object is planned at one of them."""
        self.weight[row] = -np.inf
        self.left -= 1

    def refuse(self, row: int, reason: str) -> None:
        """One of them cannot be after all, whatever is planned there."""
        self.weight[row] = -np.inf
        self.against[reason] += 1

    def repeats(self, row: int) -> bool:
        """Whether a place turns out to be much the same as one used on another copy: it is then less wanted from now on.

        Asked of the most wanted one only: to be wanted less is all that can come of it.
        """
        if row in self._repeats or not repeats(self.edges(row), self.used):
            return False
        self._repeats.add(row)
        self.weight[row] -= SAME_COST
        return True

    def edges(self, row: int) -> Edges:
        """The part of one of them inside the image."""
        x1, y1, x2, y2 = self.shown[row].tolist()
        return x1, y1, x2, y2


def wanted(
    rng: np.random.Generator, odds: FloatArray, image: NDArray[np.intp], temperature: float
) -> FloatArray:
    """How wanted places are: their odds over the temperature, those below fewer floors first.

    A background that suits as a whole lifts all its places above the floors, the unlikely ones as well. So those below the mean
    odds of what was drawn there come second.

    Chance is counted once and for all: the highest first are then a draw without replacement in proportion to the odds
    (Gumbel; Efraimidis & Spirakis, IPL 2006).

    Args:
        rng: where chance comes from.
        odds: float64 (n,), their log.
        image: intp (n,), which background each is on, from 0.
        temperature: of the plan.
    """
    lowered = max(0.0, 1 - 1 / temperature)
    weight = odds / temperature
    below = np.searchsorted(lowered - np.array(FLOORS), -weight)
    n = np.maximum(np.bincount(image), 1)
    mean = np.log(np.bincount(image, np.exp(np.minimum(odds, _MOST_ODDS))) / n + 1e-300)
    second = (odds - mean[image]) / temperature < -lowered - _ROUNDING
    weight = np.maximum(np.minimum(weight, _MOST_WANTED), -_MOST_WANTED)
    weight -= np.log(rng.standard_exponential(len(odds)))
    return np.asarray(weight - _FAR * np.maximum(below, second))


def least(most: int) -> float:
    """What a place must weigh that lies below fewer than so many floors."""
    return _FAR * (0.5 - most)


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

    def used(self, box: Edges) -> None:
        """An object of the category was planned at a box on the background: its like count as repeated from now on."""
        for held in (self.whole, self.cut):
            if held is not None:
                remember(held.used, box)

    def __len__(self) -> int:
        return sum(len(held.rows) for held in (self.whole, self.cut) if held is not None)


class Kept:
    """What a plan in the making keeps, that used last: as much as fits, so that memory stays flat."""

    def __init__(self, rng: np.random.Generator, upcoming: Callable[[str, int], list[int]]) -> None:
        """Begin with nothing.

        Args:
            rng: the source of all places of the plan.
            upcoming: the images that come next to a category, so many at most.
        """
        self.rng = rng
        self._upcoming = upcoming
        self._held: OrderedDict[tuple[str, int], Held] = OrderedDict()
        self._sizes: dict[tuple[str, int], int] = {}
        self._total = 0

    def of(self, category: str, image: int) -> Held | None:
        """What is kept for a category on a background, if anything is."""
        held = self._held.get((category, image))
        if held is not None:
            self._held.move_to_end((category, image))
        return held

    def put(self, category: str, image: int, held: Held) -> None:
        """Keep something, until it was used longest ago and there is too much."""
        self._held[category, image] = held
        self.weigh(category, image)

    def lacking(self, category: str, n: int) -> list[int]:
        """The images that come next to a category and have nothing kept, n at most."""
        return [i for i in self._upcoming(category, n) if (category, i) not in self._held] if n > 0 else []

    def weigh(self, category: str, image: int) -> None:
        """Look again how much is kept there, and let go of what was used longest ago where it is too much."""
        size = len(self._held[category, image]) + 1
        self._total += size - self._sizes.get((category, image), 0)
        self._sizes[category, image] = size
        while self._total > _MOST_KEPT and len(self._held) > 1:
            key, _ = self._held.popitem(last=False)
            self._total -= self._sizes.pop(key, 0)
