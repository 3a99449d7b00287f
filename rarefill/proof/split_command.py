"""What `rarefill split` does: parts of a dataset as COCO files, and split.json, which says what went where and why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from rarefill import __version__
from rarefill.dataset import Dataset, load
from rarefill.errors import UsageError
from rarefill.exporters import original
from rarefill.exporters.original import Original
from rarefill.files import write_bytes, writing
from rarefill.progress import Progress
from rarefill.proof import groups, parts
from rarefill.report.words import count
from rarefill.seeds import Stage, rng

FILE = "split.json"


@dataclass(frozen=True, slots=True)
class Options:
    """As on the command line."""

    data: Path
    out: Path
    pictures: Path | None = None
    group_by: str = "similar"
    shares: tuple[float, ...] | None = None
    floor: int = parts.FLOOR
    seed: int = 0
    rare: str | None = None
    k: int | None = None
    train_images: int = 120
    draws: int = 1
    lenient: bool = False


def shares_of(text: str | None) -> tuple[float, ...] | None:
    """`0.7,0.15,0.15` as numbers.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--shares takes three numbers such as 0.7,0.15,0.15, got {text!r}") from None


def run(options: Options, progress: Progress) -> tuple[Path, list[str]]:
    """Split, and write the parts.

    Returns:
        The split.json, and lines for people.

    Raises:
        UsageError: options that do not go together, or files of another split in the folder.
        DataError: the data cannot be split so.
    """
    if (options.rare is None) != (options.k is None):
        raise UsageError("--rare NAME and --k N go together: a few-shot split has N images of that category")
    path = options.out / FILE
    if path.exists():
        raise UsageError(f"{path} exists; choose another --out")
    named = () if options.rare is None else (options.rare,)
    dataset = load(options.data, options.pictures, lenient=options.lenient, named=named, progress=progress)
    group = groups.find(dataset, options.group_by, progress)
    default = (0.65, 0.0, 0.35) if options.rare else (0.7, 0.15, 0.15)
    shares = options.shares or default
    found = parts.assign(
        parts.holding(dataset),
        group,
        shares,
        dataset.names,
        rng(options.seed, Stage.PLAN),
        floor=options.floor,
    )
    files = _few(options, dataset, found) if options.rare else _plain(dataset, found)
    source = original.read(dataset)
    for name, rows in files.items():
        write(options.out / name, source, dataset, rows)
    said = {
        "rarefill": __version__,
        "data": str(dataset.path),
        "images": str(dataset.root),
        "digest": dataset.digest,
        "group_by": groups.describe(options.group_by),
        "groups": int(group.max()) + 1,
        "largest_group": int(np.bincount(group).max()),
        "shares": list(shares),
        "floor": options.floor,
        "seed": options.seed,
        "rare": options.rare,
        "k": options.k,
        "files": {name: _told(dataset, group, rows) for name, rows in files.items()},
        "notes": list(found.notes),
        "group_of": {name: int(g) for name, g in zip(dataset.images.file_name, group, strict=True)},
    }
    write_bytes(path, (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
    return path, _lines(said)


def _plain(dataset: Dataset, found: parts.Parts) -> dict[str, NDArray[np.intp]]:
    del dataset
    files = {f"{name}.json": found.images(name) for name in parts.NAMES}
    return {name: rows for name, rows in files.items() if len(rows)}


def _few(options: Options, dataset: Dataset, found: parts.Parts) -> dict[str, NDArray[np.intp]]:
    """The few-shot files: several drawings share one test part."""
    if options.rare is None or options.k is None:
        return {}
    holds = parts.holding(dataset)[:, dataset.category_row(options.rare)]
    files = {"test.json": found.images("test")}
    if len(found.images("val")):
        files["val.json"] = found.images("val")
    for n in range(options.draws):
        draw = rng(options.seed, Stage.PLAN, 1, n)
        drawn = parts.shots(holds, found.images("train"), options.k, options.train_images, draw, options.rare)
        files[f"train_k{options.k}_{n}.json"] = drawn.few
        if drawn.rare_oracle > drawn.rare_few:
            files[f"train_k{drawn.rare_oracle}_{n}.json"] = drawn.oracle
        if len(drawn.rest):
            files[f"rest_{n}.json"] = drawn.rest
    return files


def write(path: Path, source: Original, dataset: Dataset, rows: NDArray[np.intp]) -> None:
    """Some images of a dataset as a COCO file: their entries and their annotations' as they were printed."""
    inside = np.zeros(len(dataset.images), dtype=bool)
    inside[rows] = True
    kept = {
        "images": [bytes(source.images.elements[source.images.row[n]]) for n in np.flatnonzero(inside)],
        "annotations": [
            bytes(source.annotations.elements[source.annotations.row[n]])
            for n in np.flatnonzero(inside[dataset.annotations.image])
        ],
    }
    encode = msgspec.json.encode
    with writing(path) as file:
        for n, (key, value) in enumerate(source.top.items()):
            file.write((b",\n" if n else b"{\n") + encode(key) + b":")
            file.write(_value(key, value, kept))
        file.write(b"}\n")


def _value(key: str, value: Raw, kept: Mapping[str, list[bytes]]) -> bytes:
    return b"[" + b",\n".join(kept[key]) + b"]" if key in kept else bytes(value)


def _told(dataset: Dataset, group: NDArray[np.intp], rows: NDArray[np.intp]) -> dict[str, Any]:
    return {
        "images": len(rows),
        "groups": len(np.unique(group[rows])),
        "objects": dict(parts.summary(dataset, rows)),
    }


def _lines(said: Mapping[str, Any]) -> list[str]:
    in_all, largest = count(said["groups"], "group"), count(said["largest_group"], "image")
    lines = [f"{in_all} ({said['group_by']}), the largest of {largest}"]
    for name, told in said["files"].items():
        objects = ", ".join(f"{c} {n}" for c, n in told["objects"].items())
        images, of = count(told["images"], "image"), count(told["groups"], "group")
        lines.append(f"{name}: {images} of {of}; {objects}")
    return [*lines, *said["notes"], f"The images stay where they are: --images-dir {said['images']}"]
