"""Painting again what was refused, and stopping when it leads nowhere."""

import json
import shutil
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rarefill import pipeline, recipe
from rarefill.acceptance import Acceptance, at_most
from rarefill.annotators import labels
from rarefill.annotators.calibrate import Sight, Standing
from rarefill.annotators.collateral import Collateral, neighbours
from rarefill.annotators.detectors import Detections
from rarefill.dataset import load
from rarefill.errors import RarefillError, RunError
from rarefill.generators import Painted
from rarefill.generators.window import Framing
from rarefill.geometry import Box, Mask, box_mask
from rarefill.ladder import Ladder
from rarefill.recipe import CheckerConfig
from rarefill.rundir import RunDir
from rarefill.scene import Layout, Paint, Placement, Reason, Render, Step, Verdict

ALL = (Step.SEED, Step.STRENGTH, Step.PLACE, Step.PASTE)


def made(data, out, **more):
    options = {
        "data": data,
        "out": out,
        "fill": {"square": 12},
        "generator": {"generator": "paste"},
        "annotator": {"checker": "none"},
        "workers": 1,
        "attempts": 5,
        "top_ups": 0,
    }
    return recipe.resolve(recipe.merged(options, more))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Flat:
    """Paints every object in one colour, and remembers what it was asked."""

    name = "flat"
    framing = Framing()

    def __init__(self) -> None:
        self.asked, self.lock = [], threading.Lock()

    def paint(self, windows):
        with self.lock:
            self.asked.append([(w.key, w.placement) for w in windows])
        return [self._answer(w) for w in windows]

    def _answer(self, window):
        colours = np.full((*window.mask.shape, window.pixels.shape[2]), 255, np.float32)
        alpha = window.mask.astype(np.float32)
        return window.answered(Painted(colours, alpha, alpha))


class Takes:
    """A checker that takes what one generator painted, or what `holds` says of a layout and a paint."""

    table = ()

    def __init__(self, holds) -> None:
        self.holds = holds

    def check(self, renders, todo):
        return [tuple(self._verdict(r, i) for i in indices) for r, indices in zip(renders, todo, strict=True)]

    def _verdict(self, render, index):
        paint = render.paints[index]
        if paint.mask is None or not self.holds(SimpleNamespace(layout=render.layout, paint=paint)):
            return Verdict(index, Reason.NOT_FOUND)
        return Verdict(index, Reason.ACCEPTED, 0.9, 0.5, 1.0, 1.0, paint.mask.box, paint.mask)


def trials(folder, data):
    return [t for record in RunDir(folder).read(load(data)) for t in record.trials]


NOTHING = Takes(lambda _: False)


def test_the_ladder_is_climbed_in_the_recipes_order_and_no_further_than_the_attempts(tiny, tmp_path):
    with pytest.raises(RunError, match="nothing was accepted"):
        pipeline.run(made(tiny, tmp_path / "run", floor=0), generator=Flat(), checker=NOTHING)
    by_object = {}
    for t in trials(tmp_path / "run", tiny):
        by_object.setdefault((t.number, t.verdict.index), []).append(t.step)
    assert by_object
    for steps in by_object.values():
        assert len(steps) == 5
        assert steps[:3] == [Step.FIRST, Step.SEED, Step.STRENGTH]
        assert steps[4] is Step.PASTE


def test_no_paint_is_repeated_without_end(tiny, tmp_path):
    generator = Flat()
    with pytest.raises(RunError):
        pipeline.run(
            made(tiny, tmp_path / "run", attempts=4, top_ups=2, floor=0), generator=generator, checker=NOTHING
        )
    painted = [key for call in generator.asked for key, _ in call]
    assert len(painted) <= 12 * 4 * 3
    assert len(set(painted)) == len(painted)  # and none of them twice


def test_repaints_of_a_chunk_go_to_the_generator_together(tiny, tmp_path):
    generator = Flat()
    with pytest.raises(RunError):
        pipeline.run(
            made(
                tiny,
                tmp_path / "run",
                attempts=2,
                floor=0,
                repair="seed",
                layout={"max_reuse": 1, "per_image": 1},
            ),
            generator=generator,
            checker=NOTHING,
        )
    sizes = [len(call) for call in generator.asked]
    assert sizes[0] > 1
    assert sizes[0::2] == sizes[1::2]


