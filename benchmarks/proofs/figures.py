"""All figures of one case: each arm of paints beside real objects."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from proofs import detector
from proofs.cases import Desk, Sides, make, numbered, sequences
from proofs.features import Backbone
from proofs.paints import Paints
from rarefill import likeness, seeds, windows
from rarefill.dataset import Dataset
from rarefill.fidelity import distances, seams, texture
from rarefill.fidelity.distances import Floats, Groups, Scale
from rarefill.scene import Reason
from rarefill.seeds import Stage
from rarefill.windows import Windows

Figures = dict[str, Any]
"""JSON values."""
_SEEN: Final = {"whole": None, "fine": seams.fine, "coarse": seams.coarse, "surroundings": seams.hidden}
"""What a network is shown of windows, by the name of its figure."""


@dataclass(frozen=True, slots=True, eq=False)
class Real:
    """A case's real windows.

    Attributes:
        exemplars: of the ten training images.
        held: of the held-out images.
        other: of all other images, which neither a generator nor the figures' reference sees.
        ground: places on held-out images without an object of the class.
        groups: image id -> number of its sequence.
        homes: annotation id -> id of its image.
    """

    exemplars: Windows
    held: Windows
    other: Windows
    ground: Windows
    groups: dict[int, int]
    homes: dict[int, int]

    def grouped(self, of: Windows) -> Groups:
        """The sequences of some windows' images."""
        return np.array([self.groups[int(i)] for i in of.image], dtype=np.int64)


def real(desk: Desk) -> Real:
    """Cut every real window that the figures need."""
    sides, data, rare = make(desk), desk.whole(), desk.case.rare
    exemplars, held, other = (windows.real(data, rare, s) for s in (sides.train, sides.test, sides.other))
    ground = windows.background(data, rare, sides.test, held, seeds.rng(0, Stage.PLACE))
    homes = dict(
        zip(data.annotations.id.tolist(), data.images.id[data.annotations.image].tolist(), strict=True)
    )
    return Real(exemplars, held, other, ground, numbered(sequences(desk)), homes)


def measure(desk: Desk, arms: Mapping[str, Path], *, splits: int, skip: Sequence[str] = ()) -> Figures:
    """Every figure of a case.

    Args:
        desk: the case.
        arms: name -> folder of its paints.
        splits: how often the seam classifier is trained anew, each time both ways.
        skip: of kid, copies, seams and acceptance.
    """
    own, painted = real(desk), {name: Paints.load(folder) for name, folder in arms.items()}
    counts = {n: len(getattr(own, n)) for n in ("exemplars", "held", "other", "ground")}
    out: Figures = {"case": str(desk.case), "real": counts}
    out["paints"] = {name: _counts(p, arms[name]) for name, p in painted.items()}
    if "kid" not in skip:
        out["kid"] = kernel_distances(desk, own, painted)
    if "copies" not in skip:
        out["copies"] = copies(desk, own, painted)
    if "seams" not in skip:
        out["seams"] = {name: seam_figures(own, p.windows, splits) for name, p in painted.items()}
    if "acceptance" not in skip:
        out["acceptance"] = acceptance(desk, own, painted, arms)
    return out


def _counts(paints: Paints, folder: Path) -> Figures:
    run = json.loads((folder / "run.json").read_text())
    reasons, n = np.unique(paints.verdict, return_counts=True)
    return {
        "shown": len(paints),
        "seconds": run["seconds"],
        "checker": dict(zip(reasons.tolist(), n.tolist(), strict=True)),
        "asked_overlap": round(float(np.median(paints.asked_overlap)), 4),
    }


def taken(paints: Paints) -> NDArray[np.bool_]:
    """Which paints the product's own checker would have kept."""
    return np.isin(paints.verdict, [Reason.ACCEPTED, Reason.UNCHECKED])


def judged(paints: Paints) -> bool:
    """Whether a checker looked at all."""
    return not bool((paints.verdict == Reason.UNCHECKED).all())


# Kernel distance


def kernel_distances(desk: Desk, own: Real, painted: Mapping[str, Paints]) -> Figures:
    """Kernel distance to held-out real windows, of whole windows and of close crops."""
    net = Backbone(desk)
    sets: dict[str, Windows] = {"background": own.ground, "exemplars": own.exemplars, "other real": own.other}
    for name, paints in painted.items():
        sets[name] = paints.windows
        if judged(paints):
            sets[f"{name}, kept"] = paints.windows.take(taken(paints))
    out: Figures = {}
    for view in ("pixels", "objects"):
        held = net(getattr(own.held, view))
        scale = Scale.of(np.concatenate([held, net(getattr(own.ground, view))]))
        reference, groups = scale(held), own.grouped(own.held)
        parts = distances.halves(reference, groups, seeds.rng(0, Stage.CHECK, 1))
        found: Figures = {"real halves": {"kid": _r(parts.mean()), "se": _r(parts.std())}}
        for name, some in sets.items():
            found[name] = _kid(scale(net(getattr(some, view))), reference, own.grouped(some), groups)
        out["window" if view == "pixels" else "object"] = found
    return out


def _kid(x: Floats, y: Floats, x_groups: Groups, y_groups: Groups) -> Figures:
    if len(np.unique(x_groups)) < 2:
        return {"kid": None, "se": None, "spread": None, "n": len(x)}
    found = distances.kid(x, y, x_groups, y_groups, seeds.rng(0, Stage.CHECK, 2))
    return {"kid": _r(found.value), "se": _r(found.se), "spread": _r(found.spread), "n": len(x)}


# Copies


