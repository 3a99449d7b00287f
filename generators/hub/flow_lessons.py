"""What a transformer learns: the velocity from a picture to noise, along the straight way between them.

Liu et al. 2023 ("Flow Straight and Fast", eq. 1) and Lipman et al. 2023 (section 4.1): at time t a window is (1 - t) x + t e, and the
answer is e - x. Times are drawn as Esser et al. 2024 found best (section 3.1, logit-normal of mean 0 and deviation 1), and moved
towards noise as far as the checkpoint's own schedule moves them; diffusers' training examples do the same. Outside the
painted area a window is noised with the same noise, which is what these pipelines show their transformers when they paint.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rarefill.generators import blend
from rarefill.generators.compact_conditioning import Bits, Rgb
from rarefill.generators.hub import tokens
from rarefill.generators.hub.lessons import Task, shares
from rarefill.generators.hub.stack import Stack
from rarefill.generators.train.sources import Drawn
from rarefill.presets import Family

WINDOW_PX: Final = 1024
"""What these models were trained for, where the recipe says nothing else."""
_ATTENTION: Final = ["to_q", "to_k", "to_v", "to_out.0"]
_FUSED: Final = r".*\.(to_q|to_k|to_v|to_out\.0|to_qkv_mlp_proj)|single_transformer_blocks\.\d+\.attn\.to_out"
"""FLUX.2's single-stream blocks read and answer through one layer each."""
_SHOWN: Final[frozenset[Family]] = frozenset({"flux2-klein", "qwen-edit"})
"""Families that are shown the window itself beside the noised one."""
_GUIDANCE: Final = 1.0
"""What FLUX.1 dev, which was distilled to be told its guidance, is told in lessons: none."""


