"""No plan breaks a limit, whatever the scene; and what the recipe asks of a plan shows in it."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarefill.bank import Bank, Exemplar, visible
from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.geometry import Box, Mask, box_mask, from_rle, rle_counts
from rarefill.layouts import Plan, Planner
from rarefill.layouts.obstacles import APART_PX
from rarefill.layouts.placing import UNLIKELY
from rarefill.recipe import LayoutConfig
from rarefill.scene import Layout, Placement

NAMES = ("blob", "bar", "dot", "cut", "hidden", "crowd")
SIZES = ((96, 80), (140, 44), (64, 120), (11, 9), (1, 1))
L_SHAPE = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.4), (0.4, 0.4), (0.4, 1.0), (0.0, 1.0))
RING = (  # a square with a square hole: a polygon that goes around it
    ((0.05, 0.05), (0.95, 0.05), (0.95, 0.3), (0.05, 0.3)),
    ((0.05, 0.7), (0.95, 0.7), (0.95, 0.95), (0.05, 0.95)),
    ((0.05, 0.3), (0.3, 0.3), (0.3, 0.7), (0.05, 0.7)),
    ((0.7, 0.3), (0.95, 0.3), (0.95, 0.7), (0.7, 0.7)),
)
REGIONS = ((), (L_SHAPE,), RING, (((0.0, 0.0), (0.01, 0.0), (0.0, 0.01)),))

Row = tuple[int, str, Mask, bool]


def ellipse(x: float, y: float, across: float, down: float, width: int, height: int) -> Mask:
    rows, cols = np.mgrid[:height, :width] + 0.5
    mask = Mask.of(((cols - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1)
    return mask or Mask(min(int(x), width - 1), min(int(y), height - 1), np.ones((1, 1), bool))


def dataset(sizes: list[tuple[int, int]], rows: list[Row], *, masks: bool) -> Dataset:
    segmentation = []
    for image, _, mask, _ in rows:
        width, height = sizes[image]
        counts = rle_counts(mask.full(height, width)).decode()
        segmentation.append(json.dumps({"size": [height, width], "counts": counts}).encode())
    n, frame = len(rows), np.array(sizes, np.int32).reshape(-1, 2)
    return Dataset(
        Path("odd.json"),
        Path(),
        "coco",
        tuple(Category(i + 1, name) for i, name in enumerate(NAMES)),
        Images(np.arange(len(sizes)) + 1, frame[:, 0], frame[:, 1], [f"{i}.png" for i in range(len(sizes))]),
        Annotations(
            np.arange(n) + 1,
            np.array([r[0] for r in rows], np.int32),
            np.array([NAMES.index(r[1]) for r in rows], np.int32),
            np.array([r[2].box.xyxy for r in rows], float).reshape(-1, 4),
            np.array([float(r[2].area) for r in rows]),
            np.array([r[3] for r in rows], bool),
            segmentation if masks else [b""] * n,
        ),
    )


def scene(seed: int, *, full: bool, masks: bool) -> Dataset:
    """Images from one pixel to a few thousand, with objects that are always cut, always hidden, dots and crowds."""
    rng = np.random.default_rng(seed)
    sizes = [SIZES[i] for i in rng.integers(len(SIZES), size=rng.integers(2, 8))]
    sizes[0] = SIZES[0]
    rows: list[Row] = []
    for image, (w, h) in enumerate(sizes):
        if full and image % 2:
            rows.append((image, "blob", Mask(0, 0, np.ones((h, w), bool)), False))
        for name in rng.choice(NAMES, size=rng.integers(0, 9)).tolist():
            x, y, size = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(3, 11)
            across, down = {"bar": (size, 1.5), "dot": (0.4, 0.4)}.get(name, (size, size))
            x = 0 if name == "cut" else x
            mask = ellipse(x, y, across, down, w, h)
            rows.append((image, name, mask, name == "crowd"))
            if name == "hidden" and mask.pixels.shape[1] > 2:  # another one stands over its right half
                over = ellipse(x + size * 0.8, y, size, size, w, h)
                left = mask.minus(over)
                rows[-1] = (image, name, left or mask, False)
                rows.append((image, "blob", over, False))
    return dataset(sizes, rows, masks=masks)


def shapes(data: Dataset) -> Bank:
    found, a = [], data.annotations
    for row in np.flatnonzero(~a.crowd & (a.boxes[:, 2:] - a.boxes[:, :2] >= 3).all(axis=1)).tolist():
        mask = data.mask(row) or box_mask(data.box(row))
        image = int(a.image[row])
        edges = (
            *a.boxes[row, :2],
            *((data.images.width[image], data.images.height[image]) - a.boxes[row, 2:]),
        )
        complete = bool(min(edges) >= 1)
        found.append(Exemplar(row, image, data.names[a.category[row]], mask, "mask", 1.0, complete))
    return Bank(found)


def check(data: Dataset, known: Bank, config: LayoutConfig, budget: dict[str, int], plan: Plan) -> None:
    """Every limit, the slow and obvious way."""
    keys = [(layout.image, layout.copy) for layout in plan.layouts]
    assert len(keys) == len(set(keys))
    for layout in plan.layouts:
        held = {data.names[c] for c in data.annotations.category[data.annotations.image == layout.image]}
        most = config.max_reuse or (20 if held & set(budget) else 4)
        assert layout.copy < most
    placed = Counter(p.category for layout in plan.layouts for p in layout.placements)
    for name, asked in budget.items():
        assert placed[name] <= asked
        lacks = [s for s in plan.shortfalls if s.category == name]
        assert len(lacks) == (placed[name] < asked)
        assert all((s.asked, s.placed) == (asked, placed[name]) for s in lacks)
        assert all(s.reasons and "; " in str(s) for s in lacks)
    for layout in plan.layouts:
        assert len(layout.placements) <= (config.per_image or 1_000_000)
        check_layout(data, known, config, layout)


def check_layout(data: Dataset, known: Bank, config: LayoutConfig, layout: Layout) -> None:
    w, h = int(data.images.width[layout.image]), int(data.images.height[layout.image])
    real = [data.mask(row) or box_mask(data.box(row)) for row in data.rows_in(layout.image).tolist()]
    taken, painted = np.zeros((h, w), bool), np.zeros((h, w), bool)
    for mask in real:
        taken[part(mask)] |= mask.pixels
    for p in layout.placements:
        assert p.mask.clipped(w, h) is p.mask, "inside the image"
        painted[part(p.mask)] |= p.mask.pixels
    for mask in real:
        covered = (painted[part(mask)] & mask.pixels).sum()
        assert covered <= config.max_overlap * mask.area + 1e-9, "a real object is covered"
    for i, p in enumerate(layout.placements):
        assert (p.mask.pixels & taken[part(p.mask)]).sum() <= config.max_overlap * p.mask.area + 1e-9
        check_shown(data, known, config, p, layout.image)
        if p.spared is not None:
            assert p.mask.overlap_px(p.spared) == 0
            assert not (p.spared.pixels & ~taken[part(p.spared)]).any(), "only what is there is spared"
        x, y = p.box.center
        assert not config.region or any(inside(x / w, y / h, corners) for corners in config.region)
        for q in layout.placements[:i]:
            apart_x = max(p.box.x1 - q.box.x2, q.box.x1 - p.box.x2)
            apart_y = max(p.box.y1 - q.box.y2, q.box.y1 - p.box.y2)
            assert max(apart_x, apart_y) >= config.margin_px + APART_PX


def part(mask: Mask) -> tuple[slice, slice]:
    h, w = mask.pixels.shape
    return slice(mask.y, mask.y + h), slice(mask.x, mask.x + w)


def check_shown(data: Dataset, known: Bank, config: LayoutConfig, p: Placement, image: int) -> None:
    """A placement's mask is what shows of its silhouette; what is partly shown is cut or hidden."""
    w, h = int(data.images.width[image]), int(data.images.height[image])
    boxes = data.annotations.boxes[data.rows_of(p.category)]
    assert min(p.box.width, p.box.height) >= min(config.min_px, float((boxes[:, 2:] - boxes[:, :2]).min()))
    exemplar = known.at(p.shape.annotation)
    assert exemplar.image != image
    assert exemplar.category == p.category
    shown = visible(exemplar.mask, p.shape, p.whole or p.box, w, h, p.spared)
    assert shown is not None
    mask, whole = shown
    # Drawn anew into its tight box, the thinnest silhouette may end a pixel sooner.
    assert np.abs(np.subtract(mask.box.xyxy, p.box.xyxy)).max() <= 1
    if p.whole is not None:
        assert (mask.box, whole) == (p.box, p.whole)
        assert np.array_equal(mask.pixels, p.mask.pixels)
        assert config.habits == "on"
        beyond = min(p.whole.x1, p.whole.y1, w - p.whole.x2, h - p.whole.y2) < 0
        assert beyond != (p.spared is not None), "cut, or hidden"


