"""Stage 4: super-resolution. Windows are made small and soft as painting makes them, and the detail that this cost is learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from rarefill.generators.pipelines import Network
from rarefill.generators.train import loop, shapes, sheets, vae, windows
from rarefill.generators.train.pixels import to_pixels, to_tensors
from rarefill.generators.train.shapes import REDUCTION
from rarefill.generators.train.shelf import Rgb, Shelf
from rarefill.generators.upscale import Settings, Upscaler, enlarged, label, missing, spread
from rarefill.seeds import Stage, rng

DRAW: Final = 21
MIX: Final = 22
NOISE: Final = 23
MEASURE: Final = 24
"""What is drawn for, first in every seed's key."""
CHUNK: Final = 256
"""Windows that are made small at a time: those of one size go through the autoencoder together."""
REUSE: Final = 4
"""How often each of them is learned from, with other noise: going through the autoencoder costs half a step."""
SHRINK: Final = (1.0, 3.0)
"""A window's pixel stands for so many of the picture's: never less than one, or there would be no detail in it."""
SOFT: Final = 0.75
"""Share of small pictures that come out of the autoencoder, as painted ones do."""
BLURRED: Final = 0.3
"""Share of the others that are blurred."""
LATENT_NOISE: Final = 0.15
"""The largest deviation of noise on their latents: painted latents are never exact."""
DROPPED: Final = 0.1
"""Share of windows whose words are left out."""
HEAVIEST: Final = 5.0
"""Bound of a time step's weight. The weight is that of velocities: 1 over the noise's variance."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A window and what painting would have made of it.

    Attributes:
        truth: uint8 (S, S, 3) RGB.
        small: uint8 (s, s, 3), s from S / 4 to S.
        caption: words for it, possibly none.
    """

    truth: Rgb
    small: Rgb
    caption: str


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """A batch of N windows of S px.

    Attributes:
        truth: uint8 (N, 3, S, S).
        coarse: uint8 (N, 3, S, S), the small pictures enlarged.
        factors: float32 (N,), by how much.
        states: float32 (N, W, D) of the captions.
    """

    truth: Tensor
    coarse: Tensor
    factors: Tensor
    states: Tensor

    def at(self, rows: Sequence[int], device: str) -> Self:
        """Some of them, on a device."""
        picked = {field.name: getattr(self, field.name)[list(rows)].to(device) for field in fields(self)}
        return replace(self, **picked)


def cases(
    shelf: Shelf,
    autoencoder: Network,
    draws: Sequence[np.random.Generator],
    *,
    size: int = 128,
    held: bool = False,
) -> list[Case]:
    """One from every random stream.

    Args:
        shelf: where windows come from.
        autoencoder: what makes small pictures soft.
        draws: a stream each.
        size: of a window in pixels.
        held: take windows of the pictures that only measure.
    """
    samples = [windows.draw(shelf, draw, size, held=held, shrink=SHRINK) for draw in draws]
    smalls = [_shrunk(sample.pixels, draw) for sample, draw in zip(samples, draws, strict=True)]
    soft = [
        bool(draw.random() < SOFT) or len(small) == size for small, draw in zip(smalls, draws, strict=True)
    ]
    for side in sorted({len(small) for small in smalls}):
        rows = [row for row, small in enumerate(smalls) if soft[row] and len(small) == side]
        if rows:
            back = _softened(autoencoder, [smalls[row] for row in rows], [draws[row] for row in rows])
            for row, pixels in zip(rows, back, strict=True):
                smalls[row] = pixels
    for row, draw in enumerate(draws):
        if not soft[row] and draw.random() < BLURRED:
            deviation = float(draw.uniform(0.3, 0.8))
            smalls[row] = np.asarray(cv2.GaussianBlur(smalls[row], (0, 0), deviation), np.uint8)
    return [Case(sample.pixels, small, sample.caption) for sample, small in zip(samples, smalls, strict=True)]


