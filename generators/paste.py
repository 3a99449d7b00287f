"""Paste: a real object of the category, turned and stretched into its place, lit, focused and grained like it.

Which object: the one that the placement's shape names, so that pixels and mask agree. From the second attempt on,
and where a person drew the mask, another one of near size and like outline, stretched into the mask asked for.
The mask painted is always the one asked for: a planner's distances hold whatever is drawn here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.bank import Bank, Exemplar
from rarefill.dataset import Dataset
from rarefill.generators import blend, sensor
from rarefill.generators.exemplars import Exemplars, like, warped
from rarefill.generators.looks import light
from rarefill.generators.photometry import Photometry, draw
from rarefill.generators.window import Colours, Framing, Painted, Window, bands
from rarefill.geometry import BoolArray, Box
from rarefill.recipe import Blend, PasteConfig
from rarefill.scene import FEATHER_PX, Shape

_MARGIN_PX = FEATHER_PX + 6
"""Around the object: the ring that may change, and some of what surrounds it to measure."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """An object over its place, on one canvas.

    Attributes:
        place: float32 (h, w, C), the background's.
        source: float32 (h, w, C), the exemplar with its own surroundings, in the place's light.
        alpha: float32 (h, w), the object's share.
        near: bool (h, w), the ring around the object.
        known: bool (h, w), where the exemplar's picture has pixels.
    """

    place: Colours
    source: Colours
    alpha: NDArray[np.float32]
    near: BoolArray
    known: BoolArray

    @property
    def inside(self) -> BoolArray:
        return self.alpha >= 0.5


class Paste:
    """Pastes exemplars of a bank."""

    name = "paste"
    framing = Framing(context=0.0, least_px=_MARGIN_PX + 1, most_px=_MARGIN_PX + 1, shifted=False)

    def __init__(self, config: PasteConfig, dataset: Dataset, bank: Bank) -> None:
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
        scene_, how = self._set(rng, window, exemplar, shape)
        colours, weight, used = _blended(scene_, asked, complete=exemplar.complete)
        mask = window.placement.mask
        how |= {
            "exemplar": self._exemplars.id(exemplar.annotation),
            "blend": used,
            "blend_asked": asked,
            "flip": shape.flip,
            "rotation_deg": round(shape.rotation_deg, 2),
            "scale": round(float(np.sqrt(mask.area / exemplar.mask.area)), 3),
        }
        return window.answered(_in_window(window, Painted(colours, scene_.alpha, weight, how)))

    def _choose(self, rng: np.random.Generator, window: Window) -> tuple[Exemplar, Shape] | None:
        placement = window.placement
        named = None if placement.shape is None else self._exemplars.named(placement.shape, window.image)
        if named is not None and placement.shape is not None and window.attempt == 0:
            return named, placement.shape
        refused = named.annotation if named is not None else None
        return self._exemplars.chosen(rng, placement.category, placement.mask, window.image, refused)

    def _set(
        self, rng: np.random.Generator, window: Window, exemplar: Exemplar, shape: Shape
    ) -> tuple[_Scene, dict[str, str | int | float | bool]]:
        """The exemplar over its place: warped, lit, blurred and grained."""
        n, mask = bands(window.pixels), window.placement.mask
        part = _canvas(window)
        place = window.pixels[part][:, :, :n].astype(np.float32)
        asked = window.mask[part]
        source = self._exemplars.source(exemplar.annotation)
        own = like(source.pixels, n, window.pixels.dtype)
        frame = Box(*(v + _MARGIN_PX for v in (0, 0, *mask.pixels.shape[::-1])))
        moved, cover, known = warped(exemplar, source, shape, frame, asked.shape, own)
        alpha = _fitted(cover, asked)
        near = blend.grown(asked, _MARGIN_PX) & ~blend.grown(asked, 2)
        around = near & known
        rings = tuple(
            np.median(a[w], axis=0) if w.any() else a.mean(axis=(0, 1))
            for a, w in ((moved, around), (place, near))
        )
        scenes = (
            like(source.scene.astype(source.pixels.dtype)[None, None], n, window.pixels.dtype)[0, 0],
            window.scene,
        )
        inside = alpha >= 0.5
        gain = light(scenes, (rings[0], rings[1]))
        ceiling = float(np.iinfo(window.pixels.dtype).max)
        looks = self._exemplars.looks(window.placement.category)
        change = draw(rng, looks, moved[inside], gain, self._config.photometric)
        moved = self._photometry.apply(moved, change, inside, ceiling)
        how: dict[str, str | int | float | bool] = {
            "gain": round(float(change.gain.mean()), 3),
            "contrast": round(change.contrast, 3),
            "shift": round(float(change.shift.mean()), 2),
        }
        if self._config.match_noise:
            moved, alpha, told = _like_sensor(rng, moved, alpha, place, near, known)
            how |= told
        return _Scene(place, moved, alpha, near, known), how


def _like_sensor(
    rng: np.random.Generator,
    moved: Colours,
    alpha: NDArray[np.float32],
    place: Colours,
    near: BoolArray,
    known: BoolArray,
) -> tuple[Colours, NDArray[np.float32], dict[str, str | int | float | bool]]:
    """Blur what is sharper than its place, then add the noise that the place has and the object lacks."""
    sigma = sensor.blur_to_match(moved, known, sensor.fineness(place, near))
    moved, soft = sensor.blurred(moved, sigma), sensor.blurred(alpha, sigma)
    if (soft >= 0.5).any():
        alpha = soft
    around = near & known
    has = sensor.noise(moved, around if around.any() else known)
    missing = np.sqrt(np.clip(sensor.noise(place, near) ** 2 - has**2, 0, None))
    moved = moved + sensor.grain(alpha.shape, missing, rng)
    return moved, alpha, {"blur_px": sigma, "noise": round(float(missing.mean()), 2)}


def _blended(scene_: _Scene, asked: Blend, *, complete: bool) -> tuple[Colours, NDArray[np.float32], Blend]:
    """Colours, weight, and the blend really used: where one would spoil the object, feathering takes its place."""
    inside, alpha = scene_.inside, scene_.alpha
    size = float(np.sqrt(inside.sum()))
    foreign = _foreign(scene_)
    clean = blend.continued(scene_.source, inside) if foreign > _FOREIGN else scene_.source
    if asked == "poisson" and complete:
        region = blend.grown(inside, int(np.clip(0.08 * size, 1, 4)))
        colours, added = blend.poisson(scene_.place, scene_.source, region)
        if region.all() or _spoils(added[inside], scene_):
            asked = "feather"
        else:
            return colours, blend.feather(region.astype(np.float32), 1.0), "poisson"
    if asked == "pyramid" and size >= _SMALLEST_PYRAMID_PX:
        colours, weight = blend.pyramid(scene_.place, clean, alpha)
        return colours, weight, "pyramid"
    if asked == "hard":
        return clean, np.where(alpha > _NOTHING, alpha, np.float32(0)), "hard"
    return clean, blend.feather(alpha, float(np.clip(0.05 * size, 0.75, 3))), "feather"


def _foreign(scene_: _Scene) -> float:
    """How far the exemplar's surroundings differ from the place's, against how far the object stands out of them."""
    around = scene_.near & scene_.known
    if not around.any():
        return 1.0
    own, there = np.median(scene_.source[around], axis=0), np.median(scene_.place[scene_.near], axis=0)
    stands_out = np.abs(np.median(scene_.source[scene_.inside], axis=0) - own).max()
    return float(np.abs(own - there).max() / (stands_out + 1e-3))


def _spoils(added: Colours, scene_: _Scene) -> bool:
    """Whether a membrane changes an object by more than a part of what makes it stand out: a washed-out ghost."""
    around = scene_.near & scene_.known
    if not around.any():
        return True
    own = np.median(scene_.source[around], axis=0)
    stands_out = np.abs(np.median(scene_.source[scene_.inside], axis=0) - own).max()
    return bool(np.abs(added.mean(axis=0)).max() + 2 * added.std(axis=0).max() > _SPOILT * stands_out)


_FOREIGN = 0.25
_SPOILT = 0.4
_SMALLEST_PYRAMID_PX = 8
"""Square root of the area below which a pyramid has no level to work on."""
_NOTHING = 0.02
"""A share below this changes no pixel of 8 bits by what can be seen; it is left out of what was touched."""


def _fitted(cover: NDArray[np.float32], asked: BoolArray) -> NDArray[np.float32]:
    """The object's share of each pixel: its own silhouette's where that is the mask asked for, else the mask's."""
    own = cover >= 0.5
    if (own & asked).sum() >= 0.9 * (own | asked).sum():
        return cover
    soft = cv2.GaussianBlur(asked.astype(np.float32), (0, 0), 0.6)
    # Blur alone would take thin parts below one half.
    return np.asarray(np.where(asked, np.maximum(soft, 0.5), np.minimum(soft, 0.49)), dtype=np.float32)


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
