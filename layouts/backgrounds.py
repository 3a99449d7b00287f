"""Which image is used next, and how often."""

import heapq
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import BoolArray, FloatArray
from rarefill.recipe import LayoutConfig

AT_HOME, ELSEWHERE = 20, 4
"""How often a background may be used unless the recipe says: where it holds the category already, and where not."""

BARRED = 2**40
"""Uses of a background that is to serve for nothing: more than any limit."""


class Backgrounds:
    """Hands out backgrounds in a shuffled order; the better an image suits a category, the sooner it comes.

    Every use of an image has its time, (copy + u) / affinity with one random u for each image: among images that suit
    alike, all are used once before any is used twice. Scenes that hold the category already have a queue of their own, which
    gets its share as long as it lasts.
    """

    def __init__(self, rng: np.random.Generator, used: NDArray[np.int64], max_reuse: int) -> None:
        """Begin; `used`: int64 (N,), how often each image was used before, `max_reuse`: how often one may be."""
        self.copies = used.copy()
        self._u = rng.random(len(used))
        self._max_reuse = max_reuse
        self._most = np.full(len(used), max_reuse)
        self._lines: dict[str, _Line] = {}

    def open(self, category: str, affinity: FloatArray, home: "Home | None" = None) -> None:
        """Begin to hand out images to a category.

        Args:
            category: its name.
            affinity: float64 (N,), above 0.
            home: the images that hold it, if they are to have a share.
        """
        times = (self.copies + self._u) / affinity
        self._lines[category] = _Line(affinity, times, self._max_reuse, home)
        if home is not None:
            self._most[home.images] = home.most

    def next(self, category: str) -> int | None:
        """The next image that still may be used, or None when there is none; it does not come again before `take`."""
        line = self._lines[category]
        for queue in line.in_turn():
            while (entry := queue.pop()) is not None:
                time, image = entry
                if self.copies[image] >= queue.most:
                    continue
                due = self._time(line, image)
                if due > time:
                    queue.push(due, image)
                    continue
                return image
        return None

    def upcoming(self, category: str, n: int) -> list[int]:
        """Images that most likely come next to a category, n at most; what is taken in between may change it."""
        line = self._lines[category]
        first, second = line.in_turn()
        ahead = zip_longest(first.ahead(n), second.ahead(n))
        images = (image for pair in ahead for image in pair if image is not None)
        return [image for image in images if self.copies[image] < line.queue(image).most][:n]

    def uses(self, image: int, category: str) -> int:
        """How often an image that is being used now may still be used for a category, this time counted."""
        return max(1, int(self._lines[category].queue(image).most - self.copies[image]))

    def take(self, image: int, category: str | None = None) -> int:
        """Use an image; gives the number of the copy. It comes again to the category in its time."""
        copy = int(self.copies[image])
        self.copies[image] += 1
        if category is not None:
            line = self._lines[category]
            queue = line.queue(image)
            queue.taken += 1
            queue.push(self._time(line, image), image)
        return copy

    def spare(self, n: int) -> list[int]:
        """Images to leave untouched, those least used first; fewer than n where no more may be used.

        An image comes twice only when every other one has been used as often.
        """
        heap = [
            (int(c), float(u), i)
            for i, (c, u) in enumerate(zip(self.copies, self._u, strict=True))
            if c < self._most[i]
        ]
        heapq.heapify(heap)
        found: list[int] = []
        while heap and len(found) < n:
            copies, u, image = heapq.heappop(heap)
            found.append(image)
            if copies + 1 < self._most[image]:
                heapq.heappush(heap, (copies + 1, u, image))
        return found

    def _time(self, line: "_Line", image: int) -> float:
        return float((self.copies[image] + self._u[image]) / line.affinity[image])


@dataclass(frozen=True, slots=True, eq=False)
class Home:
    """Scenes that hold a category already.

    Attributes:
        images: bool (N,), which they are.
        share: of the images handed out that they make, as long as they last.
        most: how often one may be used.
    """

    images: BoolArray
    share: float
    most: int


def most_uses(config: LayoutConfig, *, home: bool) -> int:
    """How often a background may be used; `home`: it holds the category already."""
    return config.max_reuse or (AT_HOME if home and config.home else ELSEWHERE)


class _Line:
    """What waits for one category: at home and elsewhere."""

    def __init__(self, affinity: FloatArray, times: FloatArray, max_reuse: int, home: Home | None) -> None:
        self.affinity = affinity
        self._home = np.zeros(len(times), dtype=bool) if home is None else home.images
        self._share = 0.0 if home is None else home.share
        self._here = _Queue(times, self._home, max_reuse if home is None else home.most)
        self._elsewhere = _Queue(times, ~self._home, max_reuse)

    def queue(self, image: int) -> "_Queue":
        """Where an image waits."""
        return self._here if self._home[image] else self._elsewhere

    def in_turn(self) -> "tuple[_Queue, _Queue]":
        """The one that is behind its share, then the other."""
        here, elsewhere = self._here, self._elsewhere
        behind = here.taken < self._share * (here.taken + elsewhere.taken + 1)
        return (here, elsewhere) if behind else (elsewhere, here)


class _Queue:
    """Times in order: a sorted array for the first use of each image, a heap for what comes again."""

    def __init__(self, times: FloatArray, which: BoolArray, most: int) -> None:
        rows = np.flatnonzero(which)
        self._order = rows[np.argsort(times[rows], kind="stable")]
        self._times = times
        self._at = 0
        self._again: list[tuple[float, int]] = []
        self.most = most
        self.taken = 0

    def push(self, time: float, image: int) -> None:
        heapq.heappush(self._again, (time, image))

    def pop(self) -> tuple[float, int] | None:
        if self._at < len(self._order):
            image = int(self._order[self._at])
            time = float(self._times[image])
            if not self._again or time <= self._again[0][0]:
                self._at += 1
                return time, image
        return heapq.heappop(self._again) if self._again else None

    def ahead(self, n: int) -> list[int]:
        """Some n of those that come soonest: of the heap's first ones, which are no later than most others."""
        first = self._order[self._at : self._at + n].tolist()
        again = [image for _, image in self._again[: n - len(first)]]
        return [*first, *again]