def _shrunk(pixels: Rgb, draw: np.random.Generator) -> Rgb:
    """A window at a fourth to all of its size, the logarithm of the factor even; a multiple of 8 px."""
    size = len(pixels)
    factor = Settings().largest_factor ** draw.random()
    side = min(max(round(size / factor / 8) * 8, 8), size)
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@torch.no_grad()
def _softened(autoencoder: Network, pixels: Sequence[Rgb], draws: Sequence[np.random.Generator]) -> list[Rgb]:
    """Pictures of one size through the autoencoder, with a little noise on the way."""
    device = next(autoencoder.parameters()).device
    side = len(pixels[0]) // REDUCTION
    noise = [
        draw.uniform(0, LATENT_NOISE) * draw.standard_normal((shapes.LATENTS, side, side), dtype=np.float32)
        for draw in draws
    ]
    batches = zip(
        to_tensors(pixels).split(16),
        torch.from_numpy(np.stack(noise).astype(np.float32)).split(16),
        strict=True,
    )
    back: list[Rgb] = []
    with torch.autocast(device.type, torch.bfloat16):
        for given, off in batches:
            latents = autoencoder.encode(given.to(device)).latent_dist.mode()
            back += list(to_pixels(autoencoder.decode(latents + off.to(latents)).sample))
    return back


