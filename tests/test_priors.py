"""Priors: what is drawn follows the density that is told, and few boxes borrow where many do not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import qmc

from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.layouts.boxes import Prior
from rarefill.layouts.densities import LEVELS, Kernels, alike, folded, reflected, weighed
from rarefill.layouts.habits import company
from rarefill.layouts.priors import Priors

WIDTH, HEIGHT = 300, 200


def dataset(
    boxes, image, category, *, width=WIDTH, height=HEIGHT, above=("", "", ""), images=None
) -> Dataset:
    """Boxes float (n, 4) of `rare`, `one` and `other` on images of one size or of a size each."""
    n, count = len(boxes), images or int(np.max(image)) + 1
    return Dataset(
        Path("a.json"),
        Path("images"),
        "coco",
        tuple(Category(i + 1, name, above[i]) for i, name in enumerate(("rare", "one", "other"))),
        Images(
            np.arange(count),
            np.broadcast_to(np.int32(width), count),
            np.broadcast_to(np.int32(height), count),
            [f"{i}.png" for i in range(count)],
        ),
        Annotations(
            np.arange(n),
            np.asarray(image, np.int32),
            np.asarray(category, np.int32),
            np.asarray(boxes, float),
            np.ones(n),
            np.zeros(n, bool),
            [b""] * n,
        ),
    )


def scattered(rng, n, size=20.0, spread=0.3, *, left=0.0, right=1.0) -> np.ndarray:
    """Boxes float (n, 4) whose free places are uniform between left and right."""
    log_size, log_aspect = rng.normal(np.log(size), spread, n), rng.normal(0.2, 0.2, n)
    w, h = np.exp(log_size + log_aspect / 2), np.exp(log_size - log_aspect / 2)
    x, y = 2 + rng.uniform(left, right, n) * (WIDTH - w - 4), 2 + rng.random(n) * (HEIGHT - h - 4)
    return np.stack([x, y, x + w, y + h], axis=1)


def mixed(rare: int = 10, seed: int = 0, **kinds) -> Dataset:
    """Few boxes of `rare` on the left; `one` is like it, `other` is large and on the right."""
    rng = np.random.default_rng(seed)
    boxes = [
        scattered(rng, rare, right=0.4),
        scattered(rng, 80, 25, right=0.4),
        scattered(rng, 80, 60, left=0.6),
    ]
    image = np.concatenate([np.arange(len(b)) % 40 for b in boxes])
    category = np.repeat([0, 1, 2], [len(b) for b in boxes])
    return dataset(np.concatenate(boxes), image, category, **kinds)


def told(prior: Prior, draws, jitter=None, width=WIDTH, height=HEIGHT):
    return prior.log_density(draws.log_size, draws.log_aspect, draws.x, draws.foot, width, height, jitter)


def spread_boxes(prior: Prior):
    """Columns spread evenly over all that can be drawn, and the room that they fill."""
    low, high = prior.bounds
    aspects = prior.form.columns[1]
    bottom, top = aspects.min() - 1, aspects.max() + 1
    u = qmc.Sobol(4, rng=0).random(2**14).T
    columns = low + u[0] * (high - low), bottom + u[1] * (top - bottom), u[2] * WIDTH, u[3] * HEIGHT
    return columns, (high - low) * (top - bottom)


WORLDS = {
    "few": mixed(10),
    "one": mixed(1),
    "many": mixed(120),
    "alone": dataset(scattered(np.random.default_rng(1), 12, 50), np.arange(12), np.zeros(12)),
}


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("jitter", [None, 0.15])
def test_a_density_adds_up_to_one(name, jitter):
    prior = Priors(WORLDS[name]).of("rare")
    columns, room = spread_boxes(prior)
    assert abs(np.exp(prior.log_density(*columns, WIDTH, HEIGHT, jitter)).mean() * room - 1) < 0.04


@pytest.mark.parametrize("name", WORLDS)
def test_boxes_are_drawn_as_their_density_says(name):
    prior = Priors(WORLDS[name]).of("rare")
    draws = prior.draw(np.random.default_rng(0), 4000, WIDTH, HEIGHT, None)
    columns, room = spread_boxes(prior)
    density = np.exp(prior.log_density(*columns, WIDTH, HEIGHT)) * room
    weight = density / density.sum()
    drawn = np.stack([draws.log_size, draws.log_aspect, draws.x, draws.foot])
    for values, expected in zip(drawn, columns, strict=True):
        for cut in np.quantile(values, [0.1, 0.3, 0.5, 0.7, 0.9]):
            assert abs((values < cut).mean() - weight @ (expected < cut)) < 0.05
    # The mean log of the density at the draws is the entropy's negative, which the density itself tells.
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = weight @ np.where(density > 0, np.log(density / room), 0.0)
    assert abs(told(prior, draws).mean() - entropy) < 0.25


def test_every_box_lies_inside_its_image_and_near_the_sizes_known():
    prior = Priors(mixed(10)).of("rare")
    d = prior.draw(np.random.default_rng(0), 5000, WIDTH, HEIGHT, None)
    w, h = np.exp(d.log_size + d.log_aspect / 2), np.exp(d.log_size - d.log_aspect / 2)
    assert (d.x - w / 2 > -1e-6).all()
    assert (d.x + w / 2 < WIDTH + 1e-6).all()
    assert (d.foot - h > -1e-6).all()
    assert (d.foot < HEIGHT + 1e-6).all()
    low, high = prior.bounds
    assert low <= d.log_size.min() <= d.log_size.max() <= high
    assert 0.4 <= high - prior.own.log_size.max() <= 1.0
    assert np.isfinite(told(prior, d)).all()


def test_the_more_boxes_a_category_has_the_less_it_borrows():
    # All its boxes stand in two narrow columns where nothing else stands, in two sizes that nothing else has.
    def own(n: int) -> tuple[float, float]:
        rng = np.random.default_rng(n)
        rare = scattered(rng, n, 8, 0.03)
        x = np.where(rng.random(n) < 0.5, 0.3, 0.7) * WIDTH + rng.normal(0, 2, n)
        large = rng.random(n) < 0.5
        sides = np.stack([np.where(large, 30, 8), np.where(large, 24, 9)], axis=1) * rng.normal(
            1, 0.02, (n, 2)
        )
        rare[:, 0], rare[:, 2] = x, x + sides[:, 0]
        rare[:, 3] = np.minimum(rare[:, 1] + sides[:, 1], HEIGHT - 2)
        others = scattered(rng, 400, 40)
        image = np.concatenate([np.arange(n) % 200, np.arange(400) % 200])
        prior = Priors(
            dataset(np.concatenate([rare, others]), image, np.repeat([0, 1], [n, 400]), images=200)
        ).of("rare")
        return float(prior.form.levels[0]), float(prior.place.levels[0])

    few, some, many = (own(n) for n in (2, 12, 400))
    for i in (0, 1):
        assert few[i] < some[i] < many[i]
        assert few[i] < 0.45
        assert many[i] > 0.75


def test_a_category_borrows_the_places_of_one_that_is_like_it():
    prior = Priors(mixed(10)).of("rare")
    assert prior.place.levels[LEVELS.index("similar")] > prior.place.levels[LEVELS.index("pool")]
    draws = prior.draw(np.random.default_rng(0), 4000, WIDTH, HEIGHT, None)
    assert (draws.x < WIDTH / 2).mean() > 0.8


def test_a_supercategory_lends_where_the_file_tells_several_apart():
    apart = Priors(mixed(10, above=("kin", "kin", "far"))).of("rare")
    assert apart.form.levels[1] > 0
    assert apart.place.levels[1] > 0
    for above in (("", "", ""), ("all", "all", "all"), ("mine", "far", "far")):
        prior = Priors(mixed(10, above=above)).of("rare")
        assert prior.form.levels[1] == prior.place.levels[1] == 0


def test_borrowed_sizes_are_moved_to_the_category_s_own():
    prior = Priors(mixed(10)).of("rare")
    draws = prior.draw(np.random.default_rng(0), 4000, WIDTH, HEIGHT, None)
    assert abs(np.median(draws.log_size) - np.median(prior.own.log_size)) < 0.15


def test_boxes_not_seen_are_likelier_than_by_their_own_ten_alone():
    train, test = mixed(10, seed=0), mixed(200, seed=5)
    prior = Priors(train).of("rare")
    unseen = Priors(test).of("rare").own
    x, y = (unseen.feet * (WIDTH, HEIGHT)).T

    def mean(p: Prior) -> float:
        return float(
            np.maximum(p.log_density(unseen.log_size, unseen.log_aspect, x, y, WIDTH, HEIGHT), -30).mean()
        )

    def alone(kernels: Kernels) -> Kernels:
        n = len(prior.own)
        weights = np.full(n, 1 / n)
        return dataclasses.replace(
            kernels, columns=kernels.columns[:, :n], weights=weights, ends=np.cumsum(weights)
        )

    assert mean(prior) > mean(
        dataclasses.replace(prior, form=alone(prior.form), place=alone(prior.place), tied=1.0)
    )


def test_a_number_for_the_jitter_sets_the_deviation():
    prior = Priors(mixed(1)).of("rare")
    exact = prior.draw(np.random.default_rng(0), 500, WIDTH, HEIGHT, 0.0)
    wide = prior.draw(np.random.default_rng(0), 500, WIDTH, HEIGHT, 0.5)
    assert wide.log_aspect.std() > exact.log_aspect.std() + 0.2
    assert np.isin(exact.log_aspect, prior.form.columns[1]).all()


def test_the_same_stream_gives_the_same_boxes():
    a, b = (
        Priors(mixed(10)).of("rare").draw(np.random.default_rng(4), 50, WIDTH, HEIGHT, None) for _ in range(2)
    )
    for name in ("log_size", "log_aspect", "x", "foot"):
        assert (getattr(a, name) == getattr(b, name)).all()


def test_chance_has_no_perspective_and_a_road_has_one_in_draws_and_density():
    rng = np.random.default_rng(2)
    boxes = scattered(rng, 400, 10, 0.1)
    image, category = np.arange(400) % 80, np.arange(400) % 2
    assert Priors(dataset(boxes, image, category)).slope == 0
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    grown = (boxes - np.tile(middle, 2)) * np.exp(1.5 * (middle[:, 1:] / HEIGHT - 0.5))
    boxes = np.clip(grown + np.tile(middle, 2), 2, np.tile((WIDTH - 2, HEIGHT - 2), 2))
    priors = Priors(dataset(boxes, image, category))
    assert abs(priors.slope - 1.5) < 0.4
    prior = priors.of("rare")
    d = prior.draw(rng, 4000, WIDTH, HEIGHT, None)
    assert np.corrcoef(d.log_size, d.foot)[0, 1] > 0.7
    far, near = (
        prior.log_density(np.log([s]), np.zeros(1), np.array([150.0]), np.array([180.0]), WIDTH, HEIGHT)
        for s in (6.0, 18.0)
    )
    assert near > far + 2
    columns, room = spread_boxes(prior)
    assert abs(np.exp(prior.log_density(*columns, WIDTH, HEIGHT)).mean() * room - 1) < 0.1


def test_sizes_follow_the_image_s_where_they_do_in_the_data():
    rng = np.random.default_rng(0)
    scale = np.tile([1.0, 2.0, 4.0], 20)
    boxes = scattered(rng, 60, 20, 0.1) * scale[:, None]
    width, height = (np.round(v * scale).astype(np.int32) for v in (WIDTH, HEIGHT))
    prior = Priors(dataset(boxes, np.arange(60), np.zeros(60), width=width, height=height)).of("rare")
    assert prior.relative
    small, large = (prior.draw(np.random.default_rng(1), 500, WIDTH * k, HEIGHT * k, None) for k in (1, 4))
    assert np.allclose(large.log_size - small.log_size, np.log(4))
    # The density is per share of the image: the same box in a larger image is as likely.
    assert np.allclose(told(prior, small), told(prior, large, width=4 * WIDTH, height=4 * HEIGHT))


ODD = {
    "dots": (np.tile([[10.0, 10, 11, 11]], (5, 1)) + np.arange(5)[:, None], np.arange(5)),
    "identical": (np.tile([[10.0, 10, 40, 30]], (6, 1)), np.arange(6)),
    "one image": (scattered(np.random.default_rng(0), 8), np.zeros(8)),
    "one box": (np.array([[50.0, 60, 80, 90]]), np.zeros(1)),
    "whole image": (np.tile([[0.0, 0, WIDTH, HEIGHT]], (3, 1)), np.arange(3)),
    "thin": (np.tile([[2.0, 50, WIDTH - 2, 51]], (3, 1)), np.arange(3)),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("scale", [1, 300])
def test_odd_boxes_still_have_a_density(name, scale):
    boxes, image = ODD[name]
    width, height = WIDTH * scale, HEIGHT * scale
    data = dataset(boxes * scale, image, np.zeros(len(boxes)), width=width, height=height)
    prior = Priors(data).of("rare")
    draws = prior.draw(np.random.default_rng(0), 200, width, height, None)
    density = prior.log_density(draws.log_size, draws.log_aspect, draws.x, draws.foot, width, height)
    assert np.isfinite(density).all()
    own = prior.own
    x, y = (own.feet * (width, height)).T
    assert np.isfinite(prior.log_density(own.log_size, own.log_aspect, x, y, width, height)).all()
    assert prior.form.levels.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="no box of 'one'"):
        Priors(data).of("one")


def test_folding_throws_back_at_both_ends():
    values = np.array([-0.1, 0.3, 1.1, 2.2, -1.4])
    assert np.allclose(folded(values, 0, 1), [0.1, 0.3, 0.9, 0.2, 0.6])
    grid = (np.arange(1000) + 0.5) / 1000
    about, width = np.array([0.02, 0.5, 0.9, 0.5]), np.array([0.1, 0.05, 0.6, 3.0])
    density = reflected(grid[:, None], about, width, 0.0, 1.0)
    assert np.allclose(density.mean(axis=0), 1, atol=2e-3)
    drawn = folded(0.9 + 0.6 * np.random.default_rng(0).standard_normal(100_000), 0, 1)
    assert (
        np.abs(np.histogram(drawn, 10, (0, 1), density=True)[0] - density[:, 2].reshape(10, -1).mean(1)).max()
        < 0.05
    )


def test_weights_go_to_what_explains_the_points_and_never_to_what_is_absent():
    densities = np.tile([[1.0, 4.0, 9.0]], (50, 1))
    shares, _ = weighed(densities, np.array([1.0, 1.0, 0.0]))
    assert shares[1] > 0.9
    assert shares[2] == 0
    none, _ = weighed(np.zeros((3, 2)), np.array([1.0, 3.0]))
    assert np.allclose(none, [0.25, 0.75])


def test_a_category_is_most_like_itself():
    mean, variance = np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0]]), np.ones((3, 2))
    near = alike(mean, variance, 0)
    assert near[0] == 1
    assert near[1] > 0.99
    assert near[2] < 0.5


def test_shares_of_cut_off_boxes_are_shrunk_to_those_of_all():
    rng = np.random.default_rng(0)
    boxes = scattered(rng, 102)
    boxes[:50, 0] = 0.0  # half of `one`'s
    data = dataset(boxes, np.arange(102), np.repeat([1, 0], [100, 2]))
    priors = Priors(data)
    assert 0 < priors.of("rare").habits.truncated < 0.4
    assert abs(priors.of("one").habits.truncated - 0.5) < 0.02


def test_half_of_the_boxes_that_lie_on_each_other_are_taken_to_stand_behind():
    first = np.array([[50.0, 50, 90, 90]])
    pair = np.concatenate([first, first + 20])
    boxes = np.tile(pair, (40, 1))
    data = dataset(boxes, np.repeat(np.arange(40), 2), np.zeros(80))
    habits = Priors(data).of("rare").habits
    assert habits.occluded == pytest.approx(0.5, abs=0.01)
    assert habits.hidden == pytest.approx(0.25, abs=0.02)


def masked(masks: list[np.ndarray], image: list[int]) -> Dataset:
    """Objects of `rare` with masks, as polygons of their pixels' runs."""
    import json

    from rarefill.geometry import rle_counts

    boxes, raw = [], []
    for mask in masks:
        ys, xs = ndimage.find_objects(mask.astype(int))[0]
        boxes.append([xs.start, ys.start, xs.stop, ys.stop])
        counts = rle_counts(np.asfortranarray(mask)).decode()
        raw.append(json.dumps({"size": list(mask.shape), "counts": counts}).encode())
    plain = dataset(np.array(boxes), image, np.zeros(len(boxes)))
    return dataclasses.replace(plain, annotations=dataclasses.replace(plain.annotations, segmentation=raw))


