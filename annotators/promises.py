"""What a calibration promises, in words: for the terminal's table and for a run's report."""

from rarefill.annotators import bounds
from rarefill.annotators.calibrate import Errors, Standing


def kept_promise(s: Standing) -> str:
    """What is promised of new real objects, in words."""
    if s.blind:
        return "none: too few are found, so painted ones are not judged"
    if s.kept:
        return f"keeps {s.keeps:.0%}"
    if s.keeps > 0:
        fewest = bounds.fewest(s.keep)
        few = s.pooled or fewest is None or s.held_back < fewest
        return f"keeps {s.keeps:.0%}: too {'few objects' if few else 'many missed'} for {s.keep:.0%}"
    return f"none: {s.keep:.0%} cannot be kept, or only with too many errors"


def refusal(s: Standing, e: Errors) -> str:
    """What is promised of one kind of error, in words."""
    behind = f" ({e.pooled} of all categories)" if e.pooled else ""
    if e.holds:
        return f"at most {s.false_accept:.0%} pass{behind}"
    if e.unknown:
        return f"unknown: {e.needed} examples needed"
    if e.level is not None:
        return f"only from {e.level:.2f} on, which keeps {e.left:.0%} of the real objects{behind}"
    return f"none at any score{behind}"
