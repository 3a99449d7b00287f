"""A mask as run lengths and as rings along its pixels' edges. Both give back the same pixels.

Contours that run through pixel centres (cv2.findContours) lose half a pixel on every side; COCO's polygons are in
edge coordinates, so the rings here turn at pixel corners.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import Mask

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """One closed boundary of a mask.

    Attributes:
        points: int64 (N, 2), x y of the pixel corners where it turns, in the image's frame; the first is not repeated.
        hole: whether it bounds a hole instead of a part.
    """

    points: NDArray[np.int64]
    hole: bool


def rings(mask: Mask) -> tuple[Ring, ...]:
    """Every boundary of a mask. Pixels that touch at a corner alone are two parts, so no ring crosses itself.

    A turn is a corner point with an odd number of its four pixels set; where two pixels touch at a corner alone, two
    turns share the point. In reading order, turns pair up into horizontal edges; sorted by column, into vertical
    ones. A ring follows them in turn.
    """
    height, width = mask.pixels.shape
    padded = np.zeros((height + 2, width + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask.pixels
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (a == d) & (b == c) & (a != b)
    ys, xs = np.nonzero((a ^ b ^ c ^ d) | touching)
    twice = touching[ys, xs]
    turns = np.repeat(np.arange(len(ys)), 1 + twice)
    x, y = xs[turns], ys[turns]
    second = np.diff(turns, prepend=-1) == 0
    # Of two turns at one point the first is the left one; it goes up where the upper left pixel is set, else down.
    down = second ^ (twice & b[ys, xs])[turns]
    order = np.lexsort((down, y, x))
    across = np.empty_like(order)
    across[order[::2]], across[order[1::2]] = order[1::2], order[::2]
    out = []
    follow, below = across.tolist(), d[y, x].tolist()
    seen = [False] * len(x)
    for start in range(len(x)):
        if seen[start]:
            continue
        ring, at = [], start
        while not seen[at]:
            end = at ^ 1  # the other end of its horizontal edge
            seen[at] = seen[end] = True
            ring += [at, end]
            at = follow[end]
        points = np.stack([x[ring] + mask.x, y[ring] + mask.y], axis=1)
        # Its first turn is the left end of its uppermost edge: a part's pixels lie below, a hole's above.
        out.append(Ring(points, hole=not below[start]))
    return tuple(out)


def bridged(parts: Sequence[NDArray[Any]]) -> Points:
    """Several rings as one, joined by seams without width: a YOLO line holds one polygon.

    Each ring is entered and left through the two nearest points. By the even-odd rule, a hole stays a hole.

    Args:
        parts: (N, 2) each, x y.
    """
    joined = np.asarray(parts[0], dtype=np.float64)
    for part in parts[1:]:
        gaps = ((joined[:, None] - part[None]) ** 2).sum(axis=2)
        i, j = np.unravel_index(int(gaps.argmin()), gaps.shape)
        loop = np.concatenate([part[j:], part[: j + 1]])
        joined = np.concatenate([joined[: i + 1], loop, joined[i:]])
    return joined


def run_lengths(mask: Mask, height: int, width: int) -> list[int]:
    """COCO's plain run lengths of a mask on its image: how many unset, set, unset... pixels, column by column."""
    inside = mask.clipped(width, height)
    if inside is None:
        return [height * width]
    h, w = inside.pixels.shape
    columns = np.zeros((w, h + 2), dtype=np.int8)
    columns[:, 1:-1] = inside.pixels.T
    column, row = np.nonzero(np.diff(columns, axis=1))  # where runs begin and end, in turn
    edges = (column + inside.x) * height + row + inside.y
    # A run that ends at the image's last row goes on where the next column begins at the first.
    goes_on = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([goes_on, goes_on + 1]))
    end = [] if edges[-1] == height * width else [height * width]
    return list(np.diff(np.r_[0, edges, end]).astype(int).tolist())


def compressed(counts: Sequence[int], height: int, width: int) -> str:
    """Run lengths in COCO's compressed text form (pycocotools)."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return str(rle["counts"].decode())
