"""What becomes of labels when something is painted over them."""

import dataclasses

import cv2
import msgspec
import numpy as np
import pytest

from rarefill import geometry
from rarefill.annotators import labels, measure
from rarefill.annotators.unchecked import Unchecked
from rarefill.bank import Bank
from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.geometry import Box, Mask
from rarefill.recipe import CheckerConfig
from rarefill.scene import Layout, Paint, Placement, Reason, Render, Verdict

WIDTH, HEIGHT = 60, 40
CONFIG = CheckerConfig(checker="none", min_visible=0.25)


def rectangle(x1: int, y1: int, x2: int, y2: int) -> Mask:
    return Mask(x1, y1, np.ones((y2 - y1, x2 - x1), dtype=bool))


def make(tmp_path, boxes, masks=None, crowd=()) -> Dataset:
    """One black image with boxes, and masks where there are any."""
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    n = len(boxes)
    segmentation = [
        b""
        if mask is None
        else msgspec.json.encode(
            {
                "size": [HEIGHT, WIDTH],
                "counts": geometry.rle_counts(mask.full(HEIGHT, WIDTH)).decode(),
            }
        )
        for mask in masks or [None] * n
    ]
    return Dataset(
        tmp_path / "annotations.json",
        tmp_path,
        "coco",
        (Category(1, "cell"),),
        Images(np.array([1]), np.array([WIDTH], np.int32), np.array([HEIGHT], np.int32), ["0.png"]),
        Annotations(
            np.arange(n),
            np.zeros(n, np.int32),
            np.zeros(n, np.int32),
            np.array(boxes, dtype=float),
            np.ones(n),
            np.isin(np.arange(n), crowd),
            segmentation,
        ),
    )


def paint(*masks: Mask | None, depths=None, how=None) -> Render:
    """The black image with each mask painted white."""
    background = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels = background.copy()
    for mask in masks:
        if mask is not None:
            pixels[mask.full(HEIGHT, WIDTH)] = 255
    placements = tuple(
        Placement("cell", mask or rectangle(0, 0, 1, 1), depth=depth)
        for mask, depth in zip(masks, depths or range(len(masks)), strict=True)
    )
    paints = tuple(Paint(i, mask, mask, "paste", how or {}) for i, mask in enumerate(masks))
    return Render(Layout(0, 0, placements), background, pixels, paints)


def remeasured(dataset: Dataset, render: Render, config: CheckerConfig = CONFIG):
    todo = tuple(range(len(render.paints)))
    (verdicts,) = Unchecked(Bank([]), CONFIG).check([render], [todo])
    return labels.remeasure(dataset, render, verdicts, config)


def test_what_paint_does_not_reach_keeps_the_files_exact_label(tmp_path):
    dataset = make(tmp_path, [[3.25, 4.5, 12.75, 13.5]])
    (real, _), dropped = remeasured(dataset, paint(rectangle(30, 10, 40, 20)))
    assert real.box.xyxy == (3.25, 4.5, 12.75, 13.5)
    assert (real.annotation, real.changed, real.mask, dropped) == (0, False, None, ())


def test_an_untouched_object_keeps_its_mask(tmp_path):
    own = rectangle(3, 4, 12, 13)
    dataset = make(tmp_path, [[3, 4, 12, 13]], [own])
    (real, _), _ = remeasured(dataset, paint(rectangle(30, 10, 40, 20)))
    assert not real.changed
    assert geometry.mask_iou(real.mask, own) == 1


def test_paint_in_the_middle_leaves_a_hole_in_a_mask_and_the_box_as_it_is(tmp_path):
    dataset = make(tmp_path, [[2.5, 2.5, 22.5, 22.5]], [rectangle(2, 2, 23, 23)])
    (real, _), dropped = remeasured(dataset, paint(rectangle(8, 8, 14, 14)))
    assert real.box.xyxy == (2.5, 2.5, 22.5, 22.5)
    assert real.changed
    assert real.mask.area == 21 * 21 - 36
    assert dropped == ()


def test_paint_in_the_middle_of_a_box_changes_nothing(tmp_path):
    dataset = make(tmp_path, [[2.0, 2.0, 22.0, 22.0]])
    (real, _), _ = remeasured(dataset, paint(rectangle(8, 8, 14, 14)))
    assert (real.box.xyxy, real.changed) == ((2.0, 2.0, 22.0, 22.0), False)


def test_a_covered_strip_moves_only_its_own_side(tmp_path):
    dataset = make(tmp_path, [[2.3, 2.4, 22.2, 12.4]])
    (real, _), _ = remeasured(dataset, paint(rectangle(16, 0, 30, 20)))
    assert real.box.xyxy == (2.3, 2.4, 16, 12.4)
    assert real.changed


def test_a_strip_that_is_covered_in_part_moves_no_side(tmp_path):
    dataset = make(tmp_path, [[2, 2, 22, 12]])
    (real, _), _ = remeasured(dataset, paint(rectangle(16, 0, 30, 6)))
    assert (real.box.xyxy, real.changed) == ((2, 2, 22, 12), False)


