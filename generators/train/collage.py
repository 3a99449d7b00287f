"""Scenes with known boxes, made of pictures that have no labels: what the detector learns to find things from.

Three kinds, drawn by chance: pieces of some pictures laid into another one, microscope pictures whose objects stand out
by themselves, and fields that the project renders. A class is the set that a piece is of, or the rendered object's name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import geometry
from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.train import masks, windows
from rarefill.generators.train.rendered import FIELDS, Field, Renderer
from rarefill.generators.train.shelf import SCENES, Rgb, Shelf
from rarefill.geometry import FloatArray

RENDERED_SHARE: Final = 0.15
FOUND_SHARE: Final = 0.15
MOST_PIECES: Final = 7
SIDES_PX: Final = (9.0, 110.0)
"""Root of a piece's area, least and most, before it is cut off by the scene's edge."""
DECOY_SHARE: Final = 0.25
"""Of pieces: silhouettes filled with another part of the same scene, which are nothing to find. Else a seam would be enough."""
LEAST_VISIBLE: Final = 0.4
_MICROSCOPE: Final = ("nuclei", "cellprofiler")
_SOURCE_PX: Final = 112
_CLEAR: Final = 30  # grey levels between cells and what is between them


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One picture to find things in.

    Attributes:
        pixels: uint8 (size, size, 3) RGB.
        boxes: float64 (N, 4), x1 y1 x2 y2 inside it.
        labels: int64 (N,), rows of `Collages.names`.
    """

    pixels: Rgb
    boxes: FloatArray
    labels: NDArray[np.int64]


