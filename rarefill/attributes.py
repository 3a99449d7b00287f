"""Groups of objects by what can be computed of them: their size, place, light, sharpness, surroundings and source.

A ruler is made from some objects, and then tells the group of any object: of other real ones, of painted ones, of a
detection.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.objects import Objects

Rows = NDArray[np.int64]

_EDGES = (0.05, 0.95)
"""Quantiles of the real objects between which the thirds of a range lie: single odd ones shall not make the bins."""
_COCO_PX = (32.0, 96.0)
"""Roots of the areas at which COCO's evaluation parts small, medium and large."""
COCO_SIZES = "size as COCO has it"
_AT_EDGE_PX = 1.0
_MOST_SOURCES = 6
_NO_NAME = "(no name)"


@dataclass(frozen=True, slots=True, eq=False)
class Ruler:
    """One attribute.

    Attributes:
        name: for people.
        words: its groups' names.
        of: int64 (N,), the group of each object, an index into `words`; -1 for one that is in none.
    """

    name: str
    words: tuple[str, ...]
    of: Callable[[Objects], Rows]


def rulers(known: Objects, names: Sequence[str], others: Objects | None = None) -> list[Ruler]:
    """Every attribute that can be computed of some objects, and that does not say the same of all of them.

    Args:
        known: the objects that the groups are made for.
        names: the file names of the dataset's images, by row.
        others: objects that the groups shall have names for, too, if they are of another source or of other surroundings.
    """
    if not len(known):
        return []
    others = known if others is None else others
    found = [
        _ranged("size", ("small", "medium", "large"), "px", lambda some: some.side, known),
        Ruler(COCO_SIZES, ("small", "medium", "large"), lambda some: np.searchsorted(_COCO_PX, some.side)),
        _banded("across the image", ("left", "middle", "right"), 0),
        _banded("height in the image", ("top", "middle", "bottom"), 1),
        Ruler("image's edge", ("whole", "cut off"), _cut),
        _ranged("brightness", ("dark", "medium", "light"), "grey", lambda some: some.light, known),
        _ranged("sharpness", ("soft", "medium", "sharp"), "", lambda some: some.sharp, known),
        _surroundings(known, others),
        _sources(known, others, names),
    ]
    return [ruler for ruler in found if ruler is not None]


def _ranged(
    name: str,
    words: tuple[str, ...],
    unit: str,
    values: Callable[[Objects], NDArray[np.float64]],
    known: Objects,
) -> Ruler | None:
    """Thirds of the range that the known objects span; the outer ones are open."""
    real = values(known)
    real = real[np.isfinite(real)]
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

    def of(some: Objects) -> Rows:
        held = values(some)
        return np.where(np.isfinite(held), np.searchsorted(edges, held), -1)

    return Ruler(name, _told(words, edges, unit), of)


def _told(words: Sequence[str], edges: NDArray[np.float64], unit: str) -> tuple[str, ...]:
    """The groups' names with the edges between them."""
    if not unit:
        return tuple(words)
    first, last = f"{edges[0]:.0f}", f"{edges[-1]:.0f}"
    if first == last:
        first, last = f"{edges[0]:.3g}", f"{edges[-1]:.3g}"
    return f"{words[0]} (below {first} {unit})", *words[1:-1], f"{words[-1]} (above {last} {unit})"


def _banded(name: str, words: tuple[str, ...], axis: int) -> Ruler:
    """Equal parts of the image."""
    n = len(words)
    return Ruler(name, words, lambda some: np.clip((some.centre[:, axis] * n).astype(np.int64), 0, n - 1))


def _cut(some: Objects) -> Rows:
    """1 for what touches its image's edge."""
    inside = (some.boxes[:, :2] > _AT_EDGE_PX).all(axis=1)
    inside &= (some.frame - some.boxes[:, 2:] > _AT_EDGE_PX).all(axis=1)
    return np.asarray((~inside).astype(np.int64))


def _surroundings(known: Objects, others: Objects) -> Ruler | None:
    """The dataset's own kinds of surroundings, from the darkest."""
    if (known.around < 0).all():
        return None
    kinds = np.unique(np.concatenate([known.around, others.around]))
    kinds = kinds[kinds >= 0]
    words = tuple(f"kind {k + 1}" + (" (darkest)" if k == kinds[0] else "") for k in kinds)

    def of(some: Objects) -> Rows:
        at = np.minimum(np.searchsorted(kinds, some.around), len(kinds) - 1)
        return np.where(kinds[at] == some.around, at, -1)

    return Ruler("surroundings", words, of)


def source_of(name: str) -> str:
    """What of a file's name stays the same from picture to picture of one source: folder and name without its last number."""
    stem = re.sub(r"\.[^./]*$", "", name)
    return re.sub(r"[ _.\-]*\(?\d+\)?$", "", stem)


def _sources(known: Objects, others: Objects, names: Sequence[str]) -> Ruler | None:
    """The sources that most known objects come from, by file names; None where the names tell none apart, or each image from all others."""
    own = [source_of(names[i]) for i in known.image]
    held, counts = np.unique(own, return_counts=True)
    if not 2 <= len(held) <= len(np.unique(known.image)) / 2:
        return None
    order = np.argsort(-counts, kind="stable")[:_MOST_SOURCES]
    index = {str(held[i]): n for n, i in enumerate(order)}
    rest = len(index)

    def of(some: Objects) -> Rows:
        return np.array([index.get(source_of(names[i]), rest) for i in some.image], dtype=np.int64)

    words = tuple(name or _NO_NAME for name in index)
    if len(held) > rest:
        words = (*words, f"{len(held) - rest} others")
    elif (of(others) == rest).any():
        words = (*words, "none of them")
    return Ruler("source, by file names", words, of)
