"""What the calibrated checker keeps and lets pass on images that had no part in it.

    python benchmarks/calibration.py ../shared                       # three datasets, two models of 700 steps each
    python benchmarks/calibration.py ../shared bccd --steps 300
    python benchmarks/calibration.py ../shared bccd --steps 300 --keep 0.85    # the same models, from the cache
    python benchmarks/calibration.py ../shared aquarium --from-nothing         # without the weights that ship

Fitted and calibrated on the judge's K = 10 split (`train_k10.json`); shown are the real objects of `test.json` and five
kinds of errors planted into its images, at most 100 of each. No model trained on a test image: they take turns, image by
image, as they do for backgrounds. Beside the calibrated threshold stand a fixed one of 0.5 and no check at all, which lets
everything pass; and the same for the detector without its second look. Intervals are exact (95 %). The last column is the
share of pairs, a real object and an error, in which the real one has the higher score (the area under the ROC curve).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from rarefill import bank, console
from rarefill.annotators import bounds, detector, faults, fit, held_back
from rarefill.annotators.calibrate import Standing
from rarefill.annotators.check import Judge
from rarefill.annotators.faults import Kind
from rarefill.annotators.samples import Pictures
from rarefill.dataset import Dataset, load
from rarefill.recipe import CheckerConfig

CASES = {"bccd": "Platelets", "aquarium": "starfish", "hituav": "OtherVehicle"}
KINDS = (Kind.EMPTY, Kind.OTHER, Kind.SHIFTED, Kind.HALF, Kind.NOISE)
MOST = 100
FIXED = 0.5


def split(shelf: Path, name: str, rare: str, out: Path) -> tuple[Dataset, Dataset]:
    """The training and the test part."""
    folder = shelf / "data" / name
    options = f"--rare {rare} --k 10 --train-images 120 --seed 0 --out".split()
    command = [sys.executable, str(shelf / "judge" / "splits.py"), str(folder), *options, str(out)]
    subprocess.run(command, check=True, capture_output=True)
    train, test = (
        load(out / file, folder / "images", check_files=False) for file in ("train_k10.json", "test.json")
    )
    return train, test


def fitted(
    train: Dataset, rare: str, config: CheckerConfig, cache: Path
) -> Iterator[tuple[str, Judge, Standing]]:
    """The models and what they promise: with the second look, and the detector alone."""
    shapes = bank.build(train, [rare], cache=cache)
    progress = console.on_stderr()
    checker = fit.fit(train, shapes, config, seed=0, cache=cache, rare=[rare], progress=progress)
    judge = checker.judge
    assert isinstance(judge, Judge)
    yield "both", judge, next(s for s in checker.table if s.category == rare)
    alone = replace(judge, closer=())
    evidence = held_back.judge_held_back(
        train, alone, Pictures(train), rare=[rare], seed=0, min_overlap=config.min_overlap, progress=progress
    )
    yield "detector", alone, next(s for s in evidence.standings(config) if s.category == rare)


def scores(test: Dataset, judge: Judge, rare: str, config: CheckerConfig) -> dict[str, list[float]]:
    """Per kind what the models say of every place; real objects first."""
    folds = np.arange(len(test.images), dtype=np.int32) % len(judge.models)
    turns, picture, label = replace(judge, fold=folds), Pictures(test), test.category_row(rare)
    found: dict[str, list[float]] = {"real objects": []}
    for row in test.rows_of(rare):
        image = int(test.annotations.image[row])
        seen = turns.look(picture[image], image, test.box(int(row)), label, config.min_overlap)
        found["real objects"].append(seen.standing)
    for kind in KINDS:
        found[kind] = [
            turns.look(f.on(picture[f.image]), f.image, f.box, label, config.min_overlap).standing
            for f in faults.planted(test, rare, kind, MOST, seed=1)
        ]
    return found


def share(held: Sequence[float], level: float) -> str:
    """How many pass, their share and its interval."""
    n, k = len(held), sum(s >= level for s in held)
    low, high = bounds.interval(k, n)
    return f"{k} of {n}: {k / n:.0%} ({low:.0%} to {high:.0%})" if n else "none"


def ahead(real: Sequence[float], errors: Sequence[float]) -> float:
    """How often a real object has the higher score; ties count half."""
    above, below = np.array(real)[:, None], np.array(errors)
    return float(((above > below) + 0.5 * (above == below)).mean())


def lines(name: str, rare: str, arm: str, standing: Standing, found: dict[str, list[float]]) -> Iterator[str]:
    promised = {e.kind: e for e in standing.errors}
    for kind, held in found.items():
        if kind == "real objects":
            asked = f"at least {standing.keeps:.0%}" if standing.keeps else "nothing"
        else:
            asked = f"at most {standing.false_accept:.0%}" if promised[kind].holds else "nothing"
        level = standing.threshold
        cells = (
            f"{name} {rare}",
            arm,
            kind,
            asked,
            share(held, level),
            share(held, FIXED),
            f"{len(held)}: 100%",
            "" if held is found["real objects"] else f"{ahead(found['real objects'], held):.2f}",
        )
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shelf", type=Path, nargs="?", default=os.environ.get("RAREFILL_SHELF", "../shared"))
    parser.add_argument("names", nargs="*", default=list(CASES), help="datasets")
    parser.add_argument("--steps", type=int, default=CheckerConfig().checker_steps)
    parser.add_argument("--keep", type=float, default=CheckerConfig().keep, help="as the recipe's")
    parser.add_argument("--cache", type=Path, default=Path("calibration-cache"), help="models and splits")
    parser.add_argument("--json", type=Path, help="file for every score")
    parser.add_argument("--from-nothing", action="store_true", help="detectors begin with random weights")
    args = parser.parse_args()
    if args.from_nothing:
        detector.build = partial(detector.build, start=False)
        detector.start_digest = lambda: "none"
    config = CheckerConfig(checker_steps=args.steps, keep=args.keep)
    heading = ("class", "looks", "shown", "promised", "calibrated", f"fixed at {FIXED}", "no check", "ahead")
    print(f"| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    kept = {}
    for name in args.names:
        rare = CASES[name]
        train, test = split(args.shelf, name, rare, args.cache / f"split-{name}")
        for arm, judge, standing in fitted(train, rare, config, args.cache):
            began = time.monotonic()
            found = scores(test, judge, rare, config)
            print("\n".join(lines(name, rare, arm, standing, found)), flush=True)
            print(f"{standing}\n{time.monotonic() - began:.0f} s on the test images", file=sys.stderr)
            kept[f"{name} {arm}"] = {"standing": asdict(standing), "scores": found}
        if args.json:
            args.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
