"""Stage 4: super-resolution. Windows are made small and soft as painting makes them, and the detail that this cost is learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.pipelines import Network
from rarefill.generators.train import critic, loop, masks, shapes, sheets, sources, vae, windows
from rarefill.generators.train.pixels import to_pixels, to_tensors
from rarefill.generators.train.shapes import REDUCTION
from rarefill.generators.train.shelf import Rgb, Shelf
from rarefill.generators.upscale import Around, Settings, Upscaler, enlarged, label, spread
from rarefill.seeds import Stage, rng

DRAW: Final = 21
MIX: Final = 22
DROP: Final = 23
MEASURE: Final = 24
"""What is drawn for, first in every seed's key."""
CHUNK: Final = 256
"""Windows that are made small at a time: those of one size go through the autoencoder together."""
REUSE: Final = 2
"""How often each of them is learned from: going through the autoencoder costs half a step."""
SHRINK: Final = (1.0, 3.0)
"""A window's pixel stands for so many of the picture's: never less than one, or there would be no detail in it."""
SOFT: Final = 0.75
"""Share of small pictures that come out of the autoencoder, as painted ones do."""
BLURRED: Final = 0.3
"""Share of the others that are blurred."""
LATENT_NOISE: Final = 0.15
"""The largest deviation of noise on their latents: painted latents are never exact."""
SCENE: Final = 0.6
"""Share of windows in which the scene about an object is known at full sharpness."""
OFF: Final = 0.03
"""Deviation of the colours that an object and its scene are apart: painted ones are not exact, either."""
DROPPED: Final = 0.1
"""Share of windows whose words are left out."""
EDGES: Final = 0.5
"""Weight of neighbouring pixels' differences beside the pixels themselves."""
USUAL: Final = 0.05
"""What is lacking on average, in pixels of -1 to 1; errors are counted in it."""
KNOWN: Final = 0.1
"""Weight of pixels that are known, where nothing is lacking."""
CRITIC_FROM: Final = 0.15
"""The critic begins to learn after this part of the cosine, and is listened to a tenth of the cosine later."""
CRITIC: Final = 0.15
"""Weight of what the critic says."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A window and what painting would have made of it.

    Attributes:
        truth: uint8 (S, S, 3) RGB.
        small: uint8 (s, s, 3), s from S / 4 to S.
        known: bool (S, S), where the scene is known at full sharpness; none of it, for some.
        scene: uint8 (S, S, 3), as the truth, but for a little of its colour.
        caption: words for it, possibly none.
    """

    truth: Rgb
    small: Rgb
    known: Bits
    scene: Rgb
    caption: str

    @property
    def coarse(self) -> Rgb:
        """The small picture enlarged, uint8 (S, S, 3)."""
        return enlarged(self.small, len(self.truth))


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """A batch of N windows of S px.

    Attributes:
        truth: uint8 (N, 3, S, S).
        coarse: uint8 (N, 3, S, S), the small pictures enlarged.
        scene: uint8 (N, 3, S, S).
        known: bool (N, 1, S, S), where the scene is known.
        factors: float32 (N,), by how much.
        states: float32 (N, W, D) of the captions.
    """

    truth: Tensor
    coarse: Tensor
    scene: Tensor
    known: Tensor
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
    return [
        Case(sample.pixels, small, *_scene(sample.pixels, draw), sample.caption)
        for sample, small, draw in zip(samples, smalls, draws, strict=True)
    ]


