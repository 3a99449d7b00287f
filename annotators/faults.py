"""Errors planted on purpose, made from real data: what a checker has to refuse.

Drawing and painting are apart: `planted` says where and from which image, `Fault.on` changes pixels. Both are pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import geometry
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.scene import Pixels
from rarefill.seeds import Stage, rng

TRIES = 50
FREE = 0.1
"""Share of a place that an object may cover, where it holds none of it."""
_RIM_PX = 3  # how far cv2.inpaint looks around a hole
_MARGIN = 0.5  # of the box's longer side, what is looked at around it
_KEY = 1_000_002  # first part of a key; those of folds, held-back objects and empty places are below


class Kind(StrEnum):
    """What is wrong."""

    EMPTY = "empty place"
    OTHER = "other class"
    SHIFTED = "shifted box"
    HALF = "half object"
    UNPAINTED = "unpainted mask"
    NOISE = "noise blob"


ON_OBJECTS = frozenset({Kind.SHIFTED, Kind.HALF})
"""Kinds that need a real object of the category: there are as many of them as objects."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted error.

    Attributes:
        kind: what is wrong.
        category: the name that is claimed.
        image: row of the image.
        box: the box that is claimed.
        seed: of what is drawn into the pixels.
    """

    kind: Kind
    category: str
    image: int
    box: Box
    seed: int

    def on(self, pixels: Pixels) -> Pixels:
        """The image with the error in it, uint8 (H, W, 3); the same array where no pixel has to change."""
        draw = np.random.default_rng(self.seed)
        match self.kind:
            case Kind.HALF:
                return half_erased(draw, pixels, self.box)
            case Kind.UNPAINTED:
                return filled(draw, pixels, self.box)
            case Kind.NOISE:
                return noise_blob(draw, pixels, self.box)
            case _:
                return pixels


def planted(dataset: Dataset, category: str, kind: Kind, most: int, seed: int) -> tuple[Fault, ...]:
    """Errors of one kind for one category, at most `most`, the same for the same seed.

    Those on real objects take each object once. The others stand at places drawn one by one, each in an image drawn
    anew; a small dataset has fewer where no free place is found.
    """
    row = dataset.category_row(category)
    draw = rng(seed, Stage.FIT, _KEY, row, list(Kind).index(kind))
    match kind:
        case Kind.SHIFTED | Kind.HALF:
            places = _own(dataset, category, kind, most, draw)
        case Kind.OTHER:
            places = _others(dataset, row, most, draw)
        case _:
            places = _free(dataset, category, most, draw)
    return tuple(
        Fault(kind, category, image, box, int(draw.integers(2**31))) for image, box in list(places)[:most]
    )


def _own(
    dataset: Dataset, category: str, kind: Kind, most: int, draw: np.random.Generator
) -> Iterator[tuple[int, Box]]:
    """Real objects in a random order: their own boxes, or shifted ones where no object of the category fits."""
    found = 0
    for row in draw.permutation(dataset.rows_of(category)):
        image, box = int(dataset.annotations.image[row]), dataset.box(int(row))
        if found == most:
            return
        if kind is Kind.SHIFTED:
            moved = shifted(draw, box, *_size(dataset, image))
            others = _boxes(dataset, image, dataset.category_row(category), but=int(row))
            if moved is None or _overlap(moved, others) >= 0.5:
                continue
            box = moved
        found += 1
        yield image, box


def _others(
    dataset: Dataset, category: int, most: int, draw: np.random.Generator
) -> Iterator[tuple[int, Box]]:
    """Boxes of other categories' real objects, every category as likely, that hold none of this one."""
    a = dataset.annotations
    rows = [
        draw.permutation(np.flatnonzero((a.category == c) & ~a.crowd)).tolist()
        for c in range(len(dataset.names))
        if c != category
    ]
    rows = [held for held in rows if held]
    found = 0
    while rows and found < most:
        at = int(draw.integers(len(rows)))
        row = int(rows[at].pop())
        if not rows[at]:
            rows.pop(at)
        image, box = int(a.image[row]), dataset.box(row)
        if _overlap(box, _boxes(dataset, image, category)) <= FREE:
            found += 1
            yield image, box


def _free(dataset: Dataset, category: str, most: int, draw: np.random.Generator) -> Iterator[tuple[int, Box]]:
    """Boxes of the category's objects at places in any image where no annotated object is, of any category."""
    rows, found = dataset.rows_of(category), 0
    for _ in range(TRIES * most if len(rows) else 0):
        if found == most:
            return
        box, image = dataset.box(int(draw.choice(rows))), int(draw.integers(len(dataset.images)))
        moved = anywhere(draw, box, *_size(dataset, image))
        if moved is not None and _covered(moved, _boxes(dataset, image)) <= FREE:
            found += 1
            yield image, moved


def _size(dataset: Dataset, image: int) -> tuple[int, int]:
    return int(dataset.images.width[image]), int(dataset.images.height[image])


def _boxes(
    dataset: Dataset, image: int, category: int | None = None, *, but: int | None = None
) -> NDArray[np.float64]:
    rows = dataset.rows_in(image)
    if category is not None:
        rows = rows[dataset.annotations.category[rows] == category]
    return np.asarray(dataset.annotations.boxes[rows[rows != but] if but is not None else rows])


def _overlap(box: Box, boxes: NDArray[np.float64]) -> float:
    return float(geometry.ious(np.array([box.xyxy]), boxes).max(initial=0.0))


def _covered(box: Box, boxes: NDArray[np.float64]) -> float:
    """Which share of a box the other box covers that covers most of it."""
    return float(geometry.intersections(np.array([box.xyxy]), boxes).max(initial=0.0)) / box.area


