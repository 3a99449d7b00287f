"""The sampling loop of Stable Diffusion 1.5 and XL: windows with their own picture, mask, maps, words, noise and strength.

For one window it computes what diffusers' own call computes, from the same noise; a test holds that for every class. What
the call cannot is here: a picture, a mask and a noise for each window of a batch, guidance on an interval, words encoded once.
"""

import copy
import hashlib
import inspect
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from rarefill.errors import ModelError
from rarefill.generators.compact_conditioning import Rgb
from rarefill.generators.denoise import Canvas, Sampling, last_part
from rarefill.generators.hub import asked, guidance, memory
from rarefill.generators.hub.guidance import Likeness
from rarefill.generators.hub.stack import Stack
from rarefill.generators.hub.words import Words
from rarefill.hub_options import HubConfig
from rarefill.presets import Scheduler

_AESTHETIC: Final = (6.0, 2.5)
"""What SDXL's refiner is told of a picture's worth, with words and without; as diffusers' calls have it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What the networks are told of a batch, for each window; with guidance on it stands twice, without words first.

    Attributes:
        words: (N, W, D).
        added: SDXL's pooled words (N, P) and times (N, 5 or 6); None for SD 1.5.
        given: mask and masked latents (N, 1+C, L, L) of an inpainting UNet; None for one that sees latents alone.
        maps: (N, 3, S, S) for each ControlNet's picture.
        cond: (N, T), the guidance that a distilled UNet is told; None for others.
    """

    words: Tensor
    added: dict[str, Tensor] | None
    given: Tensor | None
    maps: tuple[Tensor, ...]
    cond: Tensor | None

    def twice(self, nothing: "_Told") -> "_Told":
        """Both, one behind the other."""
        return _Told(
            torch.cat([nothing.words, self.words]),
            None
            if self.added is None or nothing.added is None
            else {k: torch.cat([nothing.added[k], v]) for k, v in self.added.items()},
            None if self.given is None else torch.cat([self.given, self.given]),
            tuple(torch.cat([m, m]) for m in self.maps),
            None if self.cond is None else torch.cat([self.cond, self.cond]),
        )


