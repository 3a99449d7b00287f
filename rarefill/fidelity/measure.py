"""All figures of a run against real data."""

from collections import Counter
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import __version__, pictures, seeds, windows
from rarefill.dataset import Dataset
from rarefill.errors import RunError
from rarefill.fidelity import copies, distances, layouts_compared, saturation, seams, two_sample
from rarefill.fidelity.distances import Floats, Groups, Scale
from rarefill.fidelity.features import Features
from rarefill.fidelity.layouts_compared import Boxes
from rarefill.fidelity.stored import Copied, Curve, Distance, Fidelity, Layout, TwoSample
from rarefill.progress import Progress
from rarefill.rundir import RunDir
from rarefill.scene import Kind, Sample
from rarefill.seeds import Stage
from rarefill.windows import Place, Windows

MOST = 400
"""Objects of a category, real and painted each, and scenes that are looked at; an even sample where there are more."""
MOST_EMPTY = 150
SCENE_PX = 256
SEAM_DRAWINGS, FLOOR_DRAWINGS = 2, 1
"""Of the sides on which the small network learns and judges; each is used both ways."""
_APART = 1 << 40
"""Added to the numbers of one dataset's images, so that they are none of another's."""


def measure(
    folder: RunDir,
    own: Dataset,
    real: Dataset,
    features: Features,
    progress: Progress,
    *,
    pixels: bool = True,
) -> Fidelity:
    """Every figure of a finished run.

    Args:
        folder: of the run.
        own: what it was made from.
        real: what to compare with; may be the same.
        features: what pictures are compared by.
        progress: shows the steps.
        pixels: train the small network on windows too, which takes a minute or so.

    Raises:
        DataError: an image is gone, or the real data lacks a category that the run made.
        RunError: the run holds no painted object.
    """
    samples = list(folder.samples(own))
    names = [n for n in own.names if any(_own(s, n) for s in samples)]
    if not names:
        raise RunError(f"{folder.path} holds no painted object to compare")
    for name in names:
        real.category_row(name)
    same = real.digest == own.digest
    steps = len(names) * (3 + pixels) + 1
    with progress.bar("Fidelity", steps, "steps") as bar:
        found = [
            _category(folder, own, real, samples, name, features, bar.advance, pixels=pixels)
            for name in names
        ]
        scenes = _scenes(folder, real, samples, features, same=same)
        bar.advance()
    return Fidelity(
        version=__version__,
        run=str(folder.manifest()["sha256"]["records.jsonl"])[:16],
        reference=real.path.name,
        own_data=same,
        features=features.name,
        distances=tuple(d for f in (*found, scenes) for d in f.distances),
        two_samples=tuple(t for f in (*found, scenes) for t in f.two_samples),
        layouts=tuple(one for f in found for one in f.layouts),
        curves=tuple(c for f in found for c in f.curves),
        copies=tuple(c for f in found for c in f.copies),
        notes=_notes(same, features),
    )


def _notes(same: bool, features: Features) -> tuple[str, ...]:  # noqa: FBT001
    notes = []
    if same:
        notes.append(
            "The real data is what the run was made from: painted objects share its exemplars and backgrounds, so they look "
            "nearer than they are. Held-out real data tells more."
        )
    if "checker" in features.name:
        notes.append(
            "The features come from the network that chose which paints to keep, which flatters them."
        )
    return tuple(notes)


def _part(**held: object) -> Fidelity:
    return Fidelity(version="", run="", reference="", own_data=False, features="", **held)  # type: ignore[arg-type]


def _own(sample: Sample, name: str) -> list[int]:
    """The painted objects of one category, by their place."""
    return [i for i, o in enumerate(sample.instances) if o.annotation is None and o.category == name]


