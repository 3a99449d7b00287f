"""What a report says in words: reasons, steps, and the sentences that stand first."""

from rarefill.scene import Reason, Step
from rarefill.summary import Summary

REASONS = {
    Reason.NOT_PAINTED: "the generator changed nothing there",
    Reason.NOT_FOUND: "the checker saw no such object at the place",
    Reason.WRONG_CLASS: "the checker took it for another category",
    Reason.LOW_SCORE: "the checker saw it, but not surely enough",
    Reason.BOX_OFF: "the checker saw it elsewhere than its label is",
    Reason.HIDDEN: "other objects painted later hide it",
    Reason.NO_PLACE: "no other place was found for it",
    Reason.SPOILED: "its paint spoiled a real object beside it",
    Reason.EXTRA: "its paint shows more objects than were asked for",
    Reason.COPY: "it is nearly a copy of a real object, and the recipe refuses those",
}
STEPS = {
    Step.FIRST: "first paint",
    Step.SEED: "again, with another seed",
    Step.STRENGTH: "again, nearer to a real object",
    Step.PLACE: "again, in another place",
    Step.PASTE: "again, as a pasted real object",
}


def why(reason: str) -> str:
    """A refusal in words."""
    return REASONS[Reason(reason)] if reason in set(REASONS) else ""


def how(step: Step) -> str:
    """A step of repair in words."""
    return STEPS[step]


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    made, asked = sum(t.made for t in summary.tallies), sum(t.asked for t in summary.tallies)
    new_images = summary.images - summary.untouched
    where = f"on {count(new_images, 'image')}"
    if summary.stopped:
        return f"The run was stopped: {made:,} of {asked:,} objects were made, {where}."
    if made >= asked:
        return f"All {count(asked, 'object')} that were asked for are made, {where}."
    return f"{made:,} of {count(asked, 'object')} that were asked for are made, {where}."


def count(n: int, thing: str) -> str:
    """A number and what it counts."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def percent(share: float) -> str:
    """A share for people: fewer than one in a hundred is not none."""
    if 0 < share < 0.01:
        return "<1 %"
    return f"{100 * share:.0f} %"
