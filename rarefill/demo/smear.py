"""One field of view of a blood smear: which cells lie where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rarefill.demo.camera import FINE, HEIGHT, PX_PER_UM, WIDTH, Optics, on_grid
from rarefill.demo.cells import Cell, Field, Kind, Layer, Slide, outline
from rarefill.demo.stain import layer
from rarefill.geometry import Mask

_FIELD = (WIDTH / PX_PER_UM, HEIGHT / PX_PER_UM)


@dataclass(frozen=True, slots=True, eq=False)
class Smear:
    """One image as it will be painted. Later cells lie in front."""

    slide: Slide
    cells: tuple[Cell, ...]
    optics: Optics


def slide(rng: np.random.Generator) -> Slide:
    """A slide's own stain and light: Giemsa turns out differently in every laboratory."""

    def stain(r: float, g: float, b: float, spread: float = 0.1) -> Field:
        return np.asarray(
            np.array([r, g, b]) * rng.normal(1, spread, 3) * rng.normal(1, spread), dtype=np.float32
        )

    light = np.array([0.835, 0.83, 0.825]) * rng.normal(1, 0.014, 3) * rng.uniform(0.96, 1.06)
    return Slide(
        red=stain(0.085, 0.33, 0.27, 0.11),
        nucleus=stain(0.64, 0.94, 0.07, 0.06),
        cytoplasm=stain(0.1, 0.25, 0.05, 0.13),
        basophil=stain(0.34, 0.24, 0.05, 0.12),
        light=light.astype(np.float32),
        pallor=float(rng.uniform(0.45, 0.95)),
        refractile=float(rng.choice([0.0, 0.03, 0.25], p=[0.5, 0.3, 0.2])),
        spread_um=float(rng.uniform(6.9, 7.7)),
    )


def smear(rng: np.random.Generator, on: Slide, *, platelets: int) -> Smear:
    """Scatter cells over one field of view.

    Args:
        rng: the image's random stream.
        on: the slide.
        platelets: how many platelets lie in the field; other images have none.
    """
    white: list[Cell] = []
    for _ in range(int(rng.choice([0, 1, 2], p=[0.12, 0.78, 0.1]))):
        _settle(rng, white, _white_cell(rng), inset=0.1, apart=1.02)
    small = _platelets(rng, white, platelets)
    red: list[Cell] = []
    wanted, clumping = int(rng.integers(11, 21)), rng.uniform(0.15, 0.8)
    for _ in range(wanted):
        _join(rng, red, white, small, _red_cell(rng, on), clumping)
    sharp = abs(rng.normal(0, 0.1)) + 0.07
    optics = Optics(
        blur_um=(sharp, sharp + rng.uniform(0.0, 0.16)),
        tilt=float(rng.uniform(0, 2 * np.pi)),
        relief=float(rng.normal(1.6, 1.2)),
        vignette=float(rng.uniform(0.04, 0.16)),
        exposure=float(rng.normal(1.0, 0.03)),
        grain=float(rng.uniform(1.6, 3.4)),
        seed=_seed(rng),
    )
    return Smear(on, (*red, *white, *small), optics)


def layers(image: Smear) -> tuple[Layer, ...]:
    """Every cell of an image on the fine grid, in the order of painting."""
    white = [c for c in image.cells if c.category == "WBC"]
    return tuple(layer(c, image.slide, PX_PER_UM * FINE, white) for c in image.cells)


def masks(stack: Sequence[Layer]) -> tuple[Mask | None, ...]:
    """The visible pixels of every layer: those that it covers by half and that no layer in front covers by half."""
    taken = np.zeros((HEIGHT, WIDTH), dtype=bool)
    out: list[Mask | None] = []
    for item in reversed(stack):
        cover = np.zeros((HEIGHT * FINE, WIDTH * FINE), dtype=np.float32)
        here, there = on_grid(item)
        cover[here] = item.cover[there]
        own = cv2.resize(cover, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) >= 0.5
        out.append(Mask.of(own & ~taken))
        taken |= own
    return tuple(reversed(out))


# Where cells lie.


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


