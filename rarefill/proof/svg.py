"""AP against ratio as a drawing that needs nothing to be seen: a small SVG with intervals, names escaped."""

from collections.abc import Sequence
from html import escape

from rarefill.proof.study import Arm, Estimate, Point, Study

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 40, 56
_COLOURS = ("#0b6e99", "#c2571a", "#2f7d32", "#7b3fa0", "#8a6d00", "#a3264a")
_GREY = "#666"


def draw(study: Study) -> str:
    """The curve where ratios were swept, else the arms side by side."""
    names = " and ".join(study.rare)
    title = f"AP50:95 of {names}, with 95 % intervals"
    drawn = _curve(study.curve) if study.curve else _levels(study.arms)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        f'<text x="{_LEFT}" y="22" font-size="14" fill="#222">{escape(title)}</text>{drawn}</svg>\n'
    )


class _Scale:
    """Figures to heights, with room around them."""

    def __init__(self, estimates: Sequence[Estimate]) -> None:
        low = min((e.low for e in estimates), default=0.0)
        high = max((e.high for e in estimates), default=1.0)
        step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0) if (high - low) / s <= 8)
        self.step = step
        self.low = max(0.0, (low // step) * step)
        self.high = (high // step + 1) * step

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> str:
        n = round((self.high - self.low) / self.step)
        lines = []
        for k in range(n + 1):
            value = self.low + k * self.step
            y = self.y(value)
            lines.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e3e3"/>'
                f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{_GREY}">{value:.3g}</text>'
            )
        return "".join(lines)


def _curve(points: Sequence[Point]) -> str:
    scale = _Scale([p.rare for p in points])
    ratios = sorted({p.ratio for p in points})
    between = (_WIDTH - _LEFT - _RIGHT) / max(1, len(ratios))
    # Ratios double from one to the next, so they stand at even distances, and 0 before them.
    x = {ratio: _LEFT + between * (k + 0.5) for k, ratio in enumerate(ratios)}
    out = [scale.grid()]
    out += [
        f'<text x="{x[r]:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="{_GREY}">{r:g}</text>'
        for r in ratios
    ]
    out.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 14}" text-anchor="middle" fill="{_GREY}">'
        "generated images for each real one</text>"
    )
    names = list(dict.fromkeys(p.generator for p in points))
    for n, name in enumerate(names):
        own = sorted((p for p in points if p.generator == name), key=lambda p: p.ratio)
        shift = (n - (len(names) - 1) / 2) * 7
        colour = _COLOURS[n % len(_COLOURS)]
        path = " ".join(f"{x[p.ratio] + shift:.1f},{scale.y(p.rare.value):.1f}" for p in own)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out += [_mark(x[p.ratio] + shift, p.rare, scale, colour) for p in own]
        y = _TOP + 16 + 18 * n
        out.append(
            f'<circle cx="{_WIDTH - _RIGHT + 16}" cy="{y - 4}" r="4" fill="{colour}"/>'
            f'<text x="{_WIDTH - _RIGHT + 26}" y="{y}" fill="#222">{escape(name)}</text>'
        )
    return "".join(out)


def _levels(arms: Sequence[Arm]) -> str:
    held = [(a, a.rare) for a in arms if a.rare is not None]
    scale = _Scale([rare for _, rare in held])
    between = (_WIDTH - _LEFT - 24) / max(1, len(held))
    colours = {"baseline": _GREY, "generated": _COLOURS[0], "oracle": _COLOURS[2]}
    out = [scale.grid().replace(f'x2="{_WIDTH - _RIGHT}"', f'x2="{_WIDTH - 24}"')]
    for k, (arm, rare) in enumerate(held):
        x = _LEFT + between * (k + 0.5)
        out.append(_mark(x, rare, scale, colours[arm.kind]))
        out.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18 + 14 * (k % 2)}" text-anchor="middle" '
            f'fill="#222">{escape(arm.name)}</text>'
        )
    return "".join(out)


def _mark(x: float, estimate: Estimate, scale: _Scale, colour: str) -> str:
    low, middle, high = (scale.y(v) for v in (estimate.low, estimate.value, estimate.high))
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}" stroke-width="1.5"/>'
        f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4" fill="{colour}"><title>{estimate}</title></circle>'
    )