@pytest.mark.parametrize("masks", [None, [rectangle(2, 2, 22, 12)]], ids=["a box", "a mask"])
def test_an_object_that_hardly_shows_is_dropped_with_its_share(tmp_path, masks):
    dataset = make(tmp_path, [[2, 2, 22, 12]], masks)
    (only,), dropped = remeasured(dataset, paint(rectangle(6, 0, 40, 20)))
    assert only.annotation is None
    assert dropped == ((0, 0.2),)


@pytest.mark.parametrize("masks", [None, [rectangle(2, 2, 22, 12)]], ids=["a box", "a mask"])
def test_an_object_that_is_wholly_hidden_is_dropped(tmp_path, masks):
    dataset = make(tmp_path, [[2, 2, 22, 12]], masks)
    assert remeasured(dataset, paint(rectangle(0, 0, 40, 20)))[1] == ((0, 0.0),)


def test_a_crowd_stays_as_it_is(tmp_path):
    crowd = rectangle(2, 2, 42, 22)
    dataset = make(tmp_path, [[2, 2, 42, 22]], [crowd], crowd=[0])
    (real, _), _ = remeasured(dataset, paint(rectangle(10, 5, 30, 30)))
    assert real.crowd
    assert not real.changed
    assert geometry.mask_iou(real.mask, crowd) == 1


def test_a_box_smaller_than_a_pixel_is_hidden_like_any_other(tmp_path):
    dataset = make(tmp_path, [[5.6, 5.6, 6.4, 6.4], [45.6, 5.6, 46.4, 6.4]])
    (real, _), dropped = remeasured(dataset, paint(rectangle(0, 0, 20, 20)))
    assert real.box.xyxy == (45.6, 5.6, 46.4, 6.4)
    assert dropped == ((0, 0.0),)


def test_a_painted_object_loses_what_a_later_one_hides(tmp_path):
    dataset = make(tmp_path, [[50, 30, 55, 35]])
    render = paint(rectangle(5, 5, 25, 15), rectangle(15, 0, 40, 20))
    (_, behind, front), _ = remeasured(dataset, render)
    assert behind.box.xyxy == (5, 5, 15, 15)
    assert front.box.xyxy == (15, 0, 40, 20)


def test_a_painted_object_that_a_later_one_nearly_hides_is_no_object(tmp_path):
    dataset = make(tmp_path, [[50, 30, 55, 35]])
    render = paint(rectangle(5, 5, 25, 15), rectangle(9, 0, 40, 20))
    (verdicts,) = Unchecked(Bank([]), CONFIG).check([render], [(0, 1)])
    assert [v.reason for v in verdicts] == [Reason.HIDDEN, Reason.UNCHECKED]
    (_, front), _ = labels.remeasure(dataset, render, verdicts, CONFIG)
    assert front.box.xyxy == (9, 0, 40, 20)


@pytest.mark.parametrize("reason", [Reason.ACCEPTED, Reason.UNCHECKED])
def test_what_is_painted_in_front_after_the_check_takes_the_label_away(tmp_path, reason):
    dataset = make(tmp_path, [[50, 30, 55, 35]])
    whole, front = rectangle(5, 5, 25, 15), rectangle(9, 0, 40, 20)
    early = Verdict(0, reason, box=Box(4, 4, 26, 16), mask=whole)
    late = Verdict(1, reason, box=front.box, mask=front)
    (_, only), _ = labels.remeasure(dataset, paint(whole, front), [early, late], CONFIG)
    assert only.box == front.box


def test_what_is_painted_in_front_after_the_check_moves_only_the_side_that_it_hides(tmp_path):
    dataset = make(tmp_path, [[50, 30, 55, 35]])
    whole, front = rectangle(5, 5, 25, 15), rectangle(15, 0, 40, 20)
    early = Verdict(0, Reason.ACCEPTED, box=Box(4, 4, 26, 16), mask=whole)
    late = Verdict(1, Reason.ACCEPTED, box=front.box, mask=front)
    (_, behind, _), _ = labels.remeasure(dataset, paint(whole, front), [early, late], CONFIG)
    assert behind.box.xyxy == (4, 4, 15, 16)
    assert behind.mask.area == 100


def test_only_what_was_judged_has_a_score(tmp_path):
    dataset = make(tmp_path, [[50, 30, 55, 35]])
    render = paint(rectangle(5, 5, 15, 15), rectangle(20, 5, 30, 15))
    verdicts = [Verdict(0, Reason.UNCHECKED, score=0.0), Verdict(1, Reason.ACCEPTED, score=0.8)]
    (_, trusted, judged), _ = labels.remeasure(dataset, render, verdicts, CONFIG)
    assert (trusted.score, judged.score) == (None, 0.8)


