"""What pictures are compared by: the fitted checker's own network, or DINOv2 or CLIP from a folder or the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rarefill import bank
from rarefill.annotators import detector
from rarefill.annotators.check import Judge
from rarefill.annotators.detectors import folders
from rarefill.annotators.fit import fit
from rarefill.dataset import Dataset
from rarefill.errors import ModelError
from rarefill.fidelity.distances import Floats
from rarefill.progress import Progress
from rarefill.recipe import Recipe

FITTED = "fitted"
BATCH = 16


class Features(Protocol):
    """Turns pictures into rows of numbers."""

    @property
    def name(self) -> str:
        """What they are, for people."""
        ...

    def __call__(self, pictures: NDArray[np.uint8]) -> Floats:
        """float64 (N, D), of uint8 (N, S, S, 3) in RGB."""
        ...


class FromChecker:
    """Three levels of the fitted checker's feature pyramid, each averaged over the picture: 3 x 64 numbers."""

    def __init__(self, judge: Judge) -> None:
        self._backbone = judge.models[0].backbone

    @property
    def name(self) -> str:
        return "the checker's own network, trained on the run's data"

    @torch.inference_mode()
    def __call__(self, pictures: NDArray[np.uint8]) -> Floats:
        """float64 (N, 192)."""
        found = []
        for start in range(0, len(pictures), BATCH):
            x = detector.images(pictures[start : start + BATCH])
            maps = self._backbone(detector.normalised(x))
            found.append(torch.cat([level.mean((2, 3)) for level in maps.values()], 1).double().numpy())
        return np.concatenate(found) if found else np.zeros((0, 0))


class FromTransformers:
    """A picture's embedding by a transformers model: CLIP's image features, or a backbone's pooled output."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self._model, self._processor, self._name = model.eval(), processor, name

    @property
    def name(self) -> str:
        return self._name

    @torch.inference_mode()
    def __call__(self, pictures: NDArray[np.uint8]) -> Floats:
        """float64 (N, D), D as the model has it."""
        found = []
        for start in range(0, len(pictures), BATCH):
            given = self._processor(images=list(pictures[start : start + BATCH]), return_tensors="pt")
            found.append(self._embedded(given["pixel_values"]).double().numpy())
        return np.concatenate(found) if found else np.zeros((0, 0))

    def _embedded(self, x: torch.Tensor) -> torch.Tensor:
        embed = getattr(self._model, "get_image_features", None)
        out: Any = self._model(pixel_values=x) if embed is None else embed(pixel_values=x)
        if isinstance(out, torch.Tensor):
            return out
        pooled = getattr(out, "pooler_output", None)
        mean: torch.Tensor = out.last_hidden_state.mean(1) if pooled is None else pooled
        return mean


def build(
    name: str, dataset: Dataset, recipe: Recipe, rare: Sequence[str], cache: Path, progress: Progress
) -> Features:
    """The features asked for.

    Args:
        name: `fitted`, or a transformers model: its folder, or OWNER/NAME of the hub, with @REVISION to pin it.
        dataset: what the run was made from: the checker is fitted to it, where the cache does not hold it.
        recipe: of the run.
        rare: the categories that it made.
        cache: folder of fitted models.
        progress: shows a fit.

    Raises:
        ModelError: the model cannot be had, or the data cannot be fitted.
    """
    if name == FITTED:
        return FromChecker(judge(dataset, recipe, rare, cache, progress))
    return _transformers(name)


def judge(dataset: Dataset, recipe: Recipe, rare: Sequence[str], cache: Path, progress: Progress) -> Judge:
    """The checker's fitted models, from the cache where it holds them."""
    shapes = bank.build(dataset, list(rare), cache=cache, progress=progress)
    known = [name for name in dataset.names if shapes.of(name)]
    fitted = fit(dataset, shapes, recipe.annotator, seed=0, cache=cache, progress=progress, rare=known)
    if not isinstance(fitted.judge, Judge):
        raise ModelError("the fitted checker has no network of its own")
    return fitted.judge


def _transformers(name: str) -> Features:
    folder = folders.find(name, "--features")
    folders.check(folder, (("config.json",), ("preprocessor_config.json",)))
    from transformers import AutoImageProcessor, AutoModel

    model, processor = folders.load(
        folder, "a model of transformers that takes pictures", AutoModel, AutoImageProcessor
    )
    return FromTransformers(model, processor, name)
