"""Train what the checker's detector begins with: it learns to find things at all.

    python -m rarefill.detector_start --pictures PICTURES --out TRAIN --minutes 60
    python -m rarefill.detector_start --pictures PICTURES --out TRAIN --to annotators/weights/detector.safetensors

The first call goes on from its checkpoint; the second writes the file as it is shipped. docs/training.md has the rest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rarefill import geometry, start_command
from rarefill.annotators import detector
from rarefill.annotators.crops import CROP_PX
from rarefill.generators.train import checkpoint, loop, sheets
from rarefill.generators.train.__main__ import smear
from rarefill.generators.train.collage import Collages, Scene
from rarefill.generators.train.record import STATE
from rarefill.generators.train.vae import MEASURE, TRAIN
from rarefill.seeds import Stage, rng

FOLDER: Final = "detector"
"""Of the training folder."""
_HELD: Final = 64
_SETTLING: Final = 60
"""Batches from which the averaged weights get statistics of their own."""


class Finding:
    """What one step looks at, and how well things in held-back scenes are found."""

    def __init__(
        self, model: Any, source: Collages, settings: loop.Settings, *, held: int = _HELD, device: str = "cpu"
    ) -> None:
        self._model, self._source, self._settings, self._device = model, source, settings, device
        draws = (rng(0, Stage.FIT, MEASURE, 30_000 + n) for n in range(held))
        self._held = [source.draw(draw, settings.window, held=True) for draw in draws]

    def stage(self) -> loop.Stage:
        return loop.Stage(self._model, self.losses, self.sheet)

    def losses(self, step: int) -> loop.Losses:
        """FCOS' three losses."""
        settings = self._settings
        draws = (rng(settings.seed, Stage.FIT, TRAIN, step, n) for n in range(settings.batch))
        scenes = [self._source.draw(draw, settings.window) for draw in draws]
        self._model.train()
        found = self._model(list(_images(scenes, self._device)), _targets(scenes, self._device))
        return {"loss": torch.stack(list(found.values())).sum(), **found}

    @torch.no_grad()
    def sheet(self, path: Path) -> Mapping[str, float]:
        """Held-back scenes with what is there (white) and what is found (red)."""
        settle(self._model, self._source, self._settings, batches=8, device=self._device)
        shown: list[Any] = []
        hits, claims, truths = 0, 0, 0
        for scene in self._held:
            found = self._model(list(_images([scene], self._device)))[0]
            boxes = found["boxes"][found["scores"] >= 0.3].cpu().numpy()
            hits += int((geometry.ious(scene.boxes, boxes) >= 0.5).any(axis=1).sum())
            claims, truths = claims + len(boxes), truths + len(scene.boxes)
            shown.append(_drawn(scene, boxes))
        sheets.write(path, [shown[at : at + 8] for at in range(0, min(len(shown), 32), 8)])
        return {
            "held_found": round(hits / max(truths, 1), 4),
            "held_claims": round(claims / max(truths, 1), 3),
        }


@torch.no_grad()
def settle(
    model: Any, source: Collages, settings: loop.Settings, *, batches: int = _SETTLING, device: str = "cpu"
) -> None:
    """Give the weights that a model holds the statistics of their own activations, and leave it looking."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what follows
    model.train()
    for n in range(batches):
        draws = (rng(0, Stage.FIT, MEASURE, 40_000 + n, k) for k in range(settings.batch))
        scenes = [source.draw(draw, settings.window) for draw in draws]
        model.backbone(detector.normalised(_images(scenes, device)))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    model.eval()


def train(source: Collages, folder: Path, settings: loop.Settings, device: str = "cpu") -> int:
    """Train until the clock or the step count says stop, from the checkpoint where there is one. Returns all steps done."""
    model = detector.build(len(source.names), settings.seed, start=False).to(device)
    return loop.run(Finding(model, source, settings, device=device).stage(), folder / FOLDER, settings)


def export(source: Collages, folder: Path, to: Path) -> int:
    """Write the averaged weights, without what knows the classes learnt here, as they are shipped. Returns their steps.

    Raises:
        ModelError: nothing was trained in the folder.
    """
    settings = loop.Settings(minutes=0, window=CROP_PX)
    model = detector.build(len(source.names), settings.seed, start=False)
    step = checkpoint.load_averages(folder / FOLDER / STATE, model)
    settle(model, source, settings)
    detector.save_start(to, model, step)
    return step


def main(words: list[str] | None = None) -> int:
    """Train or export. Returns the exit code."""
    return start_command.run(
        start_command.Start(
            "rarefill.detector_start",
            "what the checker's detector begins with",
            FOLDER,
            CROP_PX,
            12_000,
            lambda shelf, out, settings, device: train(Collages(shelf, smear), out, settings, device),
            lambda shelf, out, to: export(Collages(shelf, smear), out, to),
        ),
        words,
    )


def _images(scenes: list[Scene], device: str) -> Tensor:
    return detector.images(np.stack([scene.pixels for scene in scenes])).to(device)


def _targets(scenes: list[Scene], device: str) -> list[dict[str, Tensor]]:
    return [
        {
            "boxes": torch.from_numpy(scene.boxes.astype(np.float32)).reshape(-1, 4).to(device),
            "labels": torch.from_numpy(scene.labels).to(device),
        }
        for scene in scenes
    ]


def _drawn(scene: Scene, boxes: Any) -> Any:
    pixels = scene.pixels.copy()
    for colour, those in (((255, 255, 255), scene.boxes), ((255, 0, 0), boxes)):
        for box in those:
            x1, y1, x2, y2 = (round(float(v)) for v in box)
            cv2.rectangle(pixels, (x1, y1), (x2 - 1, y2 - 1), colour, 1)
    return pixels


if __name__ == "__main__":
    raise SystemExit(main())
