"""layouts.jsonl: a plan that a person reads, edits and runs."""

import json

import numpy as np
import pytest
from conftest import make_tiny

from rarefill import bank
from rarefill.dataset import Dataset, load
from rarefill.errors import LayoutError, RunError
from rarefill.geometry import Box, Mask, rle_counts
from rarefill.layouts import Planner, goals_in, read_plan, write_plan
from rarefill.recipe import LayoutConfig
from rarefill.scene import Goal, Layout, Placement, Shape


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return load(make_tiny(tmp_path_factory.mktemp("tiny") / "data"))


@pytest.fixture(scope="module")
def shapes(data):
    return bank.build(data, ["square", "disc"])


@pytest.fixture(scope="module")
def layouts(data, shapes):
    return Planner(data, shapes, LayoutConfig(), seed=4).plan({"square": 9, "disc": 3}).layouts


def lines(tmp_path, *entries):
    path = tmp_path / "edited.jsonl"
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries))
    return path


def asked(layouts):
    return [
        (
            x.image,
            x.copy,
            [(p.category, p.box, p.shape, p.depth, p.seed, p.prompt, p.score) for p in x.placements],
        )
        for x in layouts
    ]


def test_what_is_read_back_is_what_was_planned(data, shapes, layouts, tmp_path):
    path = tmp_path / "layouts.jsonl"
    write_plan(path, data, layouts)
    back = read_plan(path, data, shapes)
    assert asked(back) == asked(layouts)
    for one, other in zip(layouts, back, strict=True):
        for p, q in zip(one.placements, other.placements, strict=True):
            assert np.array_equal(p.mask.pixels, q.mask.pixels)
    again = tmp_path / "again.jsonl"
    write_plan(again, data, back)
    assert again.read_bytes() == path.read_bytes()


def test_a_line_names_images_and_exemplars_as_the_dataset_s_file_does(data, layouts, tmp_path):
    write_plan(tmp_path / "a.jsonl", data, iter(layouts))
    texts = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(texts) == len(layouts)
    first = json.loads(next(t for t, x in zip(texts, layouts, strict=True) if x.placements))
    assert list(first) == ["image", "file", "copy", "placements"]
    assert first["file"] == f"{(first['image'] - 2) // 5:03}.png"
    assert list(first["placements"][0]) == [
        "category",
        "box",
        "mask",
        "shape",
        "depth",
        "seed",
        "prompt",
        "score",
    ]
    assert first["placements"][0]["shape"]["annotation"] in data.annotations.id


def test_the_categories_of_a_plan_are_counted_in_the_dataset_s_order(data, layouts, tmp_path):
    write_plan(tmp_path / "a.jsonl", data, layouts)
    assert list(goals_in(tmp_path / "a.jsonl", data).items()) == [(Goal("square"), 9), (Goal("disc"), 3)]


def test_moving_and_resizing_the_box_moves_and_resizes_the_object(data, shapes, tmp_path):
    pixels = np.tri(6, dtype=bool)
    mask = {"size": [6, 6], "counts": rle_counts(pixels).decode()}
    entry = {"category": "square", "box": [10, 20, 22, 32], "mask": mask}
    (layout,) = read_plan(lines(tmp_path, {"image": 2, "placements": [entry]}), data, shapes)
    (placement,) = layout.placements
    assert placement.box.xyxy == (10, 20, 22, 32)
    assert np.array_equal(placement.mask.pixels, np.kron(pixels, np.ones((2, 2), bool)))


def test_a_mask_s_empty_border_is_part_of_its_frame(data, shapes, tmp_path):
    pixels = np.zeros((4, 4), bool)
    pixels[1:3, 1:3] = True
    mask = {"size": [4, 4], "counts": rle_counts(pixels).decode()}
    entry = {"category": "square", "box": [10, 20, 18, 28], "mask": mask}
    (layout,) = read_plan(lines(tmp_path, {"image": 2, "placements": [entry]}), data, shapes)
    assert layout.placements[0].box.xyxy == (12, 22, 16, 26)


def test_a_category_and_a_box_are_enough(data, shapes, tmp_path):
    path = lines(tmp_path, {"file": "000.png", "placements": [{"category": "disc", "box": [5, 5, 25, 24.6]}]})
    one, again = read_plan(path, data, shapes), read_plan(path, data, shapes)
    assert asked(one) == asked(again)
    (placement,) = one[0].placements
    assert placement.box.xyxy == (5, 5, 25, 25)
    assert data.annotations.image[placement.shape.annotation] != one[0].image
    assert 200 < placement.mask.area < 400, "a disc, not its box"


def test_blank_lines_and_layouts_without_placements_are_fine(data, shapes, tmp_path):
    (layout,) = read_plan(lines(tmp_path, "", {"image": 7}), data, shapes)
    assert (layout.image, layout.copy, layout.placements) == (1, 0, ())


