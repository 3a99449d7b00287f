"""How strict to be: each category's threshold, from real objects that the judging model did not train on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rarefill.geometry import FloatArray

ENOUGH = 10
"""Held-back objects from which a category's threshold is its own; with fewer it leans on the other categories."""
BLIND = 0.25
"""A category of whose real objects the checker finds a smaller share than this is not judged at all: see `Standing`."""
RIVAL_MARGIN = 0.1
"""By how much another class must score higher at the same place to be the better answer."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a detector says of one place, asked for one category.

    Attributes:
        score: of the best detection of the category that fits the box; 0 when there is none.
        overlap: IoU of that detection with the box, or of the best one of the category that does not fit.
        near: score of the best detection of the category that touches the box without fitting it.
        rival: score of the best detection of any other category that fits the box.
    """

    score: float = 0.0
    overlap: float = 0.0
    near: float = 0.0
    rival: float = 0.0

    @property
    def mistaken(self) -> bool:
        """Whether another category is clearly the better answer."""
        return self.rival > self.score + RIVAL_MARGIN

    @property
    def standing(self) -> float:
        """The score that counts against a threshold: nothing for what is taken for something else."""
        return 0.0 if self.mistaken else self.score


@dataclass(frozen=True, slots=True)
class Standing:
    """How well the checker knows one category, from real objects that the judging model did not train on.

    Attributes:
        category: its name.
        held_back: real objects that were judged.
        found: share of them that the threshold accepts, 0 to 1.
        threshold: the score that a painted object needs, 0 to 1.
        pooled: the category had too few held-back objects for a threshold of its own.
        empty: places without any object that were shown to the checker as this category.
        fooled: share of those places that it accepts, 0 to 1.
    """

    category: str
    held_back: int
    found: float
    threshold: float
    pooled: bool
    empty: int = 0
    fooled: float = 0.0

    @property
    def blind(self) -> bool:
        """Whether the checker knows too little of the category to judge: its objects then stay unchecked."""
        return self.found < BLIND

    def __str__(self) -> str:
        if self.blind:
            return (
                f"{self.category}: the checker finds {self.found:.0%} of {self.held_back} real objects held back from it; "
                "painted ones are not judged by it"
            )
        pooled = ", leaning on the other categories" if self.pooled else ""
        return (
            f"{self.category}: finds {self.found:.0%} of {self.held_back} real objects held back from it, takes "
            f"{self.fooled:.0%} of {self.empty} empty places for one (score {self.threshold:.2f} and above{pooled})"
        )


def threshold(scores: Sequence[float], keep: float, min_score: float) -> float:
    """The highest score that at least a share `keep` of the scores reach, never under `min_score`.

    Where so many objects were missed that no score does, the same share of those that were found: a detector that
    misses a third of the real objects is no reason to take whatever it sees a shadow of.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    level = _reached(ordered, keep)
    if level < min_score:
        level = _reached(ordered[ordered >= min_score], keep)
    return max(level, min_score)


def _reached(ordered: FloatArray, keep: float) -> float:
    # A hair below the product, so that 0.9 of 10 is 9 in binary floats too.
    needed = max(1, math.ceil(keep * len(ordered) - 1e-9))
    return float(ordered[len(ordered) - needed]) if len(ordered) else 0.0


def standings(
    seen: Mapping[str, Sequence[float]],
    fooled: Mapping[str, Sequence[float]],
    *,
    keep: float,
    min_score: float,
) -> tuple[Standing, ...]:
    """Each category's threshold and what it does to real objects and to empty places.

    Args:
        seen: per category the standing of each held-back real object, 0 for those that were missed.
        fooled: per category the standing of places that hold no object.
        keep: share of real objects to keep.
        min_score: no threshold is lower.
    """
    common = threshold([s for scores in seen.values() for s in scores], keep, min_score)
    return tuple(
        _standing(category, scores, fooled.get(category, ()), common, keep, min_score)
        for category, scores in seen.items()
    )


def _standing(
    category: str,
    scores: Sequence[float],
    empty: Sequence[float],
    common: float,
    keep: float,
    min_score: float,
) -> Standing:
    n = len(scores)
    share = min(1.0, n / ENOUGH)
    level = round(share * threshold(scores, keep, min_score) + (1 - share) * common, 4)
    return Standing(
        category=category,
        held_back=n,
        found=_share(scores, level),
        threshold=level,
        pooled=n < ENOUGH,
        empty=len(empty),
        fooled=_share(empty, level),
    )


def _share(scores: Sequence[float], level: float) -> float:
    return round(sum(s >= level for s in scores) / len(scores), 4) if len(scores) else 0.0
