"""Plans: what is asked for is placed as the real data has it, within every limit, the same each time."""

import dataclasses
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarefill import bank
from rarefill.bank import Bank, Exemplar, tight
from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.errors import DataError, LayoutError
from rarefill.geometry import Box, Mask, box_mask, rle_counts
from rarefill.layouts import Plan, Planner
from rarefill.layouts.ignored import regions
from rarefill.layouts.obstacles import APART_PX
from rarefill.layouts.priors import Priors, affinity, perspective
from rarefill.layouts.shortfalls import Shortfall
from rarefill.recipe import LayoutConfig

WIDTH, HEIGHT = 200, 160


def disc(x: float, y: float, radius: float) -> Mask:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    mask = Mask.of(np.hypot(cols - x, rows - y) <= radius)
    assert mask is not None
    return mask


def world(images: int = 20, *, masks: bool = True, crowded: int = 0, path: Path = Path("a.json")) -> Dataset:
    """Images of 200 x 160: a `plate` on each third, `crowded` more `cell` boxes on each; a crowd on image 1."""
    rng = np.random.default_rng(3)
    rows: list[tuple[int, int, Mask, bool]] = []
    for image in range(images):
        if image % 3 == 0:
            rows.append((image, 0, disc(*rng.uniform((40, 40), (160, 120)), rng.uniform(8, 14)), False))
        rows += [
            (image, 1, disc(*rng.uniform((30, 30), (170, 130)), rng.uniform(12, 20)), False)
            for _ in range(1 + crowded)
        ]
    rows.append((1, 1, disc(100, 80, 30), True))
    full = [np.asfortranarray(mask.full(HEIGHT, WIDTH)) for _, _, mask, _ in rows]
    segmentation = [
        json.dumps({"size": [HEIGHT, WIDTH], "counts": rle_counts(f).decode()}).encode() if masks else b""
        for f in full
    ]
    n = len(rows)
    return Dataset(
        path,
        path.parent / "images",
        "coco",
        (Category(4, "plate"), Category(9, "cell"), Category(11, "ghost")),
        Images(
            np.arange(images) * 2 + 5,
            np.full(images, WIDTH, np.int32),
            np.full(images, HEIGHT, np.int32),
            [f"{i:03}.png" for i in range(images)],
        ),
        Annotations(
            np.arange(n) * 3 + 7,
            np.array([r[0] for r in rows], np.int32),
            np.array([r[1] for r in rows], np.int32),
            np.array([r[2].box.xyxy for r in rows], float),
            np.array([float(r[2].area) for r in rows]),
            np.array([r[3] for r in rows]),
            segmentation,
        ),
    )


def shapes(dataset: Dataset) -> Bank:
    found = []
    for row in np.flatnonzero(~dataset.annotations.crowd):
        mask = dataset.mask(int(row)) or box_mask(dataset.box(int(row)))
        assert mask is not None
        image, name = int(dataset.annotations.image[row]), dataset.names[dataset.annotations.category[row]]
        found.append(Exemplar(int(row), image, name, mask, "mask", 1.0, complete=True))
    return Bank(found)


def planner(dataset: Dataset, seed: int = 0, **config) -> Planner:
    return Planner(dataset, shapes(dataset), LayoutConfig(**config), seed=seed)


def facts(plan: Plan) -> list:
    return [
        (
            x.image,
            x.copy,
            [(p.category, p.box, p.seed, p.shape, p.score, p.mask.pixels.tobytes()) for p in x.placements],
        )
        for x in plan.layouts
    ]


def placed(plan: Plan) -> list:
    return [(layout, p) for layout in plan.layouts for p in layout.placements]


def test_a_budget_is_met_to_the_object():
    plan = planner(world()).plan({"plate": 30, "cell": 5})
    assert Counter(p.category for _, p in placed(plan)) == {"plate": 30, "cell": 5}
    assert plan.shortfalls == ()


def test_the_same_inputs_give_the_same_plan_and_another_seed_another():
    data = world()
    first, again, other = (planner(data, seed).plan({"plate": 20}) for seed in (1, 1, 2))
    assert facts(first) == facts(again)
    assert facts(first) != facts(other)


