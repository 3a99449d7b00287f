"""Reading YOLO datasets. The judge is supervision's reader."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rarefill.dataset import load
from rarefill.errors import DataError

BOXES = "1 0.5 0.5 0.25 0.5\n0 0.1 0.2 0.1 0.1\n"
POLYGON = "1 0.125 0.25 0.5 0.25 0.5 0.75 0.125 0.75\n"


def write(folder: Path, labels: dict[str, str | None], *, images: str = "images/train", **spec) -> Path:
    """A YOLO dataset with one 80 x 40 image for each entry; None is an image without a label file."""
    for name, text in labels.items():
        image = folder / images / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 40)).save(image)
        label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            label.write_text(text)
    path = folder / "data.yaml"
    spec = {"train": images, "val": images, "names": ["disc", "square"]} | spec
    path.write_text(yaml.safe_dump({key: value for key, value in spec.items() if value is not ...}))
    return path


def said(path: Path, **settings) -> list[str]:
    with pytest.raises(DataError) as raised:
        load(path, **settings)
    return [line for line in str(raised.value).splitlines() if not line.startswith("--lenient")]


def test_boxes_are_pixels_from_the_left_top(tmp_path) -> None:
    dataset = load(write(tmp_path, {"b": BOXES, "a": "", "c": None}))
    assert dataset.format == "yolo"
    assert dataset.images.file_name == ["images/train/a.png", "images/train/b.png", "images/train/c.png"]
    assert dataset.annotations.image.tolist() == [1, 1]
    assert np.allclose(dataset.annotations.boxes, [[30, 10, 50, 30], [4, 6, 12, 10]])
    assert not dataset.has_mask(0)
    assert dataset.read(1).shape == (40, 80, 3)


def test_a_class_keeps_its_index_as_its_row(tmp_path) -> None:
    dataset = load(write(tmp_path, {"a": BOXES}))
    assert dataset.annotations.category.tolist() == [1, 0]
    assert [(c.id, c.name) for c in dataset.categories] == [(1, "disc"), (2, "square")]


def test_polygons_become_coco_segmentations_with_their_own_box_and_area(tmp_path) -> None:
    dataset = load(write(tmp_path, {"a": POLYGON}))
    assert dataset.annotations.boxes.tolist() == [[10, 10, 40, 30]]
    assert dataset.annotations.area.tolist() == [600]
    assert json.loads(bytes(dataset.annotations.segmentation[0])) == [[10, 10, 40, 10, 40, 30, 10, 30]]
    assert dataset.mask(0).box.xyxy == (10, 10, 40, 30)


@pytest.mark.parametrize("labels", [BOXES, POLYGON], ids=["boxes", "polygons"])
def test_supervision_reads_the_same(tmp_path, labels) -> None:
    supervision = pytest.importorskip("supervision")
    path = write(tmp_path, {"a": labels, "b": labels})
    dataset = load(path)
    judge = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images/train"), str(tmp_path / "labels/train"), str(path)
    )
    assert judge.classes == list(dataset.names)
    for image, (_, _, found) in enumerate(judge):
        rows = dataset.rows_in(image)
        assert np.abs(found.xyxy - dataset.annotations.boxes[rows]).max() <= 0.5
        assert found.class_id.tolist() == dataset.annotations.category[rows].tolist()


@pytest.mark.parametrize(
    "spec",
    [
        {"names": {0: "disc", 1: "square"}},
        {"names": {1: "square", 0: "disc"}, "nc": 2},
        {"path": "."},
        {"path": "/not/on/this/machine"},
        {"path": ""},
        {"train": ["images/train"]},
        {"train": "../images/train"},
        {"train": "train.txt"},
        {"val": ...},
    ],
)
def test_data_yaml_may_say_it_in_many_ways(tmp_path, spec) -> None:
    (tmp_path / "train.txt").write_text("./images/train/a.png\nimages/train/b.png\n\n")
    dataset = load(write(tmp_path, {"a": BOXES, "b": POLYGON}, **spec))
    assert dataset.names == ("disc", "square")
    assert len(dataset.images) == 2
    assert dataset.annotations.image.tolist() == [0, 0, 1]


def test_several_training_folders_are_read_in_their_order(tmp_path) -> None:
    write(tmp_path, {"z": BOXES}, images="images/first")
    path = write(tmp_path, {"a": POLYGON}, images="images/second", train=["images/first", "images/second"])
    assert load(path).images.file_name == ["images/first/z.png", "images/second/a.png"]


def test_validation_images_are_not_read(tmp_path) -> None:
    write(tmp_path, {"v": BOXES}, images="images/val")
    assert load(write(tmp_path, {"a": BOXES}, val="images/val")).images.file_name == ["images/train/a.png"]


def test_roboflows_layout_is_found(tmp_path) -> None:
    path = write(tmp_path, {"a": BOXES}, images="train/images", train="../train/images")
    assert load(path).annotations.boxes.shape == (2, 4)


def test_images_outside_the_yaml_files_folder_are_found(tmp_path) -> None:
    write(tmp_path, {"a": BOXES})
    path = tmp_path / "config" / "data.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"path": "..", "train": "images/train", "names": ["disc", "square"]}))
    dataset = load(path)
    assert dataset.read(0).shape == (40, 80, 3)
    assert len(dataset.annotations) == 2


def test_the_image_folder_may_be_named(tmp_path) -> None:
    path = write(tmp_path, {"a": BOXES}, train="elsewhere")
    assert "train is 'elsewhere', which is neither a folder nor a list" in said(path)[0]
    assert load(path, tmp_path / "images/train").images.file_name == ["a.png"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 0.5 0.5 0.1 0.1", "class must be a whole number from 0 to 1, as data.yaml names them, got 2"),
        ("-1 0.5 0.5 0.1 0.1", "class must be a whole number from 0 to 1, as data.yaml names them, got -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class must be a whole number from 0 to 1, as data.yaml names them, got 0.5"),
        ("disc 0.5 0.5 0.1 0.1", 'must be numbers, got "disc 0.5 0.5 0.1 0.1"'),
        ("0 0.5 nan 0.1 0.1", 'must be finite numbers, got "0 0.5 nan 0.1 0.1"'),
        (
            "0 0.5 0.5 0.1",
            "must be a class with x y width height, or with 3 or more x y pairs, got 4 numbers",
        ),
        (
            "0 0.5 0.5 0.1 0.1 0.9",
            "must be a class with x y width height, or with 3 or more x y pairs, got 6 numbers",
        ),
        ("0 40 20 10 10", 'must be shares of the image from 0 to 1, got "0 40 20 10 10"'),
        ("0 0.5 0.5 0 0.1", "bbox: width must be above 0, got [40.0, 18.0, 0.0, 4.0]"),
        (
            "0 0.9 0.5 0.5 0.1",
            "bbox: must lie inside its image (80x40), got [52.0, 18.0, 40.0, 4.0], which is x 52 to 92, y 18 to 22",
        ),
        ("0 0.1 0.1 0.1 0.5 0.1 0.9", "bbox: width must be above 0, got [8.0, 4.0, 0.0, 32.0]"),
    ],
)
def test_a_bad_line_is_said_with_its_file_and_number(tmp_path, line, problem) -> None:
    path = write(tmp_path, {"a": BOXES, "b": f"{POLYGON}\n{line}\n"})
    assert said(path) == [f"labels/train/b.txt:3: {problem}"]
    dataset = load(path, lenient=True)
    assert len(dataset.annotations) == 3
    assert dataset.skipped == (f"labels/train/b.txt:3: {problem}; left out",)


def test_boxes_rounded_over_the_edge_are_clipped(tmp_path) -> None:
    dataset = load(write(tmp_path, {"a": "0 0.1 0.5 0.2001 1.0001\n"}))
    assert np.allclose(dataset.annotations.boxes, [[0, 0, 16.004, 40]])


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"names": ...}, "data.yaml: names must be a list of class names, got null"),
        ({"names": ["disc"], "nc": 2}, "data.yaml: nc is 2 but names has 1; correct one of them"),
        (
            {"names": {0: "disc", 2: "square"}},
            "data.yaml: names must count from 0 to 1 without gaps, got [0, 2]",
        ),
        ({"names": ["disc", "disc"]}, "data.yaml: names[1]: 'disc' is already the name of id 1"),
        ({"train": ...}, "data.yaml: train must name the folder of training images, got null"),
        ({"train": 5}, "data.yaml: train must name the folder of training images, got 5"),
        ({"train": "labels"}, 'data.yaml: train is "labels", which holds no images'),
    ],
)
def test_a_bad_data_yaml_gets_one_line(tmp_path, spec, problem) -> None:
    assert said(write(tmp_path, {"a": BOXES}, **spec))[0].startswith(problem)


@pytest.mark.parametrize(("text", "problem"), [("a: [", "not YAML"), ("- 1", "expected train and names")])
def test_what_is_no_data_yaml_gets_one_line(tmp_path, text, problem) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    assert problem in said(path)[0]


def test_a_misspelt_class_is_told_before_any_image_is_looked_at(tmp_path) -> None:
    path = write(tmp_path, {"a": BOXES})
    (tmp_path / "images/train/a.png").write_bytes(b"")
    assert said(path, named=["sqare"]) == ["no category named 'sqare' in data.yaml; did you mean 'square'?"]


def test_indices_in_quotes_are_indices(tmp_path) -> None:
    names = {"0": "disc", "1": "square"}
    assert load(write(tmp_path, {"a": BOXES}, names=names)).names == ("disc", "square")


def test_a_count_without_names_gives_names(tmp_path) -> None:
    assert load(write(tmp_path, {"a": BOXES}, names=..., nc=2)).names == ("class_0", "class_1")


def test_no_labels_at_all_is_refused(tmp_path) -> None:
    assert "labels" in said(write(tmp_path, {"a": "", "b": None}))[0]


def test_an_image_that_cannot_be_opened_is_said_once(tmp_path) -> None:
    path = write(tmp_path, {"a": BOXES, "b": BOXES})
    (tmp_path / "images/train/a.png").write_bytes(b"nothing")
    (line,) = said(path)
    assert line.startswith("images/train/a.png: ")
    assert "not a readable image (7 bytes)" in line
    dataset = load(path, lenient=True)
    assert dataset.images.file_name == ["images/train/b.png"]
    assert dataset.skipped[0].endswith("left out with its 2 annotations")


def test_the_source_is_data_yaml(tmp_path) -> None:
    path = write(tmp_path, {"a": BOXES})
    assert load(path).source() == yaml.safe_load(path.read_text())
