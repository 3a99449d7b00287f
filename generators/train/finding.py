"""The checker's detector learns to find things at all: stage 5. What a user's dataset calls them it learns there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rarefill.annotators import detector
from rarefill.generators.train import loop, sheets
from rarefill.generators.train.collage import Collages, Scene
from rarefill.generators.train.vae import MEASURE, TRAIN
from rarefill.seeds import Stage, rng

_HELD: Final = 64
_SETTLING: Final = 60
"""Batches from which the averaged weights get statistics of their own."""


class Finding:
    """The stage: what one step looks at, and how well things in held-back scenes are found."""

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
            hits += sum(bool((_ious(box, boxes) >= 0.5).any()) for box in scene.boxes)
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


def _ious(box: Any, boxes: Any) -> Any:
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - shared)


def _drawn(scene: Scene, boxes: Any) -> Any:
    pixels = scene.pixels.copy()
    for colour, those in (((255, 255, 255), scene.boxes), ((255, 0, 0), boxes)):
        for box in those:
            x1, y1, x2, y2 = (round(float(v)) for v in box)
            cv2.rectangle(pixels, (x1, y1), (x2 - 1, y2 - 1), colour, 1)
    return pixels
