"""A critic on patches: it learns to tell made detail from true detail, and what it sees is made better."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

WIDTHS: Final = (32, 64, 96)
"""Channels of its three layers. Two of them halve the picture, so that a patch is some 22 px wide."""


class Critic(nn.Module):
    """Scores every patch of a picture: above 0 for true, below for made. The enlarged picture stands beside it."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.layers = nn.Sequential(
            nn.Conv2d(6, first, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(first, second, 4, 2, 1),
            nn.GroupNorm(8, second),
            nn.LeakyReLU(0.2),
            nn.Conv2d(second, third, 3, 1, 1),
            nn.GroupNorm(8, third),
            nn.LeakyReLU(0.2),
            nn.Conv2d(third, 1, 3, 1, 1),
        )

    def forward(self, pixels: Tensor, coarse: Tensor) -> Tensor:
        """(N, 1, H / 4, W / 4) from two (N, 3, H, W) in -1 to 1."""
        scores: Tensor = self.layers(torch.cat([pixels, coarse], dim=1))
        return scores


def losses(critic: Critic, truth: Tensor, made: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """What the critic learns from, and what the maker learns from it; the one moves nothing of the other.

    Args:
        critic: scores patches.
        truth: (N, 3, H, W) in -1 to 1.
        made: the same, with a gradient.
        coarse: the same, enlarged.

    Returns:
        The critic's loss and the maker's, relativistic: how much truer the one looks than the other.

    Source: Jolicoeur-Martineau 2019, The relativistic discriminator, section 4; with least squares.
    """
    true, false = critic(truth, coarse), critic(made.detach(), coarse)
    own = functional.mse_loss(true - false.mean(), torch.ones_like(true))
    own = own + functional.mse_loss(false - true.mean(), -torch.ones_like(false))
    fixed = {name: value.detach() for name, value in critic.named_parameters()}
    seen = functional_call(critic, fixed, (made, coarse))
    makers = functional.mse_loss(seen - true.mean().detach(), torch.ones_like(seen))
    return own, makers
