"""One model's training: from the shipped start, stoppable at any moment, the same bytes however often it was stopped."""

import math
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from rarefill import engine, files
from rarefill.annotators import detector
from rarefill.annotators.samples import Batch, Sampler

_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.02
_WARM_UP = 0.08  # of the steps
_LONGEST_GRADIENT = 10.0
_EMA = 0.985
_CHECKPOINTS = 14  # in the whole of a training, at least a step apart

Tensors = dict[str, Tensor]


class Training:
    """A model, its running average and its optimiser: all that a checkpoint holds."""

    def __init__(self, n_classes: int, steps: int, seed: int) -> None:
        self.model = detector.build(n_classes, seed).train()
        self.average: Tensors = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.steps, self.step = steps, 0
        decayed: list[nn.Parameter] = [p for p in self.model.parameters() if p.ndim > 1]
        others: list[nn.Parameter] = [p for p in self.model.parameters() if p.ndim <= 1]
        self._parameters = decayed + others
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=_LEARNING_RATE,
            weight_decay=_WEIGHT_DECAY,
        )

    def learn(self, batch: Batch) -> float:
        """One step; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * rate(self.step, self.steps)
        crops = detector.images(batch.crops)
        targets = [
            {"boxes": torch.from_numpy(boxes).reshape(-1, 4), "labels": torch.from_numpy(labels)}
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses = self.model(list(crops), targets)
        loss = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, _LONGEST_GRADIENT)
        self.optimiser.step()
        self.step += 1
        follow(self.average, self.model, _EMA, self.step)
        return float(loss.detach())

    def state(self) -> Tensors:
        """Everything, as tensors."""
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        out |= {f"average.{k}": v for k, v in self.average.items()}
        for i, parameter in enumerate(self._parameters):
            held = self.optimiser.state.get(parameter, {})
            out |= {f"optimiser.{i}.{k}": v for k, v in held.items()}
        return out | {"step": torch.tensor(self.step)}

    def restore(self, state: Tensors) -> None:
        """Go on where a checkpoint stood."""
        self.model.load_state_dict(_under(state, "model."))
        self.average = _under(state, "average.")
        for i, parameter in enumerate(self._parameters):
            self.optimiser.state[parameter] = _under(state, f"optimiser.{i}.")
        self.step = int(state["step"])


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train(
    training: Training,
    sampler: Sampler,
    *,
    checkpoint: Path,
    advance: Callable[[int, str], None],
    stop: Event,
) -> Tensors:
    """The averaged weights of a model after all its steps.

    Args:
        training: at its first step.
        sampler: what to learn from.
        checkpoint: where the training stands is kept here until the caller removes it.
        advance: counts the steps, with a note; what is restored counts at once.
        stop: when set, training ends early and what it returns is of no use.
    """
    held = read(checkpoint)
    if held is not None:
        training.restore(held)
        advance(training.step, "continued")
    with engine.one_thread():
        while training.step < training.steps and not stop.is_set():
            loss = training.learn(sampler.batch(training.step))
            if training.step % max(1, training.steps // _CHECKPOINTS) == 0:
                write(checkpoint, training.state())
            advance(1, f"loss {loss:.2f}")
    return training.average


def read(path: Path) -> Tensors | None:
    """Tensors of a safetensors file; None where it is absent or torn, which costs a refit and nothing else."""
    try:
        return from_bytes(path.read_bytes())
    except (FileNotFoundError, SafetensorError):
        return None


def write(path: Path, tensors: Tensors) -> None:
    """Write tensors as safetensors, aside and renamed."""
    files.write_bytes(path, to_bytes({k: v.detach().contiguous() for k, v in tensors.items()}))


def _under(state: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@torch.no_grad()
def follow(average: Tensors, model: nn.Module, decay: float, step: int) -> None:
    """Move a model's running averages, in place, one step on: by its state's names. The first steps count for more."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