def _category(
    folder: RunDir,
    own: Dataset,
    real: Dataset,
    samples: Sequence[Sample],
    name: str,
    features: Features,
    advance: Callable[[], None],
    *,
    pixels: bool,
) -> Fidelity:
    rng = seeds.rng(0, Stage.CHECK, own.category_row(name))
    painted = _painted_windows(folder, samples, name)
    theirs = _real_windows(real, name)
    empty = windows.background(
        real,
        name,
        frozenset(int(i) for i in np.unique(theirs.image)),
        theirs.take(_some(len(theirs), MOST_EMPTY)),
        rng,
    )
    advance()
    groups = _grouped(own, real, painted, theirs)
    told: list[TwoSample] = []
    gaps: list[Distance] = []
    curves: list[Curve] = []
    for view, side in (("object", "objects"), ("window", "pixels")):
        x, y, z = (features(getattr(w, side)) for w in (painted, theirs, empty))
        scale = Scale.of(np.concatenate([y, z]) if len(z) else y)
        x, y, z = (scale(v) if len(v) else v for v in (x, y, z))
        gaps.append(_distance(name, view, x, y, z, groups, rng))
        test = two_sample.told(y, x, groups[1], groups[0], rng)
        if test is not None:
            told.append(_told(name, view, "features", test))
        if view == "object" and (grown := saturation.saturation(x, y, rng)) is not None:
            curves.append(
                Curve(category=name, points=grown.points, last=grown.last, stop=grown.stop, says=grown.says)
            )
    advance()
    alike = copies.find(painted, theirs if real.digest == own.digest else _real_windows(own, name))
    advance()
    if pixels:
        told += _by_pixels(name, own, painted, theirs, groups)
        advance()
    shapes = layouts_compared.compared(_real_boxes(real, name), _painted_boxes(samples, name), rng)
    return _part(
        distances=tuple(gaps),
        two_samples=tuple(told),
        curves=tuple(curves),
        copies=(_copied(name, alike),),
        layouts=tuple(
            Layout(
                category=name, name=c.name, real=c.real, painted=c.painted, distance=c.distance, floor=c.floor
            )
            for c in shapes
        ),
    )


def _some(n: int, most: int) -> NDArray[np.int64]:
    return (
        np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(np.int64))
        if n
        else np.zeros(0, np.int64)
    )


def _painted_windows(folder: RunDir, samples: Sequence[Sample], name: str) -> Windows:
    """Windows of painted objects; `image` is the number of the run's picture."""
    places = [
        (s, Place(s.number, int(s.instances[i].how.get("exemplar", -1)), s.instances[i].box))
        for s in samples
        for i in _own(s, name)
    ]
    files = {s.number: s.file_name for s, _ in places}
    chosen = [places[i][1] for i in _some(len(places), MOST)]
    return windows.cut(lambda number: pictures.read(folder.images / files[number]), chosen)


def _real_windows(real: Dataset, name: str) -> Windows:
    """Windows of real objects; `image` is the image's id."""
    rows = real.rows_of(name)
    rows = rows[_some(len(rows), MOST)]
    rows = rows[np.argsort(real.annotations.image[rows], kind="stable")]
    row_of = {int(i): n for n, i in enumerate(real.images.id)}
    places = [
        Place(int(real.images.id[real.annotations.image[r]]), int(real.annotations.id[r]), real.box(int(r)))
        for r in rows
    ]
    return windows.cut(lambda image: real.read(row_of[image]), places)


def _grouped(own: Dataset, real: Dataset, painted: Windows, theirs: Windows) -> tuple[Groups, Groups]:
    """Pictures of painted and real windows as numbers: a painted one's is that of its exemplar, where it has one.

    Rows that share pixels are then on one side: where the run was made from this very data, an object and its copy are.
    """
    home = dict(zip(own.annotations.id.tolist(), own.images.id[own.annotations.image].tolist(), strict=True))
    apart = 0 if own.digest == real.digest else _APART
    own_groups = [
        home.get(int(a), int(n)) + apart for a, n in zip(painted.annotation, painted.image, strict=True)
    ]
    return np.array(own_groups, dtype=np.int64), theirs.image


def _distance(
    name: str,
    view: str,
    x: Floats,
    y: Floats,
    z: Floats,
    groups: tuple[Groups, Groups],
    rng: np.random.Generator,
) -> Distance:
    enough = min(len(x), len(y)) >= 2
    found = distances.kid(x, y, groups[0], groups[1], rng) if enough else None
    floor = distances.halves(y, groups[1], rng) if len(y) >= 4 else np.zeros(0)
    mark = None
    if len(z) >= 2 and len(y) >= 2:
        mark = distances.mmd2(distances.kernel(z, z), distances.kernel(y, y), distances.kernel(z, y))
    return Distance(
        category=name,
        view=view,
        value=_r(found.value) if found else float("nan"),
        se=_r(found.se) if found and np.isfinite(found.se) else None,
        floor=_r(float(floor.mean())) if len(floor) else None,
        floor_se=_r(float(floor.std())) if len(floor) else None,
        empty=None if mark is None else _r(mark),
        real=len(y),
        painted=len(x),
    )


def _told(name: str, view: str, how: str, test: two_sample.Told) -> TwoSample:
    floor = _r(test.floor) if np.isfinite(test.floor) else None
    return TwoSample(
        category=name, view=view, how=how, auc=_r(test.auc), low=_r(test.low), high=_r(test.high), floor=floor
    )


