"""What stands in the way on one background: its own objects, what is planned already, its edge, the region of interest."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import LayoutError
from rarefill.geometry import Box, FloatArray, Mask, areas, box_mask
from rarefill.recipe import LayoutConfig, Polygon
from rarefill.scene import FEATHER_PX

APART_PX = 2 * FEATHER_PX
"""What generators may change beyond the masks of two neighbours, so that neither touches the other's; the margin is added."""

OVER = "over an existing object"
NEAR = "too near a planned one"
EDGE = "over the image's edge"
REGION = "outside the region"
SMALL = "too small"


class Obstacles:
    """One background while it is being planned. Not shared between threads."""

    def __init__(
        self,
        dataset: Dataset,
        image: int,
        config: LayoutConfig,
        region: "shapely.Geometry | None",
        ignored: FloatArray | None = None,
    ) -> None:
        self.width, self.height = int(dataset.images.width[image]), int(dataset.images.height[image])
        self._dataset, self._config, self._region = dataset, config, region
        self._rows = dataset.rows_in(image)
        boxes = dataset.annotations.boxes[self._rows]
        self._boxes = boxes if ignored is None or not len(ignored) else np.vstack([boxes, ignored])
        known = [not dataset.has_mask(int(row)) for row in self._rows]
        self._plain = np.array(known + [True] * (len(self._boxes) - len(known)), dtype=bool)
        self._tree = shapely.STRtree(_rectangles(self._boxes)) if len(self._boxes) else None
        self._masks: dict[int, Mask | None] = {}
        self._covered_px = np.zeros(len(self._boxes))
        self._planned: list[tuple[float, float, float, float]] = []

    def add(self, mask: Mask) -> None:
        """Take a planned object into account from now on."""
        self._planned.append(mask.box.xyxy)
        for i in self._touching(mask):
            self._covered_px[i] += self._common(mask, i)

    def sieve(
        self, boxes: FloatArray, fill: FloatArray, least_px: float, *, cut: bool = False
    ) -> tuple[NDArray[np.intp], Counter[str]]:
        """Cheap and certain tests of boxes (n, 4): which of them deserve the exact one, and why the others cannot be.

        Args:
            boxes: float64 (n, 4).
            fill: float64 (n,), the share of its box that each silhouette covers.
            least_px: the smallest side.
            cut: boxes may reach beyond the image's edge.
        """
        reasons: Counter[str] = Counter()
        left = np.arange(len(boxes))
        if cut:
            shown = np.clip(boxes, 0, (self.width, self.height) * 2)
        else:
            shown = boxes
            left = _keep(left, self._outside(boxes), EDGE, reasons)
        sides = shown[left, 2:] - shown[left, :2]
        left = _keep(left, np.asarray((sides < least_px).any(axis=1)), SMALL, reasons)
        left = _keep(left, self._off_region(shown[left]), REGION, reasons)
        left = _keep(left, self._too_near(shown[left]), NEAR, reasons)
        if not cut:
            left = _keep(left, self._surely_over(boxes[left], fill[left]), OVER, reasons)
        return left, reasons

    def refuses(self, mask: Mask, least_px: float) -> str | None:
        """Why the tight box of a silhouette cannot be, or None; overlap with existing objects is asked apart."""
        box = np.array([mask.box.xyxy], dtype=float)
        if min(mask.pixels.shape) < least_px:
            return SMALL
        if self._off_region(box)[0]:
            return REGION
        return NEAR if self._too_near(box)[0] else None

    def front(self, mask: Mask, reach: int) -> Mask | None:
        """Pixels of existing objects on a silhouette or so near: what must stay when it stands behind them.

        None where none is there, or where one is known by its box only: nobody knows which of its pixels are its own.
        """
        near = mask.box
        box = shapely.box(near.x1 - reach, near.y1 - reach, near.x2 + reach, near.y2 + reach)
        touching = np.zeros(0, dtype=np.intp) if self._tree is None else np.sort(self._tree.query(box))
        if not touching.size or self._plain[touching].any():
            return None
        h, w = mask.pixels.shape
        x, y = mask.x - reach, mask.y - reach
        taken = np.zeros((h + 2 * reach, w + 2 * reach), dtype=bool)
        for i in touching:
            other = self._mask(int(i))
            if other is not None:
                taken |= other.window(x, y, w + 2 * reach, h + 2 * reach)
        placed = Mask.of(taken, x, y)
        return None if placed is None else placed.clipped(self.width, self.height)

    def overlap(self, mask: Mask) -> float:
        """The worst of: the share of any existing object that is then covered, the share of the mask on existing ones."""
        touching = self._touching(mask)
        if not touching.size:
            return 0.0
        common = np.array([self._common(mask, int(i)) for i in touching])
        touching, common = touching[common > 0], common[common > 0]
        if not touching.size:
            return 0.0
        area = np.array([self._area(int(i)) for i in touching])
        hidden = (common + self._covered_px[touching]) / area
        # Existing objects may overlap each other: what lies on two of them counts once for the mask itself.
        own = common.max() if len(common) == 1 else self._union_px(mask, touching)
        return float(max(hidden.max(), own / mask.area))

    def _outside(self, boxes: FloatArray) -> NDArray[np.bool_]:
        size = np.array([self.width, self.height], dtype=float)
        return np.asarray(((boxes[:, :2] < 0) | (boxes[:, 2:] > size)).any(axis=1))

    def _off_region(self, boxes: FloatArray) -> NDArray[np.bool_]:
        if self._region is None:
            return np.zeros(len(boxes), dtype=bool)
        x = (boxes[:, 0] + boxes[:, 2]) / 2 / self.width
        y = (boxes[:, 1] + boxes[:, 3]) / 2 / self.height
        return np.asarray(~shapely.contains_xy(self._region, x, y))

    def _too_near(self, boxes: FloatArray) -> NDArray[np.bool_]:
        if not self._planned:
            return np.zeros(len(boxes), dtype=bool)
        gap = self._config.margin_px + APART_PX
        planned = np.array(self._planned)[None]
        lap_x = (boxes[:, None, 0] < planned[..., 2] + gap) & (planned[..., 0] < boxes[:, None, 2] + gap)
        lap_y = (boxes[:, None, 1] < planned[..., 3] + gap) & (planned[..., 1] < boxes[:, None, 3] + gap)
        return np.asarray((lap_x & lap_y).any(axis=1))

    def _surely_over(self, boxes: FloatArray, fill: FloatArray) -> NDArray[np.bool_]:
        """Where even the least overlap that these boxes allow is too much, with objects known by their box only.

        Of the boxes' common part, a silhouette misses at most what it misses of its whole box.
        """
        over = np.zeros(len(boxes), dtype=bool)
        if self._tree is None or not len(boxes):
            return over
        new, old = self._tree.query(_rectangles(boxes))
        keep = self._plain[old]
        new, old = new[keep], old[keep]
        a, b = boxes[new], self._boxes[old]
        common = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).prod(axis=1)
        area = areas(boxes)[new]
        # Half a pixel each way: silhouettes take whole pixels.
        least = common - (1 - fill[new]) * area - (a[:, 2:] - a[:, :2]).sum(axis=1)
        allowed = self._config.max_overlap
        over[new[least > allowed * np.minimum(areas(b), fill[new] * area)]] = True
        return over

    def _touching(self, mask: Mask) -> NDArray[np.intp]:
        if self._tree is None:
            return np.zeros(0, dtype=np.intp)
        return np.sort(self._tree.query(shapely.box(*mask.box.xyxy)))

    def _mask(self, i: int) -> Mask | None:
        """The pixels of an existing object: its mask, else its whole box."""
        if i not in self._masks:
            own = None if self._plain[i] else self._dataset.mask(int(self._rows[i]))
            self._masks[i] = own or box_mask(Box(*(float(v) for v in self._boxes[i])))
        return self._masks[i]

    def _area(self, i: int) -> float:
        mask = self._mask(i)
        return float(mask.area) if mask is not None else 1.0

    def _common(self, mask: Mask, i: int) -> int:
        """How many of a silhouette's pixels lie on an existing object. Its mask is decoded only where its box holds some."""
        x1, y1, x2, y2 = self._boxes[i]
        rows = slice(max(0, int(y1) - 1 - mask.y), max(0, int(y2) + 2 - mask.y))
        cols = slice(max(0, int(x1) - 1 - mask.x), max(0, int(x2) + 2 - mask.x))
        if not mask.pixels[rows, cols].any():
            return 0
        other = self._mask(i)
        return mask.overlap_px(other) if other is not None else 0

    def _union_px(self, mask: Mask, touching: NDArray[np.intp]) -> int:
        h, w = mask.pixels.shape
        taken = np.zeros((h, w), dtype=bool)
        for i in touching:
            other = self._mask(int(i))
            if other is not None:
                taken |= other.window(mask.x, mask.y, w, h)
        return int(np.count_nonzero(taken & mask.pixels))


def _keep(
    left: NDArray[np.intp], failed: NDArray[np.bool_], reason: str, reasons: Counter[str]
) -> NDArray[np.intp]:
    """What did not fail; the others are counted."""
    if failed.any():
        reasons[reason] += int(np.count_nonzero(failed))
        left = left[~failed]
    return left


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
