"""From layouts to pixels: cut windows, let a generator paint them all at once, mix them back, front over back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from rarefill.generators.window import Framing, Window, cut, mix
from rarefill.geometry import Mask
from rarefill.scene import Layout, Paint, Pixels, Render


class Generator(Protocol):
    """Paints one object into each window.

    Attributes:
        name: as the recipe names it.
        framing: which windows it wants.
    """

    name: str
    framing: Framing

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """Answer every window, in order; one left without an answer could not be painted.

        A window's answer depends on nothing but that window: not on its neighbours in the batch.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One image's share of a batch.

    Attributes:
        layout: what the image shall show.
        background: its pixels as decoded, (H, W, C).
        attempts: for each placement, which paint of it this is, from 0.
        before: the render of an earlier attempt, if there is one.
        todo: the placements to paint now; all others stay as `before` has them.
        fallback: those of them that the other generator paints.
    """

    layout: Layout
    background: Pixels
    attempts: tuple[int, ...]
    before: Render | None
    todo: tuple[int, ...]
    fallback: frozenset[int] = frozenset()


def render(
    generator: Generator, jobs: Sequence[Job], *, seed: int, fallback: Generator | None = None
) -> list[Render]:
    """Paint what every job asks for.

    All windows are cut from the untouched backgrounds and painted in one call to each generator, so that neither the
    order of the objects nor the grouping of the jobs changes a pixel.

    Args:
        generator: who paints.
        jobs: one for each image.
        seed: the run's.
        fallback: who paints what the jobs leave to it; None: `generator` does.

    Returns:
        One render for each job, in order.
    """
    answers: list[list[_Answer]] = [[] for _ in jobs]
    for who, falls_back in ((generator, False), (fallback or generator, True)):
        owners = [(i, k) for i, job in enumerate(jobs) for k in job.todo if (k in job.fallback) == falls_back]
        windows = [_window(who.framing, jobs[i], k, seed) for i, k in owners]
        for (i, k), window in zip(owners, who.paint(windows) if windows else [], strict=True):
            answers[i].append(_Answer(k, window, who.name))
    return [_finish(generator.name, job, found) for job, found in zip(jobs, answers, strict=True)]


class _Answer(NamedTuple):
    """One placement's window, painted, and by whom."""

    placement: int
    window: Window
    name: str


def take_back(render: Render, indices: Iterable[int]) -> Render:
    """A render without some of its paints: the background's pixels stand again inside what they touched.

    Where a paint that stays lies in front, its pixels stay; where one lies behind, it loses what was hidden.
    """
    gone = [p for p in render.paints if p.index in set(indices) and p.touched is not None]
    if not gone:
        return render
    pixels = render.pixels.copy()
    paints = list(render.paints)
    lost = {p.index for p in gone}
    for paint in gone:
        old = paint.touched
        fronts = [p for p in paints if p.index not in lost and _in_front(render.layout, p.index, paint.index)]
        for front in fronts:
            if old is not None and front.touched is not None:
                old = old.minus(front.touched)
        paints[paint.index] = Paint(paint.index, None, None, paint.generator)
        if old is None:
            continue
        height, width = old.pixels.shape
        part = (slice(old.y, old.y + height), slice(old.x, old.x + width))
        pixels[part][old.pixels] = render.background[part][old.pixels]
        paints = [p if p in fronts else _without(p, old) for p in paints]
    return replace(render, pixels=pixels, paints=tuple(paints))


def _window(framing: Framing, job: Job, index: int, seed: int) -> Window:
    layout = job.layout
    key = (layout.image, layout.copy, index, job.attempts[index])
    return cut(job.background, layout.placements[index], framing, image=layout.image, key=key, seed=seed)


def _finish(name: str, job: Job, answers: Sequence[_Answer]) -> Render:
    """Mix one job's answers into its image, back to front."""
    layout = job.layout
    if job.before is None:
        paints = [Paint(i, None, None, name) for i in range(len(layout.placements))]
        pixels = job.background.copy()
    else:
        kept = take_back(job.before, job.todo)
        paints, pixels = list(kept.paints), kept.pixels.copy()
    for index, window, by in sorted(
        answers, key=lambda a: (layout.placements[a.placement].depth, a.placement)
    ):
        fronts = [p for p in paints if _in_front(layout, p.index, index)]
        protected = [*(p.touched for p in fronts), layout.placements[index].spared]
        mask, touched = mix(pixels, window, _union([m for m in protected if m is not None]))
        paints = [p if p in fronts else _without(p, mask) for p in paints]
        how = {} if window.painted is None else window.painted.how
        paints[index] = Paint(index, mask, touched, by, how)
    pixels.setflags(write=False)
    return Render(layout, job.background, pixels, tuple(paints))


def _in_front(layout: Layout, a: int, b: int) -> bool:
    """Whether placement a lies in front of placement b."""
    return (layout.placements[a].depth, a) > (layout.placements[b].depth, b)


def _without(paint: Paint, hidden: Mask | None) -> Paint:
    """A paint whose object lost the pixels that another one hides; what it touched stays known."""
    if paint.mask is None or hidden is None or not paint.mask.overlap_px(hidden):
        return paint
    return replace(paint, mask=paint.mask.minus(hidden))


def _union(masks: Sequence[Mask]) -> Mask | None:
    if not masks:
        return None
    x1, y1 = min(m.x for m in masks), min(m.y for m in masks)
    x2 = max(m.x + m.pixels.shape[1] for m in masks)
    y2 = max(m.y + m.pixels.shape[0] for m in masks)
    out = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    for m in masks:
        out |= m.window(x1, y1, x2 - x1, y2 - y1)
    return Mask.of(out, x1, y1)
