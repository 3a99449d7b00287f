"""What a dataset lacks: figures that a person can check by eye on made data."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rarefill import amounts, evaluation, gaps
from rarefill.advice import advise
from rarefill.dataset import Annotations, Category, Dataset, Images, load
from rarefill.errors import DataError, UsageError


def made(
    objects: dict[str, list[list[tuple[float, float, float, float]]]], *, n_images: int = 10, crowds=()
) -> Dataset:
    """Images of 300 x 300; for each category, the boxes of image 0, of image 1, and so on."""
    rows = [
        (image, category, box)
        for category, images in enumerate(objects.values())
        for image, boxes in enumerate(images)
        for box in boxes
    ]
    boxes = np.array([box for *_, box in rows], dtype=float).reshape(-1, 4)
    return Dataset(
        path=Path("made.json"),
        root=Path(),
        format="coco",
        categories=tuple(Category(n + 1, name) for n, name in enumerate(objects)),
        images=Images(
            np.arange(n_images),
            np.full(n_images, 300, np.int32),
            np.full(n_images, 300, np.int32),
            ["-"] * n_images,
        ),
        annotations=Annotations(
            id=np.arange(len(rows)),
            image=np.array([image for image, *_ in rows], dtype=np.int32),
            category=np.array([category for _, category, _ in rows], dtype=np.int32),
            boxes=boxes,
            area=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            crowd=np.isin(np.arange(len(rows)), crowds),
            segmentation=[b""] * len(rows),
        ),
    )


MIDDLE = (140.0, 140.0, 160.0, 160.0)
COMMON = [[MIDDLE]] * 8


def shown(found: gaps.Gaps, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(gaps.table(found))
    return out.getvalue()


def test_images_objects_and_shares_are_counted() -> None:
    found = gaps.survey(made({"a": [[MIDDLE, MIDDLE], [MIDDLE]], "b": [[MIDDLE]], "c": []}))
    assert found.images.tolist() == [2, 1, 0]
    assert found.objects.tolist() == [3, 1, 0]
    assert found.share.tolist() == [0.75, 0.25, 0]
    assert found.missing == ("c",)


def test_crowds_are_counted_apart() -> None:
    found = gaps.survey(made({"a": [[MIDDLE, MIDDLE]]}, crowds=[1]))
    assert found.objects.tolist() == [1]
    assert found.crowds.tolist() == [1]
    assert found.neighbours.tolist() == [0]


def test_sizes_are_cocos() -> None:
    squares = [[(50.0, 50.0, 50 + side, 50 + side)] for side in (31.9, 32, 95.9, 96, 200)]
    found = gaps.survey(made({"a": squares}))
    assert found.sizes.tolist() == [[1, 2, 2]]
    assert np.allclose(found.quantiles_px[0], np.quantile([31.9, 32, 95.9, 96, 200], gaps.QUANTILES))


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ((0, 50, 20, 70), 1),
        ((1, 50, 20, 70), 1),
        ((2, 50, 20, 70), 0),
        ((280, 50, 299.5, 70), 1),
        ((280, 50, 298, 70), 0),
    ],
)
def test_an_object_at_the_edge_is_cut(box, cut) -> None:
    assert gaps.survey(made({"a": [[box]]})).truncated.tolist() == [cut]


def test_crowding_counts_neighbours_and_what_they_cover() -> None:
    left, right, far = (10.0, 10.0, 30.0, 30.0), (20.0, 10.0, 60.0, 30.0), (200.0, 200.0, 210.0, 210.0)
    found = gaps.survey(made({"a": [[left, far]], "b": [[right]]}))
    assert found.neighbours.tolist() == [0.5, 1]
    assert found.overlap.tolist() == [0.25, 0.25]


def test_objects_of_other_images_are_no_neighbours() -> None:
    assert gaps.survey(made({"a": [[MIDDLE], [MIDDLE]]})).neighbours.tolist() == [0]


def test_many_objects_in_one_image_are_counted_in_parts() -> None:
    boxes = np.random.default_rng(1).uniform(0, 250, (2300, 2))
    boxes = np.concatenate((boxes, boxes + 9), axis=1)
    neighbours, _ = gaps.crowding(np.zeros(len(boxes), np.int32), boxes)
    near = (np.abs(boxes[:5, None, :2] - boxes[None, :, :2]) < 9).all(axis=2).sum(axis=1) - 1
    assert neighbours[:5].tolist() == near.tolist()


def test_cells_say_where_in_the_image_and_how_large() -> None:
    found = gaps.survey(made({"a": [[(5, 5, 25, 25), (220, 20, 270, 70)], [(190, 190, 300, 300)]]}))
    assert found.cells[0, 0, 0, 0] == 1
    assert found.cells[0, 1, 0, 2] == 1
    assert found.cells[0, 2, 2, 2] == 1
    unseen = found.unseen("a")
    assert len(unseen) == 24
    assert "small top left" not in unseen
    assert "large top left" in unseen
    assert np.allclose(found.center[0], [(15 + 245 + 245) / 900, (15 + 45 + 245) / 900])


def test_a_category_is_rare_when_lvis_would_repeat_its_images() -> None:
    found = gaps.survey(made({"a": COMMON, "b": [[MIDDLE]] * 2}))
    assert found.threshold == 0.5
    assert found.repeat.tolist() == [1, np.sqrt(0.5 / 0.2)]
    assert found.rare == ("b",)


def test_the_threshold_can_be_named() -> None:
    dataset = made({"a": COMMON, "b": [[MIDDLE]] * 2})
    assert gaps.survey(dataset, threshold=0.001).rare == ()
    assert gaps.survey(dataset, threshold=1).rare == ("b", "a")
    with pytest.raises(UsageError, match="must be a share above 0"):
        gaps.survey(dataset, threshold=0)


def test_auto_brings_the_repeat_factor_down_to_1() -> None:
    dataset = made({"a": COMMON, "b": [[MIDDLE, MIDDLE]] * 2})
    assert gaps.budget(dataset, "auto") == {"b": 6}  # 3 more images with 2 objects each


def test_auto_makes_at_most_ten_for_each_real_object() -> None:
    dataset = made({"a": [[MIDDLE]] * 90, "b": [[MIDDLE]]}, n_images=90)
    assert gaps.budget(dataset, "auto") == {"b": 10}
    assert gaps.budget(gaps.survey(dataset, per_exemplar=3), "auto") == {"b": 3}


def test_auto_passes_over_what_has_no_object() -> None:
    assert gaps.budget(made({"a": COMMON, "b": [[MIDDLE]], "c": []}), "auto").keys() == {"b"}


def test_auto_without_anything_rare_says_what_to_do() -> None:
    with pytest.raises(
        DataError, match=r"nothing is rare in made.json: .* 80.0% of its 10 images .*--fill NAME=N"
    ):
        gaps.budget(made({"a": COMMON}), "auto")


def test_a_budget_is_what_was_asked_for() -> None:
    assert gaps.budget(made({"a": COMMON, "b": [[MIDDLE]]}), {"b": 3, "a": 1}) == {"b": 3, "a": 1}


@pytest.mark.parametrize(
    ("fill", "error", "said"),
    [
        ({"platlet": 3}, DataError, "no category named 'platlet' in made.json; did you mean 'Platelets'?"),
        (
            {"Platelets": 0},
            UsageError,
            "--fill Platelets=0: the number of objects must be a whole number above 0",
        ),
        ({"Platelets": -2}, UsageError, "--fill Platelets=-2: "),
        ({"Platelets": True}, UsageError, "must be a whole number above 0"),
        ({"Platelets": 2.5}, UsageError, "must be a whole number above 0"),
        (
            {"empty": 3},
            DataError,
            "'empty' has no object in made.json, so there is nothing to make more of; label",
        ),
        ({"crowd": 3}, DataError, r"'crowd' has only crowds \(1\) in made.json"),
        ({}, UsageError, "--fill names no category"),
    ],
)
def test_an_impossible_budget_gets_one_line(fill, error, said) -> None:
    dataset = made({"Platelets": COMMON, "empty": [], "crowd": [[MIDDLE]]}, crowds=[8])
    with pytest.raises(error, match=said.replace("?", r"\?") if "(" not in said else said) as raised:
        gaps.budget(dataset, fill)
    assert "\n" not in str(raised.value)


def test_everything_is_there_for_machines(tiny) -> None:
    found = gaps.as_json(gaps.survey(load(tiny)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["missing"] == ["star"]
    assert found["categories"]["star"]["center"] == [None, None]
    disc = found["categories"]["disc"]
    assert sum(disc["sizes"].values()) == disc["objects"] == sum(map(sum, disc["places"]))
    assert found["auto"] == {"square": found["categories"]["square"]["auto"]}


def test_the_table_fits_a_hundred_columns_with_every_figure_whole() -> None:
    names = {f"a rather long name {n}": [[MIDDLE] * 40] * 90 for n in range(3)} | {
        "[red]b": [[MIDDLE] * 30] * 12
    }
    text = shown(gaps.survey(made(names | {"none": []}, n_images=1000)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    assert any("[red]b" in line and "+" in line and line.split()[1:3] == ["12", "360"] for line in lines)
    assert "Missing, without a real object to make more of: none" in text


@pytest.mark.parametrize("name", ["[/foo] x", "[bold]x[/bold]", ":car: x", "x\\\\", "[red"])
def test_names_that_look_like_markup_are_printed_as_they_are(name) -> None:
    found = gaps.survey(made({name: [[MIDDLE]], "common": COMMON, name + "2": []}))
    printed = [line.rstrip() for line in shown(found).splitlines()]
    assert any(line.startswith(name + " ") for line in printed)
    assert f"Rare: {name}" in printed
    assert f"Missing, without a real object to make more of: {name}2" in printed


def test_a_dataset_without_any_object_still_has_a_table() -> None:
    found = gaps.survey(made({"a": [[MIDDLE]], "b": []}, crowds=[0]))
    assert found.rare == ()
    assert found.missing == ("a", "b")
    assert "0 objects" in shown(found)


def evaluated(tmp_path, dataset, document, name="ap.json"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return evaluation.read(path, dataset)


THREE = {"a": COMMON, "b": [[MIDDLE, MIDDLE]] * 4, "c": [[MIDDLE]] * 2}
AP = {"a": 0.6, "b": 0.7, "c": 0.3}


@pytest.mark.parametrize(
    "document",
    [
        AP,
        {"per_class": AP, "AP": 0.5, "epoch": 12},
        {"classes": {name: {"AP": v, "AP50": 0.9} for name, v in AP.items()}, "AP": 0.5},
        [{"Class": name, "Box-P": 0.1, "mAP50": 0.9, "mAP50-95": v} for name, v in AP.items()],
        {"per_category": [{"name": name, "ap": v} for name, v in AP.items()]},
        [{"category": name, "AP50-95": v} for name, v in [*AP.items(), ("all", 0.5)]],
        {"map": 0.5, "map_per_class": [0.3, 0.6, 0.7], "classes": [3, 1, 2]},
        {"bbox": {"AP": 48.9, "AP50": 80.0, "APs": 10.0, **{f"AP-{n}": 100 * v for n, v in AP.items()}}},
        {name: 100 * v for name, v in AP.items()} | {"mAP": 53.3},
        "Class,Images,mAP50,mAP50-95\nall,9,0.9,0.5\na,9,0.9,0.6\nb,9,0.9,0.7\nc,9,0.9,0.3\n",
        "name;AP\na;60\nb; 70%\nc;30\n\n",
    ],
)
def test_what_evaluators_write_is_read(tmp_path, document) -> None:
    found = evaluated(tmp_path, made(THREE), document)
    assert found.ap == pytest.approx(AP)
    assert found.missing == ()


def test_figures_are_percent_when_one_is_above_1(tmp_path) -> None:
    dataset = made(THREE)
    assert evaluated(tmp_path, dataset, {"a": 0.9, "b": 1.0}).ap == {"a": 0.9, "b": 1.0}
    assert evaluated(tmp_path, dataset, {"a": 0.9, "b": 1.1}).ap == pytest.approx({"a": 0.009, "b": 0.011})


@pytest.mark.parametrize("nothing", [-1, None, float("nan")])
def test_what_was_not_measured_is_missing(tmp_path, nothing) -> None:
    found = evaluated(tmp_path, made(THREE), {"a": 0.6, "b": nothing})
    assert found.ap == {"a": 0.6}
    assert found.missing == ("b", "c")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"a": 0.6, "platlet": 0.3}, "ap.json: platlet: no category named 'platlet' in made.json"),
        (
            {"per_class": {"a": "high"}},
            'ap.json: per_class.a: expected an AP from 0 to 1 or 0 to 100, got "high"',
        ),
        ([{"name": "a", "AP": 140}], r"ap.json: [0].AP: expected an AP from 0 to 1 or 0 to 100, got 140"),
        (
            [{"name": "a", "AP": 1}, {"name": "a", "AP": 1}],
            "[1].AP: 'a' has a figure at [0].AP already; drop one",
        ),
        ({"map_per_class": -1, "classes": 3}, "torchmetrics gives them with class_metrics=True"),
        (
            {"map_per_class": [0.1], "classes": [0]},
            "map_per_class[0]: no category has id 0 in made.json; it has [1,",
        ),
        ([{"image_id": 3, "bbox": [], "score": 0.1}], "got a COCO file of detections or annotations"),
        ([1, 2], "expected AP by category"),
        ({"a": None}, "no category of made.json has an AP in it"),
        ("{", "ap.json: not JSON"),
        ("Class,Images\na,3\n", "line 1: expected a column of names"),
        ("Class,AP\na,0.3\nb\n", "line 3: expected 2 columns, got 1"),
        ("Class,AP\na,high\n", 'line 2: AP: expected an AP from 0 to 1 or 0 to 100, got "high"'),
    ],
)
def test_a_bad_evaluation_is_said_with_its_place(tmp_path, document, said) -> None:
    with pytest.raises(DataError) as raised:
        evaluated(tmp_path, made(THREE), document)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_evaluation_that_is_not_there_is_said(tmp_path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        evaluation.read(tmp_path / "none.csv", made(THREE))


def test_weak_is_clearly_below_the_median() -> None:
    ap = np.array([0.5, 0.44, 0.46, 0.6, np.nan, 0.1])
    assert amounts.median(ap) == 0.46
    assert amounts.weak(ap).tolist() == [False, False, False, False, False, True]
    assert not amounts.weak(np.full(3, np.nan)).any()


def test_weak_categories_share_as_many_images_as_there_are_evenly(tmp_path) -> None:
    dataset = made({**THREE, "d": [[MIDDLE, MIDDLE]] * 2, "e": COMMON}, n_images=12)
    ap = evaluated(tmp_path, dataset, {"a": 0.6, "b": 0.7, "c": 0.3, "d": 0.2, "e": 0.5})
    found = gaps.survey(dataset, evaluation=ap)
    assert found.weak == ("d", "c")
    assert gaps.budget(found, "auto") == {"c": 8, "d": 8}  # 8 images with one c each, 4 with two d
    few = gaps.survey(dataset, evaluation=ap, per_exemplar=2)
    assert gaps.budget(few, "auto") == {"c": 4, "d": 8}


def test_a_rare_category_that_was_not_measured_is_made_more_of_too(tmp_path) -> None:
    dataset = made(THREE, n_images=12)
    found = gaps.survey(dataset, evaluation=evaluated(tmp_path, dataset, {"a": 0.6, "b": 0.7}))
    assert found.weak == ()
    assert list(gaps.budget(found, "auto")) == ["c"]
    assert "Without an AP, judged by r: c" in shown(found)


def test_nothing_weak_says_what_to_do(tmp_path) -> None:
    dataset = made(THREE)
    found = gaps.survey(dataset, evaluation=evaluated(tmp_path, dataset, {"a": 0.6, "b": 0.6, "c": 0.58}))
    with pytest.raises(DataError, match=r"nothing is weak in ap.json: .*median AP, 0.600; .*--fill NAME=N"):
        gaps.budget(found, "auto")
    assert "Weak: none" in shown(found)


def test_auto_stays_within_three_images_for_each_real_one() -> None:
    names = {f"{i}": [[MIDDLE] if i == k else [] for k in range(30)] for i in range(30)}
    found = gaps.survey(made(names, n_images=30), threshold=1.0)
    assert advise(found, gaps.budget(found, "auto")).images <= 90
    assert set(gaps.budget(found, "auto").values()) == {3}


def test_a_budget_says_how_many_images_it_comes_to() -> None:
    found = gaps.survey(made({"a": [[MIDDLE, MIDDLE]] * 5}, n_images=10))
    few, some, many = (advise(found, {"a": n}) for n in (4, 20, 70))
    assert (few.images, few.ratio, some.ratio, many.ratio) == (2, 0.2, 1, 3.5)
    assert "below 0.5" in few.warning
    assert not some.warning
    assert "above 3" in many.warning
    assert "\n" not in few.warning + many.warning
    assert advise(found, {"a": 20}, per_image=1).images == 20
    assert advise(found, {"a": 20}, images=4).images == 4
    assert advise(found, {}).warning == ""
    assert not advise(found, {"a": 8}).warning, "few beside all images, but many beside the five that show it"


def test_the_table_weighs_the_budget_that_is_asked_for() -> None:
    found = gaps.survey(made({"a": COMMON, "b": [[MIDDLE]] * 2}))
    out = io.StringIO()
    Console(file=out, width=100).print(gaps.table(found, {"b": 40}))
    said = " ".join(out.getvalue().split())
    assert "as asked: 40 objects, about 40 images, 4.00 for each real one (worth it: 0.5 to 3)" in said
    assert "above 3" in said
    assert "--untouched" in said
    assert gaps.as_json(found, {"b": 40})["budget"]["ratio"] == 4


@pytest.mark.shelf
@pytest.mark.parametrize(
    ("name", "rare"),
    [("bccd", "Platelets"), ("aquarium", "starfish"), ("hituav", "OtherVehicle"), ("everyday", "stop sign")],
)
def test_what_people_call_rare_is_rare(shelf, name, rare) -> None:
    found = gaps.survey(load(shelf / name / "annotations.json", check_files=False))
    assert rare in found.rare
    assert rare in gaps.budget(found, "auto")
    assert max(map(len, shown(found).splitlines())) <= 100
