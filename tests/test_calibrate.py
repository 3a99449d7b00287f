"""What the checker promises, and what stands behind it: bounds, planted errors, the table."""

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarefill import dataset
from rarefill.annotators import bounds, calibrate, faults, held_back
from rarefill.annotators.calibrate import Sight
from rarefill.annotators.faults import Kind
from rarefill.annotators.samples import Pictures
from rarefill.errors import UsageError
from rarefill.geometry import Box
from rarefill.progress import SILENT
from rarefill.recipe import CheckerConfig


def binomial(k, n, p):
    """P(X <= k), term by term."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 20), (3, 14), (14, 14), (59, 60)])
def test_an_interval_ends_where_the_count_becomes_unlikely(k, n):
    low, high = bounds.interval(k, n)
    if k:
        assert 1 - binomial(k - 1, n, low) == pytest.approx(0.025, rel=0.1)
    else:
        assert low == 0
    if k < n:
        assert binomial(k, n, high) == pytest.approx(0.025, rel=0.1)
    else:
        assert high == 1


def test_of_nothing_everything_is_possible():
    assert bounds.interval(0, 0) == (0.0, 1.0)


def test_a_test_is_the_binomial_sum():
    assert bounds.p_value(2, 30, 0.1) == pytest.approx(binomial(2, 30, 0.1))


@pytest.mark.parametrize(("share", "delta"), [(0.1, 0.1), (0.05, 0.1), (0.2, 0.05)])
def test_as_many_examples_as_needed_and_not_one_fewer(share, delta):
    n = bounds.needed(share, delta)
    assert bounds.p_value(0, n, share) <= delta < bounds.p_value(0, n - 1, share)
    assert bounds.certified([0.0] * n, share, delta) == 0.01
    assert bounds.certified([0.0] * (n - 1), share, delta) is None


def test_a_level_is_certified_only_with_all_above_it():
    scores = [0.995] * 12 + [0.0] * 48
    assert bounds.certified(scores, 0.1, 0.1) is None
    assert bounds.certified([0.6] * 12 + [0.0] * 48, 0.1, 0.1) == 0.61


def test_certificates_are_wrong_no_more_often_than_they_say():
    draw, share, delta, runs = np.random.default_rng(5), 0.2, 0.1, 2000
    wrong = 0
    for _ in range(runs):
        level = bounds.certified(draw.uniform(0, 1, 40).tolist(), share, delta)
        wrong += level is not None and 1 - level > share + 1e-9
    assert wrong / runs <= delta + 3 * math.sqrt(delta * (1 - delta) / runs)


@pytest.mark.parametrize(("n", "keep"), [(9, 0.9), (14, 0.9), (21, 0.9), (37, 0.8)])
def test_new_objects_are_kept_as_often_as_promised(n, keep):
    draw, runs = np.random.default_rng(n), 4000
    scores = np.round(draw.beta(2, 1, (runs, n + 1)), 4)
    kept = sum(row[-1] >= calibrate.threshold(row[:-1].tolist(), keep, 0.0)[0] for row in scores)
    promised = calibrate.threshold([0.5] * n, keep, 0.0)[1]
    assert promised >= keep
    assert kept / runs >= keep - 3 * math.sqrt(keep * (1 - keep) / runs)
    assert kept / runs == pytest.approx(promised, abs=0.03)


@given(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=60), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_threshold_is_never_under_the_least_score_and_never_over_all_that_was_found(scores, keep):
    level, promised = calibrate.threshold(scores, keep, 0.05)
    found = [s for s in scores if s >= 0.05]
    assert 0.05 <= level <= max(found, default=0.05)
    assert 0 <= promised < 1


def test_too_few_objects_promise_what_they_can():
    (standing,) = calibrate.standings({"a": [0.5, 0.6, 0.7, 0.8]}, {}, keep=0.9, min_score=0.05)
    assert standing.pooled
    assert (standing.threshold, standing.keeps, standing.kept) == (0.5, 0.8, False)


def test_a_detector_that_misses_too_many_promises_nothing():
    (standing,) = calibrate.standings({"a": [0.0] * 10 + [0.8] * 30}, {}, keep=0.9, min_score=0.05)
    assert (standing.threshold, standing.keeps, standing.found) == (0.8, 0.0, 0.75)
    assert standing.kept_low < 0.75 < standing.kept_high


def test_a_few_misses_too_many_weaken_the_promise_and_lower_the_threshold():
    scores = [0.0] * 2 + [0.1, 0.4, 0.5] + [0.8] * 16
    assert calibrate.threshold(scores, 0.9, 0.05) == (0.1, pytest.approx(18 / 22))
    # what is asked for in vain is never stricter than what can be had
    assert calibrate.threshold(scores, 0.85, 0.05)[0] == 0.1
    assert calibrate.threshold([0.0] * 6 + [0.5] * 15, 0.9, 0.05)[1] == 0.0


@pytest.mark.parametrize("finds", [0.85, 0.9, 0.95])
def test_weakened_promises_are_right_on_average(finds):
    draw, n, runs = np.random.default_rng(7), 21, 6000
    scores = np.where(draw.random((runs, n + 1)) < finds, draw.uniform(0.05, 1, (runs, n + 1)), 0.0)
    kept, promised = [], []
    for row in scores:
        level, promise = calibrate.threshold(row[:-1].tolist(), 0.9, 0.05)
        if 0 < promise < 0.9:
            kept.append(row[-1] >= level)
            promised.append(promise)
    assert len(kept) > runs / 20
    assert np.mean(kept) >= np.mean(promised) - 0.02


def test_where_nothing_can_be_promised_errors_set_the_threshold():
    seen = {"a": [0.0] * 10 + [0.2] * 15 + [0.8] * 15}
    halves = {str(Kind.HALF): [0.6] * 6 + [0.3] * 24 + [0.0] * 30}
    (standing,) = calibrate.standings(
        seen, {"a": [0.0] * 60}, keep=0.9, min_score=0.05, faults={"a": halves}, false_accept=0.1
    )
    # 6 of 60 halves and none of the empty places: 5 % on average; with those at 0.3 it would be 25 %
    assert (standing.threshold, standing.keeps) == (0.3001, 0.0)
    (lax,) = calibrate.standings(
        seen, {"a": [0.0] * 60}, keep=0.9, min_score=0.05, faults={"a": halves}, false_accept=0.3
    )
    assert (lax.threshold, lax.found) == (0.05, 0.75)
    # a promise that lets too many errors pass is none
    good = {"a": [0.2] * 10 + [0.8] * 30}
    (kept,) = calibrate.standings(good, {"a": [0.0] * 60}, keep=0.9, min_score=0.05)
    (dear,) = calibrate.standings(good, {"a": [0.0] * 60}, keep=0.9, min_score=0.05, faults={"a": halves})
    assert (kept.threshold, round(kept.keeps, 2)) == (0.2, 0.9)
    assert (dear.threshold, dear.keeps) == (0.3001, 0.0)
    # errors that look like objects: strict, but not so strict that nothing can be judged
    (odd,) = calibrate.standings(seen, {"a": [0.9] * 60}, keep=0.9, min_score=0.05)
    assert (odd.threshold, odd.found, odd.blind) == (0.8, 0.375, False)


@given(
    st.lists(st.lists(st.floats(0, 1, width=16), max_size=20), max_size=4),
    st.sampled_from([0.0, 0.1, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_from_the_lowest_level_on_no_more_pass_and_below_it_more_do(errors, share):
    kinds = [held for held in errors if held]
    level = calibrate.lowest(errors, share)

    def passing(at):
        return sum(sum(s >= at for s in held) / len(held) for held in kinds) / len(kinds)

    if not kinds:
        assert level is None
        return
    assert passing(level) <= share + 1e-9
    below = [s for held in kinds for s in held if s < level]
    assert not below or passing(max(below)) > share - 1e-9


def table(passing, n=60, others=(), own=None):
    seen = {"a": [0.6] * 30, "b": [0.7] * 30}
    shown = {"a": {str(Kind.HALF): own or [0.9] * passing + [0.0] * (n - passing)}}
    if others:
        shown["b"] = {str(Kind.HALF): list(others)}
    found = calibrate.standings(seen, {"a": [0.0] * 60}, keep=0.9, min_score=0.05, faults=shown)
    return found[0], next(e for e in found[0].errors if e.kind == Kind.HALF)


def test_a_kind_of_error_that_is_refused_is_said_to_be():
    standing, errors = table(1)
    assert errors.holds
    assert (errors.tried, errors.passed) == (60, 1)
    assert standing.refused == (Kind.EMPTY, Kind.HALF)
    assert "every kind of error" in str(standing)


def test_a_kind_of_error_that_passes_is_not():
    standing, errors = table(30)
    assert not errors.holds
    assert not errors.unknown
    assert (errors.level, errors.left) == (0.91, 0.0)
    assert standing.refused == (Kind.EMPTY,)


def test_few_examples_are_no_promise_and_say_how_many_would_be():
    _, errors = table(0, n=14)
    assert errors.unknown
    assert not errors.holds
    assert errors.level is None
    assert errors.needed == 22


def test_few_examples_lean_on_the_other_categories_unless_they_speak_against_it():
    _, agreeing = table(0, n=14, others=[0.0] * 50)
    assert (agreeing.pooled, agreeing.holds) == (64, True)
    _, against = table(10, n=14, others=[0.0] * 50)
    assert (against.pooled, against.holds, against.level) == (0, False, None)


# Planted errors, on a small dataset of discs and squares.


@pytest.fixture(scope="module")
def data(tiny_once):
    return dataset.load(tiny_once)


def test_the_same_seed_plants_the_same_errors(data):
    assert faults.of_all_kinds(data, "disc", 8, 3) == faults.of_all_kinds(data, "disc", 8, 3)
    assert faults.of_all_kinds(data, "disc", 8, 3) != faults.of_all_kinds(data, "disc", 8, 4)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_error_stays_in_its_box(data, kind):
    found = faults.planted(data, "disc", kind, 8, 0)
    assert 0 < len(found) <= 8
    for fault in found:
        before = data.read(fault.image)
        kept = before.copy()
        after = fault.on(before)
        assert (before == kept).all(), "the picture that was given is left as it was"
        assert after.shape == before.shape
        ys, xs = np.nonzero((after != before).any(axis=2))
        changes = kind in {Kind.HALF, Kind.NOISE, Kind.UNPAINTED}
        assert bool(len(xs)) is changes
        if changes:
            assert xs.min() >= fault.box.x1 - 1
            assert xs.max() <= fault.box.x2
            assert ys.min() >= fault.box.y1 - 1
            assert ys.max() <= fault.box.y2
        assert (fault.on(before) == after).all()


def test_half_an_object_is_gone_and_half_is_as_it_was(data):
    fault = faults.planted(data, "disc", Kind.HALF, 1, 0)[0]
    before = data.read(fault.image)
    after = fault.on(before)
    x1, y1, x2, y2 = (round(v) for v in fault.box.xyxy)
    changed = (after != before).any(axis=2)[y1:y2, x1:x2]
    assert 0.3 < changed.mean() < 0.6
    rows, cols = changed.any(axis=1), changed.any(axis=0)
    assert min(rows.sum() / len(rows), cols.sum() / len(cols)) <= 0.55


def overlaps(data, fault, category=None):
    rows = data.rows_in(fault.image)
    if category is not None:
        rows = rows[data.annotations.category[rows] == data.category_row(category)]
    from rarefill import geometry

    return geometry.ious(np.array([fault.box.xyxy]), data.annotations.boxes[rows])


@pytest.mark.parametrize("kind", [Kind.EMPTY, Kind.NOISE, Kind.UNPAINTED])
def test_empty_places_hold_no_object_of_any_category(data, kind):
    for fault in faults.planted(data, "square", kind, 20, 1):
        for row in data.rows_in(fault.image):
            held = data.box(int(row)).clipped(96, 80)
            width = min(held.x2, fault.box.x2) - max(held.x1, fault.box.x1)
            height = min(held.y2, fault.box.y2) - max(held.y1, fault.box.y1)
            assert max(width, 0) * max(height, 0) <= faults.FREE * fault.box.area


def test_another_class_is_a_real_object_of_it(data):
    found = faults.planted(data, "square", Kind.OTHER, 20, 1)
    assert len(found) == 20
    for fault in found:
        assert overlaps(data, fault, "disc").max() == pytest.approx(1)
        assert overlaps(data, fault, "square").max(initial=0) <= faults.FREE


def test_a_shifted_box_covers_a_third_and_stays_inside(data):
    for fault in faults.planted(data, "square", Kind.SHIFTED, 20, 1):
        assert overlaps(data, fault, "square").max() == pytest.approx(1 / 3)
        assert fault.box.clipped(96, 80) == fault.box


def test_a_box_as_large_as_the_image_cannot_be_shifted():
    assert faults.shifted(np.random.default_rng(0), Box(0, 0, 96, 80), 96, 80) is None


def test_a_category_without_objects_has_only_other_classes(data):
    assert {f.kind for f in faults.of_all_kinds(data, "star", 5, 0)} == {Kind.OTHER}


class Oracle:
    """Finds whatever the annotations say, if its pixels are as they were."""

    def __init__(self, data):
        self.data = data

    def look(self, pixels, image, box, label, min_overlap):
        from rarefill import geometry

        rows = self.data.rows_in(image)
        own = rows[self.data.annotations.category[rows] == label]
        fits = geometry.ious(np.array([box.xyxy]), self.data.annotations.boxes[own]) >= min_overlap
        x1, y1, x2, y2 = (round(v) for v in box.xyxy)
        same = (pixels[y1:y2, x1:x2] == self.data.read(image)[y1:y2, x1:x2]).all()
        return Sight(score=0.9 if fits.any() and same else 0.0)


@pytest.fixture(scope="module")
def evidence(data):
    return held_back.judge_held_back(
        data, Oracle(data), Pictures(data), rare=["disc"], seed=0, min_overlap=0.5, progress=SILENT
    )


def test_a_checker_that_knows_everything_is_sure_of_everything(data, evidence):
    disc = next(s for s in evidence.standings(CheckerConfig()) if s.category == "disc")
    assert (disc.found, disc.held_back, disc.images) == (1.0, len(data.rows_of("disc")), 12)
    assert disc.kept
    assert [e.kind for e in disc.errors] == list(map(str, Kind))
    assert all(e.holds and e.passed == 0 for e in disc.errors if e.tried >= e.needed)


def test_evidence_is_read_back_as_it_was(evidence):
    assert held_back.Evidence.from_json(evidence.to_json()) == evidence


def test_evidence_of_other_categories_is_there_to_lean_on(evidence):
    assert set(evidence.faults["square"]) == {str(k) for k in faults.ON_OBJECTS}
    assert set(evidence.places) == {"disc"}


def test_a_checker_that_takes_everything_is_sure_of_nothing(data):
    class Yes:
        def look(self, *_):
            return Sight(score=0.9)

    found = held_back.judge_held_back(
        data, Yes(), Pictures(data), rare=["disc"], seed=0, min_overlap=0.5, progress=SILENT
    )
    disc = next(s for s in found.standings(CheckerConfig()) if s.category == "disc")
    assert disc.kept
    assert disc.refused == ()
    assert disc.fooled == 1.0
    assert "sure of no kind of error" in str(disc)


def printed(table):
    from rich.console import Console

    from rarefill import calibration_table

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(calibration_table.drawn(table))
    return console.export_text()


def test_the_table_has_a_line_for_each_promise(evidence):
    disc = next(s for s in evidence.standings(CheckerConfig()) if s.category == "disc")
    text = printed([disc])
    assert f"{disc.held_back} of {disc.held_back}" in text
    assert all(str(kind) in text for kind in Kind)
    assert "keeps 9" in text
    assert "at most 10% pass" in text


def test_the_table_says_what_it_does_not_know():
    standing, _ = table(0, n=14)
    assert "unknown: 22 examples needed" in printed([standing])
    standing, _ = table(10, n=14, others=[0.0] * 50)
    assert "unknown: 22 examples needed" in printed([standing])
    standing, _ = table(30)
    assert "only from 0.91 on, which keeps 0% of the real objects" in printed([standing])
    (few,) = calibrate.standings({"a": [0.5] * 4}, {"a": [0.0]}, keep=0.9, min_score=0.05)
    assert "keeps 80%: too few objects for 90%" in printed([few])
    (blind,) = calibrate.standings({"a": [0.0] * 9 + [0.6]}, {"a": [0.0]}, keep=0.9, min_score=0.05)
    assert "painted ones are not judged" in printed([blind])


def test_a_run_without_a_checker_has_nothing_to_calibrate(tiny_once):
    from rarefill import calibration_table, recipe

    asked = recipe.resolve({"data": tiny_once, "annotator": {"checker": "none"}})
    with pytest.raises(UsageError, match="nothing to calibrate"):
        calibration_table.standings(asked, SILENT)


def test_the_program_prints_the_standings_as_json(tiny_once, tmp_path, capsys):
    from rarefill import cli

    options = ["--fill", "square=2", "--checker-steps", "2", "--checker-batch", "2", "--cache", str(tmp_path)]
    cli.app(["calibrate", str(tiny_once), *options, "--json"], standalone_mode=False)
    (square,) = json.loads(capsys.readouterr().out)
    assert square["category"] == "square"
    assert [e["kind"] for e in square["errors"]] == list(map(str, Kind))
