"""COCO segmentations as they stand in a file: polygons or run lengths, checked without drawing them."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from rarefill.errors import shown
from rarefill.geometry import run_totals

CHUNK = 4096
"""Segmentations decoded at a time: all of a large file's numbers at once would not fit."""


class _RunLengths(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: str | list[int]


_DECODER = msgspec.json.Decoder(list[list[float]] | _RunLengths | None)
_NOT_COMPRESSED = "counts is not COCO's compressed run lengths"
_NOTHING: tuple[Any, ...] = (None, [], {}, "")


def check(column: list[Raw | bytes], size: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """Every segmentation that cannot be drawn, with what is wrong. Those that say nothing become b"" in place.

    Args:
        column: M undecoded JSON values, NaN and Infinity allowed.
        size: float64 (M, 2), width and height of each one's image, infinite where it is not known.
    """
    for start in range(0, len(column), CHUNK):
        polygons: dict[int, list[list[float]]] = {}
        runs: dict[int, _RunLengths] = {}
        for row in range(start, min(start + CHUNK, len(column))):
            raw = column[row]
            if not raw:
                continue
            try:
                value = _DECODER.decode(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                plain = json.loads(bytes(raw).decode(errors="replace"))
                if plain in _NOTHING:
                    column[row] = b""
                else:
                    yield row, explain(plain)
                continue
            if isinstance(value, _RunLengths):
                runs[row] = value
            elif value and all(value):
                polygons[row] = value
            else:
                value = [part for part in value or () if part]
                column[row] = msgspec.json.encode(value) if value else b""
                if value:
                    polygons[row] = value
        yield from _polygons(polygons, size)
        yield from _runs(runs, size)


def _polygons(held: dict[int, list[list[float]]], size: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """Three points at least, whole pairs, and not so far out that drawing them would take all memory."""
    for row, parts in held.items():
        for n, part in enumerate(parts):
            if len(part) < 6 or len(part) & 1:
                yield row, _miscounted(n, len(part))
                break
    if not held:
        return
    rows = np.fromiter(held, dtype=np.intp, count=len(held))
    lengths = [sum(map(len, parts)) for parts in held.values()]
    numbers = np.fromiter(chain.from_iterable(chain.from_iterable(held.values())), np.float64, sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    reach = size[rows].max(axis=1)
    least, most = np.minimum.reduceat(numbers, starts), np.maximum.reduceat(numbers, starts)
    for at in np.flatnonzero((least < -reach) | (most > 2 * reach)).tolist():
        worst = least[at] if least[at] < -reach[at] else most[at]
        width, height = size[rows[at]]
        yield (
            int(rows[at]),
            f"points must lie in or near the image ({width:.0f}x{height:.0f}), got a coordinate {worst:g}",
        )


def _miscounted(part: int, n: int) -> str:
    return f"polygon {part} must be x y pairs, at least 3, got {n} numbers"


def _runs(held: dict[int, _RunLengths], size: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """The size is the image's, and the runs fill it."""
    texts: dict[int, bytes] = {}
    for row, rle in held.items():
        width, height = size[row]
        n_pixels = rle.size[0] * rle.size[1]
        if np.isfinite(width) and rle.size != (height, width):
            yield row, f"size must be the image's [{height:.0f}, {width:.0f}], got {list(rle.size)}"
        elif isinstance(rle.counts, str):
            texts[row] = rle.counts.encode("utf-8", "replace")
        elif sum(rle.counts) != n_pixels or min(rle.counts, default=0) < 0:
            yield row, _unfilled(rle.size, sum(rle.counts), min(rle.counts, default=0))
    if not texts:
        return
    totals, least = run_totals(list(texts.values()))
    for row, total, low in zip(texts, totals.tolist(), least.tolist(), strict=True):
        height, width = held[row].size
        if total < 0:
            yield row, _NOT_COMPRESSED
        elif total != height * width or low < 0:
            yield row, _unfilled((height, width), total, low)


def _unfilled(size: Sequence[int], total: int, least: int) -> str:
    if least < 0:
        return f"counts must not be below 0, got {least}"
    return f"counts must add up to {size[0]} x {size[1]} = {size[0] * size[1]} pixels, got {total}"


def explain(value: Any) -> str:
    """Why a decoded JSON value is no segmentation."""
    if isinstance(value, dict):
        return _explain_runs(value)
    if not isinstance(value, list):
        return f"must be polygons [[x1, y1, x2, y2, ...], ...] or run lengths, got {shown(value)}"
    if all(isinstance(v, int | float) for v in value):
        return (
            f"must be a list of polygons, got one flat list of {len(value)} numbers; put it in one more [ ]"
        )
    for n, part in enumerate(value):
        if not isinstance(part, list):
            return f"polygon {n} must be a list of numbers, got {shown(part)}"
        for v in part:
            if type(v) not in (int, float) or not np.isfinite(v):
                return f"polygon {n} must hold finite numbers, got {shown(v)}"
    return f"must be polygons or run lengths, got {shown(value)}"


def _explain_runs(value: dict[str, Any]) -> str:
    missing = [key for key in ("size", "counts") if key not in value]
    if missing:
        return f"run lengths need size and counts, {' and '.join(missing)} missing"
    size = value["size"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(v) is int for v in size)):
        return f"size must be [height, width] in whole numbers, got {shown(size)}"
    if isinstance(value["counts"], str):
        return _NOT_COMPRESSED
    return f"counts must be a string or a list of whole numbers, got {shown(value['counts'])}"
