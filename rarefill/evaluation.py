"""How well a detector knows each category: per-class AP, read from the files that evaluators write.

JSON may be
    {"Platelets": 0.374, "RBC": 0.61}                                   names and figures
    {"per_class": {...}}, {"classes": {"RBC": {"AP": 0.61, ...}}}       the same, under a key, among other things
    [{"Class": "RBC", "mAP50-95": 0.61, ...}, ...]                      a table, alone or under such a key
    {"classes": [1, 3], "map_per_class": [0.61, 0.37]}                  torchmetrics; numbers are category ids
    {"bbox": {"AP": 48.9, "AP-RBC": 61.0, "AP-Platelets": 37.4}}        detectron2
and CSV a table with a column of names and a column of AP, as Ultralytics writes it.

Figures are percent when one of them is above 1, else shares. -1, NaN and null mean that nothing was measured (no
object of the category in the test data). Rows and keys that are figures of all categories ("all", "AP50", "map") are
passed over.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarefill.dataset import Dataset, unknown_name
from rarefill.errors import DataError, shown

NAMES = ("class", "category", "name", "label", "class_name", "category_name", "classes", "categories")
"""Columns that name the category, the first that is there."""
FIGURES = (
    *("AP", "AP50-95", "AP50:95", "mAP50-95", "mAP50:95", "mAP_50_95", "mAP@0.5:0.95", "mAP@[.5:.95]", "mAP"),
    *("map_per_class", "box_map", "average_precision", "AP50", "mAP50", "mAP@0.5", "mAP@50", "AP@0.5"),
)
"""Columns that hold the AP, over IoU 0.5 to 0.95 before that at 0.5, the first that is there."""
TABLES = ("per_class", "per_category", "class_ap", "ap_per_class", "classes", "categories", "results", "bbox")
"""Keys under which a document may hold its table."""
OVERALL = frozenset(["all", "mean", "average", "overall", "total", "map", "ar", "ap", "macro", "background"])
"""Rows that are no category, unless the dataset has one of that name."""
_PREFIX = "AP-"  # detectron2's
_SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an evaluator says of a dataset's categories.

    Attributes:
        where: the file's name.
        measure: what it calls the figures, such as "mAP50-95".
        ap: by category, from 0 to 1, in the dataset's order; those that were measured.
        missing: the dataset's other categories.
        percent: whether the file's figures are percent.
    """

    where: str
    measure: str
    ap: Mapping[str, float]
    missing: tuple[str, ...]
    percent: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """One figure as it stands in the file."""

    place: str
    name: Any
    figure: Any


def read(path: Path, dataset: Dataset) -> Evaluation:
    """The per-class AP in a JSON or CSV file.

    Args:
        path: the file.
        dataset: whose categories it names.

    Raises:
        DataError: every problem found, one a line with its place, what was wanted and what came, the first twenty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not UTF-8 text: {e.reason} at byte {e.start}") from e
    start = text.lstrip()[:1]
    measure, entries = _json(text, path.name, dataset) if start in {"{", "["} else _csv(text, path.name)
    return _checked(path.name, measure, entries, dataset)


def _json(text: str, where: str, dataset: Dataset) -> tuple[str, list[_Entry]]:
    try:
        value = json.loads(text)
    except ValueError as e:
        raise DataError(f"{where}: not JSON: {e}") from None
    found = _found(value, "", dataset)
    if found is None:
        kind = "a COCO file of detections or annotations" if _is_coco(value) else shown(value)
        raise DataError(
            f"{where}: expected AP by category, like {{{json.dumps(dataset.names[0])}: 0.41}} or "
            f"{{'per_class': ...}}, got {kind}"
        )
    return found


def _found(value: Any, place: str, dataset: Dataset) -> tuple[str, list[_Entry]] | None:
    """The table that a JSON value is or holds, with what its figures are called."""
    if isinstance(value, list):
        return _rows(value, place)
    if not isinstance(value, dict):
        return None
    pair = _torchmetrics(value, place)
    if pair is not None:
        return pair
    if not any(name in value for name in dataset.names):
        for key in TABLES:
            inner = _found(value[key], f"{place}{key}", dataset) if key in value else None
            if inner is not None:
                return inner
    return _mapping(value, place)


def _mapping(value: Mapping[str, Any], place: str) -> tuple[str, list[_Entry]] | None:
    """Names to figures, or to rows with a figure."""
    dot = f"{place}." if place else ""
    ours = {k.removeprefix(_PREFIX): v for k, v in value.items() if k.startswith(_PREFIX)} or value
    if all(isinstance(v, dict) for v in ours.values()) and ours:
        figure = next((f for row in ours.values() if (f := _column(row, FIGURES))), None)
        if figure is None:
            return None
        return figure, [_Entry(f"{dot}{k}.{figure}", k, v.get(figure)) for k, v in ours.items()]
    plain = {k: v for k, v in ours.items() if not isinstance(v, dict | list)}
    if not plain or _is_coco(value):
        return None
    return "AP", [_Entry(f"{dot}{k}", k, v) for k, v in plain.items()]


def _rows(value: Sequence[Any], place: str) -> tuple[str, list[_Entry]] | None:
    """A table: rows that name a category and have a figure."""
    if not value or not all(isinstance(row, dict) for row in value):
        return None
    name, figure = _column(value[0], NAMES), _column(value[0], FIGURES)
    if name is None or figure is None:
        return None
    entries = [
        _Entry(f"{place}[{i}].{figure}", row.get(name), row.get(figure)) for i, row in enumerate(value)
    ]
    return figure, entries


def _torchmetrics(value: Mapping[str, Any], place: str) -> tuple[str, list[_Entry]] | None:
    if "map_per_class" not in value or "classes" not in value:
        return None
    of, figures = value["classes"], value["map_per_class"]
    if not isinstance(of, list) or not isinstance(figures, list) or len(of) != len(figures):
        raise DataError(
            f"{place or 'map_per_class'}: expected one figure for each of 'classes', got {shown(figures)} for "
            f"{shown(of)}; torchmetrics gives them with class_metrics=True"
        )
    pairs = enumerate(zip(of, figures, strict=True))
    return "map_per_class", [_Entry(f"map_per_class[{i}]", name, figure) for i, (name, figure) in pairs]


def _csv(text: str, where: str) -> tuple[str, list[_Entry]]:
    head = text.split("\n", 1)[0]
    mark = max(",;\t", key=head.count)
    rows = list(csv.reader(io.StringIO(text), delimiter=mark, skipinitialspace=True))
    columns = [c.strip() for c in rows[0]] if rows else []
    name, figure = _column(columns, NAMES), _column(columns, FIGURES)
    if name is None or figure is None:
        raise DataError(
            f"{where}: line 1: expected a column of names ({', '.join(NAMES[:4])}) and one of AP "
            f"(AP, mAP50-95, mAP50), got {shown(columns)}"
        )
    at, of = columns.index(name), columns.index(figure)
    entries = []
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(at, of):
            raise DataError(f"{where}: line {number}: expected {len(columns)} columns, got {len(row)}")
        entries.append(_Entry(f"line {number}: {figure}", row[at].strip(), _number(row[of].strip())))
    return figure, entries


def _number(text: str) -> float | str | None:
    """A cell's figure: None for an empty one, the text itself for what is no number."""
    try:
        return float(text.removesuffix("%")) if text else None
    except ValueError:
        return text


