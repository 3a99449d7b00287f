"""Generators paint one object into one window; cutting, mixing and taking back are common to all."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.generators import window
from rarefill.generators.render import Generator, Job, render, take_back
from rarefill.generators.window import Framing, Painted, Window
from rarefill.hub_options import HubConfig
from rarefill.presets import is_hub
from rarefill.progress import SILENT, Progress
from rarefill.recipe import GeneratorConfig
from rarefill.scene import Placement

__all__ = [
    "Framing",
    "Generator",
    "Job",
    "Painted",
    "Window",
    "announce",
    "build",
    "fallback",
    "fit",
    "owed",
    "prepare",
    "render",
    "take_back",
    "too_large",
]


def too_large(config: GeneratorConfig, placements: Iterable[Placement]) -> int:
    """How many of the planned new objects are too large for the embedded model, which pastes them.

    Args:
        config: the recipe's section.
        placements: what is planned; redraws, which are never pasted, count as not too large.
    """
    return sum(window.too_large(config, placement) for placement in placements)


def build(
    config: GeneratorConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    hub: HubConfig | None = None,
    progress: Progress = SILENT,
) -> Generator:
    """Make the generator that the recipe names. Heavy imports happen here, on demand.

    Args:
        config: the recipe's section.
        dataset: whose objects and images.
        bank: its shapes, of the categories to be painted.
        seed: names the adaptation.
        cache: folder of adapted models.
        no_mirror: categories that are never mirrored.
        hub: the recipe's section of published checkpoints.
        progress: where the adaptation shows itself.

    Raises:
        ModelError: the model cannot be read, or not adapted.
    """
    from rarefill.generators.paste import Paste

    paste = Paste(config, dataset, bank)
    match config.generator:
        case "paste":
            return paste
        case "compact":
            from rarefill.generators import upscale
            from rarefill.generators.compact import Compact
            from rarefill.generators.denoise import Denoiser
            from rarefill.generators.pipelines import SHIPPED, device, dtype, load

            folder, prompts = fit(
                config, dataset, bank, seed=seed, cache=cache, no_mirror=no_mirror, progress=progress
            )
            where = device()
            denoiser = Denoiser(load(folder, device=where, dtype=dtype(where)))
            # Its words are those that it was trained with: the shipped model's, not those learned from this data.
            words = load(SHIPPED, device=where, dtype=dtype(where))
            sharp = upscale.Upscaler.load(upscale.SHIPPED, words, device=where)
            return Compact(
                config,
                denoiser,
                dataset,
                paste=paste,
                prompts=prompts,
                upscaler=sharp,
                framed=window.CLOSE,
                lines=True,
            )
        case _:
            from rarefill.generators.hub import build as published

            return published.generator(
                config,
                hub or HubConfig(),
                dataset,
                bank,
                paste=paste,
                seed=seed,
                cache=cache,
                no_mirror=no_mirror,
                progress=progress,
            )


def prepare(
    config: GeneratorConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    hub: HubConfig | None = None,
    progress: Progress = SILENT,
) -> None:
    """Do the long work ahead of time: what `build` would fit. Args and errors as for `build`."""
    if config.generator == "compact":
        fit(config, dataset, bank, seed=seed, cache=cache, no_mirror=no_mirror, progress=progress)
    elif is_hub(config.generator):
        from rarefill.generators.hub import build as published

        published.fit(
            config,
            hub or HubConfig(),
            dataset,
            bank,
            seed=seed,
            cache=cache,
            no_mirror=no_mirror,
            progress=progress,
        )


def announce(
    config: GeneratorConfig, hub: HubConfig, dataset: Dataset, *, cache: Path, progress: Progress = SILENT
) -> None:
    """Say under which licence a published checkpoint stands and what of it may change, before anything of it is downloaded.

    Raises:
        RecipeError: a description cannot be drawn from.
        ModelError: the cache's notes of commits cannot be read.
    """
    if is_hub(config.generator):
        from rarefill.generators.hub import asked
        from rarefill.generators.hub.commits import Commits
        from rarefill.generators.hub.prompts import Describer

        Describer(dataset.names, hub.describe, hub.vary, {})
        for line in asked.said(config.generator, hub, Commits(cache)):
            progress.say(line)


def fallback(config: GeneratorConfig, dataset: Dataset, bank: Bank) -> Generator:
    """Who paints what another generator could not: real objects are pasted.

    Args:
        config: the recipe's section.
        dataset: whose objects and images.
        bank: its shapes, of the categories to be painted.
    """
    from rarefill.generators.paste import Paste

    return Paste(config, dataset, bank)


def fit(
    config: GeneratorConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    progress: Progress = SILENT,
) -> tuple[Path, dict[str, str]]:
    """Adapt the recipe's model to a dataset, unless the cache holds that or the recipe leaves it out.

    Args and errors as for `build`.

    Returns:
        The pipeline's folder, and the words that stand for each category in it.
    """
    from rarefill.generators.pipelines import SHIPPED, device

    base = config.model or SHIPPED
    if not config.adapt:
        return base, {}
    from rarefill.generators.adapt import adapted, token

    rare = [name for name in dataset.names if bank.of(name)]
    folder = adapted(
        dataset,
        bank,
        config,
        base=base,
        rare=rare,
        seed=seed,
        cache=cache,
        device=device(),
        no_mirror=no_mirror,
        progress=progress,
    )
    return folder, {name: token(name) for name in dataset.names}


def owed(config: GeneratorConfig, hub: HubConfig, *, cache: Path) -> dict[str, Any]:
    """What a run's pictures owe to a model, before any adaptation; JSON values.

    Returns:
        `model` names all weights exactly, and is None for a generator without any; `weights`, of published ones, is for
        people: OWNER/NAME@COMMIT.

    Raises:
        ModelError: the recipe's model is not there, or cannot be had.
    """
    if config.generator == "paste":
        return {"model": None}
    if is_hub(config.generator):
        from rarefill.generators.hub import stack
        from rarefill.generators.hub.commits import Commits

        found = stack.find(config.generator, hub, Commits(cache))
        return {"model": found.digest(), "weights": list(found.commits())}
    from rarefill.generators.pipelines import SHIPPED, digest

    return {"model": digest(config.model or SHIPPED)}
