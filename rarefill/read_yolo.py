"""YOLO's data.yaml and label files to columns. Only `train` is read: what validates must not be learned from.

A class keeps its index: it is the category's row, and its id is the index plus one, because COCO's ids start at 1.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rarefill import image_files
from rarefill.checks import UNREADABLE, Problems, Section, Table
from rarefill.dataset import check_names
from rarefill.errors import DataError, shown
from rarefill.progress import Progress

_KEPT_OUT = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Places in a YOLO dataset: `labels/train/001.txt:3`, lines counted from 1. Row -1 is data.yaml."""

    where: str
    images: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def category(self, row: int, key: str) -> str:
        del key
        return self.where if row < 0 else f"{self.where}: names[{row}]"

    def image(self, row: int, key: str) -> str:
        del key
        return self.images[row]

    def annotation(self, row: int, key: str) -> str:
        return f"{self.lines[row]}: {key}" if key else self.lines[row]


def read(
    path: Path, images: Path | None, problems: Problems, progress: Progress, named: Sequence[str] = ()
) -> tuple[Table, Path]:
    """The columns of data.yaml's training images, and the folder that their names are relative to.

    `named`: classes that data.yaml must have.

    Raises:
        DataError: data.yaml cannot be read, or has no such class or images.
    """
    spec = document(path)
    classes = _names(path.name, spec)
    check_names(named, classes, path.name)
    base, files = _training_images(path, spec, images)
    files = list(dict.fromkeys(Path(os.path.normpath(f)) for f in files))
    folder = Path(os.path.normpath(base))
    inside = all(f.is_relative_to(folder) for f in files)
    root = folder if inside else Path(os.path.commonpath([f.parent for f in files]))
    names = [f.relative_to(root).as_posix() for f in files]
    places = Places(path.name, names)
    sizes = _sizes(files, names, problems, progress)
    found = _Found(places, len(classes), problems)
    with progress.bar("reading labels", len(files), "files") as bar:
        for row, file in enumerate(files):
            found.read(row, label_file(file), root, sizes[row])
            bar.advance()
    table = found.table(classes, names, sizes)
    if not len(table.annotation_id):
        first = label_file(files[0])
        line = f"{path.name}: its {len(files)} training images have no labels, such as {first}"
        problems.add(Section.FILE, 0, line)
    return table, root


