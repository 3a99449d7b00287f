"""One adaptation: a few hundred steps, ended by the clock, by a number of steps, or when held-back loss turns."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from rarefill.errors import ModelError
from rarefill.generators.train import checkpoint, loop
from rarefill.progress import Bar, Progress

STEPS_DONE: Final = "all steps are done"
TIME_UP: Final = "its time was up"
TIME_UP_EARLY: Final = "its time was up before all steps were done, so another run may end elsewhere"
TURNED: Final = "held-back loss has turned"
_BEST: Final = "best"
Optimising = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
"""An optimiser of some parameters, with the highest learning rate."""


def adamw(learning: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """The usual one."""
    return torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast to adapt.

    Attributes:
        minutes: wall clock in all, of calls that were stopped too.
        steps: at most so many; the learning rate then follows from the step alone. None goes by the clock.
        batch: windows a step.
        rate: the highest learning rate.
        warmup: steps until it is reached.
        floor: part of it that is left at the end.
        decay: of the averages.
        measured: windows of what is held back that are looked at.
        looked_from: part of the course from which they are, but for one look before it begins: as long as the rate is high
            their loss goes up and down, and would end a course that has not come to anything yet.
        measure_every: steps between two looks.
        patience: looks without a lower loss, after which it ends.
        save_minutes: wall clock between two checkpoints.
    """

    minutes: float
    steps: int | None = None
    batch: int = 16
    rate: float = 3e-4
    warmup: int = 20
    floor: float = 0.1
    decay: float = 0.99
    measured: int = 64
    looked_from: float = 0.5
    measure_every: int = 25
    patience: int = 5
    save_minutes: float = 2.0

    def part(self, step: int, spent_s: float) -> float:
        """How much of it is over, from 0: by the steps where their number is given, else by the clock."""
        return step / self.steps if self.steps else spent_s / (60 * self.minutes)

    def rate_at(self, step: int, spent_s: float) -> float:
        """A short climb, then half a cosine over the steps, or over the time."""
        part = self.part(step, spent_s)
        warm = min((step + 1) / self.warmup, 1.0)
        return (
            self.rate * warm * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(part, 1))))
        )


class Learner(Protocol):
    """What a step looks at, and what it teaches."""

    def stage(self) -> loop.Stage:
        """Everything that learns."""
        ...

    def losses(self, step: int) -> loop.Losses:
        """A step's losses, from its number; "loss" is the one to go down."""
        ...

    def held_loss(self) -> float:
        """On what is held back, with the same noise every time."""
        ...


