"""What a model adapts to: windows around a dataset's own objects, framed as painting will frame them.

Windows are moved, scaled, turned and mirrored, never recoloured. With ten objects of a class a model repeats whatever training shows
it (Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data"): a window that was moved still is a window of
this camera, and its mask moved with it; a window that was recoloured is not, and its colours would come back in what is painted.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rarefill import cutouts, geometry, pictures
from rarefill.bank import SMALLEST_PX, Bank
from rarefill.dataset import Dataset
from rarefill.errors import ModelError
from rarefill.generators.adapt_world import world
from rarefill.generators.compact import MARGIN_PX, MOST_MARGIN
from rarefill.generators.compact_conditioning import Bits, Rgb
from rarefill.generators.train import framing, masks, sources
from rarefill.generators.train.framing import Frame
from rarefill.generators.train.sources import Drawn
from rarefill.generators.window import Framing, side_px
from rarefill.geometry import FloatArray, Mask
from rarefill.seeds import Stage, rng

RARE_SHARE: Final = 0.5
"""Windows that show an object of a rare category."""
BACKGROUND_SHARE: Final = 0.15
"""Windows of anywhere, with random masks and without words: what a place looks like where no object is meant."""
FEWEST_IMAGES: Final = 8
"""Images from which some are held back to measure with."""
FEWEST_RARE: Final = 20
"""Rare objects from which some of them are."""
MOST_RARE_HELD: Final = 0.15
"""Part of the rare objects that is held back at most."""
_HELD: Final = 7  # what is drawn for, first in the seed's key
_KEPT_BYTES: Final = 400 * 2**20


class Annotated:
    """Windows of a dataset.

    Attributes:
        held: rows of the images that only measure; possibly none.
    """

    def __init__(
        self,
        dataset: Dataset,
        bank: Bank,
        *,
        rare: Sequence[str],
        captions: Mapping[str, str],
        no_mirror: Sequence[str] = (),
        seed: int = 0,
        framing: Framing | None = None,
        redraws: float = sources.REDRAW_SHARE,
    ) -> None:
        """Look a dataset over.

        Args:
            dataset: whose windows.
            bank: silhouettes of the rare categories.
            rare: the categories to be painted.
            captions: words for each category.
            no_mirror: categories that are never mirrored.
            seed: chooses the images that are held back.
            framing: how much around an object painting sees; None for the usual.
            redraws: share of the windows whose maps keep the object's own edges.

        Raises:
            ModelError: no object can be learned from.
            DataError: no such category.
        """
        self._dataset, self._bank, self._captions = dataset, bank, captions
        self._framing, self._redraws = framing or Framing(), redraws
        self._picture = _Kept(dataset)
        self._world = world(dataset, self._picture.__getitem__)
        one_way = [dataset.rows_of(name, crowds=True) for name in no_mirror]
        self._one_way = {int(image) for rows in one_way for image in dataset.annotations.image[rows]}
        rows = {name: self._rows(name, rare=name in rare) for name in (*rare, *dataset.names)}
        if not any(len(found) for found in rows.values()):
            raise ModelError(
                f"{dataset.path.name}: no object of {SMALLEST_PX} px or more to adapt the model to; "
                "say --no-adapt, or paint with --generator paste"
            )
        self.held = held_back(dataset, rows, rare, seed)
        images = np.arange(len(dataset.images))
        measures = np.isin(images, sorted(self.held))
        self._images = {False: images[~measures], True: images[measures]}
        self._pools = {held: self._pool(rows, rare, here) for held, here in self._images.items()}
        self._masks: dict[int, Mask] = {}

    def _rows(self, name: str, *, rare: bool) -> NDArray[np.intp]:
        """The objects of a category to learn from: of a rare one those whose silhouettes can be trusted."""
        if rare and (exemplars := self._bank.of(name)):
            return np.array([e.annotation for e in exemplars], dtype=np.intp)
        rows = self._dataset.rows_of(name)
        boxes = self._dataset.annotations.boxes[rows]
        return rows[(boxes[:, 2:] - boxes[:, :2] >= SMALLEST_PX).all(axis=1)]

    def _pool(
        self, rows: Mapping[str, NDArray[np.intp]], rare: Sequence[str], images: NDArray[np.intp]
    ) -> tuple[list[NDArray[np.intp]], FloatArray]:
        """Objects on some images, by category, and how often each category is drawn.

        Rare ones have half of the windows in equal parts, the others the rest by the square root of their number.
        """
        here = {n: r[np.isin(self._dataset.annotations.image[r], images)] for n, r in rows.items()}
        here = {name: found for name, found in here.items() if len(found)}
        wanted = np.array([1.0 if name in rare else 0.0 for name in here])
        others = np.array([0.0 if name in rare else np.sqrt(len(found)) for name, found in here.items()])
        share = RARE_SHARE / (1 - BACKGROUND_SHARE) if others.any() else 1.0
        odds = share * wanted / max(wanted.sum(), 1) + (1 - share) * others / max(float(others.sum()), 1e-9)
        return list(here.values()), odds / max(float(odds.sum()), 1e-9)

    def draw(self, rng: np.random.Generator, size: int, *, held: bool = False) -> Drawn:
        """A window around an object, or of anywhere; `held` takes it from the images that only measure, if any."""
        held = held and bool(self.held)
        background = rng.random() < BACKGROUND_SHARE
        of, odds = self._pools[held]
        rows = of[int(rng.choice(len(of), p=odds))]
        row = int(rows[int(rng.integers(len(rows)))])
        return self._anywhere(row, rng, size, held=held) if background else self._around(row, rng, size)

    def _around(self, row: int, rng: np.random.Generator, size: int) -> Drawn:
        mask, image = self._mask(row), int(self._dataset.annotations.image[row])
        frame = framing.about(mask.box, rng, self._framing)
        pixels, inside = framing.cut(self._picture[image], mask, frame, size)
        pixels, inside = self._turned(pixels, inside, image, rng)
        name = self._dataset.names[int(self._dataset.annotations.category[row])]
        margin = _margin(rng, size / frame.side)
        return Drawn(pixels, inside, self._captions[name], margin, sources.redraw(rng, self._redraws))

    def _anywhere(self, like: int, rng: np.random.Generator, size: int, *, held: bool) -> Drawn:
        """A window as large as an object's own, with a random mask and no words."""
        images = self._images[held]
        image = int(images[int(rng.integers(len(images)))])
        picture = self._picture[image]
        side = round(side_px(self._mask(like).box, self._framing) * framing.zoom(rng))
        x, y = (int(rng.integers(min(0, n - side), max(0, n - side) + 1)) for n in picture.shape[1::-1])
        pixels, none = framing.cut(picture, None, Frame(x, y, side), size)
        pixels, _ = self._turned(pixels, none, image, rng)
        return Drawn(
            pixels, masks.draw(pixels, rng), "", _margin(rng, size / side), sources.redraw(rng, self._redraws)
        )

    def _turned(self, pixels: Rgb, mask: Bits, image: int, rng: np.random.Generator) -> tuple[Rgb, Bits]:
        """Mirrored and turned as far as the world allows it."""
        flip, turns = rng.random() < 0.5, int(rng.integers(4))
        if flip and image not in self._one_way:
            pixels, mask = pixels[:, ::-1], mask[:, ::-1]
        if not self._world.quarter:
            turns = 2 * (turns % 2) if self._world.upside else 0
        return np.ascontiguousarray(np.rot90(pixels, turns)), np.ascontiguousarray(np.rot90(mask, turns))

    def _mask(self, row: int) -> Mask:
        """An object's pixels: the bank's, the data's own, or a rounded box where there is only a box."""
        kept = self._masks.get(row)
        if kept is None:
            kept = self._masks[row] = self._found(row)
        return kept

    def _found(self, row: int) -> Mask:
        try:
            return self._bank.at(row).mask
        except KeyError:
            pass
        mask = self._dataset.mask(row)
        if mask is None:
            image, box = int(self._dataset.annotations.image[row]), self._dataset.box(row)
            height, width = (int(n[image]) for n in (self._dataset.images.height, self._dataset.images.width))
            mask = cutouts.rounded(box, width, height) or geometry.box_mask(box)
        if mask is None:
            raise AssertionError("a box of 3 px has pixels")
        return mask


