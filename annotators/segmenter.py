"""A promptable segmenter as evidence of an outline: a model of the SAM family, read through transformers.

Whatever `AutoModelForMaskGeneration` reads (SAM, SAM-HQ, SAM 2, EdgeTAM), shown a crop and the box of what was planned.
"""

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from rarefill import engine
from rarefill.annotators.detectors import folders
from rarefill.errors import ModelError
from rarefill.geometry import BoolArray, Box
from rarefill.scene import Pixels

Segment = Callable[[Pixels, Box], tuple[BoolArray, float]]
"""From uint8 (h, w, 3) and a box in it: the object's pixels, bool (h, w), and how good the segmenter thinks they are, 0 to 1."""

_SETTINGS = (("config.json",), ("preprocessor_config.json", "processor_config.json"))


class Promptable:
    """A model and the processor that came with it."""

    def __init__(self, model: Any, processor: Any, where: str) -> None:
        self._model, self._processor, self._where = model, processor, where
        self._lock = Lock()  # one picture at a time: what one costs fills the machine

    def __call__(self, pixels: Pixels, box: Box) -> tuple[BoolArray, float]:
        """The object that a box holds, as `Segment`.

        Raises:
            ModelError: the model's outputs are no numbers.
        """
        import torch

        with self._lock, engine.one_thread(), torch.inference_mode():
            inputs = self._processor(
                images=np.ascontiguousarray(pixels),
                input_boxes=[[list(box.xyxy)]],
                return_tensors="pt",
                input_data_format="channels_last",
            )
            sizes = [inputs["original_sizes"]]
            if "reshaped_input_sizes" in inputs:  # SAM and SAM-HQ pad, the later ones stretch
                sizes.append(inputs["reshaped_input_sizes"])
            outputs = self._model(**inputs.to(self._model.device), multimask_output=False)
            quality = float(outputs.iou_scores.reshape(-1)[0])
            if not np.isfinite(quality) or bool(torch.isnan(outputs.pred_masks).any()):
                raise ModelError(f"{self._where}: gives outputs that are no numbers; its weights are broken")
            (masks,) = self._processor.post_process_masks(outputs.pred_masks.cpu(), *sizes)
        found = masks.reshape(-1, *masks.shape[-2:])[0].numpy().astype(bool)
        return found, min(max(round(quality, 4), 0.0), 1.0)


@lru_cache(maxsize=2)
def named(name: str) -> Segment:
    """The segmenter of a folder, or of OWNER/NAME@REVISION of the hub; loaded once in a process.

    Raises:
        ModelError: it is missing, incomplete, a pickle, or no segmenter.
    """
    import torch
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    folder = folders.find(name, flag="--segmenter")
    folders.check(folder, _SETTINGS)
    model, processor = folders.load(
        folder, "a segmenter of transformers", AutoModelForMaskGeneration, AutoProcessor
    )
    if not hasattr(processor, "post_process_masks"):
        raise ModelError(
            f"{folder}: {type(processor).__name__} does not say how masks are read from the model's outputs"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Promptable(model.to(device).eval().requires_grad_(False), processor, name)


def asked(name: str | None) -> Segment | None:
    """The recipe's segmenter, or None where it names none: GrabCut then."""
    return named(name) if name is not None else None


def digest(name: str | None) -> str | None:
    """SHA-256 of its weights and settings, None where none is named.

    Raises:
        ModelError: they are not there.
    """
    return folders.digest(folders.find(name, flag="--segmenter")) if name is not None else None