def test_every_image_is_used_once_before_any_is_used_twice():
    plan = planner(world(9), untouched=0.0, per_image=1, home=0).plan({"plate": 9})
    assert sorted(layout.image for layout in plan.layouts) == list(range(9))


def test_no_background_is_used_more_often_than_allowed_and_copies_count_on():
    used = {0: 2, 3: 1}
    plan = planner(world(6), max_reuse=2, per_image=1, untouched=0.0).plan({"plate": 30}, used=used)
    keys = [(layout.image, layout.copy) for layout in plan.layouts]
    assert len(keys) == len(set(keys)) == 6 * 2 - 3
    assert all(image != 0 and copy < 2 for image, copy in keys)
    assert (3, 1) in keys
    assert (3, 0) not in keys


def test_images_that_lost_an_annotation_are_neither_painted_on_nor_copied():
    data = dataclasses.replace(world(6), incomplete=frozenset({0, 1, 2}))
    for config in ({"untouched": 0.5}, {"home": 0, "max_reuse": 30}):
        plan = planner(data, **config).plan({"plate": 20, "cell": 20})
        assert {layout.image for layout in plan.layouts} == {3, 4, 5}
    with pytest.raises(LayoutError, match=r"^13 images asked for, but 3 backgrounds give 12 at most"):
        planner(data, home=0).plan({"plate": 20}, images=13)


def test_objects_of_images_that_lost_an_annotation_still_give_shapes():
    data = dataclasses.replace(world(6), incomplete=frozenset({0, 3}))
    assert len(placed(planner(data).plan({"plate": 5}))) == 5


def test_where_every_image_lost_an_annotation_all_are_used():
    data = dataclasses.replace(world(6), incomplete=frozenset(range(6)))
    assert facts(planner(data).plan({"plate": 9})) == facts(planner(world(6)).plan({"plate": 9}))


def test_scenes_that_hold_the_category_have_their_share():
    plan = planner(world(30), untouched=0.0, per_image=1, home=0.6).plan({"plate": 50})
    at_home = [layout.image % 3 == 0 for layout in plan.layouts]
    for n in range(1, len(at_home)):  # all along, not only in the end
        assert abs(sum(at_home[:n]) - 0.6 * n) <= 1
    uses = Counter(layout.image for layout in plan.layouts)
    assert {uses[image] for image in range(0, 30, 3)} == {3}


def test_scenes_that_hold_the_category_are_used_more_often_unless_a_limit_is_given():
    def most(**config):
        plan = planner(world(6), untouched=0.0, per_image=1, tries=400, **config).plan({"plate": 90})
        uses = Counter(layout.image for layout in plan.layouts)
        return max(uses[i] for i in (0, 3)), max(uses[i] for i in (1, 2, 4, 5))

    assert most() == (20, 4)
    assert most(home=0) == (4, 4)
    assert most(max_reuse=3) == (3, 3)


def test_categories_that_live_in_different_scenes_share_them():
    plan = planner(world(30), untouched=0.0).plan({"plate": 100, "cell": 60})
    keys = [(layout.image, layout.copy) for layout in plan.layouts]
    assert len(set(keys)) == len(keys)
    assert Counter(p.category for _, p in placed(plan)) == {"plate": 100, "cell": 60}


def test_where_most_images_hold_the_category_the_others_are_not_used_up_first():
    plan = planner(world(12), untouched=0.0, per_image=1, home=0.1).plan({"cell": 24})
    assert max(Counter(layout.image for layout in plan.layouts).values()) <= 3


def test_a_budget_beyond_the_backgrounds_ends_with_one_line():
    plan = planner(world(6), max_reuse=1, per_image=1, untouched=0.0).plan({"plate": 30})
    (short,) = plan.shortfalls
    assert (short.asked, short.placed) == (30, 6)
    assert str(short).startswith("placed 6 of 30 'plate' (min 6 px)")
    assert "every background used; lower the count, raise max_reuse" in str(short)


