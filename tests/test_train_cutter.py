"""Objects in boxes with exact masks, the cutter that is trained on them, and what is shipped of it."""

import cv2
import numpy as np
import pytest
import shelves
import torch
from safetensors import safe_open

from rarefill import cutouts, cutter, cutter_start
from rarefill.errors import ModelError
from rarefill.generators.train import figures, loop
from rarefill.generators.train.__main__ import smear
from rarefill.generators.train.figures import Figures
from rarefill.generators.train.shelf import open_shelf
from rarefill.geometry import Box

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = cutter.SIDE_PX


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = shelves.cells_and_stripes(tmp_path_factory.mktemp("pictures"))
    return open_shelf(folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def source(shelf):
    return Figures(shelf, smear, fields=2)


def settings(until):
    return loop.Settings(
        minutes=60, until=until, steps=40, batch=6, window=SIZE, log_every=1, warmup=3, rate=2e-3
    )


def iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


def test_the_same_stream_draws_the_same_figure_whose_mask_lies_in_its_box(source):
    for n in range(80):
        one, same = (source.draw(np.random.default_rng(n), SIZE) for _ in range(2))
        assert (one.pixels == same.pixels).all()
        assert (one.mask == same.mask).all()
        assert one.pixels.shape == (SIZE, SIZE, 3)
        if not one.mask.any():
            continue
        ys, xs = np.nonzero(one.mask)
        x1, y1, x2, y2 = one.box
        air = (figures.TIGHTER + 0.02) * max(x2 - x1, y2 - y1) + 1
        assert xs.min() > x1 - air
        assert ys.min() > y1 - air
        assert xs.max() + 1 < x2 + air
        assert ys.max() + 1 < y2 + air


def test_figures_are_of_all_three_kinds_and_what_measures_is_kept_apart(source, monkeypatch):
    called = []
    for kind in ("_laid", "_found", "_rendered"):
        plain = getattr(Figures, kind)

        def noted(self, rng, *, held, kind=kind, plain=plain):
            called.append((kind, held))
            return plain(self, rng, held=held)

        monkeypatch.setattr(Figures, kind, noted)
    for n in range(60):
        source.draw(np.random.default_rng(n), SIZE, held=n % 2 == 1)
    assert {kind for kind, _ in called} == {"_laid", "_found", "_rendered"}
    assert {held for _, held in called} == {False, True}


def test_some_boxes_hold_nothing(source):
    masks = [source.draw(np.random.default_rng(n), SIZE).mask.any() for n in range(200)]
    assert 0.02 < 1 - np.mean(masks) < 0.2


def test_a_cell_is_found_with_its_outline(source):
    found = [source._found(np.random.default_rng(n), held=False) for n in range(10)]
    cells = [f for f in found if f is not None]
    assert len(cells) > 5
    for pixels, mask in cells:
        grey = pixels.mean(axis=2)
        assert grey[mask].mean() > 120 + grey[~mask].min()


@pytest.mark.parametrize("box", [(10, 20, 40, 90), (150, 40, 310, 180), (-5, -4, 30, 40), (60, 60, 68, 66)])
def test_the_square_about_a_box_says_where_it_lies(box):
    picture = np.zeros((200, 320, 3), np.uint8)
    rows, cols = np.mgrid[:200, :320]
    picture[..., 0], picture[..., 1] = cols // 2, rows
    drawn = np.array(box, float)
    seen, corner, scale = cutter.square(picture, drawn, SIZE)
    assert seen.shape == (SIZE, SIZE, 3)
    at = (np.array([SIZE / 2, SIZE / 2]) + 0.5) / scale + corner - 0.5
    x, y = np.clip(at, 0, [319, 199])
    assert abs(float(seen[SIZE // 2, SIZE // 2, 0]) - x / 2) < 1.5
    assert abs(float(seen[SIZE // 2, SIZE // 2, 1]) - y) < 2
    longer = max(box[2] - box[0], box[3] - box[1])
    assert scale * longer * (1 + 2 * cutouts.CONTEXT) == pytest.approx(SIZE)


def test_the_loss_falls_and_a_stopped_training_goes_on(source, tmp_path):
    stage = cutter_start.Cutting(cutter.build(0), source, settings(40), held=4).stage()
    losses = shelves.stopped_and_gone_on(stage, tmp_path, settings(10), settings(40))
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
    assert (tmp_path / "sheets" / "0000040.png").exists()
    assert '"held_iou"' in (tmp_path / "log.jsonl").read_text()


def test_what_is_shipped_is_the_averages_in_16_bits(source, tmp_path):
    assert cutter_start.train(source, tmp_path, loop.Settings(minutes=60, until=1, batch=2, window=SIZE)) == 1
    to = tmp_path / "out" / "cutter.safetensors"
    assert cutter_start.export(tmp_path, to) == 1
    with safe_open(to, "pt") as file:
        names, said = set(file.keys()), file.metadata()
        assert all(file.get_tensor(n).dtype == torch.float16 for n in names)
    assert said == {"step": "1"}
    assert names == set(cutter.build(0).state_dict())
    with pytest.raises(ModelError, match="no such checkpoint"):
        cutter_start.export(tmp_path / "nothing", to)


def test_the_command_says_in_one_line_what_is_missing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ["--pictures", str(tmp_path / "empty"), "--out", str(tmp_path / "out"), "--minutes", "1"]
    assert cutter_start.main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def cut(pixels, box):
    """bool (H, W): what the shipped cutter takes for the object."""
    height, width = pixels.shape[:2]
    return cutter.shares(pixels, box, Box(0, 0, width, height), (width, height)) >= 0.5


def scene(mask, seed):
    """A figure of one grain on a ground of another."""
    draw = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(draw.normal(110, 90, (*mask.shape, 3)), (0, 0), 2.5)
    figure = cv2.GaussianBlur(draw.normal(160, 30, (*mask.shape, 3)), (0, 0), 1.0) * [1.2, 1, 0.9]
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)[..., None]
    return np.clip(ground + (figure - ground) * soft, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shipped_cuts_arms_out_that_it_was_never_shown(seed):
    draw = np.random.default_rng(seed)
    mask = cv2.resize(figures.limbs(150, draw).astype(np.uint8), (180, 150)).astype(bool)
    mask = cv2.copyMakeBorder(mask.astype(np.uint8), 50, 40, 60, 30, cv2.BORDER_CONSTANT) > 0
    ys, xs = np.nonzero(mask)
    box = Box(xs.min() - 4, ys.min() - 4, xs.max() + 5, ys.max() + 5)
    found, again = (cut(scene(mask, seed), box) for _ in range(2))
    assert (found == again).all()
    assert iou(found, mask) > 0.8
    assert cutouts.WEIGHTS.stat().st_size < 2 * 2**20


def test_contrast_and_brightness_of_a_sensor_do_not_matter():
    mask = np.zeros((120, 120), np.uint8)
    cv2.circle(mask, (60, 60), 26, 1, -1)
    plain = scene(mask > 0, 0)
    dim = (plain // 4 + 20).astype(np.uint8)
    box = Box(30, 30, 90, 90)
    assert iou(cut(plain, box), cut(dim, box)) > 0.95


def test_an_answer_lies_where_it_is_asked_for():
    mask = np.zeros((160, 200), np.uint8)
    cv2.circle(mask, (120, 70), 30, 1, -1)
    pixels, box = scene(mask > 0, 1), Box(86, 36, 154, 104)
    frame = Box(60, 10, 200, 150)
    found = cutter.shares(pixels, box, frame, (70, 70)) >= 0.5
    small = cv2.resize(mask[10:150, 60:200].astype(np.float32), (70, 70), interpolation=cv2.INTER_AREA)
    assert iou(found, small >= 0.5) > 0.85
    assert not (cutter.shares(pixels, box, Box(0, 110, 40, 160), (40, 50)) > 0.3).any()
