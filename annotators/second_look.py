"""The second look: what is in a box, asked of a small network that sees the box and little else.

A detector answers what is somewhere about; that half an object stands in a box that claims a whole one it hardly minds. This one
is shown exactly what is claimed, and learns from halves, shifted boxes and noise as well as from objects.
"""

from collections.abc import Callable, Sequence
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rarefill import engine
from rarefill.annotators.patches import PATCH_PX, Patches, patch
from rarefill.annotators.train import follow
from rarefill.geometry import Box, FloatArray
from rarefill.scene import Pixels

BATCH = 48
_CHANNELS = ((3, 24, 2), (24, 48, 1), (48, 64, 2), (64, 64, 1), (64, 96, 2))
_HIDDEN = 64
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 0.05
_EMA = 0.98
_SMOOTHING = 0.02


class Closer(nn.Module):
    """Five convolutions and two layers: 0.4 million parameters."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        blocks: list[nn.Module] = []
        for before, after, stride in _CHANNELS:
            blocks += [
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        side = PATCH_PX // 8
        self.body = nn.Sequential(*blocks, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(_CHANNELS[-1][1] * side * side, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, n_classes + 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, n_classes + 1), the last of none, from (B, 3, PATCH_PX, PATCH_PX)."""
        found: Tensor = self.head(self.body(x))
        return found


def build(n_classes: int, seed: int) -> Closer:
    """A network with random weights that follow from the seed alone. Not for several threads at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Closer(n_classes).to(memory_format=torch.channels_last)


def train(
    model: Closer, patches: Patches, steps: int, *, advance: Callable[[], None], stop: Event
) -> dict[str, Tensor]:
    """The averaged weights after all steps.

    Args:
        model: with its first weights.
        patches: what to learn from.
        steps: how many.
        advance: counts them.
        stop: when set, training ends early and what it returns is of no use.
    """
    model.train()
    average = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=max(2, steps))
    with engine.one_thread():
        for step in range(steps):
            if stop.is_set():
                break
            pixels, labels = patches.batch(step)
            logits = model(_tensor(pixels))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=_SMOOTHING)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            follow(average, model, _EMA, step)
            advance()
    return average


def loaded(weights: dict[str, Tensor], n_classes: int) -> Closer:
    """A network that looks."""
    model = build(n_classes, 0)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


def shares(model: Closer, pixels: Pixels, boxes: Sequence[Box]) -> FloatArray:
    """How likely each box holds each category, float64 (N, n_classes + 1), the last of none; rounded, on one thread."""
    if not boxes:
        return np.empty((0, model.n_classes + 1))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            # One by one: what a box is worth must not depend on what else is asked.
            found = [
                torch.softmax(model(_tensor(patch(pixels, box)[None])), dim=1)[0].tolist() for box in boxes
            ]
    finally:
        torch.set_num_threads(before)
    return np.asarray(np.round(np.array(found), 4), dtype=np.float64)


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """float32 (B, 3, H, W) about 0, of uint8 (B, H, W, 3)."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(torch.float32)
    return x.sub_(128).div_(64)
