"""`generate --prove`: a short study after a run. Part of the data is held back, and everything is made anew without it.

The run itself cannot be tested on its own data: it painted from all of it. So the study splits the data by groups, generates
from the larger part alone, trains with and without, and tests on the part held back. It tells about this way of
generating on this kind of data, with fewer real examples than the run had.
"""

import time
from pathlib import Path

import numpy as np

from rarefill import console, pipeline
from rarefill.dataset import Dataset, load
from rarefill.errors import DataError, UsageError
from rarefill.exporters import original
from rarefill.progress import SILENT, Progress
from rarefill.proof import evaluate as studies
from rarefill.proof import groups, mix, parts, trainers
from rarefill.proof.arms import Spec
from rarefill.proof.evaluate import Question
from rarefill.proof.split_command import write
from rarefill.proof.study import Study
from rarefill.proof.trainers import Settings, Task
from rarefill.recipe import Recipe
from rarefill.scene import Kind
from rarefill.seeds import Stage, rng
from rarefill.summary import Summary

FOLDER = "proof"
SETTINGS = Settings(steps=300)
SEEDS = (0, 1)
SHARES = (0.65, 0.0, 0.35)
MOST = 100
"""New objects of each category that the study makes, at most."""
_TRIED = 3  # steps, to see how long one takes


def after(
    recipe: Recipe, summary: Summary, progress: Progress = SILENT, settings: Settings = SETTINGS
) -> Study:
    """A study of a run that has just ended, in its folder; the same call continues one that was interrupted.

    Args:
        recipe: the run's.
        summary: how it ended.
        progress: where counts are shown.
        settings: of the trainings.

    Raises:
        UsageError: the run made no new objects.
        DataError: there are too few real objects to hold any back.
    """
    made = {t.category: t.made for t in summary.tallies if t.kind is Kind.NEW and t.made}
    if not made:
        raise UsageError("--prove measures new objects, and this run made none")
    dataset = pipeline.open_dataset(recipe, progress)
    folder = summary.run / FOLDER
    train, test = held_back(dataset, tuple(made), folder, progress)
    generator = recipe.generator.generator
    question = Question(
        trains=(train,),
        test=test,
        rare=tuple(made),
        arms=("real", "repeat", "rfs", f"{generator}+rfs"),
        seeds=SEEDS,
        objects=min(MOST, max(made.values())),
        recipe=recipe,
        settings=settings,
    )
    progress.say(
        f"Proof: {len(question.arms) * len(SEEDS)} trainings of {settings.steps} steps on {len(train.images)} images, "
        f"tested on {len(test.images)} held back; {_time(question, train, test, folder)}"
    )
    return studies.evaluate(question, folder, progress)


def held_back(
    dataset: Dataset, rare: tuple[str, ...], folder: Path, progress: Progress = SILENT
) -> tuple[Dataset, Dataset]:
    """The data in two parts that share no group, as COCO files in a folder.

    Raises:
        DataError: a rare category does not reach both.
    """
    group = groups.find(dataset, "similar", progress)
    found = parts.assign(
        parts.holding(dataset), group, SHARES, dataset.names, rng(0, Stage.PLAN, 2), floor=parts.FLOOR
    )
    a = dataset.annotations
    for name in rare:
        for part in ("train", "test"):
            if not np.isin(a.image[dataset.rows_of(name)], found.images(part)).any():
                raise DataError(
                    f"--prove: {name} stands in too few images to hold any back; bring a test part: rarefill evaluate"
                )
    source = original.read(dataset)
    out = []
    for part in ("train", "test"):
        path = folder / f"{part}.json"
        write(path, source, dataset, found.images(part))
        out.append(load(path, dataset.root))
    return out[0], out[1]


class _Watch:
    """A bar that counts nothing and looks at the clock."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def advance(self, n: int = 1, note: str = "") -> None:
        """One step is done."""
        del n, note
        self._at.append(time.monotonic())

    def whole(self, steps: int) -> float:
        """Seconds that a training of so many steps will take, its test included; to be called when a short one has ended."""
        step = (self._at[-1] - self._at[0]) / max(1, len(self._at) - 1)
        return step * steps + time.monotonic() - self._at[-1]


def _time(question: Question, train: Dataset, test: Dataset, folder: Path) -> str:
    """How long the trainings will take, by a few steps of one; and what comes on top."""
    s = question.settings
    few = trainers.build(Settings(s.detector, s.command, _TRIED, s.batch, s.size_px, s.learning_rate))
    list_ = mix.compose(
        Spec("real"), train, None, question.rare, rng(0, Stage.FIT, 0), length=mix.PASSES * len(train.images)
    )
    watch = _Watch()
    few.run(Task(list_, test, 0, folder), watch)
    whole = watch.whole(s.steps) * len(question.arms) * len(question.seeds)
    adapting = question.recipe.generator
    more = (
        f", and adapting the model up to {adapting.minutes:g} minutes"
        if adapting.generator == "compact"
        else ""
    )
    return f"about {console.clock(whole)}{more}; stop it whenever you like, the same command continues"
