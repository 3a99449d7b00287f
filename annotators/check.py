"""The fitted checker: looks at a crop around each painted object with a model that never saw its background."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torchvision.models.detection import FCOS

from rarefill import geometry
from rarefill.annotators import crops, detector, measure
from rarefill.annotators.calibrate import Sight, Standing
from rarefill.annotators.detector import Detections
from rarefill.bank import Bank
from rarefill.geometry import Box
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels, Reason, Render, Verdict

_TOUCHES = 0.1  # IoU from which a detection that does not fit is about the same object


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """The models of the folds.

    Attributes:
        models: one per fold, trained on all other folds.
        fold: int32 (N,), of each image of the dataset.
        scale: of the crops, in crop pixels per image pixel.
    """

    models: tuple[FCOS, ...]
    fold: NDArray[np.int32]
    scale: float

    def look(self, pixels: Pixels, image: int, box: Box, label: int, min_overlap: float) -> Sight:
        """What the model that did not train on an image says of one place in it, painted or real.

        Args:
            pixels: of the image, any depth.
            image: its row: decides which model looks.
            box: where.
            label: row of the category asked for.
            min_overlap: IoU from which a detection fits the box.
        """
        height, width = pixels.shape[:2]
        crop = crops.around(box, self.scale, width, height)
        found = detector.detect(self.models[self.fold[image]], crop.cut(pixels))
        return sight(found, crop.inward(np.array([box.xyxy])), label, min_overlap)


def sight(found: Detections, box: geometry.FloatArray, label: int, min_overlap: float) -> Sight:
    """What detections say of one box, float64 (1, 4), asked for one category."""
    overlap = geometry.ious(found.boxes, np.clip(box, 0, crops.CROP_PX))[:, 0]
    own, fits = found.labels == label, overlap >= min_overlap
    rival = float(found.scores[fits & ~own].max(initial=0.0))
    good, near = own & fits, own & ~fits & (overlap >= _TOUCHES)
    if good.any():
        best = int(np.flatnonzero(good)[found.scores[good].argmax()])
        return Sight(float(found.scores[best]), round(float(overlap[best]), 4), 0.0, rival)
    return Sight(
        overlap=round(float(overlap[near].max(initial=0.0)), 4),
        near=float(found.scores[near].max(initial=0.0)),
        rival=rival,
    )


class Fitted:
    """Judges painted objects by detectors that were fitted to the dataset."""

    def __init__(
        self,
        names: Sequence[str],
        judge: Judge,
        table: tuple[Standing, ...],
        config: CheckerConfig,
        bank: Bank,
    ) -> None:
        self._rows = {name: row for row, name in enumerate(names)}
        self._judge, self._config, self._bank = judge, config, bank
        self._table = {standing.category: standing for standing in table}

    @property
    def table(self) -> tuple[Standing, ...]:
        return tuple(self._table.values())

    def check(self, renders: Sequence[Render], todo: Sequence[tuple[int, ...]]) -> list[tuple[Verdict, ...]]:
        """One verdict for each placement named in `todo`, in its order, for each render."""
        return [
            tuple(self._verdict(render, index) for index in indices)
            for render, indices in zip(renders, todo, strict=True)
        ]

    def _verdict(self, render: Render, index: int) -> Verdict:
        measured = measure.verdict(render, index, self._bank, self._config)
        if measured.box is None:
            return measured
        category = render.layout.placements[index].category
        standing = self._table[category]
        seen = self._judge.look(
            render.pixels,
            render.layout.image,
            measured.box,
            self._rows[category],
            self._config.min_overlap,
        )
        return replace(
            measured,
            reason=reason(seen, standing),
            score=seen.score,
            threshold=standing.threshold,
            overlap=seen.overlap,
        )


def reason(seen: Sight, standing: Standing) -> Reason:
    """What a sight means for an object of a category."""
    if standing.blind:
        return Reason.UNCHECKED
    if seen.mistaken:
        return Reason.WRONG_CLASS
    if seen.score >= standing.threshold:
        return Reason.ACCEPTED
    if seen.score > 0:
        return Reason.LOW_SCORE
    return Reason.BOX_OFF if seen.near >= standing.threshold else Reason.NOT_FOUND
