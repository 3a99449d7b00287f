"""The picture that segmentation ControlNets were trained on: ADE20K's classes in ADE20K's colours."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rarefill.errors import ModelError
from rarefill.generators.compact_conditioning import Bits, Rgb


class Segments:
    """The scene by a semantic segmentation model; a new object has a colour of its own.

    The colour is that of the class that the scene shows least: the ControlNet then sees an outline that nothing
    else in the window shares, and the prompt says what it is.
    """

    def __init__(self, model: Any, processor: Any, palette: NDArray[np.uint8]) -> None:
        self._model, self._processor, self._palette = model, processor, palette

    @classmethod
    def load(cls, folder: Path, name: str) -> "Segments":
        """Read a model of transformers.

        Args:
            folder: as save_pretrained writes it.
            name: as it was asked for.

        Raises:
            ModelError: it is none.
        """
        from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

        from rarefill.generators.conditioning import package

        try:
            model = AutoModelForSemanticSegmentation.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{name}: no segmentation model of transformers in safetensors ({type(error).__name__}: {said})"
            ) from error
        palette = np.asarray(package().util.ade_palette(), np.uint8)
        if model.config.num_labels != len(palette):
            raise ModelError(
                f"{name}: knows {model.config.num_labels} classes; the ControlNets were shown ADE20K's {len(palette)}, "
                "name a model that was trained on those"
            )
        return cls(model.eval(), processor, palette)

    @torch.no_grad()
    def __call__(self, pixels: Rgb, mask: Bits, hidden: Bits, *, redraw: bool) -> Rgb:
        """A redrawn object keeps the scene's own colours."""
        del hidden
        logits = self._model(**self._processor(pixels, return_tensors="pt")).logits[0]
        label = logits.argmax(0).numpy().astype(np.uint8)
        size = pixels.shape[1], pixels.shape[0]
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        if not redraw:
            shown = np.bincount(label[~mask], minlength=len(self._palette))[: len(self._palette)]
            label = np.where(mask, np.uint8(shown.argmin()), label)
        return np.ascontiguousarray(self._palette[label % len(self._palette)])