def anywhere(draw: np.random.Generator, box: Box, width: int, height: int) -> Box | None:
    """A box of the same size anywhere in an image; None where it does not fit."""
    at = draw.uniform(0, 1, 2)
    if box.width > width or box.height > height:
        return None
    x, y = at * (width - box.width, height - box.height)
    return Box(float(x), float(y), float(x) + box.width, float(y) + box.height)


def shifted(draw: np.random.Generator, box: Box, width: int, height: int) -> Box | None:
    """A box moved by half of its width or height, in a direction that leaves it inside; None where none does."""
    right, down = box.width / 2, box.height / 2
    for dx, dy in draw.permutation(np.array([(right, 0), (-right, 0), (0, down), (0, -down)])).tolist():
        x1, y1, x2, y2 = box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy
        if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
            return Box(x1, y1, x2, y2)
    return None


def half_erased(draw: np.random.Generator, pixels: Pixels, box: Box) -> Pixels:
    """An image with the left, right, upper or lower half of a box filled from around the object."""
    x1, y1, x2, y2 = _pixels_in(box, pixels)
    hole = np.zeros(pixels.shape[:2], dtype=bool)
    middle_x, middle_y = (x1 + x2) // 2, (y1 + y2) // 2
    match int(draw.integers(4)):
        case 0:
            hole[y1:y2, x1:middle_x] = True
        case 1:
            hole[y1:y2, middle_x:x2] = True
        case 2:
            hole[y1:middle_y, x1:x2] = True
        case _:
            hole[middle_y:y2, x1:x2] = True
    whole = np.zeros_like(hole)
    whole[y1:y2, x1:x2] = True
    return _inpainted(pixels, whole, hole, box)


def filled(draw: np.random.Generator, pixels: Pixels, box: Box) -> Pixels:
    """An image with a silhouette in a box filled from its rim: what a paint leaves that painted no object."""
    hole = _blob(draw, pixels, box)
    return _inpainted(pixels, hole, hole, box)


def noise_blob(draw: np.random.Generator, pixels: Pixels, box: Box) -> Pixels:
    """An image with a silhouette in a box that holds coarse or fine noise about a random colour."""
    x1, y1, x2, y2 = _pixels_in(box, pixels)
    blob = _blob(draw, pixels, box)[y1:y2, x1:x2]
    height, width = blob.shape
    grain = max(1, round(min(height, width) * float(draw.choice([0.02, 0.1, 0.25]))))
    coarse = draw.normal(0, 1, (-(-height // grain), -(-width // grain), 3)).astype(np.float32)
    if draw.random() < 0.5:
        coarse[:] = coarse[:, :, :1]
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, 3)
    colour = _colour(draw, pixels)
    painted = np.clip(np.rint(colour + noise * draw.uniform(10, 50)), 0, 255).astype(np.uint8)
    out = pixels.copy()
    out[y1:y2, x1:x2][blob] = painted[blob]
    return out


def _colour(draw: np.random.Generator, pixels: Pixels) -> NDArray[np.float64]:
    """One of the image's own colours, moved: neither its background always nor never seen in it."""
    y, x = (int(draw.integers(n)) for n in pixels.shape[:2])
    return np.asarray(pixels[y, x].astype(np.float64) + draw.normal(0, 40))


def _blob(draw: np.random.Generator, pixels: Pixels, box: Box) -> NDArray[np.bool_]:
    """bool (H, W): a round shape with a wavy outline that reaches the box's sides."""
    x1, y1, x2, y2 = _pixels_in(box, pixels)
    ys, xs = np.mgrid[y1:y2, x1:x2] + 0.5
    v, u = (ys - (y1 + y2) / 2) / ((y2 - y1) / 2), (xs - (x1 + x2) / 2) / ((x2 - x1) / 2)
    angle = np.arctan2(v, u)
    waves = sum(
        float(draw.uniform(-0.12, 0.12)) * np.cos(n * angle + draw.uniform(0, 2 * np.pi)) for n in (2, 3, 5)
    )
    out = np.zeros(pixels.shape[:2], dtype=bool)
    out[y1:y2, x1:x2] = np.hypot(u, v) <= 0.95 + waves
    return out


def _pixels_in(box: Box, pixels: Pixels) -> tuple[int, int, int, int]:
    """Columns and rows of a box, at least one of each, inside the image."""
    height, width = pixels.shape[:2]
    x1, y1 = min(max(0, round(box.x1)), width - 1), min(max(0, round(box.y1)), height - 1)
    return x1, y1, min(width, max(x1 + 1, round(box.x2))), min(height, max(y1 + 1, round(box.y2)))


def _inpainted(pixels: Pixels, source: NDArray[np.bool_], hole: NDArray[np.bool_], box: Box) -> Pixels:
    """An image with `hole` taken from a picture in which all of `source` was filled from around it (Telea 2004)."""
    margin = round(_MARGIN * max(box.width, box.height)) + _RIM_PX
    around = Box(box.x1 - margin, box.y1 - margin, box.x2 + margin, box.y2 + margin)
    x1, y1, x2, y2 = _pixels_in(around, pixels)
    part = np.ascontiguousarray(pixels[y1:y2, x1:x2])
    painted = cv2.inpaint(part, source[y1:y2, x1:x2].astype(np.uint8), _RIM_PX, cv2.INPAINT_TELEA)
    out = pixels.copy()
    inside = hole[y1:y2, x1:x2]
    out[y1:y2, x1:x2][inside] = painted[inside]
    return out


def of_all_kinds(dataset: Dataset, category: str, most: int, seed: int) -> Sequence[Fault]:
    """Errors of every kind for one category, kind by kind."""
    return [fault for kind in Kind for fault in planted(dataset, category, kind, most, seed)]
