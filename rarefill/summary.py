"""How a run ended: counts by category, of new and of redrawn objects, and why the rest is missing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarefill.dataset import Dataset
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Kind, Reason, Step

_SHOWN = 5  # scenes named in one line


@dataclass(slots=True)
class Tally:
    """One category's count: what was asked, what holds, what was refused and why.

    New objects and redrawn ones are counted apart. `unjudged` of those made were taken without a checker's word,
    `given_up` were refused at every attempt. `tried` and `mended` count paints and those that held, by step.
    """

    category: str
    asked: int
    made: int = 0
    unjudged: int = 0
    paints: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kind: Kind = Kind.NEW
    given_up: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)

    @property
    def title(self) -> str:
        """The category, and whether it was redrawn, for people."""
        return str(Goal(self.category, self.kind))

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "asked": self.asked,
            "made": self.made,
            "unjudged": self.unjudged,
            "paints": self.paints,
            "refused": dict(sorted(self.refused.items())),
            "given_up": self.given_up,
            "steps": {
                str(step): {"paints": self.tried[step], "held": self.mended[step]}
                for step in Step
                if self.tried[step]
            },
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Attributes:
        run: its folder.
        images: written.
        untouched: of them, backgrounds left as they are.
        labels: on all images, painted and real.
        changed: real labels measured again because paint hides a part.
        dropped: real labels dropped because paint hides too much.
        tallies: by category asked for; new objects, then redrawn ones.
        notes: lines that say why something was not made.
        unfilled: numbers of scenes in which nothing that was painted held; they have no image.
        stopped: why the run ended early; empty when it did not.
    """

    run: Path
    images: int
    untouched: int
    labels: int
    changed: int
    dropped: int
    tallies: tuple[Tally, ...]
    notes: tuple[str, ...]
    unfilled: tuple[int, ...] = ()
    stopped: str = ""

    def made(self, kind: Kind) -> int:
        """How many objects of a kind hold, in all."""
        return sum(t.made for t in self.tallies if t.kind is kind)

    def as_json(self) -> dict[str, Any]:
        """JSON values, with no path in it."""
        return {
            "images": self.images,
            "untouched": self.untouched,
            "labels": self.labels,
            "changed": self.changed,
            "dropped": self.dropped,
            "categories": {t.category: t.as_json() for t in self.tallies if t.kind is Kind.NEW},
            "redrawn": {t.category: t.as_json() for t in self.tallies if t.kind is Kind.REDRAWN},
            "notes": list(self.notes),
            "unfilled": list(self.unfilled),
            "stopped": self.stopped,
        }


def summarise(
    folder: RunDir, dataset: Dataset, asked: Mapping[Goal, int], notes: Sequence[str], stopped: str = ""
) -> Summary:
    """Count what a run's records say.

    Args:
        folder: the run's.
        dataset: its data.
        asked: objects of each goal.
        notes: lines that say why something could not be placed.
        stopped: why the run ended early, if it did.
    """
    tallies = {goal: Tally(goal.category, n, kind=goal.kind) for goal, n in asked.items()}
    images = untouched = labels = changed = dropped = 0
    unfilled: list[int] = []
    for record in folder.read(dataset):
        last = {(trial.number, trial.verdict.index): trial for trial in record.trials}
        for trial in last.values():
            tallies[trial.goal].given_up += not trial.verdict.accepted
        unfilled += sorted({number for number, _ in last} - {sample.number for sample in record.samples})
        for trial in record.trials:
            tally = tallies[trial.goal]
            if trial.painted:
                tally.paints += 1
                tally.tried[trial.step] += 1
            if trial.verdict.accepted:
                tally.mended[trial.step] += 1
            else:
                tally.refused[str(trial.verdict.reason)] += 1
        for sample in record.samples:
            images += 1
            painted = [i for i in sample.instances if i.annotation is None]
            untouched += not painted
            for instance in painted:
                tally = tallies[instance.goal]
                tally.made += 1
                tally.unjudged += instance.how.get("verdict") == Reason.UNCHECKED
            labels += len(sample.instances)
            changed += sum(i.changed for i in sample.instances)
            dropped += len(sample.dropped)
    return Summary(
        folder.path,
        images,
        untouched,
        labels,
        changed,
        dropped,
        tuple(tallies.values()),
        tuple(notes),
        tuple(unfilled),
        stopped,
    )


def refusals(summary: Summary) -> str:
    """The table that says what was asked, what holds, and why the rest does not."""
    rows = [("category", "asked", "made", "paints", "refused")]
    for t in summary.tallies:
        why = ", ".join(f"{n} {reason}" for reason, n in t.refused.most_common()) or "-"
        rows.append((t.title, str(t.asked), str(t.made), str(t.paints), why))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]])
        for row in rows
    ]
    lines += [
        f"{t.title}: {t.unjudged} of {t.made} were not judged by a checker"
        for t in summary.tallies
        if t.unjudged
    ]
    lines += [line for t in summary.tallies if (line := _repaired(t))]
    if summary.unfilled:
        lines.append(_unfilled(summary.unfilled))
    return "\n".join([*lines, *summary.notes])


def _repaired(tally: Tally) -> str:
    """Which ways to mend were taken for a category, and how often each did; empty where none was."""
    ways = [
        f"{step} {tally.mended[step]} of {tally.tried[step]}"
        for step in Step
        if step is not Step.FIRST and tally.tried[step]
    ]
    if not ways:
        return ""
    first = f"{tally.mended[Step.FIRST]} of {tally.tried[Step.FIRST]} held at first"
    return f"{tally.title}: {first}; painted again: {', '.join(ways)}; {tally.given_up} given up"


def _unfilled(numbers: Sequence[int]) -> str:
    """The scenes that are missing, the first few by their number."""
    shown = ", ".join(f"{number:06d}" for number in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    scenes = "1 scene could" if len(numbers) == 1 else f"{len(numbers)} scenes could"
    return (
        f"{scenes} not be filled: nothing that was painted there held, so there is no image ({shown}{more})"
    )