@dataclass(slots=True)
class Standing:
    """Where an adaptation stands.

    Attributes:
        step: steps done.
        spent_s: wall clock.
        held: the averages' loss on what is held back: steps done, loss.
        kept: steps behind the best averages; None before the first look.
    """

    step: int = 0
    spent_s: float = 0.0
    held: list[tuple[int, float]] = field(default_factory=list)
    kept: int | None = None

    @property
    def stale(self) -> int:
        """Looks since the best one."""
        return sum(step > (self.kept or 0) for step, _ in self.held)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        steps: done in all.
        kept: steps behind the weights that are kept.
        why: it ended.
        held: the averages' loss on what is held back, at the first look and at the kept one; None without one.
        looks: all of them: steps done, loss.
    """

    steps: int
    kept: int
    why: str
    held: tuple[float, float] | None
    looks: tuple[tuple[int, float], ...]

    def __str__(self) -> str:
        found = f"adapted in {self.steps} steps; {self.why}"
        if self.held is None:
            return f"{found}; nothing was held back, so the last weights are kept"
        before, after = self.held
        if self.kept == 0:
            return f"{found}; no step lowered held-back loss from {before:.4f}, so the model stays as it was"
        return f"{found}; held-back loss went from {before:.4f} to {after:.4f} at step {self.kept}, which is kept"


def run(
    painting: Learner,
    course: Course,
    file: Path,
    *,
    measured: bool,
    begun: float,
    progress: Progress,
    optimizer: Optimising = adamw,
) -> Outcome:
    """Adapt until something ends it, from the checkpoint where there is one.

    Args:
        painting: the networks and what a step looks at.
        course: how long and how fast.
        file: the checkpoint.
        measured: whether something is held back.
        begun: `time.monotonic()` when this call began.
        progress: shows the steps or the seconds.
        optimizer: makes it, instead of the usual.

    Returns:
        How it ended; the networks then hold the best averages, or the last ones where nothing is measured.

    Raises:
        ModelError: the loss is no longer a number, or the checkpoint is broken.
    """
    module = painting.stage().module
    learning = list(module.parameters())
    made = optimizer(learning, course.rate)
    averages = checkpoint.Averages(module, course.decay)
    best: dict[str, Tensor] = {}
    at = Standing()
    if file.exists():
        checkpoint.load(file, module, averages, made)
        at = Standing(**json.loads(checkpoint.notes(file)["standing"]))
        at.held = [(int(step), float(loss)) for step, loss in at.held]
        best = checkpoint.tensors(file, _BEST)
        progress.say(f"going on after step {at.step}, {at.spent_s / 60:.1f} minutes in")
    begun -= at.spent_s
    saved = time.monotonic()

    def look() -> None:
        nonlocal best
        loss = _of_averages(painting, module, averages)
        if at.kept is None or loss < min(held for _, held in at.held):
            at.kept = at.step
            best = {name: value.clone() for name, value in averages.values.items()}
        at.held.append((at.step, loss))

    with _counting(progress, course, at) as bar:
        while True:
            late = course.part(at.step, at.spent_s) >= course.looked_from
            if measured and (late or not at.step) and at.step % course.measure_every == 0 and _unseen(at):
                look()
            why = _ended(at, course)
            if why is not None:
                break
            loss = _learn(painting, at.step, learning, made, course.rate_at(at.step, at.spent_s))
            averages.update(module, at.step)
            at.step += 1
            before, at.spent_s = at.spent_s, time.monotonic() - begun
            if time.monotonic() - saved > 60 * course.save_minutes:
                said = {"standing": json.dumps(asdict(at))}
                more = {f"{_BEST}.{name}": value for name, value in best.items()}
                checkpoint.save(file, at.step, module, averages, made, notes=said, more=more)
                saved = time.monotonic()
            bar.advance(1 if course.steps else int(at.spent_s) - int(before), _note(at, loss))
        if measured and _unseen(at):
            look()
    _keep(module, best or averages.values)
    kept = at.step if at.kept is None else at.kept
    held = (at.held[0][1], dict(at.held)[kept]) if at.held else None
    return Outcome(at.step, kept, why, held, tuple(at.held))


def _learn(
    painting: Learner, step: int, learning: list[nn.Parameter], optimizer: torch.optim.Optimizer, rate: float
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = painting.losses(step)["loss"]
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ModelError(
            f"adapting the model: after {step} steps the loss is no longer a number; "
            "is the base model whole? Else choose another --seed"
        )
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(learning, 1.0)
    optimizer.step()
    return value


def _ended(at: Standing, course: Course) -> str | None:
    if course.steps is not None and at.step >= course.steps:
        return STEPS_DONE
    if at.stale >= course.patience:
        return TURNED
    if at.spent_s >= 60 * course.minutes:
        return TIME_UP if course.steps is None else TIME_UP_EARLY
    return None


def _unseen(at: Standing) -> bool:
    return not at.held or at.held[-1][0] < at.step


def _of_averages(painting: Learner, module: nn.Module, averages: checkpoint.Averages) -> float:
    """Held-back loss of the averaged weights; the weights in training are put back."""
    own = {name: value.detach().clone() for name, value in module.named_parameters()}
    averages.copy_to(module)
    try:
        return painting.held_loss()
    finally:
        _keep(module, own)


@torch.no_grad()
def _keep(module: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in module.named_parameters():
        value.copy_(values[name])


def _note(at: Standing, loss: float) -> str:
    held = f", held back {at.held[-1][1]:.4f}" if at.held else ""
    return f"step {at.step}, loss {loss:.4f}{held}"


@contextmanager
def _counting(progress: Progress, course: Course, at: Standing) -> Iterator[Bar]:
    """Steps where their number is given, else seconds."""
    total, unit = (course.steps, "steps") if course.steps else (round(60 * course.minutes), "seconds")
    done = at.step if course.steps else int(at.spent_s)
    with progress.bar("adapting the model", total, unit) as bar:
        if done:
            bar.advance(done, "continued")
        yield bar
