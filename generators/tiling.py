"""Tiles that a large canvas is cut into, and how they fade into each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bits = NDArray[np.bool_]
"""bool (H, W)."""

GRID_PX: Final = 16
"""Tiles begin and end on multiples of it: patches of 4 x 4 pixels, halved twice."""
TILE_PX: Final = 320
"""The largest side of a tile: it bounds the memory of a step."""
OVERLAP_PX: Final = 32
"""Of neighbouring tiles, and how far beyond what matters they reach."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A part of the canvas that goes through a network alone.

    Attributes:
        place: rows and columns, as an index behind any other axes.
        weight: float32 (h, w), 0 to 1. Weights of neighbours add up to 1; they fall to 0 where the tiles end inside the canvas.
    """

    place: tuple[EllipsisType, slice, slice]
    weight: Tensor


def tiles(where: Bits) -> Iterator[Tile]:
    """Tiles over the box of what matters and a margin; those without any of it are left out.

    Args:
        where: bool (S, S), the canvas's pixels that matter; S is a multiple of `GRID_PX`.
    """
    if not where.any():
        return
    side = where.shape[0]
    rows, columns = (_spans(*_reach(np.asarray(where.any(axis=axis)))) for axis in (1, 0))
    for top, bottom in rows:
        for left, right in columns:
            if where[top:bottom, left:right].any():
                weight = _ramp(top, bottom, side)[:, None] * _ramp(left, right, side)
                yield Tile((..., slice(top, bottom), slice(left, right)), torch.from_numpy(weight))


def _reach(line: NDArray[np.bool_]) -> tuple[int, int]:
    """First and last of what matters along one axis, with a margin, on the grid."""
    (found,) = line.nonzero()
    first = max(int(found[0]) - OVERLAP_PX, 0) // GRID_PX * GRID_PX
    last = min(-(-(int(found[-1]) + 1 + OVERLAP_PX) // GRID_PX) * GRID_PX, len(line))
    return first, last


def _spans(first: int, last: int) -> list[tuple[int, int]]:
    """Cut a range of one axis into tiles of nearly one size, neighbours sharing exactly `OVERLAP_PX`."""
    n = max(-(-(last - first - OVERLAP_PX) // (TILE_PX - OVERLAP_PX)), 1)
    cells, more = divmod((last - first + (n - 1) * OVERLAP_PX) // GRID_PX, n)
    spans, start = [], first
    for number in range(n):
        end = start + (cells + (number < more)) * GRID_PX
        spans.append((start, end))
        start = end - OVERLAP_PX
    return spans


def _ramp(first: int, last: int, side: int) -> NDArray[np.float32]:
    """float32 (last - first,): 1, falling at those ends that are not the canvas's own."""
    weight = np.ones(last - first, np.float32)
    slope = (np.arange(OVERLAP_PX, dtype=np.float32) + 0.5) / OVERLAP_PX
    if first > 0:
        weight[:OVERLAP_PX] = slope
    if last < side:
        weight[-OVERLAP_PX:] = slope[::-1]
    return weight