def test_a_repaint_by_strength_moves_half_as_far_as_the_least_or_as_a_redraw(tiny):
    options = {"repair": "strength", "repair_strength": 0.4}
    asked = recipe.resolve(
        recipe.merged({"data": tiny, "generator": {"strength": (0.9, 0.5), "redraw_strength": 0.6}}, options)
    )
    ladder = Ladder.of(asked, "compact")
    for redraws, strength in ((None, 0.25), (3, 0.3)):
        placement = Placement("square", Mask(0, 0, np.ones((4, 4), dtype=bool)), redraws=redraws)
        step, mended = ladder.mended(placement, 1, lambda: None)
        assert step is Step.STRENGTH
        assert mended.strength == pytest.approx(strength)


@pytest.mark.parametrize(("usual", "most", "strength"), [(0.8, 0.3, 0.3), (0.4, 0.3, 0.2)])
def test_a_repaint_by_strength_keeps_its_place_and_stays_nearer_to_real_objects(
    tiny, tmp_path, usual, most, strength
):
    generator = Flat()
    options = {"attempts": 2, "repair": "strength", "repair_strength": most, "floor": 0}
    painting = {"generator": "paste", "strength": (usual,)}
    with pytest.raises(RunError):
        pipeline.run(
            made(tiny, tmp_path / "run", **options, generator=painting),
            generator=generator,
            checker=NOTHING,
        )
    first, again = generator.asked[0], generator.asked[1]
    assert [p.mask.box for _, p in first] == [p.mask.box for _, p in again]
    assert {p.strength for _, p in first} == {None}
    assert {p.strength for _, p in again} == {strength}


