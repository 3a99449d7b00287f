"""Where lessons come from. A source answers one question: what does a random stream look at?

The shelf's pictures have no labels: their masks are random. What the project renders and a user's dataset bring the
masks of real objects.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from rarefill.generators.compact_conditioning import Bits
from rarefill.generators.train import masks, windows
from rarefill.generators.train.shelf import Rgb, Shelf

REDRAW_SHARE: Final = 0.3
"""Windows whose map keeps the edges inside the object, as for repainting it."""
MOST_MARGIN_PX: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One window to paint into, of S px.

    Attributes:
        pixels: uint8 (S, S, 3) RGB.
        mask: bool (S, S), the object, never empty.
        caption: what it is called; possibly empty.
        margin_px: the area that is painted reaches so far beyond the mask, in pixels of the window.
        redraw: whether the map keeps the object's own edges.
    """

    pixels: Rgb
    mask: Bits
    caption: str
    margin_px: int
    redraw: bool


class Source(Protocol):
    """Gives windows to learn from."""

    def draw(self, rng: np.random.Generator, size: int, *, held: bool = False) -> Drawn:
        """A random window of `size` px; the same stream gives the same window.

        Args:
            rng: the only thing that it depends on.
            size: of the window in pixels.
            held: take it from what only measures.
        """
        ...


class Unlabelled:
    """Random windows of the shelf's pictures, with random masks."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def draw(self, rng: np.random.Generator, size: int, *, held: bool = False) -> Drawn:
        """A window of any scale and tone."""
        sample = windows.draw(self._shelf, rng, size, held=held)
        mask = masks.draw(sample.pixels, rng)
        return Drawn(sample.pixels, mask, sample.caption, margin(rng), redraw(rng))


class Mixed:
    """A source with a share of another mixed in; the first one alone measures."""

    def __init__(self, source: Source, other: Source, share: float) -> None:
        self._source, self._other, self._share = source, other, share

    def draw(self, rng: np.random.Generator, size: int, *, held: bool = False) -> Drawn:
        """A window of either source."""
        other = not held and rng.random() < self._share
        return (self._other if other else self._source).draw(rng, size, held=held)


def margin(rng: np.random.Generator) -> int:
    """How far the painted area reaches beyond a mask of any kind, in pixels of the window: not at all, or any order alike."""
    return 0 if rng.random() < 0.2 else int(np.exp(rng.uniform(0, np.log(MOST_MARGIN_PX + 1))))


def redraw(rng: np.random.Generator, share: float = REDRAW_SHARE) -> bool:
    """Whether a window's map keeps the object's own edges."""
    return bool(rng.random() < share)
