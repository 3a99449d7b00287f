"""Boxes and masks, over every shape of the gallery. The judges are pycocotools, shapely and slow obvious loops."""

import math

import numpy as np
import pytest
import shapely
from gallery import SHAPES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from rarefill import geometry
from rarefill.geometry import Box, Mask

over_all_shapes = pytest.mark.parametrize("pixels", SHAPES.values(), ids=SHAPES.keys())
images = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))
painted = images.filter(lambda pixels: pixels.any())
edges = st.floats(-200, 200)


@st.composite
def boxes(draw) -> Box:
    x, y = draw(edges), draw(edges)
    return Box(x, y, x + draw(st.floats(0.01, 150)), y + draw(st.floats(0.01, 150)))


def theirs(pixels: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))


@over_all_shapes
def test_a_mask_covers_the_pixels_it_was_made_of(pixels) -> None:
    mask = Mask.of(pixels)
    assert np.array_equal(mask.full(*pixels.shape), pixels)
    assert mask.area == coco_mask.area(theirs(pixels))


@over_all_shapes
def test_a_masks_box_is_the_one_pycocotools_measures(pixels) -> None:
    assert list(Mask.of(pixels).box.xywh) == coco_mask.toBbox(theirs(pixels)).tolist()


@over_all_shapes
def test_run_lengths_are_those_of_pycocotools_and_read_back(pixels) -> None:
    counts = geometry.rle_counts(pixels)
    assert np.array_equal(coco_mask.decode({"size": list(pixels.shape), "counts": counts}), pixels)
    assert np.array_equal(geometry.from_rle(counts, *pixels.shape), pixels)
    assert np.array_equal(geometry.from_rle(counts.decode(), *pixels.shape), pixels)


@over_all_shapes
def test_a_mask_is_cut_out_of_run_lengths_as_pycocotools_paints_it(pixels) -> None:
    for counts in (geometry.rle_counts(pixels), geometry.rle_counts(pixels).decode()):
        found, painted = geometry.mask_from_rle(counts, *pixels.shape), Mask.of(pixels)
        assert found is not None
        assert (found.x, found.y) == (painted.x, painted.y)
        assert np.array_equal(found.pixels, painted.pixels)


@over_all_shapes
def test_plain_run_lengths_are_read_column_by_column(pixels) -> None:
    flat = np.concatenate(([False], pixels.ravel(order="F"), [False]))
    changes = np.flatnonzero(np.diff(flat.astype(int)))
    counts = np.diff(np.concatenate(([0], changes, [pixels.size]))).tolist()
    assert np.array_equal(geometry.from_rle(counts, *pixels.shape), pixels)


@over_all_shapes
def test_a_shift_there_and_back_changes_nothing(pixels) -> None:
    mask = Mask.of(pixels)
    assert np.array_equal(mask.shifted(7, -40).shifted(-7, 40).full(*pixels.shape), pixels)


