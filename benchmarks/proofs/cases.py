"""The cases: a dataset, its rare class, and the split that keeps test images away from all that is painted from."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rarefill.dataset import Dataset, load

K = 10
"""Real images of the rare class that the generator may learn from, unless --k says otherwise."""
SHELF = Path(os.environ.get("RAREFILL_SHELF", Path(__file__).parents[2].parent / "shared"))


@dataclass(frozen=True, slots=True)
class Case:
    """One dataset with its rare class.

    Attributes:
        dataset: a folder of the shelf's data/.
        rare: the class.
        size: side of the detector's input in pixels, and
        steps: of its training, as the judge's own notes give them.
    """

    dataset: str
    rare: str
    size: int = 320
    steps: int = 450

    def __str__(self) -> str:
        return f"{self.dataset}/{self.rare}"


CASES = {
    str(case): case
    for case in (
        Case("bccd", "Platelets"),
        Case("bccd", "WBC"),
        Case("hituav", "OtherVehicle", size=416, steps=300),
        Case("aquarium", "starfish"),
        Case("sen2ships", "vessel"),
    )
}


@dataclass(frozen=True, slots=True)
class Desk:
    """Where everything of one case stands.

    Attributes:
        case: which.
        out: the folder of all cases.
        shelf: real datasets are in its data/.
        judge: folder of splits.py, judge.py and weights/.
        threads: torch's.
        k: real images of the rare class to learn from.
    """

    case: Case
    out: Path
    shelf: Path
    judge: Path
    threads: int
    k: int = K

    @property
    def folder(self) -> Path:
        return self.out / self.case.dataset / self.case.rare

    @property
    def split(self) -> Path:
        return self.folder / "split"

    @property
    def train(self) -> Path:
        """The COCO file that a generator and its checker may read; nothing else of the dataset."""
        return self.split / f"train_k{self.k}.json"

    @property
    def data(self) -> Path:
        return self.shelf / "data" / self.case.dataset

    @property
    def pictures(self) -> Path:
        return self.data / "images"

    def whole(self) -> Dataset:
        """The whole real dataset, for measuring only."""
        return load(self.data / "annotations.json", self.pictures, lenient=True)

    def module(self, name: str) -> ModuleType:
        """One of the judge's own modules."""
        if not (self.judge / f"{name}.py").exists():
            raise SystemExit(f"{self.judge}: no {name}.py; give the judge's folder as --judge")
        if str(self.judge) not in sys.path:
            sys.path.insert(0, str(self.judge))
        return importlib.import_module(name)


def desks(given: argparse.Namespace) -> list[Desk]:
    """The cases that the arguments name; all of them when they name none."""
    chosen = given.case or list(CASES)
    return [Desk(CASES[name], given.out, given.shelf, given.judge, given.threads, given.k) for name in chosen]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What every command takes."""
    add = parser.add_argument
    add("--case", action="append", choices=sorted(CASES), help="DATASET/CLASS, more than once; else all")
    add("--out", type=Path, required=True, help="folder of all splits, runs and figures")
    add("--shelf", type=Path, default=SHELF, help="real datasets are in its data/ ($RAREFILL_SHELF)")
    add("--judge", type=Path, default=SHELF / "judge", help="splits.py, judge.py and weights/ are here")
    add("--threads", type=int, default=1, help="torch's")
    add("--k", type=int, default=K, help="real images of the rare class to learn from; each its own --out")


@dataclass(frozen=True, slots=True)
class Sides:
    """Ids of images. No image is on two sides.

    Attributes:
        train: what is painted from and painted on.
        test: held out: no generator, checker or detector sees them.
        other: the rest: the independent detector trains on them as well.
    """

    train: frozenset[int]
    test: frozenset[int]
    other: frozenset[int]


def make(desk: Desk) -> Sides:
    """Split a dataset with the judge's splits.py, unless that was done, and write what the detector trains on."""
    if not desk.train.exists():
        command = [sys.executable, str(desk.judge / "splits.py"), str(desk.data)]
        command += ["--rare", desk.case.rare, "--k", str(desk.k), "--out", str(desk.split)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = sides(desk)
    coco = json.loads((desk.data / "annotations.json").read_text())
    kept = found.train | found.other
    coco["images"] = [i for i in coco["images"] if i["id"] in kept]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    (desk.split / "real.json").write_text(json.dumps(coco))
    return found


def sides(desk: Desk) -> Sides:
    """The sides of a split that was made, checked again: nothing that is painted from may be held out.

    Raises:
        SystemExit: there is no split, or an image, or two frames of one sequence, are on both sides.
    """
    if not desk.train.exists():
        raise SystemExit(f"{desk.train} is not there; run 'fidelity.py split' first")
    everything = _images(desk.data / "annotations.json")
    train, test = (frozenset(_images(p)) for p in (desk.train, desk.split / "test.json"))
    groups = sequences(desk)
    check(train, test, groups)
    return Sides(train, test, frozenset(everything) - train - test)


def check(train: frozenset[int], test: frozenset[int], groups: dict[int, Any]) -> None:
    """Refuse a split whose held-out images, or whose held-out sequences, are also painted from.

    Raises:
        SystemExit: they are.
    """
    both = train & test
    if both:
        raise SystemExit(
            f"{len(both)} images are painted from and held out as well, the first is {min(both)}"
        )
    shared = {groups[i] for i in train} & {groups[i] for i in test}
    if shared:
        raise SystemExit(
            f"{len(shared)} sequences are painted from and held out as well: {sorted(map(str, shared))[:3]}"
        )


def sequences(desk: Desk) -> dict[int, Any]:
    """Image id -> the sequence of frames it belongs to; of itself where a dataset has none."""
    splits = desk.module("splits")
    images = list(_images(desk.data / "annotations.json").values())
    found: dict[int, Any] = splits.group_of(desk.data, images, splits.PRESETS.get(desk.case.dataset))
    return found


def numbered(groups: dict[int, Any]) -> dict[int, int]:
    """Image id -> a number for its sequence."""
    order = {name: n for n, name in enumerate(sorted({str(g) for g in groups.values()}))}
    return {image: order[str(g)] for image, g in groups.items()}


def _images(path: Path) -> dict[int, dict[str, Any]]:
    return {i["id"]: i for i in json.loads(path.read_text())["images"]}
