"""Windows around objects, cut by one rule from lossless pictures, painted and real alike."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.scene import Pixels

WINDOW_PX, OBJECT_PX = 128, 48
"""Sides of a window and of an object's close crop, after zooming."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Objects of one kind as columns.

    Attributes:
        pixels: uint8 (N, 128, 128, 3), an object in its surroundings.
        objects: uint8 (N, 48, 48, 3), the object alone, its box and a tenth around it.
        image: int64 (N,), id in the dataset of the image, or of a painted object's background.
        annotation: int64 (N,), id of the annotation: a real object's own, or that of the exemplar whose silhouette
            was painted; -1 for neither.
        box: float64 (N, 4), the label x1 y1 x2 y2 in the image.
        share: float64 (N, 4), the label as a part of the window, 0 to 1.
    """

    pixels: NDArray[np.uint8]
    objects: NDArray[np.uint8]
    image: NDArray[np.int64]
    annotation: NDArray[np.int64]
    box: NDArray[np.float64]
    share: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Windows":
        """Some rows."""
        return Windows(*(getattr(self, f.name)[rows] for f in fields(self)))

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Windows":
        with np.load(path) as held:
            return cls(*(held[f.name] for f in fields(cls)))


@dataclass(frozen=True, slots=True)
class Place:
    """An object to cut: ids as in `Windows`."""

    image: int
    annotation: int
    box: Box


def frame(box: Box, width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the window around a box: its longer side L and 2 clip(L / 2, 24, 64) px.

    At the image's edge the window is moved inside; it is centred where the image is smaller than it.
    """
    longer = max(box.width, box.height)
    side = int(longer) + 2 * int(np.clip(0.5 * longer, 24, 64))
    x, y = int(box.x1 + box.x2 - side) // 2, int(box.y1 + box.y2 - side) // 2
    return _inside(x, side, width), _inside(y, side, height), side


def _inside(start: int, side: int, size: int) -> int:
    return min(max(start, 0), size - side) if side <= size else (size - side) // 2


def zoomed(pixels: Pixels, x: int, y: int, side: int, to: int) -> Pixels:
    """A square of an image at another size, uint8 (to, to, 3), mirrored where it leaves the image.

    Args:
        pixels: uint8 (H, W, 3).
        x: left edge, may lie outside.
        y: top edge, may lie outside.
        side: in the image's pixels.
        to: the side wanted.
    """
    height, width = pixels.shape[:2]
    crop = pixels[max(0, y) : y + side, max(0, x) : x + side]
    pads = (max(0, -y), max(0, y + side - height), max(0, -x), max(0, x + side - width))
    if any(pads):
        crop = cv2.copyMakeBorder(crop, *pads, cv2.BORDER_REFLECT)
    if side != to:
        crop = cv2.resize(crop, (to, to), interpolation=cv2.INTER_AREA if to < side else cv2.INTER_CUBIC)
    return np.ascontiguousarray(crop)


def close(box: Box) -> tuple[int, int, int]:
    """Left, top and side of the square that holds a box and a tenth of its longer side around it."""
    side = max(4, round(1.2 * max(box.width, box.height)))
    return round((box.x1 + box.x2 - side) / 2), round((box.y1 + box.y2 - side) / 2), side


def cut(read: Callable[[int], Pixels], places: Iterable[Place]) -> Windows:
    """Cut every place.

    Args:
        read: an image's pixels as decoded, by the key `Place.image`.
        places: in the order of the rows.
    """
    columns: list[tuple[Pixels, Pixels, int, int, tuple[float, ...], tuple[float, ...]]] = []
    last: tuple[int, Pixels] | None = None
    for place in places:
        if last is None or last[0] != place.image:
            last = place.image, pictures.rgb(read(place.image))
        picture, box = last[1], place.box
        x, y, side = frame(box, picture.shape[1], picture.shape[0])
        whole = zoomed(picture, x, y, side, WINDOW_PX)
        near = zoomed(picture, *close(box), OBJECT_PX)
        share = tuple((v - o) / side for v, o in zip(box.xyxy, (x, y, x, y), strict=True))
        columns.append((whole, near, place.image, place.annotation, box.xyxy, share))
    if not columns:
        return empty()
    return _stacked(columns)


