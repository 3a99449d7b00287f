"""Shapes that vary: bent without folding, turned as the class is in reality, shown in part."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pipelines as tiny_pipelines
import pytest
from gallery import SHAPES

from rarefill import bank, dataset, warp
from rarefill.bank import Bank, Exemplar
from rarefill.generators import Job, render
from rarefill.generators.exemplars import Exemplars, warped
from rarefill.generators.paste import Paste
from rarefill.geometry import Box, Mask, rle_counts
from rarefill.layouts import bending
from rarefill.layouts.shapes import Shapes
from rarefill.layouts.turning import MOST_TURNED_DEG, axis, spread, standing, turning
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX, Layout, Placement, Shape, changed_pixels

BLENDS = ("hard", "feather", "pyramid", "poisson")


def parts_and_holes(pixels):
    """Numbers of pieces and of holes; None where corners alone hold them together."""
    padded = np.pad(pixels, 1).astype(np.uint8)
    counts = {n: (cv2.connectedComponents(padded, connectivity=n)[0] - 1) for n in (4, 8)}
    holes = {n: (cv2.connectedComponents(1 - padded, connectivity=n)[0] - 2) for n in (4, 8)}
    alike = counts[4] == counts[8] and holes[4] == holes[8]
    return (counts[4], holes[4]) if alike else None


def large(name, factor=6):
    return Mask.of(np.kron(SHAPES[name], np.ones((factor, factor), bool)))


def smooth(shape):
    """A map's own deformation: where the points of a fine grid of the unit square come from."""
    made = warp.fit(Mask(0, 0, np.ones((100, 100), bool)), shape, 100, 100)
    at = np.linspace(-20, 120, 141)
    return made.back(at, at)


@pytest.mark.parametrize("seed", range(12))
def test_a_bent_plane_folds_nowhere(seed):
    x, y = smooth(Shape(0, bend=0.06, bend_seed=seed))
    by_column, by_row = [np.gradient(v, axis=1) for v in (x, y)], [np.gradient(v, axis=0) for v in (x, y)]
    determinant = by_column[0] * by_row[1] - by_column[1] * by_row[0]
    assert determinant.min() > 0.2
    assert determinant.max() < 2.5


@pytest.mark.parametrize("name", [n for n in SHAPES if parts_and_holes(SHAPES[n]) is not None])
def test_parts_and_holes_survive_bending_and_scaling(name):
    mask = large(name)
    assert mask is not None
    height, width = mask.pixels.shape
    for seed, scale in ((1, 1.0), (2, 1.7), (3, 0.5), (4, 1.0)):
        box = Box(0, 0, max(1, round(scale * width)), max(1, round(scale * height)))
        placed = bank.silhouette(mask, Shape(0, bend=0.06, bend_seed=seed), box)
        assert parts_and_holes(placed.pixels) == parts_and_holes(mask.pixels), (seed, scale)


@pytest.mark.parametrize("name", ["with a hole", "island in a hole", "split in two", "hole open to the edge"])
def test_thin_parts_and_holes_survive_scaling_down_and_up(name):
    mask = Mask.of(SHAPES[name])
    assert mask is not None
    height, width = mask.pixels.shape
    up = bank.silhouette(mask, Shape(0), Box(0, 0, 5 * width, 5 * height))
    down = bank.silhouette(up, Shape(0), Box(0, 0, width, height))
    assert parts_and_holes(up.pixels) == parts_and_holes(mask.pixels)
    assert np.array_equal(down.pixels, mask.pixels)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_bent_fills_its_box_and_is_not_what_it_was(seed):
    mask = large("disc")
    assert mask is not None
    plain = bank.silhouette(mask, Shape(0), Box(5, 7, 65, 97))
    bent = bank.silhouette(mask, Shape(0, bend=0.06, bend_seed=seed), Box(5, 7, 65, 97))
    assert np.abs(np.subtract(bent.box.xyxy, (5, 7, 65, 97))).max() <= 2
    differs = np.count_nonzero(plain.full(99, 99) ^ bent.full(99, 99)) / plain.area
    assert 0.01 < differs < 0.25
    again = bank.silhouette(mask, Shape(0, bend=0.06, bend_seed=seed), Box(5, 7, 65, 97))
    assert np.array_equal(bent.pixels, again.pixels)


