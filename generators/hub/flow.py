"""Transformer pipelines: Z-Image, FLUX.2 klein, FLUX.1 with a ControlNet, Qwen-Image-Edit.

Each batch is one call of diffusers' own pipeline, with a picture, a mask, words and a seed for each window. A loop of our own
would say the same four times: these checkpoints take few steps, and most are distilled, so that guidance costs nothing.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from PIL import Image

from rarefill.errors import ModelError
from rarefill.generators import pipelines
from rarefill.generators.compact_conditioning import Rgb
from rarefill.generators.denoise import Canvas, Sampling
from rarefill.generators.hub import asked, families, faster, memory
from rarefill.generators.hub.flow_lessons import WINDOW_PX
from rarefill.generators.hub.stack import Stack
from rarefill.generators.hub.words import Words
from rarefill.hub_options import HubConfig

_ALONE: Final = frozenset({"qwen-edit"})
"""Families whose call takes one window at a time."""


class FlowPainter:
    """A transformer pipeline, ready to paint. One batch at a time, whichever thread asks."""

    def __init__(self, stack: Stack, hub: HubConfig, *, key: str = "", cache: Path | None = None) -> None:
        """Take a pipeline.

        Args:
            stack: the pipeline.
            hub: the recipe's section.
            key: names its text encoders, for the prompts that are kept.
            cache: folder for them; None keeps them in memory alone.

        Raises:
            ModelError: the recipe asks for what the pipeline cannot.
        """
        if hub.scheduler != "saved":
            raise ModelError(
                f"--scheduler {hub.scheduler}: {stack.family} flows along its own schedule; leave it at saved"
            )
        self._scales = list(asked.scales(hub.control_scale, len(stack.nets)))
        alone = stack.family in _ALONE or faster.alone(hub.step_cache)
        self.stack, self.batch = stack, 1 if alone else hub.paint_batch
        self.size = hub.window_px or WINDOW_PX
        self._hub = hub
        named = hashlib.sha256(f"{key} {families.denoiser(stack.pipe).dtype}".encode()).hexdigest()
        self._words = Words(self._encode_words, key=named, folder=cache)
        self._lock, self._room = threading.Lock(), memory.Room()

    def noise_shape(self, size: int) -> tuple[int, int, int]:
        """Noise is drawn by the pipeline, from the canvas's seed."""
        del size
        return 1, 1, 1

    @torch.no_grad()
    def paint(self, canvases: Sequence[Canvas], sampling: Sampling, *, strength: float = 1.0) -> Rgb:
        """Paint a batch; as `Denoiser.paint`.

        Raises:
            ModelError: the networks answered with what is no number, or memory does not reach.
        """
        with self._lock, pipelines.quiet():
            return memory.halving(
                canvases, lambda part: self._paint(part, sampling, strength), self.stack.pipe.vae, self._room
            )

    def _paint(self, canvases: Sequence[Canvas], sampling: Sampling, strength: float) -> Rgb:
        told = self._told(canvases, sampling, strength)
        seeds = [torch.Generator("cpu").manual_seed(c.seed) for c in canvases]
        with faster.context(self.stack.pipe, self.stack.family, self._hub.step_cache):
            painted = self.stack.pipe(
                image=[Image.fromarray(c.pixels) for c in canvases],
                mask_image=[Image.fromarray(c.hidden) for c in canvases],
                num_inference_steps=max(sampling.steps, int(np.ceil(1 / strength))),
                generator=seeds if len(seeds) > 1 else seeds[0],
                output_type="np",
                **told,
            ).images
        if not bool(np.isfinite(painted).all()):
            raise ModelError(
                "the model painted what is no number; try --precision bfloat16 or float32, or another checkpoint"
            )
        return np.stack([_sized(np.rint(one * 255).astype(np.uint8), self.size) for one in painted])

    def _told(self, canvases: Sequence[Canvas], sampling: Sampling, strength: float) -> dict[str, Any]:
        """What each family's call takes besides, in its own words."""
        scale = sampling.guidance_scale
        told = self._said([c.prompt for c in canvases], guided=scale > 1)
        if self.stack.controls:
            maps = [
                [Image.fromarray(np.ascontiguousarray(c.control[:, :, k : k + 3])) for c in canvases]
                for k in range(0, canvases[0].control.shape[2], 3)
            ]
            several = len(self.stack.nets) > 1
            told["control_image"] = maps if several else maps[0]
            if self._scales:
                told["controlnet_conditioning_scale"] = self._scales if several else self._scales[0]
            if several:
                told["control_mode"] = [None] * len(maps)  # of no union; diffusers goes through them together
        match self.stack.family:
            case "z-image":
                told |= {"guidance_scale": scale - 1, "height": self.size, "width": self.size}
                told |= {} if self.stack.controls else {"strength": strength}
            case "flux":
                told |= {"guidance_scale": scale, "strength": strength}
                told |= {"height": self.size, "width": self.size}
            case "flux2-klein":
                told |= {"guidance_scale": scale, "strength": strength}
            case "qwen-edit":
                told |= {"true_cfg_scale": scale, "strength": strength}
            case "sd15" | "sdxl":
                raise AssertionError("of the UNet family, which has a loop of its own")
        return told

    def _said(self, prompts: Sequence[str], *, guided: bool) -> dict[str, Any]:
        """Words as each family's call takes them: encoded, each prompt once, but where they are read with the picture."""
        negative = [self._hub.negative_prompt] * len(prompts)
        if self.stack.family == "qwen-edit":
            said: dict[str, Any] = {"prompt": list(prompts)}
            return said | ({"negative_prompt": [words or " " for words in negative]} if guided else {})
        device = self.stack.device
        if self.stack.family == "z-image":  # of any length
            told = {"prompt_embeds": [self._words.one(prompt)[0][0].to(device) for prompt in prompts]}
            if guided:
                told["negative_prompt_embeds"] = [
                    self._words.one(words)[0][0].to(device) for words in negative
                ]
            return told
        words, *pooled = (tensor.to(device) for tensor in self._words.of(prompts))
        if pooled:
            return {"prompt_embeds": words, "pooled_prompt_embeds": pooled[0]}
        if not guided:
            return {"prompt_embeds": words}
        return {"prompt_embeds": words, "negative_prompt_embeds": self._words.of(negative)[0].to(device)}

    def _encode_words(self, prompt: str) -> tuple[torch.Tensor, ...]:
        pipe = self.stack.pipe
        where = pipe._execution_device  # noqa: SLF001 (as diffusers' own calls have it, also with parts elsewhere)
        match self.stack.family:
            case "z-image":
                return (
                    pipe.encode_prompt([prompt], device=where, do_classifier_free_guidance=False)[0][0][None],
                )
            case "flux":
                found = pipe.encode_prompt([prompt], prompt_2=None, device=where)
                return found[0], found[1]
            case _:
                return (pipe.encode_prompt([prompt], device=where)[0],)


def _sized(pixels: Rgb, size: int) -> Rgb:
    """An answer at its window's size: Qwen-Image-Edit answers with a megapixel whatever it is given."""
    if pixels.shape[0] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
