"""The sampling loop: batches whose windows have their own picture, mask, map, prompt, noise and strength.

It computes what the pipeline's own call computes, and what that cannot: guidance on an interval only, prompts
encoded once, one noise for each window, answers that are not composited.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rarefill.errors import ModelError
from rarefill.generators.compact_conditioning import Bits, Rgb
from rarefill.generators.pipelines import Network, Pipeline

BATCH: Final = 16
"""Windows that go through the embedded model together: beyond it a CPU gains nothing."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a batch is denoised, in diffusers' words.

    Attributes:
        steps: of the whole way from noise to picture; a strength below 1 takes fewer.
        guidance_scale: 1 is off.
        guidance_from: part of the whole way after which guidance begins, and
        guidance_to: ends; outside of it one pass is enough.
        conditioning_scale: weight of the ControlNet.
    """

    steps: int = 12
    guidance_scale: float = 2.0
    guidance_from: float = 0.0
    guidance_to: float = 1.0
    conditioning_scale: float = 1.0

    def guided(self, behind: float) -> bool:
        """Whether a step is guided, by the part of the whole way that lies behind it.

        Source: Kynkäänniemi et al. 2024, section 3: an interval of the noise, wherever the way begins.
        """
        return self.guidance_scale > 1 and self.guidance_from <= behind < self.guidance_to


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """One window as the networks see it, of S px.

    Attributes:
        pixels: uint8 (S, S, 3), the scene; under `hidden` it is only looked at when strength is below 1.
        hidden: bool (S, S), what is painted.
        control: uint8 (S, S, 3), the ControlNet's map; of several ControlNets their maps behind each other.
        prompt: words.
        noise: float32 (C, L, L), standard normal.
        seed: for schedulers that draw noise of their own.
    """

    pixels: Rgb
    hidden: Bits
    control: Rgb
    prompt: str
    noise: NDArray[np.float32]
    seed: int = 0


class Painter(Protocol):
    """What paints canvases: a pipeline of the embedded model's kind, or a published one.

    Attributes:
        size: height and width of its canvases.
        batch: how many it takes at a time.
    """

    size: int
    batch: int

    def noise_shape(self, size: int) -> tuple[int, int, int]:
        """Of a canvas's noise."""
        ...

    def paint(self, canvases: Sequence[Canvas], sampling: Sampling, *, strength: float = 1.0) -> Rgb:
        """Paint a batch; as `Denoiser.paint`."""
        ...