def document(path: Path) -> dict[str, Any]:
    """data.yaml, decoded.

    Raises:
        DataError: it cannot be read or is no mapping.
    """
    import yaml

    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise DataError(f"{path.name}: not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(spec, dict):
        raise DataError(f"{path.name}: expected train and names as 'key: value', got {shown(spec)}")
    return spec


def _names(where: str, spec: dict[str, Any]) -> list[str]:
    """Class names by index, from a list or an {index: name} mapping, or class_0, class_1... where only nc is given."""
    names, n = spec.get("names"), spec.get("nc")
    if names is None and type(n) is int and n > 0:
        return [f"class_{index}" for index in range(n)]
    if isinstance(names, dict):
        names = {int(i) if isinstance(i, str) and i.isdecimal() else i: name for i, name in names.items()}
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(
                f"{where}: names must count from 0 to {len(names) - 1} without gaps, got {shown(list(names))}"
            )
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{where}: names must be a list of class names, got {shown(names)}")
    if n is not None and n != len(names):
        raise DataError(f"{where}: nc is {shown(n)} but names has {len(names)}; correct one of them")
    return [str(name) for name in names]


def _training_images(path: Path, spec: dict[str, Any], images: Path | None) -> tuple[Path, list[Path]]:
    """The dataset's folder and its training images, in the order of `train`, folders sorted."""
    if images is not None:
        if not images.is_dir():
            raise DataError(
                f"{images}: not a folder; --images-dir names the folder that holds the image files"
            )
        return images, _listed(images)
    train = spec.get("train")
    entries: list[str] = train if isinstance(train, list) else [train or ""]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise DataError(f"{path.name}: train must name the folder of training images, got {shown(train)}")
    bases = [path.parent / str(spec.get("path") or ""), path.parent]
    for base in bases:
        found = [_resolved(base, entry) for entry in entries]
        if all(found):
            break
    else:
        missing = next(entry for entry, at in zip(entries, found, strict=True) if at is None)
        raise DataError(
            f"{path.name}: train is {missing!r}, which is neither a folder nor a list in {bases[0]}; "
            f"correct path and train, or name the folder with --images-dir"
        )
    files = [file for at in found if at for file in (_listed(at) if at.is_dir() else _from_list(at, base))]
    if not files:
        raise DataError(f"{path.name}: train is {shown(train)}, which holds no images")
    return base, files


def _resolved(base: Path, entry: str) -> Path | None:
    # Roboflow writes ../train/images for what lies in train/images.
    for name in (entry, entry.removeprefix("../")):
        if (base / name).exists():
            return base / name
    return None


def _listed(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in image_files.SUFFIXES and f.is_file())


def _from_list(listing: Path, base: Path) -> list[Path]:
    """Paths of a text file, one a line, seen from the file itself, else from the dataset's folder."""
    names = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [listing.parent / name if (listing.parent / name).exists() else base / name for name in names]


def label_file(image: Path) -> Path:
    """Where an image's labels are: the last folder called images becomes labels, else beside the image."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _sizes(
    files: Sequence[Path], names: Sequence[str], problems: Problems, progress: Progress
) -> list[tuple[int, int] | None]:
    """Width and height of each image from its header; None, and a problem, where it cannot be read."""

    def one(file: Path) -> tuple[int, int] | DataError:
        try:
            return image_files.size(file)
        except DataError as e:
            return e

    sizes: list[tuple[int, int] | None] = []
    workers = min(32, 4 * (os.cpu_count() or 1))
    with (
        progress.bar("reading image sizes", len(files), "images") as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for row, size in enumerate(pool.map(one, files, chunksize=64)):
            if isinstance(size, DataError):
                problems.add(Section.IMAGE, row, f"{names[row]}: {size}")
            sizes.append(None if isinstance(size, DataError) else size)
            bar.advance()
    return sizes


class _Found:
    """Annotations as they are read, line by line."""

    def __init__(self, places: Places, n_classes: int, problems: Problems) -> None:
        self._places, self._n_classes, self._problems = places, n_classes, problems
        self._image: list[int] = []
        self._category: list[int] = []
        self._xywh: list[Sequence[float]] = []
        self._area: list[float] = []
        self._segmentation: list[msgspec.Raw | bytes] = []

    def read(self, image: int, label: Path, root: Path, size: tuple[int, int] | None) -> None:
        """One label file; an image without one shows nothing that is labelled."""
        try:
            text = label.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as e:
            name = os.path.relpath(label, root)
            self._problems.add(Section.IMAGE, image, f"{name}: not a readable label file: {e}")
            return
        for n, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                self._places.lines.append(f"{os.path.relpath(label, root)}:{n}")
                self._add(image, line.split(), size)

    def _add(self, image: int, words: list[str], size: tuple[int, int] | None) -> None:
        width, height = size or (1, 1)
        category, xywh, area, segmentation = UNREADABLE, _KEPT_OUT, math.nan, b""
        try:
            index, shares = self._numbers(words)
            category = index + 1
            if size is not None and len(shares) == 4:
                x, y, w, h = shares
                xywh = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
            elif size is not None:
                points = np.reshape(shares, (-1, 2)) * (width, height)
                low, high = points.min(axis=0), points.max(axis=0)
                xywh = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
                area, segmentation = _shoelace(points), msgspec.json.encode([points.ravel().tolist()])
        except ValueError as e:
            self._problems.add(Section.ANNOTATION, len(self._image), f"{self._places.lines[-1]}: {e}")
        self._image.append(image + 1)
        self._category.append(category)
        self._xywh.append(xywh)
        self._area.append(area)
        self._segmentation.append(segmentation)

    def _numbers(self, words: list[str]) -> tuple[int, list[float]]:
        """A line's class and its shares of the image."""
        got = shown(" ".join(words))
        try:
            first, *shares = map(float, words)
        except ValueError:
            raise ValueError(f"must be numbers, got {got}") from None
        if not all(map(math.isfinite, (first, *shares))):
            raise ValueError(f"must be finite numbers, got {got}")
        if not first.is_integer() or not 0 <= first < self._n_classes:
            raise ValueError(
                f"class must be a whole number from 0 to {self._n_classes - 1}, as {self._places.where} names them, "
                f"got {words[0]}"
            )
        if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
            raise ValueError(
                f"must be a class with x y width height, or with 3 or more x y pairs, got {len(words)} numbers"
            )
        if max(map(abs, shares)) > 2:
            raise ValueError(f"must be shares of the image from 0 to 1, got {got}")
        return int(first), shares

    def table(self, classes: list[str], names: list[str], sizes: Sequence[tuple[int, int] | None]) -> Table:
        """All columns. Images and annotations are numbered from 1."""
        known = [size or (UNREADABLE, UNREADABLE) for size in sizes]
        return Table(
            places=self._places,
            category_id=np.arange(1, len(classes) + 1),
            category_name=classes,
            supercategory=[""] * len(classes),
            image_id=np.arange(1, len(names) + 1),
            width=np.array([w for w, _ in known], dtype=np.int64),
            height=np.array([h for _, h in known], dtype=np.int64),
            file_name=names,
            annotation_id=np.arange(1, len(self._image) + 1),
            of_image=np.array(self._image, dtype=np.int64),
            of_category=np.array(self._category, dtype=np.int64),
            xywh=np.array(self._xywh, dtype=np.float64).reshape(-1, 4),
            area=np.array(self._area, dtype=np.float64),
            crowd=np.zeros(len(self._image), dtype=bool),
            segmentation=self._segmentation,
        )


def _shoelace(points: Any) -> float:
    """Area of a polygon (N, 2)."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
