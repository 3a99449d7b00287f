"""Labels of an image that was repainted as a whole: which are still found, which are gone, which are spoiled.

A label that the detector finds in the version as in the image holds. One that it no longer finds is gone where it sees
nothing of the object any more, and spoiled where it still sees something: half an object, a weak one, another class. What is
gone can lose its label. What is spoiled cannot, as its rest would teach a detector to look away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from rarefill import geometry
from rarefill.annotators import crops
from rarefill.annotators.calibrate import Sight, Standing
from rarefill.annotators.check import Fitted, Judge, Looks
from rarefill.annotators.collateral import CONFIDENT, LOSS
from rarefill.annotators.detectors import Detections
from rarefill.dataset import Dataset
from rarefill.geometry import BoolArray, Box, FloatArray
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels

TRACE: Final = 0.5
"""Part of a category's threshold from which a detection at a lost label's place is a trace of its object."""
_SAME: Final = 0.3  # IoU with what is known from which a detection is that
_PART: Final = 0.7  # part of its box on a labelled object of its kind from which it is a piece of that one
_PAINTED: Final = 0.5  # part of a detection's box that was painted from which it is the paint's
_CENTRE: Final = (
    0.5  # part of a crop's side, its middle, from which detections are taken: all of an object shows there
)


class Fate(StrEnum):
    """What became of a label."""

    FOUND = "found"
    UNJUDGED = "not judged"
    GONE = "gone"
    SPOILED = "spoiled"


@dataclass(frozen=True, slots=True)
class Label:
    """A label in a version.

    Attributes:
        row: in `dataset.annotations`.
        fate: what became of it.
        before: how well it is found in the image, 0 to 1; 0 for one that is not judged.
        after: how well in the version.
    """

    row: int
    fate: Fate
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Extra:
    """An object that is seen in a version and that nobody labelled."""

    category: str
    box: Box
    score: float


class Recheck:
    """Looks at versions with a checker's own models and thresholds. Safe in several threads, as the checker is."""

    def __init__(
        self, judge: Looks | None, table: Sequence[Standing], dataset: Dataset, config: CheckerConfig
    ) -> None:
        """Take a checker's parts.

        Args:
            judge: what looks; None judges nothing.
            table: how well it knows each category; what it is blind to is not judged.
            dataset: whose labels.
            config: how strictly.
        """
        self._judge, self._dataset, self._config = judge, dataset, config
        self._table = {standing.category: standing for standing in table if not standing.blind}
        self._before: dict[int, float] = {}  # threads at worst look twice, and see the same

    @classmethod
    def of(cls, checker: object, dataset: Dataset, config: CheckerConfig) -> "Recheck":
        """Of a checker as `annotators.build` makes it."""
        if isinstance(checker, Fitted):
            return cls(checker.judge, checker.table, dataset, config)
        return cls(None, (), dataset, config)

    @property
    def looks(self) -> bool:
        """Whether anything can be said at all."""
        return self._judge is not None and bool(self._table)

    def labels(self, image: int, before: Pixels, after: Pixels) -> list[Label]:
        """What became of each label of an image, in the file's order.

        Args:
            image: its row.
            before: its pixels.
            after: its version's.
        """
        return [self._label(int(row), image, before, after) for row in self._dataset.rows_in(image)]

    def _label(self, row: int, image: int, before: Pixels, after: Pixels) -> Label:
        label = int(self._dataset.annotations.category[row])
        standing = self._table.get(self._dataset.names[label])
        if self._judge is None or standing is None or self._dataset.annotations.crowd[row]:
            return Label(row, Fate.UNJUDGED)
        if row not in self._before:
            self._before[row] = self._look(self._judge, before, image, row, label).standing
        was, now = self._before[row], self._look(self._judge, after, image, row, label)
        return Label(row, _fate(was, now, standing.threshold), was, now.standing)

    def _look(self, judge: Looks, pixels: Pixels, image: int, row: int, label: int) -> Sight:
        return judge.look(pixels, image, self._dataset.box(row), label, self._config.min_overlap)

    def extras(self, image: int, before: Pixels, after: Pixels, painted: BoolArray | None) -> list[Extra]:
        """Confident detections in a version that nobody labelled and that were not seen in the image either.

        Args:
            image: its row.
            before: its pixels.
            after: its version's.
            painted: bool (H, W), where it was repainted; None for all of it.
        """
        if self._judge is None:
            return []
        found = self._all(self._judge, after, image)
        rows = self._dataset.rows_in(image)
        boxes, own = self._dataset.annotations.boxes[rows], self._dataset.annotations.category[rows]
        odd = [
            i
            for i in range(len(found.scores))
            if self._confident(int(found.labels[i]), float(found.scores[i]))
            and (painted is None or _share(painted, found.boxes[i]) >= _PAINTED)
            and not (geometry.ious(found.boxes[i : i + 1], boxes) >= _SAME).any()
            and not _piece(found.boxes[i : i + 1], boxes[own == found.labels[i]])
        ]
        if not odd:
            return []
        seen = self._all(self._judge, before, image)
        return _apart(
            [
                Extra(
                    self._dataset.names[int(found.labels[i])],
                    Box(*(float(v) for v in found.boxes[i])),
                    float(found.scores[i]),
                )
                for i in odd
                if not _was_there(found, i, seen)
            ]
        )

    def _confident(self, label: int, score: float) -> bool:
        standing = self._table.get(self._dataset.names[label])
        return standing is not None and score >= max(standing.threshold, CONFIDENT)

    def _all(self, judge: Looks, pixels: Pixels, image: int) -> Detections:
        """Everything that is seen in an image: at once, or in crops of which the middles cover it."""
        height, width = pixels.shape[:2]
        if not isinstance(judge, Judge):
            return judge.around(pixels, image, Box(0, 0, width, height))
        step = max(1, int(_CENTRE * crops.CROP_PX / judge.scale))
        parts = []
        for y in range(0, height, step):
            for x in range(0, width, step):
                place = Box(x, y, min(x + step, width), min(y + step, height))
                parts.append(_within(judge.around(pixels, image, place), place))
        return Detections(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.labels for p in parts]),
            np.concatenate([p.scores for p in parts]),
        )


