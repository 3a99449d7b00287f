"""What a category looks like in the real data: the spread within which a painted object may vary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarefill.generators.window import Colours
from rarefill.geometry import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One real object: its pixels, and what surrounds it.

    Attributes:
        pixels: float32 (n, C), the object's.
        ring: float32 (C,), colour around it.
        scene: float32 (C,), mean colour of its picture.
    """

    pixels: Colours
    ring: NDArray[np.float32]
    scene: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """A category's spread, in the image's units.

    Attributes:
        brightness: 10 and 90 % quantiles of the objects' mean.
        contrast: 10 and 90 % quantiles of the standard deviation within an object.
        tint: float32 (C,), standard deviation from object to object of each band's mean, brightness taken out.
        follows: how far an object's brightness follows its picture's and that of its surroundings, 0 to 1 each:
            a stained cell follows the stain, a ship on calibrated radiances follows nothing.
    """

    brightness: tuple[float, float]
    contrast: tuple[float, float]
    tint: NDArray[np.float32]
    follows: tuple[float, float]


def measure(objects: Sequence[Seen]) -> Looks:
    """The spread over some objects, one at least."""
    means = np.array([o.pixels.mean(axis=0) for o in objects], dtype=np.float32)
    spreads = [float(o.pixels.mean(axis=1).std()) for o in objects]
    bright = means.mean(axis=1)
    low, high = (float(v) for v in np.quantile(bright, (0.1, 0.9)))
    flat, rich = (float(v) for v in np.quantile(spreads, (0.1, 0.9)))
    tint = (means - bright[:, None]).std(axis=0)
    around = np.array([[o.scene.mean(), o.ring.mean()] for o in objects], dtype=np.float64)
    return Looks((low, high), (flat, rich), np.asarray(tint, dtype=np.float32), _follows(bright, around))


def light(
    looks: Looks,
    scenes: tuple[NDArray[np.float32], NDArray[np.float32]],
    rings: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """The gain per band that moves an exemplar's light towards its place's: float32 (C,).

    Args:
        looks: the category's.
        scenes: mean colours (C,) of the exemplar's picture and of the place's.
        rings: colours (C,) around the exemplar and around its place.
    """
    floor = _floor(np.array(scenes))
    pulls = (np.log((b + floor) / (a + floor)) for a, b in (scenes, rings))
    gain = sum(k * pull for k, pull in zip(looks.follows, pulls, strict=True))
    return np.asarray(np.exp(np.clip(gain, -_MOST, _MOST)), dtype=np.float32)


_USUAL = np.array([0.35, 0.25])
"""How far objects follow scene and ring where too few are known to measure it."""
_WEIGHT = 0.5
"""What the usual counts for against the data, as the ridge's weight: as much as some ten objects of usual spread."""
_MOST = float(np.log(1.6))
"""Light is never changed by more than this: beyond it an object no longer looks like itself."""


def _follows(bright: NDArray[np.float32], around: FloatArray) -> tuple[float, float]:
    """Ridge regression, towards the usual, of an object's log brightness on its scene's and its ring's."""
    floor = _floor(around)
    y = np.log(bright + floor)
    x = np.log(around + floor)
    x, y = x - x.mean(axis=0), y - y.mean()
    slopes = np.linalg.solve(x.T @ x + _WEIGHT * np.eye(2), x.T @ y + _WEIGHT * _USUAL)
    scene, ring = np.clip(slopes, 0, 1)
    total = max(1.0, float(scene + ring))
    return float(scene) / total, float(ring) / total


def _floor(values: NDArray[Any]) -> float:
    """Keeps logarithms of the dark apart from noise: a tenth of the mean."""
    return 0.1 * float(values.mean()) + 1e-6
