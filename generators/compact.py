"""Compact: a diffusion pipeline paints each object into its window, under the object's silhouette.

The middle of the window is zoomed to what the model was trained on, the object's area and a margin around it are removed, and the
model paints them anew: the silhouette and the scene are given, the seed makes the look. What comes back is brought to the
image's own resolution, colours, noise and compression, and mixed in along the margin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import engine, pictures
from rarefill.dataset import Dataset
from rarefill.generators import blend, sensor
from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.compact_conditioning import Rgb
from rarefill.generators.compression import Compression
from rarefill.generators.conditioning import Drawer, drawer
from rarefill.generators.denoise import Canvas, Painter, Sampling
from rarefill.generators.joint import ring
from rarefill.generators.paste import Paste
from rarefill.generators.upscale import Around
from rarefill.generators.window import Colours, Framing, Painted, Window, bands, middle, shipped, too_large
from rarefill.geometry import BoolArray
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX

MARGIN_PX: Final = (2.0, float(FEATHER_PX - 1))
"""Ring around the silhouette that is painted too, in the image's pixels: drawn for each object."""
MOST_MARGIN: Final = 24
"""The same in the window's pixels, at most, of a window of 128: beyond it the model was not trained."""
_RING_PX: Final = 10
_SMOOTH_PX: Final = 2.5
"""Standard deviation over which the model's colours are compared with the place's: texture is no difference."""
_ANCHOR: Final = 0.15
"""Of an object's size, the standard deviation of what counts as its colours: what is finer is detail."""
_SHARP: Final = 1.15
"""Enlargement up to which nothing is missing that an eye would see."""
_SEEN: Final = 0.02
"""A weight below this cannot be seen; it is left out of what was touched."""


