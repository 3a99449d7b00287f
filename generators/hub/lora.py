"""Fit a published checkpoint to a user's dataset: an adapter and a word for each rare category, kept from run to run."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
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
from rarefill.generators.hub import stack, tokens
from rarefill.generators.hub.lessons import Lessons
from rarefill.generators.hub.stack import Wanted
from rarefill.hub_options import HubConfig
from rarefill.progress import SILENT, Progress
from rarefill.recipe import GeneratorConfig

VERSION: Final = 1
"""Of the lessons: a change of them gets a new number, and with it a new adapter."""
_WORK: Final = "state.safetensors"
_MEASURED: Final = 16


def words(rare: Sequence[str]) -> dict[str, str]:
    """What stands for each rare category in prompts, once an adapter is fitted: its own word, and its name."""
    return {name: f"{token(name)} {name}" for name in rare}


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
        ModelError: the checkpoint is of no family that can be fitted, or there is nothing to learn from.
        RunError: the cache cannot be written.
    """
    begun = time.monotonic()
    course = course or Course(
        config.minutes,
        config.adapt_steps,
        batch=hub.fit_batch,
        small=0.0,
        rate=hub.fit_rate,
        measured=_MEASURED,
    )
    home = cache / f"lora-{_key(dataset, hub, wanted, course, rare, seed, no_mirror)}"
    if (home / "fitted.json").exists():
        return home
    where = pipelines.device()
    dtype = torch.float32 if where == "cpu" else stack.precision(hub, where)
    loaded = stack.load(wanted, hub.model_copy(update={"offload": "none"}), device=where, dtype=dtype)
    if loaded.family not in {"sd15", "sdxl"}:
        raise ModelError(
            f"{wanted.base.name}: only SD 1.5 and SDXL can be adapted, this is {loaded.family}; say --no-adapt, "
            "or bring an adapter with --lora"
        )
    if hub.fit_checkpointing:
        loaded.pipe.unet.enable_gradient_checkpointing()
    mine = words(rare)
    captions = {name: mine.get(name, name) for name in dataset.names}
    source = Annotated(dataset, bank, rare=rare, captions=captions, no_mirror=no_mirror, seed=seed)
    reduction = int(2 ** (len(loaded.pipe.vae.config.block_out_channels) - 1))
    size = hub.window_px or int(loaded.pipe.unet.config.sample_size) * reduction
    lessons = Lessons(
        loaded,
        source,
        {token(name): name for name in rare},
        size=size,
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
            lessons,
            course,
            work / _WORK,
            measured=bool(source.held),
            begun=begun,
            progress=progress,
        )
        progress.say(str(outcome))
        aside = cache / f"{home.name}.{os.getpid()}.part"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        lessons.save(aside)
        tokens.save(loaded.pipe, [token(name) for name in rare], aside / stack.TOKENS)
        said = asdict(outcome) | {"base": wanted.base.name, "words": mine}
        (aside / "fitted.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        aside.rename(home)
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise RunError(
            f"{cache}: cannot be written: {error.strerror or error}; free space or choose another --cache"
        ) from error
    return home


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
        (hub.fit_rank, hub.window_px),
        list(rare),
        list(no_mirror),
        seed,
    )
    return hashlib.sha256(json.dumps(says).encode()).hexdigest()[:16]
