"""Scenes to find things in, and the detector's start that is trained on them."""

import cv2
import numpy as np
import pytest
import shelves
import torch
from safetensors import safe_open

from rarefill import detector_start
from rarefill.annotators import detector
from rarefill.annotators.crops import CROP_PX
from rarefill.errors import ModelError
from rarefill.generators.train import collage, loop
from rarefill.generators.train.__main__ import smear
from rarefill.generators.train.collage import Collages
from rarefill.generators.train.shelf import open_shelf

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 96


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = shelves.cells_and_stripes(tmp_path_factory.mktemp("pictures"))
    return open_shelf(folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def source(shelf):
    return Collages(shelf, smear, fields=2)


def settings(until):
    return loop.Settings(
        minutes=60, until=until, steps=30, batch=4, window=CROP_PX, log_every=1, warmup=3, rate=1e-3
    )


def test_the_same_stream_draws_the_same_scene_and_all_boxes_lie_in_it(source):
    for n in range(60):
        one, same = (source.draw(np.random.default_rng(n), SIZE) for _ in range(2))
        assert (one.pixels == same.pixels).all()
        assert (one.boxes == same.boxes).all()
        assert one.pixels.shape == (SIZE, SIZE, 3)
        assert one.pixels.dtype == np.uint8
        assert one.boxes.shape == (len(one.labels), 4)
        assert (one.boxes >= 0).all()
        assert (one.boxes <= SIZE).all()
        assert ((one.boxes[:, 2:] - one.boxes[:, :2]) >= 3).all()
        assert ((one.labels >= 0) & (one.labels < len(source.names))).all()


def test_scenes_are_of_all_three_kinds(source):
    said = set()
    for n in range(120):
        said |= {source.names[k] for k in source.draw(np.random.default_rng(n), SIZE).labels}
    assert {"trash", "nuclei", "platelet", "red blood cell"} <= said


def test_cells_that_stand_out_are_found_where_they_are(source):
    found = [source._found(np.random.default_rng(n), SIZE, held=False) for n in range(12)]
    scenes = [scene for scene in found if scene is not None]
    assert len(scenes) > 6
    for scene in scenes:
        grey = scene.pixels.mean(axis=2)
        for x1, y1, x2, y2 in scene.boxes.astype(int):
            inside = grey[(y1 + y2) // 2, (x1 + x2) // 2]
            assert abs(inside - np.median(grey)) > 15


def test_a_piece_covers_its_box_and_a_decoy_has_none(source, monkeypatch):
    monkeypatch.setattr(collage, "DECOY_SHARE", 0.0)
    some = [source._laid(np.random.default_rng(n), SIZE, held=False) for n in range(20)]
    assert sum(len(s.boxes) for s in some) > 30
    monkeypatch.setattr(collage, "DECOY_SHARE", 1.0)
    assert not any(len(source._laid(np.random.default_rng(n), SIZE, held=False).boxes) for n in range(20))


@pytest.mark.parametrize(("start", "length"), [(-5, 12), (3, 12), (90, 12), (-20, 12), (100, 12), (-5, 200)])
def test_a_piece_lies_on_a_scene_as_far_as_both_reach(start, length):
    here, there = collage._overlap(start, length, SIZE)
    truth = [(at, at - start) for at in range(max(0, start), min(SIZE, start + length))]
    assert list(zip(range(SIZE)[here], range(length)[there], strict=True)) == truth


def test_the_loss_falls_and_a_stopped_training_goes_on(source, tmp_path):
    model = detector.build(len(source.names), 0, start=False)
    stage = detector_start.Finding(model, source, settings(30), held=4).stage()
    losses = shelves.stopped_and_gone_on(stage, tmp_path, settings(10), settings(30))
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])
    assert (tmp_path / "sheets" / "0000030.png").exists()
    assert '"held_found"' in (tmp_path / "log.jsonl").read_text()


def test_what_is_shipped_is_all_but_the_classes_and_settled(shelf, tmp_path):
    source = Collages(shelf, smear, fields=1)
    short = loop.Settings(minutes=60, until=1, batch=2, window=CROP_PX)
    assert detector_start.train(source, tmp_path, short) == 1
    assert detector_start.export(source, tmp_path, tmp_path / "out" / "detector.safetensors") == 1
    with safe_open(tmp_path / "out" / "detector.safetensors", "pt") as file:
        names, said = set(file.keys()), file.metadata()
        assert all(file.get_tensor(n).dtype in (torch.float16, torch.int64) for n in names)
    assert said == {"step": "1"}
    own = {n for n in detector.build(3, 0, start=False).state_dict() if "cls_logits" in n}
    assert names == set(detector.build(3, 0, start=False).state_dict()) - own


def test_an_export_without_a_training_gets_one_line(shelf, tmp_path):
    with pytest.raises(ModelError, match="no such checkpoint"):
        detector_start.export(Collages(shelf, smear, fields=1), tmp_path, tmp_path / "detector.safetensors")


def test_the_command_says_in_one_line_what_is_missing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ["--pictures", str(tmp_path / "empty"), "--out", str(tmp_path / "out"), "--minutes", "1"]
    assert detector_start.main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_detector_begins_with_what_is_shipped_and_classes_of_its_own():
    one, other = (detector.build(4, seed).state_dict() for seed in (0, 1))
    apart = {name for name in one if not torch.equal(one[name], other[name])}
    assert apart == {"head.classification_head.cls_logits.weight"}
    bare = detector.build(4, 0, start=False).state_dict()
    assert not torch.equal(bare["backbone.body.0.0.weight"], one["backbone.body.0.0.weight"])
    assert detector.START.stat().st_size < 4 * 2**20


def test_what_is_shipped_finds_things_that_it_was_never_shown():
    """Its objectness is of use: sides of a box about a thing are right before anything is fitted."""
    pixels = np.full((CROP_PX, CROP_PX, 3), 110, np.uint8)
    pixels += np.random.default_rng(0).integers(0, 12, pixels.shape, dtype=np.uint8)
    cv2.ellipse(pixels, (96, 96), (30, 22), 0, 0, 360, (220, 190, 60), -1)
    model = detector.build(1, 0).eval()
    with torch.inference_mode():
        batch = detector.normalised(detector.images(pixels[None]))
        maps = list(model.backbone(batch).values())
        sides = model.head(maps)["bbox_regression"][0]
    strides, at = [8, 16, 32], 0
    errors = []
    for stride, level in zip(strides, maps, strict=True):
        n = level.shape[-1]
        cell = at + (96 // stride) * n + 96 // stride
        centre = (96 // stride + 0.5) * stride
        left, top, right, bottom = (sides[cell] * stride / 2).tolist()
        box = np.array([centre - left, centre - top, centre + right, centre + bottom])
        errors.append(float(np.abs(box - [66, 74, 126, 118]).max()))
        at += n * n
    assert min(errors) < 10