def test_pixels_move_with_the_outline(tiny_bank):
    data, shapes = tiny_bank
    exemplar = shapes.of("disc")[0]
    source = Exemplars(data, shapes).source(exemplar.annotation)
    height, width = source.pixels.shape[:2]
    inside = exemplar.mask.window(source.x, source.y, width, height)
    colours = inside.astype(np.float32)[:, :, None].repeat(3, axis=2)
    shape = Shape(exemplar.annotation, flip=True, rotation_deg=30, bend=0.06, bend_seed=4)
    moved, cover, _ = warped(exemplar, source, shape, Box(10, 12, 50, 42), (60, 70), colours)
    assert np.abs(moved[:, :, 0] - cover).max() < 1e-4


def bars(folder, angles, *, images=6, size=160):
    """A dataset of bars at these angles in degrees, clockwise from the right, eight to an image."""
    folder.mkdir()
    (folder / "images").mkdir()
    entries, annotations, rng = [], [], np.random.default_rng(5)
    for image, some in enumerate(np.array_split(np.array(angles, dtype=float), images), 1):
        entries.append({"id": image, "file_name": f"{image}.png", "width": size * 4, "height": size * 4})
        cv2.imwrite(str(folder / "images" / f"{image}.png"), np.full((size * 4, size * 4, 3), 90, np.uint8))
        for i, angle in enumerate(some):
            middle = (size * (i % 4) + size // 2, size * (i // 4 % 4) + size // 2)
            corners = cv2.boxPoints((middle, (rng.uniform(50, 60), rng.uniform(14, 18)), float(angle)))
            mask = cv2.fillPoly(np.zeros((size * 4, size * 4), np.uint8), [corners.round().astype(int)], 1)
            x, y, w, h = cv2.boundingRect(mask)
            counts = rle_counts(mask.astype(bool)).decode()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [size * 4, size * 4], "counts": counts},
                }
            )
    document = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "bar"}]}
    (folder / "annotations.json").write_text(json.dumps(document))
    data = dataset.load(folder / "annotations.json")
    return data, bank.build(data, ["bar"])


def placed_axes(data, shapes, n=200):
    """Axes in degrees of what is chosen for sizes and aspects as they are in the data."""
    held = Shapes(data, shapes, "bar")
    rng = np.random.default_rng(2)
    sides = data.annotations.boxes[:, 2:] - data.annotations.boxes[:, :2]
    sides = sides[rng.integers(len(sides), size=n)]
    picks = held.choose(rng, 0.5 * np.log(sides.prod(axis=1)), np.log(sides[:, 0] / sides[:, 1]), 0)
    found = []
    for i in range(n):
        exemplar, shape, width, height = held.turned(picks, i)
        placed = bank.silhouette(exemplar.mask, replace(shape, bend=0.0), Box(0, 0, width, height))
        found.append((axis(placed)[0], shape.rotation_deg))
    return np.array(found)


def test_an_upright_class_stays_upright(tmp_path):
    rng = np.random.default_rng(1)
    data, shapes = bars(tmp_path / "up", 90 + rng.normal(0, 8, 48))
    assert standing(data)
    assert not turning(data, shapes, "bar").free
    axes, turned = placed_axes(data, shapes).T
    assert np.abs(turned).max() <= MOST_TURNED_DEG
    assert np.abs(axes - 90).max() < 45


def test_a_class_that_lies_any_way_is_turned_any_way(tmp_path):
    rng = np.random.default_rng(1)
    data, shapes = bars(tmp_path / "any", rng.uniform(0, 180, 48))
    assert standing(data) is False
    assert turning(data, shapes, "bar").free
    axes, turned = placed_axes(data, shapes).T
    assert np.abs(turned).max() > 150
    assert np.abs(turned).max() <= 180
    assert abs(np.exp(2j * np.radians(axes)).mean()) < 0.3


def test_turned_objects_follow_the_real_axes(tmp_path):
    angles = np.tile([35.0, 125.0], 24) + np.random.default_rng(1).normal(0, 4, 48)
    data, shapes = bars(tmp_path / "two", angles)
    assert turning(data, shapes, "bar").free
    axes, _ = placed_axes(data, shapes).T
    away = np.minimum(np.abs(axes - 35), np.abs(axes - 125))
    assert np.mean(away < 25) > 0.8


