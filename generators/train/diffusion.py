"""Stage 2: the denoising network, its ControlNet and its text encoder, together, in the latents of stage 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from rarefill.generators.pipelines import Network
from rarefill.generators.train import lessons, loop, shapes, sheets
from rarefill.generators.train.lessons import Lessons
from rarefill.generators.train.pixels import to_pixels
from rarefill.generators.train.shelf import Rgb
from rarefill.generators.train.sources import Source
from rarefill.seeds import Stage, rng

DRAW: Final = 3
MIX: Final = 4
NOISE: Final = 5
MEASURE: Final = 6
"""What is drawn for, first in every seed's key."""
CHUNK: Final = 256
"""Windows that are turned into latents at a time."""
REUSE: Final = 4
"""How often each of them is learned from, with other noise, before the next chunk: encoding twice costs a third of a step."""
GAMMA: Final = 5.0
"""Of min-SNR for velocities, of SNR + 1: else the first step of sampling, from noise alone, would never be trained.

Source: Hang et al. 2023, section 3.4, with the weight of Lin et al. 2024 at an SNR of 0.
"""
OUTSIDE: Final = 0.2
"""What the loss outside the painted area counts: there the answer is an input, and painting throws it away."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The networks that learn, by the names they have in a pipeline's folder."""

    unet: Network
    controlnet: Network
    text_encoder: Network

    def module(self) -> nn.ModuleDict:
        return nn.ModuleDict(
            {"unet": self.unet, "controlnet": self.controlnet, "text_encoder": self.text_encoder}
        )

    def velocity(self, noisy: Tensor, t: Tensor, batch: Lessons, words: Tensor, control: Tensor) -> Tensor:
        """The networks' answer, float32 (N, 4, L, L)."""
        with torch.autocast(noisy.device.type, torch.bfloat16):
            states = self.text_encoder(words).last_hidden_state
            down, middle = self.controlnet(noisy, t, states, control, return_dict=False)
            given = torch.cat([noisy, batch.latent_mask, batch.context], dim=1)
            answer = self.unet(
                given, t, states, down_block_additional_residuals=down, mid_block_additional_residual=middle
            )
        velocity: Tensor = answer.sample.float()
        return velocity


