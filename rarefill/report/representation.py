"""Who is there and who is not: a category's objects in groups by what can be computed of them, real and painted.

A group is a part of one attribute: small, medium or large of its kind; dark or light; in the middle or at the edge. What is
asked of each: how many real objects it has, and whether the painted ones raise its share.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rarefill.report.objects import Objects

Change = Literal["mended", "worsened", "kept"]
FEW = 0.5
"""A group with less than this part of an even share of the real objects is served worse than it need be."""
_EDGES = (0.05, 0.95)
"""Quantiles of the real objects between which the thirds of a range lie: single odd ones shall not make the bins."""
_COCO_PX = (32.0, 96.0)
"""Roots of the areas at which COCO's evaluation parts small, medium and large."""
_AT_EDGE_PX = 1.0
_LEANS = 0.15
"""Difference of shares from which painted objects are said to lean to a group, or away from it."""
_MOST_SOURCES = 6
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Group:
    """A part of one attribute.

    Attributes:
        name: for people.
        real: objects before.
        painted: objects that the run adds.
        share_before: of the real objects, 0 to 1.
        share_after: of real and painted ones together.
        few: whether it is served worse: see `FEW`.
        change: what the painted ones do to its share, where the sample is large enough to say.
        ap: AP before and after by a study, where there is one.
    """

    name: str
    real: int
    painted: int
    share_before: float
    share_after: float
    few: bool
    change: Change
    ap: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing that is computed of every object.

    Attributes:
        name: for people.
        groups: its parts.
        says: one sentence about those that are served worse.
    """

    name: str
    groups: tuple[Group, ...]
    says: str


@dataclass(frozen=True, slots=True)
class Representation:
    """One category.

    Attributes:
        category: its name.
        real: objects that were looked at, of `of_real`.
        painted: objects that were looked at, of `of_painted`.
        of_real: real objects in all.
        of_painted: painted objects in all.
        attributes: what was computed.
    """

    category: str
    real: int
    painted: int
    of_real: int
    of_painted: int
    attributes: tuple[Attribute, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def represent(
    category: str,
    real: Objects,
    painted: Objects,
    *,
    of_real: int,
    of_painted: int,
    names: Sequence[str],
    ap: Mapping[str, tuple[float | None, float | None]] | None = None,
) -> Representation:
    """A category's objects by every attribute that tells them apart.

    Args:
        category: its name.
        real: objects of the data.
        painted: objects of the run.
        of_real: how many there are, where `real` is a sample.
        of_painted: the same of the painted ones.
        names: the file names of the dataset's images, by row.
        ap: AP before and after of "small", "medium" and "large", in COCO's sense, by a study.
    """
    found = [
        _ranged("size", real.side, painted.side, ("small", "medium", "large"), "px"),
        _coco(real, painted, ap or {}),
        _banded("across the image", real.centre[:, 0], painted.centre[:, 0], ("left", "middle", "right")),
        _banded("height in the image", real.centre[:, 1], painted.centre[:, 1], ("top", "middle", "bottom")),
        _named("image's edge", _cut(real), _cut(painted), ("whole", "cut off")),
        _ranged("brightness", real.light, painted.light, ("dark", "medium", "light"), "grey"),
        _ranged("sharpness", real.sharp, painted.sharp, ("soft", "medium", "sharp"), ""),
        _surroundings(real, painted),
        _sources(real, painted, names),
    ]
    return Representation(
        category, len(real), len(painted), of_real, of_painted, tuple(a for a in found if a is not None)
    )


def _ranged(
    name: str,
    real: NDArray[np.float64],
    painted: NDArray[np.float64],
    words: Sequence[str],
    unit: str,
) -> Attribute | None:
    """Thirds of the range that the real objects span; the outer ones are open."""
    real, painted = real[np.isfinite(real)], painted[np.isfinite(painted)]
    if len(real) < 2:
        return None
    low, high = np.quantile(real, _EDGES)
    if high - low <= 1e-6 * max(1.0, abs(high)):
        return None
    if unit == "px":
        low, high = max(low, 1e-3), max(high, 2e-3)
        edges = np.exp(np.linspace(np.log(low), np.log(high), len(words) + 1)[1:-1])
    else:
        edges = np.linspace(low, high, len(words) + 1)[1:-1]
    told = _told(words, edges, unit)
    return _attribute(name, told, np.searchsorted(edges, real), np.searchsorted(edges, painted))


def _told(words: Sequence[str], edges: NDArray[np.float64], unit: str) -> list[str]:
    """The groups' names with the edges between them."""
    if not unit:
        return list(words)
    first, last = f"{edges[0]:.0f}", f"{edges[-1]:.0f}"
    return [f"{words[0]} (below {first} {unit})", f"{words[1]}", f"{words[2]} (above {last} {unit})"]


def _banded(
    name: str, real: NDArray[np.float64], painted: NDArray[np.float64], words: Sequence[str]
) -> Attribute | None:
    """Equal parts of 0 to 1."""
    n = len(words)
    before, added = (np.clip((v * n).astype(np.int64), 0, n - 1) for v in (real, painted))
    return _attribute(name, words, before, added)


