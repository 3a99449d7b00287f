"""Who is served: AP of a rare category's objects by what can be computed of them, with and without generated images.

An object that is not of the group is neither right nor wrong to find, and a detection that finds none counts against the
group whose looks it has. That is how COCO's evaluation takes sizes, and pycocotools does it here: the group stands where
it reads an area.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarefill import objects
from rarefill.attributes import Ruler, rulers
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.layouts import Context
from rarefill.objects import Objects
from rarefill.progress import SILENT, Progress
from rarefill.proof import bootstrap, score
from rarefill.proof.bootstrap import Measured, Noise
from rarefill.proof.findings import surely
from rarefill.proof.score import Detection, Matches
from rarefill.proof.study import Served, Study
from rarefill.seeds import Stage, rng

FEWEST = 5
"""Test objects below which a group's AP says nothing."""
_DRAWS = 300
_ELSEWHERE = -1.0  # where an area is read: in none of the groups

Unit = tuple[str, int]
"""An arm's name, and which of its trainings."""


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """One category's objects and detections with what was computed of them.

    Attributes:
        real: of the test part, crowds left out.
        rows: theirs in `dataset.annotations`.
        found: what each training detected.
        detections: the same, as COCO has it.
    """

    real: Objects
    rows: NDArray[np.intp]
    found: Mapping[Unit, Objects]
    detections: Mapping[Unit, Sequence[Detection]]


def served(
    test: Dataset,
    category: str,
    detections: Mapping[Unit, Sequence[Detection]],
    group: NDArray[np.intp],
    *,
    baseline: str,
    arm: str,
    context: Context | None = None,
    progress: Progress = SILENT,
) -> tuple[Served, ...]:
    """AP by group, for each attribute that tells the test's objects apart.

    Args:
        test: the test part.
        category: one that the study is about.
        detections: of the trainings to show, by arm and number; of all categories.
        group: (N,), the group of near-duplicates of each test image, by ascending image id.
        baseline: the free arm that the generated one is held against; among `detections`.
        arm: that generated arm.
        context: knows the test images' kinds of surroundings; without it they are left out.
        progress: counts the images that are looked at.
    """
    held = _columns(test, category, detections, context, progress)
    weights = bootstrap.weights(group, _DRAWS, rng(0, Stage.CHECK, 2))
    names = list(dict.fromkeys(name for name, _ in detections))
    noise = Noise.drawn(names, _DRAWS, rng(0, Stage.CHECK, 3))
    n_units = 1 + max(unit for _, unit in detections)
    truth, label = score.truth(test), test.categories[test.category_row(category)].id
    told = {unit: score.results(truth, found) for unit, found in held.detections.items()}
    out: list[Served] = []
    for ruler in rulers(held.real, test.images.file_name):
        own = ruler.of(held.real)
        if np.count_nonzero(np.bincount(own[own >= 0], minlength=len(ruler.words)) >= FEWEST) < 2:
            continue
        _stamp(truth.coco, dict(zip(held.rows.tolist(), own.tolist(), strict=True)))
        matches = {}
        for unit, results in told.items():
            _stamp(results, dict(enumerate(ruler.of(held.found[unit]).tolist())))
            matches[unit] = _matched(truth, results, label, ruler)
        for n, word in enumerate(ruler.words):
            of = int((own == n).sum())
            if of < FEWEST:
                continue
            measured = {name: _measured(matches, name, n, n_units, weights) for name in names}
            ap = {name: float(np.nanmean(m.value)) for name, m in measured.items()}
            difference = bootstrap.spread(measured, {arm: 1.0, baseline: -1.0}, noise)
            out.append(
                Served(
                    category=category,
                    attribute=ruler.name,
                    group=word,
                    objects=of,
                    ap=ap,
                    difference=difference.estimate() if difference else None,
                )
            )
    return tuple(out)


