"""From the trainings' files to a study: figures, intervals, comparisons, verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rarefill import __version__
from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray
from rarefill.layouts import Context
from rarefill.progress import Progress
from rarefill.proof import bootstrap, findings, parts, score, served
from rarefill.proof import verdict as verdicts
from rarefill.proof.arms import Spec
from rarefill.proof.bootstrap import Measured, Noise
from rarefill.proof.findings import Evidence
from rarefill.proof.score import Detection
from rarefill.proof.sources import Made
from rarefill.proof.study import Arm, Figures, Run, Served, Study, Verdict
from rarefill.seeds import Stage, rng

_AT_A_TIME = 250
"""Draws counted together: memory, not figures, depends on it."""


class Kept(Protocol):
    """What a training's file holds."""

    @property
    def detections(self) -> list[Detection] | None: ...
    @property
    def figures(self) -> dict[str, Figures]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def images(self) -> int: ...
    @property
    def synthetic(self) -> int: ...


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What all trainings were held against.

    Attributes:
        test: the test part.
        trains, oracles: by split.
        rare: the categories that the study is about.
        seeds: of the trainings.
        specs: all arms that were asked for.
        made: their new images.
        group: (N,), the group of each test image, by ascending image id.
    """

    test: Dataset
    trains: tuple[Dataset, ...]
    oracles: tuple[Dataset, ...]
    rare: tuple[str, ...]
    seeds: tuple[int, ...]
    specs: tuple[Spec, ...]
    made: Made
    group: NDArray[np.intp]

    @property
    def others(self) -> tuple[str, ...]:
        """All other categories that training knows and the test part holds."""
        known = set(self.trains[0].names)
        return tuple(
            n for n in self.test.names if n in known and n not in self.rare and len(self.test.rows_of(n))
        )


def analyse(
    bench: Bench,
    kept: Mapping[tuple[str, int, int], Kept],
    trainer: str,
    settings: Mapping[str, Any],
    notes: Sequence[str],
    progress: Progress,
    *,
    by_group: bool = False,
) -> Study:
    """The study that some trainings make.

    Args:
        bench: what they have in common.
        kept: trainings by arm, split and seed; some may be missing.
        trainer: the detector in words.
        settings: what a training follows from.
        notes: what was noticed before.
        progress: counts the trainings that are looked at.
        by_group: tell the rare categories' AP by groups of objects too, which reads every test image.
    """
    draw = rng(0, Stage.CHECK, 1)
    truth = score.truth(bench.test)
    weights = bootstrap.weights(bench.group, bootstrap.DRAWS, draw)
    n_units = len(bench.trains) * len(bench.seeds)
    noise = Noise.drawn([s.name for s in bench.specs], bootstrap.DRAWS, draw)
    runs: list[Run] = []
    values: dict[str, tuple[Measured, Measured]] = {}
    with progress.bar("resampling the test", len(kept), "trainings") as bar:
        for (name, split, seed), one in kept.items():
            run, rare, others = _scored(bench, truth, weights, name, split, seed, one)
            runs.append(run)
            unit = split * len(bench.seeds) + bench.seeds.index(seed)
            for measured, (value, draws) in zip(
                values.setdefault(name, (_empty(n_units), _empty(n_units))), (rare, others), strict=True
            ):
                measured.value[unit], measured.draws[unit] = value, draws
            bar.advance()
    evidence = Evidence(
        tuple(s for s in bench.specs if s.name in values),
        {name: pair[0] for name, pair in values.items()},
        {name: pair[1] for name, pair in values.items()},
        noise,
        _oracle_factor(bench),
    )
    baseline = findings.best(evidence, "baseline")
    compared = findings.comparisons(evidence, baseline) if "real" in values else ()
    worth = findings.equivalence(evidence)
    failed = [f"{name}, split {split}: {why}" for (split, name), why in bench.made.failed.items()]
    said = verdicts.verdict(evidence, baseline, compared, worth, bench.rare)
    return Study(
        version=__version__,
        rare=bench.rare,
        categories=bench.trains[0].names,
        train=tuple(t.path.name for t in bench.trains),
        test=bench.test.path.name,
        test_images=len(bench.test.images),
        test_groups=int(bench.group.max()) + 1,
        test_objects=dict(parts.summary(bench.test, np.arange(len(bench.test.images)))),
        train_objects=tuple({n: len(t.rows_of(n)) for n in bench.rare} for t in bench.trains),
        trainer=trainer,
        settings={k: v if isinstance(v, str | int | float | bool) else None for k, v in settings.items()},
        seeds=bench.seeds,
        complete=len(kept) == len(bench.specs) * n_units,
        arms=tuple(_arm(bench, evidence, spec) for spec in bench.specs),
        runs=tuple(runs),
        comparisons=compared,
        curve=findings.curve(evidence),
        equivalence=worth,
        verdict=said,
        notes=(*notes, *failed),
        served=_served(bench, kept, said, progress) if by_group and said and said.arm else (),
        synthetic_test=any("test images are generated" in note for note in notes),
    )


def _served(
    bench: Bench, kept: Mapping[tuple[str, int, int], Kept], said: Verdict, progress: Progress
) -> tuple[Served, ...]:
    """AP by groups of `real`, of the best free arm and of the best generated one; nothing where detections are not known."""
    detections = {
        (name, split * len(bench.seeds) + bench.seeds.index(seed)): one.detections
        for (name, split, seed), one in kept.items()
        if name in said.shown and one.detections is not None
    }
    if not {said.baseline, said.arm} <= {name for name, _ in detections}:
        return ()
    context = Context(bench.test, progress=progress)
    parts_ = (
        served.served(
            bench.test,
            name,
            detections,
            bench.group,
            baseline=said.baseline,
            arm=said.arm,
            context=context,
            progress=progress,
        )
        for name in bench.rare
    )
    return tuple(part for found in parts_ for part in found)


Pair = tuple[float, FloatArray]


def _empty(n_units: int) -> Measured:
    return Measured(np.full(n_units, np.nan), np.full((n_units, bootstrap.DRAWS), np.nan))


def _scored(
    bench: Bench,
    truth: score.Truth,
    weights: NDArray[np.int64],
    name: str,
    split: int,
    seed: int,
    kept: Kept,
) -> tuple[Run, Pair, Pair]:
    """One training's figures, and its rare and other AP with their draws."""
    others = bench.others
    if kept.detections is None:
        classes = dict(kept.figures)
        pairs = [_fixed(classes, names) for names in (bench.rare, others)]
    else:
        table = score.match(truth, kept.detections)
        classes = score.figures(table, bench.test.names)
        pairs = [_drawn(table, classes, names, weights) for names in (bench.rare, others)]
    run = Run(
        arm=name,
        split=split,
        seed=seed,
        rare=score.mean([classes[n] for n in bench.rare if n in classes]),
        others=score.mean([classes[n] for n in others if n in classes]),
        classes=classes,
        seconds=kept.seconds,
        images=kept.images,
        synthetic=kept.synthetic,
        resampled=kept.detections is not None,
    )
    return run, pairs[0], pairs[1]


