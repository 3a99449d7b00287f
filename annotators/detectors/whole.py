"""Looks at whole images with any detector, and at each image once, however many objects stand in it."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np

from rarefill import geometry
from rarefill.annotators.calibrate import Sight
from rarefill.annotators.check import sight
from rarefill.annotators.detectors import Detections, Detector
from rarefill.errors import ModelError
from rarefill.geometry import Box
from rarefill.scene import Pixels

_KEPT = 4096  # answers, of some 10 kB each


class Whole:
    """A detector that was trained elsewhere, as `check.Looks`."""

    def __init__(self, detector: Detector, n_categories: int) -> None:
        self._detector, self._n_categories = detector, n_categories
        self._answers: OrderedDict[bytes, Detections] = OrderedDict()
        self._one_at_a_time = Lock()

    def look(self, pixels: Pixels, image: int, box: Box, label: int, min_overlap: float) -> Sight:
        """What the detector says of one place."""
        del image  # it trained on none of them
        height, width = pixels.shape[:2]
        inside = np.clip(np.array([box.xyxy]), 0, [width, height, width, height])
        return sight(self.detect([pixels])[0], inside, label, min_overlap)

    def around(self, pixels: Pixels, image: int, box: Box) -> Detections:
        """What touches a place."""
        del image
        found = self.detect([pixels])[0]
        meets = geometry.intersections(found.boxes, np.array([box.xyxy]))[:, 0] > 0
        return Detections(found.boxes[meets], found.labels[meets], found.scores[meets])

    def ahead(self, images: Sequence[Pixels]) -> None:
        """Look at several images together."""
        self.detect(images)

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image; the same pixels are looked at once.

        Raises:
            ModelError: the detector does not answer as it should.
        """
        keys = [_key(pixels) for pixels in images]
        with self._one_at_a_time:  # a detector uses all cores, or the one GPU, by itself
            new = {key: pixels for key, pixels in zip(keys, images, strict=True) if key not in self._answers}
            found = self._detector.detect(list(new.values())) if new else []
            if len(found) != len(new):
                raise ModelError(f"{_name(self._detector)}: gives {len(found)} answers for {len(new)} images")
            for key, one in zip(new, found, strict=True):
                _check(one, self._n_categories, _name(self._detector))
                self._answers[key] = one
            seen = [self._answers[key] for key in keys]
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return seen


def _key(pixels: Pixels) -> bytes:
    shape = f"{pixels.shape} {pixels.dtype}".encode()
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16, key=shape).digest()


def _name(detector: Detector) -> str:
    return f"detector {type(detector).__name__}"


def _check(found: Detections, n_categories: int, where: str) -> None:
    """Whether an answer is one: a detector of the user's may say anything.

    Raises:
        ModelError: it is not.
    """
    boxes, labels, scores = (np.asarray(a) for a in (found.boxes, found.labels, found.scores))
    n = len(scores) if scores.ndim == 1 else -1
    if boxes.shape != (n, 4) or labels.shape != (n,):
        raise ModelError(
            f"{where}: boxes (N, 4), labels (N,) and scores (N,) are expected, "
            f"got {boxes.shape}, {labels.shape} and {scores.shape}"
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ModelError(f"{where}: gives boxes or scores that are no numbers")
    if n and not (scores.min() >= 0 and scores.max() <= 1):
        raise ModelError(
            f"{where}: scores from 0 to 1 are expected, got {scores.min():g} to {scores.max():g}"
        )
    if not np.issubdtype(labels.dtype, np.integer) or (
        n and not (labels.min() >= 0 and labels.max() < n_categories)
    ):
        raise ModelError(
            f"{where}: labels are rows of the dataset's {n_categories} categories, 0 to {n_categories - 1}, "
            f"got {labels.dtype} {sorted(set(labels.tolist()))[:8]}"
        )