def _red_cell(rng: np.random.Generator, on: Slide) -> Cell:
    radius = float(np.clip(rng.normal(on.spread_um, 0.6), 6.0, 9.0)) / 2
    kinds: tuple[Kind, ...] = ("discocyte", "elliptocyte", "spherocyte", "target cell", "burr cell")
    kind = kinds[int(rng.choice(5, p=[0.74, 0.14, 0.06, 0.045, 0.015]))]
    stretch = {"elliptocyte": rng.uniform(1.12, 1.28), "spherocyte": 1.01}.get(
        kind, 1 + abs(rng.normal(0, 0.06))
    )
    if kind == "burr cell":
        edge = outline(rng, radius * 0.92, stretch=stretch, waviness=0.024, orders=range(8, 14))
    else:
        edge = outline(rng, radius, stretch=stretch, waviness=float(rng.uniform(0.012, 0.04)))
    return Cell("RBC", kind, 0, 0, edge, _seed(rng))


def _white_cell(rng: np.random.Generator) -> Cell:
    kinds: tuple[Kind, ...] = ("neutrophil", "lymphocyte", "monocyte", "eosinophil")
    kind = kinds[int(rng.choice(4, p=[0.6, 0.24, 0.1, 0.06]))]
    low, high = {"lymphocyte": (4.2, 5.6), "monocyte": (7.2, 8.6)}.get(kind, (6.0, 7.6))
    edge = outline(rng, float(rng.uniform(low, high)), stretch=1 + abs(rng.normal(0, 0.06)), waviness=0.03)
    return Cell("WBC", kind, 0, 0, edge, _seed(rng))


def _platelets(rng: np.random.Generator, white: Sequence[Cell], n: int) -> list[Cell]:
    out: list[Cell] = []
    for i in range(n):
        edge = outline(
            rng, float(rng.uniform(1.1, 1.65)), stretch=1 + abs(rng.normal(0, 0.13)), waviness=0.07
        )
        cell = Cell("Platelets", "platelet", 0, 0, edge, _seed(rng))
        if i > 0 and rng.random() < 0.4:  # they stick together
            side = rng.uniform(0, 2 * np.pi)
            apart = 0.95 * (edge.radius_um + out[-1].outline.radius_um)
            cell = _at(cell, out[-1].x_um + apart * math.cos(side), out[-1].y_um + apart * math.sin(side))
            if _inside(cell, 1.2) and _clear(cell, white, 1.1):
                out.append(cell)
                continue
        _settle(rng, out, cell, inset=1.3, apart=1.1, beside=white)
    return out


def _at(cell: Cell, x_um: float, y_um: float) -> Cell:
    return Cell(cell.category, cell.kind, x_um, y_um, cell.outline, cell.seed)


def _inside(cell: Cell, inset: float) -> bool:
    """Whether a cell's centre keeps this many of its radii from the image's edge; below 0 it may lie outside."""
    margin = inset * cell.outline.radius_um
    return margin <= cell.x_um <= _FIELD[0] - margin and margin <= cell.y_um <= _FIELD[1] - margin


def _clear(cell: Cell, others: Sequence[Cell], apart: float) -> bool:
    """Whether a cell's centre keeps this share of the sum of radii from all others."""
    return all(
        math.hypot(cell.x_um - o.x_um, cell.y_um - o.y_um)
        >= apart * (cell.outline.radius_um + o.outline.radius_um)
        for o in others
    )


def _settle(
    rng: np.random.Generator,
    settled: list[Cell],
    cell: Cell,
    *,
    inset: float,
    apart: float,
    beside: Sequence[Cell] = (),
) -> None:
    """Add a cell where it is free; a field that is full stays as it is."""
    margin = inset * cell.outline.radius_um
    for _ in range(60):
        moved = _at(cell, *(float(rng.uniform(margin, side - margin)) for side in _FIELD))
        if _clear(moved, [*settled, *beside], apart):
            settled.append(moved)
            return


def _join(
    rng: np.random.Generator,
    red: list[Cell],
    white: list[Cell],
    small: list[Cell],
    cell: Cell,
    clumping: float,
) -> None:
    """Add a red cell, alone or leaning on another; a field that is full stays as it is."""
    lap = rng.uniform(0.66, 1.0)
    for _ in range(40):
        if red and rng.random() < clumping:
            friend, side = red[int(rng.integers(len(red)))], rng.uniform(0, 2 * np.pi)
            apart = lap * (cell.outline.radius_um + friend.outline.radius_um)
            moved = _at(cell, friend.x_um + apart * math.cos(side), friend.y_um + apart * math.sin(side))
            others = [c for c in red if c is not friend]
        else:
            moved = _at(cell, *(float(rng.uniform(-1.0, side + 1.0)) for side in _FIELD))
            others = red
        if (
            _inside(moved, -0.3)
            and _clear(moved, others, 0.9)
            and _clear(moved, white, 0.92)
            and _clear(moved, small, 1.0)
        ):
            red.append(moved)
            return