def _scene(pixels: Rgb, draw: np.random.Generator) -> tuple[Bits, Rgb]:
    """What of a window is known, and the window in slightly other colours."""
    if draw.random() >= SCENE:
        return np.zeros(pixels.shape[:2], bool), pixels
    mask = masks.draw(pixels, draw).astype(np.uint8)
    margin = sources.margin(draw)
    hidden = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1,) * 2))
    off = 127.5 * OFF * draw.normal(size=3)
    return hidden == 0, np.clip(np.rint(pixels + off), 0, 255).astype(np.uint8)


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
        network: Network,
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
            network: learns.
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
        torch.manual_seed(settings.seed)
        self._network, self._autoencoder = network, autoencoder.requires_grad_(requires_grad=False)
        self._critic = critic.Critic().to(device)
        self._module = module(network, self._critic)
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder.requires_grad_(requires_grad=False).eval().to(device)
        self._shelf, self._settings, self._size, self._device = shelf, settings, size, device
        self._chunk = max(chunk // settings.batch, 1) * settings.batch
        self._text_steps = text_steps
        self._empty = self._states([""]).to(device)
        self._made: tuple[int, Lessons] | None = None
        draws = [rng(0, Stage.FIT, MEASURE, n) for n in range(measured)]
        self._held = cases(shelf, autoencoder, draws, size=measured_size, held=True)

    def stage(self) -> loop.Stage:
        return loop.Stage(self._module, self.losses, self.sheet)

    @torch.no_grad()
    def _states(self, captions: Sequence[str]) -> Tensor:
        """float32 (N, W, D), on the CPU."""
        ids = self._tokenizer(
            list(captions), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        parts = [self._text_encoder(part.to(self._device))[0].cpu() for part in ids.split(64)]
        return torch.cat(parts)

    def _lessons(self, made: Sequence[Case]) -> Lessons:
        def stacked(pictures: Sequence[Rgb]) -> Tensor:
            return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).contiguous()

        return Lessons(
            truth=stacked([case.truth for case in made]),
            coarse=stacked([case.coarse for case in made]),
            scene=stacked([case.scene for case in made]),
            known=torch.from_numpy(np.stack([case.known for case in made]))[:, None],
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
        """The error of the missing detail, and what the critic says of it once it has learned to."""
        batch = self._batch(step)
        draw = rng(self._settings.seed, Stage.FIT, DROP, step)
        dropped = torch.from_numpy(draw.random(len(batch.factors)) < DROPPED).to(self._device)[:, None, None]
        error, made = self._error(batch, batch.states.where(~dropped, self._empty))
        said = {"loss": error, "error": error}
        done = step / self._settings.steps - CRITIC_FROM
        if done >= 0:
            with torch.autocast(self._device, torch.bfloat16):
                own, makers = critic.losses(self._critic, _signed(batch.truth), made, _signed(batch.coarse))
            heard = CRITIC * min(max(done / 0.1 - 1, 0.0), 1.0)
            said |= {"loss": error + heard * makers + own, "critic": own, "makers": makers}
        return said

    def _error(self, batch: Lessons, states: Tensor) -> tuple[Tensor, Tensor]:
        """The error where nothing is known, in units of what is usually lacking; and what was made, in -1 to 1."""
        coarse, truth, known = _signed(batch.coarse), _signed(batch.truth), batch.known.float()
        expected = Settings().deviation * spread(coarse, batch.factors)
        detail = (truth - coarse) / expected * (1 - known)
        seen = torch.where(batch.known, _signed(batch.scene), coarse)
        labels = label(batch.factors, Settings().largest_factor)
        with torch.autocast(self._device, torch.bfloat16):
            guess = self._network(seen, known, labels, states)
        guess = guess.float()
        weight = (1 - known) + KNOWN * known
        # Counted in pixels: an edge in foliage teaches more than a sky's grain, which nobody could foresee.
        off = (guess - detail) * expected / USUAL
        error = (off.abs() * weight).sum() / (3 * weight.sum())
        for axis in (2, 3):
            n = off.shape[axis] - 1
            error = error + EDGES / 2 * (off.diff(dim=axis).abs() * weight.narrow(axis, 0, n)).sum() / (
                3 * weight.narrow(axis, 0, n).sum()
            )
        return error, torch.where(batch.known, truth, coarse + guess * expected)

    @torch.no_grad()
    def sheet(self, path: Path) -> Mapping[str, float]:
        """Held-back windows: enlarged, truth through the autoencoder, enlarged and sharpened, truth; figures of all."""
        truth = to_tensors([case.truth for case in self._held])
        kinds = {
            "bicubic": to_tensors([case.coarse for case in self._held]),
            "vae": vae.reconstruct(self._autoencoder, truth.to(self._device)).clamp(-1, 1).cpu(),
            "alone": self._painted(scene=False),
            "ours": self._painted(scene=True),
        }
        columns = [to_pixels(kind) for kind in (kinds["bicubic"], kinds["vae"], kinds["ours"], truth)]
        shown = min(len(truth), 24) // 2
        rows = [[column[row] for column in columns] for row in range(2 * shown)]
        sheets.write(path, [left + right for left, right in zip(rows[:shown], rows[shown:], strict=True)])
        figures = {"text_encoder_steps": float(self._text_steps), "held_loss": self._held_loss()}
        for name, pixels in kinds.items():
            figures[f"held_psnr_{name}"] = round(vae.psnr(pixels, truth), 3)
            figures[f"held_kept_{name}"] = round(energy(pixels) / energy(truth), 4)
        return figures

    def _painted(self, *, scene: bool) -> Tensor:
        """What painting would make of the small held-back pictures, float32 (N, 3, S, S) in -1 to 1."""
        upscaler = Upscaler(self._network, self._states, Settings())
        with torch.autocast(self._device, torch.bfloat16):
            return to_tensors(
                [
                    upscaler.enlarge(
                        case.small,
                        len(case.truth),
                        case.caption,
                        around=Around(case.scene, case.known) if scene else None,
                    )
                    for case in self._held
                ]
            )

    @torch.no_grad()
    def _held_loss(self) -> float:
        """Without the critic."""
        lessons = self._lessons(self._held)
        total, n = 0.0, len(self._held)
        for first in range(0, n, 16):
            batch = lessons.at(range(first, min(first + 16, n)), self._device)
            total += float(self._error(batch, batch.states)[0]) * len(batch.factors) / n
        return round(total, 5)


def module(network: Network, judge: critic.Critic) -> nn.ModuleDict:
    """All that learns, by its names in a checkpoint."""
    return nn.ModuleDict({"network": network, "critic": judge})


def _signed(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def energy(pixels: Tensor) -> float:
    """Of neighbouring pixels' differences: what fine detail there is."""
    return float(pixels.diff(dim=-1).square().sum() + pixels.diff(dim=-2).square().sum())
