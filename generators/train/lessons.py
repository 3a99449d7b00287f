"""What stage 2 learns from: windows with masks, conditioning and captions, already turned into latents."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.pipelines import Network
from rarefill.generators.train.pixels import to_tensors
from rarefill.generators.train.shapes import REDUCTION
from rarefill.generators.train.sources import Source


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """A batch of windows to paint into, N of them, of S px, with latents of L = S / 4.

    Attributes:
        truth: uint8 (N, 3, S, S).
        silhouette: bool (N, 1, S, S), the object.
        hidden: bool (N, 1, S, S), what is painted: the object and its margin.
        control: uint8 (N, 3, S, S), the ControlNet's map.
        words: int64 (N, W), token ids.
        latents: float32 (N, 4, L, L) of the truth.
        context: float32 (N, 4, L, L) of the window with `hidden` removed.
    """

    truth: Tensor
    silhouette: Tensor
    hidden: Tensor
    control: Tensor
    words: Tensor
    latents: Tensor
    context: Tensor

    @property
    def latent_mask(self) -> Tensor:
        """float32 (N, 1, L, L): every fourth pixel of `hidden`, as diffusers' pipelines reduce a mask."""
        return self.hidden[:, :, ::REDUCTION, ::REDUCTION].float()

    def at(self, rows: Sequence[int], device: str) -> Self:
        """Some of them, on a device."""
        picked = {field.name: getattr(self, field.name)[list(rows)].to(device) for field in fields(self)}
        return replace(self, **picked)


@torch.no_grad()
def make(
    source: Source,
    tokenizer: CLIPTokenizer,
    autoencoder: Network,
    draws: Sequence[np.random.Generator],
    *,
    size: int = 128,
    held: bool = False,
) -> Lessons:
    """One lesson from every random stream; kept on the CPU.

    Args:
        source: where windows come from.
        tokenizer: for the captions.
        autoencoder: already normalised: its latents have mean 0 and deviation 1.
        draws: a stream each.
        size: of a window in pixels.
        held: take windows from what only measures.
    """
    truth, silhouettes, areas, maps, captions = [], [], [], [], []
    for rng in draws:
        drawn = source.draw(rng, size, held=held)
        hidden = conditioning.grown(drawn.mask, drawn.margin_px)
        truth.append(drawn.pixels)
        silhouettes.append(drawn.mask)
        areas.append(hidden)
        maps.append(conditioning.control_map(drawn.pixels, drawn.mask, hidden, redraw=drawn.redraw))
        captions.append(drawn.caption)
    pixels = to_tensors(truth)
    hidden_areas = torch.from_numpy(np.stack(areas))[:, None]
    device = next(autoencoder.parameters()).device
    words = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return Lessons(
        truth=torch.from_numpy(np.stack(truth)).movedim(-1, 1).contiguous(),
        silhouette=torch.from_numpy(np.stack(silhouettes))[:, None],
        hidden=hidden_areas,
        control=torch.from_numpy(np.stack(maps)).movedim(-1, 1).contiguous(),
        words=words,
        latents=encode(autoencoder, pixels.to(device)).cpu(),
        context=encode(autoencoder, torch.where(hidden_areas, 0.0, pixels).to(device)).cpu(),
    )


@torch.no_grad()
def encode(autoencoder: Network, pixels: Tensor) -> Tensor:
    """float32 latents of pictures in -1 to 1, sixteen at a time."""
    kind = pixels.device.type
    with torch.autocast(kind, torch.bfloat16):
        parts = [autoencoder.encode(part).latent_dist.mode().float() for part in pixels.split(16)]
    return torch.cat(parts)
