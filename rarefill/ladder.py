"""Which way a refused object is painted again: the recipe's order, less what cannot be done for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rarefill.recipe import Recipe
from rarefill.scene import Placement, Step

_SAME_FOR_PASTE = frozenset({Step.STRENGTH, Step.PASTE})
"""A generator that pastes has no strength, and falls back to nothing: another seed is all these mean to it."""
_SAME_FOR_REDRAW = frozenset({Step.PLACE, Step.PASTE})
"""A redrawn object has its place, and what would be pasted there is no new look of it."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The ways to mend, one after the other.

    Attributes:
        steps: for a new object; the last is repeated.
        attempts: paints of one object at most, the first one counted.
        strength: what a repaint by strength has at most, and never more than half of the usual one.
        usual: strengths that the generator draws from for a new object, and
        redraw: has for a redrawn one.
    """

    steps: tuple[Step, ...]
    attempts: int
    strength: float
    usual: tuple[float, ...]
    redraw: float

    @classmethod
    def of(cls, recipe: Recipe, generator: str) -> "Ladder":
        """The recipe's, for a generator of this name."""
        asked = tuple(map(Step, recipe.repair))
        steps = _instead(asked, _SAME_FOR_PASTE) if generator == "paste" else asked
        config = recipe.generator
        return cls(steps, recipe.attempts, recipe.repair_strength, config.strength, config.redraw_strength)

    def step(self, attempt: int, *, redraws: bool) -> Step:
        """How the attempt paints, from 1."""
        steps = _instead(self.steps, _SAME_FOR_REDRAW) if redraws else self.steps
        return steps[min(attempt, len(steps)) - 1]

    def mended(
        self, placement: Placement, attempt: int, elsewhere: Callable[[], Placement | None]
    ) -> tuple[Step, Placement] | None:
        """How an object is painted again.

        Where there is no other place for it, the next way that needs none is taken.

        Args:
            placement: as it was refused.
            attempt: from 1.
            elsewhere: finds it another place.

        Returns:
            The step and what to paint; None where the recipe knows no way but another place, and there is none.
        """
        redraws = placement.redraws is not None
        step = self.step(attempt, redraws=redraws)
        if step is Step.PLACE:
            moved = elsewhere()
            if moved is not None:
                return step, moved
            later = [s for s in (*self.steps[attempt:], *self.steps) if s is not Step.PLACE]
            if not later:
                return None
            step = later[0]
        if step is Step.STRENGTH:
            usual = self.redraw if redraws else min(self.usual)
            return step, replace(placement, strength=min(self.strength, usual / 2))
        return step, placement


def _instead(steps: Sequence[Step], same: frozenset[Step]) -> tuple[Step, ...]:
    """Steps with another seed in the place of some, none twice in a row."""
    plain = [Step.SEED if step in same else step for step in steps]
    return tuple(step for i, step in enumerate(plain) if i == 0 or step is not plain[i - 1])
