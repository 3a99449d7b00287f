"""Folders that stand where finished runs stand, so that `rarefill evaluate --run` takes them."""

import json
import shutil
from pathlib import Path
from typing import Any

from rarefill.dataset import Dataset
from rarefill.files import write_bytes


def as_run(folder: Path, held: dict[str, Any], pictures: Path, part: Dataset) -> None:
    """Write a run's labels, images and manifest.

    Args:
        folder: the run's.
        held: its labels, COCO.
        pictures: where its images lie.
        part: the training part that it says it was made from.
    """
    for image in held["images"]:
        copy(folder / "images" / image["file_name"], pictures / image["file_name"])
    write_bytes(folder / "annotations.json", json.dumps(held).encode())
    manifest = {"rarefill": {"data": part.digest}, "finished": True}
    write_bytes(folder / "manifest.json", json.dumps(manifest).encode())


def copy(place: Path, source: Path) -> None:
    """A file at another place, where it is not there yet."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        shutil.copyfile(source, place)
