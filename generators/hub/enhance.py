"""An enhancing pass: a window that was painted small is painted again at the image's own size, from itself enlarged.

The same checkpoint, the same words, a low strength: what was enlarged keeps its shapes and gets the detail of its new size. A
model for text-conditioned super-resolution would be a second checkpoint with a licence and a family of its own; this works
with every one that paints from pixels.
"""

import cv2
import numpy as np

from rarefill import seeds
from rarefill.generators import whole
from rarefill.generators.compact_conditioning import Bits, Rgb
from rarefill.generators.conditioning import Drawer
from rarefill.generators.denoise import Painter, Sampling
from rarefill.generators.upscale import Around
from rarefill.recipe import GeneratorConfig
from rarefill.seeds import Stage


class Enhancer:
    """Enlarges windows with the model that painted them."""

    def __init__(self, config: GeneratorConfig, painter: Painter, draw: Drawer, *, strength: float) -> None:
        """Make it.

        Args:
            config: steps and guidance.
            painter: the model.
            draw: its ControlNets' maps.
            strength: how far away from what was enlarged, above 0, to 1.
        """
        self._painter, self._draw, self._strength = painter, draw, strength
        self._sampling = Sampling(
            config.steps, config.guidance_scale, config.guidance_from, config.guidance_to
        )

    def enlarge(
        self,
        pixels: Rgb,
        side: int,
        prompt: str,
        *,
        where: Bits | None = None,
        around: Around | None = None,
        seed: int = 0,
    ) -> Rgb:
        """A larger picture of the same, with the detail of its size.

        Args:
            pixels: uint8 (S, S, 3) RGB.
            side: of the answer, S or above.
            prompt: what is in the picture.
            where: bool (side, side), the pixels that matter; the others stay enlarged and no more.
            around: the scene at full size, which the model sees around them; what it gives is not in the answer.
            seed: names the noise.

        Returns:
            uint8 (side, side, 3).

        Raises:
            ModelError: the network answered with what is no number, or memory does not reach.
        """
        plain = np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
        hidden = np.ones((side, side), bool) if where is None else where.copy()
        seen = plain
        if around is not None:
            hidden &= ~around.known
            seen = np.where(around.known[:, :, None], around.pixels, plain)
        if not hidden.any():
            return plain
        rng = seeds.rng(seed, Stage.VERSION)
        sheet = whole.Sheet(seen, hidden, locked=True, prompt=prompt, strength=self._strength, rng=rng)
        (painted,) = whole.paint(self._painter, self._draw, [sheet], self._sampling)
        return np.where(hidden[:, :, None], painted, plain)
