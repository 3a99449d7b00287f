"""What is decided of objects before their places are: size, habits, and what their looks derive from."""

from dataclasses import dataclass

import numpy as np

from rarefill.geometry import FloatArray
from rarefill.layouts.coverage import Coverage
from rarefill.layouts.priors import Prior
from rarefill.recipe import LayoutConfig
from rarefill.scene import Placement


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """One object's.

    Attributes:
        log_size: log of the root of its box's area, in pixels.
        cut: the image's edge cuts it off.
        behind: it may stand behind what is there.
        beside: an object of its kind that it keeps company with.
        coverage: what it shall add to; None where it follows the real density alone.
        seed: what its looks derive from.
    """

    log_size: float
    cut: bool
    behind: bool
    beside: Placement | None
    coverage: Coverage | None
    seed: int

    def whole(self) -> "Wish":
        """The same for an object of which all may show."""
        return Wish(self.log_size, False, False, self.beside, self.coverage, self.seed)


class Wishes:
    """Those of one category on one background, as many drawn together as may come to it. Not shared between threads."""

    def __init__(
        self,
        rng: np.random.Generator,
        prior: Prior,
        config: LayoutConfig,
        size: FloatArray,
        drawn: "tuple[list[float], list[list[float]], list[int]] | None" = None,
    ) -> None:
        """Begin.

        Args:
            rng: the source of all choices on this background.
            prior: the category's.
            config: says whether habits are followed, and what share explores.
            size: float64 (2,), width and height of the background.
            drawn: of the first objects, as many each: sizes, four chances, seeds.
        """
        self.rng = rng
        self._prior, self._config, self._size = prior, config, size
        self._sizes, self._chances, self._seeds = drawn or ([], [], [])

    @classmethod
    def ahead(
        cls, rng: np.random.Generator, prior: Prior, config: LayoutConfig, sizes: FloatArray, n: int
    ) -> "list[Wishes]":
        """Those of several backgrounds (k, 2), with n objects drawn for each at once."""
        at, shape = np.repeat(sizes, n, axis=0), (len(sizes), n)
        drawn = prior.draw(rng, len(at), at[:, 0], at[:, 1], config.jitter).log_size
        chances, seeds = rng.random((*shape, 4)).tolist(), rng.integers(2**31, size=shape).tolist()
        parts = zip(drawn.reshape(shape).tolist(), chances, seeds, strict=True)
        return [cls(rng, prior, config, size, held) for size, held in zip(sizes, parts, strict=True)]

    def next(self, beside: Placement | None, coverage: Coverage | None, expected: int) -> Wish:
        """What the next object shall be.

        Args:
            beside: another object of the category there, which it may keep company with.
            coverage: what the plan has of the category so far.
            expected: how many objects, this one counted, to draw for where none is left.
        """
        if not self._sizes:
            self._draw(max(1, expected))
        size, seed = self._sizes.pop(), self._seeds.pop()
        cut, behind, company, explores = self._chances.pop()
        wanting = coverage if explores < self._config.explore else None
        if self._config.habits == "off":
            return Wish(size, False, False, None, wanting, seed)
        habits = self._prior.habits
        cuts = cut < habits.truncated
        hides = not cuts and behind < habits.occluded
        return Wish(size, cuts, hides, beside if company < habits.gathered else None, wanting, seed)

    def _draw(self, n: int) -> None:
        drawn = self._prior.draw(self.rng, n, self._size[:1], self._size[1:], self._config.jitter)
        self._sizes = drawn.log_size.tolist()
        self._chances = self.rng.random((n, 4)).tolist()
        self._seeds = self.rng.integers(2**31, size=n).tolist()
