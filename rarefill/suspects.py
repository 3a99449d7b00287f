"""Labels of the real data that a detector disagrees with, which did not train on their images: where to look first.

Three kinds: a confident detection where no label is, a label of a category that the detector knows well and does not
find, and a label whose place it takes for another category.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarefill import bank, files, geometry
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray, Mask
from rarefill.places import cache_folder
from rarefill.progress import Progress
from rarefill.recipe import Recipe
from rarefill.scene import Pixels

if TYPE_CHECKING:
    from rarefill.annotators.check import Looks

CHOICES = ("label is right", "box off", "wrong class", "missing or false")
"""What a person says of one place."""
_STEP = 0.5  # of a crop's side: every place lies well inside one crop at least
_FREE = 0.3  # IoU with a label from which a detection is about it
_SAME = 0.5  # IoU from which two detections are of one object
_KNOWN = 0.7
"""A category of whose real objects the detector finds a smaller share is not asked for labels that it does not find."""


class Why(StrEnum):
    """What the detector says against the data."""

    MISSING = "object without a label"
    NOT_FOUND = "label not found"
    OTHER_CLASS = "other class"


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    """One place to look at.

    Attributes:
        why: what is said against the data.
        image: its row.
        box: the label's, or the detection's where there is none.
        category: the label's, or the detection's.
        annotation: row of the label, None where there is none.
        strength: how much speaks against the data, 0 to 1, comparable within a kind.
        instead: the category that the detector sees, for `OTHER_CLASS`.
    """

    why: Why
    image: int
    box: Box
    category: str
    annotation: int | None
    strength: float
    instead: str = ""

    @property
    def note(self) -> str:
        """What is said against the data, in words."""
        seen = f", rather {self.instead}" if self.instead else ""
        return f"{self.why}{seen} ({self.strength:.2f})"

    def line(self, dataset: Dataset) -> str:
        """For a terminal."""
        at = ", ".join(f"{v:.0f}" for v in self.box.xyxy)
        return f"{dataset.images.file_name[self.image]}: {self.category} at {at}: {self.note}"

    def as_json(self, dataset: Dataset) -> dict[str, Any]:
        """As JSON values, with the file's own ids."""
        of = None if self.annotation is None else int(dataset.annotations.id[self.annotation])
        return {
            "why": str(self.why),
            "image_id": int(dataset.images.id[self.image]),
            "file_name": dataset.images.file_name[self.image],
            "category": self.category,
            "annotation_id": of,
            "bbox": [round(v, 2) for v in self.box.xywh],
            "strength": round(self.strength, 4),
            **({"instead": self.instead} if self.instead else {}),
        }


def find(dataset: Dataset, recipe: Recipe, progress: Progress) -> list[Suspect]:
    """The most suspicious labels first, the kinds in turn.

    Args:
        dataset: the real data.
        recipe: how the detector is fitted; every category with objects is looked at.
        progress: shows the fit, where no cache holds it, and the looking.

    Raises:
        ModelError: the data cannot be fitted.
        DataError: an image cannot be read.
    """
    from rarefill.annotators import crops
    from rarefill.annotators.fit import fit

    cache = cache_folder(recipe.cache)
    names = [name for name in dataset.names if len(dataset.rows_of(name))]
    rare = [n for n in names if isinstance(recipe.fill, dict) and n in recipe.fill] or names
    shapes = bank.build(dataset, rare, cache=cache, progress=progress)
    rare = [n for n in dataset.names if shapes.of(n)]
    checker = fit(
        dataset, shapes, recipe.annotator, seed=recipe.seed, cache=cache, progress=progress, rare=rare
    )
    judge: Looks = checker.judge
    known = {s.category: s.threshold for s in checker.table if not s.blind}
    well = {s.category for s in checker.table if s.found >= _KNOWN}
    side = round(crops.CROP_PX / crops.dataset_scale(dataset, rare or dataset.names))
    found: list[Suspect] = []
    with progress.bar("looking at the real labels", len(dataset.images), "images") as bar:
        for image in range(len(dataset.images)):
            pixels = dataset.read(image)
            found += labels(dataset, judge, image, pixels, known, well)
            found += missing(dataset, judge, image, pixels, known, side)
            bar.advance()
    return ranked(found)


def labels(
    dataset: Dataset, judge: "Looks", image: int, pixels: Pixels, known: dict[str, float], well: set[str]
) -> Iterator[Suspect]:
    """The labels of one image that are not found, or taken for something else.

    Args:
        dataset: the real data.
        judge: a detector that did not train on the image.
        image: its row.
        pixels: (H, W, C).
        known: thresholds of the categories that the detector can judge.
        well: those of whose labels it finds most.
    """
    for row in map(int, dataset.rows_in(image)):
        category, box = dataset.names[int(dataset.annotations.category[row])], dataset.box(row)
        if dataset.annotations.crowd[row] or category not in known:
            continue
        seen = judge.look(pixels, image, box, dataset.category_row(category), _SAME)
        if seen.mistaken:
            instead = _instead(dataset, judge, image, pixels, box, category)
            if seen.rival >= known.get(instead, 1.0):
                yield Suspect(Why.OTHER_CLASS, image, box, category, row, seen.rival - seen.score, instead)
        elif category in well and seen.score < known[category]:
            yield Suspect(Why.NOT_FOUND, image, box, category, row, 1 - seen.score / known[category])


