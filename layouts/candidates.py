"""Places drawn together for one category on one background: sieved and weighed once, then taken one by one."""

from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import BoolArray, FloatArray
from rarefill.layouts.coverage import repeats
from rarefill.layouts.shapes import Picks

EACH = 8
"""Places that may stand for each object taken: fewer, and the last ones are what nobody wanted."""
_MOST_KEPT = 2048  # some 10 kB each


@dataclass(slots=True, eq=False)
class Candidates:
    """Places that may hold an object as far as the background alone decides. Not shared between threads.

    Attributes:
        boxes: float64 (n, 4), of the silhouettes before the small rotation; may reach beyond the image.
        shown: float64 (n, 4), their parts inside the image.
        odds: float64 (n,), log odds by the surroundings.
        cells: intp (n,), of the coverage.
        again: float64 (n,), what it costs to repeat a place of another copy, 0 and below.
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
    cells: NDArray[np.intp]
    again: FloatArray
    picks: Picks
    rows: NDArray[np.intp]
    drawn: int
    against: Counter[str]
    open: BoolArray
    left: int

    def used(self, box: FloatArray) -> None:
        """An object of the category was planned at a box (4,): its like counts as repeated from now on."""
        self.again = np.minimum(self.again, repeats(self.shown, box[None]))


class Kept:
    """The candidates of a plan in the making, those used last: as many as fit, so that memory stays flat."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, int, bool], Candidates] = OrderedDict()

    def get(self, category: str, image: int, *, cut: bool) -> Candidates | None:
        """What was kept and may still be taken from, or None."""
        held = self._held.get((category, image, cut))
        if held is None or held.left < 1:
            return None
        self._held.move_to_end((category, image, cut))
        return held

    def put(self, category: str, image: int, held: Candidates, *, cut: bool) -> None:
        """Keep for the next objects of the category on this background, in place of what was kept."""
        self._held[category, image, cut] = held
        self._held.move_to_end((category, image, cut))
        if len(self._held) > _MOST_KEPT:
            self._held.popitem(last=False)

    def drop(self, category: str, image: int, *, cut: bool) -> None:
        """Forget what held no place."""
        self._held.pop((category, image, cut), None)

    def used(self, category: str, image: int, box: FloatArray) -> None:
        """An object of the category was planned at a box (4,) on a background."""
        for cut in (False, True):
            held = self._held.get((category, image, cut))
            if held is not None:
                held.used(box)