class Enlarges(Protocol):
    """Gives a window that is larger than the model's the detail that it lacks."""

    def enlarge(
        self,
        pixels: Rgb,
        side: int,
        prompt: str,
        *,
        where: BoolArray | None = None,
        around: Around | None = None,
        seed: int = 0,
    ) -> Rgb:
        """As `upscale.Upscaler.enlarge`; `seed` names what is drawn."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """A window on its way through the networks."""

    window: Window
    seen: slice
    object: BoolArray
    canvas: Canvas
    strength: float
    margin: float
    rng: np.random.Generator
    how: dict[str, str | int | float | bool]


class Compact:
    """Paints with a pipeline."""

    framing = Framing(shifted=False)

    def __init__(
        self,
        config: GeneratorConfig,
        denoiser: Painter,
        dataset: Dataset,
        *,
        paste: Paste,
        prompts: dict[str, str],
        upscaler: Enlarges | None = None,
        framed: Framing | None = None,
        lines: bool = False,
        draw: Drawer | None = None,
        say: Callable[[Window], str] | None = None,
        name: str = "compact",
    ) -> None:
        """Make the generator.

        Args:
            config: the recipe's section.
            denoiser: the model.
            dataset: whose images are painted into.
            paste: gives the objects to start from, where strength is below 1.
            prompts: words for each category; its name where none are given.
            upscaler: gives windows larger than the model's the detail that they lack; without it they stay smooth.
            framed: how much of a window the model sees; None for all of it.
            lines: whether an object to start from keeps its lines in the ControlNet's map, as a redrawn one does.
            draw: the ControlNets' maps, instead of the recipe's conditioning.
            say: words for each window, instead of `prompts`; they are kept in its record.
            name: of the generator.
        """
        self.name = name
        self._config, self._denoiser, self._paste, self._prompts = config, denoiser, paste, prompts
        self._compression, self._upscaler = Compression(dataset), upscaler
        self._framed, self._lines = framed, lines
        self._draw = draw or drawer(config.conditioning, config.control_weights)
        self._say, self._size = say, denoiser.size
        self._sampling = Sampling(
            config.steps, config.guidance_scale, config.guidance_from, config.guidance_to
        )

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """Answer every window, in batches of those that begin with the same strength; large ones are pasted into."""
        with engine.one_thread():
            pasted = {i: answer for i, window in enumerate(windows) if (answer := self._large(window))}
            left = [i for i in range(len(windows)) if i not in pasted]
            painted = dict(zip(left, self._painted([windows[i] for i in left]), strict=True))
        return [(pasted | painted)[i] for i in range(len(windows))]

    def _large(self, window: Window) -> Window | None:
        """The answer to a window that is better pasted into, where there is something to paste."""
        if not too_large(self._config, window.placement):
            return None
        (pasted,) = self._paste.paint([window])
        if pasted.painted is None:
            return None
        return window.answered(replace(pasted.painted, how=pasted.painted.how | {"painted_by": "paste"}))

    def _painted(self, windows: Sequence[Window]) -> list[Window]:
        """Answers of the networks."""
        tasks = [self._task(window) for window in windows]
        order = sorted(range(len(tasks)), key=lambda i: (tasks[i].strength, i))
        answers: dict[int, Window] = {}
        while order:
            strength = tasks[order[0]].strength
            batch = [i for i in order[: self._denoiser.batch] if tasks[i].strength == strength]
            order = order[len(batch) :]
            found = self._denoiser.paint([tasks[i].canvas for i in batch], self._sampling, strength=strength)
            answers |= {i: self._answer(tasks[i], pixels) for i, pixels in zip(batch, found, strict=True)}
        return [answers[i] for i in range(len(tasks))]

    def _task(self, window: Window) -> _Task:
        rng = window.rng()
        seen = slice(0, window.side) if self._framed is None else middle(window, self._framed)
        size, zoom = self._size, self._size / (seen.stop - seen.start)
        margin = float(rng.uniform(*MARGIN_PX))
        redraw = window.placement.redraws is not None
        mix = (self._config.redraw_strength,) if redraw else self._config.strength
        drawn = float(mix[rng.integers(len(mix))])
        strength = drawn if window.placement.strength is None else window.placement.strength
        noise = rng.standard_normal(self._denoiser.noise_shape(size), dtype=np.float32)
        seed = int(rng.integers(2**62))
        how: dict[str, str | int | float | bool] = {"margin_px": round(margin, 2), "zoom": round(zoom, 3)}
        pixels = window.pixels
        if strength < 1 and not redraw:
            (pasted,) = self._paste.paint([window])
            if pasted.painted is None:
                strength = 1.0
            else:
                pixels = _over(window, pasted.painted)
                how["exemplar"] = pasted.painted.how["exemplar"]
        scene = _zoomed(pictures.rgb(pixels, window.limits)[seen, seen], size)
        all_of_it = window.object
        mask = _zoomed_mask(all_of_it[seen, seen], size)
        hidden = conditioning.grown(mask, int(np.clip(round(margin * zoom), 2, _most_margin(size))))
        if window.spared is not None:
            hidden &= ~_zoomed_mask(window.spared[seen, seen], size)
        lined = redraw or (self._lines and "exemplar" in how)
        control = self._draw(scene, mask, hidden, redraw=lined)
        category = window.placement.category
        prompt = window.placement.prompt or self._prompts.get(category, category)
        if self._say is not None:
            prompt = how["prompt"] = self._say(window)
        canvas = Canvas(scene, hidden, control, prompt, noise, seed)
        return _Task(window, seen, all_of_it, canvas, strength, margin, rng, how | {"strength": strength})

    def _answer(self, task: _Task, painted: Rgb) -> Window:
        window = task.window
        if "exemplar" in task.how and shipped(self._config):
            painted = _anchored(painted, task.canvas)
        n = bands(window.pixels)
        place = window.pixels[:, :, :n].astype(np.float32)
        depth, spared = blend.depth(task.object), window.spared
        seen = np.ones_like(window.mask) if window.hidden is None else ~window.hidden
        native = self._native(task, painted, depth)
        colours = pictures.from_rgb(native.astype(np.float32), n, window.limits)
        region = depth > -task.margin - 1
        colours = _in_place(colours, place, region if spared is None else region & ~spared)
        how = dict(task.how)
        if self._config.match_noise:
            near = ring(task.object, _RING_PX) & seen
            missing = sensor.lacking(colours, near, place, near)
            colours = colours + sensor.grain(window.mask.shape, missing, task.rng)
            how["noise"] = round(float(missing.mean()), 2)
        weight = blend.ramp(depth + 0.6 * task.margin, 0.4 * task.margin)
        weight = np.where(weight > _SEEN, weight, np.float32(0))
        if spared is not None:
            weight = np.where(spared, np.float32(0), weight)
        if self._config.match_noise and window.pixels.dtype == np.uint8:
            mixed = place + weight[:, :, None] * (colours - place)
            coded = self._compression.of(mixed, window.image, window.x, window.y)
            if coded is not mixed:
                colours, weight = coded, (weight > 0).astype(np.float32)
        return window.answered(Painted(colours, window.mask.astype(np.float32), weight, how))

    def _native(self, task: _Task, painted: Rgb, depth: NDArray[np.float32]) -> Rgb:
        """A whole window with the answer at the image's own resolution, as sharp as its surroundings where it matters."""
        whole = pictures.rgb(task.window.pixels, task.window.limits).copy()
        seen = (task.seen, task.seen)
        whole[seen] = self._enlarged(task, painted, whole[seen], depth[seen])
        return whole

    def _enlarged(self, task: _Task, painted: Rgb, place: Rgb, depth: NDArray[np.float32]) -> Rgb:
        side = len(place)
        if self._upscaler is None or side <= _SHARP * self._size:
            return _zoomed(painted, side)
        words = task.window.placement.prompt or task.window.placement.category
        if self._say is not None:
            words = task.canvas.prompt
        known = depth <= -task.margin - 1
        if task.window.spared is not None:
            known |= task.window.spared[task.seen, task.seen]
        around = Around(np.ascontiguousarray(place), known)
        where, seed = depth > -_RING_PX, task.canvas.seed
        return self._upscaler.enlarge(painted, side, words, where=where, around=around, seed=seed)


