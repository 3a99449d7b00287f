"""What else real objects of a category do: they are cut off, stand behind others, and keep company with their kind."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.geometry import BoolArray, Box, FloatArray, Mask, areas, intersections

_STRENGTH = 4.0  # boxes that the shares of all categories count for
_LEAST_HIDDEN = 0.1  # of a box: less under another one is no sign of standing behind it
_TYPICAL_HIDDEN = 0.25  # of an object, where none is known
_MOST_HIDDEN = 0.9
_FEWEST_PAIRS = 8
_MOST_LOOKED_AT = (
    200  # objects whose masks are drawn to see what hides them, and images looked at for company
)
_APART_PX = 2  # masks no further apart touch
_CLEARLY = 2.0  # deviations


@dataclass(frozen=True, slots=True, eq=False)
class Habits:
    """What a category's objects do besides having a size and a place. Shares are shrunk towards those of all.

    Attributes:
        truncated: the share that the image's edge cuts off, 0 to 1.
        occluded: the share that stands partly behind others, 0 to 1.
        hidden: how much of such an object is typically hidden, 0 to 1.
        neighbour: how far its next of kind is, as a multiple of how far it would be if each stood where its kind does
            on other images; 1 where that is not known.
        gathered: the share of objects that stand by one of their kind, 0 to 1; 0 where that is not clear.
        pairs: float64 (k, 3), from an object to its next of kind: dx and dy of the middles in units of the object's
            size, and the log of the ratio of sizes. None where fewer than 8 are known.
    """

    truncated: float
    occluded: float
    hidden: float
    neighbour: float
    gathered: float
    pairs: FloatArray | None


class Observed:
    """The habits of a dataset's categories."""

    def __init__(self, dataset: Dataset, rows: NDArray[np.intp], whole: BoolArray) -> None:
        """See which boxes there are.

        Args:
            dataset: with the annotations.
            rows: of the annotations that are no crowds.
            whole: bool, which of those rows the image's edge does not cut off.
        """
        self._dataset, self._rows, self._cut = dataset, rows, ~whole
        self._masks: dict[int, Mask | None] = {}

    def of(self, held: BoolArray) -> Habits:
        """The habits of a category.

        Args:
            held: bool, which of the rows are its own; at least one.
        """
        rows = self._rows[held]
        truncated = _shrunk(self._cut[held], float(self._cut.mean()))
        all_occluded, all_hidden = self._hiding
        chance, share = self._hidden(rows)
        behind = chance > 0
        weight = float(chance.sum())
        typical = float(share[behind] @ chance[behind] / weight) if weight else 0.0
        hidden = (weight * typical + _STRENGTH * all_hidden) / (weight + _STRENGTH)
        a = self._dataset.annotations
        neighbour, gathered, pairs = company(
            a.boxes[rows], a.image[rows], self._dataset.images.width, self._dataset.images.height
        )
        return Habits(truncated, _shrunk(chance, all_occluded), hidden, neighbour, gathered, pairs)

    @cached_property
    def _hiding(self) -> tuple[float, float]:
        """The share of all objects that stand behind others, and how much of those is hidden."""
        chance, share = self._hidden(self._rows)
        weight = float(chance.sum())
        typical = (float(chance @ share) + _STRENGTH * _TYPICAL_HIDDEN) / (weight + _STRENGTH)
        return float(chance.mean()), typical

    def _hidden(self, rows: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
        """For some of the rows: the chance that each stands behind another, and how much of it would be hidden."""
        if len(rows) > _MOST_LOOKED_AT:
            rows = rows[np.linspace(0, len(rows) - 1, _MOST_LOOKED_AT).round().astype(np.intp)]
        seen = [self._behind(int(row)) for row in rows]
        return np.array([c for c, _ in seen], dtype=float), np.array([s for _, s in seen], dtype=float)

    def _behind(self, row: int) -> tuple[float, float]:
        """Whether one object stands behind another, and how much of it is hidden.

        Two boxes alone do not tell which is in front: the chance is one half. Of two masks, the one in front fills
        more of what the boxes have in common, and what it takes of the other's box would have been filled as the
        rest of that box is. What makes the box itself smaller cannot be seen.
        """
        a = self._dataset.annotations
        others = self._dataset.rows_in(int(a.image[row]))
        others = others[(others != row) & ~a.crowd[others]]
        box = a.boxes[row : row + 1]
        common = intersections(box, a.boxes[others])[0]
        area = float(areas(box)[0])
        near = others[common >= _LEAST_HIDDEN * area]
        if not near.size or area <= 0:
            return 0.0, 0.0
        mine = self._mask(row)
        shares, chance = [], 0.0
        for other in near.tolist():
            over = self._mask(other)
            if mine is None or over is None:
                chance = max(chance, 0.5)
                shares.append(float(common[others == other][0]) / area)
                continue
            hidden = _hidden_by(mine, over, self._dataset.box(row), self._dataset.box(other))
            if hidden >= _LEAST_HIDDEN:
                chance = 1.0
                shares.append(hidden)
        return (chance, min(max(shares), _MOST_HIDDEN)) if shares else (0.0, 0.0)

    def _mask(self, row: int) -> Mask | None:
        if row not in self._masks:
            self._masks[row] = self._dataset.mask(row)
        return self._masks[row]


def _hidden_by(mine: Mask, over: Mask, box: Box, other: Box) -> float:
    """How much of one object another one hides, 0 to 1; 0 where they do not touch or it stands in front itself."""
    x1, y1 = int(max(box.x1, other.x1)), int(max(box.y1, other.y1))
    x2, y2 = math.ceil(min(box.x2, other.x2)), math.ceil(min(box.y2, other.y2))
    here, there = (mask.window(x1, y1, x2 - x1, y2 - y1) for mask in (mine, over))
    filled, covered = int(here.sum()), int(there.sum())
    around = (x1 - _APART_PX, y1 - _APART_PX, x2 - x1 + 2 * _APART_PX, y2 - y1 + 2 * _APART_PX)
    if filled >= covered or not _touch(mine.window(*around), over.window(*around)):
        return 0.0
    outside = box.width * box.height - (x2 - x1) * (y2 - y1)
    fill = min(1.0, (mine.area - filled) / outside) if outside > 0 else 1.0
    lost = fill * covered
    return lost / (lost + mine.area - mine.overlap_px(over)) if lost else 0.0


def _touch(one: BoolArray, other: BoolArray) -> bool:
    """Whether pixels of two masks are the same or next to each other, or nearly: labels leave seams."""
    from scipy import ndimage

    return bool((ndimage.binary_dilation(one, np.ones((3, 3)), _APART_PX) & other).any())


def _shrunk(seen: NDArray[np.bool_] | FloatArray, common: float) -> float:
    """A share, with a Beta prior about that of all categories."""
    return float((seen.sum() + _STRENGTH * common) / (len(seen) + _STRENGTH))


def company(
    boxes: FloatArray, image: NDArray[np.int32], width: NDArray[np.int32], height: NDArray[np.int32]
) -> tuple[float, float, FloatArray | None]:
    """How near objects of one kind stand to each other.

    An object's next of kind is compared with where as many of the kind stand on other images: if places are
    independent, the share of such sets that would have come nearer is uniform. Where its mean over images is clearly
    below one half, what is missing there is the share of objects that are gathered.

    Args:
        boxes: float64 (n, 4).
        image: int (n,).
        width: int (images,).
        height: int (images,).

    Returns:
        `neighbour`, `gathered` and `pairs`, as `Habits` has them.

    Source: the probability integral transform of the nearest distance (Diggle 2013, section 2.3, for its use).
    """
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    log_size = 0.5 * np.log(np.maximum(areas(boxes), 1e-12))
    frame = np.stack([width, height], axis=1)[image].astype(float)
    pairs, ranks, ratios = [], [], []
    for one in np.flatnonzero(np.bincount(image) > 1)[:_MOST_LOOKED_AT]:
        rows = np.flatnonzero(image == one)
        elsewhere = np.flatnonzero(image != one)
        kin = middles[rows]
        apart = np.hypot(*(kin[:, None] - kin[None]).transpose(2, 0, 1))
        np.fill_diagonal(apart, np.inf)
        next_one = apart.argmin(axis=1)
        off = (kin[next_one] - kin) / np.exp(log_size[rows])[:, None]
        pairs.append(np.column_stack([off, log_size[rows][next_one] - log_size[rows]]))
        if len(elsewhere) < 2:
            continue
        kept = elsewhere[np.linspace(0, len(elsewhere) - 1, min(len(elsewhere), 500)).astype(np.intp)]
        theirs = middles[kept] / frame[kept] * frame[rows[0]]
        far = np.sort(np.hypot(*(kin[:, None] - theirs[None]).transpose(2, 0, 1)), axis=1)
        m, nearest = len(rows) - 1, apart.min(axis=1)
        below = ((far < nearest[:, None]).sum(axis=1) + 0.5) / (far.shape[1] + 1)
        ranks.append(float((1 - (1 - below) ** m).mean()))
        middle = np.clip(((1 - 0.5 ** (1 / m)) * far.shape[1]), 0, far.shape[1] - 1).astype(int)
        ratios.append(float(np.log(np.maximum(nearest, 1e-9) / np.maximum(far[:, middle], 1e-9)).mean()))
    known = np.concatenate(pairs) if pairs else np.zeros((0, 3))
    neighbour = float(np.exp(np.mean(ratios))) if ratios else 1.0
    return neighbour, _gathered(np.array(ranks)), known if len(known) >= _FEWEST_PAIRS else None


def _gathered(ranks: FloatArray) -> float:
    """The share that is missing of a mean of one half; it fades to 0 where the deviation falls to 2 standard errors."""
    if len(ranks) < 3:
        return 0.0
    # No smaller than a uniform number's: three images that happen to agree prove nothing.
    error = max(float(ranks.std(ddof=1)), np.sqrt(1 / 12) / 2) / np.sqrt(len(ranks))
    z = (0.5 - float(ranks.mean())) / error
    return max(0.0, 1 - 2 * float(ranks.mean())) * max(0.0, 1 - (_CLEARLY / z) ** 2) if z > _CLEARLY else 0.0
