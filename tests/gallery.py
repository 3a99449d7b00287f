"""Mask shapes that break things, by name: bool (h, w) each. Every geometry test runs over all of them."""

import numpy as np


def _empty(height: int = 20, width: int = 30) -> np.ndarray:
    return np.zeros((height, width), dtype=bool)


def _painted(*slices: tuple[slice | int, slice | int], height: int = 20, width: int = 30) -> np.ndarray:
    out = _empty(height, width)
    for rows, columns in slices:
        out[rows, columns] = True
    return out


def _ring() -> np.ndarray:
    out = _painted((slice(3, 17), slice(5, 25)))
    out[6:14, 9:21] = False
    return out


def _ring_in_ring() -> np.ndarray:
    out = _ring()
    out[8:12, 12:18] = True
    return out


def _disc(radius: float = 8) -> np.ndarray:
    y, x = np.mgrid[:20, :30]
    return (x - 14.5) ** 2 + (y - 9.5) ** 2 <= radius**2


def _diagonal() -> np.ndarray:
    out = _empty()
    out[np.arange(20), np.arange(20)] = True
    return out


def _noise() -> np.ndarray:
    return np.random.default_rng(3).random((20, 30)) < 0.4


SHAPES: dict[str, np.ndarray] = {
    "one pixel in the middle": _painted((9, 14)),
    "first corner": _painted((0, 0)),
    "last corner": _painted((-1, -1)),
    "four corners": _painted((0, 0), (0, -1), (-1, 0), (-1, -1)),
    "full frame": ~_empty(),
    "all but one pixel": ~_painted((9, 14)),
    "one row": _painted((7, slice(None))),
    "one column": _painted((slice(None), 11)),
    "last column": _painted((slice(None), -1)),
    "thin diagonal": _diagonal(),
    "split in two": _painted((slice(2, 8), slice(2, 9)), (slice(12, 18), slice(18, 28))),
    "touching at a corner": _painted((slice(2, 9), slice(2, 9)), (slice(9, 16), slice(9, 16))),
    "with a hole": _ring(),
    "island in a hole": _ring_in_ring(),
    "hole open to the edge": _painted(
        (slice(0, 20), slice(0, 5)), (slice(0, 20), slice(25, 30)), (19, slice(0, 30))
    ),
    "disc": _disc(),
    "checkerboard": (np.indices((20, 30)).sum(axis=0) % 2).astype(bool),
    "noise": _noise(),
    "image of one pixel": np.ones((1, 1), dtype=bool),
    "image of one row": _painted((0, slice(3, 9)), height=1, width=30),
    "image of one column": _painted((slice(3, 9), 0), height=20, width=1),
}
