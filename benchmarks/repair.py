"""What repair brings and costs, and what checking takes beside painting.

    python benchmarks/repair.py split/train_k10.json --pictures bccd/images --rare Platelets --objects 40

The same plan is run without repair, with the recipe's ladder and with one way to mend alone (`--only ladder` leaves those out).
`--only control` leaves painting out and asks how often neighbours and extra objects are reported where nothing, or where
something known, was done.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from rarefill import annotators, bank, dataset, generators, pipeline, recipe
from rarefill.annotators.check import Fitted
from rarefill.annotators.collateral import Collateral
from rarefill.annotators.labels import pixels as box_pixels
from rarefill.errors import RunError
from rarefill.generators import Window
from rarefill.geometry import Box, Mask
from rarefill.places import cache_folder
from rarefill.recipe import Recipe
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Layout, Paint, Placement, Render, Verdict
from rarefill.summary import summarise

RING_PX = 6
T = TypeVar("T")


class Clock:
    """Seconds spent in one kind of work."""

    def __init__(self) -> None:
        self.seconds = {"paint": 0.0, "check": 0.0, "collateral": 0.0}

    def timed(self, what: str, call: Callable[..., T], *args: object) -> T:
        start = time.process_time()
        try:
            return call(*args)
        finally:
            self.seconds[what] += time.process_time() - start


class TimedGenerator:
    """A generator whose painting is timed."""

    def __init__(self, inner: generators.Generator, clock: Clock) -> None:
        self.inner, self.clock = inner, clock
        self.name, self.framing = inner.name, inner.framing

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        return self.clock.timed("paint", self.inner.paint, windows)


class TimedChecker:
    """A checker whose two looks are timed."""

    def __init__(self, inner: Fitted, clock: Clock) -> None:
        self.inner, self.clock, self.table = inner, clock, inner.table

    def check(self, renders: Sequence[Render], todo: Sequence[tuple[int, ...]]) -> list[tuple[Verdict, ...]]:
        return self.clock.timed("check", self.inner.check, renders, todo)

    def collateral(
        self, data: dataset.Dataset, renders: Sequence[Render], verdicts: Sequence[tuple[Verdict, ...]]
    ) -> list[tuple[Verdict, ...]]:
        return self.clock.timed("collateral", self.inner.collateral, data, renders, verdicts)


def run(
    made: Recipe,
    data: dataset.Dataset,
    generator: generators.Generator,
    checker: Fitted,
    name: str,
    **changes: object,
) -> None:
    """One run, in one line."""
    out = Path(tempfile.mkdtemp()) / "run"
    clock = Clock()
    one = made.model_copy(update={"out": out, **changes})
    try:
        summary = pipeline.run(
            one,
            dataset=data,
            generator=TimedGenerator(generator, clock),
            checker=TimedChecker(checker, clock),
        )
    except RunError:  # nothing held
        asked = {Goal(category): n for category, n in dict(made.fill).items()}
        summary = summarise(RunDir(out), data, asked, ())
    (tally,) = summary.tallies
    took = clock.seconds
    looking = took["check"] + took["collateral"]
    print(
        f"{name:24} asked {tally.asked:3}, {tally.paints:3} paints, {tally.made:3} hold; "
        f"paint {took['paint']:6.1f} s, check {took['check']:5.1f} s, collateral {took['collateral']:5.1f} s "
        f"({looking / max(took['paint'], 1e-9):.1%} of painting); "
        f"{(looking + took['paint']) / max(1, tally.made):5.2f} s an object that holds"
    )
    for step, n in tally.tried.items():
        print(f"    {step:9} held {tally.mended[step]:3} of {n:3}")
    print(f"    refused: {dict(tally.refused)}; {tally.given_up} given up", flush=True)
    shutil.rmtree(out.parent)


def control(data: dataset.Dataset, checker: Fitted, looks: Collateral, n: int) -> None:
    """How often collateral damage is reported where there is none, and where there is."""
    rng = np.random.default_rng(0)
    kinds = [row for name in data.names for row in rng.permutation(data.rows_of(name))[:n]]
    extra = sum(bool(looks.extras(data, *_repainted(data, int(row)))) for row in kinds)
    print(f"extra objects reported in the place of {len(kinds)} real objects: {extra}")
    beside = {"noise beside it": 0, "half of it erased": 0}
    found = 0
    for row in map(int, kinds):
        render = _beside(data, row, rng, erased=False)
        spoiled = looks.spoiled(data, render, 0)
        name = data.names[int(data.annotations.category[row])]
        known = {standing.category: standing.threshold for standing in checker.table if not standing.blind}
        found += looks.before(render, data, row) >= known.get(name, 2.0)
        beside["noise beside it"] += row in spoiled
        beside["half of it erased"] += row in looks.spoiled(data, _beside(data, row, rng, erased=True), 0)
    print(f"of {found} real objects found before, reported as spoiled: {beside}")


def _repainted(data: dataset.Dataset, row: int) -> tuple[Render, int, Box]:
    """A real object as if it had been painted: the background is the image without it."""
    image = int(data.annotations.image[row])
    real = data.read(image)
    own = data.mask(row) or box_pixels(data.box(row))
    touched = _grown(own, RING_PX).clipped(real.shape[1], real.shape[0])
    hole = touched.full(*real.shape[:2]).astype(np.uint8)
    gone = cv2.inpaint(np.ascontiguousarray(real[:, :, :3]), hole, 3, cv2.INPAINT_TELEA)
    category = data.names[int(data.annotations.category[row])]
    layout = Layout(image, 0, (Placement(category, own),))
    return Render(layout, gone.reshape(real.shape), real, (Paint(0, own, touched, "real"),)), 0, data.box(row)


def _beside(data: dataset.Dataset, row: int, rng: np.random.Generator, *, erased: bool) -> Render:
    """Changed pixels beside a real object: a little noise from its border outward, or its one half gone too."""
    image, box = int(data.annotations.image[row]), data.box(row)
    real = data.read(image)
    height, width = real.shape[:2]
    whole = np.zeros((height, width), bool)
    x1, y1, x2, y2 = (round(v) for v in box.xyxy)
    whole[max(0, y1 - RING_PX) : y2 + RING_PX, max(0, x1 - RING_PX) : x2 + RING_PX] = True
    inside = np.zeros_like(whole)
    inside[max(0, y1) : y2, max(0, x1) : x2] = True
    ring, painted = whole & ~inside, real.copy()
    noise = rng.normal(0, 3, painted.shape)
    painted[ring] = np.clip(painted[ring] + noise[ring], 0, 255).astype(painted.dtype)
    if erased:
        half = inside.copy()
        half[:, : (x1 + x2) // 2] = False
        painted[half] = np.median(real[ring], axis=0).astype(painted.dtype) if ring.any() else 0
        ring |= half
    touched = Mask.of(ring)
    corner = Mask(touched.x, touched.y, np.ones((1, 1), bool))  # the object asked for hides nothing
    layout = Layout(image, 0, (Placement(data.names[int(data.annotations.category[row])], corner),))
    return Render(layout, real, painted, (Paint(0, None, touched, "noise"),))


def _grown(mask: Mask, px: int) -> Mask:
    h, w = mask.pixels.shape
    frame = mask.window(mask.x - px, mask.y - px, w + 2 * px, h + 2 * px).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1,) * 2)
    grown = Mask.of(cv2.dilate(frame, disc), mask.x - px, mask.y - px)
    return grown or mask


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rare", required=True)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--adapt-steps", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--checker-steps", type=int, default=700)
    parser.add_argument("--generator", default="compact")
    parser.add_argument("--only", choices=("control", "ladder", "runs", "all"), default="all")
    given = parser.parse_args(arguments)
    made = recipe.resolve(
        {
            "data": given.data,
            "pictures": given.pictures,
            "fill": {given.rare: given.objects},
            "cache": given.cache,
            "workers": 1,
            "top_ups": 0,
            "attempts": 5,
            "floor": 0,
            "formats": "coco",
            "generator": {
                "generator": given.generator,
                "adapt_steps": given.adapt_steps,
                "minutes": given.minutes,
            },
            "annotator": {"checker_steps": given.checker_steps},
        }
    )
    data = dataset.load(given.data, given.pictures)
    cache = cache_folder(given.cache)
    shapes = bank.build(data, [given.rare], cache=cache)
    checker = annotators.build(made.annotator, data, shapes, seed=0, cache=cache)
    if given.only in {"control", "all"}:
        control(data, checker, checker.around, 40)
    if given.only == "control":
        return
    generator = generators.build(made.generator, data, shapes, seed=0, cache=cache)
    run(made, data, generator, checker, "without repair", attempts=1)
    run(made, data, generator, checker, "the recipe's ladder")
    if given.only == "ladder":
        return
    for step in ("seed", "strength", "place", "paste"):
        run(made, data, generator, checker, f"{step} alone, once", attempts=2, repair=(step,))


if __name__ == "__main__":
    main()
