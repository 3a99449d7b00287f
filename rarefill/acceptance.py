"""Whether a run goes on: its acceptance against the recipe's floor, by an exact test."""

from dataclasses import dataclass

CONFIDENCE = 0.99
"""How sure a run is, over all its looks together, before it stops."""


@dataclass(slots=True)
class Acceptance:
    """Counts objects that were tried and those that held; looked at again and again.

    Attributes:
        floor: share of objects that must hold.
        tried: objects so far, each with all its attempts.
        held: of them.
        looks: how often it was asked.
    """

    floor: float
    tried: int = 0
    held: int = 0
    looks: int = 0

    def add(self, tried: int, held: int) -> None:
        """What came of some more objects."""
        self.tried += tried
        self.held += held

    def hopeless(self) -> bool:
        """Whether the share that holds is surely below the floor.

        The k-th look may err with (1 - CONFIDENCE) / (k (k + 1)); over any number of looks that adds up to 1 - CONFIDENCE.
        """
        if self.tried == 0:
            return False
        self.looks += 1
        allowed = (1 - CONFIDENCE) / (self.looks * (self.looks + 1))
        return at_most(self.held, self.tried, self.floor) < allowed

    def __str__(self) -> str:
        return f"{self.held} of {self.tried} objects held"


def at_most(k: int, n: int, p: float) -> float:
    """The chance of k successes or fewer in n independent trials with success p (binomial distribution)."""
    from scipy.special import bdtr  # scipy is slow to load, and few commands come here

    return float(bdtr(k, n, p))
