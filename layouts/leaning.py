"""How a category's long objects lie to the edges around them: a lorry along its road, a ship along its quay.

The edges right around a place run one way more or less, and a long object lies along that way, or across it, or takes no
notice. Which of these is learned from the real objects; where they say nothing, nothing is believed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e

from rarefill.geometry import FloatArray

_LIKELY = 2.0
"""Deviation of the concentrations that are thought likely before anything is known: few objects move it little."""
_MOST = 12.0
_TRIED = np.linspace(-_MOST, _MOST, 241)


@dataclass(frozen=True, slots=True)
class Leaning:
    """What is known of one category.

    Attributes:
        concentration: above 0 its objects lie along the edges around them, below 0 across; 0 says nothing.
    """

    concentration: float = 0.0

    def at(self, temperature: float) -> "Leaning":
        """The same, the stricter the lower the temperature is."""
        return Leaning(self.concentration / temperature)

    def __call__(self, axes_deg: FloatArray, running: FloatArray) -> FloatArray:
        """Log odds that an object lies in a direction, given where it lies, against any direction.

        Args:
            axes_deg: float64 (n,), long axes from 0 to 180, clockwise from the right; NaN for round objects.
            running: float64 (n, 2), as `around.running` gives it.

        Returns:
            float64 (n,), 0 for round objects and where nothing is known of the edges.
        """
        if not self.concentration:
            return np.zeros(len(axes_deg))
        return _log_odds(self.concentration, *_told(axes_deg, running))


def learned(axes_deg: FloatArray, running: FloatArray, image: NDArray[np.intp]) -> Leaning:
    """What real objects say. All of one image count as one: they stand on one road.

    The doubled angle between axis and edges has a von Mises distribution whose concentration is the category's, times how
    far the edges run one way; that of the category is the likeliest under a normal prior.

    Args:
        axes_deg: float64 (n,), as above.
        running: float64 (n, 2).
        image: intp (n,), where each object is.

    Source: Mardia and Jupp, Directional Statistics, 2000, section 3.5.4.
    """
    known = np.isfinite(axes_deg) & np.isfinite(running).all(axis=1)
    if not known.any():
        return Leaning()
    cosine, far = _told(axes_deg[known], running[known])
    _, at, each = np.unique(image[known], return_inverse=True, return_counts=True)
    share = 1 / each[at]
    said = np.array([share @ _log_odds(k, cosine, far) for k in _TRIED]) - 0.5 * (_TRIED / _LIKELY) ** 2
    return Leaning(float(_TRIED[said.argmax()]))


def _told(axes_deg: FloatArray, running: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cosine of the doubled angle between axis and edges, and how far those run one way; 0 where either is unknown."""
    far = np.hypot(running[:, 0], running[:, 1])
    doubled = np.radians(2 * axes_deg)
    along = running[:, 0] * np.cos(doubled) + running[:, 1] * np.sin(doubled)
    cosine = np.nan_to_num(along / np.maximum(far, 1e-9))
    return cosine, np.where(np.isfinite(along), far, 0)


def _log_odds(concentration: float, cosine: FloatArray, far: FloatArray) -> FloatArray:
    k = concentration * far
    # The Bessel function grows as an exponential, which would leave the range of numbers.
    return np.asarray(k * cosine - np.abs(k) - np.log(i0e(k)))
