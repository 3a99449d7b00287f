"""How much likelier a place is among real ones than among random ones: a linear model of the log of that ratio.

Real places are few; random ones are unlabelled: any of them might do as well. What separates the two, both weighing
the same, is the log of p(x | real) / p(x | random), whatever share of the random places is good (Elkan & Noto, KDD
2008: training a classifier from positive and unlabelled data gives the order, and the ratio up to that share).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import BoolArray, FloatArray

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Of squared weights, those that are tried; all in units of a log-likelihood that averages over places."""
_FOLDS = 10
_FEWEST = 3  # images with real places: below, there is nothing to choose a penalty by
_STEPS = 25
_FAR = 4.0  # deviations: further out a feature says no more


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Real and random places.

    Attributes:
        features: float64 (n, F), NaN where unknown.
        real: bool (n,), at least one of each kind.
        image: intp (n,).
        weight: float64 (n,), above 0.
    """

    features: FloatArray
    real: BoolArray
    image: NDArray[np.intp]
    weight: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """A fitted model.

    Attributes:
        middle: float64 (F,), the random places' means.
        scale: float64 (F,), one over their deviations, 0 where all are the same.
        weights: float64 (F,).
        bias: the log ratio at the middle.
    """

    middle: FloatArray
    scale: FloatArray
    weights: FloatArray
    bias: float

    @property
    def knows_nothing(self) -> bool:
        """Whether all places are the same to it."""
        return not (self.weights.any() or self.bias)

    def __call__(self, features: FloatArray) -> FloatArray:
        """Log of the ratio, float64 (n,), of float64 (n, F)."""
        return np.asarray(_standard(features, self.middle, self.scale) @ self.weights + self.bias)


def fit(places: Places) -> Ratio:
    """A model whose penalty was chosen by what it says of images that it did not see.

    Where no penalty beats knowing nothing by more than the error of that comparison, nothing is what is known: all
    places then have the log ratio 0. With real places on fewer than three images the strongest penalty is taken.
    """
    random = np.where(places.real, 0, places.weight)
    middle, scale = _moments(places.features, random / random.sum())
    x = _standard(places.features, middle, scale)
    folds = _folds(places)
    penalty: float | None = PENALTIES[0]
    if len(folds) >= _FEWEST:
        penalty = _chosen(x, places, folds)
    if penalty is None:
        return Ratio(middle, scale, np.zeros(x.shape[1]), 0.0)
    weights = logistic(x, places.real, _balanced(places.weight, places.real), penalty)
    return Ratio(middle, scale, weights[:-1], float(weights[-1]))


def logistic(
    x: FloatArray, real: BoolArray, weight: FloatArray, penalty: float, start: FloatArray | None = None
) -> FloatArray:
    """Ridge logistic regression by Newton's method; the bias, which stands last, goes free.

    Args:
        x: float64 (n, F).
        real: bool (n,).
        weight: float64 (n,).
        penalty: of half the squared weights.
        start: float64 (F + 1,), a guess.
    """
    z = np.column_stack([x, np.ones(len(x))])
    ridge = np.append(np.full(x.shape[1], penalty), 1e-9)
    b = np.zeros(z.shape[1]) if start is None else start.copy()
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(z @ b, -30, 30)))
        curvature = (z * (weight * p * (1 - p) + 1e-12)[:, None]).T @ z + np.diag(ridge)
        step = np.linalg.solve(curvature, z.T @ (weight * (p - real)) + ridge * b)
        b -= step
        if np.abs(step).max() < 1e-6:
            break
    return b


def _moments(features: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = np.isfinite(features)
    share = np.maximum(weight @ known, 1e-12)
    filled = np.where(known, features, 0)
    middle = weight @ filled / share
    deviation = np.sqrt(np.maximum(weight @ np.where(known, (filled - middle) ** 2, 0) / share, 0))
    return middle, np.where(deviation > 1e-5, 1 / np.maximum(deviation, 1e-5), 0)


def _standard(features: FloatArray, middle: FloatArray, scale: FloatArray) -> FloatArray:
    """Unknown features are taken for the middle."""
    z = (features - middle) * scale
    z[np.isnan(z)] = 0
    return np.minimum(np.maximum(z, -_FAR), _FAR)


def _balanced(weight: FloatArray, real: BoolArray) -> FloatArray:
    """Both kinds weigh 1 in all."""
    totals = np.where(real, weight[real].sum(), weight[~real].sum())
    return np.asarray(weight / np.maximum(totals, 1e-12))


def _folds(places: Places) -> Sequence[NDArray[np.bool_]]:
    """Which places each fold holds back: whole images, the real places spread over at most ten folds."""
    with_real = np.unique(places.image[places.real])
    n = min(_FOLDS, len(with_real))
    others = np.setdiff1d(places.image, with_real)
    fold = {int(image): i % n for images in (with_real, others) for i, image in enumerate(images.tolist())}
    of = np.array([fold[int(image)] for image in places.image])
    return [of == i for i in range(n)]


def _chosen(x: FloatArray, places: Places, folds: Sequence[NDArray[np.bool_]]) -> float | None:
    """The penalty under which held-back places are likeliest; None where none is clearly better than nothing."""
    gains = np.zeros((len(PENALTIES), len(folds)))
    for f, held in enumerate(folds):
        weight = _balanced(np.where(held, 0, places.weight), places.real)
        start = None
        for i, penalty in enumerate(PENALTIES):
            start = logistic(x[~held], places.real[~held], weight[~held], penalty, start)
            gains[i, f] = _gain(x[held] @ start[:-1] + start[-1], places.real[held], places.weight[held])
    best = int(np.argmax(gains.mean(axis=1)))
    error = gains[best].std(ddof=1) / np.sqrt(len(folds))
    return PENALTIES[best] if gains[best].mean() > error else None


def _gain(log_ratio: FloatArray, real: BoolArray, weight: FloatArray) -> float:
    """Log-likelihood of both kinds, each weighing 1, beyond that of knowing nothing."""
    likely = -np.logaddexp(0, np.where(real, -log_ratio, log_ratio)) + np.log(2)
    return float(_balanced(weight, real) @ likely)
