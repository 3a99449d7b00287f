"""How a real silhouette becomes a placed one: flip, turn, stretch, as one affine map for mask and pixels alike.

Points are in edge coordinates (a pixel's centre is at +0.5) of two frames: the exemplar's own tight frame, and the
tight frame of the place it goes to.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import Box, FloatArray, Mask
from rarefill.scene import Shape

MAX_OVERSAMPLING = 16
"""Samples per pixel and axis when shrinking; an object shrunk by more than that is a few pixels in all."""


def whole(box: Box) -> tuple[int, int, int, int]:
    """A box's whole pixels as x, y, width, height; at least one pixel each way, as `Mask.resized` has it."""
    x, y = round(box.x1), round(box.y1)
    return x, y, max(1, round(box.x2) - x), max(1, round(box.y2) - y)


def turn(mask: Mask, shape: Shape) -> FloatArray:
    """Flip and rotation alone, as float64 (2, 3): the frame's points to a frame whose origin is the turned extent's."""
    height, width = mask.pixels.shape
    angle = math.radians(shape.rotation_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])  # clockwise where y points down
    if shape.flip:
        linear = linear @ np.array([[-1.0, 0.0], [0.0, 1.0]])
    centre = np.array([width / 2, height / 2])
    low, _ = _extent(mask, linear, centre)
    return np.hstack([linear, (-linear @ centre - low)[:, None]])


def turned_size(mask: Mask, shape: Shape) -> tuple[float, float]:
    """Width and height of the silhouette after flip and rotation, in its own pixels."""
    linear = turn(mask, shape)[:, :2]
    height, width = mask.pixels.shape
    low, high = _extent(mask, linear, np.array([width / 2, height / 2]))
    size = high - low
    return float(size[0]), float(size[1])


def fit(mask: Mask, shape: Shape, width: int, height: int) -> FloatArray:
    """The whole map: turn, then stretch the turned silhouette to fill width x height pixels.

    Returns:
        float64 (2, 3), from the exemplar's frame to the place's frame, both in edge coordinates.
    """
    matrix = turn(mask, shape)
    turned = turned_size(mask, shape)
    matrix = np.diag([width / turned[0], height / turned[1]]) @ matrix
    if shape.rotation_deg % 90 == 0:
        return matrix
    # A turned corner covers less than half of its last pixel and would be lost: stretch by what is missing.
    covered = Mask.of(coverage(mask, matrix, width, height) >= 0.5)
    if covered is None:
        return matrix
    h, w = covered.pixels.shape
    grow = np.array([width / w, height / h])
    matrix = np.diag(grow) @ matrix
    matrix[:, 2] -= grow * np.array([covered.x, covered.y])
    return matrix


def coverage(mask: Mask, matrix: FloatArray, width: int, height: int) -> NDArray[np.float32]:
    """Which share of each target pixel the mapped silhouette covers: float32 (height, width), 0 to 1."""
    return resample(mask.pixels.astype(np.float32), matrix, width, height)


def resample(
    values: NDArray[np.float32],
    matrix: FloatArray,
    width: int,
    height: int,
    *,
    border: int = cv2.BORDER_CONSTANT,
) -> NDArray[np.float32]:
    """Values carried over by an affine map, each target pixel the mean of what falls into it.

    Args:
        values: float32 (h, w) or (h, w, C).
        matrix: (2, 3), from the values' frame to the target's, edge coordinates.
        width: of the target in pixels.
        height: of the target in pixels.
        border: what lies outside the values (cv2's constants); zero unless said.
    """
    back = np.linalg.inv(matrix[:, :2])
    step = np.hypot(back[0], back[1])  # how many source pixels one target pixel spans along x and along y
    nx, ny = (int(min(MAX_OVERSAMPLING, math.ceil(float(s) - 1e-6))) or 1 for s in step)
    fine = np.diag([nx, ny]) @ matrix
    fine[:, 2] += fine[:, :2] @ np.array([0.5, 0.5]) - 0.5  # edges to centres
    size = (width * nx, height * ny)
    out = cv2.warpAffine(values, fine, size, flags=cv2.INTER_LINEAR, borderMode=border)
    if nx > 1 or ny > 1:
        out = cv2.resize(out, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(out.reshape(height, width, *values.shape[2:]))


def _extent(mask: Mask, linear: FloatArray, centre: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest point of the mask's pixel squares after a linear map about a centre."""
    rows = np.arange(mask.pixels.shape[0])
    first = mask.pixels.argmax(axis=1)
    last = mask.pixels.shape[1] - mask.pixels[:, ::-1].argmax(axis=1)
    held = mask.pixels.any(axis=1)
    rows, first, last = rows[held], first[held], last[held]
    x = np.concatenate([first, first, last, last]).astype(float)
    y = np.concatenate([rows, rows + 1, rows, rows + 1]).astype(float)
    points = (np.stack([x, y], axis=1) - centre) @ linear.T
    return points.min(axis=0), points.max(axis=0)
