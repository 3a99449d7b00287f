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
MANY, FEW_TILES = 6, 6
"""With more groups than this, each has one row of tiles, so that the sheet stays a picture people can look through."""
GROUPS = 24
"""On one sheet, at most."""


def write(path: Path, dataset: Dataset, run: RunDir, asked: Mapping[str, int]) -> None:
    """Write the sheet of a finished run's painted objects, spread evenly over the run.

    Args:
        path: of the picture.
        dataset: the real data.
        run: whose objects.
        asked: the categories, in the sheet's order; what is beyond `GROUPS` is only counted.

    Raises:
        DataError: an image is gone.
        RunError: the sheet cannot be written.
    """
    drawn, most = list(asked)[:GROUPS], TILES if len(asked) <= MANY else FEW_TILES
    painted: dict[str, list[tuple[str, Box]]] = {name: [] for name in drawn}
    for sample in run.samples(dataset):
        for instance in sample.instances:
            if instance.annotation is None and instance.category in painted:
                painted[instance.category].append((sample.file_name, instance.box))
    groups = [
        Group(
            name,
            _real(dataset, name, most),
            [tile(pictures.read(run.images / file), box) for file, box in _spread(painted[name], most)],
            note=f"{len(painted[name])} painted, {len(dataset.rows_of(name))} real",
        )
        for name in drawn
    ]
    beyond = len(asked) - len(drawn)
    title = (
        f"The first {len(drawn)} of {len(asked)} categories; {beyond} more are not shown" if beyond else ""
    )
    files.write_bytes(path, pictures.encode(contact_sheet(groups, title=title), "png"))


def _real(dataset: Dataset, category: str, most: int) -> list[Pixels]:
    rows = _spread([int(r) for r in dataset.rows_of(category)], most)
    return [tile(dataset.read(int(dataset.annotations.image[r])), dataset.box(r)) for r in rows]


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly from the first to the last."""
    picked = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in picked]
