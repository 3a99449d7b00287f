"""How a real silhouette becomes a placed one: flip, turn, stretch, bend, as one map for mask and pixels alike.

Points are in edge coordinates (a pixel's centre is at +0.5) of two frames: the exemplar's own tight frame, and the
tight frame of the place it goes to.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import Box, FloatArray, Mask
from rarefill.scene import Shape

MAX_OVERSAMPLING = 16
"""Samples per pixel and axis when shrinking; an object shrunk by more than that is a few pixels in all."""

STEEPEST = 0.5
"""Most by which a deformation may stretch or squeeze anywhere: below 1 no point of it folds, so parts and holes stay."""
_WAVES = ((1, 1), (2, 0), (0, 2), (1, 2), (2, 1), (2, 2))
"""Half waves down and across of a deformation's cosines. Those with one in all are left out: they tilt and stretch."""


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """Carries an exemplar to its place: an affine map, then a smooth deformation where there is one.

    Attributes:
        matrix: float64 (2, 3), from the exemplar's frame to the place's, edge coordinates.
        waves: float64 (2, 3, 3), shifts along x and y as sums of cosines, in shares of `frame`; None for an affine map.
        frame: the box that the deformation is spread over, in the place's frame.
    """

    matrix: FloatArray
    waves: FloatArray | None = None
    frame: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def shifted(self, dx: float, dy: float) -> "Map":
        """The same to a place's frame whose origin lies this far to the left and above."""
        return self.stretched(1.0, 1.0, dx, dy)

    def stretched(self, sx: float, sy: float, dx: float = 0.0, dy: float = 0.0) -> "Map":
        """The same, then stretched and shifted."""
        (a, b, x), (c, d, y) = self.matrix.tolist()
        matrix = np.array([[sx * a, sx * b, sx * x + dx], [sy * c, sy * d, sy * y + dy]])
        x1, y1, x2, y2 = self.frame
        return Map(matrix, self.waves, (sx * x1 + dx, sy * y1 + dy, sx * x2 + dx, sy * y2 + dy))

    def seen_from(self, x: float, y: float) -> "Map":
        """The same for points of a frame whose origin is (x, y) in the exemplar's frame."""
        matrix = self.matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ np.array([x, y])
        return replace(self, matrix=matrix)

    def back(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where the points of a grid in the place come from: columns (w,) and rows (h,) give x and y, float64 (h, w)."""
        x, y = x[None], y[:, None]
        if self.waves is not None:
            x1, y1, x2, y2 = self.frame
            across, down = _cosines((x[0] - x1) / (x2 - x1)), _cosines((y[:, 0] - y1) / (y2 - y1))
            shift = down @ self.waves @ across.T
            x, y = x + (x2 - x1) * shift[0], y + (y2 - y1) * shift[1]
        (a, b), (c, d) = _inverse(self.matrix)
        x, y = x - self.matrix[0, 2], y - self.matrix[1, 2]
        return a * x + b * y, c * x + d * y


def whole(box: Box) -> tuple[int, int, int, int]:
    """A box's whole pixels as x, y, width, height; at least one pixel each way, as `Mask.resized` has it."""
    x, y = round(box.x1), round(box.y1)
    return x, y, max(1, round(box.x2) - x), max(1, round(box.y2) - y)


def turn(mask: Mask, shape: Shape) -> FloatArray:
    """Flip and rotation alone, as float64 (2, 3): the frame's points to a frame whose origin is the turned extent's."""
    return _turned(mask, flip=shape.flip, rotation_deg=shape.rotation_deg)[0]


def turned_size(mask: Mask, shape: Shape) -> tuple[float, float]:
    """Width and height of the silhouette after flip and rotation, in its own pixels."""
    return _turned(mask, flip=shape.flip, rotation_deg=shape.rotation_deg)[1]


@lru_cache(8192)
def _turned(mask: Mask, *, flip: bool, rotation_deg: float) -> tuple[FloatArray, tuple[float, float]]:
    """Flip and rotation as a matrix, and the size that they give."""
    height, width = mask.pixels.shape
    angle = math.radians(rotation_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    # Clockwise where y points down.
    linear = np.array([[-cos, -sin], [-sin, cos]] if flip else [[cos, -sin], [sin, cos]])
    centre = np.array([width / 2, height / 2])
    points = (corners(mask) - centre) @ linear.T
    low = np.minimum.reduce(points)
    right, bottom = (np.maximum.reduce(points) - low).tolist()
    matrix = np.empty((2, 3))
    matrix[:, :2], matrix[:, 2] = linear, -linear @ centre - low
    matrix.setflags(write=False)
    return matrix, (right, bottom)


def fit(mask: Mask, shape: Shape, width: int, height: int) -> Map:
    """All of it: turn, stretch the turned silhouette to fill width x height pixels, bend.

    Returns:
        The map to a frame of this size.
    """
    return filled(mask, shape, width, height)[0]


def filled(mask: Mask, shape: Shape, width: int, height: int) -> tuple[Map, NDArray[np.float32]]:
    """The map of `fit`, and which share of each pixel the silhouette then covers: float32 (height, width), 0 to 1.

    A turned corner, or a tip that shrinks, covers less than half of its last pixel and would be lost; a bent side moves.
    So the map is stretched by what the silhouette lacks to fill the frame, or reaches beyond.
    """
    pixels = mask.pixels.astype(np.float32)
    turned = turned_size(mask, shape)
    made = Map(turn(mask, shape)).stretched(width / turned[0], height / turned[1])
    exact = shape.rotation_deg % 90 == 0 and turned == (width, height)
    if exact and not shape.bend:
        return made, resample(pixels, made, width, height)
    px = py = 0
    seen = made
    if shape.bend:
        made = Map(made.matrix, _bend(shape.bend, shape.bend_seed), (0.0, 0.0, width, height))
        # It may reach so far out of the frame at most.
        px, py = math.ceil(shape.bend * width), math.ceil(shape.bend * height)
        seen = made.shifted(px, py)
    covered = resample(pixels, seen, width + 2 * px, height + 2 * py)
    x, y, across, down = cv2.boundingRect((covered >= 0.5).view(np.uint8))
    if not across or (x - px, y - py, across, down) == (0, 0, width, height):
        return made, covered[py : py + height, px : px + width]
    sx, sy = width / across, height / down
    made = made.stretched(sx, sy, -sx * (x - px), -sy * (y - py))
    return made, resample(pixels, made, width, height)


def coverage(mask: Mask, how: Map, width: int, height: int) -> NDArray[np.float32]:
    """Which share of each target pixel the mapped silhouette covers: float32 (height, width), 0 to 1."""
    return resample(mask.pixels.astype(np.float32), how, width, height)


def resample(
    values: NDArray[np.float32],
    how: Map,
    width: int,
    height: int,
    *,
    border: int = cv2.BORDER_CONSTANT,
) -> NDArray[np.float32]:
    """Values carried over by a map, each target pixel the mean of what falls into it.

    Args:
        values: float32 (h, w) or (h, w, C).
        how: from the values' frame to the target's.
        width: of the target in pixels.
        height: of the target in pixels.
        border: what lies outside the values (cv2's constants); zero unless said.
    """
    (a, b, x), (c, d, y) = how.matrix.tolist()
    area = abs(a * d - b * c)
    # How many source pixels one target pixel spans along x and along y.
    nx = min(MAX_OVERSAMPLING, math.ceil(math.hypot(d, c) / area - 1e-6)) or 1
    ny = min(MAX_OVERSAMPLING, math.ceil(math.hypot(b, a) / area - 1e-6)) or 1
    size = (width * nx, height * ny)
    if how.waves is None:
        # Edges to centres.
        x, y = x + (a + b) / 2, y + (c + d) / 2
        fine = np.array([[nx * a, nx * b, nx * x - 0.5], [ny * c, ny * d, ny * y - 0.5]])
        out = cv2.warpAffine(values, fine, size, flags=cv2.INTER_LINEAR, borderMode=border)
    else:
        from_x, from_y = how.back((np.arange(size[0]) + 0.5) / nx, (np.arange(size[1]) + 0.5) / ny)
        centres = (from_x - 0.5).astype(np.float32), (from_y - 0.5).astype(np.float32)
        out = cv2.remap(values, *centres, cv2.INTER_LINEAR, borderMode=border)
    if nx > 1 or ny > 1:
        out = cv2.resize(out, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(out.reshape(height, width, *values.shape[2:]))


def _inverse(matrix: FloatArray) -> tuple[tuple[float, float], tuple[float, float]]:
    """The way back of a map's linear part, row by row."""
    (a, b, _), (c, d, _) = matrix.tolist()
    area = a * d - b * c
    return (d / area, -b / area), (-c / area, a / area)


def _bend(strength: float, seed: int) -> FloatArray:
    """The cosines of a deformation whose largest shift is `strength`, or less where it would be steeper than allowed."""
    waves, slope = _form(seed)
    return min(strength, STEEPEST / slope) * waves


@lru_cache(4096)
def _form(seed: int) -> tuple[FloatArray, float]:
    """Cosines of a random deformation whose largest shift is 1, float64 (2, 3, 3), and its steepest slope.

    Longer waves are stronger. The slope is the largest singular value of its derivative (Jacobian) on a fine grid.
    """
    drawn = np.random.default_rng(seed).normal(size=(2, len(_WAVES)))
    waves = np.zeros((2, 3, 3))
    for i, (down, across) in enumerate(_WAVES):
        waves[:, down, across] = drawn[:, i] / (down * down + across * across)
    at = np.linspace(0, 1, 33)
    cosines, slopes = _cosines(at), -np.pi * np.arange(3) * np.sin(np.pi * np.outer(at, np.arange(3)))
    shift = cosines @ waves @ cosines.T
    by_x, by_y = cosines @ waves @ slopes.T, slopes @ waves @ cosines.T
    jacobian = np.moveaxis(np.stack([by_x, by_y]), (0, 1), (-1, -2))
    largest = float(np.hypot(*shift).max())
    waves /= largest
    waves.setflags(write=False)
    return waves, 1.05 * float(np.linalg.norm(jacobian, ord=2, axis=(-2, -1)).max()) / largest


def _cosines(at: FloatArray) -> FloatArray:
    """float64 (n, 3): none, one and two half waves at places from 0 to 1."""
    return np.asarray(np.cos(np.pi * np.outer(at, np.arange(3))))


@lru_cache(4096)
def corners(mask: Mask) -> FloatArray:
    """The corners of each row's first and last pixel, float64 (n, 2) x y: the silhouette reaches nowhere beyond them."""
    rows = np.arange(mask.pixels.shape[0])
    first = mask.pixels.argmax(axis=1)
    last = mask.pixels.shape[1] - mask.pixels[:, ::-1].argmax(axis=1)
    held = mask.pixels.any(axis=1)
    rows, first, last = rows[held], first[held], last[held]
    x = np.concatenate([first, first, last, last]).astype(float)
    y = np.concatenate([rows, rows + 1, rows, rows + 1]).astype(float)
    return np.stack([x, y], axis=1)
