"""How alike two objects' grain is once one is turned, mirrored and moved to meet the other: what finds copies."""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIDE_PX, SHIFT_PX = 32, 2
"""Of objects as they are correlated, and how far one may be moved to meet another."""
COARSE_PX = 2.0
"""What a blur of this sigma shows is left out: that two blobs are alike says nothing, that their grain is alike does."""
INNER = 0.7
"""Of the ellipse that fills the box: outlines are left out, since silhouettes are real ones by design."""
TURNS_DEG = (-30, -15, 0, 15, 30, 45)


def likeness(objects: NDArray[np.uint8], pool: NDArray[np.uint8]) -> Floats:
    """Largest normalised cross-correlation of each object with each of a pool, after alignment.

    Compared are the details well inside the object. Tried are turns of each exemplar by 15 degrees all
    around, mirror images, and small shifts.

    Args:
        objects: uint8 (N, 32, 32, 3), each stretched to fill the square: `fidelity.windows.stretched`.
        pool: uint8 (M, 32, 32, 3), the same of the exemplars.

    Returns:
        float64 (N, M), -1 to 1; a copy in another light is 1.
    """
    inner = slice(SHIFT_PX, SIDE_PX - SHIFT_PX)
    cores = _unit(_detailed(objects)[:, inner, inner])
    columns = []
    for one in pool:
        poses = np.stack(_poses(one))
        fine = _detailed(poses)
        steps = range(2 * SHIFT_PX + 1)
        side = SIDE_PX - 2 * SHIFT_PX
        moved = [fine[:, i : i + side, j : j + side] for i in steps for j in steps]
        columns.append((cores @ _unit(np.concatenate(moved)).T).max(axis=1))
    return np.stack(columns, axis=1).astype(np.float64)


def _detailed(objects: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (N, S, S, 3): without what a blur shows."""
    fine = objects.astype(np.float32)
    return np.stack([one - cv2.GaussianBlur(one, (0, 0), COARSE_PX) for one in fine])


def _unit(objects: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (N, D): the pixels inside, about each colour's mean, of length 1."""
    side = objects.shape[1]
    inside = np.hypot(*np.mgrid[:side, :side] - (side - 1) / 2) <= INNER * side / 2
    rows = objects[:, inside]
    flat = (rows - rows.mean(axis=1, keepdims=True)).reshape(len(objects), -1)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-3), dtype=np.float32)


def _poses(one: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """An exemplar turned all around, and mirrored; uint8 (S, S, 3) each."""
    centre = ((one.shape[1] - 1) / 2, (one.shape[0] - 1) / 2)
    out = []
    for degrees in TURNS_DEG:
        matrix = cv2.getRotationMatrix2D(centre, degrees, 1.0)
        turned = cv2.warpAffine(one, matrix, one.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
        for quarter in range(4):
            pose = np.rot90(turned, quarter)
            out += [np.ascontiguousarray(pose), np.ascontiguousarray(pose[:, ::-1])]
    return out