def test_a_budget_that_nothing_can_hold_ends_soon():
    dataset = world(8, crowded=160)
    # Two rounds of places on each: fewer tries may be no more than ten for each object that did find room.
    plan = planner(dataset, max_overlap=0.0, tries=160).plan({"plate": 500})
    (short,) = plan.shortfalls
    assert short.placed < 500
    assert "over an existing object; lower the count or raise max_overlap" in str(short)
    assert sum(short.reasons.values()) > 0


def test_a_category_without_a_real_object_says_so():
    plan = planner(world(4)).plan({"ghost": 3})
    assert plan.layouts == ()
    assert str(plan.shortfalls[0]) == (
        "placed 0 of 3 'ghost': no shape to give it; it needs a real object on another image, no crowd and 3 px or more each way"
    )


def test_a_category_of_dots_or_of_crowds_says_so():
    data = world(4)
    a = data.annotations
    dot = np.concatenate([a.boxes[:, :2], a.boxes[:, :2] + (2.9, 12)], axis=1)
    plates, cells = a.category == 0, a.category == 1
    boxes = np.where(plates[:, None], dot, a.boxes)
    odd = dataclasses.replace(
        data,
        annotations=dataclasses.replace(a, boxes=boxes, crowd=cells, segmentation=[b""] * len(a)),
    )
    plan = Planner(odd, bank.build(odd, odd.names), LayoutConfig(), seed=0).plan({"plate": 3, "cell": 2})
    assert plan.layouts == ()
    assert [str(short) for short in plan.shortfalls] == [
        (
            "placed 0 of 3 'plate': all its real objects are below 3 px; it needs one of 3 px or more each way "
            "to take a shape from; label one, or enlarge the images"
        ),
        "placed 0 of 2 'cell': all its real objects are crowds; it needs a single one to take a shape from; label one",
    ]


def test_a_category_that_only_the_edge_holds_back_is_told_what_helps():
    short = Shortfall("plate", 3, 0, {"over the image's edge": 90})
    assert short.why == (
        "over the image's edge; lower the count, or add images with room for an object of this size"
    )


def test_an_unknown_category_gets_the_nearest_name():
    with pytest.raises(DataError, match="did you mean 'plate'"):
        planner(world(4)).plan({"plat": 3})


def test_a_share_of_the_layouts_stays_untouched_and_takes_unused_images():
    plan = planner(world(40), untouched=0.2, per_image=1).plan({"plate": 16})
    untouched = [layout for layout in plan.layouts if not layout.placements]
    assert len(untouched) == 4
    assert not {x.image for x in untouched} & {layout.image for layout, _ in placed(plan)}
    where = [i for i, layout in enumerate(plan.layouts) if not layout.placements]
    assert where == [2, 7, 12, 17]


def test_a_fixed_number_of_images_shares_the_budget_evenly():
    plan = planner(world(20), untouched=0.1).plan({"plate": 27}, images=10)
    assert [len(layout.placements) for layout in plan.layouts if layout.placements] == [3] * 9
    assert len(plan.layouts) == 10


def test_more_images_than_objects_stay_untouched():
    plan = planner(world(20), untouched=0.1).plan({"plate": 2}, images=12)
    assert sorted(len(layout.placements) for layout in plan.layouts) == [0] * 10 + [1, 1]


def test_as_many_images_as_asked_for_come_where_scenes_hold_the_category():
    plan = planner(world(20)).plan({"plate": 2}, images=150)
    uses = Counter(layout.image for layout in plan.layouts)
    assert sum(uses.values()) == 150
    assert all(n <= (20 if image % 3 == 0 else 4) for image, n in uses.items())


def test_more_images_than_backgrounds_is_refused():
    with pytest.raises(
        LayoutError, match="50 images asked for, but 20 backgrounds give 40 at most; lower images"
    ):
        planner(world(20), max_reuse=2).plan({"plate": 2}, images=50)


