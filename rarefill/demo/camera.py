"""What a microscope and its camera make of stained cells: defocus, light, dust, noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rarefill.demo.cells import Field, Layer, Slide, noise
from rarefill.scene import Pixels

WIDTH, HEIGHT = 400, 300
PX_PER_UM = 7.6
FINE = 2
"""Cells are drawn on a grid this many times as fine as the image, then averaged."""


@dataclass(frozen=True, slots=True, eq=False)
class Optics:
    """How one image was taken.

    Attributes:
        blur_um: defocus in the sharpest and in the softest part of the field.
        tilt: direction (radians) in which the field grows softer.
        relief: how strongly edges bend light: above 0 they glow outside, below 0 inside.
        vignette: share of light lost in the corners.
        exposure: gain of the camera, about 1.
        grain: deviation of the sensor's noise at full light, of 255 steps.
        seed: names the random stream of dust, stain haze and noise.
    """

    blur_um: tuple[float, float]
    tilt: float
    relief: float
    vignette: float
    exposure: float
    grain: float
    seed: int


def photograph(slide: Slide, optics: Optics, stack: Sequence[Layer]) -> Pixels:
    """uint8 (H, W, 3): what the camera sees of the layers. Dust, haze and noise depend on the image alone."""
    rng = np.random.default_rng(optics.seed)
    haze = _haze(rng, slide)
    absorbance = np.zeros_like(haze)
    for item in stack:
        here, there = on_grid(item)
        below, above = absorbance[here], item.absorbance[there]
        # Where thin cells lie on one another each is squeezed: less than the sum of both is absorbed.
        absorbance[here] = np.maximum(below, above) + np.float32(0.55) * np.clip(
            np.minimum(below, above), 0, None
        )
    light = np.exp(-absorbance - haze)
    thickness = cv2.GaussianBlur(absorbance[..., 1], (0, 0), 0.28 * PX_PER_UM * FINE)
    bend = cv2.Laplacian(thickness, cv2.CV_32F, ksize=3) * np.float32(optics.relief)
    light *= np.clip(1 + bend[..., None] * np.array([1.0, 1.0, 0.55], dtype=np.float32), 0.6, 1.5)
    light = _defocus(light, optics) * _illumination(rng, slide, optics)
    small = cv2.resize(light, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return _camera(rng, np.asarray(small, dtype=np.float32), optics)


def on_grid(item: Layer) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a layer inside the fine image: its slices there, and in the layer itself."""
    h, w = item.cover.shape
    x1, y1 = max(0, item.x), max(0, item.y)
    x2, y2 = max(x1, min(WIDTH * FINE, item.x + w)), max(y1, min(HEIGHT * FINE, item.y + h))
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - item.y, y2 - item.y), slice(x1 - item.x, x2 - item.x))


def _haze(rng: np.random.Generator, on: Slide) -> Field:
    """Absorbance of the empty slide: a veil of stained plasma, and grains of dust and stain."""
    shape = (HEIGHT * FINE, WIDTH * FINE)
    veil = 0.008 * noise(rng, shape, 9 * PX_PER_UM * FINE) + 0.006 * noise(rng, shape, 1.2 * PX_PER_UM * FINE)
    haze = np.asarray(veil[..., None] * (on.cytoplasm + on.red) / np.float32(0.3), dtype=np.float32)
    for _ in range(int(rng.poisson(3))):
        size, x, y = rng.uniform(0.12, 0.5), rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        reach = int(4 * size * PX_PER_UM * FINE) + 2
        x1, y1 = max(0, int(x) - reach), max(0, int(y) - reach)
        patch = haze[y1 : int(y) + reach, x1 : int(x) + reach]
        rows, cols = np.ogrid[y1 : y1 + patch.shape[0], x1 : x1 + patch.shape[1]]
        away = np.hypot(cols - x, rows - y) / (size * PX_PER_UM * FINE)
        spot = np.exp(-((away - rng.choice([0.0, 1.1])) ** 2) * 1.5) * rng.uniform(0.03, 0.22)
        patch += spot[..., None].astype(np.float32) * np.array([0.8, 1.0, 0.9], dtype=np.float32)
    return haze


def _defocus(light: Field, optics: Optics) -> Field:
    """Blur that grows across the field, and is a little wider in blue (the lens is not perfect)."""
    scale = PX_PER_UM * FINE
    rows, cols = np.mgrid[-1 : 1 : HEIGHT * FINE * 1j, -1 : 1 : WIDTH * FINE * 1j].astype(np.float32)
    soft = np.clip(0.5 + 0.4 * (cols * math.cos(optics.tilt) + rows * math.sin(optics.tilt)), 0, 1)
    out = np.empty_like(light)
    for band, wider in enumerate((1.0, 0.92, 1.2)):
        near, far = (cv2.GaussianBlur(light[..., band], (0, 0), b * wider * scale) for b in optics.blur_um)
        out[..., band] = near + (far - near) * soft
    return out


def _illumination(rng: np.random.Generator, slide: Slide, optics: Optics) -> Field:
    """float32 (H, W, 3) on the fine grid: the lamp's uneven light."""
    rows, cols = np.mgrid[-1 : 1 : HEIGHT * FINE * 1j, -1 : 1 : WIDTH * FINE * 1j].astype(np.float32)
    x, y = rng.normal(0, 0.3, 2)
    fall = 1 - np.float32(optics.vignette / 2) * ((cols - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2)
    lean = rng.normal(0, 0.012, (2, 3))
    tint = 1 + cols[..., None] * lean[0].astype(np.float32) + rows[..., None] * lean[1].astype(np.float32)
    return np.asarray(fall[..., None] * tint * slide.light * np.float32(optics.exposure), dtype=np.float32)


def _camera(rng: np.random.Generator, light: Field, optics: Optics) -> Pixels:
    """Shot noise, sharpening and coarse colour, as a small microscope camera gives them."""
    shot = rng.standard_normal(light.shape, dtype=np.float32) * np.sqrt(np.clip(light, 0.02, None))
    seen = light + shot * np.float32(optics.grain / 255)
    seen += np.float32(0.5) * (seen - cv2.GaussianBlur(seen, (0, 0), 1.2))
    luma, red, blue = cv2.split(cv2.cvtColor(seen, cv2.COLOR_RGB2YCrCb))
    luma = cv2.GaussianBlur(luma, (0, 0), 0.45)
    red, blue = (cv2.GaussianBlur(c, (0, 0), 1.3) for c in (red, blue))
    seen = cv2.cvtColor(cv2.merge([luma, red, blue]), cv2.COLOR_YCrCb2RGB)
    return np.clip(np.rint(seen * 255), 0, 255).astype(np.uint8)
