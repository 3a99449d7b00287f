"""Real objects as paint: their pixels with some surroundings, and which one to take."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import warp
from rarefill.bank import Bank, Exemplar, silhouette
from rarefill.dataset import Dataset
from rarefill.generators.joint import ring
from rarefill.generators.looks import Looks, Seen, measure
from rarefill.generators.window import Colours, bands, scene
from rarefill.geometry import BoolArray, Box, FloatArray, Mask
from rarefill.scene import Pixels, Placement, Shape

_KEPT = 256  # crops in memory: a chunk's worth several times over, some 50 MB at usual sizes
_SAMPLED = 40  # objects that a category's looks are measured on
_NEAREST = 5  # exemplars among which chance decides when a placement names none
_SIGNATURE_PX = 16
_RING_PX = 10
_LUMA = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An exemplar's pixels with their surroundings.

    Attributes:
        pixels: (h, w, C) as decoded, colour bands only.
        x: column of the crop's left edge in its image.
        y: row of its top edge.
        scene: float32 (C,), mean colour of the whole picture.
    """

    pixels: Pixels
    x: int
    y: int
    scene: NDArray[np.float32]


class Exemplars:
    """A bank with the pixels behind it. Safe in several threads."""

    def __init__(self, dataset: Dataset, bank: Bank) -> None:
        self._dataset, self.bank = dataset, bank
        self.source = lru_cache(_KEPT)(self._source)
        self.looks = lru_cache(None)(self._looks)
        self._columns = lru_cache(None)(self._measured)

    def id(self, annotation: int) -> int:
        """The annotation's id as its file has it."""
        return int(self._dataset.annotations.id[annotation])

    def named(self, shape: Shape, image: int) -> Exemplar | None:
        """The exemplar that a placement names, unless it comes from the background itself or is not in the bank."""
        try:
            exemplar = self.bank.at(shape.annotation)
        except KeyError:
            return None
        return None if exemplar.image == image else exemplar

    def whole(self, placement: Placement) -> Mask:
        """All of the silhouette asked for: the mask; of an object that shows in part its shape's, else its whole box."""
        if placement.whole is None:
            return placement.mask
        if placement.shape is not None and placement.shape.annotation in self.bank:
            mask = self.bank.at(placement.shape.annotation).mask
            return silhouette(mask, placement.shape, placement.whole)
        x, y, width, height = warp.whole(placement.whole)
        return Mask(x, y, np.ones((height, width), dtype=bool))

    def chosen(
        self, rng: np.random.Generator, category: str, mask: Mask, image: int, refused: int | None
    ) -> tuple[Exemplar, Shape] | None:
        """An exemplar that suits a mask: of near size and alike in outline, mirrored where that suits better.

        Args:
            rng: decides among the most suitable.
            category: whose exemplars.
            mask: what it shall fill.
            image: the background's row: its own objects are left out.
            refused: annotation of the exemplar that was painted before, left out where there is another.

        Returns:
            None where the bank has nothing but the background's own objects.
        """
        exemplars, signatures, sizes = self._columns(category)
        free = [i for i, e in enumerate(exemplars) if e.image != image]
        free = [i for i in free if exemplars[i].annotation != refused] or free
        if not free:
            return None
        wanted = _signature(mask)
        grow = np.log(math.sqrt(mask.area)) - sizes[free]
        costs = []
        for mirrored in (wanted, wanted[:, ::-1]):
            alike = np.abs(signatures[free] - mirrored).mean(axis=(1, 2))
            # Shrinking keeps detail, enlarging invents none: one counts half of the other.
            costs.append(4 * alike + np.where(grow > 0, grow, -0.5 * grow))
        aspect = [math.log(m.pixels.shape[1] / m.pixels.shape[0]) for m in (exemplars[i].mask for i in free)]
        turned = np.abs(np.array(aspect) - math.log(mask.pixels.shape[1] / mask.pixels.shape[0]))
        partial = np.array([0.0 if exemplars[i].complete else 1.0 for i in free])
        cost = np.minimum(*costs) + turned + partial
        best = np.argsort(cost, kind="stable")[:_NEAREST]
        pick = int(best[rng.integers(len(best))])
        exemplar = exemplars[free[pick]]
        return exemplar, Shape(exemplar.annotation, flip=bool(costs[1][pick] < costs[0][pick]))

    def _source(self, annotation: int) -> Source:
        exemplar = self.bank.at(annotation)
        pixels = self._dataset.read(exemplar.image)
        pixels = pixels[:, :, : bands(pixels)]
        frame = exemplar.mask.pixels.shape
        pad = max(12, int(0.25 * max(frame)))
        x, y = max(0, exemplar.mask.x - pad), max(0, exemplar.mask.y - pad)
        crop = pixels[y : exemplar.mask.y + frame[0] + pad, x : exemplar.mask.x + frame[1] + pad].copy()
        return Source(crop, x, y, scene(pixels))

    def _looks(self, category: str) -> Looks:
        held = self.bank.of(category)
        rows = np.linspace(0, len(held) - 1, min(len(held), _SAMPLED)).round().astype(int)
        objects = []
        for exemplar in (held[i] for i in rows):
            source = self._source(exemplar.annotation)
            h, w = source.pixels.shape[:2]
            inside = exemplar.mask.window(source.x, source.y, w, h)
            near = ring(inside, _RING_PX)
            around = source.pixels[near if near.any() else inside]
            colour = np.median(around, axis=0).astype(np.float32)
            objects.append(Seen(source.pixels[inside].astype(np.float32), colour, source.scene))
        return measure([o for o in objects if len(o.ring) == len(objects[0].ring)])

    def _measured(self, category: str) -> tuple[tuple[Exemplar, ...], NDArray[np.float32], FloatArray]:
        held = self.bank.of(category)
        signatures = np.array([_signature(e.mask) for e in held], dtype=np.float32)
        return held, signatures, np.array([0.5 * math.log(e.mask.area) for e in held])


