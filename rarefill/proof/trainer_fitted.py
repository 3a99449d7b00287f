"""The fitted detector as a trainer: the checker's network, from what is shipped, on whole images. Nothing is downloaded."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from rarefill import engine, pictures
from rarefill.annotators import detector
from rarefill.dataset import Dataset
from rarefill.progress import Bar
from rarefill.proof import loop
from rarefill.proof.score import Detection
from rarefill.proof.trainers import Answer, Settings, Task
from rarefill.proof.views import View, Views

VERSION = 3
_LEARNING_RATE = 2e-3


class Fitted:
    """torchvision's FCOS on MobileNetV3-small, 1.1 million parameters."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def words(self) -> str:
        """The detector, for people."""
        s = self._settings
        return f"fitted (FCOS on MobileNetV3-small, from rarefill's own weights), {s.steps} steps of {s.batch} at {s.size_px} px"

    @property
    def steps(self) -> int:
        """Of one training."""
        return self._settings.steps

    def identity(self) -> dict[str, Any]:
        """What the answers follow from."""
        return {
            "trainer": "fitted",
            "version": VERSION,
            "start": detector.start_digest(),
            **asdict(self._settings),
        }

    def run(self, task: Task, bar: Bar) -> Answer:
        """Train and test."""
        s = self._settings
        model = detector.build(len(task.mix.real.names), task.seed)
        views = Views(task.mix, s.size_px, s.batch, task.seed)

        def loss_of(step: int) -> Tensor:
            batch = views.batch(step)
            losses = model(images(batch), targets(batch))
            return torch.stack(list(losses.values())).sum()

        with engine.one_thread():
            loop.train(
                model, loss_of, steps=s.steps, learning_rate=s.learning_rate or _LEARNING_RATE, bar=bar
            )
            return Answer(look(model, task.test, task.mix.real, s.size_px))


def images(views: Sequence[View]) -> list[Tensor]:
    """float32 (3, side, side) from 0 to 1 each."""
    return list(detector.images(np.stack([v.pixels for v in views])))


def targets(views: Sequence[View]) -> list[dict[str, Tensor]]:
    """As torchvision's detectors take them."""
    return [
        {
            "boxes": torch.from_numpy(v.boxes.astype(np.float32)).reshape(-1, 4),
            "labels": torch.from_numpy(v.labels),
        }
        for v in views
    ]


def look(model: Any, test: Dataset, train: Dataset, size_px: int) -> list[Detection]:
    """Detections of all test images, each brought to `size_px`, in the test's own pixels and category ids."""
    ids = {c.name: c.id for c in test.categories}
    out: list[Detection] = []
    with torch.inference_mode():
        for row in range(len(test.images)):
            pixels = pictures.rgb(test.read(row))
            scale = size_px / max(pixels.shape[:2])
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            size = [max(8, round(v * scale)) for v in (pixels.shape[1], pixels.shape[0])]
            small = cv2.resize(pixels, size, interpolation=how)
            found = model(list(detector.images(np.asarray(small, dtype=np.uint8)[None])))[0]
            back = np.array([pixels.shape[1] / size[0], pixels.shape[0] / size[1]] * 2)
            names = [train.names[label] for label in found["labels"].tolist()]
            boxes = found["boxes"].numpy().astype(float).reshape(-1, 4) * back
            out += rows(int(test.images.id[row]), names, boxes, found["scores"].tolist(), ids)
    return out


def rows(
    image_id: int, names: Sequence[str], boxes: Any, scores: Sequence[float], ids: dict[str, int]
) -> list[Detection]:
    """COCO's results of one image; categories that the test does not know are left out."""
    return [
        {
            "image_id": image_id,
            "category_id": ids[name],
            "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 5),
        }
        for name, (x1, y1, x2, y2), score in zip(names, boxes.tolist(), scores, strict=True)
        if name in ids
    ]
