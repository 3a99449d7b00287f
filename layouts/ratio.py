"""How much likelier a place is among real ones than among random ones: a linear model of the log of that ratio.

Real places are few; random ones are unlabelled: any of them might do as well. What separates the two, both weighing
the same, is the log of p(x | real) / p(x | random), whatever share of the random places is good (Elkan & Noto, KDD
2008: training a classifier from positive and unlabelled data gives the order, and the ratio up to that share).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import BoolArray, FloatArray

_PENALTY = 0.1
"""Of half the squared weights, in units of a log-likelihood that averages over places."""
_LONE = 0.03
"""The same where one group is alone."""
_PENALTIES = (3.0, 0.3, 0.03)
"""Those under which each group of features shows what it is worth alone."""
_LEAST = 0.6
"""Of the most telling group's worth: what every other group is granted."""
_GRANTED = {"image": 0.5, "rings": 0.35, "directions": 0.7}
"""Of each feature's weight, by its group, 1 for the others: many features of looks tell most of all what the few images
with the category look like. Chosen on flights outside the test (docs/context.md)."""
_SLOPES = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
_FOLDS = 10
_FOLDS_INSIDE = 5  # where group is compared with group
_FEWEST = 3  # images with real places: below, there is nothing to hold back
_UNTRIED = 0.2  # the slope then
_CLEARLY = 2.0
_STEPS = 25
_FAR = 4.0  # deviations: further out a feature says no more

_Trust = Callable[[FloatArray, "Places"], FloatArray]
"""How far each feature is trusted, float64 (F,), by standardised features and the places that have them."""


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

    def __call__(self, features: FloatArray) -> FloatArray:
        """Log of the ratio, float64 (n,), of float64 (n, F)."""
        z = (features - self.middle) * self.scale
        np.minimum(np.maximum(z, -_FAR, out=z), _FAR, out=z)
        said = z @ self.weights + self.bias
        unknown = np.isnan(said)
        if unknown.any():
            said[unknown] = _standard(features[unknown], self.middle, self.scale) @ self.weights + self.bias
        return np.asarray(said)


def fit(places: Places, groups: NDArray[np.str_]) -> Ratio:
    """A model that trusts each group of features, and itself, as far as images say that it did not see.

    A group's weights are the freer, the likelier the held-back places are by that group alone; those that tell what
    few images look like are less free from the first. The whole is then made flatter by a slope: the one under which
    held-back places are surely likeliest, by one error of that mean. So a category without places of its own has log
    ratios near 0. Where one group alone is better by two errors, its model and that of all are averaged.

    Args:
        places: real and random ones.
        groups: (F,), the name of each feature's group.
    """
    random = np.where(places.real, 0, places.weight)
    middle, scale = _moments(places.features, random / random.sum())
    x = _standard(places.features, middle, scale)
    if len(np.unique(places.image[places.real])) < _FEWEST:
        weights = _UNTRIED * _weights(x, places, _granted(groups), _PENALTY)
    else:
        together = _sloped(x, places, lambda x, seen: _trust(x, seen, groups), _PENALTY)
        each = [_sloped(x, places, _only(groups == group), _LONE) for group in dict.fromkeys(groups.tolist())]
        better = [one for one in each if _sure(one.gains - together.gains, _CLEARLY) > 0]
        best = max([together, *better], key=lambda found: _sure(found.gains))
        weights = (together.weights + best.weights) / 2
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


def _folds(places: Places, most: int) -> Sequence[BoolArray]:
    """Which places each fold holds back: whole images, those with real places spread over the folds."""
    with_real = np.unique(places.image[places.real])
    n = min(most, len(with_real))
    others = np.setdiff1d(places.image, with_real)
    fold = {int(image): i % n for images in (with_real, others) for i, image in enumerate(images.tolist())}
    of = np.array([fold[int(image)] for image in places.image])
    return [of == i for i in range(n)]


def _trust(x: FloatArray, places: Places, groups: NDArray[np.str_]) -> FloatArray:
    """float64 (F,), at most 1: what each feature is multiplied by; what is granted where no group is worth anything."""
    folds = _folds(places, _FOLDS_INSIDE)
    worth = np.zeros(x.shape[1])
    for group in set(groups.tolist()):
        own = groups == group
        gains = np.zeros(len(_PENALTIES))
        for held in folds:
            b = None
            for i, penalty in enumerate(_PENALTIES):
                b = _fitted(x[:, own], places, ~held, penalty, b)
                gains[i] += _gain(x[held][:, own] @ b[:-1] + b[-1], places, held)
        worth[own] = max(0.0, float(gains.max()))
    trust = _granted(groups)
    return trust * np.sqrt(np.maximum(worth / worth.max(), _LEAST)) if worth.any() else trust


def _granted(groups: NDArray[np.str_]) -> FloatArray:
    return np.array([_GRANTED.get(group, 1.0) for group in groups.tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class _Sloped:
    """Weights and a bias, float64 (F + 1,), and what they gain on the places of each fold held back."""

    gains: FloatArray
    weights: FloatArray


def _sloped(x: FloatArray, places: Places, trust: _Trust, penalty: float) -> _Sloped:
    """Trust is learned anew without each fold: what chose it would speak well of it."""
    folds = _folds(places, _FOLDS)
    gains = np.zeros((len(_SLOPES), len(folds)))
    for f, held in enumerate(folds):
        kept = Places(places.features[~held], places.real[~held], places.image[~held], places.weight[~held])
        b = _weights(x[~held], kept, trust(x[~held], kept), penalty)
        said = x[held] @ b[:-1] + b[-1]
        gains[:, f] = [_gain(slope * said, places, held) for slope in _SLOPES]
    at = int(np.argmax([_sure(each) for each in gains]))
    return _Sloped(gains[at], _SLOPES[at] * _weights(x, places, trust(x, places), penalty))


def _sure(gains: FloatArray, errors: float = 1.0) -> float:
    """A mean over folds, less so many of its errors."""
    return float(gains.mean() - errors * gains.std(ddof=1) / np.sqrt(len(gains)))


def _only(group: BoolArray) -> _Trust:
    """Trust in one group's features alone."""
    return lambda _x, _places: group.astype(np.float64)


def _weights(x: FloatArray, places: Places, trust: FloatArray, penalty: float) -> FloatArray:
    """What features weigh that are trusted so far, and the bias."""
    used = trust > 0
    b = _fitted(x[:, used] * trust[used], places, np.ones(len(x), dtype=bool), penalty)
    out = np.zeros(x.shape[1] + 1)
    out[:-1][used], out[-1] = b[:-1] * trust[used], b[-1]
    return out


def _fitted(
    x: FloatArray, places: Places, kept: BoolArray, penalty: float, start: FloatArray | None = None
) -> FloatArray:
    real = places.real[kept]
    return logistic(x[kept], real, _balanced(places.weight[kept], real), penalty, start)


def _gain(log_ratio: FloatArray, places: Places, held: BoolArray) -> float:
    """Log-likelihood of a fold's places, both kinds weighing 1, beyond that of knowing nothing."""
    real = places.real[held]
    likely = -np.logaddexp(0, np.where(real, -log_ratio, log_ratio)) + np.log(2)
    return float(_balanced(places.weight[held], real) @ likely)