class Denoiser:
    """A pipeline's parts, ready to paint. Safe in several threads: nothing but the prompts' cache changes."""

    batch = BATCH

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.size = int(pipeline.unet.config.sample_size) * pipeline.reduction
        weights = next(pipeline.unet.parameters())
        self._device, self._dtype = weights.device, weights.dtype
        self._controlnet = _without_embedding(pipeline.controlnet)
        self._words: dict[str, Tensor] = {}
        self._draws = "generator" in inspect.signature(pipeline.scheduler.step).parameters
        self._spaced = _takes_times(pipeline.scheduler)

    def noise_shape(self, size: int) -> tuple[int, int, int]:
        """Of a canvas's noise."""
        side = size // self.pipeline.reduction
        return self.pipeline.unet.config.out_channels, side, side

    @torch.no_grad()
    def paint(self, canvases: Sequence[Canvas], sampling: Sampling, *, strength: float = 1.0) -> Rgb:
        """Paint a batch.

        Args:
            canvases: all of one size.
            sampling: steps and guidance.
            strength: 1 begins with noise alone, less with the canvas's own pixels under so much noise.

        Returns:
            uint8 (N, S, S, 3): whole windows; outside `hidden` they are only alike.

        Raises:
            ModelError: the networks answered with what is no number.
        """
        pixels = self._tensor([c.pixels for c in canvases]) / 127.5 - 1
        hidden = torch.from_numpy(np.stack([c.hidden for c in canvases])[:, None]).to(self._device)
        given = torch.cat(
            [
                hidden[:, :, :: self.pipeline.reduction, :: self.pipeline.reduction].to(self._dtype),
                self._encode(torch.where(hidden, 0, pixels)),
            ],
            dim=1,
        ).contiguous(memory_format=torch.channels_last)
        control = self._embedded(self._tensor([c.control for c in canvases]) / 255)
        noise = torch.from_numpy(np.stack([c.noise for c in canvases])).to(self._device)
        noise = noise.contiguous(memory_format=torch.channels_last)
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        times = self._times(scheduler, sampling.steps, strength)
        if strength < 1:
            latents = scheduler.add_noise(self._encode(pixels).float(), noise, times[:1])
        else:
            latents = noise * scheduler.init_noise_sigma
        words, nothing = self.words([c.prompt for c in canvases]), self.words([""] * len(canvases))
        extra: dict[str, Any] = {}
        if self._draws:
            extra["generator"] = [torch.Generator(self._device).manual_seed(c.seed) for c in canvases]
        trained = scheduler.config.num_train_timesteps
        for t in times:
            looked = scheduler.scale_model_input(latents, t)
            if sampling.guided(1 - int(t) / trained):
                both = self._ask(
                    torch.cat([looked, looked]),
                    t,
                    torch.cat([nothing, words]),
                    torch.cat([given, given]),
                    torch.cat([control, control]),
                    sampling,
                )
                untold, told = both.chunk(2)
                answer = untold + sampling.guidance_scale * (told - untold)
            else:
                answer = self._ask(looked, t, words, given, control, sampling)
            latents = scheduler.step(answer, t, latents, **extra, return_dict=False)[0]
        return self._decode(latents)

    def _times(self, scheduler: Any, steps: int, strength: float) -> Tensor:
        """The time steps from a strength to the picture; the scheduler is set to them.

        From below 1 they come closer together towards the picture, where the scheduler can be told: detail is decided there.

        Source: Song et al. 2021, Denoising diffusion implicit models, appendix D.2 (quadratic).
        """
        if strength < 1 and self._spaced:
            taken = max(1, round(steps * strength**0.5))
            even = torch.arange(taken, 0, -1) / taken
            times = (even.square() * strength * scheduler.config.num_train_timesteps).long().clamp(min=1)
            scheduler.set_timesteps(timesteps=times.unique().flip(0).tolist(), device=self._device)
            scheduler.set_begin_index(0)
            found: Tensor = scheduler.timesteps
            return found
        return last_part(scheduler, steps, strength, self._device)[0]

    def words(self, prompts: Sequence[str]) -> Tensor:
        """(N, W, D): each prompt is encoded once."""
        for prompt in prompts:
            if prompt not in self._words:
                tokenizer = self.pipeline.tokenizer
                ids = tokenizer(
                    prompt,
                    padding="max_length",
                    max_length=tokenizer.model_max_length,
                    truncation=True,
                    return_tensors="pt",
                ).input_ids
                self._words[prompt] = self.pipeline.text_encoder(ids.to(self._device))[0]
        return torch.cat([self._words[prompt] for prompt in prompts])

    def _ask(
        self, looked: Tensor, t: Tensor, words: Tensor, given: Tensor, control: Tensor, sampling: Sampling
    ) -> Tensor:
        """The networks' answer, float32."""
        looked = looked.to(self._dtype)
        down, middle = self._controlnet(
            looked,
            t,
            encoder_hidden_states=words,
            controlnet_cond=control,
            conditioning_scale=sampling.conditioning_scale,
            return_dict=False,
        )
        answer: Tensor = self.pipeline.unet(
            torch.cat([looked, given], dim=1),
            t,
            encoder_hidden_states=words,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return answer.float()

    def _embedded(self, control: Tensor) -> Tensor:
        """The ControlNet's view of its maps, which is the same in every step."""
        network = self.pipeline.controlnet
        turned = network.config.controlnet_conditioning_channel_order == "bgr"
        seen: Tensor = network.controlnet_cond_embedding(control.flip(1) if turned else control)
        return seen.flip(1) if turned else seen  # its own call turns what it is given

    def _tensor(self, pictures: Sequence[Rgb]) -> Tensor:
        """(N, 3, S, S) of the networks' dtype, 0 to 255."""
        stacked = torch.from_numpy(np.stack(pictures)).to(self._device)
        return stacked.movedim(-1, 1).to(self._dtype)

    def _encode(self, pixels: Tensor) -> Tensor:
        mode = self.pipeline.vae.encode(pixels).latent_dist.mode()
        latents: Tensor = mode * self.pipeline.vae.config.scaling_factor
        return latents

    def _decode(self, latents: Tensor) -> Rgb:
        latents = (latents / self.pipeline.vae.config.scaling_factor).to(self._dtype)
        pixels = self.pipeline.vae.decode(latents, return_dict=False)[0].float()
        if not bool(torch.isfinite(pixels).all()):
            raise ModelError(
                "the model painted what is no number; "
                "its weights are broken or too large for 16 bits: try another --model"
            )
        eight = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return np.ascontiguousarray(eight.movedim(1, -1).cpu().numpy())


def last_part(scheduler: Any, steps: int, strength: float, device: torch.device | str) -> tuple[Tensor, int]:
    """Set a scheduler to its own steps and to begin where a strength begins; those that are left, and how many are skipped."""
    scheduler.set_timesteps(steps, device=device)
    taken = max(1, min(round(steps * strength), steps)) * scheduler.order
    skipped = max(len(scheduler.timesteps) - taken, 0) if strength < 1 else 0
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    return scheduler.timesteps[skipped:], skipped


def _takes_times(scheduler: Any) -> bool:
    """Whether a scheduler is a solver that takes any time steps. Samplers of distilled models need those that they were taught."""
    told = scheduler.config
    spaced = [
        told.get(f"use_{name}")
        for name in ("karras_sigmas", "lu_lambdas", "exponential_sigmas", "beta_sigmas")
    ]
    solves = (
        "solver_order" in inspect.signature(type(scheduler)).parameters
    )  # a config may hold another one's words
    told_times = "timesteps" in inspect.signature(scheduler.set_timesteps).parameters
    return solves and told_times and not any(spaced)


def _without_embedding(controlnet: Network) -> Network:
    """The same ControlNet, weights and all, that takes its map embedded already."""
    bare = copy.copy(controlnet)
    own = {"controlnet_cond_embedding": torch.nn.Identity()}
    vars(bare)["_modules"] = vars(controlnet)["_modules"] | own  # a copy would share them
    return bare
