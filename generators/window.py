"""The square crop in which one object is painted, and the way back into the image.

A generator sees windows only. What it hands back is mixed into the image here, in the image's own integers, so that
no generator can change a pixel that it was not given.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import pictures, seeds
from rarefill.geometry import BoolArray, Box, Mask
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX, Pixels, Placement
from rarefill.seeds import Stage

Colours = NDArray[np.float32]
"""float32 (h, w, C) in the image's own units, C = 1 or 3: alpha bands are never painted."""


SIZE: Final = 128
"""Side of the embedded model's windows in pixels."""


@dataclass(frozen=True, slots=True)
class Framing:
    """Which windows a generator wants.

    Attributes:
        context: margin around the object on each side, as a share of its longer side.
        least_px: margin at least, and
        most_px: at most, in the image's pixels.
        shifted: whether a window at the image's edge is moved into the image; else it is mirrored beyond the edge
            and its object stays in its middle.
    """

    context: float = 0.5
    least_px: int = 24
    most_px: int = 64
    shifted: bool = True


CLOSE: Final = Framing(context=0.25, least_px=12, most_px=48, shifted=False)
"""What the embedded model sees of a window: an object twice as large has four times as many latents for its parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """What a generator painted into one window; all arrays have the window's height and width.

    Attributes:
        colours: float32 (h, w, C) in the image's units.
        alpha: float32 (h, w), 0 to 1: the object's share of each pixel.
        weight: float32 (h, w), 0 to 1: how much of `colours` is shown; differs from `alpha` where a blend also
            changes the ring around the object.
        how: the record of what was drawn, JSON scalars.
    """

    colours: Colours
    alpha: NDArray[np.float32]
    weight: NDArray[np.float32]
    how: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One object to paint.

    Attributes:
        x: column of the window's left edge in the image; may be negative, as windows are square.
        y: row of its top edge.
        side: its height and width in the image's pixels.
        pixels: (side, side, C) of the background, its dtype and bands; mirrored where the window leaves the image.
        mask: bool (side, side), the pixels asked for.
        placement: what is asked.
        scene: float32 (C,), the whole background's mean colour.
        limits: the values of the whole background that networks see as 0 and 255.
        image: row of the background in `dataset.images`.
        key: image, copy, placement and attempt: what the random stream derives from.
        seed: the run's seed.
        painted: the answer; None until a generator gave it.
        hidden: bool (side, side), where an object that shows in part cannot be seen: beyond the image's edge, or behind
            what is spared; None where all of it shows.
    """

    x: int
    y: int
    side: int
    pixels: Pixels
    mask: BoolArray
    placement: Placement
    scene: NDArray[np.float32]
    limits: tuple[float, float]
    image: int
    key: tuple[int, int, int, int]
    seed: int
    painted: Painted | None = None
    hidden: BoolArray | None = None

    @property
    def attempt(self) -> int:
        return self.key[3]

    def rng(self) -> np.random.Generator:
        """This object's random stream: always from its start, whoever asks, in whatever order."""
        return seeds.rng(self.seed, Stage.PAINT, *self.key, self.placement.seed)

    @property
    def object(self) -> BoolArray:
        """bool (side, side): `mask`, gone on where the object is hidden, so that it has no border where it is cut.

        A hidden pixel is as the nearest one that is not.
        """
        if self.hidden is None or self.hidden.all():
            return self.mask
        _, label = cv2.distanceTransformWithLabels(
            self.hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        of_label = np.zeros(int(label.max()) + 1, dtype=bool)
        of_label[label[~self.hidden]] = self.mask[~self.hidden]
        return np.asarray(of_label[label])

    @property
    def spared(self) -> BoolArray | None:
        """bool (side, side): real objects in front of one that shows in part."""
        if self.hidden is None or self.placement.spared is None:
            return None
        return self.placement.spared.window(self.x, self.y, self.side, self.side)

    def answered(self, painted: Painted) -> "Window":
        """This window with its answer."""
        return replace(self, painted=painted)


def shipped(config: GeneratorConfig) -> bool:
    """Whether the model that ships paints: what was measured for it holds for no other."""
    return config.generator == "compact" and config.model is None


def too_large(config: GeneratorConfig, placement: Placement) -> bool:
    """Whether the model that ships would lose to real pixels here, so that the object is better pasted (docs/fidelity.md).

    That was measured for it and new objects: other models and redraws know no such limit.
    """
    if not shipped(config) or placement.redraws is not None:
        return False
    return 0 < config.paste_above * SIZE < side_px(placement.box, Framing())


def side_px(box: Box, framing: Framing) -> int:
    """The side of the window in which an object that fills this box is seen, in the image's pixels."""
    longer = max(box.width, box.height)
    margin = int(np.clip(framing.context * longer, framing.least_px, framing.most_px))
    return int(longer) + 2 * max(margin, FEATHER_PX + 1)


def middle(window: Window, framing: Framing) -> slice:
    """The rows, and the columns alike, that a closer framing takes of a window that is not shifted."""
    side = min(window.side, side_px(window.placement.box, framing))
    start = (window.side - side) // 2
    return slice(start, start + side)


def cut(
    background: Pixels,
    placement: Placement,
    framing: Framing,
    *,
    image: int,
    key: tuple[int, int, int, int],
    seed: int,
) -> Window:
    """The window around one placement: square, its object in the middle where the image allows it."""
    height, width = background.shape[:2]
    box = placement.box
    side = side_px(box, framing)
    x, y = int(box.x1 + box.x2 - side) // 2, int(box.y1 + box.y2 - side) // 2
    if framing.shifted:
        x, y = _into(x, side, width), _into(y, side, height)
    pixels = _crop(background, x, y, side)
    mask = placement.mask.window(x, y, side, side)
    whole, limits = scene(background), pictures.limits(background)
    hidden = None if placement.whole is None else _hidden(placement, x, y, side, (height, width))
    return Window(x, y, side, pixels, mask, placement, whole, limits, image, key, seed, hidden=hidden)


def held(window: Window) -> Painted | None:
    """A window's answer, held to the mask asked for and its ring."""
    painted = window.painted
    if painted is None:
        return None
    allowed = cv2.dilate(window.mask.astype(np.uint8), _DISC).astype(bool)
    weight = painted.weight * allowed.astype(np.float32)
    return replace(painted, weight=weight)


def mix(canvas: Pixels, window: Window, protected: Mask | None = None) -> tuple[Mask | None, Mask | None]:
    """Mix a window's answer into an image, in place and in its own integers.

    Args:
        canvas: (H, W, C), changed only where the answer's weight is above 0, and never in an alpha band.
        window: with an answer.
        protected: pixels that lie in front and stay as they are.

    Returns:
        The object's pixels and all that may have changed; None where nothing was painted.
    """
    painted = held(window)
    if painted is None:
        return None, None
    height, width = canvas.shape[:2]
    x1, y1 = max(0, window.x), max(0, window.y)
    x2, y2 = min(width, window.x + window.side), min(height, window.y + window.side)
    part = (slice(y1 - window.y, y2 - window.y), slice(x1 - window.x, x2 - window.x))
    weight = painted.weight[part]
    if protected is not None:
        weight = np.where(protected.window(x1, y1, x2 - x1, y2 - y1), np.float32(0), weight)
    shown = weight > 0
    n = painted.colours.shape[2]
    place = canvas[y1:y2, x1:x2, :n]
    old = place[shown].astype(np.float32)
    new = old + weight[shown][:, None] * (painted.colours[part][shown] - old)
    place[shown] = np.clip(np.rint(new), 0, np.iinfo(canvas.dtype).max).astype(canvas.dtype)
    return Mask.of(shown & (painted.alpha[part] >= 0.5), x1, y1), Mask.of(shown, x1, y1)


def scene(pixels: Pixels) -> NDArray[np.float32]:
    """Mean colour of a picture's colour bands, float32 (C,), from every fourth pixel each way."""
    thin = pixels[::4, ::4, : bands(pixels)]
    return np.asarray(thin.reshape(-1, thin.shape[2]).mean(axis=0), dtype=np.float32)


def bands(pixels: NDArray[Any]) -> int:
    """How many of an image's bands are colour: its alpha band is not."""
    return min(int(pixels.shape[2]), 3)


_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * FEATHER_PX + 1, 2 * FEATHER_PX + 1))


def _into(start: int, side: int, size: int) -> int:
    """A window's start along one axis, moved into the image; in the middle where the image is smaller."""
    return min(max(start, 0), size - side) if side <= size else (size - side) // 2


def _hidden(placement: Placement, x: int, y: int, side: int, size: tuple[int, int]) -> BoolArray:
    """bool (side, side): beyond an image of (height, width) `size`, or spared."""
    out = np.ones((side, side), dtype=bool)
    out[max(0, -y) : max(0, size[0] - y), max(0, -x) : max(0, size[1] - x)] = False
    if placement.spared is not None:
        out |= placement.spared.window(x, y, side, side)
    return out


def _crop(pixels: Pixels, x: int, y: int, side: int) -> Pixels:
    height, width = pixels.shape[:2]
    inside = pixels[max(0, y) : y + side, max(0, x) : x + side]
    pads = (max(0, -y), max(0, y + side - height), max(0, -x), max(0, x + side - width))
    if not any(pads):
        return inside.copy()
    return np.asarray(cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REFLECT)).reshape(side, side, -1)
