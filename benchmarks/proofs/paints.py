"""Runs of the product, from the split's training file alone, and windows of what it painted."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs.cases import Desk, sides
from rarefill import annotators, bank, pictures, pipeline, recipe
from rarefill.annotators import Checker, Standing
from rarefill.dataset import Dataset
from rarefill.geometry import Box, iou
from rarefill.progress import Progress
from rarefill.recipe import Recipe
from rarefill.records import Trial
from rarefill.rundir import RunDir
from rarefill.scene import Reason, Render, Sample, Verdict
from rarefill.windows import Place, Windows, cut


@dataclass(frozen=True, slots=True, eq=False)
class Paints:
    """What one arm painted, as columns beside its windows.

    Attributes:
        windows: of what was painted; `image` is the background's id.
        number: int64 (N,), of the run's picture.
        asked: float64 (N, 4), the box asked for, drawn as loosely as this data's people draw boxes.
        asked_overlap: float64 (N,), IoU of the boxes asked for and measured, both tight.
        verdict: N of scene.Reason, of the fitted checker; "unchecked" where none looked.
    """

    windows: Windows
    number: NDArray[np.int64]
    asked: NDArray[np.float64]
    asked_overlap: NDArray[np.float64]
    verdict: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.number)

    def save(self, folder: Path) -> None:
        self.windows.save(folder / "windows.npz")
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "windows"}
        np.savez(folder / "paints.npz", **columns)

    @classmethod
    def load(cls, folder: Path) -> "Paints":
        if not (folder / "paints.npz").exists():
            raise SystemExit(f"{folder} has no paints; run 'fidelity.py paint' for it first")
        with np.load(folder / "paints.npz") as held:
            columns = {f.name: held[f.name] for f in fields(cls) if f.name != "windows"}
        return cls(Windows.load(folder / "windows.npz"), **columns)


class Witness:
    """Takes everything that shows, and writes down what another checker says of it.

    So the figures are of all paints, and of those that the product would have kept.
    """

    def __init__(self, inner: Checker, path: Path) -> None:
        self._inner, self._path, self._lock = inner, path, threading.Lock()

    @property
    def table(self) -> tuple[Standing, ...]:
        return self._inner.table

    def check(self, renders: Sequence[Render], todo: Sequence[tuple[int, ...]]) -> list[tuple[Verdict, ...]]:
        """As the inner checker, but nothing that shows is refused."""
        found = self._inner.check(renders, todo)
        lines = [
            json.dumps([r.layout.image, r.layout.copy, v.index, str(v.reason)]) + "\n"
            for r, verdicts in zip(renders, found, strict=True)
            for v in verdicts
        ]
        with self._lock, self._path.open("a") as f:
            f.writelines(lines)
        return [tuple(replace(v, reason=Reason.UNCHECKED) if v.box else v for v in vs) for vs in found]

    @staticmethod
    def read(path: Path) -> dict[tuple[int, int, int], str]:
        """Image row, copy and index of each paint -> the reason."""
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return {(image, copy, index): reason for image, copy, index, reason in lines}


def options(words: Sequence[str]) -> dict[str, Any]:
    """`steps=8 strength=0.5,1` as a recipe's sections; names are the recipe's leaf names.

    Raises:
        SystemExit: an option that the recipe does not have.
    """
    import yaml

    paths = {path[-1]: path for path, _ in recipe.leaves()}
    out: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in paths:
            raise SystemExit(f"the recipe has no option {name!r}; 'rarefill recipe' prints all of them")
        part = out
        for section in paths[name][:-1]:
            part = part.setdefault(section, {})
        part[name] = yaml.safe_load(value)
    return out


def resolved(desk: Desk, folder: Path, generator: str, n: int, given: Sequence[str], seed: int) -> Recipe:
    """The recipe of one arm. The plan does not depend on the generator: arms differ in nothing but who paints."""
    images = len(json.loads(desk.train.read_text())["images"])
    base = {
        "data": desk.train,
        "pictures": desk.pictures,
        "out": folder / "run",
        "cache": desk.out / "cache",
        "fill": {desk.case.rare: n},
        "formats": ["coco"],
        "attempts": 1,
        "seed": seed,
        "lenient": True,
        "workers": desk.threads,
        "layout": {"untouched": 0.0, "max_reuse": max(4, 4 * n // images)},
        "generator": {"generator": generator},
    }
    return recipe.resolve(recipe.merged(base, options(given)))


def paint(desk: Desk, folder: Path, asked: Recipe, progress: Progress) -> Paints:
    """Run the product and cut a window around everything that it painted.

    Args:
        desk: the case; its split is checked first.
        folder: of the arm.
        asked: the recipe, from `resolved`.
        progress: where the run shows itself.
    """
    sides(desk)
    folder.mkdir(parents=True, exist_ok=True)
    data = pipeline.open_dataset(asked, progress)
    shapes = bank.build(data, [desk.case.rare], cache=desk.out / "cache", progress=progress)
    checker = annotators.build(
        asked.annotator, data, shapes, seed=0, cache=desk.out / "cache", progress=progress
    )
    began = time.monotonic()
    witness = Witness(checker, folder / "verdicts.jsonl")
    summary = pipeline.run(asked, dataset=data, checker=witness, progress=progress)
    told = {"seconds": round(time.monotonic() - began, 1), **summary.as_json()}
    (folder / "run.json").write_text(json.dumps(told, indent=2) + "\n")
    paints = collect(data, folder, desk.case.rare, shapes.slack(desk.case.rare))
    paints.save(folder)
    return paints


def collect(data: Dataset, folder: Path, category: str, slack: bank.Slack) -> Paints:
    """Everything painted that a finished run's pictures show.

    Args:
        data: what was painted from.
        folder: of the arm, with run/ and verdicts.jsonl.
        category: what was painted.
        slack: how loosely its boxes are drawn.
    """
    run = RunDir(folder / "run")
    verdicts = Witness.read(folder / "verdicts.jsonl")
    layouts = [json.loads(line) for line in run.layouts.read_text().splitlines()]
    rows: list[tuple[int, Box, float, str]] = []
    places: list[Place] = []
    ids: list[int] = []
    for record in run.read(data):
        for sample in record.samples:
            layout = layouts[sample.number - 1]
            for box, trial in _painted(sample, record.trials, category):
                shape = layout["placements"][trial.verdict.index].get("shape")
                reason = verdicts[sample.image, sample.copy, trial.verdict.index]
                loose = bank.loose(trial.asked, slack).clipped(sample.width, sample.height) or trial.asked
                rows.append((sample.number, loose, trial.verdict.asked_overlap, reason))
                places.append(Place(sample.number, shape["annotation"] if shape else -1, box))
                ids.append(int(data.images.id[sample.image]))
    names = {s.number: s.file_name for s in run.samples(data)}
    windows = cut(lambda number: pictures.read(run.images / names[number]), places)
    number, asked, overlap, reason = zip(*rows, strict=True)
    return Paints(
        replace(windows, image=np.array(ids, dtype=np.int64)),
        np.array(number, dtype=np.int64),
        np.array([box.xyxy for box in asked]),
        np.array(overlap),
        np.array(reason),
    )


def _painted(sample: Sample, trials: Sequence[Trial], category: str) -> list[tuple[Box, Trial]]:
    """A picture's painted objects, each with the trial that it came from."""
    own = [t for t in trials if t.number == sample.number and t.verdict.box is not None]
    found = []
    for instance in sample.instances:
        if instance.annotation is None and instance.category == category:
            # Of the trials, some may have been hidden by later ones: the label tells which this is.
            trial = max(own, key=lambda t: iou(instance.box, t.verdict.box or instance.box))
            own.remove(trial)
            found.append((instance.box, trial))
    return found