def like(pixels: Pixels, channels: int, dtype: np.dtype) -> Colours:
    """Colours in another picture's units: float32, its number of colour bands, its bit depth."""
    out = pixels.astype(np.float32)
    if out.shape[2] != channels:
        out = np.repeat(out, 3, axis=2) if channels == 3 else out @ _LUMA
    if pixels.dtype != dtype:
        out *= np.iinfo(dtype).max / np.iinfo(pixels.dtype).max
    return out


def warped(
    exemplar: Exemplar, source: Source, shape: Shape, frame: Box, size: tuple[int, int], colours: Colours
) -> tuple[Colours, NDArray[np.float32], BoolArray]:
    """An exemplar as it stands in its place, its surroundings with it, on a canvas of (height, width) `size`.

    Args:
        exemplar: which.
        source: its pixels' origin.
        shape: flip, rotation and bend.
        frame: the whole pixels that all of it fills, in the canvas's coordinates; may reach beyond the canvas.
        size: height and width of the canvas.
        colours: the source's pixels in the place's units.

    Returns:
        Colours (height, width, C), the silhouette's coverage float32 (height, width), and where the source has
        pixels at all: bool (height, width).
    """
    height, width = size
    how = warp.fit(exemplar.mask, shape, int(frame.width), int(frame.height)).shifted(frame.x1, frame.y1)
    cover = warp.coverage(exemplar.mask, how, width, height)
    how = how.seen_from(source.x - exemplar.mask.x, source.y - exemplar.mask.y)
    moved = warp.resample(colours, how, width, height, border=cv2.BORDER_REPLICATE)
    there = warp.resample(np.ones(colours.shape[:2], np.float32), how, width, height)
    return moved, cover, there > 0.99


def _signature(mask: Mask) -> NDArray[np.float32]:
    size = (_SIGNATURE_PX, _SIGNATURE_PX)
    return np.asarray(cv2.resize(mask.pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA))