def _fixed(classes: Mapping[str, Figures], names: Sequence[str]) -> Pair:
    value = score.mean([classes[n] for n in names if n in classes]).AP
    value = np.nan if value is None else value
    return value, np.full(bootstrap.DRAWS, value)


def _drawn(
    table: score.Table, classes: Mapping[str, Figures], names: Sequence[str], weights: NDArray[np.int64]
) -> Pair:
    value, _ = _fixed(classes, names)
    steps = range(0, len(weights), _AT_A_TIME)
    draws = [score.resampled(table, names, weights[at : at + _AT_A_TIME]) for at in steps]
    return value, np.concatenate(draws)


def _oracle_factor(bench: Bench) -> float | None:
    if not bench.oracles:
        return None
    own = [sum(len(t.rows_of(n)) for n in bench.rare) for t in bench.trains]
    more = [sum(len(t.rows_of(n)) for n in bench.rare) for t in bench.oracles]
    return float(np.mean(more) / np.mean(own))


def _arm(bench: Bench, evidence: Evidence, spec: Spec) -> Arm:
    made = [bench.made.datasets.get((split, spec.generator)) for split in range(len(bench.trains))]
    failed = [why for (_, name), why in bench.made.failed.items() if name == spec.generator]
    rare = evidence.level(spec.name) if spec.name in evidence.rare else None
    others = evidence.level(spec.name, "others") if spec.name in evidence.others else None
    return Arm(
        name=spec.name,
        kind=spec.kind,
        generator=spec.generator,
        ratio=spec.ratio,
        sampling=spec.sampling,
        objects=tuple(sum(len(m.rows_of(n)) for n in bench.rare) for m in made if m is not None),
        failed=failed[0] if failed and rare is None else "",
        rare=rare.level() if rare else None,
        others=others.level() if others else None,
    )