def copies(desk: Desk, own: Real, painted: Mapping[str, Paints]) -> Figures:
    """Distance to the nearest of the exemplars, in features of close crops and in aligned pixels."""
    net = Backbone(desk)
    held, exemplars = net(own.held.objects), net(own.exemplars.objects)
    scale = Scale.of(np.concatenate([held, net(own.ground.objects)]))
    side = likeness.SIDE_PX
    pool = windows.stretched(own.exemplars, side)
    sets = {"held-out real": own.held, "other real": own.other}
    sets |= {name: p.windows for name, p in painted.items()}
    out: Figures = {}
    limits: tuple[float, float] | None = None
    for name, some in sets.items():
        if not len(some):
            continue
        far, _ = distances.nearest(scale(net(some.objects)), scale(exemplars))
        unlike = 1 - likeness.likeness(windows.stretched(some, side), pool).max(axis=1)
        limits = limits or (float(np.quantile(far, 0.05)), float(np.quantile(unlike, 0.05)))
        out[name] = {
            "features": distances.quantiles(far),
            "pixels": distances.quantiles(unlike),
            # As near as hardly any real object is to another one.
            "near": {"features": _r((far < limits[0]).mean()), "pixels": _r((unlike < limits[1]).mean())},
        }
    return out


# Seams


def seam_figures(own: Real, painted: Windows, splits: int) -> Figures:
    """AUC of painted against untouched, of their fine and coarse parts, and of the surroundings alone: of a network; and of figures of texture."""
    real_windows = windows.joined([own.exemplars, own.held, own.other])
    out: Figures = {}
    for name, change in _SEEN.items():
        sets = [change(w) if change else w for w in (real_windows, painted)]
        pool = seams.pool(sets[0], sets[1], own.groups, own.homes)
        found = seams.trials(pool, times=splits)
        if not found:
            return dict.fromkeys(_SEEN)
        out[name] = _told(found)
    pool = seams.pool(real_windows, painted, own.groups, own.homes)
    both = np.concatenate([texture.figures(w) for w in (real_windows, painted)])
    out["texture"] = _told(texture.trials(pool, both, times=splits))
    out["texture around"] = _told(texture.trials(pool, both[:, texture.AROUND], times=splits))
    return out


def _told(found: Sequence[distances.Trial]) -> Figures:
    value, low, high = distances.mean_auc(found, seeds.rng(0, Stage.CHECK, 3))
    each = [round(distances.auc(t.scores, t.labels), 3) for t in found]
    return {"auc": _r(value), "low": _r(low), "high": _r(high), "each": each}


# Acceptance


def acceptance(desk: Desk, own: Real, painted: Mapping[str, Paints], arms: Mapping[str, Path]) -> Figures:
    """What a detector trained on all real images but the held-out ones says of what was painted."""
    judge, data = detector.trained(desk), desk.whole()
    sides = make(desk)
    held = judge.look(desk.pictures, _entries(data, sides.test), desk.case.rare)
    scores, boxes = detector.matched(held, own.held.image, own.held.box)
    least = detector.threshold(scores)
    out: Figures = {
        "threshold": _r(least),
        "held-out real": _accepted(scores, boxes, own.held.box, least),
        "background": _accepted(*detector.matched(held, own.ground.image, own.ground.box), None, least),
    }
    for name, paints in painted.items():
        root = arms[name] / "run" / "images"
        rows = judge.look(root, _run_entries(arms[name] / "run"), desk.case.rare)
        scores, boxes = detector.matched(rows, paints.number, paints.windows.box)
        out[name] = _accepted(scores, boxes, paints.asked, least)
        out[name] |= _unpainted(desk, judge, data, sides, paints, least)
        if judged(paints):
            keep = taken(paints)
            out[f"{name}, kept"] = _accepted(scores[keep], boxes[keep], paints.asked[keep], least)
    return out


def _accepted(scores: Floats, boxes: Floats, wanted: Floats | None, least: float) -> Figures:
    share = float((scores >= least).mean()) if len(scores) else float("nan")
    se = float(np.sqrt(share * (1 - share) / max(len(scores), 1)))
    out: Figures = {"share": _r(share), "se": _r(se), "n": len(scores)}
    if wanted is not None and (scores >= least).any():
        overlap = detector.overlaps(boxes, wanted)[scores >= least]
        out["overlap"] = _r(float(np.median(overlap)))
    return out


def _unpainted(
    desk: Desk, judge: detector.Detector, data: Dataset, sides: Sides, paints: Paints, least: float
) -> Figures:
    """The share that is found in the same places of the backgrounds before anything was painted."""
    rows = judge.look(desk.pictures, _entries(data, sides.train), desk.case.rare)
    scores, _ = detector.matched(rows, paints.windows.image, paints.asked)
    return {"unpainted": _r(float((scores >= least).mean()))}


def _entries(data: Dataset, images: frozenset[int]) -> list[dict[str, Any]]:
    columns = (data.images.id, data.images.file_name, data.images.width, data.images.height)
    return [
        {"id": int(i), "file_name": name, "width": int(w), "height": int(h)}
        for i, name, w, h in zip(*columns, strict=True)
        if int(i) in images
    ]


def _run_entries(run: Path) -> list[dict[str, Any]]:
    """The pictures of a run by their numbers, as its records name them."""
    out = []
    for line in (run / "records.jsonl").read_text().splitlines():
        for s in json.loads(line)["samples"]:
            width, height = s["size"]
            out.append({"id": s["number"], "file_name": s["file"], "width": width, "height": height})
    return out


def _r(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
