"""How a run ended: counts by category, of new and of redrawn objects, and why the rest is missing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarefill.dataset import Dataset
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Kind, Reason


@dataclass(slots=True)
class Tally:
    """One category's count: what was asked, what holds, what was refused and why.

    New objects and redrawn ones are counted apart. `unjudged` of those made were taken without a checker's word.
    """

    category: str
    asked: int
    made: int = 0
    unjudged: int = 0
    paints: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kind: Kind = Kind.NEW

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
    """

    run: Path
    images: int
    untouched: int
    labels: int
    changed: int
    dropped: int
    tallies: tuple[Tally, ...]
    notes: tuple[str, ...]

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
        }


def summarise(folder: RunDir, dataset: Dataset, asked: Mapping[Goal, int], notes: Sequence[str]) -> Summary:
    """Count what a run's records say. `notes` are lines that say why something could not be placed."""
    tallies = {goal: Tally(goal.category, n, kind=goal.kind) for goal, n in asked.items()}
    images = untouched = labels = changed = dropped = 0
    for record in folder.read(dataset):
        for trial in record.trials:
            tally = tallies[trial.goal]
            tally.paints += 1
            if not trial.verdict.accepted:
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
        folder.path, images, untouched, labels, changed, dropped, tuple(tallies.values()), tuple(notes)
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
    return "\n".join([*lines, *summary.notes])