def test_depth_says_what_is_in_front_before_order_does(tmp_path):
    render = paint(rectangle(5, 5, 25, 15), rectangle(15, 0, 40, 20), depths=[3, 1])
    assert measure.in_front(render, 0) == []
    assert measure.in_front(render, 1) == [0]


def test_what_was_refused_hides_nothing(tmp_path):
    dataset = make(tmp_path, [[2, 2, 22, 12]])
    render = paint(rectangle(0, 0, 40, 20))
    refused = Verdict(0, Reason.NOT_FOUND)
    (real,), dropped = labels.remeasure(dataset, render, [refused], CONFIG)
    assert (real.annotation, real.changed, dropped) == (0, False, ())


def test_a_painted_object_carries_its_record(tmp_path):
    dataset = make(tmp_path, [[50, 30, 55, 35]])
    render = paint(rectangle(5, 5, 25, 15), how={"blend": "hard"})
    verdict = Verdict(0, Reason.ACCEPTED, score=0.8, threshold=0.4, overlap=0.9, asked_overlap=0.95)
    (_, painted), _ = labels.remeasure(dataset, render, [verdict], CONFIG)
    assert painted.score == 0.8
    assert painted.how == {
        "blend": "hard",
        "generator": "paste",
        "verdict": "accepted",
        "threshold": 0.4,
        "overlap": 0.9,
        "asked_overlap": 0.95,
    }


def test_half_of_a_mask_that_changed_no_pixel_is_no_object(tmp_path):
    whole = rectangle(10, 10, 30, 20)
    render = paint(whole)
    render.pixels[:, :20] = render.background[:, :20]
    assert measure.painted(render, 0).box == Box(20, 10, 30, 20)


def test_pixels_in_the_backgrounds_own_colour_belong_to_the_object(tmp_path):
    whole = rectangle(10, 10, 30, 20)
    render = paint(whole)
    render.pixels[12:16, 14:20] = render.background[12:16, 14:20]
    assert measure.painted(render, 0).area == whole.area


def test_paint_without_a_trace_is_not_painted():
    render = paint(rectangle(10, 10, 30, 20))
    still = dataclasses.replace(render, pixels=render.background.copy())
    (verdicts,) = Unchecked(Bank([]), CONFIG).check([still], [(0,)])
    assert [v.reason for v in verdicts] == [Reason.NOT_PAINTED]


def test_the_checker_that_trusts_the_paint_measures_it():
    (verdicts,) = Unchecked(Bank([]), CONFIG).check([paint(rectangle(10, 10, 30, 20), None)], [(0, 1)])
    assert [v.reason for v in verdicts] == [Reason.UNCHECKED, Reason.NOT_PAINTED]
    assert verdicts[0].box == Box(10, 10, 30, 20)
    assert verdicts[0].asked_overlap == 1


def test_an_object_wholly_behind_another_is_hidden():
    render = paint(rectangle(10, 10, 20, 20), rectangle(5, 5, 30, 30))
    (verdicts,) = Unchecked(Bank([]), CONFIG).check([render], [(0, 1)])
    assert [v.reason for v in verdicts] == [Reason.HIDDEN, Reason.UNCHECKED]


def behind(render: Render, spared: Mask) -> Render:
    """The same, its only object planned behind something whose pixels these are."""
    placement = dataclasses.replace(render.layout.placements[0], spared=spared, whole=Box(10, 5, 40, 25))
    return dataclasses.replace(render, layout=Layout(0, 0, (placement,)))


def test_an_object_planned_behind_a_real_one_hides_none_of_its_box(tmp_path):
    dataset = make(tmp_path, [[2, 2, 22, 22]])
    corners = rectangle(18, 4, 40, 24)  # reaches into the box, where the real object's own pixels leave room
    in_front = remeasured(dataset, paint(corners))[0][0]
    assert in_front.box.x2 == 22  # a strip that is covered in part moves no side
    covering = rectangle(14, 0, 40, 30)
    assert remeasured(dataset, paint(covering))[0][0].box.x2 == 14
    real = remeasured(dataset, behind(paint(covering), rectangle(2, 2, 14, 22)))[0][0]
    assert (real.box.x2, real.changed) == (22, False)


def test_an_object_behind_one_real_object_still_hides_another(tmp_path):
    dataset = make(tmp_path, [[2, 2, 22, 22], [30, 2, 50, 22]])
    render = behind(paint(rectangle(14, 0, 40, 30)), rectangle(2, 2, 14, 22))
    (first, second, _), _ = remeasured(dataset, render)
    assert (first.changed, second.changed) == (False, True)
    assert second.box.x1 == 40


def test_what_hides_a_mask_is_what_was_painted_over_it(tmp_path):
    dataset = make(tmp_path, [[2, 2, 22, 22]], [rectangle(2, 2, 22, 22)])
    render = behind(paint(rectangle(14, 0, 40, 30)), rectangle(2, 2, 14, 22))
    (real, _), _ = remeasured(dataset, render)
    assert real.box.x2 == 14
