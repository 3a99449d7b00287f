"""Which images are held back from which model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.seeds import Stage, rng


def assign(dataset: Dataset, folds: int, rare: Sequence[str], seed: int) -> NDArray[np.int32]:
    """The fold of each image, int32 (N,): its objects are judged by the model that trains on all other folds.

    Categories are dealt out from the rarest to the most frequent, those to be painted first, image by image in an
    order that the seed names: every fold gets its share of each category's objects (iterative stratification).
    """
    n = len(dataset.images)
    order = rng(seed, Stage.FIT).permutation(n)
    counts = np.zeros((n, len(dataset.names)), dtype=np.int64)
    real = ~dataset.annotations.crowd
    np.add.at(counts, (dataset.annotations.image[real], dataset.annotations.category[real]), 1)
    fold = np.full(n, -1, dtype=np.int32)
    held = np.zeros((folds, len(dataset.names)), dtype=np.int64)
    images = np.zeros(folds, dtype=np.int64)
    totals = counts.sum(axis=0)
    first = sorted(range(len(totals)), key=lambda c: (dataset.names[c] not in rare, int(totals[c]), c))
    for category in [*first, None]:
        shown = counts[:, category] > 0 if category is not None else np.ones(n, dtype=bool)
        for image in order[(shown & (fold < 0))[order]]:
            objects = held[:, category] if category is not None else images
            k = min(range(folds), key=lambda f: (int(objects[f]), int(images[f]), f))
            fold[image] = k
            held[k] += counts[image]
            images[k] += 1
    return fold
