"""An audit: a sample of a run's painted objects for eyes, and what the answers say of all of them.

The sample is stratified by category, score and size; the answers are weighted back to the run. Which objects are asked
follows from the run, the number and the seed alone, so a file of answers needs to name no more than these.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rarefill.dataset import Dataset
from rarefill.errors import DataError, RunError, UsageError, shown
from rarefill.geometry import Box, Mask
from rarefill.rundir import RunDir
from rarefill.scene import Kind

RIGHT, BOX_OFF, WRONG_CLASS, BAD_PICTURE = ANSWERS = ("right", "box off", "wrong class", "bad picture")
"""What a person says of one object, in the order of the keys 1 to 4."""
LABEL_ERRORS: Final = (BOX_OFF, WRONG_CLASS)
SAMPLE: Final = 200
THIRDS: Final = 3
"""Strata of score and of size in each category."""
_KEY = "rarefill_audit"


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One painted object.

    Attributes:
        id: names it in the run: its file and its place among the file's objects.
        category: as labelled.
        file: of the image, under the run's `images/`.
        box: as labelled.
        mask: its pixels, None where the run keeps none.
        score: the checker's, None where it did not judge.
        kind: new, or redrawn in place.
    """

    id: str
    category: str
    file: str
    box: Box
    mask: Mask | None = None
    score: float | None = None
    kind: Kind = Kind.NEW


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A sample.

    Attributes:
        items: those to look at, in the order of looking, which says nothing.
        stratum: of each, an index into `sizes`.
        sizes: how many objects of the run each stratum holds.
        seed: that named the sample.
        asked: how many were wanted.
    """

    items: tuple[Item, ...]
    stratum: tuple[int, ...]
    sizes: tuple[int, ...]
    seed: int
    asked: int


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of objects, with its interval.

    Attributes:
        share: weighted to the run, 0 to 1.
        low: of the 95 % interval.
        high: of the 95 % interval.
    """

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:5.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What the answers say of one category, or of all.

    Attributes:
        category: its name, or "all".
        painted: objects in the run.
        judged: answers.
        counts: answers of each kind, unweighted.
        label: how often the label is wrong: the box is off, or the class.
        any: how often anything is.
    """

    category: str
    painted: int
    judged: int
    counts: Mapping[str, int]
    label: Rate
    any: Rate


def painted(run: RunDir, dataset: Dataset) -> list[Item]:
    """Every painted object of a run, in its order.

    Raises:
        RunError: the records are damaged.
    """
    found = []
    for sample in run.samples(dataset):
        for i, instance in enumerate(sample.instances):
            if instance.annotation is None:
                name = f"{sample.file_name}#{i}"
                kind = Kind.NEW if instance.redraws is None else Kind.REDRAWN
                mask = instance.mask
                found.append(
                    Item(name, instance.category, sample.file_name, instance.box, mask, instance.score, kind)
                )
    return found


def draw(items: Sequence[Item], n: int, seed: int) -> Drawn:
    """A stratified sample: categories by the root of their share, in each as many of every stratum as it has.

    Args:
        items: all painted objects.
        n: how many to draw; all of them where there are fewer.
        seed: names the sample.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(len(items), n)))
    strata = _strata(items)
    sizes = [len(s) for s in strata]
    shares = _allotted(strata, items, min(n, len(items)))
    chosen = [
        (int(row), s)
        for s, (rows, count) in enumerate(zip(strata, shares, strict=True))
        for row in rng.choice(rows, count, replace=False)
    ]
    order = rng.permutation(len(chosen))
    picked = [chosen[i] for i in order]
    return Drawn(tuple(items[r] for r, _ in picked), tuple(s for _, s in picked), tuple(sizes), seed, n)


def _strata(items: Sequence[Item]) -> list[list[int]]:
    """Rows of each category's thirds by score and by size, without the empty ones."""
    categories: dict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        categories[item.category].append(row)
    strata: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for category, rows in sorted(categories.items()):
        score = _third([items[r].score or 0.0 for r in rows])
        size = _third([items[r].box.area for r in rows])
        for row, a, b in zip(rows, score, size, strict=True):
            strata[category, a, b].append(row)
    return [strata[key] for key in sorted(strata)]


def _third(values: Sequence[float]) -> list[int]:
    """Which third each value lies in; equal values lie in the same."""
    edges = np.quantile(values, np.arange(1, THIRDS) / THIRDS)
    return [int(i) for i in np.searchsorted(edges, values, side="left")]


def _allotted(strata: Sequence[Sequence[int]], items: Sequence[Item], n: int) -> list[int]:
    """How many to draw of each stratum: `n` in all, at least one of each where `n` allows it.

    A category's share grows with the root of its number: the frequent are known well enough with fewer.
    """
    of = [items[rows[0]].category for rows in strata]
    totals: dict[str, int] = defaultdict(int)
    for category, rows in zip(of, strata, strict=True):
        totals[category] += len(rows)
    weight = [len(rows) / math.sqrt(totals[c]) for c, rows in zip(of, strata, strict=True)]
    counts = [1 if n >= len(strata) else 0 for _ in strata]
    while sum(counts) < n:
        free = [i for i, rows in enumerate(strata) if counts[i] < len(rows)]
        best = max(free, key=lambda i: (weight[i] / (counts[i] + 0.5), -i))
        counts[best] += 1
    return counts


