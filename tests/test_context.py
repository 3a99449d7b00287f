"""What surrounds a category's places is learned from a few of them, and nothing is invented where there is nothing."""

import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from rarefill import dataset
from rarefill.layouts.around import COMPANY, Around, frequent
from rarefill.layouts.company import company
from rarefill.layouts.context import Context, places
from rarefill.layouts.ground import Colours
from rarefill.layouts.kinds import k_means, nearest
from rarefill.layouts.priors import Priors
from rarefill.layouts.ratio import Places, fit
from rarefill.layouts.sums import Frame, Sums
from rarefill.layouts.surroundings import Surroundings

SIDE, SIZE = 200, 20


def ground(rng, *, dark=True):
    """A light picture with grain; `dark`: its left or right third is dark."""
    picture = rng.normal(150, 12, (SIDE, SIDE, 3))
    left = rng.random() < 0.5
    if dark:
        picture[:, slice(0, 80) if left else slice(120, 200)] -= 70
    return picture, left


def any_place(rng):
    return rng.integers(0, SIDE - SIZE, 2)


def anywhere(rng, left, mate):
    return any_place(rng)


def low(rng, left, mate):
    return rng.integers((0, SIDE // 2), SIDE - SIZE)


def on_dark(rng, left, mate):
    x = rng.integers(0, 80 - SIZE) if left else rng.integers(120, SIDE - SIZE)
    return np.array([x, rng.integers(0, SIDE - SIZE)])


def world(folder, place, *, images=30, rare=10, colour=(255, 255, 255), mates=False, seed=0, dark=True):
    """Images of which the first `rare` hold one thing each, where `place(rng, left, mate)` says; `mates` lie anywhere."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for n in range(images):
        picture, left = ground(rng, dark=dark)
        mate = any_place(rng)
        spot = place(rng, left, mate)
        entries.append({"id": n + 1, "file_name": f"{n}.png", "width": SIDE, "height": SIDE})
        put = [(2, mate, (60, 60, 200))] if mates else []
        put += [(1, spot, colour)] if n < rare else []
        for category, (x, y), shade in put:
            if shade is not None:
                picture[y : y + SIZE, x : x + SIZE] = shade
            box = [int(x), int(y), SIZE, SIZE]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": n + 1,
                    "category_id": category,
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(folder / "images" / f"{n}.png"), picture.clip(0, 255).astype(np.uint8))
    document = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "mate"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return dataset.load(folder / "annotations.json")


def boxes_at(places):
    corners = np.asarray(places, dtype=float)
    return np.concatenate([corners, corners + SIZE], axis=1)


def auc(good, bad):
    return float((good[:, None] > bad[None]).mean() + (good[:, None] == bad[None]).mean() / 2)


def random_boxes(seed, n=200):
    rng = np.random.default_rng(seed)
    return boxes_at([any_place(rng) for _ in range(n)])


def test_dark_ground_is_learned_from_ten_objects(tmp_path):
    data = world(tmp_path / "w", on_dark)
    context = Context(data)
    good, bad = [], []
    for image in range(10, 30):
        boxes = random_boxes(image)
        left = data.read(image)[:, :80].mean() < 110
        x = (boxes[:, 0] + boxes[:, 2]) / 2
        dark = x < 70 if left else x > 130
        light = x > 95 if left else x < 105
        scores = context.scores("thing", image, boxes)
        good.append(scores[dark])
        bad.append(scores[light])
    good, bad = np.concatenate(good), np.concatenate(bad)
    assert auc(good, bad) > 0.9
    assert good.mean() > bad.mean() + 0.5


def test_the_lower_half_is_learned_from_ten_objects(tmp_path):
    data = world(tmp_path / "w", low, dark=False)
    boxes = random_boxes(1)
    scores = Context(data).scores("thing", 20, boxes)
    middle = boxes[:, [1, 3]].mean(axis=1)
    assert auc(scores[middle > 110], scores[middle < 90]) > 0.9


def near(rng, left, mate):
    while True:
        spot = mate + rng.integers(-34, 35, 2)
        apart = np.abs(spot - mate).max()
        if apart >= SIZE and (spot >= 0).all() and (spot <= SIDE - SIZE).all():
            return spot


def test_things_lie_along_the_lines_around_them_whichever_way_those_run(tmp_path):
    """Every other image has stripes that run up and down, the others across; things are long along their stripes."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    entries, annotations = [], []
    for n in range(30):
        stripes = 130 + 40 * np.sin(np.arange(SIDE) / 4 + rng.uniform(0, 6))
        picture = rng.normal(0, 5, (SIDE, SIDE)) + (stripes[None] if n % 2 else stripes[:, None])
        x, y = rng.integers(0, SIDE - 40, 2).tolist()
        box = [x, y, *((16, 36) if n % 2 else (36, 16))]
        entries.append({"id": n + 1, "file_name": f"{n}.png", "width": SIDE, "height": SIDE})
        if n < 10:
            annotations.append({"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": box, "iscrowd": 0})
        cv2.imwrite(str(tmp_path / "images" / f"{n}.png"), picture.clip(0, 255).astype(np.uint8))
    document = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    context = Context(dataset.load(tmp_path / "annotations.json"))
    corners = rng.integers(0, SIDE - 40, (50, 2)).astype(float)
    upright, level = (np.concatenate([corners, corners + sides], axis=1) for sides in ((16, 36), (36, 16)))
    for n in range(20, 30):
        along, across = (upright, level) if n % 2 else (level, upright)
        assert auc(context.scores("thing", n, along), context.scores("thing", n, across)) > 0.95


def test_company_is_learned_from_ten_objects(tmp_path):
    data = world(tmp_path / "w", near, mates=True, dark=False)
    context = Context(data)
    good, bad = [], []
    for image in range(10, 30):
        mate = data.annotations.boxes[data.rows_in(image)[0]]
        boxes = random_boxes(image, 300)
        apart = np.abs(boxes - mate).max(axis=1)
        scores = context.scores("thing", image, boxes)
        good.append(scores[(apart >= SIZE) & (apart < 34)])
        bad.append(scores[apart > 60])
    assert auc(np.concatenate(good), np.concatenate(bad)) > 0.9


def test_a_world_without_places_of_its_own_gives_no_preference(tmp_path):
    """Ten objects may lie in a row by chance: one world in eight may fool it."""
    invented = []
    for seed in range(8):
        context = Context(world(tmp_path / str(seed), anywhere, mates=True, seed=seed))
        scores = np.concatenate([context.scores("thing", i, random_boxes(i, 50)) for i in range(30)])
        invented.append(np.abs(scores).mean())
    assert np.median(invented) < 0.15
    assert np.mean(invented) < 0.3


def test_the_objects_own_looks_do_not_matter(tmp_path):
    white, none = (
        world(tmp_path / name, on_dark, colour=c) for name, c in (("a", (255, 255, 255)), ("b", None))
    )
    boxes = random_boxes(3)
    one, other = (Context(data).scores("thing", 25, boxes) for data in (white, none))
    assert np.abs(one).max() > 0.5
    np.testing.assert_allclose(one, other, atol=0.02)


def test_a_real_place_has_the_features_of_the_empty_one(tmp_path):
    """To the last digit: nothing of the box reaches into what is measured around it."""

    found = []
    for name, colour in (("a", (0, 255, 0)), ("b", None)):
        data = world(tmp_path / name, on_dark, colour=colour)
        around = Around(data, Surroundings(data), 0, ())
        found.append([around.features(i, data.annotations.boxes[data.rows_in(i)]) for i in range(10)])
    np.testing.assert_array_equal(*map(np.array, found))


def test_images_with_the_right_ground_come_first(tmp_path):
    """Every other image has no dark ground at all."""
    data = world(tmp_path / "w", on_dark)
    for image in range(20, 30):
        light = np.random.default_rng(image).normal(150, 12, (SIDE, SIDE, 3)).astype(np.uint8)
        cv2.imwrite(str(data.image_path(image)), light)
    data = dataset.load(data.path)
    suits = Context(data).images("thing")
    assert suits.shape == (30,)
    assert suits.dtype == np.float64
    assert auc(suits[10:20], suits[20:]) > 0.9


def test_the_same_data_give_the_same_scores_on_any_number_of_threads(tmp_path):
    data = world(tmp_path / "w", on_dark)
    other, context = Context(data), Context(data)
    alone = [other.scores("thing", i, random_boxes(i, 8)) for i in reversed(range(30))][::-1]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: context.scores("thing", i, random_boxes(i, 8)), range(30)))
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(context.images("thing"), Context(data).images("thing"))
    np.testing.assert_array_equal(context.cells(3, random_boxes(0)), Context(data).cells(3, random_boxes(0)))