class Upscaling:
    """The stage: what one step looks at, and how sharp and how true held-back windows become."""

    def __init__(
        self,
        unet: Network,
        autoencoder: Network,
        tokenizer: CLIPTokenizer,
        text_encoder: Network,
        shelf: Shelf,
        settings: loop.Settings,
        *,
        size: int = 64,
        chunk: int = CHUNK,
        measured: int = 48,
        measured_size: int = 128,
        text_steps: int = 0,
        device: str = "cpu",
    ) -> None:
        """Prepare the stage.

        Args:
            unet: learns.
            autoencoder: makes small pictures soft; fixed, as is the text encoder.
            tokenizer: for the captions.
            text_encoder: of the base pipeline.
            shelf: the pictures.
            settings: of the loop.
            size: of a window in pixels, a multiple of 16: detail is local, and small windows are more varied.
            chunk: windows that are prepared together.
            measured: held-back windows, of
            measured_size: in pixels.
            text_steps: how long the text encoder learned, for the log.
            device: "cpu" or "cuda".
        """
        self._unet, self._autoencoder = unet, autoencoder.requires_grad_(requires_grad=False)
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder.requires_grad_(requires_grad=False).eval().to(device)
        self._shelf, self._settings, self._size, self._device = shelf, settings, size, device
        self._chunk = max(chunk // settings.batch, 1) * settings.batch
        self._text_steps = text_steps
        self._scheduler = shapes.scheduler("sample")
        self._signal = self._scheduler.alphas_cumprod.to(device)
        self._empty = self._states([""]).to(device)
        self._made: tuple[int, Lessons] | None = None
        draws = [rng(0, Stage.FIT, MEASURE, n) for n in range(measured)]
        self._held = cases(shelf, autoencoder, draws, size=measured_size, held=True)

    def stage(self) -> loop.Stage:
        return loop.Stage(self._unet, self.losses, self.sheet)

    @torch.no_grad()
    def _states(self, captions: Sequence[str]) -> Tensor:
        """float32 (N, W, D), on the CPU."""
        ids = self._tokenizer(
            list(captions), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        parts = [self._text_encoder(part.to(self._device))[0].cpu() for part in ids.split(64)]
        return torch.cat(parts)

    def _lessons(self, made: Sequence[Case]) -> Lessons:
        coarse = [enlarged(case.small, len(case.truth)) for case in made]
        return Lessons(
            truth=torch.from_numpy(np.stack([case.truth for case in made])).movedim(-1, 1).contiguous(),
            coarse=torch.from_numpy(np.stack(coarse)).movedim(-1, 1).contiguous(),
            factors=torch.tensor([len(case.truth) / len(case.small) for case in made]),
            states=self._states([case.caption for case in made]),
        )

    def _batch(self, step: int) -> Lessons:
        """A step's windows follow from its number alone: resuming makes their chunk anew."""
        seed, batch = self._settings.seed, self._settings.batch
        a_pass = self._chunk // batch
        number, within = divmod(step, a_pass * REUSE)
        if self._made is None or self._made[0] != number:
            first = number * self._chunk
            draws = [rng(seed, Stage.FIT, DRAW, first + n) for n in range(self._chunk)]
            self._made = (
                number,
                self._lessons(cases(self._shelf, self._autoencoder, draws, size=self._size)),
            )
        turn, place = divmod(within, a_pass)
        order = rng(seed, Stage.FIT, MIX, number, turn).permutation(self._chunk)
        return self._made[1].at(order[place * batch :][:batch].tolist(), self._device)

    def losses(self, step: int) -> loop.Losses:
        """The weighted error of the missing detail."""
        batch = self._batch(step)
        draw = rng(self._settings.seed, Stage.FIT, NOISE, step)
        n = len(batch.factors)
        dropped = torch.from_numpy(draw.random(n) < DROPPED).to(self._device)[:, None, None]
        return {"loss": self._error(batch, batch.states.where(~dropped, self._empty), draw)}

    def _error(self, batch: Lessons, states: Tensor, draw: np.random.Generator) -> Tensor:
        t = _times(draw, len(batch.factors)).to(self._device)
        noise = torch.from_numpy(draw.standard_normal(batch.truth.shape, dtype=np.float32)).to(self._device)
        coarse = batch.coarse.float() / 127.5 - 1
        expected = Settings().deviation * spread(coarse, batch.factors)
        detail = (batch.truth.float() / 127.5 - 1 - coarse) / expected
        signal = self._signal[t][:, None, None, None]
        noisy = signal.sqrt() * detail + (1 - signal).sqrt() * noise
        labels = label(batch.factors, Settings().largest_factor)
        with torch.autocast(self._device, torch.bfloat16):
            guess = missing(self._unet, noisy, coarse, t, labels, states)
        weight = (1 / (1 - self._signal[t])).clamp(max=HEAVIEST)
        weighted: Tensor = ((guess - detail).square().mean((1, 2, 3)) * weight).mean()
        return weighted

    @torch.no_grad()
    def sheet(self, path: Path) -> Mapping[str, float]:
        """Held-back windows: enlarged, truth through the autoencoder, enlarged and sharpened, truth; figures of all."""
        truth = to_tensors([case.truth for case in self._held])
        ours = self._painted(Settings())
        kinds = {
            "bicubic": to_tensors([enlarged(case.small, len(case.truth)) for case in self._held]),
            "vae": vae.reconstruct(self._autoencoder, truth.to(self._device)).clamp(-1, 1).cpu(),
            "one_step": self._painted(replace(Settings(), times=Settings().times[:1])),
            "ours": ours,
        }
        columns = [to_pixels(kind) for kind in (kinds["bicubic"], kinds["vae"], ours, truth)]
        shown = min(len(truth), 24) // 2
        rows = [[column[row] for column in columns] for row in range(2 * shown)]
        sheets.write(path, [left + right for left, right in zip(rows[:shown], rows[shown:], strict=True)])
        figures = {"text_encoder_steps": float(self._text_steps), "held_loss": self._held_loss()}
        for name, pixels in kinds.items():
            figures[f"held_psnr_{name}"] = round(vae.psnr(pixels, truth), 3)
            figures[f"held_kept_{name}"] = round(energy(pixels) / energy(truth), 4)
        return figures

    def _painted(self, settings: Settings) -> Tensor:
        """What painting would make of the small held-back pictures, float32 (N, 3, S, S) in -1 to 1."""
        upscaler = Upscaler(self._unet, self._scheduler, self._states, settings)
        draws = [rng(0, Stage.FIT, MEASURE, 0, n) for n in range(len(self._held))]
        with torch.autocast(self._device, torch.bfloat16):
            return to_tensors(
                [
                    upscaler.enlarge(case.small, len(case.truth), case.caption, draw)
                    for case, draw in zip(self._held, draws, strict=True)
                ]
            )

    @torch.no_grad()
    def _held_loss(self) -> float:
        """On the same held-back windows with the same noise every time."""
        lessons = self._lessons(self._held)
        total, n = 0.0, len(self._held)
        for first in range(0, n, 16):
            batch = lessons.at(range(first, min(first + 16, n)), self._device)
            error = self._error(batch, batch.states, rng(0, Stage.FIT, MEASURE, 1, first))
            total += float(error) * len(batch.factors) / n
        return round(total, 5)


def energy(pixels: Tensor) -> float:
    """Of neighbouring pixels' differences: what fine detail there is."""
    return float(pixels.diff(dim=-1).square().sum() + pixels.diff(dim=-2).square().sum())


def _times(draw: np.random.Generator, n: int) -> Tensor:
    """int64 (n,): half of them where the sampler looks, half spread evenly over all 1000."""
    fixed = draw.permutation(np.resize(Settings().times, n // 2))
    spread = (draw.random() + np.arange(n - n // 2) / (n - n // 2)) % 1 * 1000
    return torch.from_numpy(np.concatenate([fixed, spread.astype(np.int64)]))
