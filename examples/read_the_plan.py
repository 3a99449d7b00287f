"""Make a plan, edit it as a person would, and run it.

python examples/read_the_plan.py annotations.json Platelets out/

A plan is a text file with one background image a line. Here its boxes are counted, the objects of one line are made half
as large again, one more object is asked for by its box alone, and the result is what gets painted.
"""

import json
import sys
from pathlib import Path

from rarefill import console, pipeline, recipe
from rarefill.layouts import write_plan


def main(annotations: Path, category: str, out: Path) -> None:
    """Plan, edit, run."""
    wanted = recipe.resolve(
        {
            "data": annotations,
            "out": out / "run",
            "fill": {category: 12},
            "generator": {"generator": "paste"},  # quick: nothing is adapted
            "annotator": {"checker": "none"},  # what a person placed is believed
        }
    )
    dataset, plan = pipeline.make_plan(wanted)
    path = out / "layouts.jsonl"
    write_plan(path, dataset, plan.layouts)

    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    print(f"planned: {sum(len(line['placements']) for line in lines)} on {len(lines)} images")

    layout, line = next((x, line) for x, line in zip(plan.layouts, lines, strict=True) if x.placements)
    size = int(dataset.images.width[layout.image]), int(dataset.images.height[layout.image])
    for placement in line["placements"]:
        placement["box"] = grown(placement["box"], 1.5, size)
    line["placements"].append({"category": category, "box": [10, 10, 34, 34]})

    edited = out / "edited.jsonl"
    edited.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    summary = pipeline.run(wanted, plan=edited, dataset=dataset, progress=console.on_stderr())
    print(f"painted: {sum(t.made for t in summary.tallies)}; look at {summary.run / 'preview.png'}")


def grown(box: list[int], factor: float, size: tuple[int, int]) -> list[int]:
    """The box, larger about its centre, not beyond the image's edges."""
    x1, y1, x2, y2 = box
    wider, taller = (x2 - x1) * (factor - 1) / 2, (y2 - y1) * (factor - 1) / 2
    width, height = size
    return [
        max(0, round(x1 - wider)),
        max(0, round(y1 - taller)),
        min(width, round(x2 + wider)),
        min(height, round(y2 + taller)),
    ]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
