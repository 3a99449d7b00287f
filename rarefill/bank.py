"""The shape bank: real silhouettes of each category, from the data's masks or cut out of its boxes."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rarefill import cutouts, exemplar_cache, warp
from rarefill.dataset import Dataset
from rarefill.exemplar_cutting import cut_all, free
from rarefill.exemplars import FEWEST_GOOD, Exemplar, Source
from rarefill.files import write_bytes
from rarefill.geometry import Box, Mask
from rarefill.progress import SILENT, Progress
from rarefill.scene import Shape

__all__ = [
    "FEWEST_GOOD",
    "MOST",
    "SMALLEST_PX",
    "Bank",
    "Exemplar",
    "Slack",
    "Source",
    "build",
    "loose",
    "more",
    "silhouette",
    "tight",
    "visible",
]

Slack = tuple[float, float, float, float]

MOST = 400
"""Objects per category whose masks are made; more would cost minutes and add little variety."""
ENOUGH = 12
"""Whole silhouettes of a class from which on only good ones are taken."""
SMALLEST_PX = 3
"""A box below this has no shape to learn."""


class Bank:
    """Exemplars by category and by annotation."""

    def __init__(
        self,
        exemplars: Iterable[Exemplar],
        slack: Mapping[str, Slack] | None = None,
        *,
        single: Iterable[Exemplar] = (),
    ) -> None:
        """`single`: objects that are known one by one, and are no exemplars of their category."""
        self._at = {e.annotation: e for e in sorted(exemplars, key=lambda e: e.annotation)}
        self._single = {e.annotation: e for e in single if e.annotation not in self._at}
        of: dict[str, list[Exemplar]] = {}
        for exemplar in self._at.values():
            of.setdefault(exemplar.category, []).append(exemplar)
        self._of = {category: _trusted(held) for category, held in of.items()}
        self._slack = dict(slack or {})

    def of(self, category: str) -> tuple[Exemplar, ...]:
        """The exemplars of a category that are fit for use, in the order of the annotations.

        Those whose mask can be trusted, or all when fewer than three can; empty when there is none.
        """
        return self._of.get(category, ())

    def at(self, annotation: int) -> Exemplar:
        """The exemplar of one annotation row.

        Raises:
            KeyError: the annotation has no exemplar (a crowd, too small, or a category the bank was not built for).
        """
        return self._at[annotation] if annotation in self._at else self._single[annotation]

    def __contains__(self, annotation: int) -> bool:
        """Whether `at` knows this annotation row."""
        return annotation in self._at or annotation in self._single

    def outline(self, annotation: int) -> Mask | None:
        """The silhouette of one annotation row, where there is one that is fit for use."""
        held = self._at.get(annotation) or self._single.get(annotation)
        if held is None or (held.source == "box" and held not in self.of(held.category)):
            return None
        return held.mask

    def knowing(self, single: Iterable[Exemplar]) -> "Bank":
        """This bank, which also knows some further objects one by one."""
        return Bank(self._at.values(), self._slack, single=(*self._single.values(), *single))

    def slack(self, category: str) -> Slack:
        """How loosely people drew this category's boxes: the free share of the box at its left, top, right and bottom.

        The median over its trusted, complete exemplars: a fifth on each side is the habit in some data, and a
        detector learns it. All 0 where the data has masks, or nothing to measure.
        """
        return self._slack.get(category, (0.0, 0.0, 0.0, 0.0))

    def __len__(self) -> int:
        return len(self._at)


def build(
    dataset: Dataset, categories: Sequence[str], *, cache: Path | None = None, progress: Progress = SILENT
) -> Bank:
    """The exemplars of some categories: every annotation that is no crowd and has 3 pixels or more each way.

    Of a category with more than `MOST` annotations an even sample is taken.

    Args:
        dataset: whose objects.
        categories: their names.
        cache: folder where cut-outs are kept from run to run; the dataset's digest names them.
        progress: shows the cutting, which takes some 30 ms an object.

    Raises:
        DataError: no such category, or an image cannot be read.
    """
    found: list[Exemplar] = []
    for category in dict.fromkeys(categories):
        found += _kept_or_cut(dataset, category, _usable(dataset, category), cache, progress)
    return Bank(found, {c: _slack(dataset, [e for e in found if e.category == c]) for c in categories})


def more(
    bank: Bank,
    dataset: Dataset,
    rows: Sequence[int],
    *,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Bank:
    """A bank that also knows these objects: `at` and `outline` find them, `of` does not offer them.

    Args:
        bank: of their categories.
        dataset: whose objects.
        rows: annotations; those that the bank knows, crowds and those below 3 pixels are left out.
        cache: as for `build`.
        progress: as for `build`.

    Raises:
        DataError: an image cannot be read.
    """
    found: list[Exemplar] = []
    category = dataset.annotations.category
    for name in dataset.names:
        known = {e.annotation for e in bank.of(name)}
        here = [r for r in sorted(set(rows)) if dataset.names[int(category[r])] == name and r not in known]
        found += _kept_or_cut(dataset, name, _large(dataset, here), cache, progress, part=True)
    return bank.knowing(found) if found else bank


def tight(box: Box, slack: Slack) -> Box:
    """The part of a label's box that the object fills, when people leave this slack."""
    left, top, right, bottom = slack
    w, h = box.width, box.height
    return Box(box.x1 + left * w, box.y1 + top * h, box.x2 - right * w, box.y2 - bottom * h)


