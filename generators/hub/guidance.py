"""CLIP guidance: each step is bent towards a picture that CLIP finds more like its words.

The picture is the clean one that the step's answer predicts; the gradient of its likeness goes through the autoencoder back to the
latents, and is added to the answer as a gradient of a classifier would be (Dhariwal and Nichol 2021, section 4.2). It does not go
through the UNet: that would cost a backward pass of it each step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rarefill.errors import ModelError
from rarefill.generators.hub.sources import Found


class Likeness:
    """How like its words CLIP finds a picture."""

    def __init__(self, found: Found, *, device: str) -> None:
        """Read CLIP.

        Args:
            found: a folder of transformers' CLIPModel with its tokenizer and its processor's settings.
            device: where it works.

        Raises:
            ModelError: it is none.
        """
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        try:
            self._model: Any = CLIPModel.from_pretrained(
                found.place, local_files_only=True, use_safetensors=True
            )
            self._tokenizer: Any = AutoTokenizer.from_pretrained(found.place, local_files_only=True)
            settings: Any = AutoImageProcessor.from_pretrained(found.place, local_files_only=True)
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{found.name}: no CLIP of transformers in safetensors ({type(error).__name__}: {said})"
            ) from error
        self._model.eval().requires_grad_(requires_grad=False).to(device)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(settings.image_mean, device=device).view(shape)
        self._spread = torch.tensor(settings.image_std, device=device).view(shape)
        self._size = int(self._model.config.to_dict()["vision_config"]["image_size"])
        self._words: dict[str, Tensor] = {}

    def of(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """(N,) cosines of pictures (N, 3, S, S), -1 to 1, and their words."""
        small = functional.interpolate(
            (pixels.float() + 1) / 2, (self._size, self._size), mode="bicubic", antialias=True
        )
        seen = self._model.vision_model(pixel_values=(small - self._mean) / self._spread)[1]
        seen = functional.normalize(self._model.visual_projection(seen), dim=-1)
        return (seen * torch.cat([self._said(prompt) for prompt in prompts])).sum(-1)

    def gradient(self, decode: Any, clean: Tensor, prompts: Sequence[str]) -> Tensor:
        """Of the likeness, for predicted clean latents.

        Args:
            decode: latents as pixels of -1 to 1.
            clean: float32 (N, C, L, L).
            prompts: N of them.
        """
        with torch.enable_grad():
            latents = clean.detach().requires_grad_()
            likeness = self.of(decode(latents).clamp(-1, 1), prompts).sum()
            (found,) = torch.autograd.grad(likeness, latents)
        return found

    @torch.no_grad()
    def _said(self, prompt: str) -> Tensor:
        """(1, D), of length 1."""
        if prompt not in self._words:
            limit = int(self._model.config.text_config.max_position_embeddings)
            given = self._tokenizer(prompt, truncation=True, max_length=limit, return_tensors="pt")
            said = self._model.text_model(input_ids=given.input_ids.to(self._mean.device))[1]
            self._words[prompt] = functional.normalize(self._model.text_projection(said), dim=-1)
        return self._words[prompt]


def bent(answer: Tensor, kept: Tensor, pull: Tensor, kind: str) -> Tensor:
    """A UNet's answer with a pull on the clean picture added.

    Args:
        answer: the noise, or the velocity where `kind` is "v_prediction".
        kept: how much of the signal is left at this time, between 0 and 1.
        pull: the gradient at the predicted clean latents, times its scale.
        kind: the scheduler's `prediction_type`.
    """
    # The clean latents are (x - sqrt(1 - kept) * noise) / sqrt(kept): by the chain rule the pull on x is over sqrt(kept).
    noise = (1 - kept).sqrt() * pull / kept.sqrt()
    return answer - (noise / kept.sqrt() if kind == "v_prediction" else noise)


def predicted(looked: Tensor, answer: Tensor, kept: Tensor, kind: str) -> Tensor:
    """The clean latents that an answer means, for latents scaled as the UNet sees them."""
    if kind == "v_prediction":
        return kept.sqrt() * looked - (1 - kept).sqrt() * answer
    return (looked - (1 - kept).sqrt() * answer) / kept.sqrt()