class Painting:
    """The stage: what one step looks at, and samples of held-back windows."""

    def __init__(
        self,
        parts: Parts,
        autoencoder: Network,
        tokenizer: CLIPTokenizer,
        source: Source,
        settings: loop.Settings,
        *,
        size: int = 128,
        chunk: int = CHUNK,
        reuse: int = REUSE,
        measured: int = 64,
        sheet_steps: int = 16,
        device: str = "cpu",
    ) -> None:
        self._parts, self._autoencoder, self._tokenizer = parts, autoencoder.requires_grad_(False), tokenizer
        self._source, self._settings, self._size, self._device = source, settings, size, device
        self._chunk, self._reuse = max(chunk // settings.batch, 1) * settings.batch, reuse
        self._sheet_steps = sheet_steps
        self._signal = shapes.scheduler().alphas_cumprod.to(device)
        self._empty = torch.tensor(tokenizer("", padding="max_length").input_ids, device=device)
        self._made: tuple[int, Lessons] | None = None
        draws = [rng(0, Stage.FIT, MEASURE, n) for n in range(measured)]
        self._held = lessons.make(source, tokenizer, autoencoder, draws, size=size, held=True)

    def stage(self) -> loop.Stage:
        return loop.Stage(self._parts.module(), self.losses, self.sheet)

    def _batch(self, step: int) -> Lessons:
        """A step's windows follow from its number alone: resuming makes their chunk anew."""
        a_pass = self._chunk // self._settings.batch
        number, within = divmod(step, a_pass * self._reuse)
        if self._made is None or self._made[0] != number:
            seed, first = self._settings.seed, number * self._chunk
            draws = [rng(seed, Stage.FIT, DRAW, first + n) for n in range(self._chunk)]
            made = lessons.make(self._source, self._tokenizer, self._autoencoder, draws, size=self._size)
            self._made = (number, made)
        turn, place = divmod(within, a_pass)
        order = rng(self._settings.seed, Stage.FIT, MIX, number, turn).permutation(self._chunk)
        return self._made[1].at(
            order[place * self._settings.batch :][: self._settings.batch].tolist(), self._device
        )

    def losses(self, step: int) -> loop.Losses:
        """Min-SNR weighted error of the velocity, mostly inside the painted area."""
        batch = self._batch(step)
        draw = rng(self._settings.seed, Stage.FIT, NOISE, step)
        n = len(batch.words)
        drop = torch.from_numpy(draw.random(n)).to(self._device)
        # Words alone, the map alone, or both are left out: guidance needs answers without them.
        words = torch.where(((drop < 0.08) | (drop > 0.96))[:, None], self._empty, batch.words)
        control = batch.control.float() / 255 * (drop < 0.92)[:, None, None, None]
        t = _stratified(draw, n, self._settings.power).to(self._device)
        noise = torch.randn(batch.latents.shape, generator=_generator(draw)).to(self._device)
        loss = self._error(batch, words, control, t, noise)
        return {"loss": loss}

    def _error(self, batch: Lessons, words: Tensor, control: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        signal = self._signal[t][:, None, None, None]
        noisy = signal.sqrt() * batch.latents + (1 - signal).sqrt() * noise
        target = signal.sqrt() * noise - (1 - signal).sqrt() * batch.latents
        error = (
            (self._parts.velocity(noisy, t, batch, words, control) - target).square().mean(1, keepdim=True)
        )
        inside = functional.max_pool2d(batch.latent_mask, 3, stride=1, padding=1)
        place = OUTSIDE + (1 - OUTSIDE) * inside
        per_window = (error * place).sum((1, 2, 3)) / place.sum((1, 2, 3))
        snr = self._signal[t] / (1 - self._signal[t])
        weighted: Tensor = (per_window * (snr + 1).clamp(max=GAMMA) / (snr + 1)).mean()
        return weighted

    @torch.no_grad()
    def sheet(self, path: Path) -> Mapping[str, float]:
        """Held-back windows: truth, what is given, the map, and two samples of other seeds, composited."""
        figures = {"held_loss": round(self.held_loss(), 5)}
        shown = self._held.at(range(min(16, len(self._held.words))), self._device)
        columns = [
            _pictures(shown.truth),
            _pictures(shown.truth.where(~shown.hidden, 128)),
            _pictures(shown.control),
        ]
        for seed in range(2):
            painted = sample(
                self._parts, self._autoencoder, shown, self._empty, seed=seed, steps=self._sheet_steps
            )
            columns.append(np.where(_pictures(shown.hidden), painted, columns[0]))
        half = len(shown.words) // 2
        cells = [[column[row] for column in columns] for row in range(2 * half)]
        sheets.write(path, [left + right for left, right in zip(cells[:half], cells[half:], strict=True)])
        return figures

    @torch.no_grad()
    def held_loss(self) -> float:
        """On the same held-back windows with the same noise every time."""
        total, n = 0.0, len(self._held.words)
        for first in range(0, n, 16):
            batch = self._held.at(range(first, min(first + 16, n)), self._device)
            draw = rng(0, Stage.FIT, MEASURE, 1000 + first)
            t = _stratified(draw, len(batch.words), self._settings.power).to(self._device)
            noise = torch.randn(batch.latents.shape, generator=_generator(draw)).to(self._device)
            error = self._error(batch, batch.words, batch.control.float() / 255, t, noise)
            total += float(error) * len(batch.words) / n
        return total


@torch.no_grad()
def sample(
    parts: Parts,
    autoencoder: Network,
    batch: Lessons,
    empty: Tensor,
    *,
    seed: int,
    steps: int = 16,
    guidance_scale: float = 2.0,
) -> Rgb:
    """What the networks paint into a batch, uint8 (N, S, S, 3), whole windows, not composited."""
    scheduler = shapes.scheduler()
    scheduler.set_timesteps(steps)
    noise = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch.latents.shape, generator=noise).to(batch.latents.device)
    control = batch.control.float() / 255
    nothing = empty.expand_as(batch.words)
    for t in scheduler.timesteps:
        times = t.expand(len(latents)).to(latents.device)
        told = parts.velocity(latents, times, batch, batch.words, control)
        untold = parts.velocity(latents, times, batch, nothing, control)
        answer = untold + guidance_scale * (told - untold)
        latents = scheduler.step(answer, t, latents).prev_sample
    decoded = [autoencoder.decode(part).sample for part in latents.split(16)]
    return to_pixels(torch.cat(decoded))


def _pictures(channels_first: Tensor) -> Rgb:
    """(N, C, H, W) as uint8 or bool (N, H, W, C)."""
    return channels_first.movedim(1, -1).cpu().numpy()


def _generator(draw: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(draw.integers(2**62)))


def _stratified(draw: np.random.Generator, n: int, power: float) -> Tensor:
    """int64 (n,): time steps spread evenly over all 1000 from a random start, shuffled. Steadies the loss.

    Powers above 1 move them towards little noise.
    """
    even = ((draw.random() + np.arange(n) / n) % 1) ** power
    return torch.from_numpy(draw.permutation((even * 1000).astype(np.int64)))
