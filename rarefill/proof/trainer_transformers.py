"""Any detector of transformers as a trainer: its weights from a folder or the hub, its own loss, its own image processor."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from rarefill import pictures
from rarefill.annotators.detectors import folders
from rarefill.errors import ModelError
from rarefill.progress import Bar
from rarefill.proof import loop
from rarefill.proof.score import Detection
from rarefill.proof.trainer_fitted import rows
from rarefill.proof.trainers import Answer, Settings, Task
from rarefill.proof.views import View, Views

VERSION = 2
_LEARNING_RATE = 1e-4
_LEAST_SCORE = 0.001
_SETTINGS = (("config.json",), ("preprocessor_config.json", "processor_config.json"))


class Transformers:
    """A detector that is fine-tuned whole, with a class layer for the study's categories."""

    def __init__(self, settings: Settings) -> None:
        """Find its folder.

        Raises:
            ModelError: it is not there, or incomplete.
        """
        self._settings = settings
        self._folder = folders.find(settings.detector, flag="--train-detector")
        folders.check(self._folder, _SETTINGS)
        self._digest = folders.digest(self._folder)

    @property
    def words(self) -> str:
        """The detector, for people."""
        s = self._settings
        return f"{s.detector} (transformers), {s.steps} steps of {s.batch}"

    @property
    def steps(self) -> int:
        """Of one training."""
        return self._settings.steps

    def identity(self) -> dict[str, Any]:
        """What the answers follow from."""
        return {
            "trainer": "transformers",
            "version": VERSION,
            "weights": self._digest[:16],
            **asdict(self._settings),
        }

    def run(self, task: Task, bar: Bar) -> Answer:
        """Fine-tune and test."""
        s = self._settings
        names = task.mix.real.names
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with folders.reading(self._folder, "a detector of transformers"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)  # of the new class layer
            model = AutoModelForObjectDetection.from_pretrained(
                self._folder,
                local_files_only=True,
                use_safetensors=True,
                id2label=dict(enumerate(names)),
                label2id={name: n for n, name in enumerate(names)},
                ignore_mismatched_sizes=True,
            )
            processor = AutoImageProcessor.from_pretrained(self._folder, local_files_only=True)
        if not hasattr(processor, "post_process_object_detection"):
            raise ModelError(f"{self._folder}: {type(processor).__name__} does not say how boxes are read")
        model = model.to(device)
        views = Views(task.mix, s.size_px, s.batch, task.seed)

        def loss_of(step: int) -> Tensor:
            inputs = encoded(processor, views.batch(step))
            labels = [{k: v.to(device) for k, v in one.items()} for one in inputs.pop("labels")]
            held = {k: v.to(device) for k, v in inputs.items()}
            loss: Tensor = model(**held, labels=labels).loss
            return loss

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)  # of dropout and denoising queries
            loop.train(
                model, loss_of, steps=s.steps, learning_rate=s.learning_rate or _LEARNING_RATE, bar=bar
            )
        return Answer(_look(model, processor, task, device))


def encoded(processor: Any, views: list[View]) -> dict[str, Any]:
    """Views as the model takes them: pixel values, and labels with boxes from 0 to 1."""
    notes = [
        {
            "image_id": n,
            "annotations": [
                {
                    "image_id": n,
                    "category_id": int(label),
                    "bbox": [float(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": float((x2 - x1) * (y2 - y1)),
                    "iscrowd": 0,
                }
                for (x1, y1, x2, y2), label in zip(view.boxes.tolist(), view.labels, strict=True)
            ],
        }
        for n, view in enumerate(views)
    ]
    held = processor(
        images=[np.ascontiguousarray(view.pixels) for view in views],
        annotations=notes,
        return_tensors="pt",
        input_data_format="channels_last",
    )
    return dict(held)


def _look(model: Any, processor: Any, task: Task, device: str) -> list[Detection]:
    ids = {c.name: c.id for c in task.test.categories}
    names = task.mix.real.names
    out: list[Detection] = []
    with torch.inference_mode():
        for row in range(len(task.test.images)):
            pixels = pictures.rgb(task.test.read(row))
            own = pixels if pixels.flags.writeable else pixels.copy()
            inputs = processor(images=[own], return_tensors="pt", input_data_format="channels_last")
            outputs = model(**inputs.to(device))
            found = processor.post_process_object_detection(
                outputs, threshold=_LEAST_SCORE, target_sizes=torch.tensor([pixels.shape[:2]], device=device)
            )[0]
            known = [names[label] for label in found["labels"].tolist()]
            boxes = np.clip(
                found["boxes"].cpu().numpy().astype(float).reshape(-1, 4), 0, pixels.shape[1::-1] * 2
            )
            out += rows(int(task.test.images.id[row]), known, boxes, found["scores"].tolist(), ids)
    return out
