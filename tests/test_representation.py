"""Who is represented: groups by what can be computed of objects, and what painted ones do to them."""

import cv2
import numpy as np
import pytest

from rarefill import attributes, objects
from rarefill.geometry import Box
from rarefill.objects import Objects
from rarefill.report import representation


def some(sides, *, at=0.5, light=100.0, sharp=0.0, around=-1, image=None) -> Objects:
    """Squares of these sides about one place of images of 1000 px."""
    sides = np.asarray(sides, dtype=float)
    n = len(sides)
    corner = 1000 * at - sides[:, None] / 2
    return Objects(
        np.arange(n) if image is None else np.asarray(image),
        np.concatenate([corner * [1, 1], corner + sides[:, None] * [1, 1]], axis=1),
        np.full((n, 2), 1000.0),
        np.broadcast_to(np.asarray(light, dtype=float), (n,)).copy(),
        np.broadcast_to(np.asarray(sharp, dtype=float), (n,)).copy(),
        np.broadcast_to(np.asarray(around), (n,)).copy(),
    )


def represented(real: Objects, painted: Objects, names=(), **more):
    names = names or [f"{i:04}.png" for i in range(len(real) + len(painted))]
    found = representation.represent(
        "cell", real, painted, of_real=len(real), of_painted=len(painted), names=names, **more
    )
    return {a.name: a for a in found.attributes}


def test_painted_small_objects_mend_a_lack_of_small_ones():
    real = some([12] * 10 + [100] * 90)
    found = represented(real, some([12] * 40))["size as COCO has it"]
    small, medium, large = found.groups
    assert (small.real, small.painted, small.few, small.change) == (10, 40, True, "mended")
    assert (medium.real, medium.painted, medium.few) == (0, 0, True)
    assert (large.few, large.change) == (False, "worsened")
    assert "Few are small: 10 real, 40 painted; the painted ones raise its share." in found.says


def test_a_group_that_nothing_is_in_is_said_and_not_called_as_frequent_as_the_others():
    found = represented(some(np.geomspace(20, 80, 30)), some([40] * 9))["height in the image"]
    assert [g.name for g in found.groups if g.few] == ["top", "bottom"]
    assert found.says == "None, real or painted, are top. None, real or painted, are bottom."


def test_sizes_that_are_nearly_one_are_told_apart_by_their_names():
    found = represented(some([13.4, 14, 14.2]), some([14]))["size"]
    assert found.groups[0].name.split("below ")[1] != found.groups[2].name.split("above ")[1]


def test_painting_the_frequent_alone_worsens_the_rare():
    found = represented(some([12] * 10 + [100] * 90), some([100] * 60))["size as COCO has it"]
    assert found.groups[0].change == "worsened"
    assert found.groups[0].share_after < found.groups[0].share_before


def test_a_handful_of_painted_objects_proves_nothing():
    found = represented(some([12] * 10 + [100] * 90), some([12]))["size as COCO has it"]
    assert found.groups[2].change == "kept" or found.groups[2].share_before > 0.79
    assert found.groups[1].change == "kept"


def test_a_lean_to_a_group_that_is_not_rare_is_said():
    real = some(np.geomspace(20, 80, 90))
    found = represented(real, some([75] * 40))["size"]
    assert "more often large" in found.says
    assert "less often small" in found.says


def test_shares_add_up_over_every_attribute():
    rng = np.random.default_rng(0)
    real = some(
        rng.uniform(8, 200, 60),
        light=rng.uniform(0, 255, 60),
        sharp=rng.normal(size=60),
        around=rng.integers(0, 6, 60),
    )
    painted = some(rng.uniform(8, 200, 30), light=rng.uniform(0, 255, 30), around=rng.integers(0, 6, 30))
    found = represented(real, painted)
    assert {"size", "brightness", "sharpness", "surroundings", "image's edge"} <= set(found)
    for attribute in found.values():
        assert sum(g.share_before for g in attribute.groups) == pytest.approx(1, abs=1e-3)
        assert sum(g.share_after for g in attribute.groups) == pytest.approx(1, abs=1e-3)


def test_what_is_not_known_is_left_out():
    found = represented(some([20, 20, 20]), some([20]))
    assert "surroundings" not in found
    assert "size" not in found  # all alike
    assert "brightness" not in found
    assert "source, by file names" not in found


def test_no_real_object_no_groups():
    assert represented(objects.none(), some([20])) == {}


def test_sources_are_what_file_names_share():
    names = [*(f"north/cam_{i:03}.png" for i in range(6)), *(f"south/cam_{i:03}.png" for i in range(3))]
    real = some([20] * 9, image=range(9))
    found = represented(real, some([20] * 4, image=[0, 1, 2, 3]), names)["source, by file names"]
    assert [(g.name, g.real, g.painted) for g in found.groups] == [("north/cam", 6, 4), ("south/cam", 3, 0)]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a_0012.png", "a"),
        ("x/video7-frame 12.jpg", "x/video7-frame"),
        ("12.png", ""),
        ("b (3).png", "b"),
        ("c", "c"),
    ],
)
def test_a_source_is_a_name_without_its_number(name, source):
    assert attributes.source_of(name) == source


def test_ap_stands_with_the_sizes_that_it_was_measured_for():
    ap = {"small": (0.1, 0.2), "medium": (0.3, None), "large": (None, None)}
    found = represented(some([50] * 9), some([50]), ap=ap)["size as COCO has it"]
    assert [g.ap for g in found.groups] == [(0.1, 0.2), (0.3, None), (None, None)]


def test_wilsons_interval_is_statsmodels():
    # as statsmodels gives it, with the method called wilson
    assert representation.wilson(3, 20) == pytest.approx((0.0523950, 0.3604207), abs=2e-4)
    assert representation.wilson(0, 0) == (0.0, 1.0)


def test_blur_lowers_sharpness_and_light_is_the_mean():
    rng = np.random.default_rng(1)
    grey = rng.integers(60, 200, (80, 80)).astype(np.uint8)
    box = Box(20, 20, 60, 60)
    light, sharp = objects.look(grey, box)
    _, soft = objects.look(cv2.GaussianBlur(grey, (0, 0), 2), box)
    assert light == pytest.approx(grey[20:60, 20:60].mean())
    assert soft < sharp - 0.5


def test_what_is_flat_or_tiny_has_no_sharpness_and_breaks_nothing():
    grey = np.full((5, 5), 90, np.uint8)
    assert np.isnan(objects.look(grey, Box(4.5, 4.5, 5, 5))[1])
    assert objects.look(grey, Box(0, 0, 0.2, 5))[0] == 90


def test_columns_of_no_objects_join():
    assert len(Objects.joined([])) == 0
    pixels = np.full((20, 30, 1), 1000, np.uint16)
    seen = objects.seen(pixels, 3, [Box(1, 2, 9, 8)], lambda _, boxes: np.full(len(boxes), 5))
    assert (seen.image[0], seen.around[0], tuple(seen.frame[0])) == (3, 5, (30.0, 20.0))
    assert len(Objects.joined([seen, objects.none(), seen])) == 2
