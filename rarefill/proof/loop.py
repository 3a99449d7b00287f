"""The loop of trainings that happen here: a fixed number of AdamW steps, the moving average after the last one."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rarefill.annotators.train import follow, rate
from rarefill.errors import RunError
from rarefill.progress import Bar

_WEIGHT_DECAY = 0.02
_LONGEST_GRADIENT = 10.0
_REACH = 0.05
"""Of the steps, the part over which the moving average reaches back, however many they are."""


def train(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    bar: Bar,
) -> None:
    """Train, and leave the averaged weights in the model, which then only looks.

    Args:
        model: on its device.
        loss_of: the loss of a step's batch, through the model.
        steps: how many; a linear warm-up, then half a cosine.
        learning_rate: the highest.
        bar: counts the steps.

    Raises:
        RunError: the loss is no number any more.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    decay = 1 - 1 / max(2.0, _REACH * steps)
    model.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate(step, steps)
        loss = loss_of(step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RunError(
                f"training diverged at step {step + 1}: the loss is no number; lower --learning-rate"
            )
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, _LONGEST_GRADIENT)
        optimiser.step()
        follow(average, model, decay, step)
        bar.advance(1, f"loss {value:.2f}")
    model.load_state_dict(average)
    model.eval()
