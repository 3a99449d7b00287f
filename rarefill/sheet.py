"""A run's contact sheet: real and painted objects of each category side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rarefill import files, pictures
from rarefill.dataset import Dataset
from rarefill.preview import Group, contact_sheet, tile
from rarefill.rundir import RunDir
from rarefill.scene import Pixels

if TYPE_CHECKING:
    from rarefill.geometry import Box

T = TypeVar("T")

TILES = 24
"""Of each kind, at most."""


def write(path: Path, dataset: Dataset, run: RunDir, asked: Mapping[str, int]) -> None:
    """Write the sheet of a finished run's painted objects, spread evenly over the run.

    Raises:
        DataError: an image is gone.
        RunError: the sheet cannot be written.
    """
    painted: dict[str, list[tuple[str, Box]]] = {name: [] for name in asked}
    for sample in run.samples(dataset):
        for instance in sample.instances:
            if instance.annotation is None:
                painted[instance.category].append((sample.file_name, instance.box))
    groups = [
        Group(
            name,
            _real(dataset, name),
            [tile(pictures.read(run.images / file), box) for file, box in _spread(painted[name])],
            note=f"{len(painted[name])} painted, {len(dataset.rows_of(name))} real",
        )
        for name in asked
    ]
    files.write_bytes(path, pictures.encode(contact_sheet(groups), "png"))


def _real(dataset: Dataset, category: str) -> list[Pixels]:
    rows = _spread([int(r) for r in dataset.rows_of(category)])
    return [tile(dataset.read(int(dataset.annotations.image[r])), dataset.box(r)) for r in rows]


def _spread(items: Sequence[T]) -> list[T]:
    """At most TILES items, evenly from the first to the last."""
    picked = np.unique(np.linspace(0, len(items) - 1, min(TILES, len(items))).round().astype(int))
    return [items[i] for i in picked]