def test_an_exemplar_is_never_put_back_where_it_came_from():
    dataset = world(12)
    plan = planner(dataset, max_reuse=8).plan({"plate": 60})
    for layout, p in placed(plan):
        assert dataset.annotations.image[p.shape.annotation] != layout.image


def test_the_only_image_of_a_category_is_no_background_for_it():
    dataset = world(2)  # one plate, on image 0
    plan = planner(dataset, max_reuse=8, untouched=0.0).plan({"plate": 4})
    assert {layout.image for layout in plan.layouts} == {1}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1000),
    overlap=st.sampled_from([0.0, 0.1, 0.4]),
    margin=st.integers(0, 9),
    masks=st.booleans(),
)
def test_placements_keep_every_limit(seed, overlap, margin, masks):
    dataset = world(8, masks=masks, crowded=3)
    plan = planner(dataset, seed, max_overlap=overlap, margin_px=margin).plan({"plate": 10, "cell": 4})
    for layout in plan.layouts:
        mine = [p.mask.full(HEIGHT, WIDTH) for p in layout.placements]
        assert [m.sum() for m in mine] == [p.mask.area for p in layout.placements], "inside the image"
        real = np.zeros((HEIGHT, WIDTH), bool)
        for row in dataset.rows_in(layout.image):
            held = dataset.mask(int(row)) or box_mask(dataset.box(int(row)))
            pixels = held.full(HEIGHT, WIDTH)
            real |= pixels
            assert sum((pixels & m).sum() for m in mine) <= overlap * pixels.sum() + 1e-9
        for i, (p, m) in enumerate(zip(layout.placements, mine, strict=True)):
            assert (real & m).sum() <= overlap * m.sum() + 1e-9
            assert min(p.box.width, p.box.height) >= 6
            for q in layout.placements[:i]:
                apart_x = max(p.box.x1 - q.box.x2, q.box.x1 - p.box.x2)
                apart_y = max(p.box.y1 - q.box.y2, q.box.y1 - p.box.y2)
                assert max(apart_x, apart_y) >= margin + APART_PX


def test_centres_stay_in_the_region_of_interest():
    half = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    plan = planner(world(), region=(half,)).plan({"plate": 20})
    assert all(p.box.center[0] <= WIDTH / 2 for _, p in placed(plan))


def test_a_region_that_crosses_itself_is_refused():
    with pytest.raises(LayoutError, match=r"layout.region\[0\]: Self-intersection.*in order"):
        planner(world(4), region=(((0, 0), (1, 1), (1, 0), (0, 1)),))


def test_a_smallest_size_is_kept_but_never_above_the_category_s_own():
    dataset = world()
    least = Priors(dataset).of("plate").least_px
    plan = planner(dataset, min_px=1000.0).plan({"plate": 10})
    assert all(min(p.box.width, p.box.height) >= least for _, p in placed(plan))


def test_what_must_not_be_mirrored_is_not():
    plan = planner(world(), no_mirror=("cell",)).plan({"cell": 40, "plate": 20})
    flipped = {
        name: {p.shape.flip for _, p in placed(plan) if p.category == name} for name in ("cell", "plate")
    }
    assert flipped == {"cell": {False}, "plate": {False, True}}


def test_sizes_and_aspects_are_the_category_s_own():
    dataset = world(60)
    plan = planner(dataset, max_reuse=10).plan({"plate": 200})
    sizes = np.array([np.sqrt(p.box.area) for _, p in placed(plan)])
    real = np.sqrt(dataset.annotations.area[dataset.rows_of("plate")] * 4 / np.pi)
    assert abs(np.log(np.median(sizes) / np.median(real))) < 0.1
    assert (sizes < 1.7 * real.max()).all()
    assert (sizes > 0.5 * real.min()).all()


