"""Long objects lie along the edges around them where the real ones do, across where those do, and anyhow where they do not care."""

import json
import math

import cv2
import numpy as np
import pytest

from rarefill import bank, dataset
from rarefill.geometry import Box
from rarefill.layouts import Planner
from rarefill.layouts.context import Context
from rarefill.layouts.leaning import Leaning, learned
from rarefill.layouts.shapes import Shapes
from rarefill.layouts.turning import axis
from rarefill.recipe import LayoutConfig

SIDE, LONG, WIDE = 192, 44, 12


def running(way_deg, far=0.8):
    """As `around.running` gives it."""
    doubled = np.radians(2 * np.atleast_1d(np.asarray(way_deg, dtype=float)))
    return far * np.stack([np.cos(doubled), np.sin(doubled)], axis=1)


def corners(x, y, turned_deg):
    shape = ((float(x), float(y)), (LONG, WIDE), float(turned_deg))
    return [float(v) for v in cv2.boxPoints(shape).ravel()]


def world(folder, off_deg, *, images=24, rare=10, seed=0):
    """Fields ploughed each in a direction of its own; the first `rare` hold a barge that is `off_deg(rng)` off the furrows."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    entries, annotations, ways = [], [], []
    y, x = np.mgrid[:SIDE, :SIDE]
    for n in range(images):
        way = float(rng.uniform(0, 180))
        across = x * -math.sin(math.radians(way)) + y * math.cos(math.radians(way))
        picture = 130 + 40 * np.sin(across / 3) + rng.normal(0, 6, (SIDE, SIDE))
        if n < rare:
            outline = corners(*rng.uniform(50, SIDE - 50, 2), way + off_deg(rng))
            cv2.fillPoly(picture, [np.int32(np.reshape(outline, (4, 2)).round())], 20.0)
            xs, ys = outline[::2], outline[1::2]
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            annotations.append(
                {
                    "id": n + 1,
                    "image_id": n + 1,
                    "category_id": 1,
                    "bbox": box,
                    "segmentation": [outline],
                    "area": LONG * WIDE,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(folder / "images" / f"{n}.png"), picture.clip(0, 255).astype(np.uint8))
        entries.append({"id": n + 1, "file_name": f"{n}.png", "width": SIDE, "height": SIDE})
        ways.append(way)
    document = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "barge"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    data = dataset.load(folder / "annotations.json")
    return data, bank.build(data, ["barge"]), np.array(ways)


def along(rng):
    return rng.normal(0, 6)


def told(context, way, image=20):
    """Odds of lying along an image's furrows, less those of lying across them."""
    boxes = np.tile([[70.0, 70.0, 110.0, 110.0]], (2, 1))
    _, odds = context.wanted("barge", image, boxes, np.array([way, way + 90]) % 180, 1.0)
    return float(odds[0] - odds[1])


def test_objects_are_likelier_where_they_lie_as_the_real_ones_do(tmp_path):
    data, shapes, ways = world(tmp_path / "along", along)
    assert told(Context(data, shapes), ways[20]) > 2
    data, shapes, ways = world(tmp_path / "across", lambda rng: 90 + along(rng))
    assert told(Context(data, shapes), ways[20]) < -2


def test_no_places_have_no_odds(tmp_path):
    data, shapes, _ = world(tmp_path / "w", along)
    context, none, nowhere = Context(data, shapes), np.zeros((0, 4)), np.zeros(0, dtype=np.intp)
    assert context.scores("barge", nowhere, none).shape == (0,)
    assert [part.shape for part in context.wanted("barge", nowhere, none, np.zeros(0), 0.3)] == [(0,), (0,)]


def test_picks_say_how_their_silhouettes_lie(tmp_path):
    data, shapes, _ = world(tmp_path / "w", along)
    kind = Shapes(data, shapes, "barge")
    n = 40
    picks = kind.choose(np.random.default_rng(0), np.full(n, math.log(36)), np.zeros(n), 20)
    assert 5 < picks.flip.sum() < 35
    for i in range(n):
        exemplar, shape, width, height = kind.turned(picks, i)
        drawn = bank.silhouette(exemplar.mask, shape, Box(0, 0, round(width), round(height)))
        off = abs(axis(drawn)[0] - picks.axis_deg[i]) % 180
        assert min(off, 180 - off) < 10


def test_where_real_objects_do_not_care_little_is_believed(tmp_path):
    found = []
    for seed in range(4):
        data, shapes, ways = world(tmp_path / str(seed), lambda rng: rng.uniform(0, 180), seed=seed)
        found.append(abs(told(Context(data, shapes), ways[20])))
    assert np.median(found) < 1


def test_round_objects_and_a_context_without_silhouettes_know_no_direction(tmp_path):
    data, shapes, _ = world(tmp_path / "w", along)
    boxes = np.array([[70.0, 70.0, 110.0, 110.0]])
    for given, axes in ((shapes, np.array([np.nan])), (None, np.array([30.0]))):
        places, lying = Context(data, given).wanted("barge", 20, boxes, axes, 0.3)
        np.testing.assert_array_equal(places, Context(data).scores("barge", 20, boxes))
        np.testing.assert_array_equal(lying, [0])


def test_a_plan_lays_its_objects_along_the_furrows(tmp_path):
    data, shapes, ways = world(tmp_path / "w", along)
    off = {}
    for name, given in (("knowing", shapes), ("not knowing", None)):
        config = LayoutConfig(untouched=0.0, per_image=1, max_reuse=4)
        planner = Planner(data, shapes, config, seed=1, context=Context(data, given))
        turned = [
            (layout.image, axis(p.mask)[0])
            for layout in planner.plan({"barge": 60}).layouts
            for p in layout.placements
            if p.whole is None
        ]
        assert len(turned) > 30
        off[name] = float(np.mean([math.cos(math.radians(2 * (a - ways[i]))) for i, a in turned]))
    assert off["knowing"] > 0.6
    assert off["not knowing"] < 0.3


def test_objects_of_one_image_count_as_one():
    many = learned(np.full(30, 40.0), np.tile(running(40), (30, 1)), np.zeros(30, dtype=np.intp))
    one = learned(np.array([40.0]), running(40), np.zeros(1, dtype=np.intp))
    assert many.concentration == pytest.approx(one.concentration, abs=0.11)


def test_a_low_temperature_is_strict():
    at_one, at_three_tenths = (
        Leaning(2.0).at(t)(np.array([40.0, 130.0]), np.tile(running(40), (2, 1))) for t in (1.0, 0.3)
    )
    assert at_three_tenths[0] > at_one[0] > 0 > at_one[1] > at_three_tenths[1]


def test_odds_of_all_directions_are_those_of_any():
    leaning = Leaning(3.0)
    axes = np.arange(0, 180, 0.5)
    odds = leaning(axes, np.tile(running(25), (len(axes), 1)))
    assert np.exp(odds).mean() == pytest.approx(1, abs=1e-6)
    assert axes[odds.argmax()] == 25
    np.testing.assert_array_equal(leaning(np.array([10.0]), np.full((1, 2), np.nan)), [0])


def test_nothing_known_says_nothing():
    none = learned(np.array([np.nan, 20.0]), np.array([[0.5, 0], [np.nan, np.nan]]), np.array([0, 1]))
    assert none.concentration == 0
    np.testing.assert_array_equal(none(np.array([20.0]), running(20)), [0])
