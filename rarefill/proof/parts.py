"""Which groups go to training, validation and test: rare categories first, so that each part has of them what it can.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011) by images that hold a category, over whole groups, with one
addition: the test part's wish for a category never falls below a floor, as an improvement must be measurable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import DataError, UsageError

NAMES = ("train", "val", "test")
FLOOR = 10
"""Images of each category that the test part is to have, where half of all are no fewer."""
_HALF = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Where each image went.

    Attributes:
        part: int64 (N,), an index into NAMES.
        notes: one line for each category that does not reach a part that it should.
    """

    part: NDArray[np.int64]
    notes: tuple[str, ...]

    def images(self, name: str) -> NDArray[np.intp]:
        """Rows of one part's images."""
        return np.flatnonzero(self.part == NAMES.index(name))


def holding(dataset: Dataset) -> NDArray[np.bool_]:
    """Which image holds which category, bool (N, C); crowds do not count."""
    held = np.zeros((len(dataset.images), len(dataset.names)), dtype=bool)
    a = dataset.annotations
    held[a.image[~a.crowd], a.category[~a.crowd]] = True
    return held


def assign(
    held: NDArray[np.bool_],
    groups: NDArray[np.intp],
    shares: Sequence[float],
    names: Sequence[str],
    draw: np.random.Generator,
    *,
    floor: int = FLOOR,
) -> Parts:
    """Send every group to one part.

    Args:
        held: `holding`.
        groups: (N,), each image's group, numbered from 0 without gaps.
        shares: of the images, for training, validation and test.
        names: the categories'.
        draw: breaks ties.
        floor: images of each category that the test part is to have, as far as half of all reaches.

    Raises:
        UsageError: shares that are none.
        DataError: fewer groups than parts.
    """
    wanted = _shares(shares)
    n_groups = int(groups.max()) + 1
    n_parts = int((wanted > 0).sum())
    if n_groups < n_parts:
        raise DataError(
            f"{len(groups)} image{'s are' if len(groups) > 1 else ' is'} {n_groups} group{'s' if n_groups > 1 else ''}, and {n_parts} parts need as many; "
            "choose another --group-by, or fewer parts with --shares"
        )
    sizes = np.bincount(groups, minlength=n_groups)
    counts = np.zeros((n_groups, held.shape[1]), dtype=np.int64)
    np.add.at(counts, groups, held)
    lack = _wishes(counts.sum(axis=0), wanted, floor)
    room = wanted * len(groups)
    side = np.full(n_groups, -1)
    shuffled = draw.permutation(n_groups)

    def put(group: int, part: int) -> None:
        side[group] = part
        lack[part] -= counts[group]
        room[part] -= sizes[group]

    while (side < 0).any():
        free = shuffled[side[shuffled] < 0]
        left = counts[free].sum(axis=0)
        if left.any():
            c = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())  # the rarest that is left
            holders = free[counts[free, c] > 0]
            for group in holders[np.argsort(-counts[holders, c], kind="stable")].tolist():
                put(group, _neediest(lack[:, c], room, counts[side >= 0], side, c, wanted))
        else:
            for group in free.tolist():
                put(group, int(np.where(wanted > 0, room, -np.inf).argmax()))
    part = side[groups]
    for p in np.flatnonzero(wanted > 0).tolist():
        if not (part == p).any():
            raise DataError(
                f"no group is left for the {NAMES[p]} part; choose another --group-by or --shares"
            )
    return Parts(part, tuple(_notes(counts, side, names, wanted)))


def _shares(shares: Sequence[float]) -> NDArray[np.float64]:
    wanted = np.asarray(shares, dtype=float)
    good = wanted.shape == (3,) and (wanted >= 0).all() and wanted[0] > 0 and wanted[2] > 0
    if not good or not np.isclose(wanted.sum(), 1):
        raise UsageError(
            f"--shares takes three shares that add up to 1, training and test above 0, such as 0.7,0.15,0.15; "
            f"got {','.join(f'{s:g}' for s in shares)}"
        )
    return wanted