def _cut(some: Objects) -> NDArray[np.int64]:
    """1 for what touches its image's edge, int64 (N,)."""
    inside = (some.boxes[:, :2] > _AT_EDGE_PX).all(axis=1)
    inside &= (some.frame - some.boxes[:, 2:] > _AT_EDGE_PX).all(axis=1)
    return np.asarray((~inside).astype(np.int64))


def _named(
    name: str, real: NDArray[np.int64], painted: NDArray[np.int64], words: Sequence[str]
) -> Attribute | None:
    return _attribute(name, words, real, painted)


def _coco(
    real: Objects, painted: Objects, ap: Mapping[str, tuple[float | None, float | None]]
) -> Attribute | None:
    """COCO's three sizes, which studies score apart; only where the real objects are of more than one."""
    words = ("small", "medium", "large")
    rows = [np.searchsorted(_COCO_PX, some.side) for some in (real, painted)]
    if len(np.unique(rows[0])) < 2 and not any(v for pair in ap.values() for v in pair):
        return None
    scores = [ap.get(word, (None, None)) for word in words]
    return _attribute("size as COCO has it", words, rows[0], rows[1], scores)


def _surroundings(real: Objects, painted: Objects) -> Attribute | None:
    """The dataset's own kinds of surroundings, from the darkest."""
    if not len(real) or (real.around < 0).all():
        return None
    kinds = np.unique(np.concatenate([real.around, painted.around]))
    kinds = kinds[kinds >= 0]
    words = [f"kind {k + 1}" + (" (darkest)" if k == kinds[0] else "") for k in kinds]
    held = [np.searchsorted(kinds, some.around[some.around >= 0]) for some in (real, painted)]
    return _attribute("surroundings", words, held[0], held[1])


def source_of(name: str) -> str:
    """What of a file's name stays the same from picture to picture of one source: folder and name without its last number."""
    stem = re.sub(r"\.[^./]*$", "", name)
    return re.sub(r"[ _.\-]*\(?\d+\)?$", "", stem)


def _sources(real: Objects, painted: Objects, names: Sequence[str]) -> Attribute | None:
    """The sources that most real objects come from, by file names; None where the names tell none apart."""
    own = [source_of(names[i]) for i in real.image]
    known, counts = np.unique(own, return_counts=True)
    if not 2 <= len(known) <= len(own) / 2:
        return None
    order = np.argsort(-counts, kind="stable")[:_MOST_SOURCES]
    words = [str(known[i]) or "(no name)" for i in order]
    rest = len(words)
    index = {str(known[i]): n for n, i in enumerate(order)}
    rows = [
        np.array([index.get(source_of(names[i]), rest) for i in some.image], dtype=np.int64)
        for some in (real, painted)
    ]
    if len(known) > len(words):
        words.append(f"{len(known) - len(words)} others")
    elif (rows[1] == rest).any():
        words.append("none of them")
    return _attribute("source, by file names", words, rows[0], rows[1])


def _attribute(
    name: str,
    words: Sequence[str],
    real: NDArray[np.integer],
    painted: NDArray[np.integer],
    ap: Sequence[tuple[float | None, float | None]] = (),
) -> Attribute | None:
    """Groups from each object's own, an index into `words`."""
    if not len(real):
        return None
    n = len(words)
    before, added = (np.bincount(rows, minlength=n) for rows in (real, painted))
    groups = []
    for i, word in enumerate(words):
        share = float(before[i] / before.sum())
        after = float((before[i] + added[i]) / (before.sum() + added.sum()))
        change = _change(share, int(added[i]), int(added.sum()))
        scores = ap[i] if ap else (None, None)
        groups.append(
            Group(
                word,
                int(before[i]),
                int(added[i]),
                round(share, 4),
                round(after, 4),
                share < FEW / n,
                change,
                scores,
            )
        )
    return Attribute(name, tuple(groups), _says(groups))


def _change(before: float, added: int, of: int) -> Change:
    """What painted objects do to a group's share, sure at 95 % (Wilson's interval of their own share)."""
    low, high = wilson(added, of)
    return "mended" if low > before else "worsened" if high < before else "kept"


def wilson(hits: int, of: int) -> tuple[float, float]:
    """A share's 95 % interval.   Source: Wilson 1927."""
    if not of:
        return 0.0, 1.0
    p, z2 = hits / of, _Z**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z * math.sqrt(p * (1 - p) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return middle - half, middle + half


def _says(groups: Iterable[Group]) -> str:
    """What there is to say of the groups that have few real objects, and of those that painted ones lean to."""
    held = list(groups)
    few = [g for g in held if g.few and (g.real or g.painted)]
    words = {
        "mended": "the painted ones raise its share",
        "worsened": "the painted ones lower its share",
        "kept": "its share stays about as it was",
    }
    said = [f"Few are {g.name}: {g.real} real, {g.painted} painted; {words[g.change]}." for g in few]
    of = sum(g.painted for g in held)
    for g in held:
        share = g.painted / max(of, 1)
        if g.change != "kept" and not g.few and abs(share - g.share_before) >= _LEANS:
            more = "more" if share > g.share_before else "less"
            said.append(
                f"Painted ones are {more} often {g.name}: {share:.0%}, real ones {g.share_before:.0%}."
            )
    return " ".join(said) or "No group is much rarer than the others."
