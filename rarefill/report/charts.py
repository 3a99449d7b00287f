"""The geometry of a report's charts, as numbers that its template draws: bars, maps, steps and curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.report.facts import spread

DOTS = 700
"""On one map, of each kind."""
_BINS = 16
WIDTH, HEIGHT = 340, 150
"""Of a chart with axes, in its own units: on a phone one unit is about a pixel."""
_PAD = 8


@dataclass(frozen=True, slots=True)
class ClassBar:
    """One category before and after.

    Attributes:
        name: of the category.
        real: labels of the data.
        repeated: labels of the data that the run's images show again.
        made: labels of painted objects.
        widths: of the three, in percent of the longest bar.
        asked: whether the run was to make some.
    """

    name: str
    real: int
    repeated: int
    made: int
    widths: tuple[float, float, float]
    asked: bool


def class_bars(rows: Sequence[tuple[str, int, int, int, bool]]) -> list[ClassBar]:
    """Bars of one scale: name, real, repeated, made, asked."""
    longest = max((real + again + made for _, real, again, made, _ in rows), default=1) or 1
    return [
        ClassBar(
            name,
            real,
            again,
            made,
            (round(100 * real / longest, 2), round(100 * again / longest, 2), round(100 * made / longest, 2)),
            asked,
        )
        for name, real, again, made, asked in rows
    ]


@dataclass(frozen=True, slots=True)
class Map:
    """Where objects are, one point each.

    Attributes:
        width: of the frame.
        height: of the frame.
        real: centres in the frame.
        painted: centres in the frame.
    """

    width: int
    height: int
    real: tuple[tuple[float, float], ...]
    painted: tuple[tuple[float, float], ...]


def place_map(real: NDArray[np.float64], painted: NDArray[np.float64], aspect: float) -> Map:
    """Centres in one frame.

    Args:
        real: float64 (n, 2), shares of the image's width and height.
        painted: the same.
        aspect: of the frame, width by height.
    """
    width = 300
    height = round(width / min(max(aspect, 0.4), 2.5))

    def dots(centres: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
        chosen = centres[spread(len(centres), DOTS)] * (width, height)
        return tuple((round(float(x), 1), round(float(y), 1)) for x, y in chosen)

    return Map(width, height, dots(real), dots(painted))


@dataclass(frozen=True, slots=True)
class Steps:
    """Two histograms of shares over one axis, as SVG paths.

    Attributes:
        real: path of the real objects.
        painted: path of the painted ones.
        ticks: places and words along the axis.
    """

    real: str
    painted: str
    ticks: tuple[tuple[float, str], ...]


def size_steps(real: NDArray[np.float64], painted: NDArray[np.float64]) -> Steps | None:
    """How large objects are, in pixels, on a log axis; None where there is nothing to compare.

    Args:
        real: float64 (n,), roots of areas.
        painted: the same.
    """
    both = np.concatenate([real, painted])
    if not len(real) or not len(painted) or both.min() <= 0:
        return None
    low, high = np.log(np.quantile(both, [0.0, 1.0]) * (0.95, 1.05))
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(np.log(v), edges)[0] / len(v) for v in (real, painted)]
    top = max(float(s.max()) for s in shares)
    marks = [10 ** np.floor(low / np.log(10)) * m * 10**k for k in range(5) for m in (1, 2, 5)]
    ticks = [(_across(np.log(m), low, high), f"{m:g}") for m in marks if low <= np.log(m) <= high]
    if len(ticks) < 2:
        ticks = [(_across(e, low, high), f"{np.exp(e):.0f}") for e in (low, (low + high) / 2, high)]
    return Steps(_step_path(shares[0] / top), _step_path(shares[1] / top), tuple(ticks))


def _across(value: float, low: float, high: float) -> float:
    return round(_PAD + (WIDTH - 2 * _PAD) * float((value - low) / (high - low)), 1)


def _step_path(heights: NDArray[np.float64]) -> str:
    """Outline of a histogram whose bars are 0 to 1 high."""
    step, floor = (WIDTH - 2 * _PAD) / len(heights), HEIGHT - 22
    parts = [f"M{_PAD} {floor}"]
    for i, value in enumerate(heights):
        y = floor - value * (floor - _PAD)
        parts.append(f"L{_PAD + i * step:.1f} {y:.1f}L{_PAD + (i + 1) * step:.1f} {y:.1f}")
    return "".join(parts) + f"L{WIDTH - _PAD} {floor}"


def curve(values: Sequence[tuple[float, float]], right: float) -> str:
    """A line through points whose y is 0 to 1, with x from 0 to `right`, as an SVG path."""
    floor = HEIGHT - 22
    points = (
        f"{_PAD + (WIDTH - 2 * _PAD) * x / right:.1f} {floor - y * (floor - _PAD):.1f}" for x, y in values
    )
    return "M" + "L".join(points) if values else ""


def counted(last: int) -> tuple[tuple[float, str], ...]:
    """Places and words along an axis of counts, from 0 to `last`."""
    return tuple(
        (round(_PAD + 4 + (WIDTH - 2 * _PAD - 12) * part, 1), f"{round(last * part):,}")
        for part in (0.0, 0.5, 1.0)
    )
