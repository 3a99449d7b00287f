"""The network that adds lacking detail to an enlarged picture: residual blocks without normalisation, turned by words."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH: Final = 2
"""It works on patches of 2 x 2 pixels: a quarter of the pixels, four times as much known of each."""
CHANNELS: Final = 4
"""Of what goes in: the colours, and whether they are the scene's."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network's weights fit.

    Attributes:
        width: channels.
        depth: residual blocks; each widens what is seen by 8 pixels.
        words_width: channels of the text encoder's states.
    """

    width: int = 56
    depth: int = 8
    words_width: int = 128


class _Block(nn.Module):
    """Two convolutions beside the way through, the first one scaled and shifted by what is told."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.told = nn.Linear(told, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for values in self.told.parameters():
            nn.init.zeros_(values)
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, hidden: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        found: Tensor = self.second(functional.silu(self.first(hidden) * (1 + scale) + shift))
        return hidden + found


class DetailNetwork(nn.Module):
    """From an enlarged picture and what is told of it to its lacking detail. It begins by adding nothing.

    Source: Lim et al. 2017, Enhanced deep residual networks (EDSR), section 3.1; scaled and shifted as in Perez et al. 2018, FiLM.
    """

    def __init__(self, shape: Shape = Shape()) -> None:
        super().__init__()
        self.shape = shape
        told = 64
        self.into = nn.Conv2d(CHANNELS * PATCH**2, shape.width, 3, padding=1)
        self.tells = nn.Linear(shape.words_width + 2, told)
        self.blocks = nn.ModuleList(_Block(shape.width, told) for _ in range(shape.depth))
        self.out = nn.Conv2d(shape.width, 3 * PATCH**2, 3, padding=1)
        for values in self.out.parameters():
            nn.init.zeros_(values)

    def forward(self, seen: Tensor, known: Tensor, labels: Tensor, states: Tensor) -> Tensor:
        """Guess the detail.

        Args:
            seen: (N, 3, H, W) in -1 to 1, sides even.
            known: (N, 1, H, W), 1 where what is seen is the scene.
            labels: (N,), by how much the picture was enlarged: 0 for not at all, 1 for the most.
            states: (N, W, D) of the text encoder, averaged over the words.

        Returns:
            (N, 3, H, W), in units of what is expected.
        """
        given = functional.pixel_unshuffle(torch.cat([seen, known], dim=1), PATCH)
        entered: Tensor = self.into(given.contiguous(memory_format=torch.channels_last))
        told = torch.cat([states.mean(1), labels[:, None], labels[:, None].square()], dim=1)
        told = functional.silu(self.tells(told))
        hidden = entered
        for block in self.blocks:
            hidden = block(hidden, told)
        return functional.pixel_shuffle(self.out(hidden + entered), PATCH)
