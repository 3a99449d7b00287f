"""What came of one try at a version of an image, for the record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """Why a version was accepted or refused."""

    ACCEPTED = "accepted"
    UNCHECKED = "unchecked"
    SPOILED = "label spoiled"
    LOST = "labels lost"
    EXTRA = "extra object"
    NO_ROOM = "nothing to repaint"

    @property
    def accepted(self) -> bool:
        """Whether the version holds."""
        return self in {Outcome.ACCEPTED, Outcome.UNCHECKED}


@dataclass(frozen=True, slots=True)
class Take:
    """One try at a version.

    Attributes:
        number: of the version in the run, from 1.
        image: row of the image.
        copy: which version of it, from 0.
        attempt: from 0.
        outcome: whether it holds, or why not.
        how: the words, the strength and what else was drawn, JSON scalars.
        found: labels that the checker found in it.
        unjudged: rows in `dataset.annotations` of labels of which it can say nothing.
        gone: rows of labels of whose objects nothing is seen any more.
        spoiled: rows of labels that are no longer found though something is seen there.
        extras: category, x1, y1, x2, y2 and score of what is seen and was not labelled.
    """

    number: int
    image: int
    copy: int
    attempt: int
    outcome: Outcome
    how: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    found: int = 0
    unjudged: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()
    spoiled: tuple[int, ...] = ()
    extras: tuple[tuple[str, float, float, float, float, float], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "number": self.number,
            "image": self.image,
            "copy": self.copy,
            "attempt": self.attempt,
            "outcome": str(self.outcome),
            "how": dict(self.how),
            "found": self.found,
            "unjudged": list(self.unjudged),
            "gone": list(self.gone),
            "spoiled": list(self.spoiled),
            "extras": [list(e) for e in self.extras],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Take":
        """The take that `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        return cls(
            value["number"],
            value["image"],
            value["copy"],
            value["attempt"],
            Outcome(value["outcome"]),
            value["how"],
            value["found"],
            tuple(value["unjudged"]),
            tuple(value["gone"]),
            tuple(value["spoiled"]),
            tuple((str(c), *map(float, rest)) for c, *rest in value["extras"]),  # type: ignore[misc]
        )
