"""Near-copies: painted objects that are more like a real one than real ones are like each other.

Objects are aligned (turned, mirrored, moved a little) and their grain is correlated: `likeness`. The mark is what other
real objects reach: of two real objects on different images hardly any pair is nearer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill import likeness, windows
from rarefill.windows import Windows

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """How near painted objects come to real ones.

    Attributes:
        nearest: int64 (N,), of each painted object the most alike real one, a row of those given.
        alike: float64 (N,), that likeness, up to 1.
        real_alike: float64 (M,), of real objects the likeness to the most alike real one on another image.
        mark: the likeness above which an object counts as a near-copy; None where too few real objects tell.
    """

    nearest: NDArray[np.int64]
    alike: Floats
    real_alike: Floats
    mark: float | None

    @property
    def near(self) -> NDArray[np.bool_]:
        """bool (N,), which are near-copies."""
        return self.alike > (np.inf if self.mark is None else self.mark)


def find(painted: Windows, real: Windows) -> Copies:
    """Compare every painted object with every real one, and real ones with each other.

    Args:
        painted: the run's objects of one category.
        real: of the data they were made from; what they were painted from is among them.
    """
    side = likeness.SIDE_PX
    pool = likeness.Pool(windows.stretched(real, side))
    alike, nearest = pool.most_alike(windows.stretched(painted, side))
    mutual = pool.mutual(real.image)
    return Copies(nearest, alike, mutual, likeness.mark(mutual))
