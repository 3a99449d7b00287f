"""The shape bank: silhouettes from masks, cut out of boxes, kept from run to run."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import make_tiny
from gallery import SHAPES
from hypothesis import given, settings
from hypothesis import strategies as st

from rarefill import bank, cutouts, dataset, exemplar_cutting, warp
from rarefill.geometry import Box, Mask, mask_iou
from rarefill.scene import Shape


@pytest.fixture(scope="module")
def boxes_only(tmp_path_factory):
    return dataset.load(make_tiny(tmp_path_factory.mktemp("boxes") / "tiny", masks=False))


@pytest.fixture(scope="module")
def with_masks(tiny_once):
    return dataset.load(tiny_once)


def test_masks_of_the_data_are_taken_as_they_are(with_masks) -> None:
    shapes = bank.build(with_masks, ["disc", "square"])
    for category in ("disc", "square"):
        for e in shapes.of(category):
            mask = with_masks.mask(e.annotation)
            assert mask is not None
            assert (e.source, e.mask.box, e.mask.area) == ("mask", mask.box, mask.area)


def test_exemplars_come_in_the_order_of_the_annotations(with_masks) -> None:
    rows = [e.annotation for e in bank.build(with_masks, ["disc"]).of("disc")]
    assert rows == sorted(rows)
    assert rows == with_masks.rows_of("disc").tolist()


def test_a_disc_is_cut_out_of_its_box(boxes_only, with_masks) -> None:
    shapes = bank.build(boxes_only, ["disc"])
    overlaps = []
    for e in shapes.of("disc"):
        true = with_masks.mask(e.annotation)
        assert true is not None
        overlaps.append(mask_iou(e.mask, true))
        assert e.source == "cut"
    assert len(overlaps) > 20
    assert np.median(overlaps) > 0.9


def test_a_box_around_nothing_gets_a_rounded_box_of_low_quality(tmp_path) -> None:
    data = dataset.load(make_tiny(tmp_path / "tiny", masks=False))
    rng = np.random.default_rng(0)
    for image in range(len(data.images)):
        noise = rng.normal(90, 6, (80, 96, 3)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(data.image_path(image)), noise)
    held = [e for e in bank.build(data, ["disc"]).of("disc") if e.source == "box"]
    assert len(held) > 15
    assert all(e.quality < cutouts.FAIR for e in held)


def test_untrusted_masks_are_left_alone_when_there_are_three_good_ones(boxes_only) -> None:
    good = bank.build(boxes_only, ["disc"]).of("disc")[:3]
    bad = [replace(e, annotation=e.annotation + 1000, source="box", quality=0.1) for e in good]
    assert bank.Bank([*good, *bad]).of("disc") == good
    assert len(bank.Bank([*good[:2], *bad]).of("disc")) == 5
    assert bank.Bank([*good, *bad]).at(bad[0].annotation) is bad[0]


def test_fair_cut_outs_count_only_where_good_ones_are_few(with_masks) -> None:
    some = bank.build(with_masks, ["disc"]).of("disc")[:20]
    assert len(some) == 20
    qualities = np.linspace(cutouts.FAIR, 1, 20)
    fair = [
        replace(e, source="cut", quality=float(q), complete=True)
        for e, q in zip(some, qualities, strict=True)
    ]
    few = bank.Bank(fair).of("disc")
    assert [e.annotation for e in few] == [e.annotation for e in fair[20 - bank.ENOUGH :]]
    better = [replace(e, quality=max(e.quality, cutouts.GOOD)) if i > 3 else e for i, e in enumerate(fair)]
    assert len(bank.Bank(better).of("disc")) == 16
    assert len(bank.Bank(fair[:5]).of("disc")) == 5


def test_a_category_without_objects_has_no_exemplars(with_masks) -> None:
    shapes = bank.build(with_masks, ["star"])
    assert shapes.of("star") == ()
    with pytest.raises(KeyError):
        shapes.at(0)


def test_objects_at_the_edge_are_not_complete(with_masks) -> None:
    e = bank.build(with_masks, ["disc"]).of("disc")[0]
    x1, y1, x2, y2 = with_masks.annotations.boxes[e.annotation]
    assert e.complete == (x1 >= 1 and y1 >= 1 and x2 <= 95 and y2 <= 79)


def test_shapes_are_cut_once_and_kept(boxes_only, tmp_path, monkeypatch) -> None:
    first = bank.build(boxes_only, ["disc"], cache=tmp_path)
    monkeypatch.setattr(cutouts, "cut", lambda *_: pytest.fail("cut again"))
    again = bank.build(boxes_only, ["disc"], cache=tmp_path)
    for a, b in zip(first.of("disc"), again.of("disc"), strict=True):
        assert (a.annotation, a.source, a.quality, a.complete) == (
            b.annotation,
            b.source,
            b.quality,
            b.complete,
        )
        assert np.array_equal(a.mask.pixels, b.mask.pixels)
        assert a.mask.box == b.mask.box


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_torn_cache_file_is_made_again(boxes_only, tmp_path, share) -> None:
    whole = bank.build(boxes_only, ["square"], cache=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    again = bank.build(boxes_only, ["square"], cache=tmp_path)
    assert [e.annotation for e in again.of("square")] == [e.annotation for e in whole.of("square")]
    assert path.read_bytes() == data


def test_slack_is_how_loosely_boxes_are_drawn(boxes_only) -> None:
    loose_boxes = boxes_only.annotations.boxes.copy()
    sides = loose_boxes[:, 2:] - loose_boxes[:, :2]
    loose_boxes[:, :2] = np.maximum(loose_boxes[:, :2] - 0.25 * sides, 0)
    loose_boxes[:, 2:] = np.minimum(loose_boxes[:, 2:] + 0.25 * sides, (96, 80))
    data = replace(boxes_only, annotations=replace(boxes_only.annotations, boxes=loose_boxes))
    slack = bank.build(data, ["disc"]).slack("disc")
    assert slack == pytest.approx((1 / 6,) * 4, abs=0.04)
    # A pixel of the smallest discs is 0.053 of their side.
    assert bank.build(boxes_only, ["disc"]).slack("disc") == pytest.approx((0.0,) * 4, abs=0.06)


def test_tight_and_loose_are_each_others_way_back() -> None:
    slack = (0.1, 0.2, 0.15, 0.05)
    box = Box(10, 20, 50, 90)
    assert bank.tight(bank.loose(box, slack), slack).xyxy == pytest.approx(box.xyxy)


@pytest.mark.parametrize("name", SHAPES)
def test_a_silhouette_left_as_it_is_is_the_same_mask(name) -> None:
    mask = Mask.of(SHAPES[name])
    assert mask is not None
    placed = bank.silhouette(mask, Shape(0), mask.box.clipped(1000, 1000) or mask.box)
    assert placed.box == mask.box
    assert np.array_equal(placed.pixels, mask.pixels)


def test_a_flipped_silhouette_is_mirrored() -> None:
    mask = Mask(0, 0, np.array([[1, 1, 1], [1, 0, 0]], dtype=bool))
    assert np.array_equal(bank.silhouette(mask, Shape(0, flip=True), mask.box).pixels, mask.pixels[:, ::-1])


def test_a_quarter_turn_is_clockwise() -> None:
    mask = Mask(0, 0, np.array([[1, 1, 1], [1, 0, 0]], dtype=bool))
    turned = bank.silhouette(mask, Shape(0, rotation_deg=90), Box(0, 0, 2, 3))
    assert np.array_equal(turned.pixels, np.rot90(mask.pixels, -1))
    assert warp.turned_size(mask, Shape(0, rotation_deg=90)) == pytest.approx((2, 3))


@given(angle=st.floats(-180, 180), flip=st.booleans(), width=st.integers(1, 60), height=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_silhouette_fills_its_box_to_within_a_pixel_or_two(angle, flip, width, height) -> None:
    rows, cols = np.mgrid[:40, :24]
    mask = Mask.of(((cols - 11.5) / 12) ** 2 + ((rows - 19.5) / 20) ** 2 <= 1)
    assert mask is not None
    placed = bank.silhouette(mask, Shape(0, flip, angle), Box(5, 7, 5 + width, 7 + height)).box
    assert Box(5, 7, 5 + width, 7 + height).clipped(placed.x2, placed.y2) is not None
    assert placed.x1 >= 5
    assert placed.y1 >= 7
    assert placed.x2 <= 5 + width
    assert placed.y2 <= 7 + height
    assert width - placed.width <= max(2, 0.1 * width)
    assert height - placed.height <= max(2, 0.1 * height)


def test_shrinking_averages_instead_of_dropping_rows() -> None:
    stripes = np.zeros((64, 64), np.float32)
    stripes[::2] = 1
    small = warp.resample(stripes, warp.Map(np.array([[0.125, 0, 0], [0, 0.125, 0]])), 8, 8)
    assert small[1:-1, 1:-1] == pytest.approx(0.5, abs=0.02)


@pytest.mark.shelf
def test_half_of_the_real_platelets_pass_the_gate(shelf) -> None:
    data = dataset.load(shelf / "bccd" / "annotations.json")
    rows = data.rows_of("Platelets")[:40]
    keep = np.isin(np.arange(len(data.annotations)), rows)
    crowd = data.annotations.crowd | (~keep & (data.annotations.category == data.category_row("Platelets")))
    few = replace(data, annotations=replace(data.annotations, crowd=crowd))
    shapes = bank.build(few, ["Platelets"])
    assert len(shapes) == 40
    assert len(shapes.of("Platelets")) >= 18


def test_a_cut_out_that_lost_a_limb_is_not_trusted(with_masks) -> None:
    held = [replace(e, source="cut") for e in bank.build(with_masks, ["disc"]).of("disc") if e.complete]
    whole = held[0].mask
    part = Mask.of(whole.pixels[: int(0.75 * whole.pixels.shape[0])], whole.x, whole.y)
    assert part is not None
    found = exemplar_cutting.habitual(with_masks, [replace(held[0], mask=part), *held[1:]])
    assert [e.source for e in found] == ["box", *["cut"] * (len(held) - 1)]


def test_a_pale_rim_beside_a_dark_core_belongs_to_the_object():
    rng = np.random.default_rng(4)
    picture = np.full((160, 160, 3), (225, 215, 220), np.uint8)
    for _ in range(8):  # neighbours, of other colours still
        x, y = rng.integers(0, 160, 2)
        cv2.circle(picture, (int(x), int(y)), 12, (215, 150, 160), -1)
    cv2.circle(picture, (80, 80), 34, (225, 215, 220), -1)
    cv2.circle(picture, (80, 80), 30, (205, 185, 225), -1)
    cv2.circle(picture, (76, 84), 17, (90, 50, 150), -1)
    picture = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    mask, quality = cutouts.cut(picture, Box(50, 50, 111, 111), np.zeros((0, 4)))
    assert mask is not None
    assert quality >= cutouts.GOOD
    truth = np.hypot(*(np.mgrid[:160, :160] - 80)) <= 30
    found = mask.window(0, 0, 160, 160)
    assert (found & truth).sum() > 0.95 * (found | truth).sum()
