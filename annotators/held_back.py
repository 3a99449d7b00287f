"""What the models say of real objects that they did not train on, and of places where nothing is."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill import engine, geometry
from rarefill.annotators import calibrate
from rarefill.annotators.calibrate import Standing
from rarefill.annotators.check import Judge
from rarefill.annotators.samples import Pictures
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.progress import Progress
from rarefill.recipe import CheckerConfig
from rarefill.seeds import Stage, rng

_MOST_RARE, _MOST_OTHERS = 200, 40  # objects judged per category: an error of 2 and of 5 points at 90 %
_EMPTY = 60  # places judged per rare category
_TRIES = 50
_FREE = 0.1  # IoU with an object of the category up to which a place holds none of it
_OBJECTS, _PLACES = 1_000_000, 1_000_001  # first part of a key; the folds' numbers are below


@dataclass(frozen=True, slots=True)
class Evidence:
    """Standings, 0 to 1, per category.

    Attributes:
        objects: of held-back real objects, 0 for what was missed or taken for something else.
        places: of places that hold no object.
    """

    objects: dict[str, list[float]]
    places: dict[str, list[float]]

    def standings(self, config: CheckerConfig) -> tuple[Standing, ...]:
        """The table that the checker judges by."""
        return calibrate.standings(self.objects, self.places, keep=config.keep, min_score=config.min_score)

    def to_json(self) -> str:
        return json.dumps({"objects": self.objects, "places": self.places}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Evidence":
        value = json.loads(text)
        return cls(value["objects"], value["places"])


def judge_held_back(
    dataset: Dataset,
    judge: Judge,
    picture: Pictures,
    *,
    rare: Sequence[str],
    seed: int,
    min_overlap: float,
    progress: Progress,
) -> Evidence:
    """Look at real objects and at empty places just as at painted objects: one crop each, at the same scale."""
    asked: list[tuple[str, bool, int, Box]] = []
    for row, name in enumerate(dataset.names):
        rows = _drawn(dataset.rows_of(name), _MOST_RARE if name in rare else _MOST_OTHERS, seed, row)
        asked += [(name, True, int(dataset.annotations.image[r]), dataset.box(int(r))) for r in rows]
        if name in rare:
            asked += [(name, False, image, box) for image, box in _empty_places(dataset, name, seed)]
    asked.sort(key=lambda a: a[2])  # image by image, so that each is read once
    evidence = Evidence({n: [] for n in dataset.names}, {n: [] for n in rare})
    with (
        progress.bar("judging held-back objects", len(asked), "objects") as bar,
        ThreadPoolExecutor(engine.default_workers(), thread_name_prefix="rarefill-judge") as pool,
    ):

        def standing(a: tuple[str, bool, int, Box]) -> float:
            name, _, image, box = a
            return judge.look(picture[image], image, box, dataset.category_row(name), min_overlap).standing

        for (name, real, _, _), score in zip(asked, pool.map(standing, asked), strict=True):
            (evidence.objects if real else evidence.places)[name].append(score)
            bar.advance()
    return evidence


def _drawn(rows: NDArray[np.intp], most: int, seed: int, category: int) -> NDArray[np.intp]:
    if len(rows) <= most:
        return rows
    draw = rng(seed, Stage.FIT, _OBJECTS, category)
    return np.sort(draw.choice(rows, most, replace=False))


def _empty_places(dataset: Dataset, name: str, seed: int) -> list[tuple[int, Box]]:
    """Boxes of real objects of a category, moved to where none of them is, often in another image."""
    rows = dataset.rows_of(name)
    draw = rng(seed, Stage.FIT, _PLACES, dataset.category_row(name))
    found: list[tuple[int, Box]] = []
    for _ in range(_TRIES * _EMPTY if len(rows) else 0):
        if len(found) == _EMPTY:
            break
        box, image = dataset.box(int(draw.choice(rows))), int(draw.integers(len(dataset.images)))
        width, height = int(dataset.images.width[image]), int(dataset.images.height[image])
        at = draw.uniform(0, 1, 2)
        if box.width > width or box.height > height:
            continue
        x, y = at * (width - box.width, height - box.height)
        moved = Box(float(x), float(y), float(x) + box.width, float(y) + box.height)
        held = dataset.rows_in(image)
        held = held[dataset.annotations.category[held] == dataset.category_row(name)]
        if (geometry.ious(np.array([moved.xyxy]), dataset.annotations.boxes[held]) <= _FREE).all():
            found.append((image, moved))
    return found
