"""Objects that show in part: cut off by the image's edge, or behind what stands there, as often as real ones are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import FloatArray

LEAST_SHOWN = 0.4
"""Of a planned object: less of it would hardly be known for what it is."""
_MOST_SHOWN = 0.95
_EDGE_PX = 1.0  # a box this near the image's edge is cut off by it
_POOL = 4.0  # boxes that all categories' edges count for
_EDGES = 4  # left, top, right, bottom


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """At which of the image's edges a category's objects are cut off.

    Attributes:
        shares: float64 (4,), left, top, right, bottom; they add up to 1.
    """

    shares: FloatArray

    @classmethod
    def of(cls, dataset: Dataset, category: str) -> "Edges":
        """As a dataset has it; a category with few cut objects follows all others, those follow chance."""
        every = _cut(dataset, np.flatnonzero(~dataset.annotations.crowd))
        own = _cut(dataset, dataset.rows_of(category))
        pool = (every + 1) / (every + 1).sum()
        counts = own + _POOL * pool
        return cls(counts / counts.sum())

    def over(self, rng: np.random.Generator, boxes: FloatArray, size: FloatArray) -> FloatArray:
        """Boxes (n, 4) moved straight over an edge each, so that 0.4 to 0.95 of their side shows.

        `size`: float64 (n, 2) or (1, 2), width and height of the image.
        """
        n = len(boxes)
        edge = rng.choice(_EDGES, n, p=self.shares)
        shown = rng.uniform(LEAST_SHOWN, _MOST_SHOWN, n)
        axis, far = edge % 2, edge >= 2
        rows = np.arange(n)
        low, high = boxes[rows, axis], boxes[rows, axis + 2]
        frame = np.where(axis == 0, *size.T)
        side = high - low
        moved = np.where(far, frame - shown * side, shown * side - side) - low
        out = boxes.copy()
        out[rows, axis] += moved
        out[rows, axis + 2] += moved
        return out


def _cut(dataset: Dataset, rows: NDArray[np.intp]) -> FloatArray:
    """float64 (4,): how many boxes each edge cuts off."""
    boxes, image = dataset.annotations.boxes[rows], dataset.annotations.image[rows]
    width, height = dataset.images.width[image], dataset.images.height[image]
    near = (boxes[:, 0], boxes[:, 1], width - boxes[:, 2], height - boxes[:, 3])
    return np.array([np.count_nonzero(gap <= _EDGE_PX) for gap in near], dtype=float)
