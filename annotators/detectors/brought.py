"""A checker from a detector that was trained elsewhere: its thresholds come from the user's own real objects."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from rarefill import files
from rarefill.annotators import held_back
from rarefill.annotators.check import Fitted
from rarefill.annotators.detectors import Named
from rarefill.annotators.detectors.whole import Whole
from rarefill.annotators.held_back import Evidence
from rarefill.annotators.samples import Pictures
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.errors import ModelError
from rarefill.progress import SILENT, Progress
from rarefill.recipe import CheckerConfig

_VERSION = 1
"""Of how detectors are read and asked: a change gets a new number, and with it new thresholds."""
_ASKS = {
    "checker",
    "map",
    "architecture",
    "onnx_layout",
    "onnx_resize",
    "onnx_norm",
    "onnx_px",
    "min_overlap",
}
"""Options that the answers follow from; the strictness is applied to them afterwards."""


def checker(
    found: Named,
    dataset: Dataset,
    bank: Bank,
    config: CheckerConfig,
    *,
    seed: int,
    cache: Path,
    progress: Progress = SILENT,
    rare: Sequence[str],
) -> Fitted:
    """Calibrate a detector on the dataset, or take from the cache what it said before.

    It did not train on the dataset, so that every real object of it counts as held back. (One that did would promise
    more than it keeps.)

    Args:
        found: the detector.
        dataset: the real data.
        bank: exemplars of the rare categories.
        config: how strictly to judge.
        seed: draws the real objects and the planted errors to look at.
        cache: folder of what detectors said.
        progress: where the looking shows itself.
        rare: the categories that are to be painted.

    Raises:
        ModelError: it does not know a rare category, or does not answer as it should.
    """
    known = [name for row, name in enumerate(dataset.names) if row in found.known]
    unknown = [name for name in rare if name not in known]
    if unknown:
        raise ModelError(
            f"the detector does not know {', '.join(map(repr, unknown))}, which is to be painted"
        )
    judge = Whole(found.detector, len(dataset.names))
    evidence = _kept(found, dataset, config, seed, cache, progress, rare)
    if evidence is None:
        evidence = held_back.judge_held_back(
            dataset,
            judge,
            Pictures(dataset),
            rare=rare,
            seed=seed,
            min_overlap=config.min_overlap,
            progress=progress,
        )
        if (path := _path(found, dataset, config, seed, cache, rare)) is not None:
            files.write_bytes(path, evidence.to_json().encode())
    for name in set(evidence.objects) - set(known):
        del evidence.objects[name]  # what it never names says nothing of how sure it is of the others
    return Fitted(dataset.names, judge, evidence.standings(config), config, bank)


def _kept(
    found: Named,
    dataset: Dataset,
    config: CheckerConfig,
    seed: int,
    cache: Path,
    progress: Progress,
    rare: Sequence[str],
) -> Evidence | None:
    path = _path(found, dataset, config, seed, cache, rare)
    try:
        return Evidence.from_json(path.read_text(encoding="utf-8")) if path is not None else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        progress.say(f"{path}: not a whole file, so the held-back objects are judged again")
        return None


def _path(
    found: Named, dataset: Dataset, config: CheckerConfig, seed: int, cache: Path, rare: Sequence[str]
) -> Path | None:
    """The file of what a detector said of a dataset; None for a detector that nobody can name."""
    if found.digest is None:
        return None
    asks = config.model_dump(mode="json", include=_ASKS)
    says = (_VERSION, held_back.VERSION, found.digest, dataset.digest, seed, list(rare), asks)
    key = hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:16]
    return cache / f"detector-{key}" / "held-back.json"
