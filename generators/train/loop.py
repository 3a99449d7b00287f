"""One training run, whichever the stage: steps, learning rate, averages, log, checkpoints, sheets."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rarefill.errors import ModelError
from rarefill.generators.train import checkpoint

Losses = Mapping[str, Tensor]
"""Scalars by name; `loss` is what is stepped on, the others are for the log."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how fast to train.

    Attributes:
        minutes: wall clock for this call; the next call goes on where this one stops.
        until: stop after this many steps in all; None goes by the clock alone.
        steps: the cosine's length in steps; past it the learning rate stays at its floor.
        rate: the highest learning rate.
        warmup: steps until the highest rate is reached.
        decay: of the averages.
        batch: windows a step.
        window: side of a window in pixels: stage 2 learns four times as many small ones in the same time, so begins there.
        power: of the evenly drawn part of the noise's time steps: above 1, stage 2 learns more of little noise.
        seed: 0 or above; a run's pictures and noise follow from it and from the step.
        log_every: steps between two lines of `log.jsonl`.
        save_minutes: wall clock between two checkpoints.
        sheet_minutes: wall clock between two sample sheets.
    """

    minutes: float
    until: int | None = None
    steps: int = 100_000
    rate: float = 3e-4
    warmup: int = 100
    decay: float = 0.999
    batch: int = 16
    window: int = 128
    power: float = 1.0
    seed: int = 0
    log_every: int = 50
    save_minutes: float = 4.0
    sheet_minutes: float = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What one stage brings to the loop.

    Attributes:
        module: everything that learns.
        losses: one step's losses, from its number.
        sheet: draws samples of the averaged weights, writes a PNG, returns figures for the log.
    """

    module: nn.Module
    losses: Callable[[int], Losses]
    sheet: Callable[[Path], Mapping[str, float]]


def learning_rate(step: int, settings: Settings, since: int = 0) -> float:
    """A linear warm-up from the step at which the optimizer began, then half a cosine down to a twentieth."""
    warm = min((step - since + 1) / settings.warmup, 1.0)
    done = min(max(step - settings.warmup, 0) / max(settings.steps - settings.warmup, 1), 1.0)
    return settings.rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def run(stage: Stage, folder: Path, settings: Settings) -> int:
    """Train until the clock or the step count says stop, from the folder's checkpoint where there is one.

    Returns:
        The number of steps done in all. `folder` then holds `state.safetensors`, `log.jsonl` and `sheets/`;
        the module holds the averaged weights.
    """
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    learning = [value for value in stage.module.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    averages = checkpoint.Averages(stage.module, settings.decay)
    state = folder / "state.safetensors"
    step = checkpoint.load(state, stage.module, averages, optimizer) if state.exists() else 0
    held = checkpoint.notes(state) if step else {}
    since = int(held.get("since", 0))  # weights that were taken up come without moments
    windows = int(held.get("windows", step * settings.batch))
    begun = saved = drawn = time.monotonic()
    meter = _Meter(folder / "log.jsonl", settings, step, since)

    def save() -> None:
        said = {"since": str(since), "windows": str(windows), "settings": json.dumps(asdict(settings))}
        checkpoint.save(state, step, stage.module, averages, optimizer, notes=said)

    while not _over(step, begun, settings):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings, since)
        losses = stage.losses(step)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        averages.update(stage.module, step)
        step, windows = step + 1, windows + settings.batch
        meter.count(step, losses)
        now = time.monotonic()
        if now - saved > 60 * settings.save_minutes:
            save()
            saved = time.monotonic()
        if now - drawn > 60 * settings.sheet_minutes:
            meter.note(step, _sheet(stage, averages, folder, step))
            drawn = time.monotonic()
    save()
    meter.note(step, _sheet(stage, averages, folder, step))
    averages.copy_to(stage.module)
    return step


def _over(step: int, begun: float, settings: Settings) -> bool:
    if settings.until is not None and step >= settings.until:
        return True
    return time.monotonic() - begun > 60 * settings.minutes


def _sheet(stage: Stage, averages: checkpoint.Averages, folder: Path, step: int) -> Mapping[str, float]:
    """Samples of the averaged weights; the weights in training are put back."""
    own = {name: value.detach().clone() for name, value in stage.module.named_parameters()}
    averages.copy_to(stage.module)
    try:
        return stage.sheet(folder / "sheets" / f"{step:07d}.png")
    finally:
        with torch.no_grad():
            for name, value in stage.module.named_parameters():
                value.copy_(own[name])


class _Meter:
    """Means over an interval, one line of JSON each."""

    def __init__(self, path: Path, settings: Settings, step: int, since: int) -> None:
        self._path, self._settings, self._begun = path, settings, since
        self._sums: dict[str, float] = {}
        self._since, self._from = time.monotonic(), step

    def count(self, step: int, losses: Losses) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        if not math.isfinite(self._sums["loss"]):
            raise ModelError(
                f"step {step}: the loss is no longer a number; go on from the checkpoint with a lower --rate"
            )
        if step % self._settings.log_every == 0:
            spent, n = time.monotonic() - self._since, step - self._from
            means = {name: round(value / n, 5) for name, value in self._sums.items()}
            speed = round(n * self._settings.batch / max(spent, 1e-9), 2)
            rate = learning_rate(step, self._settings, self._begun)
            self.note(step, {**means, "rate": rate, "images_s": speed})
            self._sums, self._since, self._from = {}, time.monotonic(), step

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            file.write(json.dumps({"step": step, "time": stamp, **figures}) + "\n")
