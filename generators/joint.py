"""How an object joins its place: which blend it bears, and how soft its border is."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.generators import blend
from rarefill.generators.sensor import blurred
from rarefill.generators.window import Colours
from rarefill.geometry import BoolArray
from rarefill.recipe import Blend
from rarefill.scene import FEATHER_PX

_FOREIGN = 0.25
"""Part of an object's contrast by which its old surroundings may differ from the new and still be shown."""
_SHIFTED, _STAINED = 0.4, 0.3
"""Part of an object's contrast that a membrane may add to all of it, and unevenly: more is a washed-out ghost."""
_SMALLEST_PYRAMID_PX = 8
"""Square root of the area below which a pyramid has no level to work on."""
_SHARP, _SOFT = 0.5, 3.0
"""Standard deviations of the sharpest and the softest border, pixels."""
_NOTHING = 0.02
"""A share below this cannot be seen; it is left out of what was touched."""


@dataclass(frozen=True, eq=False)
class Joint:
    """An object over its place, on one canvas.

    Attributes:
        place: float32 (h, w, C), the background's.
        source: float32 (h, w, C), the object with its own surroundings, in the place's light and grain.
        alpha: float32 (h, w), the object's share.
        near: bool (h, w), the ring around the object.
        known: bool (h, w), where the object's own picture has pixels.
        complete: whether the object is whole: what the edge of its picture cuts has no surroundings on that side.
    """

    place: Colours
    source: Colours
    alpha: NDArray[np.float32]
    near: BoolArray
    known: BoolArray
    complete: bool

    @cached_property
    def inside(self) -> BoolArray:
        return np.asarray(self.alpha >= 0.5)

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """Distance to the border in pixels, positive inside."""
        return blend.depth(self.inside)

    @cached_property
    def own(self) -> NDArray[np.float32]:
        """Colour of the object's old surroundings, (C,)."""
        return _median(self.source, self.near & self.known)

    @cached_property
    def contrast(self) -> float:
        """How far the object stands out of its old surroundings."""
        return float(np.abs(_median(self.source, self.inside) - self.own).max()) + 1e-3

    @cached_property
    def foreign(self) -> float:
        """How far the old surroundings differ from the new, as a part of the contrast."""
        if not (self.complete and (self.near & self.known).any()):
            return 1.0
        return float(np.abs(self.own - _median(self.place, self.near)).max()) / self.contrast

    @cached_property
    def softness(self) -> float:
        """Standard deviation of the object's own border, pixels: the height of its steps over their steepest slope."""
        toward = _median(self.source, self.depth > 0.5 * self.depth.max()) - self.own
        share = ((self.source - self.own) @ toward) / (float(toward @ toward) + 1e-6)
        slope = np.hypot(*(cv2.Sobel(share, cv2.CV_32F, *d, scale=1 / 8) for d in ((1, 0), (0, 1))))
        border = (np.abs(self.depth) < 1) & self.known
        around = np.ones((9, 9), np.uint8)
        steps = (cv2.dilate(share, around) - cv2.erode(share, around))[border]
        steepest = cv2.dilate(slope, around)[border]
        seen = steps > 0.3
        if not seen.any():  # nowhere a step that stands out: nothing to measure
            return _SHARP
        # A blurred step of height 1 is 1 / (sigma sqrt(2 pi)) at its steepest.
        widths = steps[seen] / (steepest[seen] * np.sqrt(2 * np.pi) + 1e-6)
        return float(np.clip(np.median(widths), _SHARP, _SOFT))

    @cached_property
    def clean(self) -> Colours:
        """The object's colours without a foreign fringe: continued outwards where the old surroundings would show."""
        if self.foreign <= _FOREIGN:
            return self.source
        return blend.continued(self.source, self.depth, self.softness)


def joined(joint: Joint, asked: Blend) -> tuple[Colours, NDArray[np.float32], Blend]:
    """Colours, weight, and the blend really used: where the one asked for would spoil the object, it is feathered."""
    size = float(np.sqrt(np.count_nonzero(joint.inside)))
    if asked == "poisson" and joint.complete:
        region = blend.grown(joint.inside, int(np.clip(0.08 * size, 1, 4)))
        colours, added = blend.poisson(joint.place, joint.source, region)
        change = added[joint.inside]
        shift, stain = np.abs(change.mean(axis=0)).max(), change.std(axis=0).max()
        if shift <= _SHIFTED * joint.contrast and stain <= _STAINED * joint.contrast:
            return colours, blend.ramp(blend.depth(region), 1.0), "poisson"
    if asked == "pyramid" and size >= _SMALLEST_PYRAMID_PX:
        colours, weight = blend.pyramid(joint.place, joint.clean, joint.alpha)
        return colours, weight, "pyramid"
    if asked == "hard":
        weight = blurred(joint.alpha, 0.5 * joint.softness) if joint.softness > 1 else joint.alpha
        return joint.clean, np.where(weight > _NOTHING, weight, np.float32(0)), "hard"
    if joint.foreign <= _FOREIGN:  # its own soft border is taken along, and surroundings that are the same
        reach = float(np.clip(2 * joint.softness, 1.5, FEATHER_PX - 2))
        return joint.source, blend.ramp(joint.depth + reach / 2, reach / 2), "feather"
    # A thin object keeps its middle: a blur as wide as it is would leave a shadow of it.
    weight = blurred(joint.alpha, min(joint.softness, max(_SHARP, 0.4 * float(joint.depth.max()))))
    return joint.clean, np.where(weight > _NOTHING, weight, np.float32(0)), "feather"


def _median(values: Colours, where: BoolArray) -> NDArray[np.float32]:
    """Median colour, (C,), of some of the pixels, or of all where there are none; at most a few hundred are read."""
    held = values[where] if where.any() else values.reshape(-1, values.shape[2])
    return np.asarray(np.median(held[:: 1 + len(held) // 500], axis=0), dtype=np.float32)


def ring(mask: BoolArray, px: int) -> BoolArray:
    """The pixels around a mask, from 2 to some pixels away."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray((away > 2) & (away <= px))
