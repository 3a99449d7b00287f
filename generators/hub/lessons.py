"""One step of teaching an adapter: windows of the user's data, noised, and the base model's own answers as a rein.

The denoiser learns through low-rank adapters (Hu et al. 2021), each rare category through a row of its own in the text encoders'
tables (Gal et al. 2022). Where no object is meant, the adapter is held to what the base model says there: prior preservation
without pictures that have to be painted first (Ruiz et al. 2023 paint them). What a denoiser is shown and asked is its family's:
`unet_lessons.py` and `flow_lessons.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.adapt_windows import Annotated
from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.hub import families, tokens
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
_DRAW, _NOISE, _MEASURE = 11, 12, 13  # what is drawn for, first in the seed's key


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Noised windows, and what is to be said of them.

    Attributes:
        seen: (N, C, L, L), what the denoiser is shown of them.
        times: (N,), how much noise is in each, in the family's own numbers.
        target: float32 (N, D, L, L), the answer.
        mask: float32 (N, 1, L, L), 1 where it is painted.
        besides: what else the family's denoiser is shown.
    """

    seen: Tensor
    times: Tensor
    target: Tensor
    mask: Tensor
    besides: Any = None


class Subject(Protocol):
    """What one family's denoiser learns: how windows are noised, and how it is asked."""

    size: int
    """Side of a window in pixels."""
    targets: str | list[str]
    """The layers that get an adapter, as peft names them."""

    def task(self, windows: Sequence[Drawn], hidden: Sequence[Bits], noise: np.random.Generator) -> Task:
        """Noise windows; `hidden` are the areas that are painted."""
        ...

    def answer(self, task: Task, said: Sequence[str]) -> Tensor:
        """What the denoiser says of a task when it is told these words, float32 like the target."""
        ...


class Lessons:
    """Everything that learns, and what a step looks at."""

    def __init__(
        self,
        stack: Stack,
        subject: Subject,
        source: Annotated,
        words: Mapping[str, str],
        *,
        rank: int,
        batch: int,
        seed: int,
    ) -> None:
        """Wake an adapter and the words.

        Args:
            stack: a pipeline, nothing in it learning.
            subject: what its family learns.
            source: windows.
            words: a new word, and the words that it begins as.
            rank: of the adapter.
            batch: windows a step.
            seed: names windows and noise.
        """
        from peft import LoraConfig

        self._pipe, self._network = stack.pipe, families.denoiser(stack.pipe)
        self._subject, self._source = subject, source
        self._batch, self._seed = batch, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network.add_adapter(
                LoraConfig(
                    r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=subject.targets
                )
            )
        named = {}
        for name, value in self._network.named_parameters():
            if "lora_" in name:
                value.data = value.data.float()  # steps are too small for 16 bits
                named[f"denoiser/{name}"] = value.requires_grad_()
        tokens.add(self._pipe, words)
        self._rows = tokens.learning(self._pipe, list(words))
        self.module = _Learning(named | self._rows)

    def stage(self) -> loop.Stage:
        """As the loop of adaptations takes it."""
        return loop.Stage(self.module, self.losses, _no_sheet)

    def losses(self, step: int) -> loop.Losses:
        """The error inside the painted areas, and the straying where no object is meant."""
        windows = self._windows([(_DRAW, step * self._batch + n) for n in range(self._batch)], held=False)
        noise = rng(self._seed, Stage.FIT, _NOISE, step)
        silent = noise.random(self._batch) < NO_WORDS
        said = ["" if quiet else w.caption for w, quiet in zip(windows, silent, strict=True)]
        return {"loss": self._error(windows, said, noise)}

    @torch.no_grad()
    def held_loss(self) -> float:
        """The same windows with the same noise every time."""
        total, rounds = 0.0, 4
        for n in range(rounds):
            keys = [(_MEASURE, n * self._batch + k) for k in range(self._batch)]
            windows = self._windows(keys, held=True)
            noise = rng(self._seed, Stage.FIT, _MEASURE, 10_000 + n)
            total += float(self._error(windows, [w.caption for w in windows], noise)) / rounds
        return total

    def save(self, folder: Path) -> None:
        """Write what was learned: an adapter that diffusers' `load_lora_weights` reads, and settle the words."""
        from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self._network)
        unet = hasattr(self._pipe, "unet")
        if unet:
            found = convert_state_dict_to_diffusers(found)
        plain = {name: value.detach().float().cpu().contiguous() for name, value in found.items()}
        given = {"unet_lora_layers" if unet else "transformer_lora_layers": plain}
        type(self._pipe).save_lora_weights(folder, safe_serialization=True, **given)
        tokens.settle(self._pipe, self._rows)

    def _windows(self, keys: Sequence[tuple[int, int]], *, held: bool) -> list[Drawn]:
        size = self._subject.size
        return [self._source.draw(rng(self._seed, Stage.FIT, *key), size, held=held) for key in keys]

    def _error(self, windows: Sequence[Drawn], said: Sequence[str], noise: np.random.Generator) -> Tensor:
        hidden = [conditioning.grown(w.mask, max(1, w.margin_px)) for w in windows]
        with torch.no_grad():
            task = self._subject.task(windows, hidden, noise)
        answer, target = self._subject.answer(task, said), task.target
        empty = torch.tensor([not words for words in said], device=target.device)[:, None, None, None]
        if bool(empty.any()):
            with torch.no_grad(), self._base():
                target = torch.where(empty, self._subject.answer(task, said), target)
        weight = OUTSIDE + (1 - OUTSIDE) * task.mask
        weight = torch.where(empty, PRIOR, weight / weight.mean(dim=(2, 3), keepdim=True))
        return ((answer - target) ** 2 * weight).mean()

    @contextmanager
    def _base(self) -> Iterator[None]:
        """Without the adapter; words that are learned are not asked for here."""
        self._network.disable_adapters()
        try:
            yield
        finally:
            self._network.enable_adapters()


def shares(n: int, noise: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N,), one from each n-th of 0 to 1: a step then sees early and late times."""
    return np.asarray((np.arange(n) + noise.random(n)) / n)


class _Learning(nn.Module):
    """Parameters by name, shared with the networks that they belong to."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, value in named.items():
            self.register_parameter(name.replace(".", "/"), value)


_no_sheet: Callable[[Path], Mapping[str, float]] = lambda _: {}  # noqa: E731 (there is nothing to draw)
