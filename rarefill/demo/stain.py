"""Blood cells as a stain sees them: how much light each point of a cell absorbs.

Light passes through thin stained matter, so a cell is a field of absorbance (Beer and Lambert: transmitted =
exp(-absorbance)), and overlapping cells grow darker by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarefill.demo.cells import Cell, Field, Layer, Slide, noise, smooth_min, step


def layer(cell: Cell, slide: Slide, px_per_um: float, pressing: Sequence[Cell] = ()) -> Layer:
    """Lay one cell out on pixels.

    Args:
        cell: the cell.
        slide: its stain.
        px_per_um: pixels per micrometre.
        pressing: stiffer neighbours, which dent this cell instead of lying over it.
    """
    reach = cell.outline.radius_um * cell.outline.stretch * 1.3 + 1.0
    x, y = (int(np.floor((c - reach) * px_per_um)) for c in (cell.x_um, cell.y_um))
    side = int(np.ceil(2 * reach * px_per_um)) + 1
    along = (np.arange(side, dtype=np.float32) + 0.5) / np.float32(px_per_um)
    dx, dy = np.meshgrid(
        along + np.float32(x / px_per_um - cell.x_um), along + np.float32(y / px_per_um - cell.y_um)
    )
    rng = np.random.default_rng(cell.seed)
    brush = Brush(rng, slide, px_per_um, dx, dy)
    match cell.category:
        case "RBC":
            depth = cell.outline.depth(dx, dy)
            for other in pressing:
                shift_x, shift_y = np.float32(cell.x_um - other.x_um), np.float32(cell.y_um - other.y_um)
                depth = smooth_min(
                    depth, -other.outline.depth(dx + shift_x, dy + shift_y) - np.float32(0.1), 0.8
                )
            absorbance, cover = brush.red_cell(cell, depth)
        case "WBC":
            absorbance, cover = brush.white_cell(cell)
        case "Platelets":
            absorbance, cover = brush.platelet(cell)
    return Layer(x, y, absorbance, cover)


@dataclass(frozen=True, slots=True, eq=False)
class Brush:
    """Paints the inside of one cell on its own small frame.

    Attributes:
        rng: the cell's random stream.
        slide: its stain.
        px_per_um: pixels per micrometre.
        dx: float32 (h, w), micrometres right of the cell's centre.
        dy: float32 (h, w), micrometres below it.
    """

    rng: np.random.Generator
    slide: Slide
    px_per_um: float
    dx: Field
    dy: Field

    def grain(self, radius_um: float) -> Field:
        """Noise over the frame with blobs of this radius."""
        shape = (self.dx.shape[0], self.dx.shape[1])
        return noise(self.rng, shape, radius_um * self.px_per_um)

    def red_cell(self, cell: Cell, depth: Field) -> tuple[Field, Field]:
        """A disc, thicker towards its rim, pale in the middle."""
        rng, radius = self.rng, cell.outline.radius_um
        edge_um = rng.uniform(0.35, 0.7)
        cover = step(depth + np.float32(edge_um / 2), edge_um)
        off_x, off_y = rng.normal(0, 0.06 * radius, 2)
        middle = cell.outline.depth(self.dx - np.float32(off_x), self.dy - np.float32(off_y))
        inward = np.clip(1 - middle / np.float32(radius), 0, 2) + 0.07 * self.grain(0.8)
        width = rng.uniform(0.4, 0.72)
        pale = np.exp(-((np.abs(inward) / np.float32(width)) ** np.float32(rng.uniform(2.0, 4.5))))
        strength = float(np.clip(rng.normal(self.slide.pallor, 0.2), 0.02, 0.92))
        if cell.kind in {"spherocyte", "burr cell"}:
            strength *= 0.25
        body = 1 - strength * pale
        if cell.kind == "target cell":
            body += rng.uniform(0.5, 0.75) * np.exp(-((inward / 0.2) ** 2)) * max(strength, 0.4) - 0.1 * pale
        rim = np.exp(-(((depth - 0.35) / 0.3) ** 2))
        body = body + rng.uniform(0.0, 0.14) * rim + 0.045 * self.grain(0.9) + 0.025 * self.grain(0.2)
        body *= 1 + rng.uniform(-0.1, 0.1) * self.dx / np.float32(radius)  # smears are thicker on one side
        thickness = np.asarray(cover * body * rng.normal(1.0, 0.09), dtype=np.float32)
        if rng.random() < self.slide.refractile:
            thickness = thickness + self._refractile(radius) * cover
        return np.asarray(thickness[..., None] * self.slide.red, dtype=np.float32), cover

    def _refractile(self, radius: float) -> Field:
        """A drying artefact: a small bright spot inside a dark uneven ring."""
        x, y = self.rng.normal(0, 0.25 * radius, 2)
        size = self.rng.uniform(0.25, 0.6)
        stretch = self.rng.uniform(1.0, 1.9)
        away = np.hypot((self.dx - np.float32(x)) * np.float32(stretch), self.dy - np.float32(y))
        away = away / np.float32(size) + 0.18 * self.grain(0.4)
        ring = np.exp(-(((away - 1.35) / 0.35) ** 2)) * (0.7 + 0.3 * self.grain(0.5))
        return np.asarray(0.8 * ring - 1.0 * np.exp(-(away**2)), dtype=np.float32)

    def white_cell(self, cell: Cell) -> tuple[Field, Field]:
        """Pale granular cytoplasm around a dark nucleus."""
        slide = self.slide
        depth = cell.outline.depth(self.dx, self.dy) + 0.16 * self.grain(0.6)
        edge_um = self.rng.uniform(0.5, 1.1)
        cover = step(depth + np.float32(edge_um / 2), edge_um)
        colour, cloud = self._cytoplasm(cell)
        rim = 0.12 * np.exp(-(((depth - 0.3) / 0.4) ** 2))
        nucleus, chromatin = self._nucleus(cell)
        nucleus = nucleus * cover
        pale = cover * (np.clip(cloud, 0.1, None) + rim) * (1 - 0.95 * nucleus)
        absorbance = pale[..., None] * colour + (nucleus * chromatin)[..., None] * slide.nucleus
        return np.asarray(absorbance, dtype=np.float32), cover

    def _cytoplasm(self, cell: Cell) -> tuple[Field, Field]:
        """Its absorbance (R, G, B), and its grain over the frame (about 1)."""
        rng, slide = self.rng, self.slide
        fine, coarse = self.grain(0.16), self.grain(1.1)
        match cell.kind:
            case "lymphocyte":
                colour, cloud = slide.basophil * rng.uniform(0.9, 1.6), 0.9 + 0.2 * coarse + 0.08 * fine
            case "monocyte":
                vacuoles = step(self.grain(0.4) - np.float32(1.3), 0.6)
                colour = 0.55 * slide.cytoplasm + 0.55 * slide.basophil
                cloud = (1 + 0.16 * coarse + 0.16 * fine) * (1 - 0.55 * vacuoles)
            case "eosinophil":
                colour = 0.5 * slide.cytoplasm + 0.85 * slide.red
                cloud = 0.65 + 0.75 * step(self.grain(0.24), 0.7) + 0.1 * coarse
            case _:
                colour, cloud = slide.cytoplasm * rng.uniform(0.75, 1.25), 1 + 0.22 * coarse + 0.3 * fine
        return np.asarray(colour, dtype=np.float32), np.asarray(cloud, dtype=np.float32)

    def _nucleus(self, cell: Cell) -> tuple[Field, Field]:
        """Where the nucleus is (0 to 1) and how dense its chromatin is (about 1)."""
        bend = 0.3 if cell.kind in {"neutrophil", "eosinophil"} else 0.22
        x, y = self.dx + bend * self.grain(1.1), self.dy + bend * self.grain(1.1)
        depth = _blobs(lobes(self.rng, cell), x, y)
        inside = step(depth + np.float32(0.2), 0.5)
        clumps = step(self.grain(0.45) + 0.3, 1.6) - 0.5
        chromatin = 0.9 + 0.42 * clumps + 0.07 * self.grain(0.15) + 0.12 * self.grain(1.0)
        chromatin += 0.16 * np.exp(-(((depth - 0.25) / 0.35) ** 2))
        chromatin = np.clip(chromatin * self.rng.normal(1.0, 0.08), 0.3, None)
        return inside, np.asarray(chromatin, dtype=np.float32)

    def platelet(self, cell: Cell) -> tuple[Field, Field]:
        """A small ragged patch: granules crowd in the middle of a pale ground."""
        rng, slide, radius = self.rng, self.slide, cell.outline.radius_um
        depth = cell.outline.depth(self.dx, self.dy) + 0.13 * self.grain(0.28)
        edge_um = rng.uniform(0.45, 0.75)
        cover = step(depth + np.float32(edge_um / 2), edge_um)
        crowd = step(depth - np.float32(0.05), 0.75 * radius)
        granules = step(self.grain(0.17) + 0.5, 1.5)
        dense = crowd * (0.42 + 0.58 * granules) * rng.uniform(0.6, 0.95)
        ground = cover * (1 + 0.25 * self.grain(0.3)) * rng.uniform(0.8, 1.3)
        absorbance = np.clip(ground, 0, None)[..., None] * (0.5 * slide.basophil + 0.6 * slide.cytoplasm)
        absorbance = absorbance + (dense * cover)[..., None] * slide.nucleus * np.float32(0.75)
        return np.asarray(absorbance, dtype=np.float32), cover


def lobes(rng: np.random.Generator, cell: Cell) -> NDArray[np.float64]:
    """(N, 4) the nucleus as a chain of discs: x, y and radius in micrometres from the centre, radius of the link."""
    radius = cell.outline.radius_um
    match cell.kind:
        case "lymphocyte":
            size = rng.uniform(0.8, 0.9)
            x, y = rng.normal(0, 0.05, 2)
            dent, apart = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.1, 0.28)
            far_x, far_y = x + apart * np.cos(dent), y + apart * np.sin(dent)
            discs = [(x, y, size - apart / 2, size * 0.8), (far_x, far_y, size - apart / 2, size * 0.8)]
            return _fitted(np.array(discs), 0.93) * radius
        case "monocyte":
            n, sizes, turn, stride, link = 4, rng.uniform(0.33, 0.42, 4), rng.uniform(0.5, 0.95), 0.34, 0.36
        case "eosinophil":
            n, sizes, turn, stride, link = 2, rng.uniform(0.33, 0.42, 2), 0.4, 0.72, 0.09
        case _:
            n = int(rng.choice([2, 3, 4, 5], p=[0.15, 0.4, 0.32, 0.13]))
            sizes, turn = rng.uniform(0.62, 0.86, n) / np.sqrt(n + 0.6), rng.uniform(0.55, 1.35)
            stride, link = 1.22 / np.sqrt(n), rng.uniform(0.05, 0.13)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(turn, 0.25, n))
    steps = stride * rng.uniform(0.85, 1.15, n)
    xs, ys = np.cumsum(steps * np.cos(heading)), np.cumsum(steps * np.sin(heading))
    off_x, off_y = rng.normal(0, 0.06, 2)
    xs, ys = xs - xs.mean() + off_x, ys - ys.mean() + off_y
    out = np.stack([xs, ys, sizes, np.full(n, link)], axis=1)
    return _fitted(out, 0.86) * radius


def _fitted(chain: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """The chain, shrunk where it reaches further than `most` from the centre."""
    reach = float((np.hypot(chain[:, 0], chain[:, 1]) + chain[:, 2]).max())
    return chain * min(1.0, most / reach)


def _blobs(chain: NDArray[np.float64], x: Field, y: Field) -> Field:
    """Depth inside the union of a chain's discs and of the strands between them, with rounded joints."""
    depth = np.full_like(x, -1e3)
    for i, (cx, cy, size, link) in enumerate(chain.astype(np.float32)):
        depth = -smooth_min(-depth, np.hypot(x - cx, y - cy) - size, 0.4)
        if i == 0:
            continue
        px, py = chain[i - 1, :2].astype(np.float32)
        ex, ey = cx - px, cy - py
        along = np.clip(((x - px) * ex + (y - py) * ey) / (ex * ex + ey * ey), 0, 1)
        depth = -smooth_min(-depth, np.hypot(x - px - along * ex, y - py - along * ey) - link, 0.5)
    return np.asarray(depth, dtype=np.float32)
