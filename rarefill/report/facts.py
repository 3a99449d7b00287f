"""What a finished run's folder says: every painted object, every refusal, and the labels before and after."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rarefill.annotators import Standing
from rarefill.annotators.calibrate import Errors
from rarefill.dataset import Dataset
from rarefill.errors import RunError
from rarefill.geometry import Box, Mask, iou
from rarefill.records import Trial
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Instance, Kind, Sample, Step
from rarefill.summary import Summary, summarise

SHOWN = 240
"""Painted objects whose pictures a report shows, of all goals together."""
GIVEN_UP = 40
"""Objects that no attempt brought to life, named one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """One object that holds.

    Attributes:
        id: names it in the run: its file and its place among the file's objects.
        file: of the image, under the run's `images/`.
        image: row of the background in `dataset.images`.
        size: of the image, width and height in pixels.
        category: its name.
        kind: new, or redrawn in place.
        box: the label.
        mask: its painted pixels; None for an object whose picture is not shown.
        asked: the box asked for; None where the records do not tell.
        attempt: which paint held, from 0.
        step: how that was painted.
        score: the checker's, None where it did not judge.
        how: its record, JSON scalars.
        annotation: row of the object that it repaints; None for a new one.
    """

    id: str
    file: str
    image: int
    size: tuple[int, int]
    category: str
    kind: Kind
    box: Box
    mask: Mask | None
    asked: Box | None
    attempt: int
    step: Step
    score: float | None
    how: Mapping[str, str | int | float | bool]
    annotation: int | None = None

    @property
    def goal(self) -> Goal:
        """What it counts towards."""
        return Goal(self.category, self.kind)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """One object that no attempt brought to life: the last verdict on it."""

    number: int
    goal: Goal
    attempts: int
    reason: str
    score: float
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """A whole run.

    Attributes:
        folder: where it stands.
        dataset: what it was made from.
        manifest: as written.
        summary: its counts.
        painted: every object that holds, in the run's order; those of `shown` have their masks.
        shown: rows of `painted` whose pictures are shown, spread evenly over the run, goal by goal.
        given_up: the first of those that no attempt brought to life.
        real: labels of the dataset by category, crowds left out.
        repeated: labels on the run's images that come from the dataset.
        checker: how well it knew each category; empty where it did not look.
        covered: by category, the share of its plausible places that real objects fill, and with the planned ones.
    """

    folder: RunDir
    dataset: Dataset
    manifest: Mapping[str, Any]
    summary: Summary
    painted: tuple[Painted, ...]
    shown: tuple[int, ...]
    given_up: tuple[GivenUp, ...]
    real: Mapping[str, int]
    repeated: Mapping[str, int]
    checker: tuple[Standing, ...]
    covered: Mapping[str, tuple[float, float]]

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What was asked for, in its order."""
        return tuple(Goal(t.category, t.kind) for t in self.summary.tallies)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories asked for, each once."""
        return tuple(dict.fromkeys(goal.category for goal in self.goals))


def read(folder: RunDir, dataset: Dataset, manifest: Mapping[str, Any] | None = None) -> Facts:
    """All that the folder tells.

    Args:
        folder: of a finished run.
        dataset: what it was made from.
        manifest: that the run will have; by default the one that it has.

    Raises:
        UsageError: no run.
        RunError: the run is not finished, its dataset has changed since, or its records are damaged.
    """
    manifest = folder.manifest() if manifest is None else manifest
    if not manifest.get("finished"):
        raise RunError(f"{folder.path} is not finished; run its generate command again first")
    if dataset.digest != manifest["rarefill"]["data"]:
        raise RunError(f"{dataset.path} has changed since {folder.path} was made; its labels would not fit")
    kept = manifest["summary"]
    asked = {Goal(name): int(v["asked"]) for name, v in kept["categories"].items()}
    asked |= {Goal(name, Kind.REDRAWN): int(v["asked"]) for name, v in kept["redrawn"].items()}
    summary = summarise(folder, dataset, asked, kept["notes"], kept.get("stopped", ""))
    wanted = _wanted(summary)
    seen: Counter[Goal] = Counter()
    painted: list[Painted] = []
    given_up: list[GivenUp] = []
    repeated: Counter[str] = Counter()
    for record in folder.read(dataset):
        tried = _by_scene(record.trials)
        given_up += _given_up(record.trials) if len(given_up) < GIVEN_UP else []
        for sample in record.samples:
            repeated.update(i.category for i in sample.instances if i.annotation is not None and not i.crowd)
            for thing in _painted(sample, tried[sample.number], seen, wanted):
                painted.append(thing)
                seen[thing.goal] += 1
    return Facts(
        folder=folder,
        dataset=dataset,
        manifest=manifest,
        summary=summary,
        painted=tuple(painted),
        shown=_shown(painted, wanted),
        given_up=tuple(given_up[:GIVEN_UP]),
        real={name: len(dataset.rows_of(name)) for name in dataset.names},
        repeated=repeated,
        checker=tuple(_standing(value) for value in kept.get("checker", ())),
        covered={name: (float(a), float(b)) for name, (a, b) in kept.get("covered", {}).items()},
    )


