"""COCO files, judged by pycocotools and torchvision."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rarefill import exporters
from rarefill.dataset import Dataset, load
from rarefill.errors import RunError
from rarefill.exporters import coco, outline
from rarefill.geometry import Box, Mask, from_polygons, from_rle
from rarefill.scene import Instance, Sample

HEIGHT, WIDTH = 40, 60

# Numbers as people's tools print them: they must come out as they went in.
USERS_FILE = """
{"info": {"year": 2017, "contributor": "someone"}, "licenses": [{"id": 4, "name": "CC BY"}],
 "videos": [{"id": 1, "frames": 3e2}],
 "images": [
  {"id": 70, "file_name": "b.png", "width": 60, "height": 40, "license": 4, "video_id": 1,
   "coco_url": "http://example.org/b.png", "flickr_url": "http://example.org/b"},
  {"id": 3, "file_name": "a.png", "width": 60, "height": 40, "license": 4}
 ],
 "categories": [
  {"id": 90, "name": "toothbrush", "supercategory": "indoor", "color": [1, 2, 3]},
  {"id": 1, "name": "person", "supercategory": "person"},
  {"id": 18, "name": "dog", "supercategory": "animal"}
 ],
 "annotations": [
  {"id": 55, "image_id": 70, "category_id": 1, "bbox": [2.50, 3.0, 10.00, 12], "area": 1.2e2, "iscrowd": 0,
   "segmentation": [[2.50, 3.0, 12.50, 3.0, 12.50, 15.0, 2.50, 15.0]], "keypoints": [1.10, 2, 2]},
  {"id": 0, "image_id": 3, "category_id": 90, "bbox": [0, 0, 2, 40], "area": 80, "iscrowd": 1,
   "segmentation": {"counts": [0, 80, 2320], "size": [40, 60]}},
  {"id": 12, "image_id": 70, "category_id": 18, "bbox": [30, 20, 8, 8], "area": 64.0, "iscrowd": 0, "mood": null}
 ]
}
"""


def dataset_of(path: Path, *, lenient: bool = False) -> Dataset:
    return load(path, path.parent / "pictures", lenient=lenient)


def gallery() -> dict[str, Mask]:
    """The shapes that break things, on an image of 40 x 60."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    disc = (ys - 20) ** 2 + (xs - 30) ** 2 < 15**2
    drawn = {
        "one pixel": (ys == 7) & (xs == 9),
        "last corner": (ys == HEIGHT - 1) & (xs == WIDTH - 1),
        "full frame": ys >= 0,
        "full columns": (xs >= 3) & (xs < 6),
        "disc": disc,
        "split": (abs(xs - 30) > 10) & (abs(ys - 20) < 3),
        "touching at a corner": ((ys < 5) & (xs < 5)) | ((ys >= 5) & (ys < 9) & (xs >= 5) & (xs < 9)),
        "with a hole": disc & ((ys - 20) ** 2 + (xs - 30) ** 2 > 4**2),
        "hole in the corner": (ys < 6) & (xs < 6) & ~((ys == 1) & (xs == 1)),
        "checkers": (ys + xs) % 2 == 0,
    }
    masks = {name: Mask.of(pixels) for name, pixels in drawn.items()}
    return {name: mask for name, mask in masks.items() if mask is not None}


GALLERY = gallery()
shapes = pytest.mark.parametrize("mask", GALLERY.values(), ids=GALLERY.keys())


@st.composite
def masks(draw: st.DrawFn) -> tuple[Mask, int, int]:
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    mask = Mask.of(draw(hnp.arrays(bool, (height, width), elements=st.booleans())))
    return (mask or Mask(0, 0, np.ones((1, 1), dtype=bool))), height, width


def painted(mask: Mask, category: str = "dog", **record: Any) -> Instance:
    return Instance(category, mask.box, mask, **record)


def kept(dataset: Dataset, row: int, **measured: Any) -> Instance:
    a = dataset.annotations
    values = {"box": dataset.box(row), "mask": dataset.mask(row), "crowd": bool(a.crowd[row]), **measured}
    return Instance(dataset.names[a.category[row]], annotation=row, **values)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    folder = tmp_path / "mine"
    (folder / "pictures").mkdir(parents=True)
    (folder / "users.json").write_text(USERS_FILE)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / "pictures" / name), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    return dataset_of(folder / "users.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with three images."""
    for number in (1, 2, 3):
        path = tmp_path / "runs" / "one" / "images" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), number, np.uint8))
    return tmp_path / "runs" / "one"


