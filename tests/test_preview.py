"""Pictures for people."""

import numpy as np
import pytest

from rarefill import pictures, preview
from rarefill.dataset import load
from rarefill.geometry import Box, box_mask
from rarefill.scene import Layout, Placement


def test_a_tile_shows_the_object_in_its_middle_with_its_surroundings():
    picture = np.full((100, 120, 3), 40, np.uint8)
    picture[40:60, 50:70] = (250, 120, 10)
    tile = preview.tile(picture, Box(50, 40, 70, 60), side=88, ticks=False)
    assert tile.shape == (88, 88, 3)
    assert tuple(tile[44, 44]) == (250, 120, 10)
    warm = np.abs(tile.astype(int) - (250, 120, 10)).max(axis=2) < 60
    assert 0.85 < warm.sum() / 40**2 < 1.15  # 20 of 44 pixels each way, 88 wide


@pytest.mark.parametrize(
    "box", [Box(0, 0, 3, 3), Box(117, 97, 120, 100), Box(0, 40, 120, 50), Box(0, 0, 120, 100)]
)
@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16)])
def test_a_tile_can_be_cut_anywhere_from_any_picture(box, bands, dtype):
    picture = np.random.default_rng(0).integers(0, 255, (100, 120, bands)).astype(dtype)
    tile = preview.tile(picture, box, side=50)
    assert (tile.shape, tile.dtype) == ((50, 50, 3), np.uint8)


def test_a_nearly_black_picture_is_lifted_until_it_shows():
    picture = np.random.default_rng(0).integers(0, 20, (64, 64, 1), dtype=np.uint8)
    assert preview.tile(picture, Box(20, 20, 40, 40), ticks=False).mean() > 3 * picture.mean()


def test_a_contact_sheet_holds_every_tile_under_its_heading():
    tiles = [np.full((40, 40, 3), (10 * i + 5, 7, 200), np.uint8) for i in range(9)]
    groups = [
        preview.Group("disc", tiles[:5], tiles[5:], "4 painted"),
        preview.Group("square", [], tiles[:1]),
    ]
    sheet = preview.contact_sheet(groups, columns=3, title="Run")
    for tile in tiles[1:]:
        assert (sheet == tile[0, 0]).all(axis=2).sum() == 40 * 40
    assert (sheet == tiles[0][0, 0]).all(axis=2).sum() == 2 * 40 * 40


def test_a_contact_sheet_of_nothing_is_still_a_picture():
    assert preview.contact_sheet([preview.Group("disc", [], [])]).ndim == 3


def test_plan_sheets_draw_every_filled_layout_and_leave_out_the_untouched(tiny, tmp_path):
    data = load(tiny)
    mask = box_mask(Box(20, 30, 34, 41))
    layouts = [Layout(i, 0, (Placement("square", mask),)) for i in range(5)] + [Layout(6, 0)]
    sheets = preview.plan_sheets(data, layouts, tmp_path / "sheets", columns=2, rows=2)
    assert [p.name for p in sheets] == ["plan-001.png", "plan-002.png"]
    first, second = (pictures.read(p) for p in sheets)
    assert first.shape[0] > second.shape[0]
    bare = preview.plan_sheets(data, [Layout(4, 0, (Placement("disc", mask),))], tmp_path / "one")
    assert pictures.read(bare[0]).shape[2] == 3


def test_crowded_labels_give_way_to_objects(tiny, tmp_path):
    masks = [box_mask(Box(x, y, x + 6, y + 6)) for x in range(2, 90, 8) for y in range(2, 72, 8)]
    layout = Layout(0, 0, tuple(Placement("square", m) for m in masks))
    (sheet,) = preview.plan_sheets(load(tiny), [layout], tmp_path)
    assert sheet.exists()