def inside(x: float, y: float, corners: tuple[tuple[float, float], ...]) -> bool:
    """By crossings of a ray to the right; a point on an edge is inside."""
    odd = False
    for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], corners[0]), strict=True):
        along = (x - x1) * (y2 - y1) - (y - y1) * (x2 - x1)
        if abs(along) < 1e-9 and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
            return True
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            odd = not odd
    return odd


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_plan_breaks_a_limit(data):
    draw = data.draw
    world = scene(draw(st.integers(0, 10_000)), full=draw(st.booleans()), masks=draw(st.booleans()))
    config = LayoutConfig(
        max_overlap=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        margin_px=draw(st.integers(0, 6)),
        min_px=draw(st.sampled_from([1.0, 6.0, 50.0])),
        max_reuse=draw(st.integers(1, 3)),
        per_image=draw(st.sampled_from([None, 1, 4])),
        region=draw(st.sampled_from(REGIONS)),
        habits=draw(st.sampled_from(["on", "on", "off"])),
        explore=draw(st.sampled_from([0.0, 0.5, 1.0])),
        jitter=draw(st.sampled_from([None, 0.0, 0.5])),
        untouched=draw(st.sampled_from([0.0, 0.3])),
        tries=draw(st.sampled_from([1, 30, 90])),
    )
    known = shapes(world)
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    budget = {name: draw(st.sampled_from([1, 5, 25])) for name in names}
    made = Planner(world, known, config, seed=draw(st.integers(0, 99)))
    plan = made.plan(budget)
    check(world, known, config, budget, plan)
    for layout in plan.layouts[:3]:  # a retry keeps to the same rules
        for i, p in enumerate(layout.placements[:2]):
            moved = made.elsewhere(layout, i, 1)
            if moved is not None:
                others = list(layout.placements)
                others[i] = moved
                assert moved.category == p.category
                check_layout(world, known, config, dataclasses.replace(layout, placements=tuple(others)))


