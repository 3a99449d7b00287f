"""Who is there and who is not: a category's objects in groups by what can be computed of them, real and painted.

A group is a part of one attribute: small, medium or large of its kind; dark or light; in the middle or at the edge. What is
asked of each: how many real objects it has, and whether the painted ones raise its share.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rarefill import attributes
from rarefill.attributes import Ruler
from rarefill.objects import Objects

Change = Literal["mended", "worsened", "kept"]
FEW = 0.5
"""A group with less than this part of an even share of the real objects is served worse than it need be."""
_LEANS = 0.15
"""Difference of shares from which painted objects are said to lean to a group, or away from it."""
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
    found = []
    for ruler in attributes.rulers(real, names, painted):
        before, added = ruler.of(real), ruler.of(painted)
        scores = None
        if ruler.name == attributes.COCO_SIZES:
            scores = [(ap or {}).get(word, (None, None)) for word in ruler.words]
            if len(np.unique(before)) < 2 and not any(v for pair in (ap or {}).values() for v in pair):
                continue
        found.append(_attribute(ruler, before, added, scores))
    return Representation(category, len(real), len(painted), of_real, of_painted, tuple(found))


def _attribute(
    ruler: Ruler,
    real: NDArray[np.int64],
    painted: NDArray[np.int64],
    ap: Sequence[tuple[float | None, float | None]] | None,
) -> Attribute:
    """Groups from each object's own, an index into the ruler's words."""
    n = len(ruler.words)
    before, added = (np.bincount(rows[rows >= 0], minlength=n) for rows in (real, painted))
    groups = []
    for i, word in enumerate(ruler.words):
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
    return Attribute(ruler.name, tuple(groups), _says(groups))


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
    said += [f"None, real or painted, are {g.name}." for g in held if g.few and not (g.real or g.painted)]
    return " ".join(said) or "No group is much rarer than the others."
