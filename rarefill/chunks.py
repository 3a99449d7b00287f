"""One chunk of a run: paint its layouts, check them, mend what was refused, write the images.

What was refused in any of a chunk's layouts is painted again together, in the batches of the next attempt.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rarefill.dataset import Dataset
from rarefill.files import write_bytes
from rarefill.ladder import Ladder
from rarefill.pictures import SUFFIX, encode
from rarefill.recipe import Recipe
from rarefill.records import Record, Trial
from rarefill.rundir import RunDir
from rarefill.scene import Layout, Pixels, Reason, Render, Sample, Step, Verdict

if TYPE_CHECKING:
    from rarefill.annotators import Checker
    from rarefill.annotators.originals import Originals
    from rarefill.generators import Generator
    from rarefill.layouts import Planner

CHUNK = 8
"""Layouts in a chunk: what a kill can lose, and what diffusion batches are packed from."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A piece of the plan. `first` is the number of its first layout in the run, from 1."""

    round: int
    index: int
    first: int
    layouts: tuple[Layout, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """What a chunk needs of the run. Shared by all threads, changed by none.

    `fallback` paints what `generator` cannot. `originals` finds near-copies, where they are refused.
    """

    recipe: Recipe
    dataset: Dataset
    planner: "Planner"
    generator: "Generator"
    checker: "Checker"
    run: RunDir
    fallback: "Generator | None" = None
    originals: "Originals | None" = None


def cut(layouts: Sequence[Layout], *, round: int, first: int) -> list[Chunk]:
    """The chunks of one round's plan."""
    return [
        Chunk(round, start // CHUNK, first + start, tuple(layouts[start : start + CHUNK]))
        for start in range(0, len(layouts), CHUNK)
    ]


def process(stages: Stages, chunk: Chunk) -> Record:
    """Paint, check, repair and write one chunk.

    Raises:
        DataError: a background cannot be read.
        RunError: an image cannot be written.
    """
    scenes = [_Scene(layout, chunk.first + i) for i, layout in enumerate(chunk.layouts)]
    backgrounds = [stages.dataset.read(scene.layout.image) for scene in scenes]
    ladder = Ladder.of(stages.recipe, stages.generator.name)
    for attempt in range(ladder.attempts):
        todo = [scene.next_todo(stages.planner, ladder, attempt) for scene in scenes]
        busy = [i for i, indices in enumerate(todo) if indices]
        _paint(stages, scenes, backgrounds, todo, busy)
        renders = [scenes[i].painted() for i in busy]
        verdicts = stages.checker.check(renders, [todo[i] for i in busy]) if busy else []
        looked = _no_copies(stages, renders, _looked_around(stages, renders, verdicts))
        for i, found in zip(busy, looked, strict=True):
            scenes[i].judge(found, attempt)
    samples, hashes = [], []
    for scene, background in zip(scenes, backgrounds, strict=True):
        if scene.layout.placements and not scene.accepted():
            continue  # nothing holds in it: no image
        render = scene.result(background)
        sample = _sample(stages, scene, render)
        data = encode(render.pixels, stages.recipe.image_format)
        write_bytes(stages.run.images / sample.file_name, data)
        samples.append(sample)
        hashes.append(hashlib.sha256(data).hexdigest())
    trials = tuple(t for scene in scenes for t in scene.trials)
    return Record(chunk.round, chunk.index, tuple(samples), trials, tuple(hashes))


def _looked_around(
    stages: Stages, renders: Sequence[Render], verdicts: Sequence[tuple[Verdict, ...]]
) -> Sequence[tuple[Verdict, ...]]:
    """The verdicts, less those whose paint did harm around it, where the checker can tell."""
    from rarefill.annotators.collateral import LooksAround

    if stages.recipe.collateral == "off" or not isinstance(stages.checker, LooksAround):
        return verdicts
    return stages.checker.collateral(stages.dataset, renders, verdicts)


def _no_copies(
    stages: Stages, renders: Sequence[Render], verdicts: Sequence[tuple[Verdict, ...]]
) -> Sequence[tuple[Verdict, ...]]:
    """The verdicts, less those on near-copies of real objects, where the recipe refuses them."""
    return verdicts if stages.originals is None else stages.originals.judged(renders, verdicts)


class _Scene:
    """One layout on its way through the attempts."""

    def __init__(self, layout: Layout, number: int) -> None:
        self.layout = layout
        self.number = number
        self.render: Render | None = None
        self.attempts = [0] * len(layout.placements)
        self.steps = [Step.FIRST] * len(layout.placements)
        self.verdicts: dict[int, Verdict] = {}
        self.trials: list[Trial] = []

    def accepted(self) -> list[int]:
        return [i for i, v in sorted(self.verdicts.items()) if v.accepted]

    def painted(self) -> Render:
        if self.render is None:
            raise RuntimeError("a scene is checked only after it was painted")
        return self.render

    def next_todo(self, planner: "Planner", ladder: Ladder, attempt: int) -> tuple[int, ...]:
        """Which placements to paint now; from the second attempt on the refused ones, changed as the ladder says."""
        if attempt == 0:
            return tuple(range(len(self.layout.placements)))
        return tuple(i for i, v in sorted(self.verdicts.items()) if self._mend(v, planner, ladder, attempt))

    def _mend(self, verdict: Verdict, planner: "Planner", ladder: Ladder, attempt: int) -> bool:
        """Whether an object is painted again; its placement is then the one to paint."""
        if verdict.accepted or verdict.reason is Reason.NO_PLACE:
            return False
        index = verdict.index
        placements = self.layout.placements
        way = ladder.mended(
            placements[index], attempt, lambda: planner.elsewhere(self.layout, index, attempt)
        )
        if way is None:
            self.steps[index] = Step.PLACE
            self.judge([Verdict(index, Reason.NO_PLACE)], attempt)
            return False
        self.steps[index], mended = way
        self.layout = replace(self.layout, placements=(*placements[:index], mended, *placements[index + 1 :]))
        self.attempts[index] = attempt
        return True

    def judge(self, verdicts: Sequence[Verdict], attempt: int) -> None:
        for verdict in verdicts:
            index = verdict.index
            asked = self.layout.placements[index]
            self.verdicts[index] = verdict
            self.trials.append(
                Trial(
                    self.number, attempt, asked.category, asked.box, verdict, asked.redraws, self.steps[index]
                )
            )

    def result(self, background: Pixels) -> Render:
        """The render with what was refused taken back."""
        from rarefill.generators import take_back

        if self.render is None:
            return Render(self.layout, background, background, ())
        refused = [i for i, v in self.verdicts.items() if not v.accepted]
        return take_back(self.render, refused)


def _paint(
    stages: Stages,
    scenes: Sequence[_Scene],
    backgrounds: Sequence[Pixels],
    todo: Sequence[tuple[int, ...]],
    busy: Sequence[int],
) -> None:
    from rarefill.generators import Job, render

    jobs = [
        Job(
            scenes[i].layout,
            backgrounds[i],
            tuple(scenes[i].attempts),
            scenes[i].render,
            todo[i],
            frozenset(k for k in todo[i] if scenes[i].steps[k] is Step.PASTE),
        )
        for i in busy
    ]
    painted = render(stages.generator, jobs, seed=stages.recipe.seed, fallback=stages.fallback)
    for i, done in zip(busy, painted, strict=True):
        scenes[i].render = done


def _sample(stages: Stages, scene: _Scene, render: Render) -> Sample:
    from rarefill.annotators import labels

    verdicts = tuple(v for _, v in sorted(scene.verdicts.items()))
    instances, dropped = labels.remeasure(stages.dataset, render, verdicts, stages.recipe.annotator)
    height, width = render.pixels.shape[:2]
    role = stages.recipe.role
    mark = (
        "" if role == "train" else f"synthetic-{role}-"
    )  # in the name, so that nobody takes it for a real one
    name = f"{mark}{scene.number:06d}{SUFFIX[stages.recipe.image_format]}"
    return Sample(
        scene.number, name, width, height, scene.layout.image, scene.layout.copy, instances, dropped
    )
