"""From a recipe to a generator that paints with a published checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.errors import ModelError
from rarefill.generators import pipelines
from rarefill.generators.compact import Compact
from rarefill.generators.conditioning import Drawer
from rarefill.generators.denoise import Painter
from rarefill.generators.hub import maps, stack
from rarefill.generators.hub.commits import Commits
from rarefill.generators.hub.enhance import Enhancer
from rarefill.generators.hub.flow import FlowPainter
from rarefill.generators.hub.guidance import Likeness
from rarefill.generators.hub.prompts import Describer
from rarefill.generators.hub.sources import Found
from rarefill.generators.hub.stack import Stack, Wanted
from rarefill.generators.hub.unet import UNetPainter
from rarefill.generators.paste import Paste
from rarefill.hub_options import HubConfig
from rarefill.presets import HUB
from rarefill.progress import SILENT, Progress
from rarefill.recipe import GeneratorConfig


def generator(
    config: GeneratorConfig,
    hub: HubConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    paste: Paste,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Compact:
    """The generator.

    Args:
        config: the recipe's section of painting, and
        hub: of published checkpoints.
        dataset: whose images are painted into.
        bank: its shapes, of the categories to be painted.
        paste: gives the objects to start from, where strength is below 1.
        seed: names the fit.
        cache: folder of fitted adapters and encoded prompts.
        no_mirror: categories that are never mirrored.
        progress: where the fit shows itself.

    Raises:
        ModelError: the checkpoint cannot be had, read or held.
        RecipeError: a description cannot be drawn from.
    """
    wanted, words = fit(
        config, hub, dataset, bank, seed=seed, cache=cache, no_mirror=no_mirror, progress=progress
    )
    describe = Describer(dataset.names, hub.describe, hub.vary, words)
    loaded = _loaded(wanted, hub)
    paints = painter(loaded, hub, key=wanted.digest(), cache=cache / "prompts")
    draw = maps.drawers(loaded.controls, config.control_weights, Commits(cache))
    sharp = None
    if hub.enhance > 0:
        refuse_without_strength(loaded, "--enhance")
        sharp = Enhancer(config, paints, draw, strength=hub.enhance)
    return Compact(
        config,
        paints,
        dataset,
        paste=paste,
        prompts={},
        upscaler=sharp,
        draw=draw,
        say=describe,
        name=short(config.generator),
    )


def whole_images(
    config: GeneratorConfig,
    hub: HubConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    progress: Progress = SILENT,
) -> tuple[Painter, Drawer, dict[str, str]]:
    """A checkpoint for versions of whole images: who paints, who draws its ControlNets' maps, its words for categories.

    Args and errors as for `generator`.
    """
    wanted, words = fit(
        config, hub, dataset, bank, seed=seed, cache=cache, no_mirror=no_mirror, progress=progress
    )
    loaded = _loaded(wanted, hub)
    refuse_without_strength(loaded, "a version")
    paints = painter(loaded, hub, key=wanted.digest(), cache=cache / "prompts")
    return paints, maps.drawers(loaded.controls, config.control_weights, Commits(cache)), words


def _loaded(wanted: Wanted, hub: HubConfig) -> Stack:
    where = pipelines.device()
    return stack.load(wanted, hub, device=where, dtype=stack.precision(hub, where))


def refuse_without_strength(loaded: Stack, what: str) -> None:
    """A pipeline that begins with noise alone cannot keep anything of a picture.

    Raises:
        ModelError: this is one.
    """
    if loaded.family == "z-image" and loaded.controls:
        raise ModelError(
            f"{what} begins with the picture's own pixels, and Z-Image with a ControlNet with noise alone; "
            "say --control none, or take another checkpoint"
        )


def fit(
    config: GeneratorConfig,
    hub: HubConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    progress: Progress = SILENT,
) -> tuple[Wanted, dict[str, str]]:
    """The checkpoint with an adapter to the dataset, where the recipe wants one, and its words for the rare categories.

    Args and errors as for `generator`.
    """
    wanted = stack.find(config.generator, hub, Commits(cache))
    if not config.adapt:
        return wanted, {}
    from rarefill.generators.hub import lora

    rare = [name for name in dataset.names if bank.of(name)]
    folder = lora.fitted(
        dataset,
        bank,
        config,
        hub,
        wanted,
        rare=rare,
        seed=seed,
        cache=cache,
        no_mirror=no_mirror,
        progress=progress,
    )
    return replace(wanted, loras=(*wanted.loras, (Found(folder, folder.name), 1.0))), lora.words(rare, hub)


def painter(loaded: Stack, hub: HubConfig, *, key: str = "", cache: Path | None = None) -> Painter:
    """The loop of a pipeline's family."""
    if loaded.family in {"sd15", "sdxl"}:
        clip = None
        if loaded.clip is not None and hub.clip_scale > 0:
            clip = Likeness(loaded.clip, device=loaded.device)
        return UNetPainter(loaded, hub, key=key, cache=cache, likeness=clip)
    if hub.clip is not None:
        raise ModelError(f"--clip: {loaded.family} takes no CLIP guidance; SD 1.5 and SDXL do")
    return FlowPainter(loaded, hub, key=key, cache=cache)


def short(generator: str) -> str:
    """A generator's name for the record: of a folder without where it stands."""
    place = Path(generator.removeprefix(HUB)).expanduser()
    return f"{HUB}{place.resolve().name}" if generator.startswith(HUB) and place.is_dir() else generator
