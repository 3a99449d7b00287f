"""A YOLO folder: `data.yaml`, `images/train`, `labels/train`, as Ultralytics and its like read it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import RunError
from rarefill.exporters.outline import bridged, rings
from rarefill.files import write_bytes
from rarefill.geometry import Box, Mask
from rarefill.progress import SILENT, Progress
from rarefill.scene import Instance, Sample


def box_line(index: int, box: Box, width: int, height: int) -> str:
    """Class, centre and size as shares of the image: one object."""
    (x, y), w, h = box.center, box.width, box.height
    return f"{index} {x / width:.6f} {y / height:.6f} {w / width:.6f} {h / height:.6f}"


def polygon_line(index: int, points: NDArray[Any], width: int, height: int) -> str:
    """Class and the polygon's points, (N, 2) in pixels, as shares of the image: one object."""
    shares = np.clip(points / (width, height), 0, 1).ravel().tolist()
    return f"{index} " + " ".join(f"{share:.6f}" for share in shares)


def polygon(dataset: Dataset, instance: Instance) -> NDArray[np.float64]:
    """One object as one polygon (N, 2): the file's own where it holds, its mask's outline, else its box's corners.

    Parts and holes are joined by seams without width.
    """
    row = instance.row
    if row is not None and not instance.changed and dataset.has_mask(row):
        value = msgspec.json.decode(bytes(dataset.annotations.segmentation[row]))
        if isinstance(value, list):
            return bridged([np.reshape(part, (-1, 2)) for part in value])
        return _outline(instance.mask or dataset.mask(row), instance.box)
    return _outline(instance.mask, instance.box)


def _outline(mask: Mask | None, box: Box) -> NDArray[np.float64]:
    if mask is None:
        x1, y1, x2, y2 = box.xyxy
        return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    return bridged([ring.points for ring in rings(mask)])


def lines(dataset: Dataset, sample: Sample, *, segments: bool) -> str:
    """A label file's text. Crowds are left out: YOLO has no word for them.

    Args:
        dataset: what the sample's rows mean.
        sample: the image.
        segments: polygons instead of boxes. Readers take a file as one or the other, so objects without a mask become
            their box's corners.
    """
    out = []
    for instance in sample.instances:
        if instance.crowd:
            continue
        index = dataset.category_row(instance.category)
        if segments:
            points = polygon(dataset, instance)
            out.append(polygon_line(index, points, sample.width, sample.height))
        else:
            out.append(box_line(index, instance.box, sample.width, sample.height))
    return "".join(line + "\n" for line in out)


def data_yaml(dataset: Dataset, val: str | None, *, segments: bool) -> str:
    """The text of data.yaml.

    There is no `path`: readers take the file's own folder then, wherever it is moved to.

    Args:
        dataset: whose categories to name; a category's index is its row.
        val: the user's own validation images, seen from the file's folder; None where it is not known.
        segments: what the label files hold.
    """
    import yaml

    head = [
        f"# New images made by rarefill from {dataset.path.name}; labels are {'polygons' if segments else 'boxes'}.",
        "# Crowds (COCO's iscrowd) are left out. To train on your own images as well, list their folder too:",
        "#   train: [images/train, /path/to/your/images]",
    ]
    if val is None:
        head += [
            "# Readers demand a val: here it is train again. Put your own real images there before you measure anything.",
        ]
    if dataset.format == "coco":
        head += ["# index: id in the COCO file"]
        head += [f"#   {index}: {category.id}" for index, category in enumerate(dataset.categories)]
    body = {"train": "images/train", "val": val or "images/train", "names": dict(enumerate(dataset.names))}
    return "\n".join(head) + "\n" + yaml.safe_dump(body, sort_keys=False, allow_unicode=True)


def write(
    folder: Path,
    dataset: Dataset,
    samples: Iterable[Sample],
    *,
    images: Path,
    segments: bool = False,
    total: int = 0,
    progress: Progress = SILENT,
) -> None:
    """Write the folder. data.yaml comes last: a folder without one is not finished, and is written anew.

    Args:
        folder: to write; its images and labels are replaced.
        dataset: what the samples' rows mean.
        samples: in any order.
        images: the run's images; they are hard-linked where the file system allows, else copied.
        segments: polygons instead of boxes.
        total: how many samples there are, for the progress.
        progress: counts the images.

    Raises:
        RunError: the folder cannot be written, or an image is gone.
    """
    described = folder / "data.yaml"
    try:
        described.unlink(missing_ok=True)
        for kind in ("images", "labels"):
            shutil.rmtree(folder / kind / "train", ignore_errors=True)
            (folder / kind / "train").mkdir(parents=True)
        with progress.bar(f"Writing {folder.name}", total, "images") as bar:
            for sample in samples:
                _place(images / sample.file_name, folder / "images" / "train" / sample.file_name)
                label = (folder / "labels" / "train" / sample.file_name).with_suffix(".txt")
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(lines(dataset, sample, segments=segments))
                bar.advance()
    except OSError as e:
        raise RunError(
            f"{e.filename or folder}: {e.strerror or e}; the YOLO folder is not finished, run again"
        ) from e
    write_bytes(described, data_yaml(dataset, _own_val(dataset, folder), segments=segments).encode())


def _place(source: Path, target: Path) -> None:
    """One file under a second name: the same bytes on disk where the file system can, a copy elsewhere."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _own_val(dataset: Dataset, folder: Path) -> str | None:
    """The validation images that the user's data.yaml names, seen from our folder."""
    if dataset.format != "yolo":
        return None
    from rarefill.read_yolo import document

    own = document(dataset.path)
    val = own.get("val")
    if not isinstance(val, str):
        return None
    bases = (dataset.path.parent / str(own.get("path") or ""), dataset.path.parent)
    # Roboflow writes ../valid/images for what lies in valid/images.
    places = [base / name for name in (val, val.removeprefix("../")) for base in bases]
    found = next((place.resolve() for place in places if place.exists()), None)
    return None if found is None else Path(os.path.relpath(found, folder.resolve())).as_posix()