WRONG = {
    '{"image": 2': "line 1: not JSON: Expecting",
    "[1, 2]": "line 1: expected an object in braces, got [1, 2]",
    '{"placements": []}': "line 1: image is missing: the id of a background",
    '{"image": 3}': "line 1: image: no image has id 3 in annotations.json",
    '{"image": 3, "file": "001.png"}': "'001.png' has id 7",
    '{"image": 2, "file": "001.png"}': "line 1: file: image 2 is '000.png', got '001.png'",
    '{"file": "001.pgn"}': "no image '001.pgn' in annotations.json; did you mean '001.png'?",
    '{"image": 2, "copy": -1}': "line 1: copy: expected a whole number of 0 or above, got -1",
    '{"image": 2, "placements": {}}': "line 1: placements: expected a list, got {}",
    '{"image": 2, "placments": []}': "line 1: unknown key 'placments'; did you mean 'placements'?",
    '{"image": 2, "placements": [{"box": [1, 2, 9, 9]}]}': "line 1: placements[0]: category is missing",
    '{"image": 2, "placements": [{"category": "sqare", "box": [1, 2, 9, 9]}]}': "did you mean 'square'?",
    '{"image": 2, "placements": [{"category": "disc", "box": [1, 2, 9]}]}': "placements[0].box: expected [x1, y1",
    '{"image": 2, "placements": [{"category": "disc", "box": [9, 2, 1, 9]}]}': "with x1 < x2 and y1 < y2",
    '{"image": 2, "placements": [{"category": "disc", "box": [90, 2, 99, 9]}]}': "inside the image of 96 x 80",
    '{"image": 2, "placements": [{"category": "disc", "box": [1, 2, 9, NaN]}]}': "expected a number, got NaN",
    '{"image": 2, "placements": [{"category": "disc", "box": [1.1, 2, 1.3, 9]}]}': "must hold a whole pixel",
    '{"image": 2, "placements": [{"category": "star", "box": [1, 2, 9, 9]}]}': "no silhouette of 'star'",
    '{"image": 2, "placements": [{"category": "disc", "box": [1, 2, 9, 9], "seed": 1.5}]}': "seed: expected a whole",
    '{"image": 2, "placements": [{"category": "disc", "box": [1, 2, 9, 9], "shape": {"annotation": 9999}}]}': (
        "shape.annotation: no annotation has id 9999"
    ),
    '{"image": 2, "placements": [{"category": "disc", "box": [1, 2, 9, 9], "shape": {"annotation": 500}}]}': (
        "500 is an object of this very image"
    ),
    '{"image": 2, "placements": [{"category": "disc", "box": [1, 2, 9, 9], "mask": {"size": [2, 2], "counts": "0"}}]}': (
        "mask.counts: expected COCO run lengths of 2 x 2 pixels"
    ),
    '{"image": 2, "placements": [{"category": "disc", "box": [1, 2, 9, 9], "mask": {"size": [2, 2], "counts": [4]}}]}': (
        "mask: leaves no pixel in this box"
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_with_its_place(text, data, shapes, tmp_path):
    with pytest.raises(LayoutError) as error:
        read_plan(lines(tmp_path, text), data, shapes)
    assert WRONG[text] in str(error.value)
    assert str(error.value).startswith("edited.jsonl: line 1")
    assert "\n" not in str(error.value)


def test_all_problems_are_told_at_once_and_many_are_counted(data, shapes, tmp_path):
    bad = {"image": 2, "copy": 3, "placements": [{"category": "disc", "box": [0, 0, 1, 500]}, {"box": 3}]}
    with pytest.raises(LayoutError) as error:
        read_plan(lines(tmp_path, bad, "nonsense", {"image": 2, "copy": 3}), data, shapes)
    told = str(error.value).splitlines()
    assert [t.split(":")[1].strip() for t in told] == ["line 1", "line 1", "line 2", "line 3"]
    assert "image 2 copy 3 stands in line 1 too" in told[3]
    with pytest.raises(LayoutError, match="and 5 more problems"):
        goals_in(lines(tmp_path, *["nonsense"] * 25), data)


def test_a_plan_that_is_not_there_or_not_text_is_one_line(data, shapes, tmp_path):
    with pytest.raises(LayoutError, match=r"no.jsonl: cannot be read: No such file"):
        read_plan(tmp_path / "no.jsonl", data, shapes)
    (tmp_path / "bin.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LayoutError, match="not UTF-8 text"):
        read_plan(tmp_path / "bin.jsonl", data, shapes)


def test_writing_never_leaves_half_a_plan(data, layouts, tmp_path):
    path = tmp_path / "layouts.jsonl"
    path.write_text("old\n")

    def breaks():
        yield layouts[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plan(path, data, breaks())
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["layouts.jsonl"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_plan(tmp_path / "file" / "layouts.jsonl", data, layouts)


def partly(data, shapes):
    """A disc of image 0's plan that the left edge cuts and that stands behind some pixels."""
    exemplar = next(e for e in shapes.of("disc") if e.image != 0)
    shape = Shape(exemplar.annotation, flip=True, rotation_deg=-12.5, bend=0.03, bend_seed=77)
    front = Mask(2, 20, np.ones((9, 3), bool))
    shown = bank.visible(exemplar.mask, shape, Box(-8, 20, 12, 40), 96, 80, front)
    assert shown is not None
    mask, whole = shown
    return Placement("disc", mask, depth=1, seed=5, shape=shape, spared=front, whole=whole)


def edited(data, shapes, tmp_path, **changed):
    """The placement as it is read back after a person changed some of its keys."""
    write_plan(tmp_path / "part.jsonl", data, [Layout(0, 0, (partly(data, shapes),))])
    line = json.loads((tmp_path / "part.jsonl").read_text())
    entry = {k: v for k, v in (line["placements"][0] | changed).items() if v is not None}
    (layout,) = read_plan(lines(tmp_path, line | {"placements": [entry]}), data, shapes)
    return layout.placements[0]


def test_a_partly_visible_and_bent_object_comes_back_as_it_was_planned(data, shapes, tmp_path):
    asked, back = partly(data, shapes), edited(data, shapes, tmp_path)
    assert (back.shape, back.whole, back.seed) == (asked.shape, asked.whole, asked.seed)
    assert back.whole == Box(-8, 20, 12, 40)
    for one, other in ((asked.mask, back.mask), (asked.spared, back.spared)):
        assert (one.x, one.y) == (other.x, other.y)
        assert np.array_equal(one.pixels, other.pixels)
    write_plan(tmp_path / "again.jsonl", data, [Layout(0, 0, (back,))])
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "part.jsonl").read_bytes()


def test_the_whole_moves_and_grows_with_the_box(data, shapes, tmp_path):
    asked = partly(data, shapes)
    x1, y1, x2, y2 = asked.box.xyxy
    moved = edited(data, shapes, tmp_path, box=[x1, y1 + 30, x2, y2 + 30], spared=None)
    assert moved.whole == Box(-8, 50, 12, 70)
    assert moved.mask.area == asked.mask.area
    grown = edited(data, shapes, tmp_path, box=[x1, y1, x1 + 2 * (x2 - x1), y2], spared=None)
    assert grown.whole == Box(-16, 20, 24, 40)


def test_what_is_spared_stays_where_it_is(data, shapes, tmp_path):
    asked = partly(data, shapes)
    moved = edited(data, shapes, tmp_path, box=[v + 4 * (i % 2 == 0) for i, v in enumerate(asked.box.xyxy)])
    assert moved.spared.box == asked.spared.box
    assert moved.mask.overlap_px(moved.spared) == 0
    with pytest.raises(LayoutError, match="shows nothing of its object"):
        edited(data, shapes, tmp_path, box=[2, 20, 5, 29])


def test_a_whole_without_a_mask_shows_what_lies_in_the_box(data, shapes, tmp_path):
    entry = {"category": "disc", "box": [0, 30, 12, 54], "whole": [-12, 30, 12, 54]}
    (layout,) = read_plan(lines(tmp_path, {"image": 2, "placements": [entry]}), data, shapes)
    (placement,) = layout.placements
    assert placement.whole == Box(-12, 30, 12, 54)
    assert placement.box.xyxy == (0, 30, 12, 54)
    assert 180 < placement.mask.area < 260, "half of a disc"


WRONG_PARTS = {
    '"whole": [1, 2, 3]': "whole: expected [x1, y1, x2, y2]",
    '"spared": {"size": [1, 1], "counts": [0, 1]}': "spared: at is missing",
    '"spared": {"at": [1], "size": [1, 1], "counts": [0, 1]}': "spared.at: expected [x, y]",
    '"spared": {"at": [1, 1], "size": [1, 1], "counts": [1]}': "spared: holds no pixel",
    '"shape": {"annotation": 491, "bend": 0.5}': "shape.bend: expected a share of the object from 0 to 0.06",
}


@pytest.mark.parametrize("part", WRONG_PARTS)
def test_what_is_wrong_with_a_part_is_said_with_its_place(part, data, shapes, tmp_path):
    text = f'{{"image": 2, "placements": [{{"category": "disc", "box": [1, 2, 9, 9], {part}}}]}}'
    with pytest.raises(LayoutError) as error:
        read_plan(lines(tmp_path, text), data, shapes)
    assert WRONG_PARTS[part] in str(error.value)
