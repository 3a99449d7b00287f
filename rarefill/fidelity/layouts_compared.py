"""Size, shape, place and density of painted objects beside real ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import ks_2samp

from rarefill.fidelity.distances import Floats, Groups

_FLOORS = 30
UNITS = {
    "size": "px",
    "aspect": "width / height",
    "across": "share of width",
    "down": "share of height",
    "per image": "objects",
}


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Where objects of one category are.

    Attributes:
        boxes: float64 (N, 4).
        frame: float64 (N, 2), width and height of each one's image.
        image: int64 (N,), which image.
        per_image: float64 (K,), objects on each image that has any.
    """

    boxes: Floats
    frame: Floats
    image: Groups
    per_image: Floats

    def columns(self) -> Mapping[str, tuple[Floats, Groups]]:
        """What is compared, each with the image of every value."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        centre = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / self.frame
        return {
            "size": (np.sqrt(sides.prod(axis=1)), self.image),
            "aspect": (sides[:, 0] / sides[:, 1], self.image),
            "across": (centre[:, 0], self.image),
            "down": (centre[:, 1], self.image),
            "per image": (self.per_image, np.arange(len(self.per_image))),
        }


@dataclass(frozen=True, slots=True)
class Compared:
    """One statistic.

    Attributes:
        name: as in `UNITS`.
        real: quarter, median and three quarters.
        painted: the same.
        distance: the largest gap between the two distributions' running shares, 0 to 1 (Kolmogorov and Smirnov).
        floor: the same between two halves of the real ones, on average over halvings.
    """

    name: str
    real: tuple[float, float, float]
    painted: tuple[float, float, float]
    distance: float
    floor: float


def compared(real: Boxes, painted: Boxes, rng: np.random.Generator) -> list[Compared]:
    """Every statistic; none where one side has no object."""
    if not len(real.boxes) or not len(painted.boxes):
        return []
    theirs, own = real.columns(), painted.columns()
    return [
        Compared(
            name,
            _quarters(values),
            _quarters(own[name][0]),
            round(float(ks_2samp(values, own[name][0]).statistic), 4),
            _floor(values, groups, rng),
        )
        for name, (values, groups) in theirs.items()
    ]


def _quarters(values: Floats) -> tuple[float, float, float]:
    low, middle, high = (round(float(v), 4) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return low, middle, high


def _floor(values: Floats, groups: Groups, rng: np.random.Generator) -> float:
    names, found = np.unique(groups), []
    for _ in range(_FLOORS):
        half = np.isin(groups, rng.permutation(names)[: len(names) // 2])
        if half.any() and not half.all():
            found.append(float(ks_2samp(values[half], values[~half]).statistic))
    return round(float(np.mean(found)), 4) if found else float("nan")
