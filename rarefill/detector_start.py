"""Train what the checker's detector begins with: it learns to find things at all.

    python -m rarefill.detector_start --pictures PICTURES --out TRAIN --minutes 60
    python -m rarefill.detector_start --pictures PICTURES --out TRAIN --to annotators/weights/detector.safetensors

The first call goes on from its checkpoint; the second writes the file as it is shipped. docs/training.md has the rest.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rarefill import geometry
from rarefill.annotators import detector
from rarefill.annotators.crops import CROP_PX
from rarefill.errors import RarefillError
from rarefill.generators.train import checkpoint, loop, sheets
from rarefill.generators.train.__main__ import smear
from rarefill.generators.train.collage import Collages, Scene
from rarefill.generators.train.record import STATE
from rarefill.generators.train.shelf import open_shelf
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
    parser = argparse.ArgumentParser(
        prog="python -m rarefill.detector_start",
        description="Train what the checker's detector begins with, or write it as it is shipped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--pictures", type=Path, required=True, help="folder of pictures, with SOURCES.csv or without"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="training folder: decoded pictures, checkpoint, log"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--minutes", type=float, help="how long this call may train")
    what.add_argument("--to", type=Path, help="file to write")
    parser.add_argument("--until", type=int, help="stop after so many steps in all")
    parser.add_argument("--steps", type=int, default=12_000, help="length of the learning rate's cosine")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--batch", type=int, default=16, help="scenes a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    try:
        source = Collages(open_shelf(given.pictures, given.out), smear)
        if given.to:
            step = export(source, given.out, given.to)
            print(f"{given.to}: a detector's start after {step} steps")  # noqa: T201
            return 0
        names = ("minutes", "until", "steps", "rate", "batch", "seed")
        chosen: dict[str, Any] = {name: getattr(given, name) for name in names}
        step = train(
            source,
            given.out,
            loop.Settings(**chosen, window=CROP_PX),
            "cuda" if torch.cuda.is_available() else "cpu",
        )
        print(f"{given.out / FOLDER}: {step} steps")  # noqa: T201
    except RarefillError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


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
