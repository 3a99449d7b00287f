"""Super-resolution: what was painted at the model's size is brought to the image's, with the detail that it lacks.

The enlarged picture stays as it is. A small network, which reads the prompt too and sees the scene around it at full sharpness, adds
what is missing in it, in one step. Nothing goes through the autoencoder, whose decoder keeps half of
the energy of fine detail; a network that has learned nothing adds nothing.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from rarefill import engine
from rarefill.errors import MissingError, ModelError
from rarefill.generators.denoise import Denoiser
from rarefill.generators.detail import DetailNetwork, Shape
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
_SETTINGS, _WEIGHTS = "upscaler.json", "weights.safetensors"
_NEAR_PX: Final = 9
"""Side of the square in which contrast is taken."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What has to be known beside the weights.

    Attributes:
        deviation: of missing detail, as a factor of what `spread` expects.
        largest_factor: that was learned; more is reached in several passes.
        trained_steps: for how long.
        network: what its weights fit.
    """

    deviation: float = 1.0
    largest_factor: float = 4.0
    trained_steps: int = 0
    network: Shape = field(default_factory=Shape)

    def __post_init__(self) -> None:
        if not (self.deviation > 0 and self.largest_factor > 1):
            raise ValueError(
                f"deviation must be above 0 and largest_factor above 1, got {self.deviation}, {self.largest_factor}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """The scene that an enlarged picture goes into.

    Attributes:
        pixels: uint8 (S, S, 3) RGB, at full size.
        known: bool (S, S), where the scene stays; elsewhere the enlarged picture takes its place.
    """

    pixels: Rgb
    known: Bits

    def at(self, side: int) -> Self:
        """The same at a smaller size, for passes on the way; what is known in part is not known."""
        if side == len(self.known):
            return self
        pixels = cv2.resize(self.pixels, (side, side), interpolation=cv2.INTER_AREA)
        share = cv2.resize(self.known.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        return type(self)(np.asarray(pixels, np.uint8), np.asarray(share > 0.999))


def enlarged(pixels: Rgb, side: int) -> Rgb:
    """A picture as the network gets it: (side, side, 3), smooth."""
    if pixels.shape[0] == side:
        return pixels
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def spread(coarse: Tensor, factors: Tensor) -> Tensor:
    """How much detail to expect where: little in a sky, more in foliage, more the more was enlarged.

    The network counts in it, so that its answers are of one order everywhere. On held-back windows the detail's deviation follows the root of the enlarged picture's local contrast, for each factor, within a third.

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
    """What the network is told of how much was enlarged: 0 for 1, 1 for the most that is learned; logarithmic."""
    return factors.log() / math.log(largest)


