"""The checker that trusts the paint: it measures, and looks no further."""

from collections.abc import Sequence

from rarefill import geometry
from rarefill.annotators import measure
from rarefill.annotators.calibrate import Standing
from rarefill.bank import Bank
from rarefill.recipe import CheckerConfig
from rarefill.scene import Reason, Render, Verdict


class Unchecked:
    """Measured boxes, no judgement; loads no model."""

    def __init__(self, bank: Bank, config: CheckerConfig) -> None:
        self._bank, self._config = bank, config

    @property
    def table(self) -> tuple[Standing, ...]:
        return ()

    def check(self, renders: Sequence[Render], todo: Sequence[tuple[int, ...]]) -> list[tuple[Verdict, ...]]:
        """UNCHECKED for what was painted and shows enough, NOT_PAINTED or HIDDEN for the rest."""
        return [
            tuple(self._verdict(render, index) for index in indices)
            for render, indices in zip(renders, todo, strict=True)
        ]

    def _verdict(self, render: Render, index: int) -> Verdict:
        if measure.painted(render, index) is None:
            return Verdict(index, Reason.NOT_PAINTED)
        mask, shown = measure.visible(render, index, measure.in_front(render, index))
        if mask is None or shown < self._config.min_visible:
            return Verdict(index, Reason.HIDDEN)
        placement = render.layout.placements[index]
        box = measure.label_box(render, mask, self._bank.slack(placement.category))
        asked = round(geometry.iou(placement.box, mask.box), 4)
        return Verdict(index, Reason.UNCHECKED, asked_overlap=asked, box=box, mask=mask)
