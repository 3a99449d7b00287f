"""A few versions of a run: paint them, look at their labels again, paint again what was refused, write what holds."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from rarefill import seeds
from rarefill.dataset import Dataset
from rarefill.files import write_bytes
from rarefill.pictures import SUFFIX, encode
from rarefill.recipe import Recipe
from rarefill.records import Record
from rarefill.rundir import RunDir
from rarefill.scene import Instance, Pixels, Sample
from rarefill.seeds import Stage
from rarefill.takes import Outcome, Take
from rarefill.versions.areas import Bits, kept_of

if TYPE_CHECKING:
    from rarefill.annotators.recheck import Recheck
    from rarefill.generators.versions import Repaints, Version

CHUNK: Final = 4
"""Versions in a chunk: what a kill can lose, and what batches are packed from."""
_LEAST_ROOM: Final = 0.02
"""Share of an image that must be left to repaint around its objects."""
_ENOUGH_SEEDS: Final = 2
"""Attempts at a version's own strength; those after it stay nearer to the image."""


@dataclass(frozen=True, slots=True)
class Job:
    """A version to make.

    Attributes:
        number: in the run, from 1.
        image: row of the image.
        copy: which version of it, from 0.
    """

    number: int
    image: int
    copy: int


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """What a chunk needs of the run. Shared by all threads, changed by none."""

    recipe: Recipe
    dataset: Dataset
    repainter: "Repaints"
    recheck: "Recheck"
    run: RunDir


@dataclass(slots=True, eq=False)
class _Work:
    """A version in the making.

    Attributes:
        background: the image's pixels.
        kept: what stays of them; None where nothing has to.
        prompt: its words, the same at every attempt: what is hard to paint is not made rarer by painting again.
        strength: drawn for it.
        takes: every try.
        version: the one that holds.
    """

    job: Job
    background: Pixels
    kept: Bits | None
    prompt: str
    strength: float
    takes: list[Take] = field(default_factory=list)
    version: "Version | None" = None

    @property
    def waits(self) -> bool:
        """Whether it is to be painted, again or at all."""
        return self.version is None and not (self.takes and self.takes[-1].outcome is Outcome.NO_ROOM)


def jobs(images: Sequence[int], copies: int, most: int | None, seed: int) -> list[Job]:
    """The versions of a run: each image's copies one after the other; with `most` so many of them, drawn by the seed."""
    wanted = [(image, copy) for image in images for copy in range(copies)]
    if most is not None and most < len(wanted):
        drawn = seeds.rng(seed, Stage.VERSION).choice(len(wanted), most, replace=False)
        wanted = [wanted[int(k)] for k in np.sort(drawn)]
    return [Job(n, image, copy) for n, (image, copy) in enumerate(wanted, 1)]


