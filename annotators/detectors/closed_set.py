"""Detectors of transformers with classes of their own: whatever `AutoModelForObjectDetection` reads (RT-DETR, D-FINE, DETR, ...)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from rarefill.annotators.detectors import LEAST_SCORE, Detections, batches, folders, names
from rarefill.errors import ModelError
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels

_SETTINGS = (("config.json",), ("preprocessor_config.json", "processor_config.json"))


class ClosedSet:
    """A model, the image processor that came with it, and the category row of each of its classes."""

    def __init__(
        self, model: Any, processor: Any, rows: NDArray[np.int64], *, batch: int, where: str
    ) -> None:
        self._model, self._processor, self._rows = model, processor, rows
        self._batch, self._where = batch, where

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image."""
        return batches.each(images, self._batch, self._look)

    def _look(self, images: list[Pixels]) -> list[Detections]:
        size = images[0].shape[:2]
        device = self._model.device
        with torch.inference_mode():
            inputs = self._processor(images=images, return_tensors="pt", input_data_format="channels_last")
            outputs = self._model(**inputs.to(device))
            whole(outputs.logits, self._where)
            whole(outputs.pred_boxes, self._where)
            found = self._processor.post_process_object_detection(
                outputs,
                threshold=LEAST_SCORE,
                target_sizes=torch.tensor([size] * len(images), device=device),
            )
        return batches.answered(found, self._rows, size=(size[0], size[1]), where=self._where)


def load(
    config: CheckerConfig, ours: Sequence[str], needed: Sequence[str]
) -> tuple[ClosedSet, frozenset[int]]:
    """The recipe's detector, and the categories that it knows.

    Raises:
        ModelError: it cannot be read, or lacks a needed category.
    """
    where = str(config.detector)
    folder = folders.find(where)
    folders.check(folder, _SETTINGS)
    model, processor = folders.load(
        folder, "a detector of transformers", AutoModelForObjectDetection, AutoImageProcessor
    )
    if not hasattr(processor, "post_process_object_detection"):
        raise ModelError(
            f"{folder}: {type(processor).__name__} does not say how boxes are read from the model's outputs"
        )
    rows = names.rows(
        names.in_order(model.config.id2label, f"{folder}/config.json: id2label"),
        ours,
        needed=needed,
        mapped=config.map,
        where=where,
    )
    model = model.to(device()).eval().requires_grad_(False)
    known = frozenset(int(row) for row in rows if row >= 0)
    return ClosedSet(model, processor, rows, batch=config.detector_batch, where=where), known


def device() -> str:
    """Where detectors run: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def whole(outputs: torch.Tensor, where: str) -> None:
    """Refuse outputs that are no numbers: a threshold would drop them in silence, as if nothing were there.

    Raises:
        ModelError: some are.
    """
    if bool(torch.isnan(outputs).any()):
        raise ModelError(
            f"{where}: gives outputs that are no numbers; its weights or its processor's settings are broken"
        )
