"""What stands in the way on one background: its own objects, what is planned already, its edge, the region of interest."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import LayoutError
from rarefill.geometry import BoolArray, Box, FloatArray, Mask, areas, box_mask
from rarefill.recipe import LayoutConfig, Polygon
from rarefill.scene import FEATHER_PX

APART_PX = 2 * FEATHER_PX
"""What generators may change beyond the masks of two neighbours, so that neither touches the other's; the margin is added."""

_WAY = np.array([1.0, 1.0, -1.0, -1.0])
_AROUND = 0.15  # of a box's sides: the exact outline, turned, may reach so far beyond what was drawn
_AROUND_PX = 2.0  # for whole pixels
_MANY = 200  # objects: a tree finds the few that matter sooner than a look at each

OVER = "over an existing object"
NEAR = "too near a planned one"
EDGE = "over the image's edge"
REGION = "outside the region"
SMALL = "too small"


class Background:
    """One image's own objects, made once for many plans on it. May be used from many threads."""

    def __init__(
        self,
        dataset: Dataset,
        image: int,
        ignored: FloatArray | None = None,
        mask: Callable[[int], Mask | None] | None = None,
    ) -> None:
        """See what is there.

        Args:
            dataset: the image's.
            image: its row.
            ignored: float64 (k, 4), boxes of further things that stand there.
            mask: of an annotation's row; the dataset's own unless given.
        """
        self.width, self.height = int(dataset.images.width[image]), int(dataset.images.height[image])
        self._rows = dataset.rows_in(image)
        self.category = dataset.annotations.category[self._rows]
        boxes = dataset.annotations.boxes[self._rows]
        self.boxes = boxes if ignored is None or not len(ignored) else np.vstack([boxes, ignored])
        known = [not dataset.has_mask(int(row)) for row in self._rows]
        self.plain = np.array(known + [True] * (len(self.boxes) - len(known)), dtype=bool)
        self._mask = mask or dataset.mask
        self._edges = np.ascontiguousarray(self.boxes.T) * _WAY[:, None]

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Finds objects whose boxes meet others."""
        return shapely.STRtree(_rectangles(self.boxes))

    def touching(self, x1: float, y1: float, x2: float, y2: float) -> NDArray[np.intp]:
        """Objects whose boxes meet this one, in order."""
        if len(self.boxes) > _MANY:
            return np.sort(self.tree.query(shapely.box(x1, y1, x2, y2)))
        meet = self._edges <= ((x2,), (y2,), (-x1,), (-y1,))
        return np.asarray(np.logical_and.reduce(meet).nonzero()[0])

    def clear(self, boxes: FloatArray) -> BoolArray:
        """Which boxes (n, 4) meet no object's box, to within _AROUND of their size."""
        grown = boxes + _AROUND_PX * -_WAY
        grown += (boxes[:, 2:] - boxes[:, :2])[:, (0, 1, 0, 1)] * (_AROUND * -_WAY)
        out = np.ones(len(boxes), dtype=bool)
        if len(self.boxes) > _MANY:
            out[self.tree.query(_rectangles(grown))[0]] = False
        elif len(self.boxes):
            left, top, right, bottom = self.boxes.T
            x1, y1, x2, y2 = grown.T[:, :, None]
            out = ~((left <= x2) & (top <= y2) & (right >= x1) & (bottom >= y1)).any(axis=1)
        return out

    def mask(self, i: int) -> Mask | None:
        """The pixels of an object: its mask, else its whole box."""
        own = None if self.plain[i] else self._mask(int(self._rows[i]))
        return own or box_mask(Box(*(float(v) for v in self.boxes[i])))

    def common(self, mask: Mask, i: int) -> int:
        """How many of a silhouette's pixels lie on an object. Its mask is decoded only where its box holds some."""
        x1, y1, x2, y2 = self.boxes[i].tolist()
        rows = slice(max(0, int(y1) - 1 - mask.y), max(0, int(y2) + 2 - mask.y))
        cols = slice(max(0, int(x1) - 1 - mask.x), max(0, int(x2) + 2 - mask.x))
        if not mask.pixels[rows, cols].any():
            return 0
        other = self.mask(i)
        return mask.overlap_px(other) if other is not None else 0


