"""Boxes, masks and polygons: pure functions on arrays.

Edges lie between pixels, x right, y down: a mask whose only pixel is column 3, row 2 has the box 3 2 4 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned box in pixels. Edges lie between pixels, x right, y down."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        edges = (self.x1, self.y1, self.x2, self.y2)
        if not all(map(math.isfinite, edges)):
            raise ValueError(f"box edges must be finite, got {edges}")
        if not (self.x1 < self.x2 and self.y1 < self.y2):
            raise ValueError(f"box needs x1 < x2 and y1 < y2, got {edges}")

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return (self.x1, self.y1, self.x2, self.y2)

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """Left, top, width, height: COCO's bbox."""
        return (self.x1, self.y1, self.width, self.height)

    @property
    def center(self) -> tuple[float, float]:
        return ((self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2)

    def clipped(self, width: float, height: float) -> "Box | None":
        """The part inside an image of this size, or None where nothing is left."""
        x1, y1 = max(0.0, self.x1), max(0.0, self.y1)
        x2, y2 = min(float(width), self.x2), min(float(height), self.y2)
        return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The pixels of one object, kept only inside their own tight frame.

    Attributes:
        x: column of the frame's left edge in the image; may be negative for what lies outside.
        y: row of the frame's top edge.
        pixels: bool (h, w), read-only; its first and last row and column each hold a pixel.
    """

    x: int
    y: int
    pixels: BoolArray

    def __post_init__(self) -> None:
        if not _tight(self.pixels):
            empty = not self.pixels.any()
            raise ValueError(
                "a mask needs at least one pixel"
                if empty
                else "a mask's frame must be tight; build it with Mask.of"
            )
        self.pixels.setflags(write=False)

    @classmethod
    def of(cls, pixels: NDArray[Any], x: int = 0, y: int = 0) -> "Mask | None":
        """The mask of the true pixels of `pixels` (h, w), whose left top pixel is at (x, y). None where none is."""
        pixels = np.asarray(pixels).astype(bool, copy=False)
        if _tight(pixels):
            pixels = pixels.copy()
            pixels.setflags(write=False)
            mask = object.__new__(cls)  # what __post_init__ does is done
            for name, value in (("x", x), ("y", y), ("pixels", pixels)):
                object.__setattr__(mask, name, value)
            return mask
        rows, cols = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if not rows.size:
            return None
        top, left = int(rows[0]), int(cols[0])
        tight = pixels[top : int(rows[-1]) + 1, left : int(cols[-1]) + 1].copy()
        return cls(x + left, y + top, tight)

    @property
    def box(self) -> Box:
        height, width = self.pixels.shape
        return Box(self.x, self.y, self.x + width, self.y + height)

    @property
    def area(self) -> int:
        """Pixels that are set."""
        return int(np.count_nonzero(self.pixels))

    def full(self, height: int, width: int) -> BoolArray:
        """bool (height, width): the mask on a whole image, clipped to it."""
        out = np.zeros((height, width), dtype=bool)
        inside = self.window(0, 0, width, height)
        out[...] = inside
        return out

    def window(self, x: int, y: int, width: int, height: int) -> BoolArray:
        """bool (height, width): the mask as seen through the window whose left top pixel is (x, y)."""
        out = np.zeros((height, width), dtype=bool)
        h, w = self.pixels.shape
        x1, y1 = max(self.x, x), max(self.y, y)
        x2, y2 = min(self.x + w, x + width), min(self.y + h, y + height)
        if x1 < x2 and y1 < y2:
            out[y1 - y : y2 - y, x1 - x : x2 - x] = self.pixels[
                y1 - self.y : y2 - self.y, x1 - self.x : x2 - self.x
            ]
        return out

    def shifted(self, dx: int, dy: int) -> "Mask":
        return Mask(self.x + dx, self.y + dy, self.pixels)

    def clipped(self, width: int, height: int) -> "Mask | None":
        """The part inside an image of this size, or None where nothing is left."""
        h, w = self.pixels.shape
        x1, y1, x2, y2 = max(0, self.x), max(0, self.y), min(width, self.x + w), min(height, self.y + h)
        if x1 >= x2 or y1 >= y2:
            return None
        if (x2 - x1, y2 - y1) == (w, h):
            return self
        return Mask.of(self.window(x1, y1, x2 - x1, y2 - y1), x1, y1)

    def minus(self, other: "Mask") -> "Mask | None":
        """What of this mask the other does not cover, or None where nothing is left."""
        h, w = self.pixels.shape
        return Mask.of(self.pixels & ~other.window(self.x, self.y, w, h), self.x, self.y)

    def overlap_px(self, other: "Mask") -> int:
        """How many pixels both masks set."""
        h, w = self.pixels.shape
        return int(np.count_nonzero(self.pixels & other.window(self.x, self.y, w, h)))

    def resized(self, box: Box) -> "Mask | None":
        """The mask stretched to a box's whole pixels (nearest neighbour); what `layouts.jsonl` means by a mask."""
        return stretched(self.pixels, box)


def _tight(pixels: BoolArray) -> bool:
    """Whether the first and the last row and column of bool (h, w) each hold a pixel."""
    held = np.count_nonzero  # several times as quick as any() on so few
    return bool(
        pixels.size and held(pixels[0]) and held(pixels[-1]) and held(pixels[:, 0]) and held(pixels[:, -1])
    )


def stretched(pixels: NDArray[Any], box: Box) -> Mask | None:
    """Pixels (h, w) stretched to a box's whole pixels, nearest neighbour; None where none of them is left."""
    x, y = round(box.x1), round(box.y1)
    width, height = max(1, round(box.x2) - x), max(1, round(box.y2) - y)
    h, w = pixels.shape
    rows = ((np.arange(height) + 0.5) * h / height).astype(int)
    cols = ((np.arange(width) + 0.5) * w / width).astype(int)
    return Mask.of(pixels[np.ix_(rows, cols)], x, y)


def box_mask(box: Box) -> Mask | None:
    """The pixels whose centres lie in a box."""
    x1, y1 = math.ceil(box.x1 - 0.5), math.ceil(box.y1 - 0.5)
    x2, y2 = math.ceil(box.x2 - 0.5), math.ceil(box.y2 - 0.5)
    if x1 >= x2 or y1 >= y2:
        return None
    return Mask(x1, y1, np.ones((y2 - y1, x2 - x1), dtype=bool))


def areas(boxes: FloatArray) -> FloatArray:
    """Area of each box. boxes: float64 (N, 4), x1 y1 x2 y2."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def intersections(a: FloatArray, b: FloatArray) -> FloatArray:
    """Common area of every pair: boxes (N, 4) and (M, 4) give (N, M)."""
    top = np.maximum(a[:, None, :2], b[None, :, :2])
    end = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.clip(end - top, 0, None).prod(axis=2))


def ious(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of every pair: boxes (N, 4) and (M, 4) give (N, M)."""
    common = intersections(a, b)
    union = areas(a)[:, None] + areas(b)[None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    return float(ious(np.array([a.xyxy], dtype=float), np.array([b.xyxy], dtype=float))[0, 0])


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks' pixels."""
    common = a.overlap_px(b)
    return common / (a.area + b.area - common)


def rle_counts(pixels: NDArray[Any]) -> bytes:
    """COCO's compressed run lengths of bool (h, w), column by column (pycocotools)."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return bytes(encoded["counts"])


def from_rle(counts: bytes | str | Sequence[int], height: int, width: int) -> BoolArray:
    """bool (height, width) from COCO run lengths, compressed (text) or plain (a list of counts).

    Raises:
        ValueError: the runs do not add up to the image.
    """
    from pycocotools import mask as coco_mask

    raw = counts.encode() if isinstance(counts, str) else counts
    _check_runs(raw, height, width)
    rle = {"size": [height, width], "counts": raw if isinstance(raw, bytes) else list(raw)}
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, height, width)
    return np.asarray(coco_mask.decode(rle), dtype=bool)


def mask_from_rle(counts: bytes | str | Sequence[int], height: int, width: int) -> Mask | None:
    """The mask that `from_rle` paints, without painting the image: what takes the time of a small object in a large one.

    Raises:
        ValueError: as `from_rle`.
    """
    raw = counts.encode() if isinstance(counts, str) else counts
    _check_runs(raw, height, width)
    if isinstance(raw, bytes):
        runs, _ = _numbers(raw)
        runs[1::2] = np.cumsum(runs[1::2])
        runs[2::2] = np.cumsum(runs[2::2])
    else:
        runs = np.array(raw, dtype=np.int64)
    return _cut_out(np.cumsum(runs), height)


def _check_runs(counts: bytes | Sequence[int], height: int, width: int) -> None:
    if isinstance(counts, bytes):
        total, least = (int(column[0]) for column in run_totals([counts]))
    else:
        total, least = sum(counts), min(counts, default=0)
    if total != height * width or least < 0:
        raise ValueError(f"run lengths must fill {height} x {width}, got {total} with {least} as the least")


def _cut_out(ends: NDArray[np.int64], height: int) -> Mask | None:
    """The mask of runs that end there, the first one empty, column by column; None where nothing is set."""
    starts, stops = ends[: len(ends) // 2 * 2 : 2], ends[1::2]
    held = stops > starts
    starts, stops = starts[held], stops[held]
    if not starts.size:
        return None
    first, beyond = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    change = np.zeros((beyond - first) * height + 1, dtype=np.int8)
    change[starts - first * height] += 1
    change[stops - first * height] -= 1
    pixels = np.cumsum(change[:-1], dtype=np.int8).astype(bool).reshape(beyond - first, height).T
    return Mask.of(pixels, first, 0)


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> BoolArray:
    """bool (height, width): the union of polygons [x1, y1, x2, y2, ...], filled as pycocotools fills them.

    Raises:
        ValueError: a polygon has fewer than 3 points, or half of one.
    """
    from pycocotools import mask as coco_mask

    for polygon in polygons:
        # pycocotools takes four numbers for a box, and reads past the end of others.
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon needs at least 3 x y pairs, got {len(polygon)} numbers")
    rles = coco_mask.frPyObjects([list(p) for p in polygons], height, width)
    return np.asarray(coco_mask.decode(coco_mask.merge(rles)), dtype=bool)


def run_totals(counts: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each string of compressed run lengths adds up to, and its least run; -1 and 0 where it is no such string.

    Five bits a character, low bits first, 32 marks "goes on", 16 the sign; from the fourth number on each is the
    difference to the one two before (pycocotools, maskApi.c, rleFrString).

    Args:
        counts: N strings.
    """
    whole = np.array([_is_whole(text) for text in counts], dtype=bool)
    totals = np.full(len(counts), -1, dtype=np.int64)
    least = np.zeros(len(counts), dtype=np.int64)
    held = [text for text, good in zip(counts, whole.tolist(), strict=True) if good]
    if not held:
        return totals, least
    numbers, last = _numbers(b"".join(held))
    ends = np.searchsorted(last, np.cumsum([len(text) for text in held]) - 1) + 1
    starts = np.concatenate(([0], ends[:-1]))
    place = np.arange(len(numbers)) - np.repeat(starts, ends - starts)
    runs = np.where(place == 0, numbers, 0)
    for odd in (0, 1):
        chained = (place % 2 == odd) & (place > 0)
        steps = np.cumsum(np.where(chained, numbers, 0))
        before = np.repeat(np.concatenate(([0], steps))[starts], ends - starts)
        runs += np.where(chained, steps - before, 0)
    totals[whole] = np.add.reduceat(runs, starts)
    least[whole] = np.minimum.reduceat(runs, starts)
    return totals, least


def _numbers(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The numbers of compressed run lengths before differences are added up, and where each one's last letter is."""
    code = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(code < 32)
    first = np.concatenate(([0], last[:-1] + 1))
    shift = 5 * (np.arange(len(code)) - np.repeat(first, last - first + 1))
    numbers = np.add.reduceat((code & 31) << shift, first)
    numbers -= np.where(code[last] & 16, np.int64(1) << (shift[last] + 5), 0)
    return numbers, last


def _is_whole(text: bytes) -> bool:
    """Only the 64 letters, no number of more than 8 of them, the last one finished."""
    return (
        bool(text)
        and not text.translate(None, _LETTERS)
        and text[-1] < 80
        and b"~" * 8 not in text.translate(_GOES_ON)
    )


_LETTERS = bytes(range(48, 112))
_GOES_ON = bytes(ord("~") if 80 <= letter < 112 else 32 for letter in range(256))
