"""The studies of docs/proof.md, beyond what `rarefill evaluate` does by itself.

    python benchmarks/proof.py judge   --judge FOLDER --steps 450 --train {train} --train-images {train_images} \
        --test {test} --test-images {test_images} --seed {seed} --out {out}
    python benchmarks/proof.py placebo --out F
    python benchmarks/proof.py verdicts
    python benchmarks/proof.py swaps --train TRAIN --oracle ORACLE --images FOLDER --rare NAME --planned STUDY/made/0/paste --out F
    python benchmarks/proof.py table STUDY [STUDY ...]

`judge` is a --command for `rarefill evaluate`: it trains the judge (judge.py of the shelf) and writes its detections, so that test
images can be resampled. judge.py alone is a --command too; it writes AP only, and intervals then come from the seeds alone.

`placebo` renders blood smears and asks whether the study's verdict can be trusted: new pictures without any new object,
new pictures with shuffled labels, and an oracle in the place of a generator. `verdicts` asks the same of the statistics alone,
over many studies with made-up figures. `swaps` makes run folders in which one stage each is an oracle's. `table` prints studies
as Markdown, every training in it.
"""

import argparse
import importlib
import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

SHELF = Path(os.environ.get("RAREFILL_SHELF", Path(__file__).parents[1].parent / "shared"))


def judge(given: argparse.Namespace, more: list[str]) -> None:
    """Train the judge, and write what it finds on the test."""
    sys.path.insert(0, str(given.judge))
    module: Any = importlib.import_module("judge")
    detect, kept = module.detect, []

    def keeping(*args: Any) -> list[dict[str, Any]]:
        kept[:] = detect(*args)
        return list(kept)

    module.detect = keeping
    sys.argv = ["judge.py", *more]
    with redirect_stdout(io.StringIO()):
        module.main()
    rows = [
        row | {"bbox": [round(v, 2) for v in row["bbox"]], "score": round(row["score"], 5)} for row in kept
    ]
    given.out.write_text(json.dumps(rows))


def placebo(given: argparse.Namespace, more: list[str]) -> None:
    """The verdicts on what cannot help, and on what must."""
    if more:
        raise SystemExit(f"placebo does not know {' '.join(more)}")
    from proofs import placebo as study

    study.run(given.out, steps=given.steps, seeds=given.seeds, size_px=given.size, batch=given.batch)


def verdicts(given: argparse.Namespace, more: list[str]) -> None:
    """How often the verdict is right."""
    if more:
        raise SystemExit(f"verdicts does not know {' '.join(more)}")
    from proofs import verdicts as study

    study.run(given.studies)


def swaps(given: argparse.Namespace, more: list[str]) -> None:
    """Run folders, one stage of each an oracle's."""
    if more:
        raise SystemExit(f"swaps does not know {' '.join(more)}")
    from proofs import swaps as study

    study.run(given.train, given.oracle, given.images, given.rare, given.planned, given.out)


def table(given: argparse.Namespace, more: list[str]) -> None:
    """Studies as Markdown."""
    if more:
        raise SystemExit(f"table does not know {' '.join(more)}")
    from proofs import tables

    print("\n\n".join(tables.show(folder) for folder in given.studies))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", required=True)
    one = commands.add_parser("judge", help="a --command that writes the judge's detections")
    one.add_argument("--judge", type=Path, default=SHELF / "judge")
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(work=judge)
    one = commands.add_parser("placebo", help="verdicts on rendered data, where the truth is known")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--steps", type=int, default=400)
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--size", type=int, default=320)
    one.add_argument("--batch", type=int, default=8)
    one.set_defaults(work=placebo)
    one = commands.add_parser("verdicts", help="how often the verdict is right, on made-up figures")
    one.add_argument("--studies", type=int, default=400)
    one.set_defaults(work=verdicts)
    one = commands.add_parser("swaps", help="run folders in which one stage is an oracle's")
    for name in ("train", "oracle", "images", "planned", "out"):
        one.add_argument(f"--{name}", type=Path, required=True)
    one.add_argument("--rare", required=True)
    one.set_defaults(work=swaps)
    one = commands.add_parser("table", help="studies as Markdown, every training in it")
    one.add_argument("studies", type=Path, nargs="+")
    one.set_defaults(work=table)
    given, more = parser.parse_known_args()
    given.work(given, more)


if __name__ == "__main__":
    main()
