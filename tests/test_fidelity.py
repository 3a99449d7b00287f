"""The figures of benchmarks/fidelity.py mean what docs/fidelity.md says, on sets whose answers are known."""

import argparse
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import SHELF

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import fidelity  # noqa: E402
from proofs import cases, detector, paints, report, sheets  # noqa: E402

from rarefill import (  # noqa: E402
    dataset,
    likeness,
    recipe,
    windows,
)
from rarefill.fidelity import distances, seams, texture  # noqa: E402
from rarefill.generators.window import Framing, cut  # noqa: E402
from rarefill.geometry import Box, box_mask  # noqa: E402
from rarefill.progress import SILENT  # noqa: E402
from rarefill.scene import Placement, Reason, Verdict  # noqa: E402
from rarefill.windows import Place, Windows  # noqa: E402


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some(n: int, *, seed: int = 0, images: int = 6, pixels: np.ndarray | None = None) -> Windows:
    """Windows of noise, their objects in the middle."""
    shape = (n, windows.WINDOW_PX, windows.WINDOW_PX, 3)
    pixels = rng(seed).integers(0, 256, shape, dtype=np.uint8) if pixels is None else pixels
    side = windows.OBJECT_PX
    return Windows(
        pixels,
        np.stack([cv2.resize(p, (side, side)) for p in pixels]),
        np.arange(n) % images,
        np.arange(n),
        np.tile([40.0, 40.0, 88.0, 88.0], (n, 1)),
        np.tile([0.3, 0.3, 0.7, 0.7], (n, 1)),
    )


# Kernel distance


def test_kid_is_the_formula_written_out():
    x, y = rng(1).normal(size=(5, 3)), rng(2).normal(0.5, 1, size=(4, 3))

    def k(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    own = [
        sum(k(s[i], s[j]) for i, j in itertools.permutations(range(len(s)), 2)) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    between = sum(k(a, b) for a in x for b in y) / 20
    found = distances.kid(x, y, np.arange(5), np.arange(4), rng())
    assert found.value == pytest.approx(sum(own) - 2 * between)


def test_two_halves_of_one_distribution_are_at_no_distance_and_others_are():
    x = rng(3).normal(size=(200, 24))
    groups = np.arange(200) // 4
    same = distances.kid(x[:100], x[100:], groups[:100], groups[100:], rng())
    other = distances.kid(x[:100], x[100:] + 0.5, groups[:100], groups[100:], rng())
    assert abs(same.value) < 3 * same.se
    assert other.value > same.value + 5 * (same.se + other.se)
    parts = distances.halves(x, groups, rng())
    assert abs(parts.mean()) < parts.std()


def test_kid_is_unbiased_and_its_error_is_the_spread_of_the_value():
    draw = rng(4)
    values, errors = [], []
    for _ in range(60):
        x, y = draw.normal(size=(30, 8)), draw.normal(0.3, 1, size=(40, 8))
        found = distances.kid(x, y, np.arange(30), np.arange(40), draw)
        values.append(found.value)
        errors.append(found.se)
    x, y = draw.normal(size=(1500, 8)), draw.normal(0.3, 1, size=(1500, 8))
    truth = distances.mmd2(distances.kernel(x, x), distances.kernel(y, y), distances.kernel(x, y))
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / np.sqrt(60))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.35)


