"""Fit a published checkpoint to a user's dataset: an adapter and a word for each rare category, kept from run to run."""

import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import torch

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.errors import ModelError, RunError
from rarefill.generators import adapt_loop, pipelines
from rarefill.generators.adapt_loop import Course
from rarefill.generators.adapt_windows import Annotated
from rarefill.generators.adapt_words import token
from rarefill.generators.hub import families, memory, quantise, stack, tokens
from rarefill.generators.hub.flow_lessons import FlowSubject
from rarefill.generators.hub.lessons import Lessons, Subject
from rarefill.generators.hub.stack import Stack, Wanted
from rarefill.generators.hub.unet_lessons import UNetSubject
from rarefill.hub_options import HubConfig
from rarefill.progress import SILENT, Progress
from rarefill.recipe import GeneratorConfig

VERSION: Final = 2
"""Of the lessons: a change of them gets a new number, and with it a new adapter."""
_WORK: Final = "state.safetensors"
_MEASURED: Final = 16


def words(rare: Sequence[str], hub: HubConfig) -> dict[str, str]:
    """What stands for each rare category in prompts, once an adapter is fitted: its own word, and its name."""
    return {name: f"{token(name)} {name}" for name in rare} if hub.fit_words else {}


def fitted(
    dataset: Dataset,
    bank: Bank,
    config: GeneratorConfig,
    hub: HubConfig,
    wanted: Wanted,
    *,
    rare: Sequence[str],
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    course: Course | None = None,
    progress: Progress = SILENT,
) -> Path:
    """An adapter of a checkpoint to a dataset, from the cache where it holds one.

    Args:
        dataset: the real data.
        bank: silhouettes of the rare categories.
        config: its `minutes` and `adapt_steps` bound the fit.
        hub: the recipe's section of published checkpoints.
        wanted: the checkpoint.
        rare: the categories to be painted.
        seed: names the windows and the noise.
        cache: folder of fitted models; a stopped fit goes on from what it left there.
        no_mirror: categories that are never mirrored.
        course: how fast to learn, instead of the usual.
        progress: shows the steps and what came of them.

    Returns:
        A folder: `pytorch_lora_weights.safetensors`, which diffusers' `load_lora_weights` reads, `learned_tokens.safetensors`,
        and `fitted.json`, which says how it went.

    Raises:
        ModelError: there is nothing to learn from, memory does not reach, or the optimiser cannot be had.
        RunError: the cache cannot be written.
    """
    begun = time.monotonic()
    optimiser = _eight_bits() if hub.fit_optimiser == "8bit" else adapt_loop.adamw
    course = course or Course(
        config.minutes,
        config.adapt_steps,
        batch=hub.fit_batch,
        rate=hub.fit_rate,
        measured=_MEASURED,
        looked_from=0.0,
    )
    home = cache / f"lora-{_key(dataset, hub, wanted, course, rare, seed, no_mirror)}"
    if (home / "fitted.json").exists():
        return home
    with _within_memory(wanted.base.name, course.batch):
        where = pipelines.device()
        dtype = torch.float32 if where == "cpu" else stack.precision(hub, where)
        # ControlNets learn nothing, so they stay away.
        alone = replace(wanted, controls=(), nets=(), modes=()) if wanted.nets else wanted
        loaded = stack.load(alone, _for_lessons(hub), device=where, dtype=dtype)
        if hub.fit_checkpointing:
            _checkpoint(loaded)
        mine = words(rare, hub)
        captions = {name: mine.get(name, name) for name in dataset.names}
        source = Annotated(dataset, bank, rare=rare, captions=captions, no_mirror=no_mirror, seed=seed)
        subject = _subject(loaded, hub)
        if not hub.fit_words and isinstance(subject, FlowSubject):
            subject.keep(["", *captions.values()])
        lessons = Lessons(
            loaded,
            subject,
            source,
            {token(name): name for name in mine},
            rank=hub.fit_rank,
            batch=course.batch,
            seed=seed,
        )
        n = sum(value.numel() for value in lessons.module.parameters())
        progress.say(
            f"fitting an adapter of {n / 1e6:.2f} M numbers to {dataset.path.name}; kept for later runs in {home}"
        )
        work = cache / f"{home.name}.part"
        try:
            work.mkdir(parents=True, exist_ok=True)
            outcome = adapt_loop.run(
                lessons,
                course,
                work / _WORK,
                measured=bool(source.held),
                begun=begun,
                progress=progress,
                optimizer=optimiser,
            )
            progress.say(str(outcome))
            aside = cache / f"{home.name}.{os.getpid()}.part"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            lessons.save(aside)
            if mine:
                tokens.save(loaded.pipe, [token(name) for name in mine], aside / stack.TOKENS)
            said = asdict(outcome) | {"base": wanted.base.name, "words": mine}
            (aside / "fitted.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
            aside.rename(home)
            shutil.rmtree(work, ignore_errors=True)
        except OSError as error:
            raise RunError(
                f"{cache}: cannot be written: {error.strerror or error}; free space or choose another --cache"
            ) from error
    return home


@contextmanager
def _within_memory(name: str, batch: int) -> Iterator[None]:
    """Say in a line what helps where weights or a step are too much.

    Raises:
        ModelError: memory does not reach.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.out_of_memory(error):
            raise
        raise ModelError(
            f"{name}: not enough memory for a step of {batch} windows; say --fit-batch 1, --fit-checkpointing, "
            "--no-fit-words, --fit-optimiser 8bit, --quantise 4bit, or a smaller --window-px"
        ) from error


def _for_lessons(hub: HubConfig) -> HubConfig:
    """Everything in place and as it is; layers of 8-bit floats cannot be gone back through, so they are read whole."""
    bits = hub.quantise if quantise.by_library(hub.quantise) else "none"
    return hub.model_copy(
        update={"offload": "none", "step_cache": "none", "compile": False, "quantise": bits}
    )


def _subject(loaded: Stack, hub: HubConfig) -> Subject:
    if loaded.family in {"sd15", "sdxl"}:
        return UNetSubject(loaded, size=hub.window_px)
    if type(loaded.pipe).__name__ == "FluxControlInpaintPipeline":
        raise ModelError(
            "--adapt: FLUX.1 Canny and Depth take no lessons; say --no-adapt, or take FLUX.1 dev"
        )
    return FlowSubject(loaded, size=hub.window_px)


def _checkpoint(loaded: Stack) -> None:
    """Layers are computed again on the way back instead of remembered, of the denoiser and of text encoders."""
    families.denoiser(loaded.pipe).enable_gradient_checkpointing()
    for _, _, network in tokens.encoders(loaded.pipe):
        enable = getattr(
            network, "activation_checkpointing_enable", None
        )  # as newer versions of transformers call it
        (enable or network.gradient_checkpointing_enable)({"use_reentrant": False})
        for layer in network.modules():
            if getattr(layer, "gradient_checkpointing", False):
                # It looks at this; what drops values at random is further in, and stays off.
                layer.training = True


def _eight_bits() -> adapt_loop.Optimising:
    """AdamW that keeps its moments in 8 bits (Dettmers et al. 2022).

    Raises:
        ModelError: there is no bitsandbytes, or no GPU for it.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError("--fit-optimiser 8bit needs bitsandbytes: pip install 'rarefill[gpu]'")
    if not torch.cuda.is_available():
        raise ModelError("--fit-optimiser 8bit needs a GPU; on a processor say --fit-optimiser adamw")
    from bitsandbytes.optim import AdamW8bit

    return lambda learning, rate: AdamW8bit(learning, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)


def _key(
    dataset: Dataset,
    hub: HubConfig,
    wanted: Wanted,
    course: Course,
    rare: Sequence[str],
    seed: int,
    no_mirror: Sequence[str],
) -> str:
    says = (
        VERSION,
        dataset.digest,
        wanted.digest(),
        {**asdict(course), "save_minutes": 0},
        (hub.fit_rank, hub.window_px, hub.fit_words, hub.fit_optimiser, _for_lessons(hub).quantise),
        list(rare),
        list(no_mirror),
        seed,
    )
    return hashlib.sha256(json.dumps(says).encode()).hexdigest()[:16]
