"""The ground that a place stands on: the colours of a narrow ring right around its box.

Far finer than the rings of `around`: a blood platelet lies between cells, a ship on water, and both are told within a few
pixels of the box.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import FloatArray
from rarefill.layouts.sums import Frame, Frames, Sums, over

N_FEATURES = 6
_SHARE = 0.25
"""How far the ring reaches beyond a box, in shares of its size."""
_LEAST_CELLS = 2
_WAY = np.array([-1.0, -1.0, 1.0, 1.0])
_FLAT = 2.0
"""Added to an image's deviation, in grey levels: an even picture has no other ground than its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Colours:
    """The colours of one image, summed up.

    Attributes:
        sums: of six channels: the three colours, and their squares.
        mean: float64 (3,), of what counts.
        spread: float64 (3,), its deviations, a little more than they are.
    """

    sums: Sums
    mean: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, frame: Frame, grid: NDArray[np.uint8], left_out: NDArray[np.intp] | None = None) -> "Colours":
        """As `Sums.of`, of uint8 (rows, columns, 3)."""
        wide = grid.astype(np.uint16)
        sums = Sums.of(frame, np.concatenate([wide, wide * wide], axis=2), left_out, squares=False)
        # Where nothing counts, no ring has a pixel.
        mean, square = np.split(sums.total[:-1] / max(float(sums.total[-1]), 1.0), 2)
        return cls(sums, mean, np.sqrt(np.maximum(square - mean * mean, 0)) + _FLAT)


def ground(parts: Sequence[tuple[Colours, int, int]], frames: Frames, boxes: FloatArray) -> FloatArray:
    """float64 (n, 6): the ring's mean colours less those of the image, and its deviations, in deviations of the image.

    Args:
        parts: each image's colours, the first of its places and the end of them.
        frames: of the fine cells.
        boxes: float64 (n, 4).

    Returns:
        NaN where nothing of a ring is in the image.
    """
    inner = cells(frames, boxes)
    size = np.sqrt((inner[:, 2] - inner[:, 0]) * (inner[:, 3] - inner[:, 1]))[:, None]
    outer = inner + np.ceil(np.maximum(_SHARE * size, _LEAST_CELLS)) * _WAY
    places = np.stack([_inside(edges, frames) for edges in (outer, inner)], axis=1)
    totals = over([(colours.sums, at, end) for colours, at, end in parts], places)
    ring = (totals[:, 0] - totals[:, 1]).astype(np.float64)
    each = [end - at for _, at, end in parts]
    middle = np.repeat([colours.mean for colours, _, _ in parts], each, axis=0)
    spread = np.repeat([colours.spread for colours, _, _ in parts], each, axis=0)
    with np.errstate(invalid="ignore"):
        mean, square = np.split(ring[:, :-1] / ring[:, -1:], 2, axis=1)
        deviation = np.sqrt(np.maximum(square - mean * mean, 0))
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
