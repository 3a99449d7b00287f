"""What a category looks like in the real data: the spread within which a painted object may vary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.generators.window import Colours


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """A category's spread, in the image's units.

    Attributes:
        brightness: 10 and 90 % quantiles of the objects' mean.
        contrast: 10 and 90 % quantiles of the standard deviation within an object.
        tint: float32 (C,), standard deviation from object to object of each band's mean, brightness taken out.
    """

    brightness: tuple[float, float]
    contrast: tuple[float, float]
    tint: NDArray[np.float32]


def measure(objects: Sequence[Colours]) -> Looks:
    """The spread over some objects' pixels, each float32 (n, C) with n at least 1."""
    means = np.array([o.mean(axis=0) for o in objects], dtype=np.float32)
    spreads = [float(o.mean(axis=1).std()) for o in objects]
    bright = means.mean(axis=1)
    low, high = np.quantile(bright, (0.1, 0.9))
    flat, rich = np.quantile(spreads, (0.1, 0.9))
    tint = (means - bright[:, None]).std(axis=0)
    return Looks((float(low), float(high)), (float(flat), float(rich)), np.asarray(tint, dtype=np.float32))


def light(
    scenes: tuple[NDArray[np.float32], NDArray[np.float32]],
    rings: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """The gain per band that moves an exemplar's light towards its place's: float32 (C,).

    The whole pictures tell exposure and white balance; the rings around the object tell local light, but also what
    the ground is made of, so they count for less.

    Args:
        scenes: mean colours (C,) of the exemplar's picture and of the place's.
        rings: colours (C,) around the exemplar and around its place.
    """
    floor = 0.1 * float(np.mean(scenes)) + 1e-6
    whole = np.log((scenes[1] + floor) / (scenes[0] + floor))
    near = np.log((rings[1] + floor) / (rings[0] + floor))
    gain = np.exp(np.clip(_SCENE * whole + _RING * near, -_MOST, _MOST))
    return np.asarray(gain, dtype=np.float32)


_SCENE, _RING = 0.45, 0.35
_MOST = float(np.log(1.8))
"""Light is never changed by more than this: beyond it an object no longer looks like itself."""