class UNetPainter:
    """A pipeline of the UNet family, ready to paint."""

    def __init__(
        self,
        stack: Stack,
        hub: HubConfig,
        *,
        key: str = "",
        cache: Path | None = None,
        likeness: Likeness | None = None,
    ) -> None:
        """Take a pipeline.

        Args:
            stack: the pipeline.
            hub: the recipe's section.
            key: names its text encoders, for the prompts that are kept.
            cache: folder for them; None keeps them in memory alone.
            likeness: CLIP, where the recipe wants its guidance.
        """
        pipe = stack.pipe
        self._likeness, self._pull = likeness, hub.clip_scale
        self.stack, self.batch = stack, hub.paint_batch
        self._pipe, self._negative = pipe, hub.negative_prompt
        self._device = torch.device(stack.device)
        self._dtype, self._vae_dtype = pipe.unet.dtype, pipe.vae.dtype
        self._reduction = int(2 ** (len(pipe.vae.config.block_out_channels) - 1))
        self.size = hub.window_px or int(pipe.unet.config.sample_size) * self._reduction
        self._paints_masked = pipe.unet.config.in_channels > pipe.vae.config.latent_channels
        self._scheduler = chosen(pipe.scheduler, hub.scheduler)
        self._draws = "generator" in inspect.signature(self._scheduler.step).parameters
        self._scales = asked.scales(hub.control_scale, len(stack.controls))
        named = hashlib.sha256(f"{key} {self._dtype}".encode()).hexdigest()
        self._words = Words(self._encode_words, key=named, folder=cache)
        self._room = memory.Room()
        alone = stack.device != "cpu"  # one GPU, and parts that move: one batch at a time
        self._lock: Any = threading.Lock() if alone else nullcontext()

    def noise_shape(self, size: int) -> tuple[int, int, int]:
        """Of a canvas's noise."""
        side = size // self._reduction
        return int(self._pipe.vae.config.latent_channels), side, side

    @torch.no_grad()
    def paint(self, canvases: Sequence[Canvas], sampling: Sampling, *, strength: float = 1.0) -> Rgb:
        """Paint a batch; as `Denoiser.paint`.

        Raises:
            ModelError: the networks answered with what is no number, or memory does not reach.
        """
        with self._lock:
            painted = memory.halving(
                canvases, lambda part: self._paint(part, sampling, strength), self._pipe.vae, self._room
            )
            if self.stack.offload == "model":
                self._pipe.maybe_free_model_hooks()
        return painted

    def _paint(self, canvases: Sequence[Canvas], sampling: Sampling, strength: float) -> Rgb:
        n = len(canvases)
        pixels = self._tensor([c.pixels for c in canvases]) / 127.5 - 1
        hidden = torch.from_numpy(np.stack([c.hidden for c in canvases])[:, None]).to(self._device)
        mask = hidden[:, :, :: self._reduction, :: self._reduction].float()
        noise = torch.from_numpy(np.stack([c.noise for c in canvases])).to(self._device)
        given = None
        if self._paints_masked:
            given = torch.cat([mask, self._encode(torch.where(hidden, 0, pixels))], dim=1).to(self._dtype)
        needs_clean = strength < 1 or not self._paints_masked
        clean = self._encode(pixels).float() if needs_clean else torch.zeros_like(noise)
        scheduler = copy.deepcopy(self._scheduler)
        times, skipped = last_part(scheduler, sampling.steps, strength, self._device)
        latents = (
            scheduler.add_noise(clean, noise, times[:1])
            if strength < 1
            else noise * scheduler.init_noise_sigma
        )
        maps = self._maps(canvases)
        told = self._told([c.prompt for c in canvases], given, maps, sampling, negative=False)
        both = told.twice(self._told([self._negative] * n, given, maps, sampling, negative=True))
        extra: dict[str, Any] = {}
        if self._draws:
            extra["generator"] = [torch.Generator(self._device).manual_seed(c.seed) for c in canvases]
        for step, t in enumerate(times):
            looked = scheduler.scale_model_input(latents, t).to(self._dtype)
            if sampling.guided((step + skipped) / len(scheduler.timesteps)) and told.cond is None:
                untold, answer = self._ask(torch.cat([looked, looked]), t, both).chunk(2)
                answer = untold + sampling.guidance_scale * (answer - untold)
            else:
                answer = self._ask(looked, t, told)
            if self._likeness is not None and self._pull > 0:
                answer = self._pulled(looked.float(), answer, t, [c.prompt for c in canvases])
            latents = scheduler.step(answer, t, latents, **extra, return_dict=False)[0]
            if not self._paints_masked:
                real = clean
                if step < len(times) - 1:
                    real = scheduler.add_noise(clean, noise, times[step + 1 : step + 2])
                latents = (1 - mask) * real + mask * latents
        return self._decode(latents)

    def _ask(self, looked: Tensor, t: Tensor, told: _Told) -> Tensor:
        """The networks' answer, float32."""
        extra: dict[str, Any] = {"added_cond_kwargs": told.added} if told.added is not None else {}
        if told.maps:
            down, middle = self._controlled(looked, t, told, extra)
            extra |= {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        seen = looked if told.given is None else torch.cat([looked, told.given], dim=1)
        answer: Tensor = self._pipe.unet(
            seen, t, encoder_hidden_states=told.words, timestep_cond=told.cond, return_dict=False, **extra
        )[0]
        return answer.float()

    def _pulled(self, looked: Tensor, answer: Tensor, t: Tensor, prompts: Sequence[str]) -> Tensor:
        """An answer bent towards what CLIP finds more like the words."""
        if self._likeness is None:
            return answer
        kind = self._scheduler.config.prediction_type
        kept = self._scheduler.alphas_cumprod.to(self._device)[t.long()].float().clamp(1e-4, 1)
        clean = guidance.predicted(looked, answer, kept, kind)
        pull = self._pull * self._likeness.gradient(self._pixels, clean, prompts)
        return guidance.bent(answer, kept, pull, kind)

    def _controlled(
        self, looked: Tensor, t: Tensor, told: _Told, extra: dict[str, Any]
    ) -> tuple[list[Tensor], Tensor]:
        """What the ControlNets add, summed up."""
        if self.stack.union:
            (net,) = self.stack.nets
            modes = [mode for mode in self.stack.modes if mode is not None]
            kinds = torch.zeros(net.config.num_control_type)
            kinds[modes] = 1
            down, middle = net(
                looked,
                t,
                encoder_hidden_states=told.words,
                controlnet_cond=list(told.maps),
                control_type=kinds.to(looked).expand(len(looked), -1),
                control_type_idx=modes,
                conditioning_scale=list(self._scales),
                return_dict=False,
                **extra,
            )
            return list(down), middle
        sums: tuple[list[Tensor], Tensor] | None = None
        for net, picture, scale in zip(self.stack.nets, told.maps, self._scales, strict=True):
            down, middle = net(
                looked,
                t,
                encoder_hidden_states=told.words,
                controlnet_cond=picture,
                conditioning_scale=scale,
                return_dict=False,
                **extra,
            )
            if sums is None:
                sums = list(down), middle
            else:
                sums = [a + b for a, b in zip(sums[0], down, strict=True)], sums[1] + middle
        if sums is None:
            raise AssertionError("there are maps, so there are ControlNets")
        return sums

    def _told(
        self,
        prompts: Sequence[str],
        given: Tensor | None,
        maps: tuple[Tensor, ...],
        sampling: Sampling,
        *,
        negative: bool,
    ) -> _Told:
        n = len(prompts)
        words, *pooled = (tensor.to(self._device, self._dtype) for tensor in self._words.of(prompts))
        added = None
        if pooled:
            if negative and not self._negative and self._pipe.config.force_zeros_for_empty_prompt:
                words, pooled = torch.zeros_like(words), [torch.zeros_like(pooled[0])]
            side = float(self.size)
            last = [_AESTHETIC[negative]] if self._pipe.config.requires_aesthetics_score else [side, side]
            times = torch.tensor([side, side, 0.0, 0.0, *last], dtype=self._dtype, device=self._device)
            added = {"text_embeds": pooled[0], "time_ids": times.expand(n, -1)}
        cond = None
        width = getattr(self._pipe.unet.config, "time_cond_proj_dim", None)
        if width is not None:
            scale = torch.full((n,), sampling.guidance_scale - 1)
            cond = self._pipe.get_guidance_scale_embedding(scale, embedding_dim=width)
            cond = cond.to(self._device, self._dtype)
        return _Told(words, added, given, maps, cond)

    def _encode_words(self, prompt: str) -> tuple[Tensor, ...]:
        where = self._pipe._execution_device  # noqa: SLF001 (as diffusers' own calls have it, also with parts elsewhere)
        found = self._pipe.encode_prompt(
            prompt=prompt, device=where, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return (found[0],) if len(found) == 2 else (found[0], found[2])

    def _maps(self, canvases: Sequence[Canvas]) -> tuple[Tensor, ...]:
        """A tensor (N, 3, S, S) of 0 to 1 for each ControlNet's picture."""
        if not self.stack.controls:
            return ()
        shown = (self._tensor([c.control for c in canvases]) / 255).to(self._dtype)
        return tuple(shown[:, k : k + 3] for k in range(0, shown.shape[1], 3))

    def _tensor(self, pictures: Sequence[Rgb]) -> Tensor:
        """float32 (N, C, S, S), 0 to 255."""
        return torch.from_numpy(np.stack(pictures)).to(self._device).movedim(-1, 1).float()

    def _encode(self, pixels: Tensor) -> Tensor:
        config = self._pipe.vae.config
        mode = self._pipe.vae.encode(pixels.to(self._vae_dtype)).latent_dist.mode()
        shift, spread = _normal(config, mode)
        latents: Tensor = (mode - shift) * config.scaling_factor / spread
        return latents

    def _decode(self, latents: Tensor) -> Rgb:
        return eight_bits(self._pixels(latents))

    def _pixels(self, latents: Tensor) -> Tensor:
        """(N, 3, S, S), about -1 to 1."""
        config = self._pipe.vae.config
        shift, spread = _normal(config, latents)
        latents = (latents * spread / config.scaling_factor + shift).to(self._vae_dtype)
        found: Tensor = self._pipe.vae.decode(latents, return_dict=False)[0]
        return found


def chosen(saved: Any, name: Scheduler) -> Any:
    """The scheduler that a recipe names, with the checkpoint's own schedule of noise."""
    import diffusers

    classes = {
        "ddim": "DDIMScheduler",
        "dpm": "DPMSolverMultistepScheduler",
        "euler": "EulerDiscreteScheduler",
        "euler-a": "EulerAncestralDiscreteScheduler",
        "unipc": "UniPCMultistepScheduler",
        "lcm": "LCMScheduler",
        "tcd": "TCDScheduler",
    }
    return saved if name == "saved" else getattr(diffusers, classes[name]).from_config(saved.config)


def eight_bits(pixels: Tensor) -> Rgb:
    """(N, 3, S, S) of -1 to 1 as uint8 (N, S, S, 3).

    Raises:
        ModelError: not a number among them.
    """
    pixels = pixels.float()
    if not bool(torch.isfinite(pixels).all()):
        raise ModelError(
            "the model painted what is no number; try --precision float32 or bfloat16, or another checkpoint"
        )
    eight = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(eight.movedim(1, -1).cpu().numpy())


def _normal(config: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation that an autoencoder's latents have by its own account."""
    mean, spread = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or spread is None:
        return torch.zeros(1).to(like), torch.ones(1).to(like)
    shape = (1, -1, 1, 1)
    return torch.tensor(mean).view(shape).to(like), torch.tensor(spread).view(shape).to(like)