def _wishes(total: NDArray[np.int64], wanted: NDArray[np.float64], floor: int) -> NDArray[np.float64]:
    """Images of each category that each part wishes for, (3, C)."""
    wish = wanted[:, None] * total
    least = np.minimum(floor, np.floor(_HALF * total))
    test = np.maximum(wish[2], least)
    rest = wanted[:2] / wanted[:2].sum()
    return np.vstack([rest[:, None] * (total - test), test[None]])


def _neediest(
    lack: NDArray[np.float64],
    room: NDArray[np.float64],
    counts: NDArray[np.int64],
    side: NDArray[np.int64],
    category: int,
    wanted: NDArray[np.float64],
) -> int:
    """The part for a group: one that has nothing of the category yet (training before test before validation), else where most is lacking."""
    placed = side[side >= 0]
    for part in (0, 2, 1):
        if wanted[part] > 0 and not counts[placed == part, category].any():
            return part
    score = np.where(wanted > 0, lack, -np.inf)
    top = np.flatnonzero(score == score.max())
    return int(top[np.argmax(room[top])])


def _notes(
    counts: NDArray[np.int64], side: NDArray[np.int64], names: Sequence[str], wanted: NDArray[np.float64]
) -> list[str]:
    out = []
    for c, name in enumerate(names):
        n = int((counts[:, c] > 0).sum())
        missing = [NAMES[p] for p in range(3) if wanted[p] > 0 and n and not counts[side == p, c].any()]
        if missing:
            out.append(f"{name} stands in {n} group{'s' if n > 1 else ''}: none in {' and '.join(missing)}")
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Shots:
    """A few-shot study's images: rows.

    Attributes:
        few: exactly K images that hold the rare category, and others up to the size wanted.
        oracle: the same size with up to four times as many rare images, those K among them.
        rest: images without the rare category in neither: free backgrounds.
        rare_few, rare_oracle: how many images hold the rare category in `few` and in `oracle`.
    """

    few: NDArray[np.intp]
    oracle: NDArray[np.intp]
    rest: NDArray[np.intp]
    rare_few: int
    rare_oracle: int


def shots(
    holds: NDArray[np.bool_],
    pool: NDArray[np.intp],
    k: int,
    n_images: int,
    draw: np.random.Generator,
    name: str,
) -> Shots:
    """Draw K images that hold a rare category, and others that do not.

    Args:
        holds: (N,), whether each image of the dataset holds it.
        pool: rows of the training part.
        k: images that hold it.
        n_images: of the training file in all.
        draw: where chance comes from.
        name: the category's, for errors.

    Raises:
        DataError: the training part has fewer.
        UsageError: k above n_images.
    """
    if k > n_images:
        raise UsageError(f"--k {k} is more than --train-images {n_images}")
    mixed = pool[draw.permutation(len(pool))]
    rare, plain = mixed[holds[mixed]], mixed[~holds[mixed]]
    if len(rare) < k:
        raise DataError(
            f"only {len(rare)} image{' ' if len(rare) == 1 else 's '}of the training part hold{'s' * (len(rare) == 1)} {name}, and --k asks for {k}; "
            "lower --k, or leave the test part less with --floor"
        )
    size = min(n_images, k + len(plain))
    many = min(4 * k, len(rare), size)
    few = np.sort(np.concatenate([rare[:k], plain[: size - k]]))
    oracle = np.sort(np.concatenate([rare[:many], plain[: size - many]]))
    return Shots(few, oracle, np.sort(plain[size - k :]), k, many)


def summary(dataset: Dataset, rows: NDArray[np.intp]) -> Mapping[str, int]:
    """Objects of each category on some images."""
    a = dataset.annotations
    inside = np.isin(a.image, rows) & ~a.crowd
    counts = np.bincount(a.category[inside], minlength=len(dataset.names))
    return dict(zip(dataset.names, counts.tolist(), strict=True))
