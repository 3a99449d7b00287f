"""A YOLO folder, judged by supervision's and datumaro's readers."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import yaml

from rarefill import exporters
from rarefill.dataset import Annotations, Category, Dataset, Images, load
from rarefill.errors import RunError
from rarefill.exporters import yolo
from rarefill.geometry import Box, Mask
from rarefill.scene import Instance, Sample

HEIGHT, WIDTH = 47, 61  # sides that shares cannot say exactly

RING = np.ones((9, 9), dtype=bool)
RING[3:6, 3:6] = False
TWO = np.zeros((6, 12), dtype=bool)
TWO[:, :4] = TWO[2:, 9:] = True


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        path = tmp_path / "run" / "images" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), number, np.uint8))
    return tmp_path / "run"


def made(folder: Path, *segmentations: Any, format: str = "coco") -> Dataset:
    """A dataset of one image whose annotations have these segmentations; None stands for a box alone."""
    n = len(segmentations)
    return Dataset(
        folder / ("data.yaml" if format == "yolo" else "users.json"),
        folder,
        format,  # type: ignore[arg-type]
        (Category(90, "platelet"), Category(1, "red: cell"), Category(18, "'white' cell")),
        Images(np.array([5]), np.array([WIDTH]), np.array([HEIGHT]), ["a.png"]),
        Annotations(
            np.arange(n),
            np.zeros(n, int),
            np.ones(n, int),
            np.array([[2.25, 3.5, 20.75, 30.0]] * n).reshape(n, 4),
            np.full(n, 100.0),
            np.zeros(n, bool),
            [b"" if s is None else msgspec.json.encode(s) for s in segmentations],
        ),
    )


def one(instances: list[Instance], number: int = 1) -> Sample:
    return Sample(number, f"{number:06}.png", WIDTH, HEIGHT, 0, number - 1, tuple(instances))


def by_supervision(folder: Path) -> Any:
    import supervision

    return supervision.DetectionDataset.from_yolo(
        str(folder / "images/train"), str(folder / "labels/train"), str(folder / "data.yaml")
    )


BOXES = [Box(0, 0, WIDTH, HEIGHT), Box(60, 46, 61, 47), Box(3.37, 8.11, 20.9, 30.03), Box(1 / 3, 2 / 3, 7, 8)]


def test_supervision_reads_the_boxes_back(run: Path, tmp_path: Path) -> None:
    names = ("platelet", "red: cell", "'white' cell", "platelet")
    samples = [one([Instance(n, b) for n, b in zip(names, BOXES, strict=True)]), one([], 2)]
    exporters.write(("yolo",), run, made(tmp_path), samples)
    read = by_supervision(run / "yolo")
    assert read.classes == ["platelet", "red: cell", "'white' cell"]
    found = {Path(path).stem: detections for path, _, detections in read}
    assert len(found["000002"]) == 0
    assert np.abs(found["000001"].xyxy - [b.xyxy for b in BOXES]).max() < 0.01
    assert found["000001"].class_id.tolist() == [0, 1, 2, 0]


def test_datumaro_reads_the_boxes_back(run: Path, tmp_path: Path) -> None:
    import datumaro

    exporters.write(
        ("yolo",), run, made(tmp_path), [one([Instance("red: cell", b) for b in BOXES]), one([], 2)]
    )
    read = datumaro.Dataset.import_from(str(run / "yolo"), "yolo")
    items = {item.id: item for item in read}
    assert set(items) == {"000001", "000002"}
    found = [a.points for a in items["000001"].annotations]
    assert np.abs(np.array(found) - [b.xyxy for b in BOXES]).max() < 0.01
    assert {a.label for a in items["000001"].annotations} == {1}


def test_polygons_are_read_back_within_half_a_pixel(run: Path, tmp_path: Path) -> None:
    own = [2.25, 3.5, 20.75, 3.5, 20.75, 30.0]
    data = made(tmp_path, [own])
    disc = np.add.outer((np.arange(21) - 10) ** 2, (np.arange(21) - 10) ** 2) < 100
    mask = Mask.of(disc, 30, 20)
    assert mask is not None
    exporters.write(
        ("yolo-seg",),
        run,
        data,
        [one([Instance("red: cell", data.box(0), annotation=0), Instance("platelet", mask.box, mask)])],
    )
    (_, _, found), *_ = by_supervision(run / "yolo-seg")
    assert np.abs(found.xyxy - [data.box(0).xyxy, mask.box.xyxy]).max() < 0.01
    line = (run / "yolo-seg/labels/train/000001.txt").read_text().splitlines()[0]
    points = np.array(line.split()[1:], dtype=float).reshape(-1, 2) * (WIDTH, HEIGHT)
    assert np.abs(points.ravel() - own).max() < 0.01
    # That reader fills polygons as if their points were pixel centres: the last row and column come on top.
    grown = np.pad(mask.full(HEIGHT, WIDTH), ((1, 0), (1, 0)), mode="constant")
    allowed = grown[1:, 1:] | grown[:-1, 1:] | grown[1:, :-1] | grown[:-1, :-1]
    assert (found.mask[1] >= mask.full(HEIGHT, WIDTH)).all()
    assert (found.mask[1] <= allowed).all()


def test_boxes_are_the_files_own_even_where_its_polygons_say_otherwise(run: Path, tmp_path: Path) -> None:
    data = made(tmp_path, [[1, 1, 9, 1, 9, 9]])  # its box goes to 20.75, 30
    exporters.write(("yolo",), run, data, [one([Instance("red: cell", data.box(0), annotation=0)])])
    (_, _, found), *_ = by_supervision(run / "yolo")
    assert np.abs(found.xyxy[0] - data.box(0).xyxy).max() < 0.01


@pytest.mark.parametrize("pixels", [RING, TWO], ids=["a hole", "two parts"])
def test_an_object_is_one_line_whatever_its_shape(run: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    mask = Mask.of(pixels, 5, 6)
    assert mask is not None
    exporters.write(("yolo-seg",), run, made(tmp_path), [one([Instance("platelet", mask.box, mask)])])
    (_, _, found), *_ = by_supervision(run / "yolo-seg")
    assert np.abs(found.xyxy[0] - mask.box.xyxy).max() < 0.01
    missed = mask.full(HEIGHT, WIDTH) & ~found.mask[0]
    assert not missed.any()
    if pixels is RING:
        assert not found.mask[0][10, 9:11].any()  # the hole's middle, away from the reader's own half pixel


def test_a_box_among_polygons_is_a_polygon_of_four_corners(run: Path, tmp_path: Path) -> None:
    data = made(tmp_path, [[1, 1, 9, 1, 9, 9]], None)
    kept = [Instance("red: cell", data.box(row), annotation=row) for row in (0, 1)]
    exporters.write(("yolo-seg",), run, data, [one(kept)])
    lines = (run / "yolo-seg/labels/train/000001.txt").read_text().splitlines()
    assert [len(line.split()) for line in lines] == [7, 9]


def test_crowds_are_left_out_and_the_file_says_so(run: Path, tmp_path: Path) -> None:
    exporters.write(("yolo",), run, made(tmp_path), [one([Instance("platelet", BOXES[0], crowd=True)])])
    assert (run / "yolo/labels/train/000001.txt").read_text() == ""
    assert "Crowds (COCO's iscrowd) are left out" in (run / "yolo/data.yaml").read_text()


def test_data_yaml_has_the_keys_that_readers_want_and_maps_indices_to_ids(run: Path, tmp_path: Path) -> None:
    (path,) = exporters.write(("yolo",), run, made(tmp_path), [])
    read = yaml.safe_load(path.read_text())
    assert read["names"] == {0: "platelet", 1: "red: cell", 2: "'white' cell"}
    assert (path.parent / read["train"]).is_dir()
    assert read["val"] == read["train"]
    for line in ("#   0: 90", "#   1: 1", "#   2: 18"):
        assert line in path.read_text().splitlines()


def test_the_users_own_validation_images_stay_the_judge(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "valid" / "images").mkdir(parents=True)
    (mine / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [a, b, c]\n")
    (path,) = exporters.write(("yolo",), run, made(mine, format="yolo"), [])
    read = yaml.safe_load(path.read_text())
    assert (path.parent / read["val"]).samefile(mine / "valid" / "images")


def test_images_take_no_second_place_on_disk(run: Path, tmp_path: Path) -> None:
    exporters.write(("yolo",), run, made(tmp_path), [one([])])
    assert (run / "yolo/images/train/000001.png").samefile(run / "images/000001.png")


def test_images_are_copied_where_links_are_impossible(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    exporters.write(("yolo",), run, made(tmp_path), [one([])])
    copy, original = run / "yolo/images/train/000001.png", run / "images/000001.png"
    assert copy.read_bytes() == original.read_bytes()
    assert not copy.samefile(original)


def test_a_second_export_leaves_nothing_of_the_first(run: Path, tmp_path: Path) -> None:
    exporters.write(("yolo",), run, made(tmp_path), [one([]), one([], 2)])
    exporters.write(("yolo",), run, made(tmp_path), [one([], 3)])
    assert [p.name for p in (run / "yolo/images/train").iterdir()] == ["000003.png"]
    assert [p.name for p in (run / "yolo/labels/train").iterdir()] == ["000003.txt"]


def test_a_folder_that_is_not_finished_has_no_data_yaml(run: Path, tmp_path: Path) -> None:
    exporters.write(("yolo",), run, made(tmp_path), [one([])])
    with pytest.raises(RunError, match=r"000009\.png.*No such file.*run again"):
        exporters.write(("yolo",), run, made(tmp_path), [one([]), one([], 9)])
    assert not (run / "yolo/data.yaml").exists()


def test_run_lengths_in_the_file_become_their_outline(tmp_path: Path) -> None:
    counts = [HEIGHT * 2 + 3, 5, HEIGHT - 5, 5]
    counts.append(HEIGHT * WIDTH - sum(counts))
    data = made(tmp_path, {"size": [HEIGHT, WIDTH], "counts": counts})
    points = yolo.polygon(data, Instance("red: cell", data.box(0), annotation=0))
    assert {tuple(p) for p in points.tolist()} == {(2, 3), (4, 3), (4, 8), (2, 8)}


def test_yolo_data_merges_into_a_coco_file(run: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    mine = tmp_path / "mine"
    (mine / "images").mkdir(parents=True)
    (mine / "labels").mkdir()
    cv2.imwrite(str(mine / "images/a.png"), np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    (mine / "labels/a.txt").write_text("1 0.5 0.5 0.25 0.25\n0 0.25 0.25 0.5 0.25 0.5 0.5\n")
    (mine / "data.yaml").write_text("train: images\nval: images\nnames: [a, b]\n")
    data = load(mine / "data.yaml")
    kept = Instance("b", data.box(0), annotation=0)
    exporters.write(("merged", "yolo-seg"), run, data, [one([kept, Instance("a", BOXES[1])])])
    with contextlib.redirect_stdout(io.StringIO()):
        read = COCO(run / "merged.json")
    assert {c["id"]: c["name"] for c in read.dataset["categories"]} == {1: "a", 2: "b"}
    assert [(a["id"], a["image_id"], a["category_id"]) for a in read.dataset["annotations"]] == [
        (1, 1, 2),
        (2, 1, 1),
        (3, 2, 2),
        (4, 2, 1),
    ]
    assert all((data.root / i["file_name"]).exists() for i in read.dataset["images"])
    box, polygon = (run / "yolo-seg/labels/train/000001.txt").read_text().splitlines()
    assert box == "1 0.375000 0.375000 0.625000 0.375000 0.625000 0.625000 0.375000 0.625000"
    assert polygon.split()[0] == "0"
