"""Super-resolution: what was painted at the model's size is brought to the image's, with the detail that it lacks.

The enlarged picture stays as it is. A small diffusion network, which reads the prompt too, adds what is missing in
it, in patches of 4 x 4 pixels and in a few steps. Nothing goes through the autoencoder, whose decoder keeps half of
the energy of fine detail; a network that has learned nothing adds nothing.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import cv2
import msgspec
import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarefill import engine
from rarefill.errors import ModelError
from rarefill.generators.denoise import Denoiser
from rarefill.generators.pipelines import Network, Pipeline

Rgb = NDArray[np.uint8]
"""uint8 (H, W, 3)."""
Bits = NDArray[np.bool_]
"""bool (H, W)."""
Words = Callable[[Sequence[str]], Tensor]
"""From N prompts to a text encoder's states, (N, W, D)."""

SHIPPED: Final = Path(__file__).parent / "weights" / "upscaler"
"""The upscaler that goes with the embedded model."""
PATCH: Final = 4
"""The network sees so many pixels as one, each way, with three channels for each of them."""
GRID_PX: Final = 16
"""Sides of what the network sees are multiples of it: patches, halved twice."""
TILE_PX: Final = 320
"""The largest side of a tile: it bounds the memory of a step."""
OVERLAP_PX: Final = 32
"""Of neighbouring tiles, which fade into each other over it."""
_SETTINGS: Final = "upscaler.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What has to be known beside the weights.

    Attributes:
        deviation: of missing detail, in pixels of -1 to 1: the network counts in it.
        times: where the sampler looks, from noise alone (999) downwards; one step gives the mean of all answers.
        largest_factor: that was learned; more is reached in several passes.
        trained_steps: for how long.
    """

    deviation: float = 0.1
    times: tuple[int, ...] = (999, 499, 249, 124)
    largest_factor: float = 4.0
    trained_steps: int = 0

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.times, self.times[1:], strict=False))
        if not (self.times and falling and self.times[0] <= 999 and self.times[-1] >= 0):
            raise ValueError(f"times must fall from at most 999 to at least 0, got {list(self.times)}")
        if not (self.deviation > 0 and self.largest_factor > 1):
            raise ValueError(
                f"deviation must be above 0 and largest_factor above 1, got {self.deviation}, {self.largest_factor}"
            )


def enlarged(pixels: Rgb, side: int) -> Rgb:
    """A picture as the network gets it: (side, side, 3), smooth."""
    if pixels.shape[0] == side:
        return pixels
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def label(factors: Tensor, largest: float) -> Tensor:
    """What the network is told of how much was enlarged: 0 for 1, 1000 for the most that is learned; logarithmic."""
    return 1000 * factors.log() / math.log(largest)


def missing(
    unet: Network, noisy: Tensor, coarse: Tensor, t: Tensor, labels: Tensor, states: Tensor
) -> Tensor:
    """The network's guess at the detail that is lacking, in deviations.

    Args:
        unet: as `shapes.upscaler` makes it.
        noisy: (N, 3, H, W), the detail under noise; sides are multiples of `GRID_PX`.
        coarse: (N, 3, H, W), the enlarged pictures in -1 to 1.
        t: int64 (N,), time steps.
        labels: float32 (N,), of `label`.
        states: (N, W, D) of the text encoder.

    Returns:
        float32 (N, 3, H, W).
    """
    dtype = next(unet.parameters()).dtype
    given = torch.cat([functional.pixel_unshuffle(part, PATCH) for part in (noisy, coarse)], dim=1)
    given = given.to(dtype).contiguous(memory_format=torch.channels_last)
    answer = unet(given, t, encoder_hidden_states=states.to(dtype), class_labels=labels).sample
    return functional.pixel_shuffle(answer.float(), PATCH)


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """A part of the canvas that goes through the network alone.

    Attributes:
        place: rows and columns, to be taken after channels.
        weight: float32 (h, w), 0 to 1: of all tiles together 1, falling to 0 where the tiles end inside the canvas.
    """

    place: tuple[Any, slice, slice]
    weight: Tensor


class Upscaler:
    """Enlarges pictures. Safe in several threads: nothing but the prompts' cache changes."""

    def __init__(self, unet: Network, scheduler: Any, words: Words, settings: Settings) -> None:
        self._unet, self._words, self._settings = unet, words, settings
        self._signal = scheduler.alphas_cumprod
        self._device = next(unet.parameters()).device

    @classmethod
    def load(cls, folder: Path, base: Pipeline, *, device: str = "cpu") -> Self:
        """Read an upscaler's folder from this disk; nothing is downloaded and no pickle is opened.

        Args:
            folder: as `save` writes it.
            base: whose prompts' encoder is used, and whose dtype.
            device: where the network goes.

        Raises:
            ModelError: a part is missing or a pickle, does not fit the base, or holds what is no number.
        """
        settings = _settings(folder)
        try:
            unet = UNet2DConditionModel.from_pretrained(
                folder / "unet", local_files_only=True, use_safetensors=True, dtype=base.unet.dtype
            )
            scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        except Exception as error:  # whatever diffusers and safetensors raise, it is this folder
            said = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{folder}: cannot be read as an upscaler ({type(error).__name__}: {said}); copy it again or train it anew"
            ) from error
        _fits(folder, unet, base)
        unet = unet.to(device, memory_format=torch.channels_last).eval()
        return cls(unet.requires_grad_(requires_grad=False), scheduler, Denoiser(base).words, settings)

    @torch.no_grad()
    def enlarge(
        self, pixels: Rgb, side: int, prompt: str, rng: np.random.Generator, *, where: Bits | None = None
    ) -> Rgb:
        """A larger picture of the same, sharp.

        Args:
            pixels: uint8 (S, S, 3) RGB.
            side: of the answer, S or above; at S itself what a decoder left soft becomes sharp.
            prompt: what is in the picture.
            rng: gives the detail's noise.
            where: bool (side, side), the pixels that matter; the others may stay enlarged and no more.

        Returns:
            uint8 (side, side, 3).

        Raises:
            ModelError: the network answered with what is no number.
        """
        factor = side / pixels.shape[0]
        if pixels.shape != (pixels.shape[0], pixels.shape[0], 3) or factor < 1:
            raise ValueError(f"expected a square RGB picture of at most {side} px, got {pixels.shape}")
        if where is not None and where.shape != (side, side):
            raise ValueError(f"where must be ({side}, {side}), got {where.shape}")
        states = self._words([prompt]).to(self._device)
        passes = max(math.ceil(math.log(factor) / math.log(self._settings.largest_factor) - 1e-9), 1)
        with engine.one_thread():
            for done in range(1, passes + 1):
                size = side if done == passes else round(side / factor ** (1 - done / passes))
                pixels = self._pass(pixels, size, states, rng, where)
        return pixels

    def _pass(
        self, pixels: Rgb, side: int, states: Tensor, rng: np.random.Generator, where: Bits | None
    ) -> Rgb:
        """Enlarge once, by a factor that was learned."""
        plain = enlarged(pixels, side)
        over = -side % GRID_PX
        noise = torch.from_numpy(rng.standard_normal((1, 3, side + over, side + over), dtype=np.float32))
        tiles = list(_tiles(_padded(where, side, over)))
        if not tiles:
            return plain
        # cv2 mirrors as often as it takes, should the picture be smaller than what is added.
        whole = cv2.copyMakeBorder(plain, 0, over, 0, over, cv2.BORDER_REFLECT_101)
        coarse = torch.from_numpy(whole).movedim(-1, 0)[None].float() / 127.5 - 1
        factors = torch.tensor([side / pixels.shape[0]])
        detail = self._detail(
            noise.to(self._device),
            coarse.to(self._device),
            states,
            label(factors, self._settings.largest_factor),
            tiles,
        ).cpu()
        if not bool(torch.isfinite(detail).all()):
            raise ModelError(
                "the upscaler answered with what is no number; its weights are broken or too large for 16 bits"
            )
        sharp = ((coarse + self._settings.deviation * detail).clamp(-1, 1) + 1) * 127.5
        eight = sharp[0, :, :side, :side].round().to(torch.uint8)
        return np.ascontiguousarray(eight.movedim(0, -1).numpy())

    def _detail(
        self, noisy: Tensor, coarse: Tensor, states: Tensor, labels: Tensor, tiles: Sequence[_Tile]
    ) -> Tensor:
        """What to add, sampled over the whole canvas at once: in each step the tiles' guesses become one.

        Source: Bar-Tal et al. 2023, MultiDiffusion, section 3; the steps are DDIM's, Song et al. 2021, equation 12.
        """
        cover = noisy.new_full((1, 1, *noisy.shape[2:]), 1e-6)
        for tile in tiles:
            cover[tile.place] += tile.weight.to(noisy)
        labels = labels.to(self._device)
        times = self._settings.times
        for t, following in zip(times, (*times[1:], None), strict=True):
            guess = torch.zeros_like(noisy)
            for tile in tiles:
                part = missing(
                    self._unet,
                    noisy[tile.place],
                    coarse[tile.place],
                    torch.tensor([t], device=self._device),
                    labels,
                    states,
                )
                guess[tile.place] += tile.weight.to(noisy) * part
            if following is None:
                break
            signal, after = float(self._signal[t]), float(self._signal[following])
            clean = guess / cover
            noise = (noisy - signal**0.5 * clean) / (1 - signal) ** 0.5
            noisy = after**0.5 * clean + (1 - after) ** 0.5 * noise
        return guess


