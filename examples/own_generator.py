"""Paint with a generator of your own.

python examples/own_generator.py annotations.json Platelets 20 out/

A generator has a name, says which windows it wants, and answers each of them. Cutting windows, mixing the answers back in,
checking and labels are not its work. This one stains: it takes light away inside the mask, in grains.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rarefill import console, pipeline, recipe
from rarefill.generators import Framing, Painted, Window
from rarefill.summary import refusals


class Stain:
    """Absorbs most light in green, less in red and least in blue: purple on a bright ground."""

    name = "stain"
    framing = Framing()  # windows at the image's own resolution

    def __init__(self, strength: float = 1.0) -> None:
        self.absorbance = strength * np.array([0.5, 0.75, 0.12], dtype=np.float32)

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """Answer every window, in order."""
        return [window.answered(self.stained(window)) for window in windows]

    def stained(self, window: Window) -> Painted:
        """The window's own pixels, seen through a grain of stain."""
        rng = window.rng()  # the only source of chance: a seed names a picture
        alpha = cv2.GaussianBlur(window.mask.astype(np.float32), (0, 0), 0.8)
        grains = cv2.GaussianBlur(rng.standard_normal(alpha.shape, dtype=np.float32), (0, 0), 1.3)
        density = alpha * np.clip(1 + grains, 0.3, None) * np.float32(rng.uniform(0.7, 1.2))
        through = np.exp(-density[..., None] * self.absorbance[: window.pixels.shape[2]])
        colours = window.pixels[..., :3].astype(np.float32) * through
        return Painted(colours, alpha, (alpha > 0.02).astype(np.float32), {"density": float(density.max())})


def main(annotations: Path, category: str, count: int, out: Path) -> None:
    """Fill a class with stains."""
    wanted = recipe.resolve({"data": annotations, "out": out, "fill": {category: count}})
    summary = pipeline.run(wanted, generator=Stain(), progress=console.on_stderr())
    print(refusals(summary))
    print(f"look at {summary.run / 'preview.png'}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
