"""Paste: a real object of the category, turned and stretched into its place, lit, focused and grained like it.

Which object: the one that the placement's shape names, so that pixels and mask agree. From the second attempt on,
and where a person drew the mask, another one of near size and like outline, stretched into the mask asked for; of one
that is turned far the same again, as others stand in other directions.
The mask painted is always the one asked for: a planner's distances hold whatever is drawn here. Of an object that shows
in part, all of it is set into its whole box, and the part that the mask asks for is painted.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import warp
from rarefill.bank import Bank, Exemplar
from rarefill.dataset import Dataset
from rarefill.generators import sensor
from rarefill.generators.exemplars import Exemplars, like, warped
from rarefill.generators.joint import Joint, joined, ring
from rarefill.generators.looks import light
from rarefill.generators.photometry import Photometry, draw
from rarefill.generators.window import Framing, Painted, Window, bands
from rarefill.geometry import BoolArray, Box
from rarefill.recipe import Blend, GeneratorConfig
from rarefill.scene import FEATHER_PX, Shape

_MARGIN_PX = FEATHER_PX + 6
"""Around the object: the ring that may change, and some of what surrounds it to measure."""
_TURNED_DEG = 15.0
"""A turn beyond which no other exemplar, as it stands, is like the mask; a new place has a new one anyway."""


class Paste:
    """Pastes exemplars of a bank."""

    name = "paste"
    framing = Framing(context=0.0, least_px=_MARGIN_PX + 1, most_px=_MARGIN_PX + 1, shifted=False)

    def __init__(self, config: GeneratorConfig, dataset: Dataset, bank: Bank) -> None:
        self._config = config
        self._exemplars = Exemplars(dataset, bank)
        self._photometry = Photometry()

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """Answer every window that the bank has an exemplar for."""
        return [self._paint(window) for window in windows]

    def _paint(self, window: Window) -> Window:
        rng = window.rng()
        choice = self._choose(rng, window)
        if choice is None:
            return window
        exemplar, shape = choice
        asked: Blend = self._config.blends[rng.integers(len(self._config.blends))]
        joint, how = self._set(rng, window, exemplar, shape)
        colours, weight, used = joined(joint, asked)
        how |= {
            "exemplar": self._exemplars.id(exemplar.annotation),
            "blend": used,
            "blend_asked": asked,
            "flip": shape.flip,
            "rotation_deg": round(shape.rotation_deg, 2),
        }
        if shape.bend:
            how["bend"] = shape.bend
        return window.answered(_in_window(window, Painted(colours, joint.alpha, weight, how)))

    def _choose(self, rng: np.random.Generator, window: Window) -> tuple[Exemplar, Shape] | None:
        placement = window.placement
        named = None if placement.shape is None else self._exemplars.named(placement.shape, window.image)
        if named is not None and placement.shape is not None:
            turned = abs(placement.shape.rotation_deg) > _TURNED_DEG
            if window.attempt == 0 or turned:
                return named, placement.shape
        refused = named.annotation if named is not None else None
        whole = self._exemplars.whole(placement)
        return self._exemplars.chosen(rng, placement.category, whole, window.image, refused)

    def _set(
        self, rng: np.random.Generator, window: Window, exemplar: Exemplar, shape: Shape
    ) -> tuple[Joint, dict[str, str | int | float | bool]]:
        """The exemplar over its place: warped, lit, blurred and grained."""
        n, mask = bands(window.pixels), window.placement.mask
        part = _canvas(window)
        place = window.pixels[part][:, :, :n].astype(np.float32)
        asked, going_on = window.mask[part], window.object[part]
        hidden = np.zeros_like(asked) if window.hidden is None else window.hidden[part]
        source = self._exemplars.source(exemplar.annotation)
        own = like(source.pixels, n, window.pixels.dtype)
        x1, y1, x2, y2 = (window.placement.whole or mask.box).xyxy
        left, top = mask.x - _MARGIN_PX, mask.y - _MARGIN_PX
        frame = Box(x1 - left, y1 - top, x2 - left, y2 - top)
        moved, cover, known = warped(exemplar, source, shape, frame, asked.shape, own)
        alpha = _fitted(cover, going_on, hidden)
        near = ring(going_on, _MARGIN_PX) & ~hidden
        around = near & known
        rings = tuple(
            np.median(a[w], axis=0) if w.any() else a.mean(axis=(0, 1))
            for a, w in ((moved, around), (place, near))
        )
        scenes = (
            like(source.scene.astype(source.pixels.dtype)[None, None], n, window.pixels.dtype)[0, 0],
            window.scene,
        )
        inside = asked
        looks = self._exemplars.looks(window.placement.category)
        gain = light(looks, scenes, (rings[0], rings[1]))
        ceiling = float(np.iinfo(window.pixels.dtype).max)
        change = draw(rng, looks, moved[inside], gain, self._config.photometric)
        moved = self._photometry.apply(moved, change, inside, ceiling)
        scale = frame.area / np.prod(warp.turned_size(exemplar.mask, shape))
        how: dict[str, str | int | float | bool] = {
            "scale": round(float(np.sqrt(scale)), 3),
            "gain": round(float(change.gain.mean()), 3),
            "contrast": round(change.contrast, 3),
            "shift": round(float(change.shift.mean()), 2),
        }
        if self._config.match_noise:
            moved, alpha, told = sensor.matched(rng, moved, alpha, place, near, known)
            how |= told
        alpha = _held(alpha, going_on)
        # What is cut has no surroundings on that side: a blend that needs them is not for it.
        complete = exemplar.complete and window.hidden is None
        return Joint(place, moved, alpha, near, known, complete), how


def _fitted(cover: NDArray[np.float32], asked: BoolArray, hidden: BoolArray) -> NDArray[np.float32]:
    """The object's share of each pixel: its own silhouette's where that is the mask asked for, else the mask's."""
    own = cover >= 0.5
    if (own & asked & ~hidden).sum() >= 0.9 * ((own | asked) & ~hidden).sum():
        return np.where(hidden, asked.astype(np.float32), cover)
    return np.asarray(cv2.GaussianBlur(asked.astype(np.float32), (0, 0), 0.6))


def _held(alpha: NDArray[np.float32], asked: BoolArray) -> NDArray[np.float32]:
    """Shares of one half and above for the pixels asked for, and for no others: blur alone would lose thin parts."""
    return np.asarray(np.where(asked, np.maximum(alpha, 0.5), np.minimum(alpha, 0.49)), dtype=np.float32)


def _canvas(window: Window) -> tuple[slice, slice]:
    """The part of a window that holds the object and its margin."""
    mask = window.placement.mask
    x, y = mask.x - window.x - _MARGIN_PX, mask.y - window.y - _MARGIN_PX
    height, width = mask.pixels.shape
    return slice(y, y + height + 2 * _MARGIN_PX), slice(x, x + width + 2 * _MARGIN_PX)


def _in_window(window: Window, painted: Painted) -> Painted:
    """What was painted on the canvas, on the whole window."""
    part = _canvas(window)
    size = window.mask.shape
    colours = np.zeros((*size, painted.colours.shape[2]), np.float32)
    alpha, weight = np.zeros(size, np.float32), np.zeros(size, np.float32)
    colours[part], alpha[part], weight[part] = painted.colours, painted.alpha, painted.weight
    return Painted(colours, alpha, weight, painted.how)
