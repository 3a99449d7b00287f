"""Exemplars on disk: what an earlier run cut out."""

import io
import zipfile
from pathlib import Path

import numpy as np

from rarefill import cutouts
from rarefill.dataset import Dataset
from rarefill.exemplars import SOURCES, Exemplar, exemplar
from rarefill.geometry import Mask

_FORMAT = 5
"""Of the cache's files; raise it when cut-outs change for another reason than the cutter's weights."""


def packed(exemplars: list[Exemplar]) -> bytes:
    """A file of one category's exemplars."""
    out = io.BytesIO()
    masks = [e.mask for e in exemplars]
    np.savez(
        out,
        format=np.array(_FORMAT),
        cutter=np.array(cutouts.digest()),
        rows=np.array([e.annotation for e in exemplars], dtype=np.int64),
        source=np.array([SOURCES.index(e.source) for e in exemplars], dtype=np.uint8),
        quality=np.array([e.quality for e in exemplars], dtype=np.float64),
        frames=np.array([(m.x, m.y, *m.pixels.shape) for m in masks], dtype=np.int64).reshape(-1, 4),
        bits=np.concatenate([np.packbits(m.pixels) for m in masks] or [np.zeros(0, np.uint8)]),
    )
    return out.getvalue()


def kept(path: Path, dataset: Dataset, category: str, rows: list[int]) -> list[Exemplar] | None:
    """What an earlier run kept, or None where there is nothing, or nothing whole: then the shapes are cut again."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
            data = {name: held[name] for name in held.files}
        if int(data["format"]) != _FORMAT or str(data["cutter"]) != cutouts.digest():
            return None
        if not set(data["rows"].tolist()) <= set(rows):
            return None
        found, at = [], 0
        columns = (
            data["rows"].tolist(),
            data["source"].tolist(),
            data["quality"].tolist(),
            data["frames"].tolist(),
        )
        for row, source, quality, (x, y, height, width) in zip(*columns, strict=True):
            n = -(-height * width // 8)
            bits = np.unpackbits(data["bits"][at : at + n], count=height * width)
            mask = Mask(x, y, bits.reshape(height, width).astype(bool))
            found.append(exemplar(dataset, category, row, mask, SOURCES[source], quality))
            at += n
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None
    return found
