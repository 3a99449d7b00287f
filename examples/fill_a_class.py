"""Fill one rare class: what `rarefill generate` does, from Python.

python examples/fill_a_class.py annotations.json Platelets 60 out/
"""

import sys
from pathlib import Path

from rarefill import console, pipeline, recipe
from rarefill.dataset import load


def main(annotations: Path, category: str, count: int, out: Path) -> None:
    """Load, fill, say what came of it."""
    data = load(annotations)
    print(f"{len(data.images)} images, {len(data.annotations)} annotations")

    wanted = recipe.resolve(
        {
            "data": annotations,
            "out": out,
            "fill": {category: count},
            "layout": {"max_overlap": 0.05},  # keep clear of what is there already
        }
    )
    summary = pipeline.run(wanted, dataset=data, progress=console.on_stderr())

    for tally in summary.tallies:
        print(f"{tally.category}: {tally.made} of {tally.asked} made, {tally.paints} paints needed")
    print(f"labels for training: {summary.run / 'merged.json'}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