def _fate(before: float, now: Sight, threshold: float) -> Fate:
    """What became of a label that was found so well before.

    What the detector did not find in the real image either tells nothing when it is not found again.
    """
    if now.standing >= threshold:
        return Fate.FOUND
    if before < threshold:
        return Fate.UNJUDGED
    if now.standing >= (1 - LOSS) * before:
        return Fate.FOUND
    seen = max(now.score, now.near, now.rival)
    return Fate.SPOILED if seen >= TRACE * threshold else Fate.GONE


def _within(found: Detections, place: Box) -> Detections:
    """Those whose centre lies in a place."""
    centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    inside = ((centre >= (place.x1, place.y1)) & (centre < (place.x2, place.y2))).all(axis=1)
    return Detections(found.boxes[inside], found.labels[inside], found.scores[inside])


def _share(painted: BoolArray, box: FloatArray) -> float:
    """The share of a box's pixels that were painted."""
    x1, y1, x2, y2 = (max(0, round(float(v))) for v in box)
    part = painted[y1:y2, x1:x2]
    return float(part.mean()) if part.size else 0.0


def _piece(box: FloatArray, labelled: FloatArray) -> bool:
    """Whether a box (1, 4) lies on one of the labelled objects (N, 4) of its kind."""
    common = geometry.intersections(box, labelled)
    return bool((common >= _PART * geometry.areas(box)[0]).any())


def _was_there(found: Detections, i: int, before: Detections) -> bool:
    """Whether much the same was seen before, at half the score at least."""
    same = (before.labels == found.labels[i]) & (before.scores >= found.scores[i] / 2)
    return bool((geometry.ious(found.boxes[i : i + 1], before.boxes[same]) >= _SAME).any())


def _apart(extras: Sequence[Extra]) -> list[Extra]:
    """One of each: crops that meet see the same object twice. The surer one stays."""
    kept: list[Extra] = []
    for extra in sorted(extras, key=lambda e: (-e.score, e.box.xyxy)):
        if all(geometry.iou(extra.box, k.box) < _SAME or k.category != extra.category for k in kept):
            kept.append(extra)
    return kept