def _most_margin(size: int) -> int:
    """`MOST_MARGIN` of a window of `size` px."""
    return MOST_MARGIN * max(1, size // 128)


def _over(window: Window, pasted: Painted) -> NDArray[np.uint8 | np.uint16]:
    """A window's pixels with an object pasted into them."""
    n = pasted.colours.shape[2]
    pixels = window.pixels.copy()
    place = pixels[:, :, :n].astype(np.float32)
    weight = pasted.weight if window.spared is None else np.where(window.spared, 0, pasted.weight)
    mixed = place + weight[:, :, None] * (pasted.colours - place)
    pixels[:, :, :n] = np.clip(np.rint(mixed), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return pixels


def _zoomed(pixels: Rgb, size: int) -> Rgb:
    """A square picture at another size."""
    if pixels.shape[0] == size:
        return pixels
    how = cv2.INTER_AREA if pixels.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=how), np.uint8)


def _zoomed_mask(mask: BoolArray, size: int) -> BoolArray:
    """A square mask at another size."""
    share = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= 0.5)


def _anchored(painted: Rgb, canvas: Canvas) -> Rgb:
    """A painted window in the colours of the object that it began with: only its detail is new.

    Left to itself the model makes objects darker and their edges steeper than they are (docs/fidelity.md).
    """
    hidden = canvas.hidden.astype(np.float32)[:, :, None]
    sigma = max(1.0, _ANCHOR * float(np.sqrt(np.count_nonzero(canvas.hidden))))
    differs = sensor.blurred((canvas.pixels.astype(np.float32) - painted) * hidden, sigma)
    moved = painted + hidden * differs / np.maximum(sensor.blurred(hidden, sigma), 1e-3)
    return np.asarray(np.clip(np.rint(moved), 0, 255), np.uint8)


def _in_place(colours: Colours, place: Colours, region: BoolArray) -> Colours:
    """A model's colours moved smoothly to where they meet the place's all around the painted region."""
    known = (~region).astype(np.float32)[:, :, None]
    share = sensor.blurred(known, _SMOOTH_PX)
    differs = sensor.blurred((place - colours) * known, _SMOOTH_PX) / np.maximum(share, 1e-3)
    return colours + blend.membrane(differs.astype(np.float32), region)
