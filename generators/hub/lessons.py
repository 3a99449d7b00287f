"""One step of teaching an adapter: windows of the user's data, noised, and the base model's own answers as a rein.

The UNet learns through low-rank adapters (Hu et al. 2021), each rare category through a row of its own in the text encoders'
tables (Gal et al. 2022). Where no object is meant, the adapter is held to what the base model says there: prior preservation
without pictures that have to be painted first (Ruiz et al. 2023 paint them).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.adapt_windows import Annotated
from rarefill.generators.hub import tokens
from rarefill.generators.hub.stack import Stack
from rarefill.generators.train import loop
from rarefill.generators.train.sources import Drawn
from rarefill.seeds import Stage, rng

NO_WORDS: Final = 0.1
"""Part of the windows whose words are left out, so that guidance has an answer without them."""
OUTSIDE: Final = 0.1
"""Weight of an error outside the painted area, against one inside."""
PRIOR: Final = 0.5
"""Weight of straying from the base model where no object is meant."""
_TARGETS: Final = ["to_q", "to_k", "to_v", "to_out.0"]
_DRAW, _NOISE, _MEASURE = 11, 12, 13  # what is drawn for, first in the seed's key


class Lessons:
    """Everything that learns, and what a step looks at."""

    def __init__(
        self,
        stack: Stack,
        source: Annotated,
        words: Mapping[str, str],
        *,
        size: int,
        rank: int,
        batch: int,
        seed: int,
    ) -> None:
        """Wake an adapter and the words.

        Args:
            stack: a pipeline of the UNet family, nothing in it learning.
            source: windows.
            words: a new word, and the words that it begins as.
            size: of the windows.
            rank: of the adapter.
            batch: windows a step.
            seed: names windows and noise.
        """
        from peft import LoraConfig

        pipe = stack.pipe
        self._pipe, self._source, self._size = pipe, source, size
        self._batch, self._seed = batch, seed
        self._device, self._dtype = torch.device(stack.device), pipe.unet.dtype
        self._reduction = int(2 ** (len(pipe.vae.config.block_out_channels) - 1))
        self._schedule = _alphas(pipe.scheduler).to(self._device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pipe.unet.add_adapter(
                LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=_TARGETS)
            )
        named = {}
        for name, value in pipe.unet.named_parameters():
            if "lora_" in name:
                value.data = value.data.float()  # steps are too small for 16 bits
                named[f"unet/{name}"] = value.requires_grad_()
        tokens.add(pipe, words)
        self._rows = tokens.learning(pipe, list(words))
        self.module = _Learning(named | self._rows)

    def stage(self) -> loop.Stage:
        """As the loop of adaptations takes it."""
        return loop.Stage(self.module, self.losses, _no_sheet)

    def losses(self, step: int) -> loop.Losses:
        """The error inside the painted areas, and the straying where no object is meant."""
        draws = [rng(self._seed, Stage.FIT, _DRAW, step * self._batch + n) for n in range(self._batch)]
        windows = [self._source.draw(draw, self._size) for draw in draws]
        noise = rng(self._seed, Stage.FIT, _NOISE, step)
        silent = noise.random(self._batch) < NO_WORDS
        said = ["" if quiet else w.caption for w, quiet in zip(windows, silent, strict=True)]
        return {"loss": self._error(windows, said, noise)}

    @torch.no_grad()
    def held_loss(self) -> float:
        """The same windows with the same noise every time."""
        total, rounds = 0.0, 4
        for n in range(rounds):
            draws = [rng(self._seed, Stage.FIT, _MEASURE, n * self._batch + k) for k in range(self._batch)]
            windows = [self._source.draw(draw, self._size, held=True) for draw in draws]
            noise = rng(self._seed, Stage.FIT, _MEASURE, 10_000 + n)
            total += float(self._error(windows, [w.caption for w in windows], noise)) / rounds
        return total

    def save(self, folder: Path) -> None:
        """Write what was learned: an adapter that diffusers' `load_lora_weights` reads, and the words."""
        from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        found = convert_state_dict_to_diffusers(get_peft_model_state_dict(self._pipe.unet))
        plain = {name: value.detach().float().cpu().contiguous() for name, value in found.items()}
        type(self._pipe).save_lora_weights(folder, unet_lora_layers=plain, safe_serialization=True)
        tokens.settle(self._pipe, self._rows)

    def _error(self, windows: Sequence[Drawn], said: Sequence[str], noise: np.random.Generator) -> Tensor:
        n = len(windows)
        pixels = self._tensor([w.pixels for w in windows]) / 127.5 - 1
        painted = np.stack([conditioning.grown(w.mask, max(1, w.margin_px)) for w in windows])[:, None]
        hidden = torch.from_numpy(painted).to(self._device)
        step = self._reduction
        mask = hidden[:, :, ::step, ::step].float()
        with torch.no_grad():
            clean = self._encode(pixels)
            given = None
            if self._pipe.unet.config.in_channels > clean.shape[1]:
                given = torch.cat([mask, self._encode(torch.where(hidden, 0, pixels))], dim=1)
        # One time from each n-th of the schedule: a step then sees early and late ones.
        share = (np.arange(n) + noise.random(n)) / n
        times = torch.from_numpy((share * len(self._schedule)).astype(np.int64)).to(self._device)
        drawn = torch.from_numpy(noise.standard_normal(clean.shape, dtype=np.float32)).to(self._device)
        kept = self._schedule[times][:, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * drawn
        seen = noisy if given is None else torch.cat([noisy, given], dim=1)
        answer = self._ask(seen, times, said)
        if self._pipe.scheduler.config.prediction_type == "v_prediction":
            drawn = kept.sqrt() * drawn - (1 - kept).sqrt() * clean
        target = drawn
        empty = torch.tensor([not words for words in said], device=self._device)
        if bool(empty.any()):
            with torch.no_grad(), self._base():
                base = self._ask(seen, times, said)
            target = torch.where(empty[:, None, None, None], base, drawn)
        weight = OUTSIDE + (1 - OUTSIDE) * mask
        weight = torch.where(
            empty[:, None, None, None], PRIOR, weight / weight.mean(dim=(2, 3), keepdim=True)
        )
        return ((answer - target) ** 2 * weight).mean()

    def _ask(self, seen: Tensor, times: Tensor, said: Sequence[str]) -> Tensor:
        found = self._pipe.encode_prompt(
            prompt=list(said), device=self._device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        extra: dict[str, Any] = {}
        if len(found) > 2:
            side = float(self._size)
            ids = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=self._device, dtype=self._dtype)
            extra["added_cond_kwargs"] = {
                "text_embeds": found[2].to(self._dtype),
                "time_ids": ids.expand(len(said), -1),
            }
        answer: Tensor = self._pipe.unet(
            seen.to(self._dtype),
            times,
            encoder_hidden_states=found[0].to(self._dtype),
            return_dict=False,
            **extra,
        )[0]
        return answer.float()

    @contextmanager
    def _base(self) -> Iterator[None]:
        """Without the adapter; words that are learned are not asked for here."""
        self._pipe.unet.disable_adapters()
        try:
            yield
        finally:
            self._pipe.unet.enable_adapters()

    def _encode(self, pixels: Tensor) -> Tensor:
        vae = self._pipe.vae
        mode = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
        latents: Tensor = mode * vae.config.scaling_factor
        return latents

    def _tensor(self, pictures: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.stack(pictures)).to(self._device).movedim(-1, 1).float()


class _Learning(nn.Module):
    """Parameters by name, shared with the networks that they belong to."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, value in named.items():
            self.register_parameter(name.replace(".", "/"), value)


def _alphas(scheduler: Any) -> Tensor:
    """How much of the signal is left at each time: the checkpoint's own schedule."""
    kept: Tensor = scheduler.alphas_cumprod
    return kept.float()


_no_sheet: Callable[[Path], Mapping[str, float]] = lambda _: {}  # noqa: E731 (there is nothing to draw)
