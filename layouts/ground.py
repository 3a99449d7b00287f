"""The ground that a place stands on: the colours of a narrow ring right around its box.

Far finer than the rings of `around`: a blood platelet lies between cells, a ship on water, and both are told within a few
pixels of the box.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray
from rarefill.layouts.sums import Frames, Sums, over

N_FEATURES = 6
_SHARE = 0.25
"""How far the ring reaches beyond a box, in shares of its size."""
_LEAST_CELLS = 2
_WAY = np.array([-1.0, -1.0, 1.0, 1.0])
_FLAT = 2.0
"""Added to an image's deviation, in grey levels: an even picture has no other ground than its own."""


def ground(parts: Sequence[tuple[Sums, int, int]], frames: Frames, boxes: FloatArray) -> FloatArray:
    """float64 (n, 6): the ring's mean colours less those of the image, and its deviations, in deviations of the image.

    Args:
        parts: sums of each image's colours, the first of its places and the end of them.
        frames: of the fine cells.
        boxes: float64 (n, 4).

    Returns:
        NaN where nothing of a ring is in the image.
    """
    inner = cells(frames, boxes)
    size = np.sqrt((inner[:, 2] - inner[:, 0]) * (inner[:, 3] - inner[:, 1]))[:, None]
    outer = inner + np.ceil(np.maximum(_SHARE * size, _LEAST_CELLS)) * _WAY
    places = np.stack([_inside(edges, frames) for edges in (outer, inner)], axis=1)
    totals, squares = (over(parts, places, squares=s).astype(np.float64) for s in (False, True))
    each = [end - at for _, at, end in parts]
    middle, spread = (
        np.repeat(v, each, axis=0) for v in zip(*(_colours(s) for s, _, _ in parts), strict=True)
    )
    ring, ring_squares = totals[:, 0] - totals[:, 1], squares[:, 0] - squares[:, 1]
    with np.errstate(invalid="ignore"):
        mean = ring[:, :-1] / ring[:, -1:]
        deviation = np.sqrt(np.maximum(ring_squares / ring[:, -1:] - mean * mean, 0))
    return np.concatenate([(mean - middle) / spread, deviation / spread], axis=1)


def cells(frames: Frames, boxes: FloatArray) -> FloatArray:
    """float64 (n, 4): the whole cells that boxes reach, which may lie beyond the grid."""
    # A box that ends where a cell does must not reach the next one by a rounding error.
    edges = boxes * frames.scale - 1e-9 * _WAY
    return np.asarray(np.floor(edges * -_WAY) * -_WAY)


def hidden(frames: Frames, boxes: FloatArray) -> NDArray[np.intp]:
    """intp (n, 4): the same inside the grid."""
    return _inside(cells(frames, boxes), frames)


def _inside(edges: FloatArray, frames: Frames) -> NDArray[np.intp]:
    return np.asarray(np.minimum(np.maximum(edges, 0), frames.most), dtype=np.intp)


def _colours(sums: Sums) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation (3,) of what counts of an image; where nothing does, no ring has a pixel."""
    n = max(float(sums.total[-1]), 1.0)
    mean = sums.total[:-1] / n
    return mean, np.sqrt(np.maximum(sums.squares[-1] / n - mean * mean, 0)) + _FLAT
