"""How near painted objects come to real ones that no part of rarefill has seen. docs/fidelity.md explains each figure.

    python benchmarks/fidelity.py split   --out F
    python benchmarks/fidelity.py paint   --out F --case bccd/Platelets --arm paste --n 200
    python benchmarks/fidelity.py paint   --out F --case bccd/Platelets --arm compact --n 200 --option steps=12
    python benchmarks/fidelity.py measure --out F --case bccd/Platelets
    python benchmarks/fidelity.py sheets  --out F --case bccd/Platelets
    python benchmarks/fidelity.py table   --out F

Everything of a case stands in F/DATASET/CLASS: split/, a folder for each arm, figures.json, sheet.png, blind-ARM.png.
Needs a folder of real datasets (--shelf, or $RAREFILL_SHELF) and the judge: splits.py, judge.py and a detector's weights.
"""

import os

# Waiting threads sleep: on a machine that others use, they would only take the others' time.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from proofs import cases, figures, paints, report, sheets
from proofs.cases import Desk
from proofs.paints import Paints

from rarefill import files, windows
from rarefill.console import on_stderr
from rarefill.errors import RarefillError


def split(given: argparse.Namespace) -> None:
    for desk in cases.desks(given):
        sides = cases.make(desk)
        print(
            f"{desk.case}: {len(sides.train)} images to paint from, {len(sides.test)} held out, "
            f"{len(sides.other)} others; no image or sequence on two sides"
        )


def paint(given: argparse.Namespace) -> None:
    for desk in cases.desks(given):
        cases.make(desk)
        folder = desk.folder / (given.name or given.arm)
        words = [*given.option, *([f"checker={given.checker}"] if given.checker else [])]
        asked = paints.resolved(desk, folder, given.arm, given.n, words, given.seed)
        found = paints.paint(desk, folder, asked, on_stderr())
        print(f"{desk.case}: {len(found)} windows of painted objects in {folder}")


def measure(given: argparse.Namespace) -> None:
    for desk in cases.desks(given):
        arms = _arms(desk, given.arm)
        path = desk.folder / "figures.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        found = {k: v for k, v in before.items() if k in given.skip}
        found |= figures.measure(desk, arms, splits=given.splits, skip=given.skip)
        files.write_bytes(path, (json.dumps(found, indent=2) + "\n").encode())
        print(report.table([found]))


def sheet(given: argparse.Namespace) -> None:
    for desk in cases.desks(given):
        own = figures.real(desk)
        painted = {n: Paints.load(folder).windows for n, folder in _arms(desk, given.arm).items()}
        sheets.write(
            desk.folder / "sheet.png", sheets.side_by_side(str(desk.case), {"real": own.held, **painted})
        )
        untouched = windows.joined([own.held, own.other])
        for name, some in (painted | {"none": own.other}).items():
            title = f"{desk.case}: which of these are painted?"
            real = own.held if name == "none" else untouched
            drawn, key = sheets.blind(title, real, some, seed=given.seed)
            sheets.write(desk.folder / f"blind-{name}.png", drawn)
            lines = "".join(f"{n} {kind} {row}\n" for n, kind, row in key)
            files.write_bytes(desk.folder / f"blind-{name}.txt", lines.encode())
        print(
            f"{desk.case}: {desk.folder / 'sheet.png'}, a blind sheet with its key for each arm, and blind-none.png, "
            "of two kinds of real windows"
        )


def table(given: argparse.Namespace) -> None:
    found = [desk.folder / "figures.json" for desk in cases.desks(given)]
    print(report.table([json.loads(path.read_text()) for path in found if path.exists()]))


def _arms(desk: Desk, names: list[str]) -> dict[str, Path]:
    """Folders of the arms named, or of all that were painted."""
    found = sorted(p.parent.name for p in desk.folder.glob("*/paints.npz"))
    order = sorted(names or found, key=lambda n: (n != "paste", n))
    if not order:
        raise SystemExit(f"{desk.folder} has no paints; run 'fidelity.py paint' first")
    return {name: desk.folder / name for name in order}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, work: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=help)
        cases.arguments(one)
        one.set_defaults(work=work)
        return one

    command("split", split, "ten images of the rare class to learn from, others held out")
    one = command("paint", paint, "run the product on the ten, and cut windows of what it painted")
    one.add_argument("--arm", required=True, help="the generator: paste or compact")
    one.add_argument("--name", help="of the arm's folder, for a variant; by default the generator's")
    one.add_argument("--n", type=int, default=200, help="objects")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--checker", choices=("fitted", "none"), help="none: no word of the product's checker")
    one.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the recipe")
    one = command("measure", measure, "all figures of what was painted")
    one.add_argument(
        "--arm", action="append", default=[], help="only these; by default all that were painted"
    )
    one.add_argument("--splits", type=int, default=5, help="of the seam classifier, each used both ways")
    one.add_argument(
        "--skip",
        action="append",
        default=[],
        choices=("kid", "copies", "seams", "acceptance"),
        help="keep what was measured before",
    )
    one = command("sheets", sheet, "real and painted side by side, and blind")
    one.add_argument("--arm", action="append", default=[], help="only these")
    one.add_argument("--seed", type=int, default=0, help="draws the blind sheet's order")
    command("table", table, "the figures of all cases")
    return parser


def main() -> None:
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    try:
        given.work(given)
    except RarefillError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
