"""Detectors of torchvision: the weights of any of its detection models, as a safetensors file, with the names of its classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models import detection as family
from torchvision.models import get_model, list_models

from rarefill.annotators.detectors import LEAST_SCORE, Detections, batches, folders, names
from rarefill.annotators.detectors.closed_set import device
from rarefill.errors import ModelError
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels


class StateDict:
    """A model of torchvision, and the category row of each number that it gives."""

    def __init__(self, model: Any, rows: NDArray[np.int64], *, batch: int, where: str) -> None:
        self._model, self._rows, self._batch, self._where = model, rows, batch, where

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image."""
        return batches.each(images, self._batch, self._look)

    def _look(self, images: list[Pixels]) -> list[Detections]:
        at = next(self._model.parameters()).device
        tensors = [torch.from_numpy(i).to(at).permute(2, 0, 1).float().div(255) for i in images]
        with torch.inference_mode():
            found = self._model(tensors)
        return [
            batches.detections(
                one["boxes"].cpu().numpy().astype(np.float64),
                self._rows[one["labels"].cpu().numpy()],
                one["scores"].cpu().numpy().astype(np.float64),
                size=(images[0].shape[0], images[0].shape[1]),
                where=self._where,
            )
            for one in found
        ]


def load(
    config: CheckerConfig, ours: Sequence[str], needed: Sequence[str]
) -> tuple[StateDict, frozenset[int]]:
    """The recipe's detector, and the categories that it knows.

    Raises:
        ModelError: it cannot be read, does not fit the architecture, or lacks a needed category.
    """
    where, architecture = str(config.detector), str(config.architecture)
    _check_architecture(architecture)
    weights = _read(folders.find(where))
    theirs = names.read(Path(str(config.class_names)))
    model, offset = _fitting(architecture, weights, len(theirs), where)
    rows = names.rows(theirs, ours, needed=needed, mapped=config.map, where=where)
    known = frozenset(int(row) for row in rows if row >= 0)
    rows = np.concatenate([np.full(offset, -1, dtype=np.int64), rows])
    model = model.to(device()).eval().requires_grad_(False)
    return StateDict(model, rows, batch=config.detector_batch, where=where), known


def _check_architecture(architecture: str) -> None:
    known = list_models(module=family)
    if architecture not in known:
        near = names.nearest(architecture, known)
        raise ModelError(
            f"--architecture {architecture}: torchvision has no such detector; "
            + (f"did you mean {near!r}?" if near else f"it has {', '.join(known)}")
        )


def _read(place: Path) -> Mapping[str, Tensor]:
    """A file's tensors; a folder stands for the one safetensors file in it."""
    if place.is_dir():
        held = sorted(place.glob("*.safetensors"))
        if len(held) != 1:
            folders.refuse_pickles(place, sorted(p.name for p in place.iterdir()))
            raise ModelError(f"{place}: holds {len(held)} safetensors files; name one with --detector")
        place = held[0]
    folders.refuse_pickles(place.parent, [place.name])
    with folders.reading(place, "safetensors"):
        weights = safetensors.torch.load_file(place)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{place}: {name} holds weights that are no numbers; its training went wrong")
    return weights


def _fitting(architecture: str, weights: Mapping[str, Tensor], n_names: int, where: str) -> tuple[Any, int]:
    """The model with its weights, and 1 where class 0 is a background that the names leave out.

    Raises:
        ModelError: the weights are another model's, or of another number of classes.
    """
    wrong: list[str] = []
    for offset in (1, 0):
        with torch.device("meta"):
            bare = _made(architecture, n_names + offset)
        lacking = _unfit(bare.state_dict(), weights)
        if not lacking:
            model = _made(architecture, n_names + offset)
            model.load_state_dict(weights, strict=False)  # what may be missing is known to _unfit
            return model, offset
        wrong = min(wrong or lacking, lacking, key=len)
    raise ModelError(
        f"{where}: not the weights of {architecture} with {n_names} classes, background or not: {wrong[0]}"
    )


def _made(architecture: str, n_classes: int) -> Any:
    model = get_model(architecture, weights=None, weights_backbone=None, num_classes=n_classes)
    heads = model.roi_heads if hasattr(model, "roi_heads") else model
    heads.score_thresh = LEAST_SCORE
    return model


def _unfit(wanted: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> list[str]:
    """What is missing, too many or of another shape."""
    lacking = [
        f"{name} is missing"
        for name in wanted
        # Batches are counted in training alone; frozen layers have no count.
        if name not in held and not name.endswith("num_batches_tracked")
    ]
    shapes = [
        f"{name} has the shape {tuple(held[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in held and held[name].shape != tensor.shape
    ]
    return lacking + shapes + [f"{name} is not part of it" for name in sorted(set(held) - set(wanted))]