def spread(n: int, most: int) -> list[int]:
    """At most so many of n rows, evenly from the first to the last."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(most, n)).round())] if n else []


def _wanted(summary: Summary) -> dict[Goal, frozenset[int]]:
    """Of each goal's objects, by their order in the run, those whose pictures are shown: fair shares of `SHOWN`."""
    made = {Goal(t.category, t.kind): t.made for t in summary.tallies}
    shares = dict.fromkeys(made, 0)
    left = min(SHOWN, sum(made.values()))
    while left:
        open_ = [goal for goal in made if shares[goal] < made[goal]]
        for goal in open_:
            more = min(max(1, left // len(open_)), made[goal] - shares[goal], left)
            shares[goal] += more
            left -= more
    return {goal: frozenset(spread(n, shares[goal])) for goal, n in made.items()}


def _shown(painted: Sequence[Painted], wanted: Mapping[Goal, frozenset[int]]) -> tuple[int, ...]:
    rows: list[int] = []
    for goal, chosen in wanted.items():
        own = [row for row, thing in enumerate(painted) if thing.goal == goal]
        rows += [row for n, row in enumerate(own) if n in chosen]
    return tuple(rows)


def _by_scene(trials: Sequence[Trial]) -> Mapping[int, list[Trial]]:
    """The paints that were accepted, by the number of their image."""
    found: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.verdict.accepted:
            found[trial.number].append(trial)
    return found


def _painted(
    sample: Sample, trials: Sequence[Trial], seen: Mapping[Goal, int], wanted: Mapping[Goal, frozenset[int]]
) -> Iterator[Painted]:
    """The painted objects of one image, each with the paint that it came of."""
    left = list(trials)
    for place, instance in enumerate(sample.instances):
        if instance.annotation is not None:
            continue
        trial = _trial_of(instance, left)
        if trial is not None:
            left.remove(trial)
        shown = seen[instance.goal] in wanted.get(instance.goal, ())
        yield Painted(
            id=f"{sample.file_name}#{place}",
            file=sample.file_name,
            image=sample.image,
            size=(sample.width, sample.height),
            category=instance.category,
            kind=instance.goal.kind,
            box=instance.box,
            mask=instance.mask if shown else None,
            asked=trial.asked if trial else None,
            attempt=trial.attempt if trial else 0,
            step=trial.step if trial else Step.FIRST,
            score=instance.score,
            how=instance.how,
            annotation=instance.redraws,
        )


def _trial_of(instance: Instance, trials: Sequence[Trial]) -> Trial | None:
    """The accepted paint whose measured box is an object's, or nearest to it where others hid a part of it later."""
    if instance.redraws is not None:
        return next((t for t in trials if t.redraws == instance.redraws), None)
    own = [t for t in trials if t.goal == instance.goal and t.verdict.box is not None]
    return max(own, key=lambda t: iou(t.verdict.box, instance.box) if t.verdict.box else 0.0, default=None)


def _given_up(trials: Sequence[Trial]) -> list[GivenUp]:
    last = {(t.number, t.verdict.index): t for t in trials}
    paints = Counter((t.number, t.verdict.index) for t in trials if t.painted)
    return [
        GivenUp(t.number, t.goal, paints[key], str(t.verdict.reason), t.verdict.score, t.verdict.threshold)
        for key, t in last.items()
        if not t.verdict.accepted
    ]


def _standing(value: Mapping[str, Any]) -> Standing:
    errors = tuple(Errors(**e) for e in value.get("errors", ()))
    return Standing(**{**value, "errors": errors})
