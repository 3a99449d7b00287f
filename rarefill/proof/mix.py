"""The training list of one arm: which images a trainer sees, real and generated, and how often.

Every arm's list has the same length, so a trainer that counts epochs takes as many steps with each as one that counts
steps. Nothing but the list differs between arms.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import DataError, RunError
from rarefill.exporters import original
from rarefill.files import write_bytes
from rarefill.geometry import FloatArray
from rarefill.proof import parts
from rarefill.proof.arms import Spec

PASSES = 4
"""How long a list is, in real images."""
_REPEATED = 0.5
"""Share that rare images take of the real ones that `repeat` draws: what generated images take of a list at ratio 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """A training list.

    Attributes:
        real: the real images; their categories are the list's.
        made: the generated images, if any.
        rows: int64 (L,), a row of `real`, or one of `made` where `synthetic` says so.
        synthetic: bool (L,).
    """

    real: Dataset
    made: Dataset | None
    rows: NDArray[np.int64]
    synthetic: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, n: int) -> tuple[Dataset, int]:
        """The dataset and the row of one entry."""
        made = self.made if self.synthetic[n] else None
        return made or self.real, int(self.rows[n])

    def labels(self, dataset: Dataset, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Category rows of some annotations, in the list's own categories."""
        translated = np.array([self.real.category_row(name) for name in dataset.names])
        return np.asarray(translated[dataset.annotations.category[rows]], dtype=np.int64)

    def digest(self) -> str:
        """16 hex digits that name the list."""
        h = hashlib.sha256(f"{self.real.digest} {self.made.digest if self.made else ''}".encode())
        h.update(self.rows.tobytes() + self.synthetic.tobytes())
        return h.hexdigest()[:16]


def compose(
    spec: Spec,
    real: Dataset,
    made: Dataset | None,
    rare: Sequence[str],
    draw: np.random.Generator,
    *,
    length: int,
) -> Mix:
    """An arm's list.

    Args:
        spec: the arm.
        real: the training part, or the oracle's.
        made: generated images, where the arm has them.
        rare: the categories that the study is about.
        draw: which images take what a whole number of repeats leaves over, and the order.
        length: entries.

    Raises:
        DataError: a category of the generated images is none of the real ones.
    """
    share = spec.ratio / (1 + spec.ratio) if spec.ratio is not None and made is not None else 0.0
    n_made = round(length * share)
    dealt = deal(weights(spec, real, rare), length - n_made, draw)
    rows, synthetic = dealt, np.zeros(len(dealt), dtype=bool)
    if made is not None and n_made:
        for name in made.names:
            real.category_row(name)
        more = deal(np.ones(len(made.images)), n_made, draw)
        rows = np.concatenate([rows, more])
        synthetic = np.concatenate([synthetic, np.ones(len(more), dtype=bool)])
    order = draw.permutation(len(rows))
    return Mix(real, made, rows[order], synthetic[order])


def weights(spec: Spec, real: Dataset, rare: Sequence[str]) -> FloatArray:
    """How often each real image is seen, up to a factor, float64 (N,)."""
    held = parts.holding(real)
    if spec.sampling == "rfs":
        return repeat_factors(held)
    if spec.sampling == "repeat":
        holds = held[:, [real.category_row(name) for name in rare]].any(axis=1)
        if holds.all() or not holds.any():
            return np.ones(len(held))
        return np.asarray(np.where(holds, _REPEATED / holds.sum(), (1 - _REPEATED) / (~holds).sum()))
    return np.ones(len(held))


def repeat_factors(held: NDArray[np.bool_]) -> FloatArray:
    """Repeat factors of LVIS (Gupta et al. 2019): an image takes the largest sqrt(t / f) of its categories, at least 1.

    LVIS's t of 0.001 does nothing on small data, so t is the share of images of the most frequent category.

    Args:
        held: bool (N, C), which image holds which category.
    """
    share = held.mean(axis=0)
    factor = np.sqrt(share.max(initial=0.0) / np.maximum(share, 1e-12))
    return np.asarray(np.maximum(1.0, np.where(held, factor, 0).max(axis=1, initial=0.0)))


def deal(weight: FloatArray, n: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """n rows, each as often as its weight says: rounded down or up, by one random offset (systematic sampling)."""
    if not n:
        return np.zeros(0, dtype=np.int64)
    order = draw.permutation(len(weight))
    edges = np.cumsum(weight[order]) / weight.sum() * n
    points = np.arange(n) + draw.uniform()
    at = np.minimum(np.searchsorted(edges, points, side="right"), len(weight) - 1)
    return np.asarray(order[at], dtype=np.int64)


def write(mix: Mix, folder: Path) -> tuple[Path, Path]:
    """A list as a COCO file and a folder of links, one for each entry, so that any trainer can read it.

    Returns:
        The file, and the folder that its names are relative to.

    Raises:
        RunError: the folder cannot be written.
    """
    images = folder / "images"
    sources = {id(d): original.read(d) for d in (mix.real, mix.made) if d is not None}
    ids = {name: c.id for name, c in zip(mix.real.names, mix.real.categories, strict=True)}
    encode = msgspec.json.encode
    entries: list[Any] = []
    annotations: list[Any] = []
    try:
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir(parents=True)
        for n in range(len(mix)):
            dataset, row = mix.at(n)
            path = dataset.image_path(row)
            name = f"{n + 1:06}_{path.name}"
            link(path, images / name)
            entries.append({**sources[id(dataset)].images[row], "id": n + 1, "file_name": name})
            for held in dataset.rows_in(row).tolist():
                category = ids[dataset.names[dataset.annotations.category[held]]]
                own = {"id": len(annotations) + 1, "image_id": n + 1, "category_id": category}
                annotations.append({**sources[id(dataset)].annotations[held], **own})
    except OSError as e:
        raise RunError(f"{images}: cannot be written: {e.strerror or e}; choose another --out") from e
    top = {**sources[id(mix.real)].top, "images": entries, "annotations": annotations}
    path = folder / "train.json"
    write_bytes(path, encode(top))
    return path, images


def link(path: Path, place: Path) -> None:
    """A file under another name: a symbolic link, or a copy where the system has none."""
    try:
        place.symlink_to(path.resolve())
    except (OSError, NotImplementedError):
        shutil.copyfile(path, place)


def check_rare(dataset: Dataset, rare: Sequence[str]) -> None:
    """Every rare category is there.

    Raises:
        DataError: one has no object.
    """
    for name in rare:
        if not len(dataset.rows_of(name)):
            raise DataError(
                f"{dataset.path.name}: no object of {name}, so nothing of it can be learnt or measured"
            )