class Obstacles:
    """One background while it is being planned. Not shared between threads."""

    def __init__(
        self, background: Background, config: LayoutConfig, region: "shapely.Geometry | None"
    ) -> None:
        self.width, self.height, self.category = background.width, background.height, background.category
        self._there, self._config, self._region = background, config, region
        self._covered_px: dict[int, int] = {}
        self._planned: FloatArray | None = None
        self._n_planned = 0

    def add(self, mask: Mask) -> None:
        """Take a planned object into account from now on."""
        n = self._n_planned
        if self._planned is None:
            self._planned = np.zeros((4, 4))
        elif n == self._planned.shape[1]:
            self._planned = np.concatenate([self._planned, np.zeros((4, n))], axis=1)
        self._planned[:, n] = mask.box.xyxy
        self._n_planned += 1
        for i in self._there.touching(*mask.box.xyxy).tolist():
            self._covered_px[i] = self._covered_px.get(i, 0) + self._there.common(mask, i)

    def clear(self, boxes: FloatArray) -> BoolArray:
        """Which places (n, 4) have no existing object by them: what stands there covers none of them."""
        return self._there.clear(boxes)

    def near(self, boxes: FloatArray) -> NDArray[np.bool_] | None:
        """Which boxes (n, 4), the parts inside the image, come too near to what is planned; None where nothing is."""
        if self._planned is None:
            return None
        gap = self._config.margin_px + APART_PX
        left, top, right, bottom = self._planned[:, : self._n_planned]
        x1, y1, x2, y2 = boxes.T[:, :, None]
        lap = (x1 < right + gap) & (x2 > left - gap) & (y1 < bottom + gap) & (y2 > top - gap)
        return np.asarray(lap.any(axis=1))

    def refuses(self, mask: Mask, least_px: float) -> str | None:
        """Why the tight box of a silhouette cannot be, or None; overlap with existing objects is asked apart."""
        if min(mask.pixels.shape) < least_px:
            return SMALL
        if self._region is None and self._planned is None:
            return None
        box = np.array([mask.box.xyxy], dtype=float)
        if self.off_region(box, extents([self], 1))[0]:
            return REGION
        near = self.near(box)
        return NEAR if near is not None and near[0] else None

    def front(self, mask: Mask, reach: int) -> Mask | None:
        """Pixels of existing objects on a silhouette or so near: what must stay when it stands behind them.

        None where none is there, or where one is known by its box only: nobody knows which of its pixels are its own.
        """
        near = mask.box
        touching = self._there.touching(near.x1 - reach, near.y1 - reach, near.x2 + reach, near.y2 + reach)
        if not touching.size or self._there.plain[touching].any():
            return None
        h, w = mask.pixels.shape
        x, y = mask.x - reach, mask.y - reach
        placed = Mask.of(self._taken(touching, x, y, w + 2 * reach, h + 2 * reach), x, y)
        return None if placed is None else placed.clipped(self.width, self.height)

    def overlap(self, mask: Mask) -> float:
        """The worst of: the share of any existing object that is then covered, the share of the mask on existing ones."""
        h, w = mask.pixels.shape
        touching = self._there.touching(mask.x, mask.y, mask.x + w, mask.y + h)
        if not touching.size:
            return 0.0
        common = {i: n for i in touching.tolist() if (n := self._there.common(mask, i))}
        if not common:
            return 0.0
        hidden = max((n + self._covered_px.get(i, 0)) / self._area(i) for i, n in common.items())
        # Existing objects may overlap each other: what lies on two of them counts once for the mask itself.
        own = max(common.values())
        if len(common) > 1:
            taken = self._taken(np.array(list(common)), mask.x, mask.y, w, h)
            own = int(np.count_nonzero(taken & mask.pixels))
        return max(hidden, own / mask.area)

    def off_region(self, boxes: FloatArray, size: FloatArray) -> BoolArray:
        """Which boxes (n, 4) on images of these sizes (n, 2) or (1, 2) have their middle outside the region."""
        if self._region is None:
            return np.zeros(len(boxes), dtype=bool)
        x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 / size).T
        return np.asarray(~shapely.contains_xy(self._region, x, y))

    def surely_over(self, boxes: FloatArray, fill: FloatArray) -> BoolArray | None:
        """Where even the least overlap that these boxes allow is too much, with objects known by their box only.

        None where there is none of those. Of the boxes' common part, a silhouette misses at most what it misses of its whole box.
        """
        there = self._there
        if not there.plain.any():
            return None
        over = np.zeros(len(boxes), dtype=bool)
        new, old = there.tree.query(_rectangles(boxes))
        keep = there.plain[old]
        new, old = new[keep], old[keep]
        a, b = boxes[new], there.boxes[old]
        common = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).prod(axis=1)
        area = areas(boxes)[new]
        # Half a pixel each way: silhouettes take whole pixels.
        least = common - (1 - fill[new]) * area - (a[:, 2:] - a[:, :2]).sum(axis=1)
        allowed = self._config.max_overlap
        over[new[least > allowed * np.minimum(areas(b), fill[new] * area)]] = True
        return over

    def _area(self, i: int) -> float:
        mask = self._there.mask(i)
        return float(mask.area) if mask is not None else 1.0

    def _taken(self, touching: NDArray[np.intp], x: int, y: int, width: int, height: int) -> BoolArray:
        """bool (height, width): the pixels of some existing objects, seen through a window."""
        taken = np.zeros((height, width), dtype=bool)
        for i in touching.tolist():
            other = self._there.mask(i)
            if other is not None:
                taken |= other.window(x, y, width, height)
        return taken