def test_a_refused_placement_moves_elsewhere_the_same_way_in_any_thread():
    dataset = world(crowded=1)
    made = planner(dataset)
    jobs = [(x, 0, a) for x in made.plan({"plate": 12}).layouts if x.placements for a in (1, 2)]
    alone = [planner(dataset).elsewhere(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: made.elsewhere(*job), jobs))
    for (layout, index, _), one, other in zip(jobs, alone, together, strict=True):
        assert (one is None) == (other is None)
        if one is None:
            continue
        assert (one.box, one.seed, one.shape) == (other.box, other.seed, other.shape)
        assert one.box != layout.placements[index].box
        for i, p in enumerate(layout.placements):
            assert i == index or p.mask.overlap_px(one.mask) == 0


def test_regions_to_ignore_are_left_alone(tmp_path):
    path = tmp_path / "a.json"
    ignore = [[0, 0, WIDTH, HEIGHT]]
    path.write_text(
        json.dumps({"images": [{"id": 5 + 2 * i, "ignore": ignore if i else []} for i in range(4)]})
    )
    dataset = world(4, path=path)
    assert sorted(regions(dataset)) == [1, 2, 3]
    plan = planner(dataset, untouched=0.0, tries=20).plan({"cell": 8})
    assert {layout.image for layout in plan.layouts} <= {0}


def test_a_microscope_has_no_perspective_and_a_road_has():
    rng = np.random.default_rng(0)
    n = 3000
    kind, image = rng.integers(0, 3, n).astype(np.int32), rng.integers(0, 200, n).astype(np.int32)
    middle, size = rng.uniform(0.1, 0.9, n), rng.normal(0, 0.3, n) + kind
    foot = middle + 0.02 * np.exp(size)  # larger objects reach further down by themselves
    assert abs(perspective(size, foot, middle, kind, image)) < 0.1
    assert abs(perspective(size + 2 * middle, foot, middle, kind, image) - 2) < 0.4
    assert perspective(size[:5], foot[:5], middle[:5], kind[:5], image[:5]) == 0


def test_a_category_with_one_box_borrows_places_from_all():
    dataset = world(3)
    prior = Priors(dataset).of("plate")
    assert len(prior.own) == 1
    draws = prior.draw(np.random.default_rng(0), 500, WIDTH, HEIGHT, 0.15)
    assert draws.x.std() > 15
    assert np.abs(draws.log_size - prior.own.log_size[0]).max() < 0.4 + 5 * 0.15


def test_images_that_look_like_the_category_s_world_come_first():
    held = np.zeros((40, 4), bool)
    held[:20, 1] = held[20:, 2] = True  # streets, then kitchens
    held[:6, 0] = True  # signs stand in streets
    suits = affinity(held, 0)
    assert suits[:20].min() > 3 * suits[20:].max()
    alike = np.ones((40, 2), bool)
    alike[20:, 0] = False
    assert np.allclose(affinity(alike, 0), 1)


def test_a_box_over_a_whole_image_leaves_no_place():
    dataset = world(4)
    dataset.annotations.boxes[dataset.rows_in(1)[0]] = Box(0, 0, WIDTH, HEIGHT).xyxy
    plain = Dataset(
        dataset.path,
        dataset.root,
        "coco",
        dataset.categories,
        dataset.images,
        Annotations(
            *(
                getattr(dataset.annotations, name)
                for name in ("id", "image", "category", "boxes", "area", "crowd")
            ),
            segmentation=[b""] * len(dataset.annotations),
        ),
    )
    plan = Planner(plain, shapes(dataset), LayoutConfig(tries=30), seed=0).plan({"plate": 6})
    assert 1 not in {layout.image for layout, _ in placed(plan)}


def test_planned_objects_are_as_large_as_real_ones_whose_labels_hold_air() -> None:
    data, air = world(60), (0.2, 0.2, 0.2, 0.2)
    found = [dataclasses.replace(e, mask=box_mask(tight(e.mask.box, air))) for e in shapes(data).of("plate")]
    made = Planner(data, Bank(found, {"plate": air}), LayoutConfig(), seed=1).plan({"plate": 60})
    sizes = [np.sqrt(p.mask.box.area) for layout in made.layouts for p in layout.placements]
    real = [np.sqrt(e.mask.box.area) for e in found]
    assert len(sizes) == 60
    assert abs(np.log(np.median(sizes) / np.median(real))) < 0.08
