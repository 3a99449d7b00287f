"""Pictures of any size through a painter that knows squares of one size: tile by tile, each continuing the last.

A tile is told what its neighbours became: what they painted of it is known to it, but for a strip along the new part that
is painted again and faded over. So neighbours meet without a seam, whichever model paints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.generators.compact_conditioning import Bits, Rgb
from rarefill.generators.conditioning import Drawer
from rarefill.generators.denoise import Canvas, Painter, Sampling

OVERLAP: Final = 4
"""Neighbours share this part of a tile's side, 1 / OVERLAP of it."""
_STRIP: Final = 2
"""And half of what they share is painted again by the later one."""
_GRID_PX: Final = 8
"""Latents are some 8 px wide: what is hidden of one that is known in part is all of it, so that none is half known."""


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A picture to repaint.

    Attributes:
        pixels: uint8 (H, W, 3), any size.
        hidden: bool (H, W), what is repainted.
        locked: whether the painter is shown the edges or the depth of what it repaints.
        prompt: words.
        strength: how far away from its pixels, above 0, to 1.
        rng: of the noise.
    """

    pixels: Rgb
    hidden: Bits
    locked: bool
    prompt: str
    strength: float
    rng: np.random.Generator


@dataclass(slots=True, eq=False)
class _Course:
    """A sheet on its way: at the size at which it is painted, and how far it came.

    Attributes:
        sheet: the same, enlarged.
        pixels: what it has become, uint8 (H, W, 3).
        undone: bool (H, W), of `hidden` what waits.
        places: rows and columns of the tiles to come.
    """

    sheet: Sheet
    pixels: Rgb
    undone: Bits
    places: list[tuple[slice, slice]]

    def waits(self) -> bool:
        """Whether there is a tile to paint; those that their neighbours painted are passed over."""
        while self.places and not self.undone[self.places[0]].any():
            self.places.pop(0)
        return bool(self.places)


def paint(
    painter: Painter, draw: Drawer, sheets: Sequence[Sheet], sampling: Sampling, *, least_px: int = 0
) -> list[Rgb]:
    """Repaint sheets; the same tile of several goes through the painter together.

    Args:
        painter: who paints.
        draw: its ControlNets' maps.
        sheets: what to repaint, of any sizes.
        sampling: steps and guidance.
        least_px: shorter side at which a sheet is painted, at least; never less than the painter's.

    Returns:
        uint8 (H, W, 3) each, of the sheets' own sizes. What is not hidden is as it was, up to enlarging and reducing
        where a sheet is smaller than the painter's squares.

    Raises:
        ModelError: the networks answered with what is no number, or memory does not reach.
    """
    courses = [_course(sheet, painter.size, max(least_px, painter.size)) for sheet in sheets]
    while busy := [course for course in courses if course.waits()]:
        strengths = sorted({course.sheet.strength for course in busy})
        for strength in strengths:
            alike = [course for course in busy if course.sheet.strength == strength]
            for at in range(0, len(alike), painter.batch):
                _step(painter, draw, alike[at : at + painter.batch], sampling, strength)
    return [_reduced(c.pixels, s.pixels.shape) for c, s in zip(courses, sheets, strict=True)]


def tiles(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    """Squares that cover a picture, row by row; neighbours share a quarter of their side or more.

    Args:
        height: of the picture, `side` or above.
        width: likewise.
        side: of a square.
    """
    return [
        (slice(y, y + side), slice(x, x + side)) for y in _starts(height, side) for x in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    step = side - side // OVERLAP
    n = 1 + -(-(length - side) // step)
    return [round(float(v)) for v in np.linspace(0, length - side, n)]


def _course(sheet: Sheet, side: int, least_px: int) -> _Course:
    height, width = sheet.hidden.shape
    zoom = max(1.0, least_px / min(height, width))
    size = max(round(width * zoom), side), max(round(height * zoom), side)
    if size != (width, height):
        pixels = cv2.resize(sheet.pixels, size, interpolation=cv2.INTER_CUBIC)
        hidden = cv2.resize(sheet.hidden.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        sheet = replace(sheet, pixels=np.asarray(pixels, np.uint8), hidden=np.asarray(hidden))
    places = [place for place in tiles(size[1], size[0], side) if sheet.hidden[place].any()]
    return _Course(sheet, sheet.pixels.copy(), sheet.hidden.copy(), places)


def _step(
    painter: Painter, draw: Drawer, courses: Sequence[_Course], sampling: Sampling, strength: float
) -> None:
    """Paint the next tile of each course."""
    places = [course.places.pop(0) for course in courses]
    weights = [_weight(c, place, painter.size) for c, place in zip(courses, places, strict=True)]
    canvases = [
        _canvas(painter, draw, course, place, weight)
        for course, place, weight in zip(courses, places, weights, strict=True)
    ]
    painted = painter.paint(canvases, sampling, strength=strength)
    for course, place, weight, pixels in zip(courses, places, weights, painted, strict=True):
        shown = weight > 0
        old = course.pixels[place][shown].astype(np.float32)
        new = old + weight[shown][:, None] * (pixels[shown].astype(np.float32) - old)
        course.pixels[place][shown] = np.clip(np.rint(new), 0, 255).astype(np.uint8)
        course.undone[place] = False


def _weight(course: _Course, place: tuple[slice, slice], side: int) -> NDArray[np.float32]:
    """How much of a tile's answer is shown, float32 (side, side): 1 where nothing is painted yet, falling towards what is."""
    undone, hidden = course.undone[place], course.sheet.hidden[place]
    away = cv2.distanceTransform((~undone).astype(np.uint8), cv2.DIST_L2, 5)
    strip = side // OVERLAP // _STRIP
    return np.where(hidden, np.clip(1 - away / max(strip, 1), 0, 1), 0).astype(np.float32)


def _canvas(
    painter: Painter, draw: Drawer, course: _Course, place: tuple[slice, slice], weight: NDArray[np.float32]
) -> Canvas:
    sheet, pixels = course.sheet, np.ascontiguousarray(course.pixels[place])
    noise = sheet.rng.standard_normal(painter.noise_shape(painter.size), dtype=np.float32)
    seed = int(sheet.rng.integers(2**62))
    hidden = _whole_latents(weight > 0)
    mask = np.full_like(hidden, fill_value=True) & sheet.locked
    return Canvas(pixels, hidden, draw(pixels, mask, hidden, redraw=sheet.locked), sheet.prompt, noise, seed)


def _whole_latents(hidden: Bits) -> Bits:
    """What is hidden, grown to whole squares of the grid."""
    side = hidden.shape[0]
    cells = -(-side // _GRID_PX)
    padded = np.pad(hidden, (0, cells * _GRID_PX - side))
    coarse = padded.reshape(cells, _GRID_PX, cells, _GRID_PX).any(axis=(1, 3))
    return np.ascontiguousarray(np.kron(coarse, np.ones((_GRID_PX, _GRID_PX), bool))[:side, :side])


def _reduced(pixels: Rgb, shape: tuple[int, ...]) -> Rgb:
    if pixels.shape == shape:
        return pixels
    return np.asarray(cv2.resize(pixels, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)
