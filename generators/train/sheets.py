"""Sample sheets: rows of pictures side by side, for eyes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rarefill.errors import DataError
from rarefill.generators.train.shelf import Rgb

GAP = 4


def write(path: Path, rows: Sequence[Sequence[Rgb]], *, zoom: int = 1) -> None:
    """Rows of uint8 (H, W, 3) RGB pictures of one size as one PNG."""
    lines = [np.concatenate([_framed(cell, zoom) for cell in row], axis=1) for row in rows]
    sheet = np.concatenate(lines, axis=0)
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise DataError(f"{path}: cannot be written; is the disk full?")


def _framed(cell: Rgb, zoom: int) -> Rgb:
    large = np.repeat(np.repeat(cell, zoom, axis=0), zoom, axis=1)
    return np.pad(large, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
