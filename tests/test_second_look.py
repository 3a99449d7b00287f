"""The second look: what it is shown, and that it tells an object from half of one and from noise in its shape."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from rarefill import bank, dataset
from rarefill.annotators import crops, detector, faults, patches, second_look, spoiled
from rarefill.annotators.check import Judge
from rarefill.annotators.detectors import LEAST_SCORE, Detections
from rarefill.annotators.faults import Kind
from rarefill.annotators.samples import Pictures
from rarefill.geometry import Box


@pytest.fixture(scope="module")
def data(tiny_once):
    return dataset.load(tiny_once)


def drawn(data, *, fold=0, batch=24):
    shapes = bank.build(data, ["square"])
    rows = np.arange(len(data.images))
    return patches.Patches(
        data, shapes, Pictures(data), images=rows, rare=["square"], seed=0, fold=fold, batch=batch
    )


def test_a_batch_follows_from_its_number_alone(data):
    first, again = drawn(data), drawn(data)
    first.batch(0)
    for a, b in zip(first.batch(3), again.batch(3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.batch(4)[0], first.batch(3)[0])
    pixels, labels = first.batch(3)
    assert pixels.shape == (24, patches.PATCH_PX, patches.PATCH_PX, 3)
    assert pixels.dtype == np.uint8
    assert labels.min() >= 0
    assert labels.max() == len(data.names), "some of it is none"


def test_a_patch_is_a_box_and_its_margin_stretched():
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:40, 30:40] = 255
    found = patches.patch(pixels, Box(30, 20, 40, 40))[:, :, 0]
    middle = patches.PATCH_PX * patches.MARGIN / (1 + 2 * patches.MARGIN)
    inside = found > 127
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert rows[0] == pytest.approx(middle, abs=1)
    assert cols[0] == pytest.approx(middle, abs=1)
    assert rows[-1] == pytest.approx(patches.PATCH_PX - 1 - middle, abs=1)


@pytest.mark.parametrize("box", [Box(-20, -10, 30, 25), Box(0, 0, 3, 2), Box(10, 10, 4000, 3000)])
def test_a_patch_of_a_box_beyond_the_image_or_of_any_size(box):
    pixels = np.random.default_rng(0).integers(0, 60000, (50, 40, 1)).astype(np.uint16)
    assert patches.patch(pixels, box).shape == (patches.PATCH_PX, patches.PATCH_PX, 3)


def test_half_a_box_is_a_share_about_a_half_on_one_side():
    rng = np.random.default_rng(0)
    for _ in range(50):
        hole = spoiled.half(rng, np.array([10.0, 20.0, 50.0, 40.0]), 64)
        assert 0.3 <= hole[20:40, 10:50].mean() <= 0.7
        assert hole.sum() == hole[20:40, 10:50].sum()


def test_what_is_erased_lies_in_the_hole_and_its_border():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    box = np.array([30.0, 30.0, 60.0, 60.0])
    hole = np.zeros((96, 96), bool)
    hole[30:60, 30:45] = True
    for _ in range(10):
        out = spoiled.erased(rng, pixels, hole, box, box[None])
        changed = (out != pixels).any(axis=2)
        assert changed[32:58, 32:43].mean() > 0.9
        assert not changed[:, 60:].any()
        assert not changed[:22].any()


def test_what_is_planted_is_told_from_what_is_real(data):
    """Within a few steps, on cells that are easy: halves and noise of other kinds than those that it was shown."""
    model = second_look.build(len(data.names), 0)
    steps = []
    weights = second_look.train(
        model, drawn(data, batch=16), 40, advance=lambda: steps.append(1), stop=Event()
    )
    assert len(steps) == 40
    look, picture, label = (
        second_look.loaded(weights, len(data.names)),
        Pictures(data),
        data.category_row("square"),
    )

    def share(image, pixels, box):
        del image
        return float(second_look.shares(look, pixels, [box])[0, label])

    real = [
        share(i, picture[i], data.box(int(r)))
        for r in data.rows_of("square")
        for i in (int(data.annotations.image[r]),)
    ]
    for kind in (Kind.HALF, Kind.NOISE, Kind.SHIFTED):
        wrong = [
            share(f.image, f.on(picture[f.image]), f.box)
            for f in faults.planted(data, "square", kind, 12, seed=5)
        ]
        assert np.mean(wrong) < np.mean(real) - 0.2, kind


def test_training_gives_the_same_weights_and_can_be_stopped(data):
    def weights(stop):
        return second_look.train(
            second_look.build(len(data.names), 1),
            drawn(data, batch=4),
            3,
            advance=stop_after(stop),
            stop=stop,
        )

    def stop_after(stop):
        return lambda: stop.set() if stop.name == "soon" else None

    class Named(Event):
        name = "never"

    first, second = weights(Named()), weights(Named())
    assert all((first[k] == second[k]).all() for k in first)
    soon = Named()
    soon.name = "soon"
    stopped = weights(soon)
    assert any((first[k] != stopped[k]).any() for k in first)


def test_boxes_are_looked_at_one_by_one(data):
    model = second_look.loaded(second_look.build(2, 0).state_dict(), 2)
    pixels = Pictures(data)[0]
    boxes = [Box(2, 3, 20, 22), Box(10, 8, 30, 40)]
    together = second_look.shares(model, pixels, boxes)
    np.testing.assert_array_equal(together[1:], second_look.shares(model, pixels, boxes[1:]))
    assert second_look.shares(model, pixels, []).shape == (0, 3)


def test_a_fold_without_a_single_object_still_trains(data):
    crowds = replace(data.annotations, crowd=np.ones(len(data.annotations), dtype=bool))
    pixels, labels = drawn(replace(data, annotations=crowds), batch=4).batch(0)
    assert len(pixels) == 4
    assert (labels == len(data.names)).all()


def test_a_score_is_the_geometric_mean_of_both_looks(data, monkeypatch):
    box = Box(10, 10, 30, 30)
    seen = Detections(
        np.array([[10.0, 10, 30, 30], [10, 10, 30, 30]]), np.array([0, 1]), np.array([0.9, 0.4])
    )
    monkeypatch.setattr(detector, "detect", lambda *_: seen)
    monkeypatch.setattr(crops.Crop, "inward", lambda _, boxes: boxes)
    monkeypatch.setattr(second_look, "shares", lambda *_: np.array([[0.4, 0.1, 0.0, 0.5]]))
    fold = np.zeros(len(data.images), np.int32)
    both = Judge((None,), fold, 1.0, closer=(None,)).look(data.read(0), 0, box, 0, 0.5)
    assert both.score == pytest.approx((0.9 * 0.4) ** 0.5)
    assert both.rival == pytest.approx((0.4 * 0.1) ** 0.5)
    assert Judge((None,), fold, 1.0).look(data.read(0), 0, box, 0, 0.5).score == 0.9


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_look_takes_pictures_of_any_bands_and_depth(bands: int, depth: type) -> None:
    noise = np.random.default_rng(2).integers(0, np.iinfo(depth).max, (40, 50, bands), depth)
    found = second_look.shares(
        second_look.build(2, 0).eval(), noise, [Box(5, 5, 25, 30), Box(30, 10, 49, 39)]
    )
    assert found.shape == (2, 3)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-3)


def test_where_the_detector_finds_nothing_the_second_look_decides(data, monkeypatch):
    box = Box(10, 10, 30, 30)
    beside = Detections(np.array([[60.0, 10, 90, 30]]), np.array([0]), np.array([0.9]))
    monkeypatch.setattr(detector, "detect", lambda *_: beside)
    monkeypatch.setattr(crops.Crop, "inward", lambda _, boxes: boxes)
    monkeypatch.setattr(second_look, "shares", lambda *_: np.array([[0.5, 0.4, 0.0, 0.1]]))
    fold = np.zeros(len(data.images), np.int32)
    seen = Judge((None,), fold, 1.0, closer=(None,)).look(data.read(0), 0, box, 0, 0.5)
    assert seen.unseen
    assert seen.standing == pytest.approx((LEAST_SCORE * 0.5) ** 0.5, abs=1e-4)
    assert Judge((None,), fold, 1.0).look(data.read(0), 0, box, 0, 0.5).standing == 0
