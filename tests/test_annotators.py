"""The checker: what it is fitted on, how strict it is, and what it says of painted objects."""

import dataclasses
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rarefill import annotators, bank, dataset
from rarefill.annotators import calibrate, crops, folds
from rarefill.annotators import fit as fitting
from rarefill.annotators.calibrate import Sight, Standing
from rarefill.dataset import Images
from rarefill.errors import ModelError
from rarefill.geometry import Box, Mask
from rarefill.recipe import CheckerConfig
from rarefill.scene import Layout, Paint, Placement, Reason, Render

CONFIG = CheckerConfig(checker_steps=6, checker_batch=2)


class StoppedError(Exception):
    """Ctrl-C, as far as a test is concerned."""


class Watching:
    """Counts the bars' steps, and stops the work at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.done, self.said = stop_at, {}, []

    @contextmanager
    def bar(self, what, total, unit):
        del what, total
        self.unit = unit
        self.done.setdefault(unit, 0)
        yield self

    def advance(self, n=1, note=""):
        del note
        self.done[self.unit] += n
        if self.unit == "steps" and self.done["steps"] == self.stop_at:
            raise StoppedError

    def say(self, line):
        self.said.append(line)


@pytest.fixture(scope="module")
def data(tiny_once):
    return dataset.load(tiny_once)


def fit(data, cache, progress=None, config=CONFIG, seed=0):
    shapes = bank.build(data, ["square"])
    return annotators.build(config, data, shapes, seed=seed, cache=cache, progress=progress or Watching())


def weights(cache):
    return [p.read_bytes() for p in sorted(cache.rglob("fold-*.safetensors"))]


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """A checker, and the cache folder that it was fitted into without a break."""
    cache = tmp_path_factory.mktemp("fitted")
    return fit(data, cache), cache


@pytest.fixture
def cache(fitted, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(fitted[1], tmp_path / "cache"))


def test_a_stopped_fit_continues_to_the_same_bytes(data, fitted, tmp_path):
    with pytest.raises(StoppedError):
        fit(data, tmp_path, Watching(stop_at=7))
    assert list(tmp_path.rglob("*.part.safetensors")), "a checkpoint stands while the fit is unfinished"
    again = fit(data, tmp_path)
    assert weights(tmp_path) == weights(fitted[1])
    assert again.table == fitted[0].table
    assert not list(tmp_path.rglob("*.part*"))


def test_a_second_fit_is_read_from_the_cache(data, fitted):
    watching = Watching()
    assert fit(data, fitted[1], watching).table == fitted[0].table
    assert watching.done == {}


def test_stricter_thresholds_need_no_new_fit(data, fitted):
    watching = Watching()
    strict = fit(data, fitted[1], watching, CONFIG.model_copy(update={"min_score": 0.5}))
    assert watching.done == {}
    assert all(standing.threshold >= 0.5 for standing in strict.table)


def test_options_and_seeds_that_change_the_weights_name_another_fit(data):
    def key(seed=0, rare=("square",), **change):
        return fitting.key(data, CONFIG.model_copy(update=change), seed, rare)

    assert key() == key(keep=0.5, min_score=0.3, min_visible=0.1)
    assert (
        len({key(), key(1), key(0, ("disc",)), key(checker_steps=7), key(checker_batch=3), key(folds=3)}) == 6
    )


def test_a_torn_model_is_said_and_fitted_again(data, fitted, cache):
    torn = min(cache.rglob("fold-*.safetensors"))
    torn.write_bytes(torn.read_bytes()[:1000])
    watching = Watching()
    fit(data, cache, watching)
    assert weights(cache) == weights(fitted[1])
    assert watching.done == {"steps": CONFIG.checker_steps}
    assert "not a whole file" in watching.said[0]


def test_a_torn_table_is_said_and_made_again(data, fitted, cache):
    table = next(cache.rglob("held-back-*.json"))
    table.write_text(table.read_text()[:40])
    watching = Watching()
    assert fit(data, cache, watching).table == fitted[0].table
    assert "not a whole file" in watching.said[0]


def test_fewer_images_than_folds_is_one_clear_line(data, tmp_path):
    with pytest.raises(
        ModelError, match="need as many images, got 12; lower --folds or run with --checker none"
    ):
        fit(data, tmp_path, config=CONFIG.model_copy(update={"folds": 13}))


def test_a_single_image_is_not_told_to_lower_the_folds(data, tmp_path):
    columns = data.images
    one = Images(columns.id[:1], columns.width[:1], columns.height[:1], columns.file_name[:1])
    single = dataclasses.replace(data, images=one)
    with pytest.raises(ModelError, match="need as many images, got 1; run with --checker none"):
        fitting.fit(single, bank.Bank([]), CONFIG, seed=0, cache=tmp_path, rare=["square"])


def test_every_fold_holds_its_share_of_the_rare_objects(data):
    fold = folds.assign(data, 3, ["square"], seed=4)
    held = fold[data.annotations.image[data.rows_of("square")]]
    assert np.bincount(held, minlength=3).tolist() == [1, 1, 1]
    assert np.bincount(fold).tolist() == [4, 4, 4]


def test_the_folds_follow_from_the_seed(data):
    assert (folds.assign(data, 2, [], 5) == folds.assign(data, 2, [], 5)).all()
    assert (folds.assign(data, 2, [], 5) != folds.assign(data, 2, [], 6)).any()


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("n", [10, 37, 200])
def test_a_threshold_keeps_what_it_promises(keep, n):
    scores = np.round(np.random.default_rng(n).uniform(0.2, 0.9, n), 4)
    (standing,) = calibrate.standings({"a": scores}, {}, keep=keep, min_score=0.05)
    lost = np.sum(scores < standing.threshold)
    assert lost + 1 <= max(1, round((1 - keep) * (n + 1), 6))  # of n + 1, the new object as likely as any
    assert lost + 2 > (1 - keep) * (n + 1)
    assert standing.found == pytest.approx(np.mean(scores >= standing.threshold), abs=1e-4)


def test_where_too_many_are_missed_the_threshold_keeps_its_share_of_those_found():
    scores = [0.0] * 50 + [0.1] * 4 + [0.8] * 46
    (standing,) = calibrate.standings({"a": scores}, {}, keep=0.9, min_score=0.05)
    assert (standing.threshold, standing.found, standing.pooled) == (0.8, 0.46, False)
    assert not standing.kept


def test_no_threshold_is_under_the_least_score():
    (standing,) = calibrate.standings({"a": [0.1] * 20}, {}, keep=0.9, min_score=0.3)
    assert (standing.threshold, standing.found) == (0.3, 0.0)


def test_few_held_back_objects_lean_on_the_other_categories():
    rare, common = calibrate.standings({"a": [0.9] * 5, "b": [0.5] * 95}, {}, keep=0.9, min_score=0.05)
    assert (rare.pooled, rare.threshold) == (True, 0.5)
    assert (common.pooled, common.threshold) == (False, 0.5)


def test_others_never_make_a_threshold_stricter_than_its_own_objects_do():
    rare, _ = calibrate.standings({"a": [0.3] * 5, "b": [0.8] * 95}, {}, keep=0.9, min_score=0.05)
    assert (rare.pooled, rare.threshold, rare.found) == (True, 0.3, 1.0)


def test_a_category_that_is_not_found_is_not_judged():
    (standing,) = calibrate.standings({"a": [0.0] * 9 + [0.6]}, {"a": [0.0]}, keep=0.9, min_score=0.05)
    assert standing.blind
    assert "not judged" in str(standing)


KNOWN = Standing("cell", 100, 0.9, 0.4, pooled=False)
BLIND = Standing("cell", 100, 0.1, 0.4, pooled=False)


@pytest.mark.parametrize(
    ("seen", "standing", "reason"),
    [
        (Sight(score=0.4, overlap=0.7), KNOWN, Reason.ACCEPTED),
        (Sight(score=0.39, overlap=0.7), KNOWN, Reason.LOW_SCORE),
        (Sight(), KNOWN, Reason.NOT_FOUND),
        (Sight(near=0.3, overlap=0.4), KNOWN, Reason.NOT_FOUND),
        (Sight(near=0.6, overlap=0.4), KNOWN, Reason.BOX_OFF),
        (Sight(score=0.5, overlap=0.7, rival=0.7), KNOWN, Reason.WRONG_CLASS),
        (Sight(score=0.5, overlap=0.7, rival=0.55), KNOWN, Reason.ACCEPTED),
        (Sight(score=0.5, overlap=0.7, rival=0.7, weighed=True), KNOWN, Reason.ACCEPTED),
        (Sight(score=0.3, overlap=0.7, rival=0.7, weighed=True), KNOWN, Reason.WRONG_CLASS),
        (Sight(score=0.1, unseen=True), KNOWN, Reason.NOT_FOUND),
        (Sight(score=0.1, near=0.6, unseen=True), KNOWN, Reason.BOX_OFF),
        (Sight(), BLIND, Reason.UNCHECKED),
    ],
)
def test_what_a_sight_means(seen, standing, reason):
    from rarefill.annotators import check

    assert check.reason(seen, standing) is reason


def detections(*found):
    from rarefill.annotators.detector import Detections

    return Detections(
        np.array([f[0] for f in found], dtype=float).reshape(-1, 4),
        np.array([f[1] for f in found], dtype=np.int64),
        np.array([f[2] for f in found], dtype=float),
    )


def test_a_sight_takes_the_best_detection_that_fits():
    from rarefill.annotators.check import sight

    found = detections(
        ((10, 10, 30, 30), 1, 0.4),
        ((11, 10, 30, 30), 1, 0.6),
        ((10, 10, 60, 60), 1, 0.9),
        ((10, 10, 30, 30), 0, 0.3),
        ((90, 90, 99, 99), 0, 0.9),
    )
    seen = sight(found, np.array([[10.0, 10, 30, 30]]), 1, 0.5)
    assert seen == Sight(score=0.6, overlap=0.95, near=0.0, rival=0.3)


def test_a_sight_remembers_what_only_touches():
    from rarefill.annotators.check import sight

    found = detections(((10, 10, 50, 50), 1, 0.7))
    seen = sight(found, np.array([[10.0, 10, 30, 30]]), 1, 0.5)
    assert seen == Sight(score=0.0, overlap=0.25, near=0.7, rival=0.0)


def test_nothing_found_is_nothing_seen():
    from rarefill.annotators.check import sight

    assert sight(detections(), np.array([[1.0, 1, 9, 9]]), 0, 0.5) == Sight()


def rendered(data, *masks):
    background = data.read(0)
    pixels = background.copy()
    for mask in masks:
        if mask is not None:
            pixels[mask.full(*pixels.shape[:2])] = (51, 191, 230)
    placements = tuple(
        Placement("square", m or Mask(0, 0, np.ones((1, 1), bool)), depth=i) for i, m in enumerate(masks)
    )
    paints = tuple(Paint(i, m, m, "paste") for i, m in enumerate(masks))
    return Render(Layout(0, 0, placements), background, pixels, paints)


def test_what_is_not_painted_or_hidden_needs_no_look(data, fitted):
    square, cover = (Mask(20 - g, 20 - g, np.ones((16 + 2 * g,) * 2, bool)) for g in (0, 3))
    checker, _ = fitted
    (verdicts,) = checker.check([rendered(data, None, square, cover)], [(0, 1)])
    assert [v.reason for v in verdicts] == [Reason.NOT_PAINTED, Reason.HIDDEN]


def test_a_category_that_is_not_judged_is_still_refused_where_it_is_hidden(data):
    from rarefill.annotators import check

    square, cover = Mask(20, 20, np.ones((16, 16), bool)), Mask(22, 18, np.ones((20, 20), bool))
    blind = Standing("square", 100, 0.1, 0.4, pooled=False)
    judge = check.Judge((), np.zeros(0, np.int32), scale=1.0)
    checker = check.Fitted(data.names, judge, (blind,), CheckerConfig(min_visible=0.25), bank.Bank([]))
    (verdicts,) = checker.check([rendered(data, square, cover)], [(0,)])
    assert [v.reason for v in verdicts] == [Reason.HIDDEN]


def test_a_verdict_does_not_depend_on_what_else_is_checked(data, fitted):
    checker, _ = fitted
    masks = [Mask(x, 30, np.ones((14, 14), bool)) for x in (10, 40, 70)]
    render = rendered(data, *masks)
    (together,) = checker.check([render], [(0, 1, 2)])
    alone = [checker.check([render], [(i,)])[0][0] for i in range(3)]
    numbers = [[(v.reason, v.score, v.overlap, v.box) for v in held] for held in (together, alone)]
    assert numbers[0] == numbers[1]
    assert [v.box for v in together] == [m.box for m in masks]


def test_a_crop_stays_inside_the_image_where_it_can():
    crop = crops.around(Box(2, 3, 30, 40), 2.0, 640, 480)
    assert (crop.x, crop.y, crop.side) == (0, 0, crops.CROP_PX // 2)


def test_a_crop_of_a_smaller_image_is_padded_and_its_boxes_stay_right():
    crop = crops.around(Box(2, 3, 12, 13), 1.0, 96, 80)
    pixels = np.zeros((80, 96, 1), np.uint8)
    pixels[3:13, 2:12] = 255
    seen = crop.cut(pixels)
    x1, y1, x2, y2 = crop.inward(np.array([[2.0, 3, 12, 13]]))[0].astype(int)
    assert seen.shape == (crops.CROP_PX, crops.CROP_PX, 3)
    assert (seen[y1:y2, x1:x2] == 255).all()
    assert (seen == 255).all(axis=2).sum() == 100


def test_a_large_object_is_seen_at_a_scale_of_its_own():
    box = Box(0, 0, 500, 300)
    crop = crops.around(box, 1.0, 640, 480)
    assert (box.width * crop.scale) == pytest.approx(crops.LARGE_SHARE * crops.CROP_PX, rel=0.01)