def _checked(where: str, measure: str, entries: Sequence[_Entry], dataset: Dataset) -> Evaluation:
    ids = {c.id: c.name for c in dataset.categories}
    problems: list[str] = []
    figures: dict[str, tuple[str, float]] = {}
    for entry in entries:
        name = ids.get(entry.name) if _whole(entry.name) else entry.name
        if name not in dataset.names:
            if not _overall(entry.name):
                problems.append(f"{entry.place}: {_unknown(entry.name, dataset)}")
        elif name in figures:
            problems.append(f"{entry.place}: {name!r} has a figure at {figures[name][0]} already; drop one")
        elif not isinstance(entry.figure, int | float | None) or isinstance(entry.figure, bool):
            problems.append(
                f"{entry.place}: expected an AP from 0 to 1 or 0 to 100, got {shown(entry.figure)}"
            )
        else:
            figure = math.nan if entry.figure in (None, -1) else float(entry.figure)
            figures[name] = (entry.place, figure)
            if not math.isnan(figure) and not 0 <= figure <= 100:
                problems.append(f"{entry.place}: expected an AP from 0 to 1 or 0 to 100, got {entry.figure}")
    if problems:
        rest = [f"and {len(problems) - _SHOWN} more problems"] if len(problems) > _SHOWN else []
        raise DataError("\n".join(f"{where}: {problem}" for problem in [*problems[:_SHOWN], *rest]))
    known = {name: figures[name][1] for name in dataset.names if not math.isnan(figures.get(name, _NONE)[1])}
    if not known:
        raise DataError(f"{where}: no category of {dataset.path.name} has an AP in it")
    percent = max(known.values()) > 1 + 1e-6
    ap = {name: v / 100 if percent else min(1.0, v) for name, v in known.items()}
    return Evaluation(where, measure, ap, tuple(n for n in dataset.names if n not in ap), percent)


_NONE = ("", math.nan)


def _unknown(name: Any, dataset: Dataset) -> str:
    if isinstance(name, str):
        return unknown_name(name, dataset.names, dataset.path.name)
    if not _whole(name):
        return f"expected a category's name, got {shown(name)}"
    return f"no category has id {name} in {dataset.path.name}; it has {shown([c.id for c in dataset.categories])}"


def _overall(name: Any) -> bool:
    """Whether a row or key is a figure of all categories: "all", "mAP50", "AP_small", "AR@100"."""
    if not isinstance(name, str):
        return False
    word = name.strip().lower()
    stem = word.lstrip("m") if word.startswith("ma") else word
    return word in OVERALL or (stem[:2] in {"ap", "ar"} and not stem[2:3].isalpha()) or word in _STATS


_STATS = frozenset({"aps", "apm", "apl", "ars", "arm", "arl"})


def _column(row: Mapping[str, Any] | Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first wanted column that a row has, as the row spells it."""
    held = {_plain(key): key for key in reversed(list(row))}
    return next((held[_plain(name)] for name in wanted if _plain(name) in held), None)


def _plain(name: Any) -> str:
    return "".join(c for c in str(name).lower() if c not in " _-:@[]().").removeprefix("box")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_coco(value: Any) -> bool:
    """Detections ([{"image_id": ...}]) or a dataset ({"images": ..., "annotations": ...})."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict) and "image_id" in value[0]
    return isinstance(value, dict) and "annotations" in value
