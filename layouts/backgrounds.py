"""Which image is used next, and how often."""

import heapq

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray


class Backgrounds:
    """Hands out backgrounds in a shuffled order; the better an image suits a category, the sooner it comes.

    Every use of an image has its time, (copy + u) / affinity with one random u for each image: among images that suit
    alike, all are used once before any is used twice.
    """

    def __init__(self, rng: np.random.Generator, used: NDArray[np.int64], max_reuse: int) -> None:
        """`used`: int64 (N,), how often each image was used before."""
        self.copies = used.copy()
        self._u = rng.random(len(used))
        self._max_reuse = max_reuse
        self._queues: dict[str, _Queue] = {}

    def open(self, category: str, affinity: FloatArray) -> None:
        """Begin to hand out images to a category. affinity: float64 (N,), above 0."""
        self._queues[category] = _Queue((self.copies + self._u) / affinity)
        self._queues[category].affinity = affinity

    def next(self, category: str) -> int | None:
        """The next image that still may be used, or None when there is none; it does not come again before `take`."""
        queue = self._queues[category]
        while (entry := queue.pop()) is not None:
            time, image = entry
            if self.copies[image] >= self._max_reuse:
                continue
            due = self._time(queue, image)
            if due > time:
                queue.push(due, image)
                continue
            return image
        return None

    def upcoming(self, category: str, n: int) -> list[int]:
        """Images that most likely come next to a category, n at most; what is taken in between may change it."""
        return [image for image in self._queues[category].ahead(n) if self.copies[image] < self._max_reuse]

    def take(self, image: int, category: str | None = None) -> int:
        """Use an image; gives the number of the copy. It comes again to the category in its time."""
        copy = int(self.copies[image])
        self.copies[image] += 1
        if category is not None:
            queue = self._queues[category]
            queue.push(self._time(queue, image), image)
        return copy

    def spare(self, n: int) -> list[int]:
        """Images to leave untouched, those least used first; fewer than n where no more may be used.

        An image comes twice only when every other one has been used as often.
        """
        heap = [
            (int(c), float(u), i)
            for i, (c, u) in enumerate(zip(self.copies, self._u, strict=True))
            if c < self._max_reuse
        ]
        heapq.heapify(heap)
        found: list[int] = []
        while heap and len(found) < n:
            copies, u, image = heapq.heappop(heap)
            found.append(image)
            if copies + 1 < self._max_reuse:
                heapq.heappush(heap, (copies + 1, u, image))
        return found

    def _time(self, queue: "_Queue", image: int) -> float:
        return float((self.copies[image] + self._u[image]) / queue.affinity[image])


class _Queue:
    """Times in order: a sorted array for the first use of each image, a heap for what comes again."""

    def __init__(self, times: FloatArray) -> None:
        self._order = np.argsort(times, kind="stable")
        self._times = times
        self._at = 0
        self._again: list[tuple[float, int]] = []
        self.affinity = np.ones(len(times))

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