def test_the_error_counts_pictures_and_not_windows():
    x, y = rng(5).normal(size=(20, 6)).repeat(5, axis=0), rng(6).normal(size=(400, 6))
    alone = distances.kid(x, y, np.arange(100), np.arange(400), rng()).se
    together = distances.kid(x, y, np.arange(100) // 5, np.arange(400), rng()).se
    assert together > 1.5 * alone


def test_a_channel_that_hardly_moves_is_not_blown_up():
    x = rng(7).normal(size=(50, 10)) * ([1.0] * 9 + [1e-6])
    scaled = distances.Scale.of(x)(x + 0.01)
    assert np.abs(scaled[:, 9]).max() < 1


# Copies


def test_the_nearest_neighbour_is_the_planted_copy():
    pool = rng(8).normal(size=(10, 16))
    far, which = distances.nearest(np.stack([pool[7] + 0.01, rng(9).normal(size=16)]), pool)
    assert which[0] == 7
    assert far[0] == pytest.approx(0.01)
    assert far[1] > 20 * far[0]


def textured(n: int, seed: int) -> np.ndarray:
    """uint8 (n, 32, 32, 3): blobs with a grain of their own."""
    draw = rng(seed)
    grain = np.stack([cv2.GaussianBlur(draw.normal(0, 1, (32, 32, 3)), (0, 0), 1.2) for _ in range(n)])
    disc = np.hypot(*np.mgrid[-15.5:16, -15.5:16]) < 13
    return np.clip(128 + 40 * disc[None, :, :, None] + 60 * grain, 0, 255).astype(np.uint8)


def test_a_copy_is_found_though_turned_mirrored_moved_and_lit_otherwise():
    pool, fresh = textured(5, 10), textured(20, 11)
    matrix = cv2.getRotationMatrix2D((15.5, 15.5), 15, 1.0)
    matrix[:, 2] += (1, -2)
    copy = cv2.warpAffine(pool[3][:, ::-1], matrix, (32, 32), borderMode=cv2.BORDER_REFLECT)
    copy = np.clip(copy * 0.7 + 10, 0, 255).astype(np.uint8)
    found = likeness.likeness(copy[None], pool)[0]
    assert found.argmax() == 3
    assert found.max() > 0.9
    assert likeness.likeness(fresh, pool).max() < 0.7


def test_stretched_objects_fill_the_square_whatever_their_shape():
    pixels = np.zeros((1, 128, 128, 3), np.uint8)
    pixels[0, 32:96, 48:80] = 200
    one = some(1, pixels=pixels)
    one.share[:] = np.array([48, 32, 80, 96]) / 128
    found = windows.stretched(one, 28)[0]
    assert (found[4:24, 4:24] == 200).all()
    assert found[[0, -1]].max() < 10
    assert found[:, [0, -1]].max() < 10


# Area under the curve


def test_auc_is_the_share_of_pairs_in_the_right_order_ties_by_half():
    for seed in range(20):
        labels = rng(seed).random(30) < 0.4
        scores = rng(100 + seed).integers(0, 6, 30).astype(float) + labels
        pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
        assert distances.auc(scores, labels) == pytest.approx(np.mean(pairs))
    assert np.isnan(distances.auc(np.ones(3), np.ones(3, bool)))


def test_the_interval_holds_one_half_where_scores_mean_nothing():
    labels = np.arange(80) % 2 == 0
    trials = [distances.Trial(rng(s).normal(size=80), labels, np.arange(80) // 4) for s in range(3)]
    value, low, high = distances.mean_auc(trials, rng())
    assert low < 0.5 < high
    assert low < value < high
    assert high - low < 0.5


# Windows


@pytest.mark.parametrize(
    "box", [(60, 50, 90, 85), (0, 0, 20, 12), (150, 100, 160, 120), (3, 70, 13, 119), (0, 0, 160, 120)]
)
def test_a_window_is_the_one_that_generators_see(box):
    """At the image's edges too, and where the image is smaller than the window."""
    picture = rng(12).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    mask = box_mask(Box(*box))
    framing = Framing(context=0.5, least_px=24, most_px=64, shifted=True)
    placement = Placement("disc", mask)
    theirs = cut(picture, placement, framing, image=0, key=(0, 0, 0, 0), seed=0)
    x, y, side = windows.frame(Box(*box), 160, 120)
    assert (x, y, side) == (theirs.x, theirs.y, theirs.side)
    longer = max(box[2] - box[0], box[3] - box[1])
    assert side == longer + 2 * int(np.clip(longer / 2, 24, 64))
    assert (windows.zoomed(picture, x, y, side, side) == theirs.pixels).all()
    found = windows.cut(lambda _: picture, [Place(5, 9, Box(*box))])
    assert found.pixels.shape == (1, 128, 128, 3)
    assert (found.image[0], found.annotation[0]) == (5, 9)
    assert (found.share[0] * side + (x, y, x, y)) == pytest.approx(box)


def test_an_object_keeps_its_place_when_its_window_is_moved_inside():
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[90:98, 2:12] = 255
    found = windows.cut(lambda _: picture, [Place(0, 0, Box(2, 90, 12, 98))])
    x1, y1, x2, y2 = np.rint(found.share[0] * 128).astype(int)
    assert found.pixels[0, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min() == 255
    bright = found.pixels[0].any(axis=2)
    assert bright.sum() <= (y2 - y1 + 8) * (x2 - x1 + 8)


def test_windows_come_back_from_their_file(tmp_path):
    before = some(3)
    before.save(tmp_path / "windows.npz")
    after = Windows.load(tmp_path / "windows.npz")
    assert (after.pixels == before.pixels).all()
    assert (after.take(np.array([2])).annotation == [2]).all()


def test_one_band_and_sixteen_bits_become_windows():
    picture = rng(13).integers(0, 4000, (90, 90, 1)).astype(np.uint16)
    found = windows.cut(lambda _: picture, [Place(0, 0, Box(20, 20, 50, 50))])
    assert found.pixels.dtype == np.uint8
    assert (found.pixels[..., 0] == found.pixels[..., 2]).all()


def test_background_windows_hold_no_object_of_the_class(tiny_once):
    data = dataset.load(tiny_once)
    images = frozenset(int(i) for i in data.images.id)
    real = windows.real(data, "square", images)
    found = windows.background(data, "square", images, real, rng())
    assert len(found) == len(real) > 0
    rows = {int(name): row for row, name in enumerate(data.images.id)}
    for image, box in zip(found.image, found.box, strict=True):
        own = [
            r for r in data.rows_in(rows[int(image)]) if data.names[data.annotations.category[r]] == "square"
        ]
        for row in own:
            other = data.annotations.boxes[row]
            assert not ((box[:2] < other[2:]).all() and (box[2:] > other[:2]).all())


# Splits


def test_a_split_that_leaks_is_refused():
    groups = {n: n // 2 for n in range(8)}
    cases.check(frozenset({0, 1}), frozenset({4, 5}), groups)
    with pytest.raises(SystemExit, match="held out as well"):
        cases.check(frozenset({0, 1}), frozenset({1, 4}), groups)
    with pytest.raises(SystemExit, match="1 sequences"):
        cases.check(frozenset({0, 2}), frozenset({3, 4}), groups)


@pytest.mark.shelf
@pytest.mark.parametrize("name", ["bccd/Platelets", "bccd/WBC", "hituav/OtherVehicle", "aquarium/starfish"])
def test_no_held_out_image_is_painted_from(shelf, tmp_path, name):
    given = argparse.Namespace(
        case=[name], out=tmp_path, shelf=shelf.parent, judge=SHELF / "judge", threads=1, k=cases.K
    )
    (desk,) = cases.desks(given)
    if not (desk.judge / "splits.py").exists():
        pytest.skip(f"no splits.py in {desk.judge}")
    sides = cases.make(desk)
    assert not sides.train & sides.test
    assert not sides.other & (sides.train | sides.test)
    groups = cases.sequences(desk)
    assert not {groups[i] for i in sides.train} & {groups[i] for i in sides.test}
    asked = paints.resolved(desk, tmp_path / "arm", "paste", 20, [], 0)
    data = dataset.load(asked.data, asked.pictures, lenient=True)
    assert set(data.images.id.tolist()) == sides.train
    rare = {int(data.annotations.image[r]) for r in data.rows_of(desk.case.rare)}
    assert len(rare) == cases.K
    real = {i["id"] for i in json.loads((desk.split / "real.json").read_text())["images"]}
    assert real == sides.train | sides.other


# Runs


def test_options_find_their_section_and_unknown_ones_are_refused():
    found = paints.options(["steps=8", "strength=[0.5, 1.0]", "seed=3", "checker=none"])
    assert found == {
        "seed": 3,
        "generator": {"steps": 8, "strength": [0.5, 1.0]},
        "annotator": {"checker": "none"},
    }
    with pytest.raises(SystemExit, match="no option 'stepz'"):
        paints.options(["stepz=8"])


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """The demo's cells, squares painted by paste in the folder of an arm; the product, its data, and the desk."""
    from rarefill import demo

    out = tmp_path_factory.mktemp("fidelity")
    path = demo.render(out / "data", images=8, seed=2, platelet_images=4)
    case = cases.Case("demo", demo.RARE)
    desk = cases.Desk(case, out, out, out, 1)
    desk.split.mkdir(parents=True)
    coco = json.loads(path.read_text())
    desk.train.write_text(json.dumps(coco))
    asked = recipe.merged(
        paints.resolved(desk, desk.folder / "paste", "paste", 6, ["checker=none"], 0).model_dump(),
        {"pictures": out / "data" / "images"},
    )
    return desk, path, recipe.resolve(asked)


def test_every_paint_has_its_window_its_exemplar_and_its_asked_box(painted, monkeypatch):
    desk, path, asked = painted
    monkeypatch.setattr(paints, "sides", lambda _: None)  # the demo has no held-out side
    folder = desk.folder / "paste"
    found = paints.paint(desk, folder, asked, SILENT)
    assert len(found) == 6
    again = paints.Paints.load(folder)
    assert (again.windows.pixels == found.windows.pixels).all()
    data = dataset.load(path)
    own = {int(data.annotations.id[r]) for r in data.rows_of(desk.case.rare)}
    assert set(found.windows.annotation.tolist()) <= own
    assert (found.asked_overlap > 0.8).all()
    assert np.nanmin(detector.overlaps(found.asked, found.windows.box)) > 0.8
    labels = json.loads((folder / "run" / "annotations.json").read_text())
    painted_boxes = [a["bbox"] for a in labels["annotations"] if "generator" in str(a.get("rarefill"))]
    ours = np.array([[x, y, x + w, y + h] for x, y, w, h in painted_boxes])
    assert sorted(map(tuple, ours.round(1))) == sorted(map(tuple, found.windows.box.round(1)))


def test_a_witness_takes_what_shows_and_writes_down_what_was_said(tmp_path):
    class Refuses:
        table = ()

        def check(self, renders, todo):
            del renders, todo
            shown = Verdict(0, Reason.LOW_SCORE, 0.1, box=Box(0, 0, 5, 5))
            return [(shown, Verdict(1, Reason.NOT_PAINTED))]

    path = tmp_path / "verdicts.jsonl"
    render = SimpleNamespace(layout=SimpleNamespace(image=4, copy=2))
    ((shown, gone),) = paints.Witness(Refuses(), path).check([render], [(0, 1)])
    assert shown.accepted
    assert not gone.accepted
    assert paints.Witness.read(path) == {(4, 2, 0): "low score", (4, 2, 1): "not painted"}


# The detector's word


def test_a_detection_counts_where_it_fits_and_the_best_counts():
    def row(image, x, score):
        return {"image_id": image, "bbox": [x, 0, 10, 10], "score": score}

    rows = [row(1, 0, 0.3), row(1, 1, 0.6), row(1, 8, 0.9), row(2, 0, 0.8)]
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    scores, found = detector.matched(rows, np.array([1, 2]), boxes)
    assert scores.tolist() == [0.6, 0]
    assert found[0].tolist() == [1, 0, 11, 10]
    assert np.isnan(found[1]).all()
    assert detector.overlaps(found, boxes)[0] == pytest.approx(9 / 11)


def test_the_threshold_keeps_nine_in_ten_but_does_not_sink_to_nothing():
    real = np.linspace(0.1, 1, 100)
    assert (real >= detector.threshold(real)).mean() == pytest.approx(0.9, abs=0.01)
    assert detector.threshold(np.zeros(10)) == detector.LEAST


# Seams


def test_both_sides_share_neither_scene_nor_exemplar():
    real, painted_ = some(40, images=10), some(60, seed=1, images=10)
    homes = {n: n % 4 for n in range(60)}
    pool = seams.pool(real, painted_, {n: n for n in range(10)}, homes)
    side = seams.sides(pool, rng(3))
    for seen in (pool.scene, pool.source):
        assert not set(seen[side == 0]) & set(seen[side == 1])
    assert {0, 1} <= set(side[pool.painted]) & set(side[~pool.painted])


def test_texture_tells_what_was_smoothed_on_scenes_that_it_has_not_seen():
    rng = np.random.default_rng(0)
    n, scenes = 150, 50

    def drawn(smooth):
        pixels = rng.normal(120, 12, (n, 128, 128, 3))
        if smooth:
            pixels[:, 50:78, 50:78] = (pixels[:, 50:78, 50:78] - 120) * 0.7 + 120
        share = np.tile([0.35, 0.35, 0.65, 0.65], (n, 1))
        ids = np.arange(n, dtype=np.int64)
        full = pixels.clip(0, 255).astype(np.uint8)
        return Windows(full, full[:, :48, :48], ids % scenes, np.full(n, -1), share * 128, share)

    groups = {i: i for i in range(scenes)}
    for smooth, low, high in ((True, 0.95, 1.0), (False, 0.3, 0.7)):
        real, painted = drawn(False), drawn(smooth)
        pool = seams.pool(real, painted, groups, {})
        both = np.concatenate([texture.figures(w) for w in (real, painted)])
        assert both.shape == (2 * n, 20)
        for columns, least, most in ((slice(None), low, high), (texture.AROUND, 0.3, 0.7)):
            found = texture.trials(pool, both[:, columns], times=2)
            value = np.mean([distances.auc(t.scores, t.labels) for t in found])
            assert least <= value <= most


def test_seams_are_told_and_their_absence_is_not(monkeypatch):
    """Squares with a hard bright rim against none; and against other draws of none."""
    monkeypatch.setattr(seams, "STEPS", 30)
    monkeypatch.setattr(seams, "BATCH", 16)
    draw = rng(14)

    def smooth(n):
        return (
            np.stack(
                [cv2.GaussianBlur(draw.normal(0, 60, (128, 128, 3)), (0, 0), 4) * 2 + 128 for _ in range(n)]
            )
            .clip(0, 255)
            .astype(np.uint8)
        )

    rims = smooth(40)
    rims[:, 40:42, 40:88] = rims[:, 86:88, 40:88] = 230
    groups = {n: n for n in range(8)}
    homes = {n: n % 8 for n in range(40)}

    def value(pixels):
        pool = seams.pool(
            some(40, pixels=smooth(40), images=8), some(40, pixels=pixels, images=8), groups, homes
        )
        found = seams.trials(pool, times=1)
        assert len(found) == 2
        return distances.mean_auc(found, rng(), times=20)[0]

    assert value(rims) > 0.95
    assert 0.2 < value(smooth(40)) < 0.8


def test_grain_is_fine_and_colours_are_coarse():
    plain = some(4, pixels=np.full((4, 128, 128, 3), 120, np.uint8))
    grain = plain.pixels.copy()
    grain[:, 40:88, 40:88][:, ::2, ::2] += 40
    shade = plain.pixels.astype(float)
    y, x = np.mgrid[:128, :128]
    shade += 60 * np.exp(-((x - 64) ** 2 + (y - 64) ** 2) / (2 * 20**2))[..., None]

    def contrast(pixels, view):
        return float(view(replace(plain, pixels=pixels.astype(np.uint8))).pixels[:, 20:108, 20:108].std())

    assert contrast(grain, seams.fine) > 8
    assert contrast(seams.coarse(replace(plain, pixels=grain)).pixels, seams.fine) < 1
    assert contrast(shade, seams.coarse) > 10
    assert contrast(shade, seams.fine) < 1
    assert contrast(plain.pixels, seams.fine) == 0
    assert (seams.fine(plain).pixels == 128).all()


def test_covered_windows_show_nothing_of_the_object():
    one = some(2)
    found = seams.hidden(one)
    assert (found.pixels[:, 40:88, 40:88] == 128).all()
    assert (found.pixels[:, :20] == one.pixels[:, :20]).all()


# Sheets and tables


def test_a_blind_sheet_shows_both_kinds_and_its_key_says_which():
    real, painted_ = some(30), some(7, seed=1)
    drawn, key = sheets.blind("which?", real, painted_, seed=1)
    kinds = [kind for _, kind, _ in key]
    assert (kinds.count("real"), kinds.count("painted")) == (20, 7)
    assert kinds != sorted(kinds)
    sets = {"real": real, "painted": painted_}
    step, start = 128 + sheets.GAP, sheets.MARGIN + 36
    for n, kind, row in key:
        x, y = sheets.MARGIN + (n - 1) % 10 * step, start + (n - 1) // 10 * (step + 18)
        assert (drawn[y : y + 128, x : x + 128] == sets[kind].pixels[row]).all()
    assert sheets.side_by_side("both", {"real": real, "paste": painted_}).shape[1] == drawn.shape[1]


def test_a_blind_sheet_leaves_out_what_it_shows_already():
    different = some(25)
    again = windows.joined([different.take(np.repeat(np.arange(5), 30)), different.take(np.arange(5, 25))])
    kept = sheets.unlike(again, np.random.default_rng(0))
    assert len(kept) == len(set(kept.tolist())) == 20
    assert len(np.unique(again.pixels[kept].reshape(20, -1), axis=0)) == 20
    assert (
        len(sheets.unlike(again.take(np.arange(30)), np.random.default_rng(0))) == 20
    )  # one thirty times: no choice
    assert not len(sheets.unlike(again.take(np.arange(0)), np.random.default_rng(0)))


def test_a_table_has_a_line_for_each_kind_that_was_measured():
    figures = {
        "case": "bccd/Platelets",
        "real": {"exemplars": 21, "held": 125, "other": 9, "ground": 125},
        "paints": {
            "paste": {
                "shown": 60,
                "seconds": 2,
                "checker": {"accepted": 45, "low score": 15},
                "asked_overlap": 0.98,
            }
        },
        "kid": {
            view: {"real halves": {"kid": 0.01, "se": 0.02}, "paste": {"kid": 0.4, "se": 0.1, "n": 60}}
            for view in ("window", "object")
        },
        "seams": {"paste": {"whole": {"auc": 0.8, "low": 0.7, "high": 0.9}, "surroundings": None}},
    }
    lines = report.table([figures]).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "0.75" in lines[3]
    assert "0.80 (0.70 to 0.90)" in lines[3]


def test_the_program_says_what_is_missing(tmp_path):
    words = ["measure", "--case", "bccd/WBC", "--out", str(tmp_path)]
    given = fidelity._parser().parse_args(words)
    with pytest.raises(SystemExit, match=r"run 'fidelity.py paint' first"):
        given.work(given)
