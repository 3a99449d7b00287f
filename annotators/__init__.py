"""Look again: measure what was painted, accept it or say why not, and bring the labels up to date."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rarefill.annotators.calibrate import Standing
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.progress import SILENT, Progress
from rarefill.recipe import CheckerConfig
from rarefill.scene import Render, Verdict

__all__ = ["Checker", "Standing", "build"]


class Checker(Protocol):
    """Says of each painted object whether it holds. May be called from several threads at once."""

    @property
    def table(self) -> tuple[Standing, ...]:
        """How well the checker knows each category, from real objects; empty when it does not look."""
        ...

    def check(self, renders: Sequence[Render], todo: Sequence[tuple[int, ...]]) -> list[tuple[Verdict, ...]]:
        """One verdict for each placement named in `todo`, in its order, for each render."""
        ...


def build(
    config: CheckerConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    progress: Progress = SILENT,
) -> Checker:
    """Make the checker that the recipe names, fitting it where the cache does not hold it yet.

    Args:
        config: what to check, and how strictly.
        dataset: the real data.
        bank: exemplars of the categories that are to be painted.
        seed: names the fit.
        cache: folder of fitted models.
        progress: where the fit shows itself.

    Raises:
        ModelError: the data cannot be fitted (too few images).
    """
    if config.checker == "none":
        from rarefill.annotators.unchecked import Unchecked

        return Unchecked(bank, config)
    from rarefill.annotators.fit import fit

    rare = [name for name in dataset.names if bank.of(name)]
    return fit(dataset, bank, config, seed=seed, cache=cache, progress=progress, rare=rare)
