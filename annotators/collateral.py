"""What paint did around the object asked for: real neighbours that are no longer found, objects that nobody asked for.

A generator changes pixels only in an object's silhouette and the ring around it, so both are looked for only there.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from rarefill import geometry
from rarefill.annotators import labels
from rarefill.dataset import Dataset
from rarefill.geometry import Box, FloatArray, Mask
from rarefill.scene import Pixels, Reason, Render, Verdict

if TYPE_CHECKING:
    from rarefill.annotators.calibrate import Standing
    from rarefill.annotators.check import Looks
    from rarefill.annotators.detectors import Detections
    from rarefill.recipe import CheckerConfig

NEAR_PX = 3
"""A real object is a neighbour where changed pixels come so near to its own: farther, a detector hardly sees them."""
LOSS = 0.1
"""Part of a neighbour's score that a change beside it may take without doing harm: faint noise took 1 in 100 from 91 real
objects of bccd (benchmarks/repair.py)."""
CONFIDENT = 0.5
"""Score from which an object that nobody asked for counts, and never under its category's threshold."""
_INSIDE = 0.5  # part of such an object's box that was painted
_KNOWN = 0.3  # IoU with what is there from which it is that
_PART = 0.7  # part of its box on another one of its kind from which it is a piece of that one


@runtime_checkable
class LooksAround(Protocol):
    """A checker that also says what paint did to what it did not ask for. May be called from several threads."""

    def collateral(
        self, dataset: Dataset, renders: Sequence[Render], verdicts: Sequence[tuple[Verdict, ...]]
    ) -> list[tuple[Verdict, ...]]:
        """The same verdicts, in the same order, with those accepted refused where their paint did harm."""
        ...


class Collateral:
    """Looks around accepted paint with a checker's own models."""

    def __init__(
        self, judge: "Looks", names: Sequence[str], table: Sequence["Standing"], config: "CheckerConfig"
    ) -> None:
        self._judge, self._names, self._config = judge, tuple(names), config
        self._table = {standing.category: standing for standing in table if not standing.blind}
        self._before: dict[int, float] = {}  # threads at worst look twice, and see the same

    def judged(
        self, dataset: Dataset, renders: Sequence[Render], verdicts: Sequence[tuple[Verdict, ...]]
    ) -> list[tuple[Verdict, ...]]:
        """As `LooksAround.collateral`."""
        return [
            tuple(self._judged(dataset, render, verdict) for verdict in found)
            for render, found in zip(renders, verdicts, strict=True)
        ]

    def _judged(self, dataset: Dataset, render: Render, verdict: Verdict) -> Verdict:
        touched = render.paints[verdict.index].touched
        if not verdict.accepted or verdict.box is None or touched is None:
            return verdict
        if self.spoiled(dataset, render, verdict.index):
            return replace(verdict, reason=Reason.SPOILED)
        if self.extras(dataset, render, verdict.index, verdict.box):
            return replace(verdict, reason=Reason.EXTRA)
        return verdict

    def spoiled(self, dataset: Dataset, render: Render, index: int) -> list[int]:
        """Rows of the real objects beside a paint that were found before it and no longer are.

        What is known of a category decides what counts as found; one that the checker is blind to is not asked.
        """
        touched = render.paints[index].touched
        if touched is None:
            return []
        return [row for row in neighbours(dataset, render, touched) if self._lost(dataset, render, row)]

    def _lost(self, dataset: Dataset, render: Render, row: int) -> bool:
        label = int(dataset.annotations.category[row])
        standing = self._table.get(self._names[label])
        if standing is None:
            return False
        painted = [p.index for p in render.paints if p.mask is not None]
        new = [i for i in painted if render.layout.placements[i].redraws is None]
        fronts = labels.covers(dataset, render, row, new)
        left, _ = labels.left_of(dataset, row, fronts, self._config.min_visible)
        if left is None:
            return False  # it loses its label, and the sample says so
        before = self.before(render, dataset, row)
        if before < standing.threshold:
            return False
        after = self._look(render.pixels, render, left.box, label)
        return after < standing.threshold and after < (1 - LOSS) * before

    def before(self, render: Render, dataset: Dataset, row: int) -> float:
        """How well a real object is found on its background without paint, 0 to 1; kept, as it is asked again and again."""
        if row not in self._before:
            label = int(dataset.annotations.category[row])
            self._before[row] = self._look(render.background, render, dataset.box(row), label)
        return self._before[row]

    def _look(self, pixels: Pixels, render: Render, box: Box, label: int) -> float:
        return self._judge.look(pixels, render.layout.image, box, label, self._config.min_overlap).standing

    def extras(self, dataset: Dataset, render: Render, index: int, asked: Box) -> list[int]:
        """Rows of the categories of confident detections in a painted area that nobody asked for.

        A piece of the object itself is none, nor a real object, nor another painted one, nor what was seen there
        before it was painted.
        """
        paint, image = render.paints[index], render.layout.image
        if paint.touched is None:
            return []
        area = paint.touched.box
        found = self._judge.around(render.pixels, image, area)
        own = self._names.index(render.layout.placements[index].category)
        others = [p.mask.box for p in render.paints if p.mask is not None and p.index != index]
        rows = [int(row) for row in dataset.rows_in(image)]
        known = np.array([b.xyxy for b in [*others, *(dataset.box(row) for row in rows)]]).reshape(-1, 4)
        odd = [
            i
            for i in range(len(found.scores))
            if self._confident(int(found.labels[i]), float(found.scores[i]))
            and _share_in(found.boxes[i], paint.touched) >= _INSIDE
            and not self._of_it(found, i, own, asked)
            and not (geometry.ious(found.boxes[i : i + 1], known) >= _KNOWN).any()
        ]
        if not odd:
            return []
        before = self._judge.around(render.background, image, area)
        return [int(found.labels[i]) for i in odd if not _was_there(found, i, before)]

    def _confident(self, label: int, score: float) -> bool:
        standing = self._table.get(self._names[label])
        return standing is not None and score >= max(standing.threshold, CONFIDENT)

    def _of_it(self, found: "Detections", i: int, own: int, asked: Box) -> bool:
        """Whether a detection is of the object asked for, or of a part of it."""
        box, target = found.boxes[i : i + 1], np.array([asked.xyxy])
        if float(geometry.ious(box, target)[0, 0]) >= self._config.min_overlap:
            return True
        common = float(geometry.intersections(box, target)[0, 0])
        return int(found.labels[i]) == own and common >= _PART * float(geometry.areas(box)[0])