def test_masks_tell_which_object_is_in_front_and_which_do_not_touch():
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    disc = np.hypot(cols - 100, rows - 100) < 40
    post = (np.abs(cols - 100) < 8) & (rows > 30) & (rows < 180)
    behind = masked([post, disc & ~post] * 20, [i // 2 for i in range(40)])
    habits = Priors(behind).of("rare").habits
    assert habits.occluded == pytest.approx(0.5, abs=0.01)
    assert habits.hidden == pytest.approx((disc & post).sum() / disc.sum(), abs=0.05)
    corners = [
        (rows > 20) & (cols > 20) & (rows + cols < 140),
        (rows < 110) & (cols < 90) & (rows + cols > 150),
    ]
    alone = masked(corners * 20, [i // 2 for i in range(40)])
    assert Priors(alone).of("rare").habits.occluded == 0


def clustered(rng, images: int, *, near: bool) -> tuple[np.ndarray, np.ndarray]:
    """Four boxes of about 10 px on each image, side by side or anywhere."""
    boxes = scattered(rng, 4 * images, 10, 0.1)
    if near:
        steps = np.tile([[0.0, 0], [14, 0], [28, 0], [42, 0]], (images, 2))
        boxes = boxes[::4].repeat(4, axis=0) * (0.8, 1, 0.8, 1) + steps
    return boxes, np.repeat(np.arange(images), 4)


def test_what_stands_together_is_told_from_what_stands_anywhere():
    size = np.full(30, WIDTH, np.int32), np.full(30, HEIGHT, np.int32)
    rng = np.random.default_rng(0)
    neighbour, gathered, pairs = company(*clustered(rng, 30, near=True), *size)
    assert neighbour < 0.5
    assert gathered > 0.5
    assert pairs is not None
    assert pairs.shape == (120, 3)
    neighbour, gathered, _ = company(*clustered(rng, 30, near=False), *size)
    assert 0.8 < neighbour < 1.25
    assert gathered < 0.1


def test_neighbours_stand_as_real_ones_do_and_fewer_than_eight_pairs_are_none():
    boxes, image = clustered(np.random.default_rng(0), 20, near=True)
    prior = Priors(dataset(boxes, image, np.zeros(len(boxes)))).of("rare")
    rng = np.random.default_rng(1)
    at = prior.draw(rng, 1, WIDTH, HEIGHT, None)
    mates = prior.near(rng, 300, at, WIDTH, HEIGHT)
    assert mates is not None
    side = np.exp(at.log_size[0])
    assert np.median(np.abs(mates.x - at.x)) < 2.5 * side
    assert np.median(np.abs(mates.foot - at.foot)) < side
    assert np.isfinite(told(prior, mates)).all()
    assert (mates.foot <= HEIGHT + 1e-6).all()
    few = Priors(dataset(boxes[:4], image[:4], np.zeros(4))).of("rare")
    assert few.near(rng, 3, at, WIDTH, HEIGHT) is None
