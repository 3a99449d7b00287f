"""A run's contact sheet: real and painted objects of each category side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rarefill import files, pictures
from rarefill.dataset import Dataset
from rarefill.preview import Group, contact_sheet, tile
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Kind

if TYPE_CHECKING:
    from rarefill.geometry import Box

T = TypeVar("T")
_Cell = tuple[str, "Box", int | None]
"""A painted object's file, box, and row of the real object that it repaints."""

TILES = 24
"""Of each kind, at most."""
MANY, FEW_TILES = 6, 6
"""With more groups than this, each has one row of tiles, so that the sheet stays a picture people can look through."""
GROUPS = 24
"""On one sheet, at most."""


def write(path: Path, dataset: Dataset, run: RunDir, asked: Mapping[Goal, int]) -> None:
    """Write the sheet of a finished run's painted objects, spread evenly over the run.

    Redrawn objects are a group of their own, each in the same place as the real one that it was.

    Args:
        path: of the picture.
        dataset: the real data.
        run: whose objects.
        asked: what was to be made, in the sheet's order; what is beyond `GROUPS` is only counted.

    Raises:
        DataError: an image is gone.
        RunError: the sheet cannot be written.
    """
    drawn, most = list(asked)[:GROUPS], TILES if len(asked) <= MANY else FEW_TILES
    painted: dict[Goal, list[_Cell]] = {goal: [] for goal in drawn}
    for sample in run.samples(dataset):
        for instance in sample.instances:
            if instance.annotation is None and instance.goal in painted:
                painted[instance.goal].append((sample.file_name, instance.box, instance.redraws))
    groups = [_group(dataset, run, goal, painted[goal], most) for goal in drawn]
    beyond = len(asked) - len(drawn)
    title = (
        f"The first {len(drawn)} of {len(asked)} categories; {beyond} more are not shown" if beyond else ""
    )
    files.write_bytes(path, pictures.encode(contact_sheet(groups, title=title), "png"))


def _group(dataset: Dataset, run: RunDir, goal: Goal, painted: "list[_Cell]", most: int) -> Group:
    shown = _spread(painted, most)
    made = [tile(pictures.read(run.images / file), box) for file, box, _ in shown]
    if goal.kind is Kind.REDRAWN:
        rows = [row for _, _, row in shown if row is not None]
        note = f"{len(painted)} repainted in place; left: the same objects as they were"
    else:
        real = [int(r) for r in dataset.rows_of(goal.category)]
        rows, note = _spread(real, most), f"{len(painted)} painted, {len(real)} real"
    before = [tile(dataset.read(int(dataset.annotations.image[r])), dataset.box(r)) for r in rows]
    return Group(str(goal), before, made, note=note)


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly from the first to the last."""
    picked = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in picked]