def _stacked(
    columns: Sequence[tuple[Pixels, Pixels, int, int, tuple[float, ...], tuple[float, ...]]],
) -> Windows:
    whole, near, image, annotation, box, share = zip(*columns, strict=True)
    images, annotations = (np.array(v, dtype=np.int64) for v in (image, annotation))
    return Windows(np.stack(whole), np.stack(near), images, annotations, np.array(box), np.array(share))


def empty() -> Windows:
    """No windows."""
    n = np.zeros(0, np.int64)
    return Windows(
        np.zeros((0, WINDOW_PX, WINDOW_PX, 3), np.uint8),
        np.zeros((0, OBJECT_PX, OBJECT_PX, 3), np.uint8),
        n,
        n,
        np.zeros((0, 4)),
        np.zeros((0, 4)),
    )


def joined(parts: Sequence[Windows]) -> Windows:
    """All rows of all parts."""
    held = [part for part in parts if len(part)]
    if not held:
        return empty()
    return Windows(*(np.concatenate([getattr(w, f.name) for w in held]) for f in fields(Windows)))


def stretched(some: Windows, side: int) -> NDArray[np.uint8]:
    """Objects that fill a square whatever their shape, a twelfth more on each side: uint8 (N, side, side, 3)."""
    out = np.zeros((len(some), side, side, 3), np.uint8)
    for i, (window, share) in enumerate(zip(some.pixels, some.share * WINDOW_PX, strict=True)):
        corner, size = share[:2], share[2:] - share[:2]
        step = size * (1 + 2 / 12) / side
        start = corner - size / 12 + step / 2 - 0.5
        blur = 0.4 * float(step.max())
        source = cv2.GaussianBlur(window, (0, 0), blur) if step.max() > 1.2 else window
        matrix = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        out[i] = cv2.warpAffine(source, matrix, (side, side), flags=how, borderMode=cv2.BORDER_REFLECT)
    return out


def real(dataset: Dataset, category: str, images: frozenset[int]) -> Windows:
    """Windows around every real object of a category on some images, whose ids are given."""
    rows = {int(name): row for row, name in enumerate(dataset.images.id)}
    places = [
        Place(image, int(dataset.annotations.id[row]), dataset.box(int(row)))
        for row in dataset.rows_of(category)
        if (image := int(dataset.images.id[dataset.annotations.image[row]])) in images
    ]
    return cut(lambda image: dataset.read(rows[image]), places)


def background(
    dataset: Dataset, category: str, images: frozenset[int], sizes: Windows, rng: np.random.Generator
) -> Windows:
    """Windows of the same sizes about places on the same images where no object of the category is."""
    rows = {int(name): row for row, name in enumerate(dataset.images.id)}
    own = dataset.category_row(category)
    names = np.array(sorted(images & rows.keys()))
    places: list[Place] = []
    for x1, y1, x2, y2 in sizes.box:
        for _ in range(200):
            image = int(rng.choice(names))
            row = rows[image]
            x = rng.uniform(0, max(1.0, float(dataset.images.width[row]) - (x2 - x1)))
            y = rng.uniform(0, max(1.0, float(dataset.images.height[row]) - (y2 - y1)))
            held = dataset.rows_in(row)
            held = held[dataset.annotations.category[held] == own]
            boxes = dataset.annotations.boxes[held]
            right, low = x + x2 - x1, y + y2 - y1
            meets = (boxes[:, 0] < right) & (boxes[:, 2] > x) & (boxes[:, 1] < low) & (boxes[:, 3] > y)
            if not meets.any():
                places.append(Place(image, -1, Box(x, y, right, low)))
                break
    return cut(lambda image: dataset.read(rows[image]), sorted(places, key=lambda p: p.image))