def keeps_to(mask: Mask, x1: float, y1: float, x2: float, y2: float) -> bool:
    """Whether a silhouette lies where `clear` looked about its box."""
    across, down = (_AROUND_PX + _AROUND * side for side in (x2 - x1, y2 - y1))
    h, w = mask.pixels.shape
    return (
        mask.x >= x1 - across
        and mask.y >= y1 - down
        and mask.x + w <= x2 + across
        and mask.y + h <= y2 + down
    )


def extents(scenes: Sequence[Obstacles], each: int) -> FloatArray:
    """Width and height for as many places on each background: float64 (n, 2), or (1, 2) where all are alike."""
    sizes = [(scene.width, scene.height) for scene in scenes]
    if len(set(sizes)) == 1:
        return np.array(sizes[:1], dtype=float)
    return np.repeat(np.array(sizes, dtype=float), each, axis=0)


def sieve(
    scenes: Sequence[Obstacles],
    boxes: FloatArray,
    size: FloatArray,
    fill: FloatArray,
    least_px: float,
    *,
    cut: bool = False,
) -> tuple[NDArray[np.intp], list[Counter[str]]]:
    """Cheap and certain tests of places: which of them deserve the exact one, and why the others of each background cannot be.

    What is planned already is left out: it is asked by `near`, since it changes from object to object.

    Args:
        scenes: the backgrounds.
        boxes: float64 (n, 4), as many on each background, one after the other.
        size: width and height of theirs, as `extents` gives them.
        fill: float64 (n,), the share of its box that each silhouette covers.
        least_px: the smallest side.
        cut: boxes may reach beyond the image's edge.
    """
    each = len(boxes) // len(scenes)
    shown = np.minimum(np.maximum(boxes, 0), np.tile(size, 2)) if cut else boxes
    over = np.zeros(len(boxes), dtype=bool)
    for i, scene in enumerate(scenes if not cut else ()):
        own = slice(i * each, (i + 1) * each)
        found = scene.surely_over(boxes[own], fill[own])
        if found is not None:
            over[own] = found
    failed = [
        (EDGE, ((boxes[:, :2] < 0) | (boxes[:, 2:] > size)).any(axis=1) & (not cut)),
        (SMALL, (shown[:, 2:] - shown[:, :2] < least_px).any(axis=1)),
        (REGION, scenes[0].off_region(shown, size)),
        (OVER, over),
    ]
    left = np.ones(len(boxes), dtype=bool)
    reasons: list[Counter[str]] = [Counter() for _ in scenes]
    for reason, where in failed:
        now = where & left
        if now.any():
            left ^= now
            for counts, n in zip(reasons, now.reshape(len(scenes), -1).sum(axis=1).tolist(), strict=True):
                if n:
                    counts[reason] = n
    return left.nonzero()[0], reasons


def region_of(polygons: Sequence[Polygon]) -> "shapely.Geometry | None":
    """The region of interest in shares of width and height, prepared for many points; None for the whole image.

    Raises:
        LayoutError: a polygon has fewer than three corners or crosses itself.
    """
    if not polygons:
        return None
    parts = []
    for i, corners in enumerate(polygons):
        if len(corners) < 3:
            raise LayoutError(f"layout.region[{i}]: a polygon needs 3 corners or more, got {len(corners)}")
        part = shapely.Polygon(corners)
        if not part.is_valid:
            raise LayoutError(
                f"layout.region[{i}]: {shapely.is_valid_reason(part)}; list its corners in order"
            )
        parts.append(part)
    whole = shapely.union_all(parts)
    shapely.prepare(whole)
    return whole


def _rectangles(boxes: FloatArray) -> NDArray[np.object_]:
    return np.asarray(shapely.box(boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3]))