def _instead(dataset: Dataset, judge: "Looks", image: int, pixels: Pixels, box: Box, category: str) -> str:
    """The category that is seen at a label's place, empty where none is."""
    around = judge.around(pixels, image, box)
    fits = geometry.ious(around.boxes, np.array([box.xyxy]))[:, 0] >= _SAME
    others = fits & (around.labels != dataset.category_row(category))
    if not others.any():
        return ""
    best = int(np.flatnonzero(others)[around.scores[others].argmax()])
    return dataset.names[int(around.labels[best])]


def missing(
    dataset: Dataset, judge: "Looks", image: int, pixels: Pixels, known: dict[str, float], side: int
) -> Iterator[Suspect]:
    """Confident detections in one image where no label is.

    Args:
        dataset: the real data.
        judge: a detector that did not train on the image.
        image: its row.
        pixels: (H, W, C).
        known: thresholds of the categories that the detector can judge.
        side: of the squares in which it looks, in the image's pixels.
    """
    height, width = pixels.shape[:2]
    seen = [judge.around(pixels, image, box) for box in squares(width, height, side)]
    boxes = np.concatenate([s.boxes for s in seen])
    rows = np.concatenate([s.labels for s in seen])
    scores = np.concatenate([s.scores for s in seen])
    held: FloatArray = dataset.annotations.boxes[dataset.rows_in(image)]
    kept: list[FloatArray] = []
    for i in np.argsort(-scores, kind="stable"):
        category, box = dataset.names[int(rows[i])], Box(*boxes[i]).clipped(width, height)
        if box is None or scores[i] < max(known.get(category, 2.0), 0.5) or _cut_off(boxes[i], width, height):
            continue
        if any(geometry.ious(boxes[i : i + 1], other).max(initial=0) >= _FREE for other in (held, *kept)):
            continue
        kept.append(boxes[i : i + 1])
        yield Suspect(Why.MISSING, image, box, category, None, float(scores[i]))


def _cut_off(box: FloatArray, width: int, height: int) -> bool:
    """Whether most of a detection lies beyond the image."""
    x1, y1, x2, y2 = box
    inside = max(0.0, min(x2, width) - max(x1, 0)) * max(0.0, min(y2, height) - max(y1, 0))
    return bool(inside < 0.5 * (x2 - x1) * (y2 - y1))


def squares(width: int, height: int, side: int) -> list[Box]:
    """Single pixels in the middles of overlapping squares that cover an image."""
    step = max(1.0, side * _STEP)

    def middles(size: int) -> FloatArray:
        first, last = min(side / 2, size / 2), max(size - side / 2, size / 2)
        return np.linspace(first, last, int(np.ceil((last - first) / step)) + 1)

    return [Box(x - 0.5, y - 0.5, x + 0.5, y + 0.5) for y in middles(height) for x in middles(width)]


def ranked(found: Sequence[Suspect]) -> list[Suspect]:
    """The strongest of each kind, the kinds in turn: a score of one kind says nothing about another's."""
    kinds = [sorted((s for s in found if s.why is why), key=lambda s: (-s.strength, s.image)) for why in Why]
    places = [(place, order, s) for order, kind in enumerate(kinds) for place, s in enumerate(kind)]
    return [s for _, _, s in sorted(places, key=lambda p: p[:2])]


def write(path: Path, dataset: Dataset, found: Sequence[Suspect]) -> None:
    """Write the page of suspicious labels.

    Raises:
        DataError: an image cannot be read.
        RunError: the page cannot be written.
    """
    from rarefill import audit_page

    entries: dict[int, dict[str, Any]] = {}
    for i in sorted(range(len(found)), key=lambda i: found[i].image):
        s = found[i]
        mask: Mask | None = None if s.annotation is None else dataset.mask(s.annotation)
        name = (
            f"{dataset.images.id[s.image]}:{i}"
            if s.annotation is None
            else str(dataset.annotations.id[s.annotation])
        )
        entries[i] = audit_page.entry(name, s.category, s.note, dataset.read(s.image), s.box, mask)
    document = {
        "run": dataset.digest[:16],
        "name": dataset.path.name,
        "seed": 0,
        "n": len(found),
        "choices": list(CHOICES),
        "items": [entries[i] for i in range(len(entries))],
    }
    counts = ", ".join(f"{sum(s.why is why for s in found)} {why}" for why in Why)
    page = audit_page.page("real", dataset.path.name, f"{len(found)} places: {counts}.", document)
    files.write_bytes(path, page.encode())