def test_few_objects_do_not_prove_that_a_world_has_no_up(tmp_path):
    rng = np.random.default_rng(1)
    data, shapes = bars(tmp_path / "few", rng.uniform(0, 180, 6))
    assert standing(data) is None
    assert not turning(data, shapes, "bar").free


def test_axes_that_crowd_and_axes_that_spread():
    rng = np.random.default_rng(0)
    assert spread(np.array([])) == 0
    assert spread(rng.normal(90, 10, 40)) < -10
    assert spread(rng.uniform(0, 180, 40)) > 1
    assert abs(spread(rng.uniform(0, 180, 2))) < 1.5


@pytest.mark.parametrize("angle", [0, 20, 90, 160])
def test_the_axis_of_a_bar_is_its_direction(angle):
    corners = cv2.boxPoints(((50, 50), (70, 20), angle)).round().astype(int)
    mask = Mask.of(cv2.fillPoly(np.zeros((100, 100), np.uint8), [corners], 1))
    assert mask is not None
    found, length = axis(mask)
    assert min(abs(found - angle), 180 - abs(found - angle)) < 2
    assert length == pytest.approx(3.5, abs=0.3)


def exemplars(masks, source="mask"):
    return [Exemplar(i, i, "thing", m, source, 1.0, True) for i, m in enumerate(masks)]


def blob(seed, side=120):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] - side / 2
    angle, radius = np.arctan2(rows, columns), np.hypot(rows, columns)
    waves = sum(rng.normal(0, 0.3 / k) * np.cos(k * angle + rng.uniform(0, 7)) for k in (2, 3, 4))
    mask = Mask.of(radius < side / 3 * (1 + waves))
    assert mask is not None
    return mask


def test_classes_that_differ_are_bent_and_those_that_do_not_are_not():
    square = Mask(0, 0, np.ones((40, 40), bool))
    varied = [blob(seed) for seed in range(30)]
    assert bending.strength(exemplars([square] * 12)) == 0
    assert bending.MOST_BENT / 6 < bending.strength(exemplars(varied)) <= bending.MOST_BENT
    assert bending.strength(exemplars(varied, "box")) == 0
    assert bending.strength(exemplars(varied[:2])) == 0


def partly(shapes, box, front=None):
    shape = Shape(0)
    shown = bank.visible(shapes.at(0).mask, shape, Box(*box), 100, 90, front)
    assert shown is not None
    return Placement("flag", shown[0], shape=shape, spared=front, whole=shown[1])


def painted(generator, data, placement, attempt=0):
    job = Job(Layout(4, 0, (placement,)), data.read(4), (attempt,), None, (0,))
    return render(generator, [job], seed=3)[0]


def plain(**options):
    return GeneratorConfig(generator="paste", photometric=0, match_noise=False, **options)


@pytest.mark.parametrize("blend", BLENDS)
def test_an_object_that_the_edge_cuts_shows_its_other_half_at_full_scale(two_coloured, blend):
    data, shapes = two_coloured
    placement = partly(shapes, (-20, 30, 20, 70))
    assert placement.box.xyxy == (0, 30, 20, 70)
    done = painted(Paste(plain(blends=(blend,)), data, shapes), data, placement)
    grey = done.pixels.mean(axis=2)
    assert grey[34:66, 3:16].min() > 150, "the bright half alone, not both squeezed into what shows"
    assert grey[34:66, 0].min() > 150, "no border where the image's edge cuts it"
    assert done.paints[0].mask.box == placement.box
    assert not (changed_pixels(done) & ~done.paints[0].touched.full(90, 100)).any()
    assert not changed_pixels(done)[:, 20 + FEATHER_PX :].any()
    assert done.paints[0].how["scale"] == 1


@pytest.mark.parametrize("blend", BLENDS)
def test_an_object_behind_another_leaves_every_pixel_of_that_one(two_coloured, blend):
    data, shapes = two_coloured
    front = Mask(45, 10, np.ones((70, 12), bool))
    placement = partly(shapes, (30, 25, 70, 65), front)
    assert placement.whole == Box(30, 25, 70, 65)
    done = painted(Paste(plain(blends=(blend,)), data, shapes), data, placement)
    assert not changed_pixels(done)[front.full(90, 100)].any()
    grey = done.pixels.mean(axis=2)
    assert grey[30:60, 34:44].max() < 90
    assert grey[30:60, 58:66].min() > 150
    assert grey[30:60, 57].min() > 150, "it goes on up to what hides it"
    assert np.array_equal(done.paints[0].mask.full(90, 100), placement.mask.full(90, 100))