def _by_pixels(
    name: str, own: Dataset, painted: Windows, theirs: Windows, groups: tuple[Groups, Groups]
) -> list[TwoSample]:
    """A small network that is trained to see seams and grain, as in docs/fidelity.md; its floor is real against real."""
    rng = seeds.rng(1, Stage.CHECK, own.category_row(name))
    value = _seams(painted, theirs, groups, rng, SEAM_DRAWINGS)
    if value is None:
        return []
    names = np.unique(groups[1])
    half = np.isin(groups[1], rng.permutation(names)[: len(names) // 2])
    sides = groups[1][half], groups[1][~half]
    floor = _seams(theirs.take(half), theirs.take(~half), sides, rng, FLOOR_DRAWINGS)
    return [
        TwoSample(
            category=name,
            view="window",
            how="pixels",
            auc=_r(value[0]),
            low=_r(value[1]),
            high=_r(value[2]),
            floor=None if floor is None else _r(floor[0]),
        )
    ]


def _seams(
    painted: Windows, real: Windows, groups: tuple[Groups, Groups], rng: np.random.Generator, times: int
) -> tuple[float, float, float] | None:
    scene = np.concatenate([groups[1], groups[0]])
    pool = seams.Pool(
        np.concatenate([seams.about(real), seams.about(painted)]),
        np.repeat([False, True], [len(real), len(painted)]),
        scene,
        scene,
    )
    trials = seams.trials(pool, times=times)
    return distances.mean_auc(trials, rng) if trials else None


def _copied(name: str, found: copies.Copies) -> Copied:
    return Copied(
        category=name,
        painted=len(found.alike),
        near=None if found.mark is None else int(found.near.sum()),
        mark=None if found.mark is None else _r(found.mark),
        median=_r(float(np.median(found.alike))),
        real_median=_r(float(np.median(found.real_alike))) if len(found.real_alike) else None,
    )


def _real_boxes(real: Dataset, name: str) -> Boxes:
    rows = real.rows_of(name)
    image = real.annotations.image[rows].astype(np.int64)
    frame = np.stack([real.images.width[image], real.images.height[image]], axis=1).astype(np.float64)
    _, per_image = np.unique(image, return_counts=True)
    return Boxes(real.annotations.boxes[rows], frame, image, per_image.astype(np.float64))


def _painted_boxes(samples: Sequence[Sample], name: str) -> Boxes:
    """New objects alone: a redrawn one has the box of the real one."""
    held = [
        (s, o)
        for s in samples
        for o in s.instances
        if o.annotation is None and o.category == name and o.goal.kind is Kind.NEW
    ]
    on = {s.number for s, _ in held}
    # An image shows its own objects of the category as well: density is of all of them.
    shown = Counter(s.number for s in samples if s.number in on for o in s.instances if o.category == name)
    return Boxes(
        np.array([o.box.xyxy for _, o in held]).reshape(-1, 4),
        np.array([(s.width, s.height) for s, _ in held], dtype=np.float64).reshape(-1, 2),
        np.array([s.number for s, _ in held], dtype=np.int64),
        np.array(list(shown.values()), dtype=np.float64),
    )


def _scenes(
    folder: RunDir, real: Dataset, samples: Sequence[Sample], features: Features, *, same: bool
) -> Fidelity:
    """Whole images with painted objects against whole real images."""
    rng = seeds.rng(2, Stage.CHECK)
    filled = [s for s in samples if any(o.annotation is None for o in s.instances)]
    chosen = [filled[i] for i in _some(len(filled), MOST)]
    rows = _some(len(real.images), MOST)
    x = features(_shrunk([pictures.read(folder.images / s.file_name) for s in chosen]))
    y = features(_shrunk([real.read(int(r)) for r in rows]))
    scale = Scale.of(y)
    x, y = scale(x), scale(y)
    apart = 0 if same else _APART  # a background and the real image that it is are on one side
    groups = np.array([s.image + apart for s in chosen], dtype=np.int64), rows
    test = two_sample.told(y, x, groups[1], groups[0], rng)
    return _part(
        distances=(_distance("", "scene", x, y, np.zeros((0, 0)), groups, rng),),
        two_samples=() if test is None else (_told("", "scene", "features", test),),
    )


def _shrunk(images: Sequence[NDArray[np.generic]]) -> NDArray[np.uint8]:
    """Whole images brought to one square, uint8 (N, 256, 256, 3)."""
    size = (SCENE_PX, SCENE_PX)
    small = [cv2.resize(pictures.rgb(p), size, interpolation=cv2.INTER_AREA) for p in images]
    return np.stack(small).astype(np.uint8) if small else np.zeros((0, SCENE_PX, SCENE_PX, 3), np.uint8)


def _r(value: float) -> float:
    return round(float(value), 4)