def cut(wanted: Sequence[Job]) -> list[tuple[int, tuple[Job, ...]]]:
    """Chunks, with their numbers."""
    return [(at // CHUNK, tuple(wanted[at : at + CHUNK])) for at in range(0, len(wanted), CHUNK)]


def process(stages: Stages, chunk: tuple[int, tuple[Job, ...]]) -> Record:
    """Paint, check and write one chunk.

    Raises:
        DataError: an image cannot be read.
        ModelError: the model answered with what is no number, or memory does not reach.
        RunError: an image cannot be written.
    """
    number, some = chunk
    works = [_begun(stages, job) for job in some]
    for attempt in range(stages.recipe.attempts):
        if busy := [work for work in works if work.waits]:
            _try(stages, busy, attempt)
    samples, hashes = [], []
    for work in works:
        if work.version is not None:
            sample = _sample(stages, work, work.version)
            data = encode(work.version.pixels, stages.recipe.image_format)
            write_bytes(stages.run.images / sample.file_name, data)
            samples.append(sample)
            hashes.append(hashlib.sha256(data).hexdigest())
    takes = tuple(take for work in works for take in work.takes)
    return Record(0, number, tuple(samples), (), tuple(hashes), takes)


def _begun(stages: Stages, job: Job) -> _Work:
    dataset, config = stages.dataset, stages.recipe.versions
    background = dataset.read(job.image)
    rng = seeds.rng(stages.recipe.seed, Stage.VERSION, job.image, job.copy)
    strength = float(config.version_strength[rng.integers(len(config.version_strength))])
    present = dataset.annotations.category[dataset.rows_in(job.image)]
    names = tuple(dict.fromkeys(dataset.names[int(c)] for c in present))
    kept = kept_of(dataset, job.image, config)
    work = _Work(job, background, kept, stages.repainter.say(names, rng), strength)
    room = 1.0 if kept is None else float((~kept).mean())
    if room == 0 or (config.area == "background" and room < _LEAST_ROOM):
        work.takes.append(Take(job.number, job.image, job.copy, 0, Outcome.NO_ROOM))
    return work


def _try(stages: Stages, works: Sequence[_Work], attempt: int) -> None:
    """Paint versions once and judge them."""
    from rarefill.generators.versions import Order

    recipe = stages.recipe
    orders = [
        Order(
            work.job.image,
            work.background,
            work.kept,
            work.prompt,
            work.strength if attempt < _ENOUGH_SEEDS else min(work.strength, recipe.repair_strength),
            seeds.rng(recipe.seed, Stage.VERSION, work.job.image, work.job.copy, attempt),
        )
        for work in works
    ]
    for work, version in zip(works, stages.repainter.paint(orders), strict=True):
        take = _judged(stages, work, version, attempt)
        work.takes.append(take)
        if take.outcome.accepted:
            work.version = version


def _judged(stages: Stages, work: _Work, version: "Version", attempt: int) -> Take:
    """A version's labels looked at again, where they were repainted, and what else is seen in it."""
    from rarefill.annotators.recheck import Fate

    job, recheck = work.job, stages.recheck
    how = {**version.how, "seed": stages.recipe.seed, "attempt": attempt}
    stay = stages.recipe.versions.area == "background"  # the labels' own pixels
    looked = [] if stay else recheck.labels(job.image, work.background, version.pixels)
    by = {fate: tuple(label.row for label in looked if label.fate is fate) for fate in Fate}
    painted = None if work.kept is None else ~work.kept
    extras = recheck.extras(job.image, work.background, version.pixels, painted)
    judged = len(by[Fate.FOUND]) + len(by[Fate.GONE]) + len(by[Fate.SPOILED])
    outcome = Outcome.ACCEPTED if judged or (recheck.looks and not looked) else Outcome.UNCHECKED
    if by[Fate.SPOILED]:
        outcome = Outcome.SPOILED
    elif len(by[Fate.GONE]) > stages.recipe.versions.lose * judged:
        outcome = Outcome.LOST
    elif extras:
        outcome = Outcome.EXTRA
    return Take(
        job.number,
        job.image,
        job.copy,
        attempt,
        outcome,
        how,
        len(by[Fate.FOUND]),
        by[Fate.UNJUDGED],
        by[Fate.GONE],
        by[Fate.SPOILED],
        tuple((e.category, *e.box.xyxy, round(e.score, 4)) for e in extras),
    )


def _sample(stages: Stages, work: _Work, version: "Version") -> Sample:
    dataset, take, job = stages.dataset, work.takes[-1], work.job
    height, width = version.pixels.shape[:2]
    role = stages.recipe.role
    mark = "" if role == "train" else f"synthetic-{role}-"
    instances = tuple(
        Instance(
            dataset.names[int(dataset.annotations.category[row])],
            dataset.box(row),
            annotation=row,
            crowd=bool(dataset.annotations.crowd[row]),
        )
        for row in map(int, dataset.rows_in(job.image))
        if row not in take.gone
    )
    return Sample(
        job.number,
        f"{mark}{job.number:06d}{SUFFIX[stages.recipe.image_format]}",
        width,
        height,
        job.image,
        job.copy,
        instances,
        tuple((row, 0.0) for row in take.gone),
        {
            **take.how,
            "verdict": str(take.outcome),
            "labels_found": take.found,
            "labels_unjudged": len(take.unjudged),
        },
    )
