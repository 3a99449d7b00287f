"""layouts.jsonl: a plan as a file that a person can read, edit and run. One layout a line.

    {"image": 7, "file": "a.jpg", "copy": 0, "placements": [{"category": "Platelets", "box": [10, 20, 40, 52],
     "mask": {"size": [32, 30], "counts": "..."}, "shape": {"annotation": 12, "flip": true, "rotation": 3.2},
     "depth": 0, "seed": 123, "prompt": "", "score": 0.9}]}

`image` and `annotation` are the dataset file's own ids. The mask fills the box: who moves or resizes the box moves or
resizes the object. `{"category": ..., "box": ...}` is enough for a placement; a real silhouette is then chosen for it.

`"bend": 0.03, "bend_seed": 7` in a shape bends the silhouette smoothly. `"whole": [-20, 10, 20, 42]` says which box all of the
object fills where the mask shows a part of it: the rest lies beyond the image's edge, or behind the real objects whose
pixels are `spared`. It moves with the box, as `mask.at` says where the mask was. Without a mask, what of the whole lies in the
box is shown.

`"redraws": 12` in place of `shape` repaints the real object with this annotation id where it stands: same label, new look.
`{"redraws": 12}` is enough for it; a mask says which part of the object is repainted.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rarefill import geometry
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.errors import LayoutError
from rarefill.files import writing
from rarefill.geometry import Mask
from rarefill.layouts.planreader import Reader
from rarefill.scene import Goal, Kind, Layout, Placement

_SHOWN = 20


def write_plan(path: Path, dataset: Dataset, layouts: Iterable[Layout]) -> None:
    """Write layouts, one a line, aside and renamed: no reader ever sees half of a plan.

    Raises:
        RunError: the folder is not writable or the disk is full.
    """
    with writing(path) as f:
        for layout in layouts:
            f.write((json.dumps(_line(dataset, layout), ensure_ascii=False) + "\n").encode())


def read_plan(path: Path, dataset: Dataset, bank: Bank) -> tuple[Layout, ...]:
    """The layouts of a file, all of it checked.

    Args:
        path: the file.
        dataset: whose images, categories and annotations it names.
        bank: where silhouettes come from for placements without a mask.

    Raises:
        LayoutError: every problem found, one a line with its place, the first twenty and the count of the rest.
    """
    reader = Reader(dataset, bank)
    layouts = [layout for number, text in _lines(path) if (layout := reader.layout(text, f"line {number}"))]
    _complain(path, reader.problems)
    return tuple(layouts)


def goals_in(path: Path, dataset: Dataset) -> dict[Goal, int]:
    """How many objects of each category a plan asks for, in the dataset's order, new ones before redrawn ones.

    Raises:
        LayoutError: as `read_plan`, as far as it can be told without silhouettes.
    """
    reader = Reader(dataset, None)
    counts: Counter[Goal] = Counter()
    for number, text in _lines(path):
        counts.update(reader.goals(text, f"line {number}"))
    _complain(path, reader.problems)
    goals = (Goal(name, kind) for kind in Kind for name in dataset.names)
    return {goal: counts[goal] for goal in goals if counts[goal]}


def redraws_in(path: Path, dataset: Dataset) -> list[int]:
    """Rows of the annotations that a plan redraws without saying which pixels: the bank has to know their outlines.

    Raises:
        LayoutError: as `goals_in`.
    """
    reader = Reader(dataset, None)
    found = [row for number, text in _lines(path) for row in reader.redraws(text, f"line {number}")]
    _complain(path, reader.problems)
    return [row for row in dict.fromkeys(found) if not dataset.has_mask(row)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as f:
            for number, text in enumerate(f, 1):
                if text.strip():
                    yield number, text
    except OSError as e:
        raise LayoutError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise LayoutError(f"{path}: not UTF-8 text: {e.reason} at byte {e.start}") from e


def _complain(path: Path, problems: list[str]) -> None:
    if not problems:
        return
    shown = [f"{path.name}: {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"{path.name}: and {len(problems) - _SHOWN} more problems")
    raise LayoutError("\n".join(shown))


def _line(dataset: Dataset, layout: Layout) -> dict[str, Any]:
    return {
        "image": int(dataset.images.id[layout.image]),
        "file": dataset.images.file_name[layout.image],
        "copy": layout.copy,
        "placements": [_placement(dataset, p) for p in layout.placements],
    }


def _placement(dataset: Dataset, placement: Placement) -> dict[str, Any]:
    shape, part = placement.shape, placement.whole is not None
    out: dict[str, Any] = {
        "category": placement.category,
        "box": [int(v) for v in placement.box.xyxy],
        "mask": _mask(placement.mask, at=part),
    }
    if placement.whole is not None:
        out["whole"] = [int(v) for v in placement.whole.xyxy]
    if shape is not None:
        out["shape"] = {
            "annotation": int(dataset.annotations.id[shape.annotation]),
            "flip": shape.flip,
            "rotation": shape.rotation_deg,
        }
        if shape.bend:
            out["shape"] |= {"bend": shape.bend, "bend_seed": shape.bend_seed}
    if placement.spared is not None and placement.redraws is None:
        out["spared"] = _mask(placement.spared, at=True)
    if placement.redraws is not None:
        out["redraws"] = int(dataset.annotations.id[placement.redraws])
    return out | {
        "depth": placement.depth,
        "seed": placement.seed,
        "prompt": placement.prompt,
        "score": placement.score,
    }


def _mask(mask: Mask, *, at: bool) -> dict[str, Any]:
    """A mask as a line has it; `at`: with the place of its left top pixel."""
    out = {"size": list(mask.pixels.shape), "counts": geometry.rle_counts(mask.pixels).decode()}
    return {"at": [mask.x, mask.y]} | out if at else out