class Upscaler:
    """Enlarges pictures. Safe in several threads: nothing but the prompts' cache changes."""

    def __init__(self, network: Network, words: Words, settings: Settings) -> None:
        self._network, self._words, self._settings = network, words, settings
        first = next(network.parameters())
        self._device, self._dtype = first.device, first.dtype

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
        network = read(folder)
        _fits(folder, network, base)
        network = network.to(device, base.unet.dtype).to(memory_format=torch.channels_last).eval()
        return cls(network.requires_grad_(requires_grad=False), Denoiser(base).words, _settings(folder))

    @torch.no_grad()
    def enlarge(
        self,
        pixels: Rgb,
        side: int,
        prompt: str,
        *,
        where: Bits | None = None,
        around: Around | None = None,
        seed: int = 0,
    ) -> Rgb:
        """A larger picture of the same, sharp.

        Args:
            pixels: uint8 (S, S, 3) RGB.
            side: of the answer, S or above; at S itself what a decoder left soft becomes sharp.
            prompt: what is in the picture.
            where: bool (side, side), the pixels that matter; the others may stay enlarged and no more.
            around: the scene at full size, which tells how sharp things are here; what it gives is not in the answer.
            seed: means nothing: nothing is drawn.

        Returns:
            uint8 (side, side, 3).

        Raises:
            ModelError: the network answered with what is no number.
        """
        del seed
        factor = side / pixels.shape[0]
        if pixels.shape != (pixels.shape[0], pixels.shape[0], 3) or factor < 1:
            raise ValueError(f"expected a square RGB picture of at most {side} px, got {pixels.shape}")
        if where is not None and where.shape != (side, side):
            raise ValueError(f"where must be ({side}, {side}), got {where.shape}")
        if around is not None and not around.known.shape == around.pixels.shape[:2] == (side, side):
            raise ValueError(
                f"around must be ({side}, {side}), got {around.known.shape}, {around.pixels.shape[:2]}"
            )
        passes = max(math.ceil(math.log(factor) / math.log(self._settings.largest_factor) - 1e-9), 1)
        with engine.one_thread():
            states = self._words([prompt]).to(self._device, self._dtype)
            for done in range(1, passes + 1):
                size = side if done == passes else round(side / factor ** (1 - done / passes))
                pixels = self._pass(pixels, size, states, where, around.at(size) if around else None)
        return pixels

    def _pass(self, pixels: Rgb, side: int, states: Tensor, where: Bits | None, around: Around | None) -> Rgb:
        """Enlarge once, by a factor that was learned."""
        plain = enlarged(pixels, side)
        over = -side % GRID_PX
        parts = list(tiles(_padded(where, side, over)))
        if not parts:
            return plain
        coarse = _canvas(plain, over)
        seen, known = coarse, torch.zeros_like(coarse[:, :1])
        if around is not None:
            whole = np.pad(around.known, (0, over))
            known = torch.from_numpy(whole)[None, None].float()
            seen = _canvas(np.where(around.known[:, :, None], around.pixels, plain), over)
        factors = torch.tensor([side / pixels.shape[0]])
        detail = self._detail(seen, known, states, label(factors, self._settings.largest_factor), parts)
        if not bool(torch.isfinite(detail).all()):
            raise ModelError(
                "the upscaler answered with what is no number; its weights are broken or too large for 16 bits"
            )
        detail *= self._settings.deviation * spread(coarse, factors)
        sharp = ((coarse + detail).clamp(-1, 1) + 1) * 127.5
        eight = sharp[0, :, :side, :side].round().to(torch.uint8)
        return np.ascontiguousarray(eight.movedim(0, -1).numpy())

    def _detail(
        self, seen: Tensor, known: Tensor, states: Tensor, labels: Tensor, parts: Sequence[Tile]
    ) -> Tensor:
        """What to add, on the CPU; where tiles share pixels their answers fade into each other."""
        answer = torch.zeros_like(seen)
        for tile in parts:
            given = (part[tile.place] for part in (seen, known))
            found = self._network(*(part.to(states) for part in (*given, labels)), states)
            answer[tile.place] += tile.weight * found.float().cpu()
        return answer


def _canvas(pixels: Rgb, over: int) -> Tensor:
    """float32 (1, 3, S, S) in -1 to 1: a picture brought to the grid, mirrored as often as it takes."""
    whole = cv2.copyMakeBorder(pixels, 0, over, 0, over, cv2.BORDER_REFLECT_101)
    return torch.from_numpy(whole).movedim(-1, 0)[None].float() / 127.5 - 1


def _padded(where: Bits | None, side: int, over: int) -> Bits:
    """What matters of a pass's canvas: a mask of another size is brought to the pass's, nothing of it lost."""
    if where is None:
        where = np.ones((side, side), bool)
    elif where.shape[0] != side:
        shares = cv2.resize(where.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        where = np.asarray(shares > 0)
    return np.pad(where, (0, over))


def read(folder: Path) -> DetailNetwork:
    """A folder's network, float32.

    Raises:
        ModelError: it is incomplete or broken, or its weights fit another network.
    """
    network = DetailNetwork(_settings(folder).network)
    try:
        network.load_state_dict(load_file(folder / _WEIGHTS))
    except Exception as error:  # whatever torch and safetensors raise, it is this folder
        said = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder}: cannot be read as an upscaler ({type(error).__name__}: {said}); copy it again or train it anew"
        ) from error
    return network


def save(
    folder: Path, network: DetailNetwork, settings: Settings, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write an upscaler's folder: its weights, and what has to be known beside them.

    The prompts' encoder is the base pipeline's and is not written again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to(dtype).contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / _WEIGHTS)
    told = asdict(replace(settings, network=network.shape))
    (folder / _SETTINGS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _settings(folder: Path) -> Settings:
    """Read the settings, and say what else is missing before diffusers does."""
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder; give the folder of an upscaler")
    if not (folder / _WEIGHTS).is_file():
        raise ModelError(
            f"{folder}: no {_WEIGHTS}; the folder is incomplete, copy it again (pickles are not opened, as they can run anything)"
        )
    try:
        return msgspec.json.decode((folder / _SETTINGS).read_bytes(), type=Settings)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise ModelError(f"{folder / _SETTINGS}: cannot be read ({error}); copy the folder again") from error


def _fits(folder: Path, network: DetailNetwork, base: Pipeline) -> None:
    wanted = base.text_encoder.config.hidden_size
    if network.shape.words_width != wanted:
        raise ModelError(
            f"{folder}: the upscaler must have words_width {wanted}, got {network.shape.words_width}"
        )
    if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
        raise ModelError(f"{folder}: the network holds weights that are no numbers; its training went wrong")