def _padded(where: Bits | None, side: int, over: int) -> Bits:
    """What matters of a pass's canvas: a mask of another size is brought to the pass's, nothing of it lost."""
    if where is None:
        where = np.ones((side, side), bool)
    elif where.shape[0] != side:
        shares = cv2.resize(where.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        where = np.asarray(shares > 0)
    return np.pad(where, (0, over))


def _tiles(where: Bits) -> Iterator[_Tile]:
    """Tiles over the box of what matters and a margin; those without any of it are left out."""
    if not where.any():
        return
    side = where.shape[0]
    rows, columns = (_spans(*_reach(np.asarray(where.any(axis=axis)))) for axis in (1, 0))
    for top, bottom in rows:
        for left, right in columns:
            if where[top:bottom, left:right].any():
                weight = _ramp(top, bottom, side)[:, None] * _ramp(left, right, side)
                yield _Tile((..., slice(top, bottom), slice(left, right)), torch.from_numpy(weight))


def _reach(line: Bits) -> tuple[int, int]:
    """First and last of what matters along one axis, with a margin, on the grid."""
    (found,) = line.nonzero()
    first = max(int(found[0]) - OVERLAP_PX, 0) // GRID_PX * GRID_PX
    last = min(-(-(int(found[-1]) + 1 + OVERLAP_PX) // GRID_PX) * GRID_PX, len(line))
    return first, last


def _spans(first: int, last: int) -> list[tuple[int, int]]:
    """Cut a range of one axis into tiles of nearly one size, neighbours sharing exactly `OVERLAP_PX`."""
    n = max(-(-(last - first - OVERLAP_PX) // (TILE_PX - OVERLAP_PX)), 1)
    cells, more = divmod((last - first + (n - 1) * OVERLAP_PX) // GRID_PX, n)
    spans, start = [], first
    for number in range(n):
        end = start + (cells + (number < more)) * GRID_PX
        spans.append((start, end))
        start = end - OVERLAP_PX
    return spans


def _ramp(first: int, last: int, side: int) -> NDArray[np.float32]:
    """float32 (last - first,): 1, falling at those ends that are not the canvas's own."""
    weight = np.ones(last - first, np.float32)
    slope = (np.arange(OVERLAP_PX, dtype=np.float32) + 0.5) / OVERLAP_PX
    if first > 0:
        weight[:OVERLAP_PX] = slope
    if last < side:
        weight[-OVERLAP_PX:] = slope[::-1]
    return weight


def save(
    folder: Path, unet: Network, scheduler: Any, settings: Settings, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write an upscaler's folder: `unet`, `scheduler`, `upscaler.json`. The network is changed to the dtype.

    The prompts' encoder is the base pipeline's and is not written again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unet.to(dtype).save_pretrained(folder / "unet", max_shard_size="15MB")
    scheduler.save_pretrained(folder / "scheduler")
    (folder / _SETTINGS).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")


def _settings(folder: Path) -> Settings:
    """Read the settings, and say what else is missing before diffusers does."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give the folder of an upscaler")
    for part, name in (("unet", "config.json"), ("scheduler", "scheduler_config.json")):
        if not (folder / part / name).is_file():
            raise ModelError(
                f"{folder}: the upscaler has no {part}/{name}; the folder is incomplete, copy it again"
            )
    if not any((folder / "unet").glob("*.safetensors")):
        raise ModelError(
            f"{folder / 'unet'}: no weights as safetensors; pickles are not opened, as they can run anything"
        )
    try:
        return msgspec.json.decode((folder / _SETTINGS).read_bytes(), type=Settings)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise ModelError(f"{folder / _SETTINGS}: cannot be read ({error}); copy the folder again") from error


def _fits(folder: Path, unet: Network, base: Pipeline) -> None:
    wanted = {
        "in_channels": 2 * 3 * PATCH**2,
        "out_channels": 3 * PATCH**2,
        "cross_attention_dim": base.text_encoder.config.hidden_size,
        "class_embed_type": "timestep",
    }
    for name, value in wanted.items():
        came = unet.config[name]
        if came != value:
            raise ModelError(f"{folder}: the upscaler's unet must have {name} {value}, got {came}")
    if not all(bool(torch.isfinite(weights).all()) for weights in unet.parameters()):
        raise ModelError(f"{folder}: unet holds weights that are no numbers; its training went wrong")
