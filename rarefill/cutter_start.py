"""Train what cuts objects out of their boxes.

    python -m rarefill.cutter_start --pictures PICTURES --out TRAIN --minutes 60
    python -m rarefill.cutter_start --pictures PICTURES --out TRAIN --to rarefill/weights/cutter.safetensors

The first call goes on from its checkpoint; the second writes the file as it is shipped. docs/training.md has the rest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rarefill import cutter, start_command
from rarefill.generators.train import checkpoint, loop, sheets
from rarefill.generators.train.__main__ import smear
from rarefill.generators.train.figures import Figure, Figures
from rarefill.generators.train.record import STATE
from rarefill.generators.train.vae import MEASURE, TRAIN
from rarefill.seeds import Stage, rng

FOLDER: Final = "cutter"
"""Of the training folder."""
_HELD: Final = 96
_EMPTY: Final = 0.01
"""Share of the square below which nothing was found."""


class Cutting:
    """What one step looks at, and how well held-back objects are cut out."""

    def __init__(
        self,
        model: cutter.Cutter,
        source: Figures,
        settings: loop.Settings,
        *,
        held: int = _HELD,
        device: str = "cpu",
    ) -> None:
        self._model, self._source, self._settings, self._device = model, source, settings, device
        draws = (rng(0, Stage.FIT, MEASURE, 50_000 + n) for n in range(held))
        self._held = [source.draw(draw, settings.window, held=True) for draw in draws]

    def stage(self) -> loop.Stage:
        return loop.Stage(self._model, self.losses, self.sheet)

    def losses(self, step: int) -> loop.Losses:
        """Cross entropy and the share of the union that is missed (soft Jaccard), of each object alike."""
        settings = self._settings
        draws = (rng(settings.seed, Stage.FIT, TRAIN, step, n) for n in range(settings.batch))
        figures = [self._source.draw(draw, settings.window) for draw in draws]
        truth = torch.from_numpy(np.stack([f.mask for f in figures]))[:, None].float().to(self._device)
        self._model.train()
        with torch.autocast(self._device, torch.bfloat16):
            logits = self._model(_seen(figures).to(self._device)).float()
        bits = nn.functional.binary_cross_entropy_with_logits(logits, truth)
        found = torch.sigmoid(logits)
        both, either = (found * truth).sum((1, 2, 3)), (found + truth - found * truth).sum((1, 2, 3))
        missed = (1 - (both + 1) / (either + 1)).mean()
        return {"loss": bits + missed, "bits": bits, "missed": missed}

    @torch.no_grad()
    def sheet(self, path: Path) -> Mapping[str, float]:
        """Held-back objects: what is shown, what is there, what is found."""
        self._model.eval()
        shown: list[Any] = []
        overlaps: list[float] = []
        empty: list[bool] = []
        for figure in self._held:
            found = torch.sigmoid(self._model(_seen([figure]).to(self._device)))[0, 0].float().cpu().numpy()
            cut = found >= 0.5
            if figure.mask.any():
                overlaps.append(float((cut & figure.mask).sum() / (cut | figure.mask).sum()))
            else:
                empty.append(bool(cut.mean() < _EMPTY))
            shown += [_boxed(figure), _lit(figure.pixels, figure.mask), _lit(figure.pixels, cut)]
        sheets.write(path, [shown[at : at + 12] for at in range(0, min(len(shown), 144), 12)])
        return {
            "held_iou": round(float(np.mean(overlaps)), 4),
            "held_iou_median": round(float(np.median(overlaps)), 4),
            "held_good": round(float(np.mean(np.array(overlaps) >= 0.8)), 4),
            "held_nothing": round(float(np.mean(empty)), 4) if empty else 1.0,
        }


def train(source: Figures, folder: Path, settings: loop.Settings, device: str = "cpu") -> int:
    """Train until the clock or the step count says stop, from the checkpoint where there is one. Returns all steps done."""
    model = cutter.build(settings.seed).to(device)
    return loop.run(Cutting(model, source, settings, device=device).stage(), folder / FOLDER, settings)


def export(folder: Path, to: Path) -> int:
    """Write the averaged weights as they are shipped. Returns their steps.

    Raises:
        ModelError: nothing was trained in the folder.
    """
    model = cutter.build(0)
    step = checkpoint.load_averages(folder / FOLDER / STATE, model)
    cutter.save(to, model, step)
    return step


def main(words: list[str] | None = None) -> int:
    """Train or export. Returns the exit code."""
    return start_command.run(
        start_command.Start(
            "rarefill.cutter_start",
            "what cuts objects out of their boxes",
            FOLDER,
            cutter.SIDE_PX,
            10_500,
            lambda shelf, out, settings, device: train(Figures(shelf, smear), out, settings, device),
            lambda _, out, to: export(out, to),
        ),
        words,
    )


def _seen(figures: list[Figure]) -> Tensor:
    return cutter.seen(np.stack([f.pixels for f in figures]), np.stack([f.box for f in figures])).to(
        memory_format=torch.channels_last
    )


def _boxed(figure: Figure) -> Any:
    pixels = figure.pixels.copy()
    x1, y1, x2, y2 = (round(float(v)) for v in figure.box)
    return cv2.rectangle(pixels, (x1, y1), (x2 - 1, y2 - 1), (255, 255, 255), 1)


def _lit(pixels: Any, mask: Any) -> Any:
    return np.where(mask[..., None], pixels, pixels // 4)


if __name__ == "__main__":
    raise SystemExit(main())
