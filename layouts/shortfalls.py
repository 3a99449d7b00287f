"""What of a budget could not be planned, why, and what to do about it."""

from dataclasses import dataclass, field

from rarefill.bank import SMALLEST_PX
from rarefill.layouts import obstacles
from rarefill.layouts.placing import NO_SHAPE, UNLIKELY
from rarefill.scene import Kind

USED_UP = "every background used"
DOTS = f"all its real objects are below {SMALLEST_PX} px"
CROWDS = "all its real objects are crowds"
_SHAPELESS = (DOTS, CROWDS, NO_SHAPE)

ALL_REDRAWN = "every real one that can be is redrawn already"
NO_OUTLINE = "no mask, and none could be cut out of the box"
BEHIND = "mostly behind other objects"
UNLABELLED = "all on images that lost a label to --lenient"
NONE_REAL = "no real object of it but crowds"

_CROWDED = 10
"""Tries for each object placed, above which it is the places that lack, not the backgrounds."""
_ADVICE = {
    NO_SHAPE: f"it needs a real object on another image, no crowd and {SMALLEST_PX} px or more each way",
    DOTS: f"it needs one of {SMALLEST_PX} px or more each way to take a shape from; label one, or enlarge the images",
    CROWDS: "it needs a single one to take a shape from; label one",
    USED_UP: "lower the count, raise max_reuse or per_image, or add images",
    obstacles.OVER: "lower the count or raise max_overlap",
    obstacles.NEAR: "lower the count, per_image or margin_px",
    obstacles.EDGE: "lower the count, or add images with room for an object of this size",
    obstacles.REGION: "lower the count or widen the region",
    obstacles.SMALL: "lower min_px",
    UNLIKELY: "lower the count, raise temperature, or say context: off",
    ALL_REDRAWN: "lower the count or raise max_reuse",
    NO_OUTLINE: "give them masks",
    BEHIND: "redraw another category",
    UNLABELLED: "mend the annotations that were left out",
    NONE_REAL: "label one",
}


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What of a budget could not be planned, and why; its text is one line for people.

    Attributes:
        category: its name.
        asked: objects.
        placed: objects.
        reasons: how often each reason spoke against a place, or a background, tried; of redraws, against an object.
        least_px: the smallest side that was allowed; 0 where nothing is known of the category.
        kind: new objects or redrawn ones.
    """

    category: str
    asked: int
    placed: int
    reasons: dict[str, int] = field(default_factory=dict)
    least_px: float = 0.0
    kind: Kind = Kind.NEW

    def __str__(self) -> str:
        least = f" (min {self.least_px:.3g} px)" if self.least_px else ""
        if self.kind is Kind.REDRAWN:
            return f"redraws {self.placed} of {self.asked} {self.category!r}{least}: {self.why}"
        places = sum(self._places().values())
        after = f" after {places} tries" if places else ""
        return f"placed {self.placed} of {self.asked} {self.category!r}{least}{after}: {self.why}"

    @property
    def why(self) -> str:
        """What stood in the way most, and what to do."""
        places = self._places()
        if self.kind is Kind.REDRAWN:
            worst = max(self.reasons, key=lambda reason: self.reasons[reason])
        elif places and sum(places.values()) > _CROWDED * self.placed:
            worst = max(places, key=lambda reason: places[reason])
        else:
            worst = next((reason for reason in _SHAPELESS if reason in self.reasons), USED_UP)
        return f"{worst}; {_ADVICE[worst]}"

    def _places(self) -> dict[str, int]:
        return {r: n for r, n in self.reasons.items() if r not in {*_SHAPELESS, USED_UP}}
