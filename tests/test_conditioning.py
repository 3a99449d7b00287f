"""What ControlNets are shown."""

import cv2
import numpy as np
import pytest
import torch

from rarefill.errors import ModelError
from rarefill.generators import compact_conditioning as compact
from rarefill.generators.conditioning import Depth, drawer, package

SIZE = 128


@pytest.fixture(scope="module")
def window():
    """A textured scene, an ellipse in it, and the area that is painted."""
    rng = np.random.default_rng(2)
    pixels = cv2.resize(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), (SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE]
    mask = ((x - 60) / 30) ** 2 + ((y - 70) / 20) ** 2 < 1
    return pixels, mask, compact.grown(mask, 6)


@pytest.fixture(scope="module")
def hed(tmp_path_factory):
    """Random weights of the detector's own shape."""
    package()  # imported here, its warnings would be errors
    from controlnet_aux.hed import ControlNetHED_Apache2

    folder = tmp_path_factory.mktemp("annotators")
    torch.manual_seed(0)
    torch.save(ControlNetHED_Apache2().state_dict(), folder / "ControlNetHED.pth")
    return folder


@pytest.mark.parametrize("kind", ["canny", "lineart", "hed"])
def test_the_scene_is_drawn_outside_and_the_outline_inside(window, kind, hed):
    pixels, mask, hidden = window
    draw = drawer(kind, hed)
    new, redrawn = (draw(pixels, mask, hidden, redraw=redraw) for redraw in (False, True))
    assert new.shape == (SIZE, SIZE, 3)
    assert new.dtype == np.uint8
    assert (new == new[:, :, :1]).all()
    deep = cv2.erode(mask.astype(np.uint8), np.ones((17, 17))).astype(bool)
    assert not new[deep].any()
    assert redrawn[deep].any()
    outside = ~compact.grown(hidden, compact.CLEARANCE_PX + 8)
    assert new[outside].any()
    assert np.array_equal(new[outside], redrawn[outside])
    edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert (new[edge] > 100).mean() > 0.9


@pytest.mark.parametrize("kind", ["canny", "lineart"])
def test_nothing_under_the_painted_area_is_told(window, kind):
    """With soft wide filters (lineart's blur) what stands near may change a little; under it nothing shows."""
    pixels, mask, hidden = window
    changed = pixels.copy()
    changed[mask] = 255 - changed[mask]
    draw = drawer(kind, None)
    one, other = (draw(p, mask, hidden, redraw=False) for p in (pixels, changed))
    assert np.array_equal(one[hidden], other[hidden])


def test_an_object_is_as_near_as_the_ground_at_its_foot(window):
    pixels, mask, hidden = window
    ramp = np.repeat(np.arange(SIZE, dtype=np.uint8)[:, None], SIZE, axis=1)
    draw = Depth(lambda _: ramp)
    foot = np.flatnonzero(mask.any(axis=1))[-1]
    new = draw(pixels, mask, hidden, redraw=False)
    assert (new[mask] == foot).all()
    assert np.array_equal(new[~mask][:, 0], ramp[~mask])
    assert np.array_equal(draw(pixels, mask, hidden, redraw=True)[:, :, 0], ramp)


def test_weights_that_are_missing_or_others_get_a_line(tmp_path, hed):
    with pytest.raises(ModelError, match=r"needs ControlNetHED.pth.*--control-weights"):
        drawer("hed", None)
    with pytest.raises(ModelError, match=r"needs table5_pidinet\.pth"):
        drawer("pidi", hed)
    torch.save({"a": torch.zeros(2)}, tmp_path / "ControlNetHED.pth")
    with pytest.raises(ModelError, match="not the weights of controlnet-aux's HEDdetector"):
        drawer("hed", tmp_path)


def test_the_shipped_models_map_is_the_one_that_training_draws():
    assert drawer("layout", None) is compact.control_map


def test_a_window_without_any_line_is_no_warning():
    flat = np.full((64, 64, 3), 120, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    shown = drawer("lineart", None)(flat, mask, mask, redraw=False)
    assert shown[~mask].max() == 0
    assert shown[mask].max() == 255
