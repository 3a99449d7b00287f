"""Look again: measure what was painted, accept it or say why not, and bring the labels up to date."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rarefill.annotators.calibrate import Standing
from rarefill.annotators.detectors import Detections, Detector
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.progress import SILENT, Progress
from rarefill.recipe import CheckerConfig
from rarefill.scene import Render, Verdict

__all__ = ["Checker", "Detections", "Detector", "Standing", "build", "fingerprint"]


class Checker(Protocol):
    """Says of each painted object whether it holds. May be called from several threads at once."""

    @property
    def table(self) -> tuple[Standing, ...]:
        """How well the checker knows each category, from real objects; empty when it does not look."""
        ...

    def check(self, renders: Sequence[Render], todo: Sequence[tuple[int, ...]]) -> list[tuple[Verdict, ...]]:
        """One verdict for each placement named in `todo`, in its order, for each render."""
        ...


def fingerprint(config: CheckerConfig) -> str | None:
    """Names the weights of the detector and of the segmenter that a recipe brings; None where it brings neither.

    Raises:
        ModelError: they are not there.
    """
    from rarefill.annotators import detectors, segmenter

    brought = [d for d in (detectors.fingerprint(config), segmenter.digest(config.segmenter)) if d]
    return "-".join(brought) or None


def build(
    config: CheckerConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    progress: Progress = SILENT,
    detector: Detector | None = None,
) -> Checker:
    """Make the checker that the recipe names, fitting or calibrating it where the cache does not hold it yet.

    Args:
        config: what to check, and how strictly.
        dataset: the real data.
        bank: exemplars of the categories that are to be painted.
        seed: names the fit.
        cache: folder of fitted models.
        progress: where the fit shows itself.
        detector: your own, instead of the recipe's: calibrated on the data anew each time, as nobody can name it.

    Raises:
        ModelError: the data cannot be fitted (too few images), or the detector cannot be used.
    """
    rare = [name for name in dataset.names if bank.of(name)]
    if detector is not None or config.checker not in {"fitted", "none"}:
        from rarefill.annotators import detectors
        from rarefill.annotators.detectors import brought

        if detector is not None:
            found = detectors.Named(detector, frozenset(range(len(dataset.names))), None)
        else:
            found = detectors.build(config, dataset.names, rare)
        return brought.checker(
            found, dataset, bank, config, seed=seed, cache=cache, progress=progress, rare=rare
        )
    if config.checker == "none":
        from rarefill.annotators.unchecked import Unchecked

        return Unchecked(bank, config)
    from rarefill.annotators.fit import fit

    return fit(dataset, bank, config, seed=seed, cache=cache, progress=progress, rare=rare)