@over_all_shapes
def test_what_is_moved_out_of_the_image_is_not_drawn(pixels) -> None:
    height, width = pixels.shape
    moved = Mask.of(pixels).shifted(-(width // 2), height // 3)
    wanted = np.zeros_like(pixels)
    wanted[height // 3 :, : width - width // 2] = pixels[: height - height // 3, width // 2 :]
    assert np.array_equal(moved.full(height, width), wanted)
    clipped = moved.clipped(width, height)
    assert (clipped is None) == (not wanted.any())
    assert clipped is None or np.array_equal(clipped.full(height, width), wanted)


@over_all_shapes
def test_a_mask_without_itself_is_nothing(pixels) -> None:
    mask = Mask.of(pixels)
    assert mask.minus(mask) is None
    assert mask.overlap_px(mask) == mask.area
    assert geometry.mask_iou(mask, mask) == 1


@over_all_shapes
def test_stretching_to_its_own_box_changes_nothing(pixels) -> None:
    mask = Mask.of(pixels)
    assert np.array_equal(mask.resized(mask.box).full(*pixels.shape), pixels)


@over_all_shapes
@pytest.mark.parametrize("scale", [2, 3, 7])
def test_stretching_by_a_whole_number_repeats_every_pixel(pixels, scale) -> None:
    mask = Mask.of(pixels)
    x1, y1, x2, y2 = mask.box.xyxy
    bigger = mask.resized(Box(x1, y1, x1 + scale * (x2 - x1), y1 + scale * (y2 - y1)))
    assert np.array_equal(bigger.pixels, mask.pixels.repeat(scale, axis=0).repeat(scale, axis=1))


@over_all_shapes
def test_masks_cannot_be_changed_through_their_arrays(pixels) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Mask.of(pixels).pixels[0, 0] = False


def test_a_mask_without_pixels_is_none() -> None:
    assert Mask.of(np.zeros((4, 5), bool)) is None
    with pytest.raises(ValueError, match="at least one pixel"):
        Mask(0, 0, np.zeros((4, 5), bool))
    with pytest.raises(ValueError, match="tight"):
        Mask(0, 0, np.eye(3, 4, dtype=bool))


def test_a_mask_does_not_change_with_the_array_it_was_made_of() -> None:
    pixels = np.ones((3, 3), bool)
    mask = Mask.of(pixels)
    pixels[:] = False
    assert mask.area == 9


@given(painted)
def test_any_image_goes_through_run_lengths_unchanged(pixels) -> None:
    assert np.array_equal(geometry.from_rle(geometry.rle_counts(pixels), *pixels.shape), pixels)


@given(painted, st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 30), st.integers(1, 30))
def test_a_window_shows_what_the_whole_plane_has_there(pixels, x, y, width, height) -> None:
    mask = Mask.of(pixels)
    plane = np.zeros((120, 120), bool)
    plane[40 : 40 + pixels.shape[0], 40 : 40 + pixels.shape[1]] = pixels
    seen = mask.window(x, y, width, height)
    assert np.array_equal(seen, plane[40 + y : 40 + y + height, 40 + x : 40 + x + width])


@given(painted, painted, st.integers(-10, 10), st.integers(-10, 10))
def test_minus_and_overlap_share_out_the_mask(a, b, dx, dy) -> None:
    first, second = Mask.of(a), Mask.of(b).shifted(dx, dy)
    rest = first.minus(second)
    assert first.overlap_px(second) + (rest.area if rest else 0) == first.area
    assert rest is None or rest.overlap_px(second) == 0
    assert first.overlap_px(second) == second.overlap_px(first)
    assert geometry.mask_iou(first, second) == geometry.mask_iou(second, first)


@given(painted, painted)
def test_the_overlap_of_masks_is_the_one_of_pycocotools(a, b) -> None:
    height, width = (max(sizes) for sizes in zip(a.shape, b.shape, strict=True))
    first, second = Mask.of(a), Mask.of(b)
    judged = coco_mask.iou([theirs(first.full(height, width))], [theirs(second.full(height, width))], [0])
    assert math.isclose(geometry.mask_iou(first, second), float(judged[0, 0]))


@given(painted, boxes())
def test_a_stretched_mask_stays_in_its_boxs_whole_pixels(pixels, box) -> None:
    stretched = Mask.of(pixels).resized(box)
    if stretched is None:  # only where shrinking drops thin parts
        assert box.width < pixels.shape[1] or box.height < pixels.shape[0]
        return
    got = stretched.box
    assert got.x1 >= round(box.x1)
    assert got.y1 >= round(box.y1)
    assert got.x2 <= max(round(box.x2), round(box.x1) + 1)
    assert got.y2 <= max(round(box.y2), round(box.y1) + 1)


@given(st.lists(boxes(), min_size=1, max_size=6), st.lists(boxes(), min_size=1, max_size=6))
def test_overlaps_of_boxes_are_those_of_pycocotools(a, b) -> None:
    judged = coco_mask.iou(
        np.array([box.xywh for box in a]), np.array([box.xywh for box in b]), np.zeros(len(b))
    )
    ours = geometry.ious(np.array([box.xyxy for box in a]), np.array([box.xyxy for box in b]))
    assert np.allclose(ours, judged, atol=1e-9)


@given(boxes(), boxes())
def test_the_common_area_of_boxes_is_the_one_of_shapely(a, b) -> None:
    judged = shapely.box(*a.xyxy).intersection(shapely.box(*b.xyxy)).area
    ours = geometry.intersections(np.array([a.xyxy]), np.array([b.xyxy]))[0, 0]
    assert math.isclose(ours, judged, abs_tol=1e-6)


@given(boxes(), st.floats(1, 300), st.floats(1, 300))
def test_a_clipped_box_is_what_lies_in_the_image(box, width, height) -> None:
    clipped = box.clipped(width, height)
    judged = shapely.box(*box.xyxy).intersection(shapely.box(0, 0, width, height))
    if clipped is None:
        assert judged.area == 0
    else:
        assert clipped.xyxy == judged.bounds


@given(boxes())
def test_a_boxs_mask_holds_the_pixels_whose_centres_it_covers(box) -> None:
    mask = geometry.box_mask(box)
    y, x = np.mgrid[-201:352, -201:352] + 0.5
    inside = (x >= box.x1) & (x < box.x2) & (y >= box.y1) & (y < box.y2)
    assert (mask is None) == (not inside.any())
    if mask is not None:
        assert np.array_equal(mask.window(-201, -201, 553, 553), inside)


@pytest.mark.parametrize(
    ("edges", "said"),
    [((0, 0, math.inf, 1), "finite"), ((0, 0, math.nan, 1), "finite"), ((2, 0, 2, 1), "x1 < x2")],
)
def test_an_impossible_box_is_refused(edges, said) -> None:
    with pytest.raises(ValueError, match=said):
        Box(*edges)


def test_polygons_are_filled_as_pycocotools_fills_them_and_joined() -> None:
    parts = [[2.0, 2.0, 10.0, 2.0, 10.0, 9.0], [15.5, 4.5, 20.0, 4.0, 18.0, 12.0, 14.0, 11.0]]
    judged = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, 20, 30)))
    assert np.array_equal(geometry.from_polygons(parts, 20, 30), judged)


def test_a_polygon_with_two_points_is_not_taken_for_a_box() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        geometry.from_polygons([[1.0, 1.0, 5.0, 5.0]], 10, 10)


@pytest.mark.parametrize("counts", [[3, 4], [100, -10, 10], "b", "000000000"])
def test_run_lengths_that_do_not_fill_the_image_are_refused(counts) -> None:
    with pytest.raises(ValueError, match=r".+"):
        geometry.from_rle(counts, 10, 10)