class FlowSubject:
    """Z-Image, FLUX.1, FLUX.2 klein or Qwen-Image-Edit."""

    def __init__(self, stack: Stack, *, size: int | None) -> None:
        """Take a pipeline; `size` is that of a window, None for what these were trained for."""
        pipe = stack.pipe
        self._pipe, self._family = pipe, stack.family
        self._device, self._dtype = torch.device(stack.device), pipe.transformer.dtype
        config = pipe.scheduler.config
        self._shift = 1.0 if config.use_dynamic_shifting else float(config.shift)
        self._kept: dict[str, tuple[Tensor, ...]] = {}
        self.size = size or WINDOW_PX
        if stack.family == "qwen-edit":  # its call knows one area
            self.size = _megapixel(pipe)
        self.targets: str | list[str] = _FUSED if stack.family == "flux2-klein" else _ATTENTION

    def task(self, windows: Sequence[Drawn], hidden: Sequence[Bits], noise: np.random.Generator) -> Task:
        """As `lessons.Subject`. Where the transformer is shown the window, it is shown the place without the object."""
        clean = self._encode([w.pixels for w in windows])
        painted = torch.from_numpy(np.stack(hidden)[:, None]).to(self._device).float()
        mask = functional.interpolate(painted, clean.shape[-2:], mode="area")
        times = shifted(logit_normal(shares(len(windows), noise)), self._shift).to(self._device)
        drawn = torch.from_numpy(noise.standard_normal(clean.shape, dtype=np.float32)).to(self._device)
        t = times[:, None, None, None]
        places = None
        if self._family in _SHOWN:
            pictures = [emptied(w.pixels, area) for w, area in zip(windows, hidden, strict=True)]
            places = self._encode(pictures), pictures
        return Task((1 - t) * clean + t * drawn, times, drawn - clean, mask, places)

    @torch.no_grad()
    def keep(self, said: Iterable[str]) -> None:
        """Encode words that do not learn, and send the text encoders to main memory; where they read the window, they stay."""
        if self._family == "qwen-edit":
            return
        self._kept = {words: self._encode_words([words])[0] for words in said}
        for _, _, network in tokens.encoders(self._pipe):
            network.to("cpu")

    def answer(self, task: Task, said: Sequence[str]) -> Tensor:
        """As `lessons.Subject`."""
        seen, times = task.seen.to(self._dtype), task.times.to(self._dtype)
        match self._family:
            case "z-image":
                found = self._z_image(seen, task.times, said)
            case "flux":
                found = self._flux(seen, times, said)
            case "flux2-klein":
                found = self._klein(seen, times, said, task.besides[0].to(self._dtype))
            case "qwen-edit":
                found = self._qwen(seen, times, said, *task.besides)
            case "sd15" | "sdxl":
                raise AssertionError("of the UNet family, which has lessons of its own")
        return found.float()

    def _z_image(self, seen: Tensor, times: Tensor, said: Sequence[str]) -> Tensor:
        words = [row for (row,) in self._words(said)]
        # It counts from noise to picture, and answers the other way.
        found = self._pipe.transformer(
            list(seen.unsqueeze(2).unbind(0)), 1 - times, words, return_dict=False
        )[0]
        return -torch.stack(list(found)).squeeze(2)

    def _flux(self, seen: Tensor, times: Tensor, said: Sequence[str]) -> Tensor:
        words, pooled = (torch.stack(rows) for rows in zip(*self._words(said), strict=True))
        n, _, height, width = seen.shape
        ids = self._pipe._prepare_latent_image_ids(n, height // 2, width // 2, self._device, self._dtype)  # noqa: SLF001 (diffusers' own way to number latents)
        guided = self._pipe.transformer.config.guidance_embeds
        found = self._pipe.transformer(
            hidden_states=_packed(seen),
            timestep=times,
            guidance=torch.full((n,), _GUIDANCE, device=self._device) if guided else None,
            pooled_projections=pooled,
            encoder_hidden_states=words,
            txt_ids=torch.zeros(words.shape[1], 3, device=self._device, dtype=self._dtype),
            img_ids=ids,
            return_dict=False,
        )[0]
        return _unpacked(found, height, width)

    def _klein(self, seen: Tensor, times: Tensor, said: Sequence[str], place: Tensor) -> Tensor:
        pipe = self._pipe
        words = torch.stack([row for (row,) in self._words(said)])
        n, channels, height, width = seen.shape
        ids = [pipe._prepare_latent_ids(seen), pipe._prepare_image_ids([place], n)]  # noqa: SLF001 (diffusers' own way to number latents)
        flat = [latents.reshape(n, channels, -1).transpose(1, 2) for latents in (seen, place)]
        found = pipe.transformer(
            hidden_states=torch.cat(flat, dim=1),
            timestep=times,
            guidance=None,
            encoder_hidden_states=words,
            txt_ids=pipe._prepare_text_ids(words).to(self._device),  # noqa: SLF001 (as above)
            img_ids=torch.cat(ids, dim=1).to(self._device),
            return_dict=False,
        )[0]
        return cast("Tensor", found[:, : height * width].transpose(1, 2).reshape(n, channels, height, width))

    def _qwen(
        self, seen: Tensor, times: Tensor, said: Sequence[str], place: Tensor, pictures: Sequence[Rgb]
    ) -> Tensor:
        words, known = self._pipe.encode_prompt(
            list(said), image=[Image.fromarray(picture) for picture in pictures], device=self._device
        )
        n, _, height, width = seen.shape
        packed = _packed(seen)
        found = self._pipe.transformer(
            hidden_states=torch.cat([packed, _packed(place.to(self._dtype))], dim=1),
            timestep=times,
            guidance=None,
            encoder_hidden_states_mask=known,
            encoder_hidden_states=words.to(self._dtype),
            img_shapes=[[(1, height // 2, width // 2)] * 2] * n,
            return_dict=False,
        )[0]
        return _unpacked(found[:, : packed.shape[1]], height, width)

    def _words(self, said: Sequence[str]) -> list[tuple[Tensor, ...]]:
        """What the text encoders say of each prompt."""
        return [self._kept[words] for words in said] if self._kept else self._encode_words(said)

    def _encode_words(self, said: Sequence[str]) -> list[tuple[Tensor, ...]]:
        more: dict[str, Any] = {}
        if self._family == "z-image":
            more["do_classifier_free_guidance"] = False
        elif self._family == "flux":
            more["prompt_2"] = None
        words, pooled, *_ = self._pipe.encode_prompt(list(said), device=self._device, **more)
        if self._family == "flux":
            return [(a.to(self._dtype), b.to(self._dtype)) for a, b in zip(words, pooled, strict=True)]
        return [(row.to(self._dtype),) for row in words]

    def _encode(self, pictures: Sequence[Rgb]) -> Tensor:
        """float32 (N, C, L, L), as the family's transformer has them: of FLUX.2 in patches of two by two."""
        pixels = torch.from_numpy(np.stack(pictures)).to(self._device).movedim(-1, 1).float() / 127.5 - 1
        vae, config = self._pipe.vae, self._pipe.vae.config
        pixels = pixels.to(vae.dtype)
        if self._family == "qwen-edit":
            mode = vae.encode(pixels.unsqueeze(2)).latent_dist.mode()[:, :, 0].float()
            shape = (1, -1, 1, 1)
            mean, spread = (
                torch.tensor(v, device=self._device).view(shape)
                for v in (config.latents_mean, config.latents_std)
            )
            return cast("Tensor", (mode - mean) / spread)
        mode = vae.encode(pixels).latent_dist.mode()
        if self._family == "flux2-klein":
            mode = self._pipe._patchify_latents(mode)  # noqa: SLF001 (diffusers' own order of a patch)
            shape = (1, -1, 1, 1)
            mean = vae.bn.running_mean.view(shape)
            spread = (vae.bn.running_var.view(shape) + config.batch_norm_eps).sqrt()
            return cast("Tensor", ((mode - mean) / spread).float())
        return cast("Tensor", (mode.float() - config.shift_factor) * config.scaling_factor)


def logit_normal(share: np.ndarray[Any, np.dtype[np.float64]]) -> Tensor:
    """Times between 0 and 1 whose logits are normal: where shares of 0 to 1 lie in that distribution.

    Source: Esser et al. 2024, Scaling Rectified Flow Transformers, section 3.1, with mean 0 and deviation 1.
    """
    logits: Tensor = torch.special.ndtri(torch.from_numpy(share).clamp(1e-4, 1 - 1e-4))
    return logits.sigmoid().float()


def shifted(times: Tensor, shift: float) -> Tensor:
    """Times moved towards noise. Source: Esser et al. 2024, equation 23."""
    return shift * times / (1 + (shift - 1) * times)


def emptied(pixels: Rgb, hidden: Bits) -> Rgb:
    """A window without its object: the colours of its surroundings, continued. What is shown must not give the answer away."""
    filled = blend.membrane(pixels.astype(np.float32), hidden)
    return np.rint(filled).clip(0, 255).astype(np.uint8)


def _packed(latents: Tensor) -> Tensor:
    """(N, C, L, L) as rows of patches of two by two, (N, L * L / 4, 4 * C)."""
    n, channels, height, width = latents.shape
    patches = latents.reshape(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(n, height * width // 4, channels * 4)


def _unpacked(rows: Tensor, height: int, width: int) -> Tensor:
    """`_packed` undone."""
    n, _, channels = rows.shape
    patches = rows.reshape(n, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(n, channels // 4, height, width)


def _megapixel(pipe: Any) -> int:
    """Side of the square that Qwen-Image-Edit brings each picture to."""
    module: Any = inspect.getmodule(type(pipe))
    return int(module.calculate_dimensions(1024 * 1024, 1.0)[0])
