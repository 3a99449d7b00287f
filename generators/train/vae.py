"""Stage 1: the autoencoder, from windows of 64 px. Its decoder alone can learn on once the latents are fixed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from rarefill.generators.pipelines import Network
from rarefill.generators.train import loop, sheets, windows
from rarefill.generators.train.pixels import to_pixels, to_tensors
from rarefill.generators.train.shelf import Shelf
from rarefill.seeds import Stage, rng

TRAIN: Final = 1
MEASURE: Final = 2
"""What is drawn for, first in every seed's key."""
KL_WEIGHT: Final = 2e-5
EDGE_WEIGHT: Final = 0.5
LATENT_NOISE: Final = 0.05
"""Deviation of what a painted latent is off by, to which a decoder that learns alone gets used."""


def edge_loss(painted: Tensor, truth: Tensor) -> Tensor:
    """L1 of neighbouring pixels' differences at three scales: sharpness without a network that judges it."""
    total = painted.new_zeros(())
    error = painted - truth
    for scale in range(3):
        if scale:
            error = functional.avg_pool2d(error, 2)
        total = total + (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 3
    return total


def psnr(painted: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB: the mean over windows, values in -1 to 1."""
    error = (painted.clamp(-1, 1) - truth).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / error.clamp_min(1e-8))).mean())


class Autoencoding:
    """The stage: what one step looks at, and how well held-back pictures come through."""

    def __init__(
        self,
        model: Network,
        shelf: Shelf,
        settings: loop.Settings,
        *,
        decoder_alone: bool = False,
        size: int = 64,
        measured: int = 48,
        device: str = "cpu",
    ) -> None:
        if decoder_alone:
            model.encoder.requires_grad_(False)
            model.quant_conv.requires_grad_(False)
        self._decoder_alone = decoder_alone
        self._model, self._shelf, self._settings = model, shelf, settings
        self._size, self._device = size, device
        self._held = some(shelf, measured, 0, size=2 * size, held=True).to(device)

    def stage(self) -> loop.Stage:
        return loop.Stage(self._model, self.losses, self.sheet)

    def losses(self, step: int) -> loop.Losses:
        """L1 and edges of what comes back, and a little of the KL divergence, which bounds the latents."""
        settings = self._settings
        draws = (rng(settings.seed, Stage.FIT, TRAIN, step, n) for n in range(settings.batch))
        batch = [windows.draw(self._shelf, draw, self._size).pixels for draw in draws]
        truth = to_tensors(batch).to(self._device, memory_format=torch.channels_last)
        noise = torch.Generator(self._device).manual_seed(settings.seed * 1_000_003 + step)
        with torch.autocast(self._device, torch.bfloat16):
            posterior = self._model.encode(truth).latent_dist
            latents = posterior.sample(noise)
            if self._decoder_alone:
                latents = latents + LATENT_NOISE * torch.randn(
                    latents.shape, generator=noise, device=self._device
                )
            painted = self._model.decode(latents).sample.float()
        plain = functional.l1_loss(painted, truth)
        edges = edge_loss(painted, truth)
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return {
            "loss": plain + EDGE_WEIGHT * edges + KL_WEIGHT * divergence,
            "l1": plain,
            "edges": edges,
            "kl": divergence,
        }

    @torch.no_grad()
    def sheet(self, path: Path) -> Mapping[str, float]:
        """Held-back windows above what comes back of them."""
        back = reconstruct(self._model, self._held)
        truth, painted = to_pixels(self._held), to_pixels(back)
        starts = range(0, min(len(truth), 24) - 7, 8)
        rows = [list(kind[at : at + 8]) for at in starts for kind in (truth, painted)]
        sheets.write(path, rows)
        return {
            "held_psnr": round(psnr(back, self._held), 3),
            "held_edges": float(edge_loss(back, self._held)),
        }


def some(shelf: Shelf, n: int, first: int, *, size: int = 128, held: bool = False) -> Tensor:
    """The same n windows every time, float32 (n, 3, size, size) in -1 to 1; another `first`, others."""
    draws = (rng(0, Stage.FIT, MEASURE, first + number) for number in range(n))
    return to_tensors([windows.draw(shelf, draw, size, held=held).pixels for draw in draws])


@torch.no_grad()
def reconstruct(model: Network, truth: Tensor) -> Tensor:
    """There and back without noise, in batches of 16; float32."""
    parts = [model.decode(model.encode(part).latent_dist.mode()).sample.float() for part in truth.split(16)]
    return torch.cat(parts)


@torch.no_grad()
def normalise(model: Network, truth: Tensor) -> None:
    """Give latents mean 0 and deviation 1 per channel, and no noise, by changing the two 1 x 1 convolutions.

    After it `scaling_factor` is 1 and encoding is deterministic; pictures come through as before.

    Args:
        model: changed in place.
        truth: float32 (N, 3, H, W) in -1 to 1: what the statistics are taken from.
    """
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in truth.split(16)]).float()
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = model.quant_conv, model.post_quant_conv
    n = len(mean)
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation[None, :, None, None]
    into.weight[:n] /= deviation[:, None, None, None]
    into.bias[:n] = (into.bias[:n] - mean) / deviation
    into.weight[n:] = 0
    into.bias[n:] = -30  # the logarithm of the variance: diffusers clamps it here
