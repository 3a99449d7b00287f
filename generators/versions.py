"""Versions of whole images: repainted from their own pixels, all over or around what stays.

What stays is bit-exact as decoded: its pixels are never mixed with anything. The rest comes back in the image's own bands,
depth, grain and compression.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import engine, pictures
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.errors import RecipeError
from rarefill.generators import sensor, whole
from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.compression import Compression
from rarefill.generators.conditioning import Drawer
from rarefill.generators.denoise import Painter, Sampling
from rarefill.generators.hub import prompts
from rarefill.generators.window import bands
from rarefill.hub_options import LISTS, HubConfig
from rarefill.presets import is_hub
from rarefill.progress import SILENT, Progress
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX, Pixels
from rarefill.version_options import VersionsConfig

OBJECTS: Final = "objects"
"""In the words: the categories on the image."""
_ALL: Final = "what is there"


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A version to paint.

    Attributes:
        image: row of the image.
        background: its pixels as decoded, (H, W, C).
        kept: bool (H, W), pixels that stay; None where all of the image is repainted.
        prompt: words.
        strength: how far away from its pixels, above 0, to 1.
        rng: of its noise.
    """

    image: int
    background: Pixels
    kept: Bits | None
    prompt: str
    strength: float
    rng: np.random.Generator


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A painted version.

    Attributes:
        pixels: of the image's shape and dtype; equal to it where `Order.kept` is true.
        how: what was drawn for it, JSON scalars.
    """

    pixels: Pixels
    how: dict[str, str | int | float | bool] = field(default_factory=dict)


class Repaints(Protocol):
    """Paints versions of images. May be called from several threads at once.

    Attributes:
        name: for the record.
    """

    name: str

    def say(self, categories: Sequence[str], rng: np.random.Generator) -> str:
        """The words of an image, from the names of what is on it."""
        ...

    def paint(self, orders: Sequence[Order]) -> list[Version]:
        """Paint versions, in order. What `Order.kept` holds must stay as it is."""
        ...


class Repainter:
    """Paints versions with a model, as `Repaints`."""

    def __init__(
        self,
        config: GeneratorConfig,
        versions: VersionsConfig,
        painter: Painter,
        draw: Drawer,
        dataset: Dataset,
        *,
        name: str,
        say: Callable[[Sequence[str], np.random.Generator], str],
    ) -> None:
        """Make it.

        Args:
            config: steps and guidance.
            versions: what is repainted.
            painter: the model.
            draw: its ControlNets' maps.
            dataset: whose images are repainted.
            name: of the generator, for the record.
            say: words for an image, from the names of what is on it.
        """
        self.name = name
        self._config, self._painter, self._draw, self._say = config, painter, draw, say
        self._locked, self._least_px = versions.area != "background", versions.look_px or 0
        self._compression = Compression(dataset)
        self._sampling = Sampling(
            config.steps, config.guidance_scale, config.guidance_from, config.guidance_to
        )

    def say(self, categories: Sequence[str], rng: np.random.Generator) -> str:
        """The words of an image."""
        return self._say(categories, rng)

    def paint(self, orders: Sequence[Order]) -> list[Version]:
        """Paint versions, in order.

        Raises:
            ModelError: the networks answered with what is no number, or memory does not reach.
        """
        limits = [pictures.limits(order.background) for order in orders]
        sheets = [self._sheet(order, between) for order, between in zip(orders, limits, strict=True)]
        with engine.one_thread():
            painted = whole.paint(self._painter, self._draw, sheets, self._sampling, least_px=self._least_px)
        return [
            self._version(order, sheet, answer, between)
            for order, sheet, answer, between in zip(orders, sheets, painted, limits, strict=True)
        ]

    def _sheet(self, order: Order, limits: tuple[float, float]) -> whole.Sheet:
        seen = pictures.rgb(order.background, limits)
        hidden = np.ones(seen.shape[:2], bool) if order.kept is None else ~order.kept
        return whole.Sheet(seen, hidden, self._locked, order.prompt, order.strength, order.rng)

    def _version(
        self, order: Order, sheet: whole.Sheet, painted: Pixels, limits: tuple[float, float]
    ) -> Version:
        how: dict[str, str | int | float | bool] = {
            "generator": self.name,
            "prompt": sheet.prompt,
            "strength": round(order.strength, 4),
        }
        n = bands(order.background)
        place = order.background[:, :, :n].astype(np.float32)
        colours = pictures.from_rgb(painted.astype(np.float32), n, limits)
        weight = _weight(sheet.hidden)
        if self._config.match_noise:
            missing = sensor.lacking(colours, sheet.hidden, place, sheet.hidden)
            colours = colours + sensor.grain(weight.shape, missing, order.rng)
            how["noise"] = round(float(missing.mean()), 2)
        mixed = place + weight[:, :, None] * (colours - place)
        if self._config.match_noise and order.background.dtype == np.uint8:
            mixed = self._compression.of(mixed, order.image, 0, 0)
        pixels = order.background.copy()
        shown = weight > 0
        most = np.iinfo(pixels.dtype).max
        pixels[:, :, :n][shown] = np.clip(np.rint(mixed[shown]), 0, most).astype(pixels.dtype)
        return Version(pixels, how)


def _weight(hidden: Bits) -> NDArray[np.float32]:
    """How much of the paint is shown, float32 (H, W): 0 on what stays, rising from there to 1."""
    if hidden.all():
        return np.ones(hidden.shape, np.float32)
    depth = cv2.distanceTransform(hidden.astype(np.uint8), cv2.DIST_L2, 5)
    return np.clip(depth / FEATHER_PX, 0, 1).astype(np.float32)


def teller(
    text: str, vary: Mapping[str, Sequence[str]], words: Mapping[str, str]
) -> Callable[[Sequence[str], np.random.Generator], str]:
    """What says the words of an image.

    Args:
        text: a description as `--describe` takes it; `{objects}` stands for the categories on the image.
        vary: lists of words by name, beside the usual ones.
        words: what stands for a category; its name where nothing does.

    Raises:
        RecipeError: no such list, or braces that do not pair.
    """
    lists: dict[str, Sequence[str]] = {**LISTS, **vary}
    prompts.check(text, {**lists, OBJECTS: ()}, "recipe: versions.words")

    def say(categories: Sequence[str], rng: np.random.Generator) -> str:
        there = ", ".join(words.get(name) or name for name in categories)
        return prompts.drawn(text, {**lists, OBJECTS: (there or _ALL,)}, rng)

    return say


def build(
    config: GeneratorConfig,
    hub: HubConfig,
    versions: VersionsConfig,
    dataset: Dataset,
    bank: Bank,
    *,
    seed: int,
    cache: Path,
    no_mirror: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Repainter:
    """What paints versions as a recipe says.

    Args:
        config: the recipe's section of painting,
        hub: of published checkpoints, and
        versions: of versions.
        dataset: whose images are repainted.
        bank: its shapes, of the categories that an adapter is fitted to.
        seed: names the fit.
        cache: folder of fitted adapters and encoded prompts.
        no_mirror: categories that are never mirrored.
        progress: where the fit shows itself.

    Raises:
        ModelError: the checkpoint cannot be had, read or held.
        RecipeError: the generator knows no whole images, or the words cannot be drawn from.
    """
    check(config, hub, versions)
    from rarefill.generators.hub import build as published

    painter, draw, words = published.whole_images(
        config, hub, dataset, bank, seed=seed, cache=cache, no_mirror=no_mirror, progress=progress
    )
    say = teller(versions.words, hub.vary, words)
    return Repainter(
        config, versions, painter, draw, dataset, name=published.short(config.generator), say=say
    )


def check(config: GeneratorConfig, hub: HubConfig, versions: VersionsConfig) -> None:
    """Whether a recipe's generator can paint versions, before anything is loaded.

    Raises:
        RecipeError: it cannot.
    """
    if not is_hub(config.generator):
        why = {
            "paste": "it paints nothing new",
            "compact": "it has learned windows of 128 px around objects, and no scenes",
        }[config.generator]
        raise RecipeError(
            f"recipe: generator is {config.generator}, which makes no versions of whole images ({why}); take a preset "
            "of 'rarefill models' or hub:FOLDER, or give objects a new look with 'rarefill generate --redraw NAME=N'"
        )
    teller(versions.words, hub.vary, {})
