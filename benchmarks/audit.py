"""Label errors before and after the annotator, from one audit by eye.

    rarefill generate train_k10.json --fill starfish=100 --generator compact --checker none --untouched 0 --out RUN
    rarefill audit RUN                                        # look at all of them, download the answers
    python benchmarks/audit.py RUN answers.json

The run took every paint, so that the eyes judged what no checker had chosen. The checker is fitted to the run's data (or read
from the cache) and looks at the same paints in the same boxes: what it accepts is "after". Repair is not part of it: a
refused paint counts as gone. Intervals are exact (95 %).
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rarefill import audit, bank, console, pictures, pipeline
from rarefill import recipe as recipes
from rarefill.annotators.check import reason
from rarefill.annotators.fit import fit
from rarefill.places import cache_folder
from rarefill.recipe import CheckerConfig
from rarefill.rundir import RunDir
from rarefill.scene import Reason


def line(name: str, answers: Sequence[str]) -> str:
    """Counts and rates of some objects."""
    counts = Counter(answers)
    ones = np.ones(len(answers))
    label = audit.rate(np.array([a in audit.LABEL_ERRORS for a in answers]), ones)
    any_ = audit.rate(np.array([a != audit.RIGHT for a in answers]), ones)
    cells = (name, len(answers), *(counts[a] for a in audit.ANSWERS), label, any_)
    return f"| {' | '.join(str(c).strip() for c in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument(
        "--steps", type=int, default=CheckerConfig().checker_steps, help="of the checker's fit"
    )
    parser.add_argument("--keep", type=float, default=CheckerConfig().keep, help="as the recipe's")
    args = parser.parse_args()
    run, progress = RunDir(args.run), console.on_stderr()
    dataset = pipeline.open_dataset(
        recipes.resolve(recipes.read(run.recipe), where=str(run.recipe)), progress
    )
    answers, _, _ = audit.answers_of(args.answers, audit.identity(run))
    items = [item for item in audit.painted(run, dataset) if item.id in answers]
    rare = sorted({item.category for item in items})
    config, cache = CheckerConfig(checker_steps=args.steps, keep=args.keep), cache_folder(args.cache)
    shapes = bank.build(dataset, rare, cache=cache)
    checker = fit(dataset, shapes, config, seed=0, cache=cache, rare=rare, progress=progress)
    table = {s.category: s for s in checker.table}
    backgrounds = {s.file_name: s.image for s in run.samples(dataset)}
    verdicts = {}
    for item in items:
        pixels = pictures.read(run.images / item.file)
        row = dataset.category_row(item.category)
        seen = checker.judge.look(pixels, backgrounds[item.file], item.box, row, config.min_overlap)
        verdicts[item.id] = reason(seen, table[item.category])
    print("| | objects | right | box off | wrong class | bad picture | label error | any error |")
    print("|---|---|---|---|---|---|---|---|")
    for name in rare:
        here = [item.id for item in items if item.category == name]
        held = [i for i in here if verdicts[i] in (Reason.ACCEPTED, Reason.UNCHECKED)]
        print(line(f"{name}, before", [answers[i] for i in here]))
        print(line(f"{name}, accepted", [answers[i] for i in held]))
        print(line(f"{name}, refused", [answers[i] for i in here if i not in held]))
        print(f"{table[name]}; {dict(Counter(str(verdicts[i]) for i in here))}")


if __name__ == "__main__":
    main()
