"""The command line that trains one of the small networks that ship, or writes it as it is shipped."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rarefill.errors import RarefillError
from rarefill.generators.train import loop
from rarefill.generators.train.shelf import Shelf, open_shelf


@dataclass(frozen=True, slots=True)
class Start:
    """A network that is trained once and shipped.

    Attributes:
        module: what `python -m` runs.
        what: words for it.
        folder: of the training folder, its checkpoint's.
        window: side of what it is shown in pixels.
        steps: length of the learning rate's cosine unless given.
        train: from pictures, training folder, settings and device; returns all steps done.
        export: from pictures, training folder and the file to write; returns the steps of what was written.
    """

    module: str
    what: str
    folder: str
    window: int
    steps: int
    train: Callable[[Shelf, Path, loop.Settings, str], int]
    export: Callable[[Shelf, Path, Path], int]


def run(start: Start, words: Sequence[str] | None = None) -> int:
    """Train or export. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {start.module}",
        description=f"Train {start.what}, or write it as it is shipped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--pictures", type=Path, required=True, help="folder of pictures, with SOURCES.csv or without"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="training folder: decoded pictures, checkpoint, log"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--minutes", type=float, help="how long this call may train")
    what.add_argument("--to", type=Path, help="file to write")
    parser.add_argument("--until", type=int, help="stop after so many steps in all")
    parser.add_argument("--steps", type=int, default=start.steps, help="length of the learning rate's cosine")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--batch", type=int, default=16, help="pictures a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    try:
        shelf = open_shelf(given.pictures, given.out)
        if given.to:
            step = start.export(shelf, given.out, given.to)
            print(f"{given.to}: {step} steps")  # noqa: T201
            return 0
        names = ("minutes", "until", "steps", "rate", "batch", "seed")
        chosen: dict[str, Any] = {name: getattr(given, name) for name in names}
        settings = loop.Settings(**chosen, window=start.window)
        step = start.train(shelf, given.out, settings, "cuda" if torch.cuda.is_available() else "cpu")
        print(f"{given.out / start.folder}: {step} steps")  # noqa: T201
    except RarefillError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0