class Collages:
    """Draws scenes.

    Attributes:
        names: what can be found.
    """

    def __init__(self, shelf: Shelf, render: Renderer, *, fields: int = FIELDS) -> None:
        """Make the source.

        Args:
            shelf: the pictures.
            render: makes a picture of the project's own, by its number.
            fields: numbers from 0 up to this are rendered, and so many more for what only measures.
        """
        self._shelf, self._field, self._fields = shelf, lru_cache(2 * fields)(render), fields
        kinds = sorted({name for number in range(2 * fields) for name, _ in self._field(number)[1]})
        groups = sorted(set(SCENES) | {picture.group for picture in shelf.pictures})
        self.names = (*groups, *kinds)
        self._rows = {name: row for row, name in enumerate(self.names)}
        self._apart = {
            held: [row for row in rows if shelf.pictures[row].group in _MICROSCOPE]
            for held, rows in ((False, shelf.train), (True, shelf.held))
        }

    def draw(self, rng: np.random.Generator, size: int, *, held: bool = False) -> Scene:
        """A scene of `size` px; `held` takes it from the pictures that only measure. The same stream gives the same scene."""
        kind = rng.random()
        scene = None
        if kind < RENDERED_SHARE:
            scene = self._rendered(rng, size, held=held)
        elif kind < RENDERED_SHARE + FOUND_SHARE:
            scene = self._found(rng, size, held=held)
        if scene is None:
            scene = self._laid(rng, size, held=held)
        boxes = np.clip(scene.boxes, 0, size)
        wide = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=size) >= 3
        return Scene(photographed(scene.pixels, rng), boxes[wide], scene.labels[wide])

    def _laid(self, rng: np.random.Generator, size: int, *, held: bool) -> Scene:
        """Pieces of other pictures, and decoys, one over the other."""
        ground = windows.draw(self._shelf, rng, size, held=held)
        for _ in range(4):
            if ground.group not in _MICROSCOPE:
                break  # else cells would be things to find in one scene, and none in the next
            ground = windows.draw(self._shelf, rng, size, held=held)
        pixels = ground.pixels.astype(np.float32)
        boxes: list[FloatArray] = []
        labels: list[int] = []
        shown: list[Bits] = []
        for _ in range(1 + min(int(rng.poisson(2.5)), MOST_PIECES - 1)):
            decoy = rng.random() < DECOY_SHARE
            source = windows.draw(self._shelf, rng, _SOURCE_PX, held=held)
            patch, alpha = piece(source.pixels, rng)
            if decoy:
                patch = _elsewhere(ground.pixels, alpha.shape, rng)
            x, y = (_anywhere(n, size, rng) for n in alpha.shape[::-1])
            here, there = _overlap(x, alpha.shape[1], size), _overlap(y, alpha.shape[0], size)
            part = alpha[there[1], here[1]]
            solid = part >= 0.5
            if not solid.any() or solid.sum() < LEAST_VISIBLE * (alpha >= 0.5).sum():
                continue
            under = pixels[there[0], here[0]]
            over = _matched(patch[there[1], here[1]], under, solid, rng)
            pixels[there[0], here[0]] = under + (over - under) * part[..., None]
            covers = np.zeros((size, size), dtype=bool)
            covers[there[0], here[0]] = solid
            shown = [other & ~covers for other in shown]
            if decoy:
                continue
            ys, xs = np.nonzero(alpha >= 0.5)
            boxes.append(np.array([xs.min() + x, ys.min() + y, xs.max() + 1 + x, ys.max() + 1 + y], float))
            labels.append(self._rows[source.group])
            shown.append(covers)
        whole = [float((b[2] - b[0]) * (b[3] - b[1])) for b in boxes]
        left = [
            bool(seen.sum() >= LEAST_VISIBLE * 0.6 * area) for seen, area in zip(shown, whole, strict=True)
        ]
        kept = np.flatnonzero(left)
        return Scene(
            np.clip(np.rint(pixels), 0, 255).astype(np.uint8),
            np.array(boxes, dtype=float).reshape(-1, 4)[kept],
            np.array(labels, dtype=np.int64)[kept],
        )

    def _found(self, rng: np.random.Generator, size: int, *, held: bool) -> Scene | None:
        """A microscope picture's own cells, where Otsu's threshold finds several and they are as round as cells."""
        rows = self._apart[held]
        if not rows:
            return None
        row = rows[int(rng.integers(len(rows)))]
        picture = self._shelf.pictures[row]
        shortest = min(picture.height, picture.width)
        side = int(rng.integers(min(64, shortest), min(shortest, 2 * size) + 1))
        top, left = (int(rng.integers(n - side + 1)) for n in (picture.height, picture.width))
        how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        pixels = cv2.resize(self._shelf.crop(row, top, left, side), (size, size), interpolation=how)
        grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 1.2)
        _, light = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        if light.min() == light.max() or grey[light == 1].mean() - grey[light == 0].mean() < _CLEAR:
            return None
        light = light if light.mean() < 0.5 else 1 - light
        opened = cv2.morphologyEx(light, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(opened)
        some = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= 40]
        x, y, width, height, area = some.T
        # An ellipse fills 0.79 of its box; what fills much less is several cells, or none.
        if len(some) < 2 or np.mean(area / (width * height)) < 0.62 or max(area) > 0.25 * size * size:
            return None
        boxes = np.stack([x, y, x + width, y + height], 1).astype(float)
        toned, _ = windows.toned(np.asarray(pixels, np.uint8), rng)
        return _turned(toned, boxes, np.full(len(boxes), self._rows[picture.group]), rng)

    def _rendered(self, rng: np.random.Generator, size: int, *, held: bool) -> Scene:
        """A window of a rendered field about one of its objects, of each kind as often as the others."""
        field: Field = self._field(int(rng.integers(self._fields)) + (self._fields if held else 0))
        pixels, objects = field
        names = sorted({name for name, _ in objects})
        wanted = names[int(rng.integers(len(names)))]
        those = [mask for name, mask in objects if name == wanted]
        box = those[int(rng.integers(len(those)))].box
        least = max(1.2 * max(box.width, box.height), 0.4 * size)
        side = round(float(np.exp(rng.uniform(np.log(least), np.log(max(2.0 * size, 1.5 * least))))))
        side = min(side, *pixels.shape[:2])
        corner = np.array(box.center) - rng.uniform(0.2, 0.8, 2) * side
        left, top = (int(np.clip(v, 0, n - side)) for v, n in zip(corner, pixels.shape[1::-1], strict=True))
        how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        cut = cv2.resize(pixels[top : top + side, left : left + side], (size, size), interpolation=how)
        boxes = (np.array([mask.box.xyxy for _, mask in objects]) - [left, top] * 2) * (size / side)
        labels = np.array([self._rows[name] for name, _ in objects])
        inside = np.clip(boxes, 0, size)
        shares = geometry.areas(inside) / geometry.areas(boxes)
        seen = shares >= LEAST_VISIBLE
        toned, _ = windows.toned(np.asarray(cut, np.uint8), rng)
        return _turned(toned, inside[seen], labels[seen], rng)