def grid(n: int, *, masks: bool = True) -> Dataset:
    """One image with n x n small blobs but for a clearing in the middle, and one with bars."""
    side, blob = 16 * n, ellipse(6, 6, 5, 5, 12, 12)
    rows = [
        (0, "blob", blob.shifted(16 * (i % n), 16 * (i // n)), False)
        for i in range(n * n)
        if max(abs(i % n - n // 2), abs(i // n - n // 2)) > 3
    ]
    rows += [(1, "bar", ellipse(30 + 9 * i, 20 + 7 * i, 9, 4, 200, 150), False) for i in range(4)]
    return dataset([(side, side), (200, 150)], rows, masks=masks)


@pytest.mark.parametrize("masks", [True, False])
def test_a_thousand_objects_in_one_image_leave_what_room_there_is(masks):
    data = grid(32, masks=masks)
    known, config = shapes(data), LayoutConfig(max_reuse=2, untouched=0.0, max_overlap=0.05)
    budget = {"bar": 12}
    check(data, known, config, budget, Planner(data, known, config, seed=1).plan(budget))


def test_a_thousand_objects_are_planned_on_one_image():
    data = dataset(
        [(900, 900), (100, 80)],
        [(1, "blob", ellipse(20 + 15 * i, 40, 6, 6, 100, 80), False) for i in range(4)],
        masks=True,
    )
    known = shapes(data)
    config = LayoutConfig(per_image=1500, max_reuse=1, untouched=0.0, habits="off")
    plan = Planner(data, known, config, seed=0).plan({"blob": 1000}, images=1)
    check(data, known, config, {"blob": 1000}, plan)
    assert sum(len(layout.placements) for layout in plan.layouts) > 200


def test_a_budget_that_cannot_be_met_ends_with_reasons_for_each_category():
    data = scene(4, full=False, masks=True)
    config = LayoutConfig(region=REGIONS[3], tries=40, max_reuse=2)
    plan = Planner(data, shapes(data), config, seed=0).plan({"blob": 900, "bar": 900, "dot": 5})
    assert {s.category for s in plan.shortfalls} == {"blob", "bar", "dot"}
    assert all(s.placed < s.asked and s.why for s in plan.shortfalls)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), full=st.booleans())
def test_masks_are_the_data_s_own_however_they_are_read(seed, full):
    data = scene(seed, full=full, masks=True)
    for row in range(len(data.annotations)):
        raw = bytes(data.annotations.segmentation[row])
        if raw[:1] != b"{":
            continue
        value = json.loads(raw)
        one, other = data.mask(row), Mask.of(from_rle(value["counts"], *value["size"]))
        assert one.box == other.box
        assert np.array_equal(one.pixels, other.pixels)


# What the recipe asks of a plan.


def town(n: int = 30, seed: int = 0, **habits: bool) -> Dataset:
    """Images of 200 x 150 with blobs; some cut by the left edge, in clusters, or in the right half alone."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    size = (500, 400) if habits.get("clusters") else (200, 150)
    for image in range(n):
        x, y = rng.uniform(30, 170), rng.uniform(30, 120)
        if habits.get("clusters"):
            x, y = rng.uniform(30, 450), rng.uniform(30, 350)
            rows += [
                (image, "blob", ellipse(x + dx, y + dy, 6, 6, *size), False)
                for dx, dy in ((0, 0), (34, 3), (-3, 32))
            ]
            continue
        if habits.get("right"):
            x = rng.uniform(130, 180)
        cut = bool(habits.get("cut")) and image % 2 == 0
        radius = rng.uniform(8, 12)
        rows.append((image, "blob", ellipse(0 if cut else x, y, radius, radius, *size), False))
    return dataset([size] * n, rows, masks=True)


def planned(data: Dataset, n: int, *, context: object = None, **config: object) -> list[Placement]:
    wide = {"max_reuse": 20, "untouched": 0.0, **config}
    planner = Planner(data, shapes(data), LayoutConfig(**wide), seed=5, context=context)
    return [p for layout in planner.plan({"blob": n}).layouts for p in layout.placements]


def test_objects_are_cut_as_often_as_real_ones_and_never_where_habits_are_off():
    data = town(60, cut=True)
    on, off = planned(data, 200), planned(data, 200, habits="off")
    assert 0.35 < np.mean([p.whole is not None for p in on]) < 0.65
    assert all(p.whole is None and p.spared is None for p in off)
    left = [p for p in on if p.whole is not None and p.whole.x1 < 0]
    assert len(left) > 0.7 * sum(p.whole is not None for p in on), "at the edge that cuts real ones"


def test_whole_objects_are_rarely_cut():
    assert np.mean([p.whole is not None for p in planned(town(60), 150)]) < 0.1


def test_a_category_that_comes_in_clusters_is_planned_in_clusters():
    def nearest(data: Dataset, **config: object) -> float:
        planner = Planner(
            data, shapes(data), LayoutConfig(untouched=0.0, per_image=3, margin_px=0, **config), seed=5
        )
        apart = []
        for layout in planner.plan({"blob": 90}, images=30).layouts:
            at = np.array([p.box.center for p in layout.placements])
            if len(at) > 1:
                away = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
                np.fill_diagonal(away, np.inf)
                apart += away.min(axis=1).tolist()
        return float(np.median(apart))

    data = town(40, clusters=True)
    assert nearest(data) < 0.8 * nearest(data, habits="off")


def test_objects_stand_behind_real_ones_where_their_kind_does():
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for image in range(20):
        for _ in range(6):
            x, y = rng.uniform(40, 160), rng.uniform(30, 120)
            over = ellipse(x + 10, y, 9, 9, 200, 150)
            behind = ellipse(x, y, 10, 10, 200, 150).minus(over)
            # The label's box is the whole one's: people know what is hidden.
            rows += [(image, "blob", behind, False), (image, "bar", over, False)]
    data = dataset([(200, 150)] * 20, rows, masks=True)
    boxes = data.annotations.boxes.copy()
    boxes[::2, 2] += 6
    data = dataclasses.replace(data, annotations=dataclasses.replace(data.annotations, boxes=boxes))
    hidden = [p for p in planned(data, 80) if p.spared is not None]
    assert len(hidden) > 8
    assert all(p.whole is not None and p.mask.overlap_px(p.spared) == 0 for p in hidden)


class Sided:
    """A context that knows one thing: the category belongs to the left half. Its odds are as given."""

    def __init__(self, data: Dataset, odds: float) -> None:
        self._data, self._odds = data, odds

    def scores(self, _category: str, _image: int, boxes: np.ndarray) -> np.ndarray:
        return np.where(boxes[:, [0, 2]].mean(axis=1) < 100, self._odds, -self._odds)

    def wanted(self, category: str, image: int, boxes: np.ndarray, _axes: np.ndarray, _t: float) -> tuple:
        return self.scores(category, image, boxes), np.zeros(len(boxes))

    def images(self, _category: str) -> np.ndarray:
        return np.zeros(len(self._data.images))

    def cells(self, _image: int, boxes: np.ndarray) -> np.ndarray:
        return np.zeros((len(boxes), 2), np.int8)


def test_context_moves_objects_and_temperature_lets_them_stray():
    data = town(30)

    def left(**options: object) -> float:
        return float(np.mean([p.box.center[0] < 100 for p in planned(data, 120, **options)]))

    without, cold, hot = left(), *(left(context=Sided(data, 0.9), temperature=t) for t in (0.3, 10.0))
    assert 0.3 < without < 0.7
    assert cold > 0.95
    assert cold > hot + 0.2
    assert hot < without + 0.2


def test_a_context_that_tells_no_image_apart_leaves_the_choice_to_what_they_hold():
    data = scene(5, full=False, masks=True)
    known, config = shapes(data), LayoutConfig(max_reuse=3, untouched=0.0, habits="off", tries=1000)
    orders = [
        [layout.image for layout in Planner(data, known, config, seed=0, context=c).stream({"blob": 6})]
        for c in (None, Sided(data, 0.0))
    ]
    assert orders[0]
    assert orders[0] == orders[1]


def test_a_context_that_likes_no_place_ends_in_a_clear_line():
    data = town(12)
    known = shapes(data)

    class Never(Sided):
        def scores(self, _category: str, _image: int, boxes: np.ndarray) -> np.ndarray:
            return np.full(len(boxes), -20.0)

    made = Planner(data, known, LayoutConfig(), seed=0, context=Never(data, 0)).plan({"blob": 30})
    (short,) = made.shortfalls
    assert short.placed == 0
    assert set(short.reasons) & {UNLIKELY}
    assert "an unlikely place; lower the count, raise temperature, or say context: off" in str(short)
    warm = LayoutConfig(temperature=20)
    assert not Planner(data, known, warm, seed=0, context=Never(data, 0)).plan({"blob": 30}).shortfalls


def test_exploring_fills_more_of_the_plausible_places():
    data = town(12, right=True)
    known, gained = shapes(data), []
    for seed in range(3):
        after = {}
        for explore in (0.0, 1.0):
            config = LayoutConfig(explore=explore, untouched=0.0, max_reuse=10, jitter=0.3)
            made = Planner(data, known, config, seed=seed).plan({"blob": 40}).covered["blob"]
            assert made.before <= made.after
            after[explore] = made.after
        gained.append(after[1.0] - after[0.0])
    assert min(gained) > 0
    assert np.mean(gained) > 0.05


def test_no_place_of_a_background_is_used_twice():
    data = town(3)
    boxes: dict[int, list[Box]] = {}
    planner = Planner(data, shapes(data), LayoutConfig(max_reuse=12, untouched=0.0), seed=0)
    again = n = 0
    for layout in planner.plan({"blob": 30}).layouts:
        for p in layout.placements:
            used = boxes.setdefault(layout.image, [])
            again += any(q.clipped(200, 150) and iou(p.box, q) > 0.6 for q in used)
            n += 1
            used.append(p.box)
    assert again <= 0.1 * n


def iou(a: Box, b: Box) -> float:
    wide, high = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    common = max(wide, 0) * max(high, 0)
    return common / (a.area + b.area - common)


def test_a_stream_is_the_plan_less_the_untouched():
    data = town(20)
    budget, config = {"blob": 60}, LayoutConfig(max_reuse=8, untouched=0.2)

    def facts(layouts: object) -> list:
        return [
            (x.image, x.copy, [(p.box, p.seed, p.shape, p.mask.pixels.tobytes()) for p in x.placements])
            for x in layouts
        ]

    plan = Planner(data, shapes(data), config, seed=3).plan(budget)
    stream = Planner(data, shapes(data), config, seed=3).stream(budget)
    assert facts(stream) == [fact for fact in facts(plan.layouts) if fact[2]]
