"""What the models say of real objects that they did not train on, and of errors planted on purpose."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from rarefill import engine
from rarefill.annotators import calibrate, faults
from rarefill.annotators.calibrate import Standing
from rarefill.annotators.check import Looks
from rarefill.annotators.faults import Fault, Kind
from rarefill.annotators.samples import Pictures
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.progress import Progress
from rarefill.recipe import CheckerConfig
from rarefill.seeds import Stage, rng

VERSION = 5
"""Of what is looked at: a cached answer of another version is not read."""
_MOST_RARE, _MOST_OTHERS = 200, 40  # objects judged per category: an error of 2 and of 5 points at 90 %
_FAULTS = 60  # planted errors of each kind judged per rare category
_POOLED = 60  # errors of each kind on objects of all other categories together
_OBJECTS = 1_000_000  # first part of a key; the folds' numbers are below


@dataclass(frozen=True, slots=True)
class Evidence:
    """Standings, 0 to 1, per category.

    Attributes:
        objects: of held-back real objects, 0 for what was missed or taken for something else.
        places: of places that hold no object.
        faults: of the other kinds of planted errors, by `faults.Kind`; of a category that is not rare only those made
            from its own objects.
        images: how many images the held-back objects stand on.
    """

    objects: dict[str, list[float]]
    places: dict[str, list[float]]
    faults: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)

    def standings(self, config: CheckerConfig) -> tuple[Standing, ...]:
        """The table that the checker judges by."""
        return calibrate.standings(
            self.objects,
            self.places,
            keep=config.keep,
            min_score=config.min_score,
            faults=self.faults,
            images=self.images,
            false_accept=config.false_accept,
            delta=config.delta,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Evidence":
        value = json.loads(text)
        return cls(value["objects"], value["places"], value["faults"], value["images"])


@dataclass(frozen=True, slots=True)
class _Look:
    """A place to look at: a real object, or a planted error."""

    category: str
    image: int
    box: Box
    fault: Fault | None = None


def judge_held_back(
    dataset: Dataset,
    judge: Looks,
    picture: Pictures,
    *,
    rare: Sequence[str],
    seed: int,
    min_overlap: float,
    progress: Progress,
) -> Evidence:
    """Look at real objects and at planted errors just as at painted objects: one crop each, at the same scale."""
    looks, images = [], {}
    for row, name in enumerate(dataset.names):
        rows = _drawn(dataset.rows_of(name), _MOST_RARE if name in rare else _MOST_OTHERS, seed, row)
        looks += [_Look(name, int(dataset.annotations.image[r]), dataset.box(int(r))) for r in rows]
        images[name] = len(np.unique(dataset.annotations.image[rows]))
    looks += [_Look(f.category, f.image, f.box, f) for f in _planted(dataset, rare, seed)]
    looks.sort(key=lambda a: a.image)  # image by image, so that each is read once

    def standing(at: _Look) -> float:
        pixels = at.fault.on(picture[at.image]) if at.fault else picture[at.image]
        return judge.look(pixels, at.image, at.box, dataset.category_row(at.category), min_overlap).standing

    evidence = Evidence({n: [] for n in dataset.names}, {n: [] for n in rare}, {}, images)
    with (
        progress.bar("judging held-back objects", len(looks), "objects") as bar,
        ThreadPoolExecutor(engine.default_workers(), thread_name_prefix="rarefill-judge") as pool,
    ):
        for at, score in zip(looks, pool.map(standing, looks), strict=True):
            _kept(evidence, at).append(score)
            bar.advance()
    return evidence


def _kept(evidence: Evidence, at: _Look) -> list[float]:
    """The column that a look belongs to."""
    if at.fault is None:
        return evidence.objects[at.category]
    if at.fault.kind is Kind.EMPTY:
        return evidence.places[at.category]
    return evidence.faults.setdefault(at.category, {}).setdefault(str(at.fault.kind), [])


def _planted(dataset: Dataset, rare: Sequence[str], seed: int) -> Iterator[Fault]:
    """Every kind of error for the rare categories; for the others those on real objects, a few of each, to pool."""
    for name in rare:
        yield from faults.of_all_kinds(dataset, name, _FAULTS, seed)
    others = [name for name in dataset.names if name not in rare and len(dataset.rows_of(name))]
    for n, name in enumerate(others):
        most = _POOLED // len(others) + (n < _POOLED % len(others))
        for kind in faults.ON_OBJECTS if most else ():
            yield from faults.planted(dataset, name, kind, most, seed)


def _drawn(rows: NDArray[np.intp], most: int, seed: int, category: int) -> NDArray[np.intp]:
    if len(rows) <= most:
        return rows
    draw = rng(seed, Stage.FIT, _OBJECTS, category)
    return np.sort(draw.choice(rows, most, replace=False))