def test_what_the_cache_kept_equals_what_is_computed(tmp_path):
    data = world(tmp_path / "w", on_dark, images=12)
    first, again, fresh = (Surroundings(data, cache=c) for c in (tmp_path / "c", tmp_path / "c", None))
    kept = list((tmp_path / "c").iterdir())
    assert len(kept) == 2
    for image in range(12):
        for held in (first, again):
            np.testing.assert_array_equal(held.grid(image), fresh.grid(image))
            np.testing.assert_array_equal(held.colours.grid(image), fresh.colours.grid(image))
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
        mended = Surroundings(data, cache=tmp_path / "c")
        np.testing.assert_array_equal(mended.grid(5), fresh.grid(5))
        np.testing.assert_array_equal(mended.colours.grid(5), fresh.colours.grid(5))


def test_the_ground_right_at_the_box_is_learned_from_ten_objects(tmp_path):
    """Things lie between scattered light discs, in gaps hardly wider than the coarse grid's cells."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    side, half = 640, 6
    entries, annotations, gaps, discs = [], [], [], []
    y, x = np.mgrid[:side, :side]
    for n in range(24):
        away = np.full((side, side), 99.0)
        for at in rng.integers(0, side, (260, 2)):
            away = np.minimum(away, np.hypot(x - at[0], y - at[1]) - 14)
        picture = np.where(away < 0, 170, 90) + rng.normal(0, 6, (side, side))
        inside = (np.minimum(x, y) > 20) & (np.maximum(x, y) < side - 20)
        for found, where in ((gaps, (away > 11) & (away < 16)), (discs, (away < 6) & (away > -6))):
            spots = np.argwhere(inside & where)[:, ::-1]
            spots = spots[rng.integers(len(spots), size=20)]
            found.append(np.concatenate([spots - half, spots + half], axis=1).astype(float))
        entries.append({"id": n + 1, "file_name": f"{n}.png", "width": side, "height": side})
        if n < 10:
            box = [*gaps[n][0, :2].tolist(), 2 * half, 2 * half]
            annotations.append({"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": box, "iscrowd": 0})
        cv2.imwrite(str(tmp_path / "images" / f"{n}.png"), picture.clip(0, 255).astype(np.uint8))
    document = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    context = Context(dataset.load(tmp_path / "annotations.json"))
    good, bad = (
        np.concatenate([context.scores("thing", n, boxes[n]) for n in range(10, 24)])
        for boxes in (gaps, discs)
    )
    assert auc(good, bad) > 0.9
    assert good.mean() > bad.mean() + 0.5


def test_sums_of_colours_are_exact_on_the_largest_grid():
    """White pictures, whose squares add up to more than 31 bits hold."""
    frame = Frame.of(2000, 2000).fine
    colours = Colours.of(frame, np.full((frame.rows, frame.columns, 3), 255, np.uint8))
    found = colours.sums.over(np.array([[0, 0, frame.columns, frame.rows], [5, 7, 20, 9]]))
    of_one = np.array([*[255] * 3, *[255**2] * 3, 1])
    np.testing.assert_array_equal(found, np.array([[frame.cells], [30]]) * of_one)
    np.testing.assert_array_equal(colours.mean, 255)


def test_sums_equal_slow_means():
    rng = np.random.default_rng(4)
    frame = Frame.of(50, 31)
    grid = rng.random((frame.rows, frame.columns, 3))
    sums = Sums.of(frame, grid, np.array([[10, 5, 20, 9]]))
    counts = np.ones(grid.shape[:2])
    counts[5:9, 10:20] = 0
    for _ in range(50):
        x1, x2 = np.sort(rng.integers(0, frame.columns + 1, 2))
        y1, y2 = np.sort(rng.integers(0, frame.rows + 1, 2))
        part, n = grid[y1:y2, x1:x2], counts[y1:y2, x1:x2]
        got = sums.over(np.array([[x1, y1, x2, y2]]))[0]
        np.testing.assert_allclose(got, [*(part * n[:, :, None]).sum(axis=(0, 1)), n.sum()], atol=1e-9)
        squares = sums.over(np.array([[x1, y1, x2, y2]]), squares=True)[0]
        np.testing.assert_allclose(squares, (part**2 * n[:, :, None]).sum(axis=(0, 1)), atol=1e-9)


def test_any_kind_of_image_will_do(any_bands):
    data, _ = any_bands
    context = Context(data)
    boxes = np.array([[0, 0, 96, 80], [3.5, 2, 20.25, 30], [95, 79, 96, 80]], dtype=float)
    for category in data.names:  # nothing is named "star"
        assert np.isfinite(context.scores(category, 0, boxes)).all()
        assert np.isfinite(context.images(category)).all()
    assert not context.scores("star", 0, boxes).any()
    cells = context.cells(0, boxes)
    assert cells.dtype == np.int8
    assert (cells >= 0).all()
    assert (cells < [6, 3]).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 300), (5, 4), (3000, 7)])
def test_images_down_to_one_pixel_will_do(tmp_path, size):
    width, height = size
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, width, height], "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    context = Context(dataset.load(tmp_path / "a.json", tmp_path))
    boxes = np.array([[0, 0, width, height], [0, 0, 1, 1]], dtype=float)
    assert np.isfinite(context.scores("thing", 0, boxes)).all()
    assert np.isfinite(context.images("thing")).all()
    assert context.cells(0, boxes).shape == (2, 2)


def test_one_object_is_no_reason_to_be_sure(tmp_path):
    data = world(tmp_path / "w", on_dark, rare=1)
    scores = Context(data).scores("thing", 20, random_boxes(0))
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() < 2


def test_an_unknown_category_is_named(tiny_once):
    with pytest.raises(dataset.DataError, match="did you mean 'disc'"):
        Context(dataset.load(tiny_once)).scores("disk", 0, np.zeros((1, 4)))


def test_thirds_of_light_are_thirds(tmp_path):
    data = world(tmp_path / "w", anywhere, rare=1)
    context = Context(data)
    found = np.concatenate([context.cells(i, random_boxes(i, 50)) for i in range(30)])
    assert np.bincount(found[:, 1]).min() > 0.2 * len(found)
    assert len(np.unique(found[:, 0])) >= 4


def test_clusters_that_lie_apart_are_found():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    x = np.array([[0, 0], [9, 0], [0, 9]])[truth] + rng.normal(0, 0.5, (300, 2))
    kind = nearest(x, k_means(x, 3, rng))
    assert all(len(np.unique(kind[truth == t])) == 1 for t in range(3))
    assert len(np.unique(kind)) == 3


def test_the_ratio_of_two_normals_is_found():
    """log N(x; 1, 1) / N(x; 0, 1) is x - 1/2."""
    rng = np.random.default_rng(0)
    real = np.arange(3000) < 1000
    x = rng.normal(0, 1, 3000) + real
    places = Places(x[:, None], real, rng.integers(0, 50, 3000), np.ones(3000))
    np.testing.assert_allclose(
        fit(places, np.array(["only"]))(np.array([[-1.0], [0.0], [2.0]])), [-1.5, -0.5, 1.5], atol=0.4
    )


def test_one_group_that_tells_is_not_lost_among_others_that_do_not():
    """Twenty real places among 2,000, and sixty features of noise beside the two that count."""
    groups = np.repeat(["telling", *(f"other {n}" for n in range(6))], [2, *[10] * 6])

    def drawn(seed, n_real, n_random, shift):
        rng = np.random.default_rng(seed)
        real = np.arange(n_real + n_random) < n_real
        x = rng.normal(0, 1, (len(real), len(groups)))
        x[real, :2] += shift
        image = np.concatenate([np.arange(n_real) // 2, np.arange(n_random) % 100])
        return x, real, image

    together, telling = [], []
    for seed in range(6):
        x, real, image = drawn(seed, 20, 2000, 1.2)
        seen, truth, _ = drawn(100 + seed, 500, 2000, 1.2)
        for found, use in ((together, groups != ""), (telling, groups == "telling")):
            model = fit(Places(x[:, use], real, image, np.ones(len(real))), groups[use])
            said = model(seen[:, use])
            found.append(auc(said[truth], said[~truth]))
    assert np.mean(together) > np.mean(telling) - 0.05


def test_the_most_frequent_others_have_features_of_their_own(tiny_once):
    data = dataset.load(tiny_once)
    assert frequent(data, data.category_row("square")) == (data.category_row("disc"),)


def test_an_object_is_never_its_own_company():
    own = np.array([[0, 0, 10, 10], [30, 0, 40, 10], [0, 90, 10, 100]], dtype=float)
    itself = company(own, own[:1], np.array([0]))
    np.testing.assert_allclose(itself, company(own[1:], own[:1]))
    np.testing.assert_allclose(itself[0, 0], np.exp(-20 / 10))
    assert not company(own[:1], own[:1], np.array([0])).any()
    assert company(own, own[:1], np.array([-1]))[0, 3] == 1, "all of it is covered by itself"


def test_a_lone_object_does_not_teach_that_company_is_bad(tmp_path):
    """A random place of a lone object's image has no company either: that one object does not count for it."""
    data = world(tmp_path / "w", anywhere)
    around = Around(data, Surroundings(data), 0, ())
    found = places(data, around, Priors(data).of("thing"), "thing")
    assert not found.features[:, COMPANY].any()


def gathered(rng, left, mate):
    return mate


def test_images_without_the_category_are_not_held_against_their_places(tmp_path):
    """Where things stand in pairs, company counts where there is some, and says nothing where there is none."""
    data = world(tmp_path / "w", gathered, dark=False)
    document = json.loads(data.path.read_text())
    for note in list(document["annotations"]):
        x, y, w, h = note["bbox"]
        beside = [x + 30 if x < 100 else x - 30, y, w, h]
        document["annotations"].append(note | {"id": 100 + note["id"], "bbox": beside})
    data.path.write_text(json.dumps(document))
    data = dataset.load(data.path)
    context, boxes = Context(data), random_boxes(2)
    own = data.annotations.boxes[data.rows_in(0)]
    apart = np.abs(boxes - own[0]).max(axis=1)
    here, none = (context.scores("thing", image, boxes) for image in (0, 25))
    assert here[(apart >= SIZE) & (apart < 40)].mean() > here[apart > 100].mean() + 0.5
    assert np.abs(none).mean() < 0.5
