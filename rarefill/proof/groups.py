"""Which images belong together: frames of one sequence, pictures of one site, near-duplicates. No group may be torn.

A test image that is almost a training image measures memory, not skill; and images that are alike are no independent
witnesses, so whole groups are drawn when intervals are made.
"""

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import engine, pictures
from rarefill.dataset import Dataset
from rarefill.errors import DataError, UsageError
from rarefill.progress import SILENT, Progress

HASH_SIDE = 16
NEAR_BITS = 38
"""Of 256: pictures whose hashes differ in so many bits or fewer are near-duplicates; unrelated ones differ in some 128."""
_BLOCK = 2048

Hashes = NDArray[np.bool_]
"""bool (N, HASH_SIDE * HASH_SIDE)."""


def find(dataset: Dataset, by: str, progress: Progress = SILENT) -> NDArray[np.intp]:
    """Each image's group, numbered from 0 in the file's order.

    Args:
        dataset: the images.
        by: `similar` (near-duplicates), `none` (each image alone), `key=NAME` (a key of the image's entry), or a regular
            expression that names a group by what it finds in the file name, or by its first bracket.
        progress: counts the images that are looked at.

    Raises:
        UsageError: no such key, no regular expression, or one that finds nothing in a name.
        DataError: an image cannot be read.
    """
    if by == "none":
        return np.arange(len(dataset.images))
    if by == "similar":
        return similar(hashes(dataset, progress))
    if by.startswith("key="):
        return _numbered(_keys(dataset, by.removeprefix("key=")))
    return _numbered(_found(dataset, by))


def describe(by: str) -> str:
    """The rule in words."""
    words = {"none": "each image alone", "similar": "near-duplicates by perceptual hash"}
    return words.get(by, f"the image's {by}" if by.startswith("key=") else f"file names by {by!r}")


def hashes(dataset: Dataset, progress: Progress = SILENT) -> Hashes:
    """Every image's difference hash (Krawetz 2013): whether brightness rises from left to right, on a coarse grid."""

    def one(image: int) -> NDArray[np.bool_]:
        grey = cv2.cvtColor(pictures.rgb(dataset.read(image)), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
        return np.asarray(small[:, 1:] > small[:, :-1]).ravel()

    found = []
    with progress.bar("looking for near-duplicates", len(dataset.images), "images") as bar:
        for bits in engine.run(one, range(len(dataset.images))):
            found.append(bits)
            bar.advance()
    return np.stack(found)


def similar(bits: Hashes, near: int = NEAR_BITS) -> NDArray[np.intp]:
    """Groups of pictures that near-duplicates join, one after another."""
    parent = np.arange(len(bits))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = int(parent[n])
        return n

    for a, b in near_pairs(bits, bits, near):
        one, other = root(a), root(b)
        parent[max(one, other)] = min(one, other)
    return _numbered([root(n) for n in range(len(bits))])


def near_pairs(some: Hashes, others: Hashes, near: int = NEAR_BITS) -> list[tuple[int, int]]:
    """Rows of near-duplicates, by blocks: signs multiplied count the bits that agree."""
    signs = [np.where(bits, 1, -1).astype(np.float32) for bits in (some, others)]
    least = some.shape[1] - 2 * near
    out: list[tuple[int, int]] = []
    for at in range(0, len(some), _BLOCK):
        agree = signs[0][at : at + _BLOCK] @ signs[1].T
        rows, columns = np.nonzero(agree >= least)
        out += zip((rows + at).tolist(), columns.tolist(), strict=True)
    return out


def _numbered(names: list[Any]) -> NDArray[np.intp]:
    number: dict[Any, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.intp)


def _keys(dataset: Dataset, key: str) -> list[str]:
    if dataset.format != "coco":
        raise UsageError(
            f"--group-by key={key}: YOLO images have no keys; give a regular expression on names"
        )
    entries = {entry["id"]: entry for entry in dataset.source()["images"]}
    out = []
    for number in dataset.images.id.tolist():
        entry = entries[number]
        if key not in entry:
            raise UsageError(
                f"--group-by key={key}: the image with id {number} has no such key; it has {', '.join(entry)}"
            )
        out.append(str(entry[key]))
    return out


def _found(dataset: Dataset, pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as e:
        raise UsageError(
            f"--group-by takes similar, none, key=NAME or a regular expression, got {pattern!r}: {e}"
        ) from None
    out = []
    for name in dataset.images.file_name:
        found = compiled.search(name)
        if found is None:
            raise UsageError(f"--group-by {pattern!r} finds nothing in {name!r}")
        out.append(found.group(1 if compiled.groups else 0) or "")
    return out


def refuse_shared(train: Dataset, test: Dataset) -> None:
    """Refuse a test part that holds training pictures.

    Raises:
        DataError: some image files are on both sides.
    """
    on_both = {train.image_path(n).resolve() for n in range(len(train.images))} & {
        test.image_path(n).resolve() for n in range(len(test.images))
    }
    if on_both:
        name = min(path.name for path in on_both)
        raise DataError(
            f"{len(on_both)} images of {train.path.name} are in {test.path.name} too, such as {name!r}: "
            "what was trained on cannot be a test; 'rarefill split' makes parts that share none"
        )
