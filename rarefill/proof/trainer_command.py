"""Any trainer, by its command line: it reads COCO files and writes detections, or AP by category.

    python train.py --train {train} --images {train_images} --test {test} --test-images {test_images} --seed {seed} --out {out}

`{train}` is a COCO file whose images stand in `{train_images}`, an entry for each time that an image is to be seen; so
a fixed number of epochs is a fixed number of steps for every arm. `{out}` is the JSON file to write: COCO's results
(a list of image_id, category_id, bbox, score), or AP by category in any form that `rarefill gaps --evaluation` reads.
"""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

from rarefill import evaluation
from rarefill.dataset import Dataset
from rarefill.errors import DataError, RunError, UsageError, shown
from rarefill.exporters import original
from rarefill.files import write_bytes
from rarefill.progress import Bar
from rarefill.proof import mix
from rarefill.proof.score import Detection
from rarefill.proof.study import Figures
from rarefill.proof.trainers import Answer, Task

PLACES = ("train", "train_images", "test", "test_images", "out", "seed")
_NEEDED = ("train", "out")


class Command:
    """An external trainer."""

    def __init__(self, command: str) -> None:
        """Take a command line.

        Raises:
            UsageError: it cannot be split into words, or lacks a placeholder.
        """
        try:
            self._words = shlex.split(command)
        except ValueError as e:
            raise UsageError(f"--command: {e}: {command!r}") from None
        missing = [name for name in _NEEDED if f"{{{name}}}" not in command]
        if missing or not self._words:
            raise UsageError(
                f"--command lacks {{{missing[0] if missing else 'train'}}}; it takes "
                + ", ".join(f"{{{name}}}" for name in PLACES)
            )
        self._command = command

    @property
    def words(self) -> str:
        """The command, for people."""
        return f"command: {self._command}"

    @property
    def steps(self) -> int:
        """A command counts as one."""
        return 1

    def identity(self) -> dict[str, Any]:
        """What the answers follow from, as far as anyone knows."""
        return {"trainer": "command", "command": self._command}

    def run(self, task: Task, bar: Bar) -> Answer:
        """Write the list, run the command, read what it wrote.

        Raises:
            RunError: it failed, or wrote nothing; the message has its last words, `command.log` all of them.
            DataError: what it wrote is neither detections nor AP.
        """
        train, images = mix.write(task.mix, task.folder)
        out = task.folder / "out.json"
        out.unlink(missing_ok=True)
        places = {
            "train": train,
            "train_images": images,
            "test": _coco(task),
            "test_images": task.test.root.resolve(),
            "out": out,
            "seed": task.seed,
        }
        words = [_filled(word, places) for word in self._words]
        log = task.folder / "command.log"
        try:
            with log.open("wb") as file:
                done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False)  # noqa: S603
        except OSError as e:
            raise RunError(f"--command: {words[0]}: {e.strerror or e}") from e
        said = log.read_text(errors="replace").strip().splitlines()
        if done.returncode or not out.exists():
            what = f"ended with code {done.returncode}" if done.returncode else f"wrote no {out.name}"
            raise RunError(f"--command {what}; its last words: {said[-1] if said else '(none)'}; all: {log}")
        bar.advance(1)
        return read(out, task.test)


def _coco(task: Task) -> Path:
    """The test part as a COCO file: its own, or of YOLO what one would say of it."""
    if task.test.format == "coco":
        return task.test.path.resolve()
    path = task.folder / "test.json"
    write_bytes(path, original.as_coco(task.test))
    return path


def _filled(word: str, places: dict[str, Any]) -> str:
    for name, value in places.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word


def read(path: Path, test: Dataset) -> Answer:
    """What a trainer wrote.

    Raises:
        DataError: neither detections nor AP by category.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as e:
        raise DataError(f"{path}: not JSON: {e}") from None
    if isinstance(value, list) and (not value or (isinstance(value[0], dict) and "image_id" in value[0])):
        known = set(test.images.id.tolist()), {c.id for c in test.categories}
        return Answer([_detection(row, n, known, path) for n, row in enumerate(value)])
    held = evaluation.read(path, test)
    return Answer(None, {name: Figures(AP=ap) for name, ap in held.ap.items()})


def _detection(row: Any, n: int, known: tuple[set[int], set[int]], path: Path) -> Detection:
    try:
        box = [float(v) for v in row["bbox"]]
        found: Detection = {
            "image_id": int(row["image_id"]),
            "category_id": int(row["category_id"]),
            "bbox": box,
            "score": float(row["score"]),
        }
    except (KeyError, TypeError, ValueError):
        found, box = {"image_id": -1, "category_id": -1, "bbox": [], "score": 0.0}, []
    if len(box) != 4:
        raise DataError(
            f"{path}: [{n}]: expected image_id, category_id, bbox of four numbers and score, got {shown(row)}"
        )
    if found["image_id"] not in known[0] or found["category_id"] not in known[1]:
        raise DataError(f"{path}: [{n}]: the test part has no such image or category id, got {shown(row)}")
    return found
