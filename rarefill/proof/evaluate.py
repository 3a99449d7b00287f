"""The story of a study: make the arms' images, train every arm, and say what came of it. Each training is a file.

OUT/made/SPLIT/SOURCE/          new images, a run folder each (or plain copy-paste's)
OUT/runs/SPLIT-ARM-SEED.json    one training's detections or figures, and what they follow from
OUT/study.json, OUT/ratios.svg  what was found
"""

import hashlib
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import DataError, UsageError
from rarefill.files import write_bytes
from rarefill.progress import SILENT, Bar, Progress
from rarefill.proof import arms, groups, mix, sources, trainers
from rarefill.proof.analysis import Bench, analyse
from rarefill.proof.arms import Spec
from rarefill.proof.mix import Mix
from rarefill.proof.score import Detection
from rarefill.proof.sources import Made
from rarefill.proof.study import FILE, PLOT, Figures, Study, write
from rarefill.proof.svg import draw
from rarefill.proof.trainers import Answer, Settings, Task, Trainer
from rarefill.recipe import Recipe
from rarefill.rundir import RunDir
from rarefill.seeds import Stage, rng


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What a study asks.

    Attributes:
        trains: training parts, one a split.
        test: the test part, the same for all.
        rare: the categories that it is about.
        arms: names, as `arms.parse` takes them.
        ratios: generated images for each real one.
        seeds: of the trainings.
        objects: new objects of each rare category that a generator makes.
        oracles: more real data, one a split; empty for none.
        runs: run folders, `FOLDER` or `NAME=FOLDER`.
        recipe: options of the runs that are made.
        settings: the trainer's.
        group_by: how test images are grouped for intervals.
    """

    trains: tuple[Dataset, ...]
    test: Dataset
    rare: tuple[str, ...]
    arms: tuple[str, ...] = arms.DEFAULT
    ratios: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    objects: int = 200
    oracles: tuple[Dataset, ...] = ()
    runs: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    settings: Settings = field(default_factory=Settings)
    group_by: str = "similar"


_FEW_GROUPS = 20


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One training's file.

    Attributes:
        identity: what it follows from; another one means that it is trained again.
        detections: of the test, where they are known.
        figures: AP by category, where they are all that is known.
        seconds: of training and test.
        images, synthetic: entries of the list, and those that are generated.
    """

    identity: str
    seconds: float
    images: int
    synthetic: int
    detections: list[Detection] | None = None
    figures: dict[str, Figures] = {}


def evaluate(
    question: Question, out: Path, progress: Progress = SILENT, trainer: Trainer | None = None
) -> Study:
    """Answer a question; the same call again continues what was interrupted.

    Args:
        question: what is asked.
        out: the study's folder.
        progress: where counts are shown.
        trainer: your own, instead of the settings'.

    Raises:
        RarefillError: one clear line.
    """
    _check(question)
    with RunDir(out).locked():
        return _evaluate(question, out, progress, trainer or trainers.build(question.settings))


def _evaluate(q: Question, out: Path, progress: Progress, trainer: Trainer) -> Study:
    runs = sources.brought(q.runs, q.trains)
    specs = arms.parse(q.arms, q.ratios, dict.fromkeys(name for _, name in runs))
    if any(s.kind == "oracle" for s in specs) and not q.oracles:
        raise UsageError("the arm oracle needs --oracle FILE, more real data of the same categories")
    group, notes = _test_groups(q, progress)
    wanted = list(dict.fromkeys(s.generator for s in specs if s.generator))
    made = sources.make(wanted, q.trains, runs, q.recipe, q.rare, q.objects, out, progress)
    bench = Bench(q.test, q.trains, q.oracles, q.rare, q.seeds, specs, made, group)
    settings: dict[str, Any] = {"objects": q.objects, "list": _length(q.trains[0]), **trainer.identity()}
    todo = [
        (spec, split)
        for split in range(len(q.trains))
        for spec in specs
        if not spec.generator or (split, spec.generator) in made.datasets
    ]
    kept: dict[tuple[str, int, int], Kept] = {}

    def say(*, by_group: bool = False) -> Study:
        study = analyse(bench, kept, trainer.words, settings, notes, progress, by_group=by_group)
        write(out / FILE, study)
        write_bytes(out / PLOT, draw(study).encode())
        return study

    unit = "steps" if trainer.steps > 1 else "trainings"
    with progress.bar("training", len(todo) * len(q.seeds) * trainer.steps, unit) as bar:
        for seed in q.seeds:  # seeds outermost: a study that is stopped has as much of each arm
            trained = [_one(q, spec, split, seed, made, trainer, out, bar) for spec, split in todo]
            kept |= {
                (spec.name, split, seed): one for (spec, split), (one, _) in zip(todo, trained, strict=True)
            }
            if seed != q.seeds[-1] and any(new for _, new in trained):
                say()
    return say(by_group=True)