def piece(source: Rgb, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Something cut out of a window along a random mask, at a random size.

    Args:
        source: uint8 (S, S, 3).
        rng: where randomness comes from.

    Returns:
        float32 (h, w, 3) from 0 to 255, and float32 (h, w), how far each pixel counts.
    """
    mask = masks.draw(source, rng)
    ys, xs = np.nonzero(mask)
    y1, y2, x1, x2 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    wanted = float(np.exp(rng.uniform(*np.log(SIDES_PX))))
    # A long stroke of a large area would reach over any scene.
    scale = min(wanted / np.sqrt((y2 - y1) * (x2 - x1)), 2 * SIDES_PX[1] / max(y2 - y1, x2 - x1))
    size = (max(4, round((x2 - x1) * scale)), max(4, round((y2 - y1) * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    patch = cv2.resize(source[y1:y2, x1:x2], size, interpolation=how).astype(np.float32)
    alpha = cv2.resize(mask[y1:y2, x1:x2].astype(np.float32), size, interpolation=how)
    soft = cv2.GaussianBlur(alpha, (0, 0), float(rng.uniform(0.3, 1.5)), borderType=cv2.BORDER_CONSTANT)
    return patch, np.asarray(soft, np.float32)


def photographed(pixels: Rgb, rng: np.random.Generator) -> Rgb:
    """Blurred, noisy or compressed, now and then: all of a scene alike."""
    chances = rng.random(3)
    if chances[0] < 0.2:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.2))), np.uint8)
    if chances[1] < 0.3:
        noisy = pixels + rng.normal(0, rng.uniform(1, 9), pixels.shape)
        pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    if chances[2] < 0.2:
        packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])[1]
        pixels = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(pixels)


def _matched(
    patch: NDArray[np.float32], under: NDArray[np.float32], solid: Bits, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A piece moved towards the lightness of what it is laid on: not every object stands out by its tone."""
    towards = float(rng.uniform(0, 0.8)) if rng.random() < 0.5 else 0.0
    gap = under[solid].mean() - patch[solid].mean()
    return np.asarray(np.clip(patch + towards * gap, 0, 255), np.float32)


def _elsewhere(ground: Rgb, shape: Sequence[int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Another part of the scene, as large as a piece."""
    height, width = shape[:2]
    size = ground.shape[0]
    top, left = (int(rng.integers(max(size - n, 0) + 1)) for n in (height, width))
    part = ground[top : top + height, left : left + width]
    grown = (0, height - part.shape[0], 0, width - part.shape[1])
    return np.asarray(cv2.copyMakeBorder(part, *grown, cv2.BORDER_REFLECT), np.float32)


def _anywhere(length: int, size: int, rng: np.random.Generator) -> int:
    """Where a piece may begin on a scene's axis, up to three tenths of it outside."""
    low, high = sorted((-0.3 * length, size - 0.7 * length))
    return round(float(rng.uniform(low, high)))


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where a piece lies on a scene's axis, and which part of the piece that is."""
    first, last = max(start, 0), max(min(start + length, size), start, 0)
    return slice(first, last), slice(first - start, last - start)


def _turned(pixels: Rgb, boxes: FloatArray, labels: NDArray[np.int64], rng: np.random.Generator) -> Scene:
    """Mirrored and turned by quarters."""
    size = pixels.shape[0]
    for _ in range(int(rng.integers(4))):
        pixels = np.rot90(pixels)
        boxes = np.stack([boxes[:, 1], size - boxes[:, 2], boxes[:, 3], size - boxes[:, 0]], 1)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
        boxes = np.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], 1)
    return Scene(np.ascontiguousarray(pixels), boxes, labels.astype(np.int64))
