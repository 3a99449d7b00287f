"""Looks at each painted object with a detector, fitted here or brought along, and says whether it holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torchvision.models.detection import FCOS

from rarefill import geometry
from rarefill.annotators import crops, detector, measure, second_look
from rarefill.annotators.calibrate import Sight, Standing
from rarefill.annotators.collateral import Collateral
from rarefill.annotators.detectors import LEAST_SCORE, Detections
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels, Reason, Render, Verdict

_TOUCHES = 0.1  # IoU from which a detection that does not fit is about the same object


class Looks(Protocol):
    """Says what is at one place of an image. May be called from several threads at once."""

    def look(self, pixels: Pixels, image: int, box: Box, label: int, min_overlap: float) -> Sight:
        """What is seen of one object, painted or real.

        Args:
            pixels: of the image, any depth.
            image: its row, also of an image that was painted into.
            box: where.
            label: row of the category asked for.
            min_overlap: IoU from which a detection fits the box.
        """
        ...

    def around(self, pixels: Pixels, image: int, box: Box) -> Detections:
        """Everything that is seen in and about a place, in the image's pixels."""
        ...

    def ahead(self, images: Sequence[Pixels]) -> None:
        """Images that will be looked at next: a detector may take them together."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """The fitted models of the folds: each looks at crops of the images that it did not train on.

    Attributes:
        models: one per fold, trained on all other folds.
        fold: int32 (N,), of each image of the dataset.
        scale: of the crops, in crop pixels per image pixel.
        closer: a second look for each model; without one the detector's word counts alone.
    """

    models: tuple[FCOS, ...]
    fold: NDArray[np.int32]
    scale: float
    closer: tuple[second_look.Closer, ...] = ()

    def look(self, pixels: Pixels, image: int, box: Box, label: int, min_overlap: float) -> Sight:
        """What the models that did not train on an image say of one place in it, as `Looks.look`.

        With a second look the score is the geometric mean of both: either can refuse. Where the detector finds nothing that
        fits, its part is `LEAST_SCORE`, since it would have told anything above.
        """
        found, crop = self._seen(pixels, image, box)
        inside = np.clip(crop.inward(np.array([box.xyxy])), 0, crops.CROP_PX)
        if not self.closer:
            return sight(found, inside, label, min_overlap)
        (shares,) = second_look.shares(self.closer[self.fold[image]], pixels, [box])
        both = replace(found, scores=np.round(np.sqrt(found.scores * shares[found.labels]), 4))
        seen = replace(sight(both, inside, label, min_overlap), weighed=True)
        if seen.score:
            return seen
        return replace(seen, score=round(float(np.sqrt(LEAST_SCORE * shares[label])), 4), unseen=True)

    def around(self, pixels: Pixels, image: int, box: Box) -> Detections:
        """What is in the crop around a place, in the image's pixels."""
        found, crop = self._seen(pixels, image, box)
        return replace(found, boxes=crop.outward(found.boxes))

    def ahead(self, images: Sequence[Pixels]) -> None:
        """Nothing: a crop goes through alone, so that its numbers depend on nothing else."""

    def _seen(self, pixels: Pixels, image: int, box: Box) -> tuple[Detections, crops.Crop]:
        height, width = pixels.shape[:2]
        crop = crops.around(box, self.scale, width, height)
        return detector.detect(self.models[self.fold[image]], crop.cut(pixels)), crop


def sight(found: Detections, box: geometry.FloatArray, label: int, min_overlap: float) -> Sight:
    """What detections say of one box, float64 (1, 4), asked for one category."""
    overlap = geometry.ious(found.boxes, box)[:, 0]
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
    """Judges painted objects by detectors and by the thresholds that were fitted to the dataset."""

    def __init__(
        self,
        names: Sequence[str],
        judge: Looks,
        table: tuple[Standing, ...],
        config: CheckerConfig,
        bank: Bank,
    ) -> None:
        self._rows = {name: row for row, name in enumerate(names)}
        self._judge, self._config, self._bank = judge, config, bank
        self._table = {standing.category: standing for standing in table}
        self.around = Collateral(judge, names, table, config)

    @property
    def judge(self) -> Looks:
        """What it looks with."""
        return self._judge

    @property
    def table(self) -> tuple[Standing, ...]:
        return tuple(self._table.values())

    def check(self, renders: Sequence[Render], todo: Sequence[tuple[int, ...]]) -> list[tuple[Verdict, ...]]:
        """One verdict for each placement named in `todo`, in its order, for each render."""
        measured = [
            [measure.verdict(render, index, self._bank, self._config) for index in indices]
            for render, indices in zip(renders, todo, strict=True)
        ]
        shown = [any(v.box is not None for v in verdicts) for verdicts in measured]
        self._judge.ahead([render.pixels for render, s in zip(renders, shown, strict=True) if s])
        return [
            tuple(self._verdict(render, verdict) for verdict in verdicts)
            for render, verdicts in zip(renders, measured, strict=True)
        ]

    def collateral(
        self, dataset: Dataset, renders: Sequence[Render], verdicts: Sequence[tuple[Verdict, ...]]
    ) -> list[tuple[Verdict, ...]]:
        """The same verdicts, with those accepted refused where their paint spoiled a neighbour or shows an extra object."""
        return self.around.judged(dataset, renders, verdicts)

    def _verdict(self, render: Render, measured: Verdict) -> Verdict:
        if measured.box is None:
            return measured
        category = render.layout.placements[measured.index].category
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
    if seen.mistaken and not seen.weighed:
        return Reason.WRONG_CLASS
    if seen.score >= standing.threshold:
        return Reason.ACCEPTED
    if seen.mistaken:
        return Reason.WRONG_CLASS
    if seen.score > 0 and not seen.unseen:
        return Reason.LOW_SCORE
    return Reason.BOX_OFF if seen.near >= standing.threshold else Reason.NOT_FOUND