def says(study: Study) -> tuple[str, ...]:
    """Sentences on a study's groups: the one that is served worst, and what generation does to it and to the others."""
    if not study.served or study.verdict is None:
        return ()
    base, arm = study.verdict.baseline, study.verdict.arm
    worst = min(study.served, key=lambda part: part.ap[base])
    sure = [p.difference.value for p in study.served if p.difference and surely(p.difference)]
    better = sum(value > 0 for value in sure)
    name = f"{worst.attribute}: {worst.group}"
    if len(study.rare) > 1:
        name = f"{worst.category}, {name}"
    change = f"; {arm} {worst.difference.signed()}" if worst.difference else ""
    return (
        f"Served worst by {base}: {name} (AP {worst.ap[base]:.3f} of {worst.objects:,} objects){change}.",
        (
            f"Of {len(study.served)} groups {arm} surely raises {better} over {base} and lowers {len(sure) - better}; "
            "each interval stands by itself, and one in twenty leaves out 0 by chance."
        ),
    )


def _columns(
    test: Dataset,
    category: str,
    detections: Mapping[Unit, Sequence[Detection]],
    context: Context | None,
    progress: Progress,
) -> _Columns:
    """Look at every test image once, for its objects and for all that was detected on it."""
    label = test.categories[test.category_row(category)].id
    own = {unit: [d for d in found if d["category_id"] == label] for unit, found in detections.items()}
    row_of = {int(name): row for row, name in enumerate(test.images.id)}
    flat = [d for found in own.values() for d in found]
    on = np.array([row_of[d["image_id"]] for d in flat], dtype=np.intp)
    boxes = [Box(*_corners(d["bbox"])) for d in flat]
    around = None if context is None else (lambda image, corners: context.cells(image, corners)[:, 0])
    rows = test.rows_of(category)
    parts: list[Objects] = []
    order: list[NDArray[np.intp]] = []
    with progress.bar("who is served", len(test.images), "images") as bar:
        for image in range(len(test.images)):
            here, seen = rows[test.annotations.image[rows] == image], np.flatnonzero(on == image)
            if len(here) or len(seen):
                shown = [test.box(int(row)) for row in here] + [boxes[i] for i in seen]
                parts.append(objects.seen(test.read(image), image, shown, around))
                order += [here, len(test.annotations) + seen]
            bar.advance()
    every = Objects.joined(parts)
    place = np.concatenate(order) if order else np.zeros(0, dtype=np.intp)
    back = {int(name): n for n, name in enumerate(place)}
    n, found, start = len(test.annotations), {}, 0
    for unit, those in own.items():
        found[unit] = every.take([back[n + i] for i in range(start, start + len(those))])
        start += len(those)
    return _Columns(every.take([back[int(row)] for row in rows]), rows, found, own)


def _corners(bbox: Sequence[float]) -> Iterator[float]:
    x, y, width, height = bbox
    yield from (x, y, x + max(width, 1e-3), y + max(height, 1e-3))


def _stamp(coco: Any, groups: Mapping[int, int]) -> None:
    """Write the group of each entry, by its place in the file, where pycocotools reads an area."""
    for n, entry in enumerate(coco.dataset.get("annotations", ())):
        entry["area"] = float(groups.get(n, _ELSEWHERE))


def _matched(truth: score.Truth, results: Any, label: int, ruler: Ruler) -> list[Matches]:
    """One training's matches for each group of a ruler."""
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(io.StringIO()):
        run = COCOeval(truth.coco, results, "bbox")
        run.params.maxDets = [truth.most]
        run.params.catIds = [label]
        run.params.areaRng = [[n - 0.5, n + 0.5] for n in range(len(ruler.words))]
        run.params.areaRngLbl = list(ruler.words)
        run.evaluate()
    n_images, thresholds = len(run.params.imgIds), len(run.params.iouThrs)
    return [
        score.pooled(run.evalImgs[n * n_images : (n + 1) * n_images], thresholds)
        for n in range(len(ruler.words))
    ]


def _measured(
    matches: Mapping[Unit, Sequence[Matches]], name: str, group: int, n_units: int, weights: NDArray[np.int64]
) -> Measured:
    """An arm's AP of one group, of each training, on the test and on each that was drawn."""
    out = Measured(np.full(n_units, np.nan), np.full((n_units, len(weights)), np.nan))
    every = np.ones((1, weights.shape[1]), dtype=np.int64)
    for (arm, unit), of in matches.items():
        if arm == name:
            drawn = score.average_precision(of[group], np.concatenate([every, weights])).mean(axis=1)
            out.value[unit], out.draws[unit] = drawn[0], drawn[1:]
    return out
