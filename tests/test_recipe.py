"""Recipes: every option in one place, checked, explained."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarefill import recipe as recipes
from rarefill.errors import RecipeError, UsageError
from rarefill.flags import _fill, _polygon
from rarefill.recipe import Recipe


def test_the_printed_recipe_reads_back_as_the_defaults(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipes.as_yaml(Recipe()))
    assert recipes.resolve(recipes.read(file)) == Recipe()


def test_every_printed_option_has_a_comment():
    lines = recipes.as_yaml(Recipe()).splitlines()
    for above, line in pairwise(lines):
        if ": " in line and not line.lstrip().startswith("#"):
            assert above.lstrip().startswith("# "), line


@given(
    st.dictionaries(st.text(min_size=1, max_size=12), st.integers(1, 999), min_size=1, max_size=3),
    st.floats(0, 1),
    st.integers(0, 2**40),
)
def test_any_recipe_survives_its_file(fill, overlap, seed):
    import yaml

    made = recipes.resolve({"fill": fill, "seed": seed, "layout": {"max_overlap": overlap}})
    assert recipes.resolve(yaml.safe_load(recipes.as_yaml(made))) == made


def test_leaf_names_are_unique_so_that_each_is_a_flag():
    names = [path[-1] for path, _ in recipes.leaves()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sede": 1}, "r.yaml: no option 'sede'; did you mean 'seed'?"),
        (
            {"layout": {"max_overlp": 0.1}},
            "r.yaml: no option 'layout.max_overlp'; did you mean 'layout.max_overlap'?",
        ),
        ({"max_overlap": 0.1}, "r.yaml: no option 'max_overlap'; it stands at 'layout.max_overlap'"),
        ({"layout": {"max_overlap": 3}}, "r.yaml: layout.max_overlap must be at most 1, got 3"),
        ({"attempts": 0}, "r.yaml: attempts must be at least 1, got 0"),
        (
            {"fill": {"car": 0}},
            "r.yaml: fill must be a whole number of objects from 1 to 10000000 for 'car', got {'car': 0}",
        ),
        ({"fill": "al"}, "r.yaml: fill must be auto, none, or NAME: N for each category, got 'al'"),
        ({"layout": 3}, "r.yaml: layout must be a section of options, got 3"),
        (
            {"formats": "coco,voc"},
            "r.yaml: formats must be 'coco', 'merged', 'yolo' or 'yolo-seg', got 'voc'",
        ),
    ],
)
def test_a_bad_option_gets_one_line_that_says_what_to_do(options, line):
    with pytest.raises(RecipeError) as e:
        recipes.resolve(options, where="r.yaml")
    assert str(e.value) == line


def test_all_bad_options_are_told_at_once():
    with pytest.raises(RecipeError) as e:
        recipes.resolve({"seed": -1, "attempts": 0, "nonsense": 2})
    assert len(str(e.value).splitlines()) == 3


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as e:
        recipes.read(file)
    assert str(file) in str(e.value)
    assert "\n" not in str(e.value)


def test_an_empty_recipe_file_means_the_defaults(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("# nothing\n")
    assert recipes.resolve(recipes.read(file)) == Recipe()


def test_fill_is_replaced_as_a_whole_and_sections_are_joined():
    below = {"fill": {"a": 1}, "layout": {"untouched": 0.5, "max_reuse": 2}}
    above = {"fill": {"b": 2}, "layout": {"untouched": 0.0}}
    assert recipes.merged(below, above) == {"fill": {"b": 2}, "layout": {"untouched": 0.0, "max_reuse": 2}}


def test_places_and_speed_do_not_name_a_run():
    a = recipes.resolve({"out": "a", "workers": 1, "cache": "x"})
    assert recipes.identity(a) == recipes.identity(recipes.resolve({"out": "b"}))
    assert recipes.identity(a) != recipes.identity(recipes.resolve({"seed": 1}))


def test_a_fill_may_name_a_category_with_an_equals_sign():
    assert _fill(["a=b=3", "stop sign=20"]) == {"a=b": 3, "stop sign": 20}


@pytest.mark.parametrize("texts", [["car"], ["car=x"], ["=3"], ["car=1", "car=2"], ["auto", "car=1"]])
def test_a_fill_that_cannot_be_read_says_how_it_is_written(texts):
    with pytest.raises(UsageError, match="--fill"):
        _fill(texts)


def test_a_region_is_a_polygon_in_shares_of_the_image():
    assert _polygon("0,0 1,0 0.5,1") == [(0, 0), (1, 0), (0.5, 1)]
    for bad in ("0,0 1,1", "0,0 1,0 2,2", "a,b c,d e,f", "0 0 1 1 0 1"):
        with pytest.raises(UsageError, match="--region"):
            _polygon(bad)
