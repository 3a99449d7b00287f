"""The checker that trusts the paint: it measures, and looks no further."""

from collections.abc import Sequence

from rarefill.annotators import measure
from rarefill.annotators.calibrate import Standing
from rarefill.bank import Bank
from rarefill.recipe import CheckerConfig
from rarefill.scene import Render, Verdict


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
            tuple(measure.verdict(render, index, self._bank, self._config) for index in indices)
            for render, indices in zip(renders, todo, strict=True)
        ]