@pytest.fixture
def samples(data: Dataset) -> list[Sample]:
    """A background with two painted objects, one with a changed label and a crowd, and one left as it is."""
    half = Mask.of(np.ones((12, 5), dtype=bool), 2, 3)
    assert half is not None
    paint = {"generator": "paste", "blend": "hard"}
    return [
        Sample(
            1,
            "000001.png",
            WIDTH,
            HEIGHT,
            0,
            0,
            (
                kept(data, 0),
                painted(GALLERY["with a hole"], score=0.87654321, how=paint),
                painted(GALLERY["split"], "toothbrush"),
            ),
            dropped=((2, 0.123456),),
        ),
        Sample(
            2,
            "000002.png",
            WIDTH,
            HEIGHT,
            0,
            1,
            (
                kept(data, 0, box=half.box, mask=half, changed=True),
                kept(data, 2),
                painted(GALLERY["one pixel"]),
            ),
        ),
        Sample(3, "000003.png", WIDTH, HEIGHT, 1, 0, (kept(data, 1),)),
    ]


def exported(run: Path, data: Dataset, samples: Sequence[Sample], *formats: exporters.Format) -> Any:
    paths = exporters.write(formats, run, data, samples)
    return json.loads(paths[0].read_text())


def quiet_coco(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def average_precision(path: Path, kind: str) -> float:
    """AP of predictions that are the file's own objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        found = [
            {
                "image_id": a["image_id"],
                "category_id": a["category_id"],
                "bbox": a["bbox"],
                "segmentation": truth.annToRLE(a) if kind == "segm" else None,
                "score": 0.9,
            }
            for a in truth.dataset["annotations"]
            if not a["iscrowd"]
        ]
        if kind == "bbox":
            for f in found:
                del f["segmentation"]
        judge = COCOeval(truth, truth.loadRes(found), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


def pixels(segmentation: coco.Segmentation, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, dict):
        return from_rle(segmentation["counts"], *segmentation["size"])
    return from_polygons(segmentation, height, width)


@shapes
def test_pycocotools_reads_back_every_shape_pixel_by_pixel(mask: Mask) -> None:
    written = coco.segmentation(mask, HEIGHT, WIDTH)
    assert np.array_equal(pixels(written, HEIGHT, WIDTH), mask.full(HEIGHT, WIDTH))


@given(masks())
def test_pycocotools_reads_back_any_mask_pixel_by_pixel(drawn: tuple[Mask, int, int]) -> None:
    mask, height, width = drawn
    written = coco.segmentation(mask, height, width)
    assert np.array_equal(pixels(written, height, width), mask.full(height, width))


@given(masks(), st.integers(0, 5), st.integers(0, 5))
def test_run_lengths_are_those_of_pycocotools(drawn: tuple[Mask, int, int], dx: int, dy: int) -> None:
    mask, height, width = drawn
    mask, height, width = mask.shifted(dx, dy), height + 2 * dy, width + 2 * dx
    full = np.asfortranarray(mask.full(height, width), dtype=np.uint8)
    counts = outline.run_lengths(mask, height, width)
    assert sum(counts) == height * width
    assert outline.compressed(counts, height, width) == coco_mask.encode(full)["counts"].decode()


@given(masks())
def test_rings_bridged_into_one_hold_the_same_pixels(drawn: tuple[Mask, int, int]) -> None:
    mask, height, width = drawn
    one = outline.bridged([ring.points for ring in outline.rings(mask)])
    assert np.array_equal(from_polygons([one.ravel().tolist()], height, width), mask.full(height, width))


def test_a_hole_is_not_a_crowd() -> None:
    mask = GALLERY["with a hole"]
    entry = coco.annotation(painted(mask), id=1, image_id=1, category_id=1, size=(HEIGHT, WIDTH))
    assert entry["iscrowd"] == 0
    assert entry["area"] == mask.area
    assert isinstance(entry["segmentation"]["counts"], str)


def test_two_parts_are_two_polygons_of_one_object() -> None:
    mask = GALLERY["split"]
    entry = coco.annotation(painted(mask), id=1, image_id=1, category_id=1, size=(HEIGHT, WIDTH))
    assert len(entry["segmentation"]) == 2
    assert (entry["iscrowd"], entry["area"]) == (0, mask.area)


def test_boxes_keep_their_edges_to_a_hundredth_of_a_pixel() -> None:
    entry = coco.annotation(Instance("dog", Box(0.104, 0.2, 10.299, 7.5)), id=1, image_id=1, category_id=1)
    assert entry["bbox"] == [0.1, 0.2, 10.2, 7.3]


@pytest.mark.parametrize("name", ["annotations.json", "merged.json"])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_predictions_score_one(
    run: Path, data: Dataset, samples: list[Sample], name: str, kind: str
) -> None:
    exporters.write(("coco", "merged"), run, data, samples, masks=True)
    path = run / name
    if kind == "segm":  # what has no mask cannot be scored by masks
        value = json.loads(path.read_text())
        value["annotations"] = [a for a in value["annotations"] if "segmentation" in a]
        path.write_text(json.dumps(value))
    if name == "merged.json":  # the user's own annotation id 0 is theirs to keep; COCOeval cannot match it
        assert 0 in quiet_coco(path).anns
    assert average_precision(path, kind) == 1.0


def test_ids_count_from_one_and_categories_keep_theirs(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    value = exported(run, data, samples, "coco")
    assert [a["id"] for a in value["annotations"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [i["id"] for i in value["images"]] == [1, 2, 3]
    assert value["categories"] == json.loads(USERS_FILE)["categories"]
    assert [a["category_id"] for a in value["annotations"]] == [1, 18, 90, 1, 18, 18, 90]


def test_an_untouched_label_says_what_the_file_says(run: Path, data: Dataset, samples: list[Sample]) -> None:
    path, *_ = exporters.write(("coco",), run, data, samples)
    text = path.read_text()
    assert '"bbox":[2.50, 3.0, 10.00, 12],"area":1.2e2' in text
    copies = [json.loads(text)["annotations"][n] for n in (0, 4, 6)]
    wanted = [json.loads(USERS_FILE)["annotations"][row] for row in (0, 2, 1)]
    for copy, original in zip(copies, wanted, strict=True):
        assert {**copy, "id": 0, "image_id": 0} == {**original, "id": 0, "image_id": 0}


def test_a_label_that_paint_hides_in_part_is_measured_anew_and_says_so(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    entry = exported(run, data, samples, "coco")["annotations"][3]
    assert entry["bbox"] == [2, 3, 5, 12]
    assert entry["area"] == 60
    assert pixels(entry["segmentation"], HEIGHT, WIDTH).sum() == 60
    assert entry["keypoints"] == [1.1, 2, 2]
    assert entry["rarefill"] == {"changed": True, "was": 55}


def test_painted_objects_say_how_they_came_to_be(run: Path, data: Dataset, samples: list[Sample]) -> None:
    value = exported(run, data, samples, "coco")
    assert value["annotations"][1]["rarefill"] == {"generator": "paste", "blend": "hard", "score": 0.8765}
    assert value["images"][0]["rarefill"] == {
        "background": 70,
        "copy": 0,
        "dropped": [{"annotation": 12, "visible": 0.1235}],
    }


def test_a_new_image_keeps_the_licence_and_not_the_link_to_another_picture(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    value = exported(run, data, samples, "coco")
    entry = value["images"][0]
    assert (entry["license"], entry["video_id"]) == (4, 1)
    assert "coco_url" not in entry
    assert entry["flickr_url"]  # whom to thank
    assert value["licenses"] == [{"id": 4, "name": "CC BY"}]
    assert value["videos"] == [{"id": 1, "frames": 300.0}]


def test_boxes_stay_boxes_where_the_data_has_no_masks(run: Path, data: Dataset) -> None:
    value = json.loads(USERS_FILE)
    for a in value["annotations"]:
        a.pop("segmentation", None)
    data.path.write_text(json.dumps(value))
    boxes_only = dataset_of(data.path)
    sample = Sample(1, "000001.png", WIDTH, HEIGHT, 0, 0, (painted(GALLERY["disc"]),))
    (entry,) = exported(run, boxes_only, [sample], "coco")["annotations"]
    assert "segmentation" not in entry
    assert entry["area"] == entry["bbox"][2] * entry["bbox"][3]
    exporters.write(("coco",), run, boxes_only, [sample], masks=True)
    (entry,) = json.loads((run / "annotations.json").read_text())["annotations"]
    assert entry["area"] == GALLERY["disc"].area
    assert len(entry["segmentation"]) == 1


def test_the_merged_file_begins_with_the_users_own_words(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    path, *_ = exporters.write(("merged",), run, data, samples)
    text = path.read_text()
    before = json.loads(USERS_FILE, parse_float=str, parse_int=str)
    after = json.loads(text, parse_float=str, parse_int=str)
    assert list(after) == list(before)
    for key in ("info", "licenses", "videos", "categories"):
        assert after[key] == before[key]
    assert after["images"][:2] == before["images"]
    assert after["annotations"][:3] == before["annotations"]
    assert [i["id"] for i in after["images"][2:]] == ["71", "72", "73"]
    assert [a["id"] for a in after["annotations"][3:]] == [str(56 + n) for n in range(7)]
    assert {a["image_id"] for a in after["annotations"][3:]} == {"71", "72", "73"}


def test_torchvision_finds_the_pictures_of_both_files(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    from torchvision.datasets import CocoDetection

    exporters.write(("coco", "merged"), run, data, samples)
    for root, name, n in ((run / "images", "annotations.json", 3), (data.root, "merged.json", 5)):
        with contextlib.redirect_stdout(io.StringIO()):
            reader = CocoDetection(str(root), str(run / name))
        assert len(reader) == n
        greys = {int(np.asarray(picture)[0, 0, 0]): targets for picture, targets in reader}
        assert len(greys[1]) == 3  # the picture numbered 1 has its three objects


def test_a_link_to_the_image_folder_does_not_lead_astray(
    run: Path, data: Dataset, samples: list[Sample], tmp_path: Path
) -> None:
    link = tmp_path / "elsewhere" / "deep" / "link"
    link.parent.mkdir(parents=True)
    link.symlink_to(data.root)
    linked = Dataset(data.path, link, "coco", data.categories, data.images, data.annotations)
    value = exported(run, linked, samples, "merged")
    assert (link / value["images"][2]["file_name"]).exists()


def test_a_run_without_images_writes_files_that_still_load(run: Path, data: Dataset) -> None:
    assert exported(run, data, [], "merged") == json.loads(USERS_FILE)
    value = exported(run, data, [], "coco")
    assert (value["images"], value["annotations"]) == ([], [])


def test_a_stream_of_samples_is_begun_anew_for_each_format(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    exporters.write(("coco", "merged", "yolo"), run, data, samples)
    listed = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    exporters.write(("coco", "merged", "yolo"), run, data, lambda: iter(samples), total=3)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == listed


def test_a_file_that_changed_since_it_was_loaded_is_refused(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    data.path.write_text(USERS_FILE.replace('"id": 55', '"id": 56'))
    with pytest.raises(RunError, match=r"no longer the file that was loaded.*no id 55"):
        exporters.write(("coco",), run, data, samples)


def test_a_failed_export_leaves_the_old_file_and_no_rest(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    (path,) = exporters.write(("coco",), run, data, samples)
    before = sorted(p.name for p in run.iterdir()), path.read_bytes()

    def broken() -> Any:
        yield samples[0]
        raise RunError("the record is damaged")

    with pytest.raises(RunError, match="damaged"):
        exporters.write(("coco",), run, data, broken)
    assert (sorted(p.name for p in run.iterdir()), path.read_bytes()) == before


def test_numbers_that_only_python_reads_come_out_as_they_went_in(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    text = USERS_FILE.replace('"mood": null', '"mood": [NaN, "\\ud83d", 1.0e0]')
    data.path.write_text(text)
    path, *_ = exporters.write(("merged",), run, dataset_of(data.path), samples)
    assert path.read_text().count('"mood": [NaN, "\\ud83d", 1.0e0]') == 1
    assert path.read_text().count('"mood":[NaN, "\\ud83d", 1.0e0]') == 1
    assert len(json.loads(path.read_text())["annotations"]) == 10
    assert '"bbox": [2.50, 3.0, 10.00, 12]' in path.read_text()


def test_entries_that_lenient_reading_left_out_stay_in_the_merged_file(
    run: Path, data: Dataset, samples: list[Sample]
) -> None:
    text = USERS_FILE.replace(
        '"annotations": [', '"annotations": [17, {"id": 900}, {"id": "x", "bbox": [NaN]},'
    )
    data.path.write_text(text)
    value = exported(run, dataset_of(data.path, lenient=True), samples, "merged")
    assert value["annotations"][:2] == [17, {"id": 900}]
    assert [a["id"] for a in value["annotations"][6:]] == [901 + n for n in range(7)]
    assert value["annotations"][6]["keypoints"] == [1.1, 2, 2]