def test_what_no_generator_could_paint_is_pasted_and_the_record_says_so(tiny, tmp_path):
    pasted = Takes(lambda at: at.paint.generator == "paste")
    summary = pipeline.run(
        made(tiny, tmp_path / "run", attempts=3, repair="seed,paste"), generator=Flat(), checker=pasted
    )
    (tally,) = summary.tallies
    assert tally.made > 0
    assert tally.mended[Step.PASTE] == tally.tried[Step.PASTE] == tally.made
    assert tally.as_json()["steps"]["seed"] == {"paints": tally.paints // 3, "held": 0}
    samples = RunDir(tmp_path / "run").samples(load(tiny))
    new = [i for s in samples for i in s.instances if i.annotation is None]
    assert {i.how["generator"] for i in new} == {"paste"}
    assert "held at first; painted again: seed 0 of 12, paste 12 of 12; 0 given up" in pipeline.refusals(
        summary
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_repair_gives_the_same_bytes_for_any_number_of_workers(tiny, tmp_path, workers):
    third = Takes(lambda at: int(at.paint.mask.x + at.paint.index) % 3 == 0)
    one = made(tiny, tmp_path / "run", floor=0)
    pipeline.run(one, generator=Flat(), checker=third)
    before = contents(tmp_path / "run")
    assert {t.step for t in trials(tmp_path / "run", tiny)} > {Step.FIRST, Step.SEED}
    shutil.rmtree(tmp_path / "run")
    pipeline.run(one.model_copy(update={"workers": workers}), generator=Flat(), checker=third)
    assert contents(tmp_path / "run") == before


def test_an_object_for_which_there_is_no_other_place_takes_the_next_way():
    ladder = Ladder((Step.PLACE, Step.PASTE), 3, 0.4, (0.6,), 0.7)
    placement = Placement("square", Mask(1, 1, np.ones((4, 4), bool)))
    assert ladder.mended(placement, 1, lambda: None) == (Step.PASTE, placement)
    alone = Ladder((Step.PLACE,), 3, 0.4, (0.6,), 0.7)
    assert alone.mended(placement, 1, lambda: None) is None
    moved = replace(placement, seed=9)
    assert alone.mended(placement, 1, lambda: moved) == (Step.PLACE, moved)


def test_ways_that_mean_nothing_to_a_generator_or_to_a_redraw_are_another_seed(tiny, tmp_path):
    asked = made(tiny, tmp_path)
    assert Ladder.of(asked, "compact").steps == ALL
    assert Ladder.of(asked, "paste").steps == (Step.SEED, Step.PLACE, Step.SEED)
    ladder = Ladder.of(asked, "compact")
    assert [ladder.step(a, redraws=True) for a in (1, 2, 3, 4)] == [
        Step.SEED,
        Step.STRENGTH,
        Step.SEED,
        Step.SEED,
    ]


def test_a_scene_that_cannot_be_filled_says_so(tiny, tmp_path):
    first = Takes(lambda at: at.layout.image != 0)
    recipe_ = made(
        tiny,
        tmp_path / "run",
        attempts=3,
        repair="place",
        floor=0,
        layout={"max_reuse": 1, "per_image": 1, "untouched": 0},
    )
    summary = pipeline.run(recipe_, generator=Flat(), checker=first)
    assert len(summary.unfilled) == 1
    assert summary.tallies[0].given_up == 1
    text = pipeline.refusals(summary)
    assert (
        f"1 scene could not be filled: nothing that was painted there held, so there is no image ({summary.unfilled[0]:06d})"
        in text
    )
    assert not (tmp_path / "run" / "images" / f"{summary.unfilled[0]:06d}.png").exists()


def test_where_there_is_no_other_place_nothing_is_painted_and_it_is_counted(tiny, tmp_path, monkeypatch):
    from rarefill.layouts import Planner

    monkeypatch.setattr(Planner, "elsewhere", lambda *_: None)
    some = Takes(lambda at: at.layout.image % 2 == 0)
    summary = pipeline.run(
        made(tiny, tmp_path / "run", repair="place", floor=0, layout={"per_image": 1}),
        generator=Flat(),
        checker=some,
    )
    (tally,) = summary.tallies
    assert tally.refused["no place"] == tally.given_up > 0
    assert tally.paints == 12


FEW = {"layout": {"max_reuse": 40, "per_image": 1}, "fill": {"square": 200}, "attempts": 1}


def test_a_run_under_the_floor_stops_keeps_what_holds_and_says_why(tiny, tmp_path):
    rare = Takes(lambda at: at.layout.image == 3 and at.layout.copy == 0)
    one = made(tiny, tmp_path / "run", floor=0.3, **FEW)
    with pytest.raises(RunError, match=r"stopped early: \d of \d+ objects held") as e:
        pipeline.run(one, generator=Flat(), checker=rare)
    said = str(e.value)
    assert "not found" in said
    assert "--floor" in said
    assert (tmp_path / "run" / "annotations.json").exists()
    kept = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert kept["finished"]
    assert kept["summary"]["stopped"].startswith("stopped early")
    assert len(trials(tmp_path / "run", tiny)) < 200
    named = {s.file_name for s in RunDir(tmp_path / "run").samples(load(tiny))}
    assert {p.name for p in (tmp_path / "run" / "images").iterdir()} == named
    with pytest.raises(RunError, match="stopped early"):  # the same again, without painting
        pipeline.run(one, generator=Flat(), checker=rare)
    before = contents(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunError, match="stopped early"):
        pipeline.run(one.model_copy(update={"workers": 3}), generator=Flat(), checker=rare)
    assert contents(tmp_path / "run") == before


def test_a_floor_of_nothing_stops_no_run(tiny, tmp_path):
    with pytest.raises(RunError) as e:
        pipeline.run(made(tiny, tmp_path / "run", floor=0, **FEW), generator=Flat(), checker=NOTHING)
    assert "stopped" not in str(e.value)
    assert len(trials(tmp_path / "run", tiny)) == 200


def test_a_run_stops_only_when_it_is_sure():
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(100):
        at_floor = Acceptance(0.2)
        for _ in range(40):
            at_floor.add(8, int(rng.binomial(8, 0.2)))
            if at_floor.hopeless():
                stopped += 1
                break
    assert stopped <= 4
    hopeless = Acceptance(0.2)
    looks = 0
    while not hopeless.hopeless():
        hopeless.add(8, 0)
        looks += 1
    assert looks < 10
    assert at_most(0, 3, 0.5) == pytest.approx(0.125)


def test_a_repair_that_is_no_way_is_told():
    with pytest.raises(RarefillError, match="repair"):
        recipe.resolve({"repair": ["again"]})


class Sees:
    """Looks that say what they are told: a score by place, and objects found."""

    def __init__(self, after=0.9, found=(), before=()) -> None:
        self.after, self.found, self.before = after, found, before

    def look(self, pixels, *_):
        return Sight(self.after if (pixels == 255).any() else 0.9, 1.0)

    def around(self, pixels, *_):
        found = self.found if (pixels == 255).any() else self.before
        return Detections(
            np.array([f[0] for f in found], float).reshape(-1, 4),
            np.array([f[1] for f in found], int),
            np.array([f[2] for f in found], float),
        )


STANDING = Standing("", 40, 0.9, 0.4, pooled=False)


def looking(data, sees, **known):
    table = tuple(replace(STANDING, category=name, **known) for name in data.names)
    return Collateral(sees, data.names, table, CheckerConfig(checker="none"))


def scene(data, mask, category="square"):
    background = np.zeros((80, 96, 3), np.uint8)
    pixels = background.copy()
    pixels[mask.full(80, 96)] = 255
    return Render(
        Layout(0, 0, (Placement(category, mask),)), background, pixels, (Paint(0, mask, mask, "flat"),)
    )


def beside(data, row, gap):
    """A painted strip of 6 px to the right of a real object, so far away."""
    box = data.box(row)
    return box_mask(Box(round(box.x2) + gap, box.y1, round(box.x2) + gap + 6, box.y2))


@pytest.fixture
def real(tiny_once):
    return load(tiny_once)


def row_of(data):
    """A real object of the first image with room to its right."""
    return next(int(r) for r in data.rows_in(0) if data.box(int(r)).x2 < 80)


@pytest.mark.parametrize(("gap", "near"), [(0, True), (2, True), (6, False)])
def test_only_what_stands_close_is_a_neighbour(real, gap, near):
    row = row_of(real)
    render = scene(real, beside(real, row, gap))
    assert (row in neighbours(real, render, render.paints[0].touched)) == near


@pytest.mark.parametrize(("after", "reason"), [(0.9, Reason.ACCEPTED), (0.0, Reason.SPOILED)])
def test_paint_that_spoils_a_real_neighbour_is_refused(real, after, reason):
    render = scene(real, beside(real, row_of(real), 1))
    verdict = Verdict(0, Reason.ACCEPTED, 0.9, 0.4, 1, 1, render.paints[0].mask.box, render.paints[0].mask)
    (((said),),) = looking(real, Sees(after)).judged(real, [render], [(verdict,)])
    assert said.reason is reason


def test_neighbours_that_the_checker_never_knew_speak_against_no_paint(real):
    render = scene(real, beside(real, row_of(real), 1))
    assert not looking(real, Sees(0.0), found=0.1).spoiled(real, render, 0)
    assert not looking(real, Sees(0.0), threshold=0.95).spoiled(real, render, 0)


FREE = Mask(2, 2, np.ones((30, 8), bool))


@pytest.mark.parametrize(
    ("found", "before", "extra"),
    [
        ([((2, 2, 10, 32), 0, 0.9)], (), False),  # the object itself
        ([((2, 4, 9, 14), 0, 0.9)], (), False),  # a piece of it
        ([((2, 4, 9, 14), 1, 0.9)], (), True),  # another class inside
        ([((2, 4, 9, 14), 1, 0.3)], (), False),  # not confident
        ([((2, 4, 9, 14), 1, 0.9)], [((2, 4, 9, 14), 1, 0.8)], False),  # was there before
        ([((40, 4, 60, 14), 1, 0.9)], (), False),  # not in the paint
    ],
)
def test_confident_objects_in_paint_that_nobody_asked_for_are_reported(real, found, before, extra):
    empty = replace(
        real,
        annotations=replace(real.annotations, boxes=real.annotations.boxes + np.array([200.0, 0, 200, 0])),
    )
    render = scene(empty, FREE, real.names[0])
    reported = looking(empty, Sees(0.9, found, before)).extras(empty, render, 0, FREE.box)
    assert bool(reported) == extra


def test_what_was_refused_or_not_painted_is_not_looked_at_again(real):
    render = scene(real, beside(real, row_of(real), 1))
    refused = Verdict(0, Reason.NOT_FOUND)
    (((said),),) = looking(real, Sees(0.0)).judged(real, [render], [(refused,)])
    assert said is refused


def test_a_neighbour_that_paint_hides_by_plan_is_sought_where_it_still_shows(real):
    row = row_of(real)
    box = real.box(row)
    strip = box_mask(Box(box.x2 - 3, box.y1 - 2, box.x2 + 8, box.y2 + 2))
    render = scene(real, strip)
    fronts = labels.covers(real, render, row, [0])
    left, _ = labels.left_of(real, row, fronts, 0.25)
    assert left.box.x2 < box.x2