def test_another_exemplar_is_set_into_the_whole_box_too(two_coloured):
    data, shapes = two_coloured
    placement = partly(shapes, (-20, 30, 20, 70))
    done = painted(Paste(plain(blends=("hard",)), data, shapes), data, placement, attempt=1)
    assert done.paints[0].how["exemplar"] != 1
    assert done.paints[0].how["scale"] == 1
    inner = done.pixels.mean(axis=2)[34:66, 3:16]
    assert inner.std() < 5, "one half of it"


def test_a_mask_with_a_whole_needs_no_shape(two_coloured):
    data, shapes = two_coloured
    placement = replace(partly(shapes, (-20, 30, 20, 70)), shape=None)
    done = painted(Paste(plain(blends=("hard",)), data, shapes), data, placement)
    assert done.paints[0].mask.box == placement.box
    assert done.pixels.mean(axis=2)[34:66, 3:16].std() < 5


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    from rarefill.generators.denoise import Denoiser
    from rarefill.generators.pipelines import load

    return Denoiser(load(tiny_pipelines.save(tmp_path_factory.mktemp("pipeline") / "tiny", size=32)))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_model_paints_what_shows_and_nothing_in_front(two_coloured, denoiser, one_thread, strength):
    from rarefill.generators.compact import Compact

    data, shapes = two_coloured
    config = GeneratorConfig(generator="compact", steps=2, strength=(strength,))
    generator = Compact(config, denoiser, data, paste=Paste(config, data, shapes), prompts={})
    front = Mask(8, 10, np.ones((70, 6), bool))
    placement = partly(shapes, (-20, 30, 20, 70), front)
    done = painted(generator, data, placement)
    assert changed_pixels(done)[placement.mask.full(90, 100)].mean() > 0.9
    assert not changed_pixels(done)[front.full(90, 100)].any()
    assert not (changed_pixels(done) & ~done.paints[0].touched.full(90, 100)).any()
    assert not changed_pixels(done)[:, 20 + FEATHER_PX :].any()
    assert np.array_equal(done.paints[0].mask.full(90, 100), placement.mask.full(90, 100))
    again = painted(generator, data, placement)
    assert np.array_equal(done.pixels, again.pixels)


def test_the_model_starts_from_the_part_that_shows(two_coloured, denoiser, one_thread, monkeypatch):
    from rarefill.generators.compact import Compact

    data, shapes = two_coloured
    config = GeneratorConfig(generator="compact", steps=2, strength=(0.5,), match_noise=False)
    generator = Compact(config, denoiser, data, paste=Paste(config, data, shapes), prompts={})
    seen = []
    paint = denoiser.paint
    monkeypatch.setattr(denoiser, "paint", lambda c, *a, **k: seen.extend(c) or paint(c, *a, **k))
    painted(generator, data, partly(shapes, (-20, 30, 20, 70)))
    (canvas,) = seen
    bright = canvas.pixels.mean(axis=2) > 150
    assert canvas.hidden[bright].mean() > 0.9
    assert bright.sum() > 0.08 * bright.size
    assert (canvas.pixels.mean(axis=2) < 50).sum() == 0 or canvas.hidden.sum() > bright.sum()


def test_the_bank_can_be_empty(two_coloured):
    data, shapes = two_coloured
    done = painted(Paste(plain(), data, Bank([])), data, partly(shapes, (-20, 30, 20, 70)))
    assert done.paints[0].mask is None


def test_the_label_of_a_partly_visible_object_is_the_part_that_shows(two_coloured):
    from rarefill.annotators import measure
    from rarefill.recipe import CheckerConfig

    data, shapes = two_coloured
    front = Mask(0, 30, np.ones((10, 30), bool))
    placement = partly(shapes, (-20, 30, 20, 70), front)
    done = painted(Paste(plain(blends=("hard",)), data, shapes), data, placement)
    verdict = measure.verdict(done, 0, shapes, CheckerConfig())
    assert verdict.accepted
    assert verdict.box == Box(0, 40, 20, 70)
    assert verdict.asked_overlap == 1
