"""What a UNet of Stable Diffusion 1.5 or XL learns: the noise, or the velocity, in latents of its own schedule."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.hub.lessons import Task, shares
from rarefill.generators.hub.stack import Stack
from rarefill.generators.train.sources import Drawn

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


class UNetSubject:
    """Stable Diffusion 1.5 or XL, of 4 channels or of 9."""

    def __init__(self, stack: Stack, *, size: int | None) -> None:
        """Take a pipeline; `size` is that of a window, None for what it was trained for."""
        pipe = stack.pipe
        self._pipe = pipe
        self._device, self._dtype = torch.device(stack.device), pipe.unet.dtype
        self._reduction = int(2 ** (len(pipe.vae.config.block_out_channels) - 1))
        self._kept = pipe.scheduler.alphas_cumprod.float().to(self._device)
        self.size = size or int(pipe.unet.config.sample_size) * self._reduction
        self.targets: str | list[str] = _ATTENTION

    def task(self, windows: Sequence[Drawn], hidden: Sequence[Bits], noise: np.random.Generator) -> Task:
        """As `lessons.Subject`."""
        pixels = torch.from_numpy(np.stack([w.pixels for w in windows])).to(self._device)
        pixels = pixels.movedim(-1, 1).float() / 127.5 - 1
        painted = torch.from_numpy(np.stack(hidden)[:, None]).to(self._device)
        mask = painted[:, :, :: self._reduction, :: self._reduction].float()
        clean = self._encode(pixels)
        times = torch.from_numpy((shares(len(windows), noise) * len(self._kept)).astype(np.int64))
        times = times.to(self._device)
        drawn = torch.from_numpy(noise.standard_normal(clean.shape, dtype=np.float32)).to(self._device)
        kept = self._kept[times][:, None, None, None]
        seen = kept.sqrt() * clean + (1 - kept).sqrt() * drawn
        target = drawn
        if self._pipe.scheduler.config.prediction_type == "v_prediction":
            target = kept.sqrt() * drawn - (1 - kept).sqrt() * clean
        if self._pipe.unet.config.in_channels > clean.shape[1]:
            seen = torch.cat([seen, mask, self._encode(torch.where(painted, 0, pixels))], dim=1)
        return Task(seen, times, target, mask)

    def answer(self, task: Task, said: Sequence[str]) -> Tensor:
        """As `lessons.Subject`."""
        found = self._pipe.encode_prompt(
            prompt=list(said), device=self._device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        extra: dict[str, Any] = {}
        if len(found) > 2:
            side = float(self.size)
            ids = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=self._device, dtype=self._dtype)
            extra["added_cond_kwargs"] = {
                "text_embeds": found[2].to(self._dtype),
                "time_ids": ids.expand(len(said), -1),
            }
        answer: Tensor = self._pipe.unet(
            task.seen.to(self._dtype),
            task.times,
            encoder_hidden_states=found[0].to(self._dtype),
            return_dict=False,
            **extra,
        )[0]
        return answer.float()

    def _encode(self, pixels: Tensor) -> Tensor:
        vae = self._pipe.vae
        mode = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
        latents: Tensor = mode * vae.config.scaling_factor
        return latents
