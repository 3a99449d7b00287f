"""Super-resolution: what was painted at the model's size is brought to the image's, with the detail that it lacks.

The enlarged picture stays as it is. A small diffusion network, which reads the prompt too, adds what is missing in
it, in patches of 4 x 4 pixels and in a few steps. Nothing goes through the autoencoder, whose decoder keeps half of
the energy of fine detail; a network that has learned nothing adds nothing.
"""

import json
import math
from collections.abc import Callable, Sequence
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
from rarefill.generators.tiling import GRID_PX, Tile, tiles

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
_SETTINGS: Final = "upscaler.json"
_NEAR_PX: Final = 9
"""Side of the square in which contrast is taken."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What has to be known beside the weights.

    Attributes:
        deviation: of missing detail, as a factor of what `spread` expects.
        times: where the sampler looks, from noise alone (999) downwards; one step gives the mean of all answers.
        largest_factor: that was learned; more is reached in several passes.
        trained_steps: for how long.
    """

    deviation: float = 1.0
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


def spread(coarse: Tensor, factors: Tensor) -> Tensor:
    """How much detail to expect where: little in a sky, more in foliage, more the more was enlarged.

    The network counts in it, so noise that it has not learned to remove is not seen in smooth places. On held-back windows
    the detail's deviation follows the root of the enlarged picture's local contrast, for each factor, within a third.

    Args:
        coarse: float32 (N, 3, H, W), the enlarged pictures in -1 to 1.
        factors: float32 (N,), by how much.

    Returns:
        float32 (N, 1, H, W), in pixels of -1 to 1.
    """

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, _NEAR_PX, 1, _NEAR_PX // 2, count_include_pad=False)

    contrast = (mean(coarse.square()) - mean(coarse).square()).clamp_min(0).mean(1, keepdim=True).sqrt()
    return 0.24 * (factors[:, None, None, None] * (contrast + 0.004)).sqrt()


def label(factors: Tensor, largest: float) -> Tensor:
    """What the network is told of how much was enlarged: 0 for 1, 1000 for the most that is learned; logarithmic."""
    return 1000 * factors.log() / math.log(largest)


def missing(
    unet: Network, noisy: Tensor, coarse: Tensor, t: Tensor, labels: Tensor, states: Tensor
) -> Tensor:
    """The network's guess at the detail that is lacking, as a factor of what is expected.

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
        _fits(folder, unet, scheduler, base)
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
        passes = max(math.ceil(math.log(factor) / math.log(self._settings.largest_factor) - 1e-9), 1)
        with engine.one_thread():
            states = self._words([prompt]).to(self._device)
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
        parts = list(tiles(_padded(where, side, over)))
        if not parts:
            return plain
        # cv2 mirrors as often as it takes, should the picture be smaller than what is added.
        whole = cv2.copyMakeBorder(plain, 0, over, 0, over, cv2.BORDER_REFLECT_101)
        coarse = torch.from_numpy(whole).movedim(-1, 0)[None].float() / 127.5 - 1
        factors = torch.tensor([side / pixels.shape[0]])
        labels = label(factors, self._settings.largest_factor)
        detail = self._detail(noise.to(self._device), coarse.to(self._device), states, labels, parts).cpu()
        if not bool(torch.isfinite(detail).all()):
            raise ModelError(
                "the upscaler answered with what is no number; its weights are broken or too large for 16 bits"
            )
        detail *= self._settings.deviation * spread(coarse, factors)
        sharp = ((coarse + detail).clamp(-1, 1) + 1) * 127.5
        eight = sharp[0, :, :side, :side].round().to(torch.uint8)
        return np.ascontiguousarray(eight.movedim(0, -1).numpy())

    def _detail(
        self, noisy: Tensor, coarse: Tensor, states: Tensor, labels: Tensor, parts: Sequence[Tile]
    ) -> Tensor:
        """What to add, sampled over the whole canvas at once: in each step the tiles' guesses become one.

        Source: Bar-Tal et al. 2023, MultiDiffusion, section 3; the steps are DDIM's, Song et al. 2021, equation 12.
        """
        cover = noisy.new_full((1, 1, *noisy.shape[2:]), 1e-6)
        for tile in parts:
            cover[tile.place] += tile.weight.to(noisy)
        labels = labels.to(self._device)
        times = self._settings.times
        for t, following in zip(times, (*times[1:], None), strict=True):
            guess = torch.zeros_like(noisy)
            for tile in parts:
                found = missing(
                    self._unet,
                    noisy[tile.place],
                    coarse[tile.place],
                    torch.tensor([t], device=self._device),
                    labels,
                    states,
                )
                guess[tile.place] += tile.weight.to(noisy) * found
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


def _fits(folder: Path, unet: Network, scheduler: Any, base: Pipeline) -> None:
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
    if scheduler.config.prediction_type != "sample":
        raise ModelError(
            f"{folder}: the scheduler's prediction_type must be sample, got {scheduler.config.prediction_type}"
        )
    if not all(bool(torch.isfinite(weights).all()) for weights in unet.parameters()):
        raise ModelError(f"{folder}: unet holds weights that are no numbers; its training went wrong")
