"""What lies on a slide: stains, outlines, cells, and the layer of light that one cell takes away.

Lengths are in micrometres until a cell is laid out on pixels.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Category = Literal["RBC", "WBC", "Platelets"]
Kind = Literal[
    "discocyte", "elliptocyte", "spherocyte", "target cell", "burr cell",
    "neutrophil", "eosinophil", "lymphocyte", "monocyte", "platelet",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Slide:
    """What one stained slide under one microscope gives to all of its images.

    Attributes:
        red: absorbance (R, G, B) of a red cell's body.
        nucleus: of chromatin.
        cytoplasm: of a neutrophil's cytoplasm.
        basophil: of what stains blue: a lymphocyte's cytoplasm, the ground of a platelet.
        light: (R, G, B) of the empty field, 0 to 1.
        pallor: how pale red cells are in their middle, 0 to 1.
        refractile: the share of red cells with a bright drying artefact, 0 to 1.
        spread_um: the typical diameter of a red cell.
    """

    red: Field
    nucleus: Field
    cytoplasm: Field
    basophil: Field
    light: Field
    pallor: float
    refractile: float
    spread_um: float


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A closed curve about a centre: an ellipse whose radius waves.

    Attributes:
        radius_um: of the circle with about the same area.
        stretch: long half axis over `radius_um`; the short one is its inverse.
        angle: of the long axis in radians.
        waves: (K, 3) order, amplitude as a share of the radius, phase in radians.
    """

    radius_um: float
    stretch: float
    angle: float
    waves: NDArray[np.float64]

    def depth(self, dx: Field, dy: Field) -> Field:
        """How deep inside the curve each point lies, in micrometres; negative outside. dx, dy: from the centre."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        long, short = self.radius_um * self.stretch, self.radius_um / self.stretch
        u, v = (dx * cos + dy * sin) / np.float32(long), (dy * cos - dx * sin) / np.float32(short)
        theta = np.arctan2(v, u)
        edge = np.ones_like(u)
        for order, amplitude, phase in self.waves.astype(np.float32):
            edge += amplitude * np.cos(order * theta + phase)
        return np.asarray((1 - np.hypot(u, v) / edge) * np.float32(self.radius_um), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One cell on a slide: where it lies and how it is shaped.

    Attributes:
        category: what the label says.
        kind: what a haematologist says.
        x_um: of its centre, from the image's left edge.
        y_um: from the top edge.
        outline: its edge.
        seed: names the random stream of its inner looks.
    """

    category: Category
    kind: Kind
    x_um: float
    y_um: float
    outline: Outline
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One cell on pixels.

    Attributes:
        x: column of its left edge in the image; may be negative.
        y: row of its top edge.
        absorbance: float32 (h, w, 3).
        cover: float32 (h, w), 0 outside to 1 inside; one half is the cell's edge.
    """

    x: int
    y: int
    absorbance: Field
    cover: Field


def outline(
    rng: np.random.Generator,
    radius_um: float,
    *,
    stretch: float,
    waviness: float,
    orders: range = range(2, 7),
) -> Outline:
    """A random outline; waves of a higher order are lower."""
    waves = [(k, rng.normal() * waviness * orders.start / k, rng.uniform(0, 2 * np.pi)) for k in orders]
    return Outline(radius_um, stretch, float(rng.uniform(0, np.pi)), np.array(waves).reshape(-1, 3))


def noise(rng: np.random.Generator, shape: tuple[int, int], grain_px: float) -> Field:
    """float32 (h, w): smooth Gaussian noise of mean 0 and deviation 1, whose blobs are about `grain_px` in radius."""
    shrink = max(1.0, grain_px / 2)
    h, w = (max(4, round(n / shrink) + 4) for n in shape)
    field = rng.standard_normal((h, w), dtype=np.float32)
    smooth = cv2.GaussianBlur(field, (0, 0), grain_px / shrink, borderType=cv2.BORDER_REFLECT)
    even = (smooth - smooth.mean()) / max(float(smooth.std()), 1e-6)
    resized = cv2.resize(even, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, dtype=np.float32)


def step(values: Field, width: float) -> Field:
    """A smooth rise from 0 at 0 to 1 at `width` (smoothstep)."""
    t = np.clip(values / np.float32(width), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def smooth_min(a: Field, b: Field, radius: float) -> Field:
    """The smaller of two fields, with the corner rounded (Quilez, polynomial smooth minimum)."""
    h = np.clip(0.5 + 0.5 * (b - a) / np.float32(radius), 0, 1)
    return np.asarray(b + (a - b) * h - np.float32(radius) * h * (1 - h), dtype=np.float32)