def answers_of(path: Path, run: str) -> tuple[dict[str, str], int, int]:
    """A file of answers.

    Args:
        path: as the page wrote it.
        run: what `identity` says of the run.

    Returns:
        The answer for each object's id, the sample's seed and the number asked for.

    Raises:
        DataError: the file cannot be read, or is none of the page's.
        UsageError: it answers for another run.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except ValueError as e:
        raise DataError(f"{path.name}: not JSON: {e}") from None
    if not isinstance(value, dict) or value.get(_KEY) != 1 or not isinstance(value.get("answers"), dict):
        raise DataError(
            f"{path.name}: expected the answers that an audit's page downloads, got {shown(value)}"
        )
    if value.get("run") != run:
        raise UsageError(
            f"{path.name} answers for another run ({shown(value.get('run'))}, this one is {run!r})"
        )
    for name, answer in value["answers"].items():
        if answer not in ANSWERS:
            raise DataError(
                f"{path.name}: answers[{name!r}] must be one of {', '.join(ANSWERS)}, got {shown(answer)}"
            )
    seed, n = value.get("seed"), value.get("n")
    if not isinstance(seed, int) or not isinstance(n, int):
        raise DataError(f"{path.name}: expected whole numbers as 'seed' and 'n', got {shown([seed, n])}")
    return value["answers"], seed, n


def identity(run: RunDir) -> str:
    """16 hex digits that name a finished run's objects.

    Raises:
        UsageError: no run.
        RunError: it is not finished.
    """
    manifest = run.manifest()
    if not manifest.get("finished"):
        raise RunError(f"{run.path} is not finished; run its generate command again first")
    return str(manifest["sha256"]["records.jsonl"])[:16]


def rows(items: Sequence[Item], drawn: Drawn, answers: Mapping[str, str]) -> list[Row]:
    """The error rates of every category and of all, from the answers given.

    Args:
        items: all painted objects of the run.
        drawn: the sample.
        answers: one of `ANSWERS` by an item's id; objects without one are passed over.

    Raises:
        DataError: an answer is about an object that the sample does not hold.
    """
    held = {item.id for item in drawn.items}
    strange = [name for name in answers if name not in held]
    if strange:
        raise DataError(
            f"the answers name {len(strange)} objects that are not in the sample, such as {strange[0]!r}; "
            "was the run made again?"
        )
    judged = [
        (item.category, stratum, answers[item.id])
        for item, stratum in zip(drawn.items, drawn.stratum, strict=True)
        if item.id in answers
    ]
    names = sorted({item.category for item in items})
    whole = [
        _row(n, [i for i in items if i.category == n], [j for j in judged if j[0] == n], drawn) for n in names
    ]
    return [*whole, *([_row("all", items, judged, drawn)] if len(names) > 1 else [])]


def _row(name: str, items: Sequence[Item], judged: Sequence[tuple[str, int, str]], drawn: Drawn) -> Row:
    counts = {a: sum(j[2] == a for j in judged) for a in ANSWERS}
    here: dict[int, int] = defaultdict(int)
    for _, stratum, _ in judged:
        here[stratum] += 1
    weights = np.array([drawn.sizes[s] / here[s] for _, s, _ in judged])
    label = np.array([j[2] in LABEL_ERRORS for j in judged])
    wrong = np.array([j[2] != RIGHT for j in judged])
    return Row(name, len(items), len(judged), counts, rate(label, weights), rate(wrong, weights))


def rate(hits: "np.ndarray[Any, Any]", weights: "np.ndarray[Any, Any]") -> Rate:
    """A weighted share with its 95 % interval, Clopper and Pearson's exact one where all weights are equal.

    With unequal weights the same formula takes the effective number of answers (Kish) in place of their number.
    Source: Clopper and Pearson 1934; Korn and Graubard, Confidence Intervals for Proportions, 1998.

    Args:
        hits: bool (N,).
        weights: float64 (N,), objects of the run for which each answer stands.
    """
    from scipy.stats import beta

    if not len(hits):
        return Rate(math.nan, 0.0, 1.0)
    share = float((weights * hits).sum() / weights.sum())
    n = float(weights.sum() ** 2 / (weights**2).sum())
    low = 0.0 if share == 0 else float(beta.ppf(0.025, n * share, n * (1 - share) + 1))
    high = 1.0 if share == 1 else float(beta.ppf(0.975, n * share + 1, n * (1 - share)))
    return Rate(share, low, high)


def table(found: Sequence[Row]) -> str:
    """The rates as text for a terminal."""
    width = max(8, *(len(row.category) for row in found)) if found else 8
    head = f"{'category':{width}}  painted  judged  right  box off  wrong class  bad picture"
    lines = [f"{head}  label error, 95 % interval   any error, 95 % interval"]
    for row in found:
        counts = "".join(f"{row.counts[a]:{w}}" for a, w in zip(ANSWERS, (7, 9, 13, 13), strict=True))
        rates = (str(r) if row.judged else "no answer" for r in (row.label, row.any))
        lines.append(
            f"{row.category:{width}}{row.painted:9}{row.judged:8}{counts}  {'   '.join(f'{r:26}' for r in rates)}".rstrip()
        )
    return "\n".join(lines)


def as_json(found: Sequence[Row]) -> list[dict[str, Any]]:
    """The rates as JSON values; a rate without an answer is null."""

    def interval(r: Rate, judged: int) -> dict[str, float] | None:
        return (
            {"share": round(r.share, 4), "low": round(r.low, 4), "high": round(r.high, 4)} if judged else None
        )

    return [
        {
            "category": row.category,
            "painted": row.painted,
            "judged": row.judged,
            "answers": dict(row.counts),
            "label_error": interval(row.label, row.judged),
            "any_error": interval(row.any, row.judged),
        }
        for row in found
    ]