def neighbours(dataset: Dataset, render: Render, touched: Mask) -> list[int]:
    """Rows of the real objects whose pixels lie within `NEAR_PX` of those that one paint changed.

    Crowds, and the object that the paint redraws, are none.
    """
    redraws = {p.redraws for p in render.layout.placements}
    rows = dataset.rows_in(render.layout.image)
    reach = np.array([touched.box.xyxy]) + np.array([-NEAR_PX, -NEAR_PX, NEAR_PX, NEAR_PX])
    meets = geometry.intersections(dataset.annotations.boxes[rows], reach)[:, 0] > 0
    candidates = map(int, rows[meets & ~dataset.annotations.crowd[rows]])
    return [
        row
        for row in candidates
        if row not in redraws and _near(touched, dataset.mask(row) or labels.pixels(dataset.box(row)))
    ]


def _near(touched: Mask, own: Mask) -> bool:
    """Whether two masks come within `NEAR_PX` of each other."""
    import cv2

    h, w = touched.pixels.shape
    frame = (touched.x - NEAR_PX, touched.y - NEAR_PX, w + 2 * NEAR_PX, h + 2 * NEAR_PX)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR_PX + 1,) * 2)
    reach = cv2.dilate(touched.window(*frame).astype(np.uint8), disc).astype(bool)
    return bool((reach & own.window(*frame)).any())


def _share_in(box: FloatArray, touched: Mask) -> float:
    """The share of a box's pixels that were changed."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    if x2 <= x1 or y2 <= y1:
        return 0.0
    return float(touched.window(x1, y1, x2 - x1, y2 - y1).mean())


def _was_there(found: "Detections", i: int, before: "Detections") -> bool:
    """Whether much the same was seen before the paint, at half the score at least."""
    same = (before.labels == found.labels[i]) & (before.scores >= found.scores[i] / 2)
    return bool((geometry.ious(found.boxes[i : i + 1], before.boxes[same]) >= _KNOWN).any())
