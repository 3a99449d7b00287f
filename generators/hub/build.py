"""From a recipe to a generator that paints with a published checkpoint."""

from collections.abc import Mapping
from pathlib import Path

from rarefill.dataset import Dataset
from rarefill.generators import pipelines
from rarefill.generators.compact import Compact
from rarefill.generators.denoise import Painter
from rarefill.generators.hub import maps, stack
from rarefill.generators.hub.flow import FlowPainter
from rarefill.generators.hub.prompts import Describer
from rarefill.generators.hub.stack import Stack
from rarefill.generators.hub.unet import UNetPainter
from rarefill.generators.paste import Paste
from rarefill.hub_options import HubConfig
from rarefill.recipe import GeneratorConfig


def generator(
    config: GeneratorConfig,
    hub: HubConfig,
    dataset: Dataset,
    *,
    paste: Paste,
    cache: Path,
    words: Mapping[str, str] | None = None,
) -> Compact:
    """The generator.

    Args:
        config: the recipe's section of painting, and
        hub: of published checkpoints.
        dataset: whose images are painted into.
        paste: gives the objects to start from, where strength is below 1.
        cache: folder in which encoded prompts are kept.
        words: what stands for a category in prompts, where a fit has taught it.

    Raises:
        ModelError: the checkpoint cannot be had, read or held.
        RecipeError: a description cannot be drawn from.
    """
    describe = Describer(dataset.names, hub.describe, hub.vary, words or {})
    wanted = stack.find(config.generator, hub)
    where = pipelines.device()
    loaded = stack.load(wanted, hub, device=where, dtype=stack.precision(hub, where))
    return Compact(
        config,
        painter(loaded, hub, key=wanted.digest(), cache=cache / "prompts"),
        dataset,
        paste=paste,
        prompts={},
        draw=maps.drawers(loaded.controls, config.control_weights),
        say=describe,
        name=config.generator,
    )


def painter(loaded: Stack, hub: HubConfig, *, key: str = "", cache: Path | None = None) -> Painter:
    """The loop of a pipeline's family."""
    if loaded.family in {"sd15", "sdxl"}:
        return UNetPainter(loaded, hub, key=key, cache=cache)
    return FlowPainter(loaded, hub)
