"""Can a linear classifier tell two sets of features apart, on pictures that it did not learn from?

Source: Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2017; the score here is the AUC, 0.5 for no difference.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rarefill.fidelity.distances import Floats, Groups, Trial, auc, mean_auc

FOLDS = 5
_RIDGE = 10.0
"""Against rows of deviation 1: with a hundred rows of a hundred numbers a weaker one learns them by heart."""
_FLOORS = 20


class Told(NamedTuple):
    """How well two sets are told apart.

    Attributes:
        auc: 0.5 is guessing, 1 always right.
        low: of the 95 % interval, by drawing pictures anew.
        high: its other end.
        floor: the same of two halves of the real set, on average over halvings.
    """

    auc: float
    low: float
    high: float
    floor: float


def told(
    real: Floats, painted: Floats, real_groups: Groups, painted_groups: Groups, rng: np.random.Generator
) -> Told | None:
    """How well painted are told from real.

    Args:
        real: float64 (N, D).
        painted: float64 (M, D).
        real_groups: the pictures of the real rows; rows of one picture are never on both sides.
        painted_groups: the same of the painted ones; a picture painted into is its background.
        rng: deals out the pictures.

    Returns:
        None where there are too few pictures.
    """
    rows, groups = np.concatenate([real, painted]), np.concatenate([real_groups, painted_groups])
    labels = np.repeat([False, True], [len(real), len(painted)])
    trial = _held_out(rows, labels, groups, rng)
    if trial is None:
        return None
    value, low, high = mean_auc([trial], rng)
    floors = []
    for _ in range(_FLOORS):
        names = np.unique(real_groups)
        half = np.isin(real_groups, rng.permutation(names)[: len(names) // 2])
        again = _held_out(real, half, real_groups, rng)
        if again is not None:
            floors.append(auc(again.scores, again.labels))
    return Told(value, low, high, float(np.mean(floors)) if floors else float("nan"))


def _held_out(
    rows: Floats, labels: NDArray[np.bool_], groups: Groups, rng: np.random.Generator
) -> Trial | None:
    """Every row scored by a classifier that saw no row of its picture."""
    names = rng.permutation(np.unique(groups))
    fold_of = {int(name): n % FOLDS for n, name in enumerate(names)}
    fold = np.array([fold_of[int(g)] for g in groups])
    scores = np.full(len(rows), np.nan)
    for k in range(FOLDS):
        learn, judge = fold != k, fold == k
        kinds = labels[learn]
        if not judge.any():
            continue
        if kinds.sum() < 2 or (~kinds).sum() < 2:
            return None
        scores[judge] = _scored(rows[learn], kinds, rows[judge])
    keep = np.isfinite(scores)
    if not labels[keep].any() or labels[keep].all():
        return None
    return Trial(scores[keep], labels[keep], groups[keep])


def _scored(rows: Floats, labels: NDArray[np.bool_], others: Floats) -> Floats:
    """Ridge regression on the labels, both kinds weighing the same; how painted others look, float64 (K,)."""
    middle, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    x, y = (rows - middle) / spread, np.where(labels, 1.0, -1.0)
    weight = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * len(rows)
    offset = np.average(x, axis=0, weights=weight)
    centred = (x - offset) * np.sqrt(weight)[:, None]
    gram = centred.T @ centred + _RIDGE * np.eye(x.shape[1])
    direction = np.linalg.solve(gram, centred.T @ (y * np.sqrt(weight)))
    return np.asarray(((others - middle) / spread - offset) @ direction)
