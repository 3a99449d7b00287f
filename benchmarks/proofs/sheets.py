"""Pictures for people: real and painted windows side by side, and a sheet that does not say which is which."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rarefill import files, pictures, seeds
from rarefill.scene import Pixels
from rarefill.seeds import Stage
from rarefill.windows import Windows

TILES, COLUMNS, GAP, MARGIN = 20, 10, 4, 16
_THUMB = 16
_ALIKE = (0.6, 0.7, 0.8, 0.9, np.inf)  # correlations of two windows of one kind, on a blind sheet
_PAPER, _INK = (250, 250, 248), (28, 30, 34)
_DARK = 110.0
"""99th percentile of the real windows: below, all windows of a sheet are brightened alike."""


def side_by_side(title: str, rows: Mapping[str, Windows]) -> Pixels:
    """Twenty windows of each kind, evenly from the first to the last, the first kind being real: uint8 (H, W, 3)."""
    gain = _gain(next(iter(rows.values())).pixels)
    blocks = [(name, _lit(some.pixels[spread(len(some))], gain), None) for name, some in rows.items()]
    return _sheet(title, blocks)


def blind(
    title: str, real: Windows, painted: Windows, *, seed: int
) -> tuple[Pixels, list[tuple[int, str, int]]]:
    """Twenty real and twenty painted windows in a drawn order, numbered from 1; and the key.

    Of both kinds windows are taken that are little alike: three frames of one place would tell that they are real.

    Returns:
        uint8 (H, W, 3); number, "real" or "painted", and the row among the windows given.
    """
    gain = _gain(real.pixels)
    kinds = (("real", real), ("painted", painted))
    draw = seeds.rng(seed, Stage.RENDER)
    entries = [(kind, int(row)) for kind, some in kinds for row in unlike(some, draw)]
    order = draw.permutation(len(entries))
    shuffled = [entries[i] for i in order]
    sets = dict(kinds)
    tiles = [_lit(sets[kind].pixels[row : row + 1], gain)[0] for kind, row in shuffled]
    key = [(n, kind, row) for n, (kind, row) in enumerate(shuffled, 1)]
    return _sheet(title, [("", tiles, [str(n) for n, _, _ in key])]), key


def write(path: Path, sheet: Pixels) -> None:
    """As a PNG."""
    files.write_bytes(path, pictures.encode(sheet, "png"))


def spread(n: int) -> NDArray[np.int64]:
    """At most twenty rows, evenly from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(TILES, n)).round().astype(np.int64)) if n else np.zeros(0, int)


def unlike(some: Windows, draw: np.random.Generator) -> NDArray[np.int64]:
    """At most twenty rows in a drawn order, none very like one taken before, small and in grey, as long as there are such."""
    if not len(some):
        return np.zeros(0, np.int64)
    small = [cv2.resize(w.mean(axis=2), (_THUMB, _THUMB), interpolation=cv2.INTER_AREA) for w in some.pixels]
    flat = np.stack(small).reshape(len(some), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    taken: list[int] = []
    order = draw.permutation(len(some)).tolist()
    for most in _ALIKE:
        for row in order:
            if len(taken) < TILES and row not in taken and (flat[taken] @ flat[row] < most).all():
                taken.append(row)
    return np.array(taken, dtype=np.int64)


def _sheet(title: str, blocks: Sequence[tuple[str, Sequence[Pixels], Sequence[str] | None]]) -> Pixels:
    side = max((len(t) for _, tiles, _ in blocks for t in tiles), default=128)
    width = 2 * MARGIN + COLUMNS * (side + GAP) - GAP
    step = [side + GAP + (18 if names else 0) for _, _, names in blocks]
    lines = [-(-max(len(tiles), 1) // COLUMNS) for _, tiles, _ in blocks]
    height = (
        MARGIN
        + 36
        + sum(34 * bool(name) + n * s for (name, _, _), n, s in zip(blocks, lines, step, strict=True))
    )
    sheet = Image.new("RGB", (width, height + MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 2), title, _INK, font=ImageFont.load_default(size=22))
    y = MARGIN + 36
    for (name, tiles, names), n, high in zip(blocks, lines, step, strict=True):
        if name:
            draw.text((MARGIN, y + 6), name, _INK, font=ImageFont.load_default(size=18))
            y += 34
        for i, tile in enumerate(tiles):
            at = (MARGIN + i % COLUMNS * (side + GAP), y + i // COLUMNS * high)
            sheet.paste(Image.fromarray(np.ascontiguousarray(tile)), at)
            if names:
                draw.text((at[0] + 2, at[1] + side), names[i], _INK, font=ImageFont.load_default(size=14))
        y += n * high
    return np.asarray(sheet)


def _gain(real: NDArray[np.uint8]) -> float:
    bright = float(np.percentile(real, 99)) if real.size else 255.0
    return max(1.0, _DARK / max(bright, 16.0))


def _lit(tiles: NDArray[np.uint8], gain: float) -> NDArray[np.uint8]:
    return np.clip(tiles.astype(np.float32) * gain, 0, 255).astype(np.uint8) if gain > 1 else tiles
