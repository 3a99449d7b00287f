"""How alike two objects' grain is once one is turned, mirrored and moved to meet the other: what finds copies."""

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)

SIDE_PX, SHIFT_PX = 32, 2
"""Of objects as they are correlated, and how far one may be moved to meet another."""
COARSE_PX = 2.0
"""What a blur of this sigma shows is left out: that two blobs are alike says nothing, that their grain is alike does."""
INNER = 0.7
"""Of the ellipse that fills the box: outlines are left out, since silhouettes are real ones by design."""
TURNS_DEG = (-30, -15, 0, 15, 30, 45)
CHANCE = 0.05
"""Share of real objects that lie beyond the mark themselves."""
MOST = 300
"""Real objects that the mark is taken from; an even sample where there are more."""
FEWEST = 8
"""Objects with others on other images, below which no mark can be drawn."""
_CANDIDATES = 6
"""Of a pool, the most alike at half the resolution: those are looked at in full."""


def likeness(objects: NDArray[np.uint8], pool: NDArray[np.uint8]) -> Floats:
    """Largest normalised cross-correlation of each object with each of a pool, after alignment.

    Compared are the details well inside the object. Tried are turns of each exemplar by 15 degrees all
    around, mirror images, and small shifts.

    Args:
        objects: uint8 (N, 32, 32, 3), each stretched to fill the square: `windows.stretched`.
        pool: uint8 (M, 32, 32, 3), the same of the exemplars.

    Returns:
        float64 (N, M), -1 to 1; a copy in another light is 1.
    """
    cores = _cores(objects)
    columns = [(cores @ _moved(np.stack(_poses(one))).T).max(axis=1) for one in pool]
    return np.stack(columns, axis=1).astype(np.float64)


class Pool:
    """Objects to compare others with. May be used from several threads."""

    def __init__(self, objects: NDArray[np.uint8]) -> None:
        """`objects`: uint8 (M, 32, 32, 3), as for `likeness`."""
        self.objects = objects
        poses = [_coarse_poses(one) for one in objects]
        self._coarse = np.stack(poses) if poses else np.zeros((0, 1, 1), np.float32)

    def __len__(self) -> int:
        return len(self.objects)

    def most_alike(
        self, objects: NDArray[np.uint8], *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The likeness of each object to the most alike of the pool, and which one that is.

        All are compared in every pose at half the resolution, where small shifts hardly matter; the best few of each are
        then moved as `likeness` does, in their best pose alone. So this is a little below `likeness` at times, never above.

        Args:
            objects: uint8 (N, 32, 32, 3), as for `likeness`.
            allowed: bool (N, M), which of the pool may be compared with each; all where left out.

        Returns:
            float64 (N,), -1 where none may be compared; int64 (N,), rows of the pool.
        """
        best, which = np.full(len(objects), -1.0), np.zeros(len(objects), np.int64)
        if not len(objects) or not len(self):
            return best, which
        found = self._coarse @ _unit(_halved(_detailed(objects))).T
        coarse, pose = found.max(axis=1).T, found.argmax(axis=1).T
        if allowed is not None:
            coarse = np.where(allowed, coarse, -np.inf)
        n = min(_CANDIDATES, len(self))
        chosen = np.argpartition(-coarse, n - 1, axis=1)[:, :n]
        wanted = np.zeros(coarse.shape, dtype=bool)
        np.put_along_axis(wanted, chosen, values=True, axis=1)
        wanted &= np.isfinite(coarse)
        cores = _cores(objects)
        for one in np.flatnonzero(wanted.any(axis=0)):
            poses, rows = _poses(self.objects[one]), np.flatnonzero(wanted[:, one])
            for k in np.unique(pose[rows, one]):
                own = rows[pose[rows, one] == k]
                alike = (cores[own] @ _moved(poses[k][None]).T).max(axis=1)
                better = alike > best[own]
                best[own[better]], which[own[better]] = alike[better], one
        return best, which

    def mutual(self, images: NDArray[np.int64]) -> Floats:
        """Likeness of its own objects to the most alike one on another image, of those that have one: float64 (K,).

        Args:
            images: int64 (M,), which image each object is on. Of many objects an even sample of `MOST` is asked.
        """
        n = len(self)
        some = (
            np.unique(np.linspace(0, n - 1, min(MOST, n)).round().astype(np.int64)) if n else np.zeros(0, int)
        )
        others = images[some][:, None] != images[None]
        found, _ = self.most_alike(self.objects[some], allowed=others)
        return np.asarray(found[others.any(axis=1)])


def mark(mutual: Floats) -> float | None:
    """The likeness that hardly any real object reaches to one on another image; None where too few tell.

    Args:
        mutual: as `Pool.mutual` gives it.
    """
    return float(np.quantile(mutual, 1 - CHANCE)) if len(mutual) >= FEWEST else None


def _cores(objects: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (N, D): the details inside each, where it may be moved about in another."""
    inner = slice(SHIFT_PX, SIDE_PX - SHIFT_PX)
    return _unit(_detailed(objects)[:, inner, inner])


def _moved(poses: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (25 P, D): the details inside each of (P, 32, 32, 3), moved all ways."""
    fine, steps, side = _detailed(poses), range(2 * SHIFT_PX + 1), SIDE_PX - 2 * SHIFT_PX
    return _unit(np.concatenate([fine[:, i : i + side, j : j + side] for i in steps for j in steps]))


def _coarse_poses(one: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (48, D): the details of an exemplar in every pose at half the resolution.

    Quarter turns and mirror images of a blurred picture are those of the picture, blurred.
    """
    turned = _halved(_detailed(np.stack(_turned(one))))
    return _unit(np.stack([v for t in turned for v in _quarters(t)]))


def _halved(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of four pixels each, float32 (N, S / 2, S / 2, 3)."""
    n, side = len(fine), fine.shape[1] // 2
    return np.asarray(fine.reshape(n, side, 2, side, 2, 3).mean(axis=(2, 4)))


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
    return [pose for turned in _turned(one) for pose in _quarters(turned)]


def _turned(one: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """An exemplar turned within a quarter; uint8 (S, S, 3) each."""
    centre = ((one.shape[1] - 1) / 2, (one.shape[0] - 1) / 2)
    turns = (cv2.getRotationMatrix2D(centre, degrees, 1.0) for degrees in TURNS_DEG)
    return [
        np.asarray(cv2.warpAffine(one, turn, one.shape[1::-1], borderMode=cv2.BORDER_REFLECT), dtype=np.uint8)
        for turn in turns
    ]


def _quarters(one: NDArray[T]) -> list[NDArray[T]]:
    """A picture (S, S, 3) in its eight poses."""
    poses = (np.rot90(one, quarter) for quarter in range(4))
    return [np.ascontiguousarray(p) for pose in poses for p in (pose, pose[:, ::-1])]
