"""How a run of versions ended: how many hold, why others do not, and what became of the labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarefill.dataset import Dataset
from rarefill.rundir import RunDir
from rarefill.takes import Outcome


@dataclass(slots=True)
class Tally:
    """One category's labels on the versions that hold."""

    category: str
    labels: int = 0
    unjudged: int = 0
    dropped: int = 0

    def as_json(self) -> dict[str, int]:
        """JSON values."""
        return {"labels": self.labels, "unjudged": self.unjudged, "dropped": self.dropped}


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run of versions ended.

    Attributes:
        run: its folder.
        asked: versions.
        images: versions that hold, and were written.
        unchecked: of them, those in which no label could be judged.
        labels: on them.
        unjudged: of those, labels of which the checker can say nothing.
        dropped: labels lost with their objects.
        takes: paints of a version, all tries counted.
        refused: takes that were refused, by reason.
        given_up: versions that no try brought about, by the last reason.
        tallies: labels by category, those without any left out.
        stopped: why the run ended early; empty when it did not.
    """

    run: Path
    asked: int
    images: int
    unchecked: int
    labels: int
    unjudged: int
    dropped: int
    takes: int
    refused: dict[str, int]
    given_up: dict[str, int]
    tallies: tuple[Tally, ...]
    stopped: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON values, with no path in it."""
        return {
            "asked": self.asked,
            "images": self.images,
            "unchecked": self.unchecked,
            "labels": self.labels,
            "unjudged": self.unjudged,
            "dropped": self.dropped,
            "takes": self.takes,
            "refused": self.refused,
            "given_up": self.given_up,
            "categories": {t.category: t.as_json() for t in self.tallies},
            "stopped": self.stopped,
        }


def summarise(folder: RunDir, dataset: Dataset, asked: int, stopped: str = "") -> Summary:
    """Count what a run's records say.

    Args:
        folder: the run's.
        dataset: its data.
        asked: versions.
        stopped: why the run ended early, if it did.
    """
    tallies = {name: Tally(name) for name in dataset.names}
    refused: Counter[str] = Counter()
    given_up: Counter[str] = Counter()
    images = unchecked = takes = 0
    for record in folder.read(dataset):
        last = {take.number: take for take in record.takes}
        takes += len(record.takes)
        refused.update(str(t.outcome) for t in record.takes if not t.outcome.accepted)
        given_up.update(str(t.outcome) for t in last.values() if not t.outcome.accepted)
        for sample in record.samples:
            take = last[sample.number]
            images += 1
            unchecked += take.outcome is Outcome.UNCHECKED
            for instance in sample.instances:
                tallies[instance.category].labels += 1
            for row in take.unjudged:
                tallies[dataset.names[int(dataset.annotations.category[row])]].unjudged += 1
            for row in take.gone:
                tallies[dataset.names[int(dataset.annotations.category[row])]].dropped += 1
    shown = tuple(t for t in tallies.values() if t.labels or t.dropped)
    return Summary(
        folder.path,
        asked,
        images,
        unchecked,
        sum(t.labels for t in shown),
        sum(t.unjudged for t in shown),
        sum(t.dropped for t in shown),
        takes,
        dict(refused.most_common()),
        dict(given_up.most_common()),
        shown,
        stopped,
    )


def table(summary: Summary) -> str:
    """What a person is told at the end."""
    rows = [("category", "labels", "not judged", "dropped")]
    rows += [(t.category, str(t.labels), str(t.unjudged), str(t.dropped)) for t in summary.tallies]
    lines = []
    if summary.tallies:
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))])
            for row in rows
        ]
    lines.append(f"{summary.images} of {summary.asked} versions hold; {summary.takes} were painted")
    if summary.refused:
        lines.append(f"refused: {counted(summary.refused)}")
    if summary.given_up:
        lines.append(f"given up: {counted(summary.given_up)}; they have no image")
    if summary.unchecked:
        lines.append(f"{summary.unchecked} of {summary.images} were not judged by a checker")
    return "\n".join(lines)


def counted(reasons: dict[str, int]) -> str:
    """Reasons with their numbers, the most frequent first."""
    return ", ".join(f"{n} {reason}" for reason, n in reasons.items())


def spread(items: Sequence[int], most: int) -> list[int]:
    """At most so many items, evenly from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
