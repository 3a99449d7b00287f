"""Generators paint one object into one window; cutting, mixing and taking back are common to all."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.generators.render import Generator, Job, render, take_back
from rarefill.generators.window import Framing, Painted, Window
from rarefill.progress import SILENT, Progress
from rarefill.recipe import GeneratorConfig

__all__ = [
    "Framing",
    "Generator",
    "Job",
    "Painted",
    "Window",
    "build",
    "fallback",
    "fingerprint",
    "fit",
    "render",
    "take_back",
]


def build(
    config: GeneratorConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
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
            sharp = None
            if upscale.SHIPPED.is_dir():
                # Its words are those that it was trained with: the shipped model's, not those learned from this data.
                words = load(SHIPPED, device=where, dtype=dtype(where))
                sharp = upscale.Upscaler.load(upscale.SHIPPED, words, device=where)
            return Compact(config, denoiser, dataset, paste=paste, prompts=prompts, upscaler=sharp)
        case _:
            assert_never(config.generator)


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


def fingerprint(config: GeneratorConfig) -> str | None:
    """What a run's pictures owe to a model, before any adaptation; None for a generator without one.

    Raises:
        ModelError: the recipe's model is not there.
    """
    if config.generator == "paste":
        return None
    from rarefill.generators.pipelines import SHIPPED, digest

    return digest(config.model or SHIPPED)