def _one(
    q: Question, spec: Spec, split: int, seed: int, made: Made, trainer: Trainer, out: Path, bar: Bar
) -> tuple[Kept, bool]:
    """One training, from its file where that is there; and whether it was done now."""
    list_ = _mix(q, spec, split, seed, made)
    path = out / "runs" / f"{split}-{_slug(spec.name)}-{seed}.json"
    identity = _identity(list_, trainer, q.test, seed)
    held = _held(path, identity)
    if held is not None:
        bar.advance(trainer.steps, "done before")
        return held, False
    began = time.monotonic()
    folder = out / "work" / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    answer = trainer.run(Task(list_, q.test, seed, folder.resolve()), bar)
    held = _keep(path, identity, answer, list_, time.monotonic() - began)
    shutil.rmtree(folder, ignore_errors=True)
    return held, True


def _check(q: Question) -> None:
    if not q.trains or not q.seeds or not q.rare:
        raise UsageError("a study needs a training file, a seed and --rare NAME")
    if q.oracles and len(q.oracles) not in (1, len(q.trains)):
        raise UsageError(f"--oracle is given once, or once for each of the {len(q.trains)} training files")
    for part in (*q.trains, *q.oracles):
        mix.check_rare(part, q.rare)
        groups.refuse_shared(part, q.test)
    mix.check_rare(q.test, q.rare)
    for part in (*q.trains[1:], *q.oracles):
        if part.names != q.trains[0].names:
            raise DataError(f"{part.path}: its categories are not those of {q.trains[0].path}")


def _test_groups(q: Question, progress: Progress) -> tuple[NDArray[np.intp], list[str]]:
    """Each test image's group, in the order of weights, and what is to be said of near-duplicates in training."""
    found = groups.find(q.test, q.group_by, progress)
    by_id = np.argsort(q.test.images.id, kind="stable")
    notes: list[str] = []
    if q.group_by == "similar":
        own = groups.hashes(q.test)
        for train in q.trains:
            pairs = groups.near_pairs(own, groups.hashes(train, progress))
            if pairs:
                n = len({test for test, _ in pairs})
                notes.append(
                    f"{n} of {len(own)} test images nearly repeat an image of {train.path.name}: "
                    "their figures tell of memory; 'rarefill split' keeps such pairs together"
                )
    n_groups = len(set(found.tolist()))
    if n_groups < _FEW_GROUPS:
        notes.append(
            f"the test part is {n_groups} groups: too few to be drawn from, so its intervals are rough"
        )
    made = _made_images(q.test)
    if made:
        notes.append(
            f"{made} of {len(q.test.images)} test images are generated: figures are of synthetic data"
        )
    numbers: dict[int, int] = {}
    ordered = [numbers.setdefault(g, len(numbers)) for g in found[by_id].tolist()]
    return np.array(ordered, dtype=np.intp), notes


def _made_images(test: Dataset) -> int:
    if test.format != "coco":
        return 0
    return sum("rarefill" in entry for entry in test.source()["images"])


def _length(train: Dataset) -> int:
    return mix.PASSES * len(train.images)


def _mix(q: Question, spec: Spec, split: int, seed: int, made: Made) -> Mix:
    """The list of one training. Oracles are as long as the training part's, so that steps mean the same."""
    real = q.trains[split]
    length = _length(real)
    if spec.kind == "oracle":
        real = q.oracles[split if len(q.oracles) > 1 else 0]
    new = made.datasets[split, spec.generator] if spec.generator else None
    return mix.compose(spec, real, new, q.rare, rng(seed, Stage.FIT, 0), length=length)


def _identity(list_: Mix, trainer: Trainer, test: Dataset, seed: int) -> str:
    said = [list_.digest(), trainer.identity(), test.digest, seed]
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:16]


def _held(path: Path, identity: str) -> Kept | None:
    """A training that was done before; None where there is none, or one that follows from something else."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return kept if kept.identity == identity else None


def _keep(path: Path, identity: str, answer: Answer, list_: Mix, seconds: float) -> Kept:
    kept = Kept(
        identity=identity,
        seconds=round(seconds, 1),
        images=len(list_),
        synthetic=int(list_.synthetic.sum()),
        detections=answer.detections,
        figures=dict(answer.figures),
    )
    write_bytes(path, msgspec.json.encode(kept, enc_hook=float))  # numpy has floats of its own
    return kept


def _slug(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9+@._-]", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def rare_by_default(train: Dataset) -> tuple[str, ...]:
    """Categories that the product's own rule calls rare, where nobody named one."""
    from rarefill import gaps

    return tuple(name for name in gaps.survey(train).rare if len(train.rows_of(name)))
