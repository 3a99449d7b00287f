"""Between pictures of 8 bits and what networks read."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rarefill.generators.train.shelf import Rgb


def to_tensor(pixels: Rgb) -> Tensor:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) in -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3).float() / 127.5 - 1


def to_tensors(windows: Sequence[Rgb]) -> Tensor:
    """Several of one size, float32 (N, 3, H, W)."""
    return to_tensor(np.stack(windows))


def to_pixels(values: Tensor) -> Rgb:
    """float (..., 3, H, W) in -1 to 1 to uint8 (..., H, W, 3)."""
    scaled = ((values.float().clamp(-1, 1) + 1) * 127.5).round()
    return np.ascontiguousarray(scaled.movedim(-3, -1).to(torch.uint8).cpu().numpy())
