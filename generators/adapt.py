"""Fit the painting model to a user's dataset: a pipeline folder of its own, kept from run to run.

`adapt_windows` says what it learns from, `adapt_loop` how long, `adapt_words` what its categories are called.
"""

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

from rarefill import cutouts
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.errors import ModelError, RunError
from rarefill.generators import adapt_loop, adapt_words, pipelines
from rarefill.generators.adapt_loop import Course, Outcome
from rarefill.generators.adapt_windows import Annotated
from rarefill.generators.adapt_words import token
from rarefill.generators.pipelines import Pipeline
from rarefill.generators.train import loop, shapes, stages
from rarefill.generators.train.diffusion import Painting, Parts
from rarefill.generators.window import CLOSE
from rarefill.progress import SILENT, Progress
from rarefill.recipe import GeneratorConfig

__all__ = ["adapted", "key", "token"]

VERSION: Final = 4
"""Of the windows, the steps and the words: a change of any of them gets a new number, and with it a new adaptation."""
CHUNK: Final = 8
REUSE: Final = 2
"""Batches encoded at a time, and how often each window is learned from: half as often as in pre-training."""
POWER: Final = 2.0
"""Of the noise's time steps: painting begins from a pasted object, so three in five lessons are of the third with the least noise."""
REDRAWS: Final = 0.6
"""Lessons whose map keeps the lines of the object: painting from a pasted object shows them, from noise it does not."""
_LEARNED: Final = ("unet", "controlnet", "text_encoder")
_WORK: Final = "state.safetensors"


def adapted(
    dataset: Dataset,
    bank: Bank,
    config: GeneratorConfig,
    *,
    base: Path,
    rare: Sequence[str],
    seed: int,
    cache: Path,
    device: str = "cpu",
    no_mirror: Sequence[str] = (),
    course: Course | None = None,
    progress: Progress = SILENT,
) -> Path:
    """A pipeline adapted to a dataset, from the cache where it holds one.

    Args:
        dataset: the real data.
        bank: silhouettes of the rare categories.
        config: its `minutes` and `adapt_steps` bound the adaptation.
        base: the pipeline's folder to begin with.
        rare: the categories to be painted.
        seed: names the windows, the noise and what is held back.
        cache: folder of adapted models; a stopped adaptation goes on from what it left there.
        device: "cpu" or "cuda".
        no_mirror: categories that are never mirrored.
        course: how fast to learn, instead of the usual.
        progress: shows the steps and what came of them.

    Returns:
        A folder as `base` is; in its prompts `token(name)` stands for a category.

    Raises:
        ModelError: the base cannot be read or is of another kind, or there is nothing to adapt to.
        RunError: the cache cannot be written.
    """
    begun = time.monotonic()
    course = course or Course(config.minutes, config.adapt_steps)
    named = f"compact-{key(dataset, course, base=base, rare=rare, seed=seed, no_mirror=no_mirror)}"
    home, work = cache / named, cache / f"{named}.part"
    if (home / "model_index.json").exists():
        return home
    pipeline = pipelines.load(base)
    _adaptable(base, pipeline)
    captions = {name: token(name) for name in dataset.names}
    source = Annotated(
        dataset,
        bank,
        rare=rare,
        captions=captions,
        no_mirror=no_mirror,
        seed=seed,
        framing=CLOSE,
        redraws=REDRAWS,
    )
    progress.say(_announced(dataset, course, source, home))
    adapt_words.add(pipeline.tokenizer, pipeline.text_encoder, dataset.names)
    try:
        work.mkdir(parents=True, exist_ok=True)
        painting = _painting(pipeline, source, course, seed, device)
        measured = bool(source.held)
        outcome = adapt_loop.run(
            painting, course, work / _WORK, measured=measured, begun=begun, progress=progress
        )
        progress.say(str(outcome))
        aside = cache / f"{named}.{os.getpid()}.part"
        _write(aside, base, pipeline, outcome)
        _into_place(aside, home)
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise RunError(
            f"{cache}: cannot be written: {error.strerror or error}; free space or choose another --cache"
        ) from error
    return home


def key(
    dataset: Dataset,
    course: Course,
    *,
    base: Path,
    rare: Sequence[str],
    seed: int,
    no_mirror: Sequence[str] = (),
) -> str:
    """16 hex digits that name everything that the weights follow from.

    Raises:
        ModelError: the base's folder is not there.
    """
    says = (
        VERSION,
        dataset.digest,
        cutouts.digest(),
        pipelines.digest(base),
        {**asdict(course), "save_minutes": 0},
        list(rare),
        list(no_mirror),
        seed,
    )
    return hashlib.sha256(json.dumps(says).encode()).hexdigest()[:16]


def _adaptable(base: Path, pipeline: Pipeline) -> None:
    """Only models of the embedded kind learn here: their windows, latents and schedule are what training knows."""
    wanted = {
        "pixels to a latent": (shapes.REDUCTION, pipeline.reduction),
        "scaling_factor of the vae": (1.0, pipeline.vae.config.scaling_factor),
        "prediction_type": ("v_prediction", pipeline.scheduler.config.prediction_type),
    }
    for what, (value, came) in wanted.items():
        if came != value:
            raise ModelError(
                f"{base}: only models of the embedded kind can be adapted: expected {what} {value}, got {came}; "
                "say --no-adapt"
            )


def _announced(dataset: Dataset, course: Course, source: Annotated, home: Path) -> str:
    most = f"at most {course.minutes:g} minute{'' if course.minutes == 1 else 's'}"
    if course.steps:
        most = f"{course.steps} steps, {most}"
    held = "too few images to hold any back"
    if source.held:
        held = f"{len(source.held)} of {len(dataset.images)} images are held back to tell when to stop"
    return (
        f"adapting the painting model to {dataset.path.name}: {most}; {held}; kept for later runs in {home}"
    )


def _painting(pipeline: Pipeline, source: Annotated, course: Course, seed: int, device: str) -> Painting:
    """What a step looks at."""
    parts = Parts(pipeline.unet, pipeline.controlnet, pipeline.text_encoder)
    parts.module().requires_grad_(requires_grad=True)
    stages.ready(parts, device)
    return Painting(
        parts,
        pipeline.vae.to(device),
        pipeline.tokenizer,
        source,
        loop.Settings(minutes=0, batch=course.batch, seed=seed, power=POWER),
        size=int(pipeline.unet.config.sample_size) * pipeline.reduction,
        chunk=CHUNK * course.batch,
        reuse=REUSE,
        measured=course.measured if source.held else 1,
        device=device,
    )


def _write(folder: Path, base: Path, pipeline: Pipeline, outcome: Outcome) -> None:
    """The base's folder with what has learned in its place, in 16 bits."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in base.iterdir():
        if part.is_dir() and part.name not in {*_LEARNED, "tokenizer"}:
            shutil.copytree(part, folder / part.name)
    with pipelines.quiet():
        for name in _LEARNED:
            network = getattr(pipeline, name)
            torch.nn.Module.to(network, torch.float16)  # diffusers' own warns of nothing here
            network.save_pretrained(folder / name)
        pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    shutil.copy(base / "model_index.json", folder)
    (folder / "adapted.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")


def _into_place(aside: Path, home: Path) -> None:
    try:
        aside.rename(home)
    except OSError:
        if not (home / "model_index.json").exists():
            raise
        shutil.rmtree(aside, ignore_errors=True)  # another process was as fast, and it is the same
