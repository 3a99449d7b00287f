"""Detectors behind one seam: what finds objects in images, whoever trained it.

`detect(images)` says where the dataset's categories are. The fitted detector, torchvision's, transformers', ONNX files
and a Python object of the user's all answer so; nothing else of them crosses the seam.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rarefill.errors import ModelError
from rarefill.geometry import FloatArray
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels

__all__ = ["LEAST_SCORE", "Detections", "Detector", "Named", "build", "fingerprint"]

LEAST_SCORE = 0.02
"""Detections below this are left out: it is under any threshold that a category can get."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found in one image.

    Attributes:
        boxes: float64 (N, 4), x1 y1 x2 y2, in the image's pixels, to 2 decimals.
        labels: int64 (N,), rows of the dataset's categories, from 0.
        scores: float64 (N,), 0 to 1, to 4 decimals.
    """

    boxes: FloatArray
    labels: NDArray[np.int64]
    scores: FloatArray


class Detector(Protocol):
    """Finds objects in images. Called by one thread at a time."""

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image, in their order; the answer for one depends on that image alone.

        Args:
            images: (H, W, C) each, of any size, 8 or 16 bit, 1, 3 or 4 bands.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """A detector and the categories that it can find.

    Attributes:
        detector: what looks.
        known: rows of those categories; of any other it never says anything.
        digest: names everything that its answers follow from; None when nobody knows, and nothing may be kept.
    """

    detector: Detector
    known: frozenset[int]
    digest: str | None


def build(config: CheckerConfig, names: Sequence[str], needed: Sequence[str]) -> Named:
    """Make the detector that the recipe names. Heavy imports happen here, on demand.

    Args:
        config: which detector, from where, and how its class names are spelt here.
        names: the dataset's categories.
        needed: those that it has to know.

    Raises:
        ModelError: it is missing, incomplete, a pickle, holds what is no number, or does not know a needed category.
    """
    digest = fingerprint(config)
    detector: Detector
    match config.checker:
        case "transformers":
            from rarefill.annotators.detectors import closed_set

            detector, known = closed_set.load(config, names, needed)
        case "zero-shot":
            from rarefill.annotators.detectors import zero_shot

            detector, known = zero_shot.load(config, names)
        case "torchvision":
            from rarefill.annotators.detectors import state_dict

            detector, known = state_dict.load(config, names, needed)
        case "onnx":
            from rarefill.annotators.detectors import onnx_file

            detector, known = onnx_file.load(config, names, needed)
        case "fitted" | "none":
            raise ModelError(f"checker {config.checker} has no detector to load; fit it to the dataset")
    return Named(detector, known, digest)


def fingerprint(config: CheckerConfig) -> str | None:
    """SHA-256 of the weights and settings that the recipe's detector follows from, or None where it names none.

    Raises:
        ModelError: they are not there.
    """
    if config.detector is None:
        return None
    from rarefill.annotators.detectors import folders

    extra = [Path(config.class_names)] if config.class_names else []
    return folders.digest(folders.find(config.detector), extra)
