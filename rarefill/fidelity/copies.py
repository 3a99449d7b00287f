"""Near-copies: painted objects that are more like a real one than real ones are like each other.

Objects are aligned (turned, mirrored, moved a little) and their grain is correlated: `likeness`. The mark is what other
real objects reach: of two real objects on different images hardly any pair is nearer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill import likeness
from rarefill.fidelity import windows
from rarefill.fidelity.windows import Windows

Floats = NDArray[np.float64]

CHANCE = 0.05
"""Share of real objects that lie beyond the mark themselves."""
MOST_REAL = 300
"""Real objects that the mark is taken from; an even sample where there are more."""
FEWEST = 8
"""Real objects on other images than their own, below which no mark can be drawn."""


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
    pool = windows.stretched(real, side)
    some = np.unique(np.linspace(0, len(real) - 1, min(MOST_REAL, len(real))).round().astype(np.int64))
    others = real.image[some][:, None] != real.image[None]
    alike, nearest = likeness.most_alike(windows.stretched(painted, side), pool)
    real_alike, _ = likeness.most_alike(pool[some], pool, allowed=others)
    real_alike = real_alike[others.any(axis=1)]
    mark = float(np.quantile(real_alike, 1 - CHANCE)) if len(real_alike) >= FEWEST else None
    return Copies(nearest, alike, real_alike, mark)