def held_back(
    dataset: Dataset, rows: Mapping[str, NDArray[np.intp]], rare: Sequence[str], seed: int
) -> frozenset[int]:
    """The images that only measure: one in ten of those with objects, and none of fewer than eight.

    Of fewer than twenty rare objects none is spared; of more, fifteen in a hundred at most.

    Args:
        dataset: whose images.
        rows: the objects of each category.
        rare: the categories to be painted.
        seed: chooses.
    """
    image = dataset.annotations.image
    with_objects = np.unique(np.concatenate([image[found] for found in rows.values()]))
    if len(with_objects) < FEWEST_IMAGES:
        return frozenset()
    counts = np.zeros(len(dataset.images), dtype=int)
    for name in set(rare):
        np.add.at(counts, image[rows[name]], 1)
    total = int(counts.sum())
    spare = int(MOST_RARE_HELD * total) if total >= FEWEST_RARE else 0
    held: list[int] = []
    for row in rng(seed, Stage.FIT, _HELD).permutation(with_objects):
        if len(held) < max(1, len(with_objects) // 10) and counts[row] <= spare:
            spare -= int(counts[row])
            held.append(int(row))
    return frozenset(held)


def _margin(rng: np.random.Generator, zoom: float) -> int:
    """How far beyond the mask the painted area reaches, in pixels of a window, as painting draws it and a little wider."""
    drawn = rng.uniform(0.75 * MARGIN_PX[0], 1.15 * MARGIN_PX[1])
    return int(np.clip(round(drawn * zoom), 1, MOST_MARGIN))


class _Kept:
    """Decoded images, uint8 (H, W, 3); those used last are kept."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._kept: OrderedDict[int, Rgb] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, image: int) -> Rgb:
        kept = self._kept.get(image)
        if kept is None:
            kept = self._kept[image] = np.asarray(pictures.rgb(self._dataset.read(image)), np.uint8)
            self._bytes += kept.nbytes
        self._kept.move_to_end(image)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return kept
