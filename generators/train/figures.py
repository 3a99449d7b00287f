"""Objects in boxes with exact masks, made of pictures that have no labels: what the cutter learns from.

Three kinds, drawn by chance: a piece of one picture laid into another one, a cell that stands out by itself in a microscope
picture, and an object that the project renders. Now and then there is nothing in the box.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill.cutouts import CONTEXT
from rarefill.cutter import square
from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.train import masks, windows
from rarefill.generators.train.collage import photographed
from rarefill.generators.train.rendered import FIELDS, Renderer
from rarefill.generators.train.shelf import Rgb, Shelf
from rarefill.geometry import FloatArray

RENDERED_SHARE: Final = 0.12
FOUND_SHARE: Final = 0.15
NOTHING_SHARE: Final = 0.08
"""Boxes about nothing in particular: their mask is empty."""
LOOSE: Final = 0.18
"""Of the object's side: how much further out than the object a box's side lies, at most. People draw with air."""
TIGHTER: Final = 0.04
"""The same inwards."""
_SOURCE_PX: Final = 96
_GROUND_PX: Final = 176
_EDGE_PX: Final = 6  # a piece goes on about its outline, where it fades
_MICROSCOPE: Final = ("nuclei", "cellprofiler")
_PLAIN: Final = ("clothing", "grocery", "elementary")
"""Sets whose pictures mostly show one thing on little: a region of theirs is a whole thing."""
_CLEAR: Final = 25  # grey levels between a cell and what is around it


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """One object in its box.

    Attributes:
        pixels: uint8 (size, size, 3) RGB.
        box: float64 (4,), x1 y1 x2 y2 in it, as a person might have drawn it.
        mask: bool (size, size), the object's visible pixels.
    """

    pixels: Rgb
    box: FloatArray
    mask: Bits


class Figures:
    """Draws objects in boxes."""

    def __init__(self, shelf: Shelf, render: Renderer, *, fields: int = FIELDS) -> None:
        """Make the source.

        Args:
            shelf: the pictures.
            render: makes a picture of the project's own, by its number.
            fields: numbers from 0 up to this are rendered, and as many more for what only measures.
        """
        self._shelf, self._render, self._fields = shelf, render, fields
        self._kept: dict[int, tuple[Rgb, list[Bits]]] = {}
        self._apart = {
            (held, name): [row for row in rows if shelf.pictures[row].group in groups]
            for held, rows in ((False, shelf.train), (True, shelf.held))
            for name, groups in (("cells", _MICROSCOPE), ("plain", _PLAIN))
        }

    def draw(self, rng: np.random.Generator, size: int, *, held: bool = False) -> Figure:
        """An object in `size` px; `held` takes it from the pictures that only measure. The same stream gives the same object."""
        kind = rng.random()
        found = None
        if kind > 1 - NOTHING_SHARE:
            figure = self._nothing(rng, size, held=held)
            return Figure(photographed(figure.pixels, rng), figure.box, figure.mask)
        if kind < RENDERED_SHARE:
            found = self._rendered(rng, held=held)
        elif kind < RENDERED_SHARE + FOUND_SHARE:
            found = self._found(rng, held=held)
        if found is None:
            found = self._laid(rng, held=held)
        pixels, mask = found
        figure = framed(pixels, mask, rng, size)
        toned, _ = windows.toned(figure.pixels, rng)
        return Figure(photographed(toned, rng), figure.box, figure.mask)

    def _laid(self, rng: np.random.Generator, *, held: bool) -> tuple[Rgb, Bits]:
        """A piece of one picture on another one, with others behind it and now and then before it."""
        size = _GROUND_PX
        ground = windows.draw(self._shelf, rng, size, held=held).pixels.astype(np.float32)
        if rng.random() < 0.3:
            # One texture all over: the piece lies on more of what it lies on.
            ground = np.asarray(cv2.resize(ground[: size // 2, : size // 2], (size, size)), np.float32)
        side = float(np.exp(rng.uniform(np.log(28), np.log(110))))
        for _ in range(int(rng.poisson(1.2))):
            patch, alpha = self._piece(rng, side * float(np.exp(rng.normal(0, 0.5))), held=held)
            _lay(ground, patch, alpha, rng, middle=None)
        patch, alpha = self._piece(rng, side, held=held)
        before = ground.copy()
        at = _lay(ground, _shaded(patch, rng), alpha, rng, middle=(size // 2, size // 2))
        mask = at >= 0.5
        if rng.random() < 0.35:
            _shadow(ground, before, at, rng)
        if rng.random() < 0.15:
            patch, alpha = self._piece(rng, 0.5 * side, held=held)
            where = tuple(int(v) for v in size / 2 + rng.normal(0, 0.6 * side, 2))
            over = _lay(ground, patch, alpha, rng, middle=(where[0], where[1])) >= 0.5
            mask = mask & ~over
        if mask.sum() < 60:
            return self._laid(rng, held=held)
        return np.clip(np.rint(ground), 0, 255).astype(np.uint8), mask

    def _nothing(self, rng: np.random.Generator, size: int, *, held: bool) -> Figure:
        """A box on a plain piece of a picture, on flat noise, or beside what it should have been about."""
        kind, longer = rng.random(), size / (1 + 2 * CONTEXT)
        sides = longer * np.array([1.0, float(np.exp(rng.uniform(-0.9, 0)))])[rng.permutation(2)]
        box = np.array([size - sides[0], size - sides[1], size + sides[0], size + sides[1]]) / 2
        nothing = np.zeros((size, size), dtype=bool)
        if kind < 0.25:
            level, spread = rng.uniform(20, 230, 3), rng.uniform(1, 25)
            grain = cv2.GaussianBlur(rng.normal(0, 1, (size, size, 3)), (0, 0), float(rng.uniform(0.3, 2.0)))
            flat = level + grain * (spread / max(float(grain.std()), 1e-6))
            return Figure(np.clip(flat, 0, 255).astype(np.uint8), box, nothing)
        if kind < 0.65:
            ground = windows.draw(self._shelf, rng, 2 * size, held=held).pixels
            # The part of it in which least happens.
            busy = cv2.blur(
                cv2.Laplacian(cv2.cvtColor(ground, cv2.COLOR_RGB2GRAY), cv2.CV_32F) ** 2, (size, size)
            )
            middle = busy[size // 2 : -size // 2, size // 2 : -size // 2]
            top, left = np.unravel_index(int(middle.argmin()), middle.shape)
            return Figure(np.ascontiguousarray(ground[top : top + size, left : left + size]), box, nothing)
        scene = np.asarray(windows.draw(self._shelf, rng, _GROUND_PX, held=held).pixels, np.float32)
        patch, alpha = self._piece(rng, float(rng.uniform(30, 70)), held=held)
        away = rng.choice([-1, 1], 2) * rng.uniform(55, 80, 2) + _GROUND_PX / 2
        _lay(scene, patch, alpha, rng, middle=(int(away[0]), int(away[1])))
        at = np.clip(_GROUND_PX // 2 - size // 2, 0, _GROUND_PX - size)
        return Figure(
            np.clip(np.rint(scene[at : at + size, at : at + size]), 0, 255).astype(np.uint8), box, nothing
        )

    def _piece(
        self, rng: np.random.Generator, side: float, *, held: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Something cut out of a picture: its pixels (h, w, 3) and its share of each (h, w)."""
        kind = rng.random()
        plain = self._apart[held, "plain"]
        if kind < 0.3 and plain:
            found = self._thing(rng, plain[int(rng.integers(len(plain)))])
        else:
            pixels = windows.draw(self._shelf, rng, _SOURCE_PX, held=held).pixels
            mask = masks.region(pixels, rng) if kind < 0.55 else None
            if mask is None:
                shapes = (limbs, limbs, limbs, masks.blob, masks.ellipse, masks.stroke, masks.box)
                mask = shapes[int(rng.integers(len(shapes)))](_SOURCE_PX, rng)
            found = pixels, mask
        pixels, mask = found
        if not mask.any():
            mask = masks.ellipse(pixels.shape[0], rng)
        ys, xs = np.nonzero(mask)
        y1, y2, x1, x2 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
        scale = side / max(y2 - y1, x2 - x1)
        size = (max(6, round((x2 - x1) * scale)), max(6, round((y2 - y1) * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        patch = cv2.resize(pixels[y1:y2, x1:x2], size, interpolation=how)
        alpha = cv2.resize(mask[y1:y2, x1:x2].astype(np.float32), size, interpolation=how)
        edges = (_EDGE_PX,) * 4
        patch = cv2.copyMakeBorder(patch, *edges, cv2.BORDER_REPLICATE)
        alpha = cv2.copyMakeBorder(alpha, *edges, cv2.BORDER_CONSTANT, value=0)
        soft = cv2.GaussianBlur(alpha, (0, 0), float(np.exp(rng.uniform(np.log(0.4), np.log(2.5)))))
        return patch.astype(np.float32), np.asarray(soft, np.float32)

    def _thing(self, rng: np.random.Generator, row: int) -> tuple[Rgb, Bits]:
        """What a plain picture shows: all that its border has not the colour of."""
        picture = self._shelf.pictures[row]
        side = min(picture.height, picture.width)
        top, left = (picture.height - side) // 2, (picture.width - side) // 2
        crop = self._shelf.crop(row, top, left, side)
        pixels = np.asarray(
            cv2.resize(crop, (_SOURCE_PX, _SOURCE_PX), interpolation=cv2.INTER_AREA), np.uint8
        )
        lab = cv2.cvtColor(cv2.GaussianBlur(pixels, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
        rim = np.concatenate([lab[:4].reshape(-1, 3), lab[-4:].reshape(-1, 3), lab[:, :4].reshape(-1, 3)])
        far = np.linalg.norm(lab - np.median(rim, axis=0), axis=2)
        level, _ = cv2.threshold(np.clip(far, 0, 255).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
        mask = _largest(far > max(level, 12.0))
        share = mask.mean()
        if not 0.06 < share < 0.7:
            found = masks.region(pixels, rng)
            mask = limbs(_SOURCE_PX, rng) if found is None else found
        return pixels, mask

    def _found(self, rng: np.random.Generator, *, held: bool) -> tuple[Rgb, Bits] | None:
        """One of a microscope picture's own cells, where it is clearly lighter or darker than what is around it."""
        rows = self._apart[held, "cells"]
        if not rows:
            return None
        row, size = rows[int(rng.integers(len(rows)))], _GROUND_PX
        picture = self._shelf.pictures[row]
        side = min(picture.height, picture.width, int(rng.integers(64, size)))
        top, left = (int(rng.integers(n - side + 1)) for n in (picture.height, picture.width))
        scale = size / side
        pixels = np.asarray(
            cv2.resize(self._shelf.crop(row, top, left, side), (size, size), interpolation=cv2.INTER_CUBIC),
            np.uint8,
        )
        grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 1.0 * scale)
        _, light = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        if light.min() == light.max() or grey[light == 1].mean() - grey[light == 0].mean() < _CLEAR:
            return None
        light = light if light.mean() < 0.5 else 1 - light
        n, pieces, stats, _ = cv2.connectedComponentsWithStats(light)
        fitting = [
            i
            for i in range(1, n)
            if stats[i, cv2.CC_STAT_AREA] >= 150
            and stats[i, 0] > 2
            and stats[i, 1] > 2
            and stats[i, 0] + stats[i, 2] < size - 2
            and stats[i, 1] + stats[i, 3] < size - 2
            and stats[i, cv2.CC_STAT_AREA] > 0.6 * stats[i, 2] * stats[i, 3]
        ]
        if not fitting:
            return None
        return pixels, _largest(pieces == fitting[int(rng.integers(len(fitting)))])

    def _rendered(self, rng: np.random.Generator, *, held: bool) -> tuple[Rgb, Bits] | None:
        """One object of a rendered field, of each kind as often as the others."""
        pixels, objects = self._render_kept(int(rng.integers(self._fields)) + (self._fields if held else 0))
        if not objects:
            return None
        return pixels, objects[int(rng.integers(len(objects)))]

    def _render_kept(self, number: int) -> tuple[Rgb, list[Bits]]:
        if number not in self._kept:
            pixels, objects = self._render(number)
            height, width = pixels.shape[:2]
            # Each kind as often as the others: the lists are made equally long.
            kinds = sorted({name for name, _ in objects})
            some = [[mask for name, mask in objects if name == kind][:8] for kind in kinds]
            most = max(map(len, some), default=0)
            of = [ms[i % len(ms)].window(0, 0, width, height) for ms in some for i in range(most)]
            self._kept[number] = pixels, of
        return self._kept[number]


def framed(pixels: Rgb, mask: Bits, rng: np.random.Generator, size: int) -> Figure:
    """The square about an object, as the cutter is shown it: its box as loose as people draw, and some surroundings."""
    ys, xs = np.nonzero(mask)
    x1, y1, x2, y2 = float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)
    out = rng.uniform(-TIGHTER, LOOSE, 4) * (rng.random() < 0.8)
    box = np.array(
        [x1 - out[0] * (x2 - x1), y1 - out[1] * (y2 - y1), x2 + out[2] * (x2 - x1), y2 + out[3] * (y2 - y1)]
    )
    seen, corner, scale = square(pixels, box, size)
    inside = square(mask.astype(np.uint8) * 255, box, size, border=cv2.BORDER_CONSTANT)[0] >= 128
    drawn = (box - np.tile(corner, 2)) * scale
    for _ in range(int(rng.integers(4))):
        seen, inside = np.rot90(seen), np.rot90(inside)
        drawn = np.array([drawn[1], size - drawn[2], drawn[3], size - drawn[0]])
    if rng.random() < 0.5:
        seen, inside = seen[:, ::-1], inside[:, ::-1]
        drawn = np.array([size - drawn[2], drawn[1], size - drawn[0], drawn[3]])
    return Figure(np.ascontiguousarray(seen), drawn, np.ascontiguousarray(inside))


def limbs(size: int, rng: np.random.Generator) -> Bits:
    """A body with arms: a star's, a bird's, a plane's."""
    n = int(rng.integers(2, 9))
    angles = np.sort(np.arange(n) / n * 2 * np.pi + rng.normal(0, 0.5 / n, n)) + rng.uniform(0, 2 * np.pi)
    reach = size * rng.uniform(0.25, 0.46)
    body = reach * np.exp(rng.uniform(np.log(0.25), np.log(0.7)))
    corners = []
    for i, angle in enumerate(angles):
        gap = (angles[(i + 1) % n] - angle) % (2 * np.pi) or 2 * np.pi
        far = reach * rng.uniform(0.6, 1.0)
        wide = rng.uniform(0.05, 0.3) * gap
        corners += [
            (angle - wide / 2, 0.5 * (far + body)),
            (angle, far),
            (angle + wide / 2, 0.5 * (far + body)),
        ]
        corners.append((angle + gap / 2, body * rng.uniform(0.6, 1.0)))
    turned = np.array([[r * np.cos(a), r * np.sin(a)] for a, r in corners])
    stretch, turn = np.exp(rng.normal(0, 0.2)), rng.uniform(0, np.pi)
    way = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (turned @ way * [stretch, 1 / stretch]) @ way.T + size / 2
    drawn = np.zeros((size, size), np.uint8)
    cv2.fillPoly(drawn, [np.clip(points, 1, size - 2).round().astype(np.int32)], 255)
    smooth = cv2.GaussianBlur(drawn, (0, 0), float(rng.uniform(0.8, 3.0)))
    return _largest(smooth > 127)


def _lay(
    ground: NDArray[np.float32],
    patch: NDArray[np.float32],
    alpha: NDArray[np.float32],
    rng: np.random.Generator,
    middle: tuple[int, int] | None,
) -> NDArray[np.float32]:
    """Lay a piece on a ground, in place; returns its share of each of the ground's pixels."""
    size, (height, width) = ground.shape[0], alpha.shape
    x, y = middle or (int(v) for v in rng.uniform(0.1, 0.9, 2) * size)
    left, top = x - width // 2, y - height // 2
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, size), min(top + height, size)
    at = np.zeros((size, size), np.float32)
    if x2 <= x1 or y2 <= y1:
        return at
    part = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
    at[y1:y2, x1:x2] = alpha[part]
    solid = alpha[part] >= 0.5
    under, over = ground[y1:y2, x1:x2], patch[part]
    if solid.any() and rng.random() < 0.5:
        # Not every object stands out by its colour.
        over = over + rng.uniform(0, 0.85) * (under[solid].mean(axis=0) - over[solid].mean(axis=0))
    ground[y1:y2, x1:x2] = under + (over - under) * alpha[part][..., None]
    return at


def _shaded(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Lighter on one side than on the other, as what is round is."""
    height, width = patch.shape[:2]
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    rows, cols = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 + depth * (cols * np.cos(angle) + rows * np.sin(angle))
    return np.asarray(patch * light[..., None], np.float32)


def _shadow(
    ground: NDArray[np.float32],
    before: NDArray[np.float32],
    at: NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """The object's shadow beside it, in place: no part of it."""
    reach = max(2.0, 0.08 * float(np.sqrt(at.sum())))
    dx, dy = rng.normal(0, reach, 2)
    moved = cv2.warpAffine(at, np.array([[1, 0, dx], [0, 1, dy]]), at.shape[::-1])
    dark = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.4, 1.5) * reach)) * rng.uniform(0.2, 0.7)
    shaded = before * (1 - dark[..., None])
    ground += (1 - at[..., None]) * (shaded - before)


def _largest(mask: NDArray[np.bool_]) -> Bits:
    """The largest piece, holes filled."""
    n, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if n < 2:
        return np.zeros(mask.shape, dtype=bool)
    return masks.filled(pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
