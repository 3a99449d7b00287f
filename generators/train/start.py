"""A good first guess for the autoencoder: principal components of 4 x 4 patches in, smooth enlargement out.

From random weights the first hours go by until colour is found at all. Here every residual branch begins at zero,
and the path beside the branches carries a linear code from the first step: what is learned comes on top.
"""

from typing import Any, Final

import torch
from torch import Tensor

from rarefill.generators.pipelines import Network

LIFT: Final = 8.0
"""A constant beside each signal in its normalisation group: the group's deviation then hardly depends on the picture."""
QUIET: Final = -7.0
"""Logarithm of the latents' first variance."""


@torch.no_grad()
def linear(model: Network, truth: Tensor) -> None:
    """Set an untrained autoencoder of three blocks to the linear code of these pictures, in place.

    Args:
        model: diffusers' AutoencoderKL as `shapes.autoencoder` makes it.
        truth: float32 (N, 3, H, W) in -1 to 1.
    """
    mean, components = principal(truth, model.config.latent_channels)
    for block in model.modules():
        if type(block).__name__ == "ResnetBlock2D":
            block.conv2.weight.zero_()
            block.conv2.bias.zero_()
    _encoder(model, mean, components)
    _decoder(model, mean, components)


def principal(truth: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Mean (48,) of the patches of 4 x 4 pixels, and their first components (n, 48), scaled to their deviation."""
    patches = _halved(_halved(truth)).movedim(1, -1).flatten(0, 2)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    return mean, (vectors[:, -n:] * values[-n:].sqrt()).T.flip(0)


def _halved(pixels: Tensor) -> Tensor:
    """Four neighbours become channels, in the order in which `_unfold` writes its taps."""
    return torch.cat([pixels[:, :, y::2, x::2] for y in range(2) for x in range(2)], dim=1)


def _unfold(convolution: Any, n: int) -> None:
    """A convolution of stride 2 that lays the first n channels of four neighbours side by side."""
    convolution.weight[: 4 * n] = 0
    convolution.bias[: 4 * n] = 0
    for tap in range(4):
        for channel in range(n):
            convolution.weight[tap * n + channel, channel, tap // 2, tap % 2] = 1


def _encoder(model: Network, mean: Tensor, components: Tensor) -> None:
    encoder = model.encoder
    n = len(components)
    encoder.conv_in.weight[:3] = 0
    encoder.conv_in.bias[:3] = 0
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1
    first, second, third = encoder.down_blocks
    _unfold(first.downsamplers[0].conv, 3)
    widening = second.resnets[0].conv_shortcut
    widening.weight[:12] = 0
    widening.bias[:12] = 0
    widening.weight[:12, :12, 0, 0] = torch.eye(12)
    _unfold(second.downsamplers[0].conv, 12)
    # The pseudo-inverse of unit-variance components: a latent is a patch's coordinate, of deviation 1.
    coordinates = components / components.square().sum(1, keepdim=True)
    step = 2 * third.resnets[0].conv_shortcut.weight.shape[0] // encoder.conv_norm_out.num_groups
    signal = torch.zeros(n, third.resnets[0].conv_shortcut.weight.shape[1])
    signal[:, :48] = coordinates
    _paired(third.resnets[0].conv_shortcut, encoder, signal, -coordinates @ mean, step)
    encoder.conv_out.bias[n:] = QUIET
    model.quant_conv.weight.zero_()
    model.quant_conv.bias.zero_()
    model.quant_conv.weight[:, :, 0, 0] = torch.eye(2 * n)


def _decoder(model: Network, mean: Tensor, components: Tensor) -> None:
    decoder = model.decoder
    n = len(components)
    model.post_quant_conv.weight[:, :, 0, 0] = torch.eye(n)
    model.post_quant_conv.bias.zero_()
    decoder.conv_in.weight[:3] = 0
    decoder.conv_in.weight[:3, :, 1, 1] = components.reshape(n, 16, 3).mean(1).T
    decoder.conv_in.bias[:3] = mean.reshape(16, 3).mean(0)
    first, second, third = decoder.up_blocks
    tent = torch.tensor([1.0, 2.0, 1.0]) / 4
    for block in (first, second):
        convolution = block.upsamplers[0].conv
        convolution.weight[:3] = 0
        convolution.bias[:3] = 0
        for channel in range(3):
            convolution.weight[channel, channel] = tent[:, None] * tent[None, :]
    narrowing = second.resnets[0].conv_shortcut
    narrowing.weight[:3] = 0
    narrowing.bias[:3] = 0
    narrowing.weight[:3, :3, 0, 0] = torch.eye(3)
    last = third.resnets[0].conv_shortcut
    signal = torch.eye(3, last.weight.shape[1])
    _paired(last, decoder, signal, torch.zeros(3), last.weight.shape[0] // decoder.conv_norm_out.num_groups)


def _paired(convolution: Any, side: Any, signal: Tensor, offset: Tensor, step: int) -> None:
    """Bring signals unchanged through normalisation and SiLU: x goes as the pair x, -x.

    silu(x) - silu(-x) = x exactly; with two large constants in the group, the group's deviation is theirs.

    Args:
        convolution: the 1 x 1 convolution that widens the path to the normalisation's channels.
        side: encoder or decoder, with `conv_norm_out` and `conv_out`.
        signal: (n, channels in): what each pair carries.
        offset: (n,): added to it.
        step: channels from one pair to the next, a multiple of the group's size.
    """
    group = convolution.weight.shape[0] // side.conv_norm_out.num_groups
    side.conv_out.weight *= 0.1
    for row in range(len(signal)):
        at = row * step
        convolution.weight[at : at + group] *= 0.5
        convolution.weight[at : at + 4] = 0
        convolution.weight[at, :, 0, 0] = signal[row]
        convolution.weight[at + 1, :, 0, 0] = -signal[row]
        convolution.bias[at : at + 4] = torch.tensor([float(offset[row]), -float(offset[row]), LIFT, -LIFT])
        side.conv_norm_out.weight[at : at + 2] = LIFT * (2 / group) ** 0.5
        side.conv_out.weight[row] = 0
        side.conv_out.weight[row, at, 1, 1] = 1
        side.conv_out.weight[row, at + 1, 1, 1] = -1
        side.conv_out.bias[row] = 0