def loose(box: Box, slack: Slack) -> Box:
    """The box that people would draw around an object that fills `box`: the way back from `tight`."""
    left, top, right, bottom = slack
    w, h = box.width / (1 - left - right), box.height / (1 - top - bottom)
    return Box(box.x1 - left * w, box.y1 - top * h, box.x2 + right * w, box.y2 + bottom * h)


def _trusted(exemplars: Sequence[Exemplar]) -> tuple[Exemplar, ...]:
    """Those to take: the good ones, or where they are few the best, in their order."""
    passed = [e for e in exemplars if e.source != "box"]
    if len(passed) < FEWEST_GOOD:
        return tuple(exemplars)
    whole = sorted((e.quality for e in passed if e.complete), reverse=True)
    least = min(cutouts.GOOD, whole[min(ENOUGH, len(whole)) - 1] if whole else 0.0)
    return tuple(e for e in passed if e.quality >= least)


def silhouette(mask: Mask, shape: Shape, box: Box) -> Mask:
    """An exemplar's mask as a placement shows it: flipped, rotated, stretched to a box's whole pixels, and bent.

    The result fills the box to within a pixel: what the silhouette covers by half or more belongs to it.
    """
    x, y, width, height = warp.whole(box)
    covered = warp.filled(mask, shape, width, height)[1]
    placed = Mask.of(covered >= 0.5, x, y)
    if placed is None:
        # The finest silhouettes (a rope in two pixels) cover no pixel by half: then the best covered ones stand in.
        most = float(covered.max())
        placed = Mask.of(covered >= most if most > 0 else np.ones(covered.shape, dtype=bool), x, y)
    if placed is None:
        raise AssertionError("a silhouette has at least one pixel")
    return placed


def visible(
    mask: Mask, shape: Shape, box: Box, width: int, height: int, front: Mask | None = None
) -> tuple[Mask, Box | None] | None:
    """What of an exemplar's silhouette shows on an image where it fills a box: a placement's `mask` and `whole`.

    Args:
        mask: the exemplar's.
        shape: how it is turned and bent.
        box: that all of it fills; may reach beyond the image.
        width: of the image in pixels.
        height: of the image in pixels.
        front: pixels of objects in front of it: a placement's `spared`.

    Returns:
        The visible pixels, and the box of the whole where some of it does not show; None where nothing shows.
    """
    placed = silhouette(mask, shape, box)
    shown = placed.clipped(width, height)
    if shown is placed and front is None:
        return placed, None
    if shown is not None and front is not None:
        shown = shown.minus(front)
    if shown is None:
        return None
    x, y, w, h = warp.whole(box)
    return shown, (Box(x, y, x + w, y + h) if shown.area < placed.area else None)


def _usable(dataset: Dataset, category: str) -> list[int]:
    rows = _large(dataset, dataset.rows_of(category).tolist())
    if len(rows) > MOST:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, MOST).round().astype(int)]
    return rows


def _large(dataset: Dataset, rows: Sequence[int]) -> list[int]:
    """Those that are no crowd and have pixels enough for a shape."""
    held, a = np.array(rows, dtype=np.int64), dataset.annotations
    large = (a.boxes[held, 2:] - a.boxes[held, :2] >= SMALLEST_PX).all(axis=1)
    return [int(row) for row in held[large & ~a.crowd[held]]]


def _kept_or_cut(
    dataset: Dataset,
    category: str,
    rows: list[int],
    cache: Path | None,
    progress: Progress,
    *,
    part: bool = False,
) -> list[Exemplar]:
    """What an earlier run kept of a category, or cut now and kept; `part`: of some of its objects."""
    if not rows:
        return []
    name = f"shapes-{dataset.digest}-{dataset.category_row(category)}"
    if part:
        name += "-" + hashlib.sha256(np.array(rows, dtype=np.int64).tobytes()).hexdigest()[:16]
    path = None if cache is None else cache / f"{name}.npz"
    kept = None if path is None else exemplar_cache.kept(path, dataset, category, rows)
    if kept is None:
        kept = cut_all(dataset, category, rows, progress)
        if path is not None:
            write_bytes(path, exemplar_cache.packed(kept))
    return kept


def _slack(dataset: Dataset, exemplars: Sequence[Exemplar]) -> Slack:
    measured = [free(dataset, e) for e in exemplars if e.source == "cut" and e.complete]
    if len(measured) < FEWEST_GOOD:
        return (0.0, 0.0, 0.0, 0.0)
    left, top, right, bottom = (max(0.0, float(v)) for v in np.median(measured, axis=0))
    return left, top, right, bottom
