"""Windows of pictures that the project renders itself: every mask is exact, every object has a name."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from rarefill.generators.train import framing, sources, windows
from rarefill.generators.train.shelf import Rgb
from rarefill.generators.train.sources import Drawn
from rarefill.generators.window import Framing
from rarefill.geometry import Mask

Field = tuple[Rgb, Sequence[tuple[str, Mask]]]
"""A picture, uint8 (H, W, 3), and its objects: what each is called, and its visible pixels."""
Renderer = Callable[[int], Field]
"""Makes a picture by its number."""
FIELDS: Final = 64
"""Pictures that are rendered, a fifth of a second each; all of them are kept."""


class Rendered:
    """Windows around rendered objects, each kind of object as often as the others."""

    def __init__(self, render: Renderer, scene: str, *, fields: int = FIELDS) -> None:
        """Make the source.

        Args:
            render: makes a picture; it holds an object at least.
            scene: words for the kind of picture.
            fields: numbers from 0 up to this are rendered.
        """
        self._field, self._scene, self._fields = lru_cache(fields)(render), scene, fields

    def draw(self, rng: np.random.Generator, size: int, *, held: bool = False) -> Drawn:
        """A window around one object, turned and toned as the shelf's windows are."""
        del held
        pixels, objects = self._field(int(rng.integers(self._fields)))
        names = sorted({name for name, _ in objects})
        name = names[int(rng.integers(len(names)))]
        those = [mask for called, mask in objects if called == name]
        mask = those[int(rng.integers(len(those)))]
        window, inside = framing.cut(pixels, mask, framing.about(mask.box, rng, Framing()), size)
        flip, turns = rng.random() < 0.5, int(rng.integers(4))
        if flip:
            window, inside = window[:, ::-1], inside[:, ::-1]
        window, grey = windows.toned(np.rot90(window, turns), rng)
        said = windows.caption(name, self._scene, rng, grey=grey)
        return Drawn(
            np.ascontiguousarray(window),
            np.ascontiguousarray(np.rot90(inside, turns)),
            said,
            sources.margin(rng),
            sources.redraw(rng),
        )
