"""Places for a category's next objects, on several backgrounds together: drawn, sieved and weighed before any is taken."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rarefill.geometry import FloatArray
from rarefill.layouts.boxes import Draws, Prior
from rarefill.layouts.candidates import Candidates, wanted
from rarefill.layouts.coverage import Coverage
from rarefill.layouts.known import Known
from rarefill.layouts.obstacles import Obstacles, extents, sieve
from rarefill.layouts.shapes import drawn_at, thrown_back
from rarefill.recipe import LayoutConfig
from rarefill.scene import Placement

if TYPE_CHECKING:
    from rarefill.layouts.context import Context


class Drawing:
    """Draws places from priors and weighs them by the context. May be used from many threads."""

    def __init__(self, config: LayoutConfig, context: "Context | None") -> None:
        """`context`: what weighs places; None takes all as they are drawn."""
        self._config, self._context = config, context

    def places(
        self,
        rng: np.random.Generator,
        n: int,
        known: Known,
        scenes: Sequence[Obstacles],
        images: Sequence[int],
        coverage: Coverage | None,
        *,
        cut: bool = False,
        beside: Placement | None = None,
    ) -> list[Candidates]:
        """Places for objects of a category, n on each background, less those that its own objects, edge or region rule out.

        Args:
            rng: the source of all choices.
            n: on each.
            known: of the category; it has an exemplar to give to each background.
            scenes: the backgrounds.
            images: their rows.
            coverage: what the plan has of the category so far; the places are counted as plausible.
            cut: places that the image's edge cuts off.
            beside: an object that they keep company with, where enough is known of such.
        """
        size = extents(scenes, n)
        draws = self._draws(rng, n * len(scenes), known.prior, size, beside)
        picks = known.shapes.choose(rng, draws.log_size, draws.log_aspect, images)
        if picks is None:
            raise AssertionError("each background has an exemplar")
        boxes = drawn_at(draws, picks)
        boxes = known.edges.over(rng, boxes, size) if cut else thrown_back(boxes, size)
        fill = known.shapes.fill[picks.exemplar]
        rows, against = sieve(scenes, boxes, size, fill, known.least_px, cut=cut)
        rows = rows[np.lexsort((picks.log_size[rows], rows // n))]
        boxes, size, log_size = boxes[rows], size if len(size) == 1 else size[rows], picks.log_size[rows]
        shown = np.clip(boxes, 0, np.tile(size, 2)) if cut else boxes
        image = images[0] if len(images) == 1 else np.array(images, dtype=np.intp)[rows // n]
        odds, cells = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.intp)
        lying = np.zeros(len(rows))
        if self._context is not None and len(rows):
            axes = picks.axis_deg[rows]
            odds, lying = self._context.wanted(known.category, image, boxes, axes, self._config.temperature)
        if coverage is not None and len(rows):
            cells = coverage.cells.of(image, shown, size)
            coverage.draw(cells, odds)
        weight = wanted(rng, odds, rows // n, self._config.temperature) + lying
        ends = np.searchsorted(rows // n, np.arange(len(scenes) + 1)).tolist()
        found = []
        for i, scene_against in enumerate(against):
            own = slice(ends[i], ends[i + 1])
            found.append(
                Candidates(
                    boxes[own],
                    shown[own],
                    odds[own],
                    cells[own],
                    weight[own],
                    log_size[own],
                    picks,
                    rows[own],
                    n,
                    scene_against,
                    [] if coverage is None else coverage.used(images[i]),
                    scenes[i].clear(boxes[own]),
                )
            )
        return found

    def _draws(
        self, rng: np.random.Generator, n: int, prior: Prior, size: FloatArray, beside: Placement | None
    ) -> Draws:
        width, height = size.T
        if beside is not None:
            near = prior.near(
                rng, n, Draws.of(beside.whole or beside.box), width, height, self._config.jitter
            )
            if near is not None:
                return near
        return prior.draw(rng, n, width, height, self._config.jitter)
