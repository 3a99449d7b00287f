"""Does the n-th painted object still add anything new?

An object is new if nothing before it, real or painted, is nearer to it than real objects usually are to their nearest
neighbour. The share of new ones falls with their number; where it is low, more objects repeat what is there.
"""

from dataclasses import dataclass

import numpy as np

from rarefill.fidelity.distances import Floats

STOP = 0.1
"""Share of new ones below which more are hardly worth painting."""
_POINTS = 12
_DRAWS = 40


@dataclass(frozen=True, slots=True)
class Saturation:
    """How variety grows.

    Attributes:
        points: number painted, and the share of new ones among those next to it, averaged over orders.
        last: that share at the end: what one more object would be with.
        stop: the number from which on the share stays below `STOP`; None where it does not.
        radius: distance below which two objects count as alike, in deviations per channel.
    """

    points: tuple[tuple[int, float], ...]
    last: float
    stop: int | None
    radius: float

    @property
    def says(self) -> str:
        """The advice in one sentence."""
        n = self.points[-1][0]
        if self.stop is not None:
            return (
                f"From about {self.stop} objects on fewer than one in ten shows something new: more of them would mostly "
                "repeat what is there; new real examples, another strength or other backgrounds would add more."
            )
        return f"After {n} objects {self.last:.0%} of further ones would still be unlike all others: variety is no reason to stop."


def saturation(painted: Floats, real: Floats, rng: np.random.Generator) -> Saturation | None:
    """The curve of one category.

    Args:
        painted: float64 (N, D), features brought to deviation 1.
        real: float64 (M, D), the same.
        rng: draws the orders.

    Returns:
        None with fewer than five painted or real objects.
    """
    n = len(painted)
    if n < 5 or len(real) < 5:
        return None
    own = _distances(real, real)
    np.fill_diagonal(own, np.inf)
    radius = float(np.median(own.min(axis=1)))
    known = _distances(painted, real).min(axis=1) <= radius
    alike = _distances(painted, painted) <= radius
    np.fill_diagonal(alike, val=False)
    sizes = np.unique(np.linspace(1, n, min(_POINTS, n)).round().astype(int))
    # An object after k - 1 others is new if it is like no real one and like none of those: over all orders.
    fresh = {int(k): float(_fresh(known, alike, int(k), rng)) for k in sizes}
    points = tuple((k, round(v, 4)) for k, v in fresh.items())
    below = [k for k, v in points if v < STOP]
    stop = next((k for k, _ in points if k in below and all(v < STOP for m, v in points if m >= k)), None)
    return Saturation(points, points[-1][1], stop, round(radius, 4))


def _fresh(
    known: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    alike: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]",
    k: int,
    rng: np.random.Generator,
) -> float:
    """Chance that the k-th object of a random order is new."""
    n = len(known)
    if k >= n:
        return float((~known & ~alike.any(axis=1)).mean())
    found = []
    for _ in range(_DRAWS):
        order = rng.permutation(n)
        before, rest = order[: k - 1], order[k - 1 :]
        found.append((~known[rest] & ~alike[np.ix_(rest, before)].any(axis=1)).mean())
    return float(np.mean(found))


def _distances(x: Floats, y: Floats) -> Floats:
    """float64 (N, M), in deviations per channel."""
    square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.asarray(np.sqrt(np.maximum(square, 0) / x.shape[1]))
