"""Reading good COCO files, in all the forms in which they come. The judge is pycocotools."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from gallery import SHAPES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from rarefill import geometry, segments
from rarefill.dataset import Dataset, load
from rarefill.errors import DataError


def write(
    folder: Path, segmentations: list, *, size: tuple[int, int] = (30, 20), images: str = "images"
) -> Path:
    """A COCO file with one image and one annotation for each segmentation; ids begin at 0."""
    width, height = size
    (folder / images).mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(folder / images / "a.png")
    document = {
        "images": [{"id": 9, "file_name": "a.png", "width": width, "height": height}],
        "annotations": [
            {"id": n, "image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "iscrowd": 0}
            | ({} if value is ... else {"segmentation": value})
            for n, value in enumerate(segmentations)
        ],
        "categories": [{"id": 3, "name": "thing"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def as_judged(path: Path) -> dict[int, np.ndarray]:
    judge = COCO(str(path))
    return {number: judge.annToMask(entry).astype(bool) for number, entry in judge.anns.items()}


def full(dataset: Dataset, row: int) -> np.ndarray:
    mask = dataset.mask(row)
    image = int(dataset.annotations.image[row])
    height, width = int(dataset.images.height[image]), int(dataset.images.width[image])
    return np.zeros((height, width), bool) if mask is None else mask.full(height, width)


def plain(pixels: np.ndarray) -> list[int]:
    flat = np.concatenate(([False], pixels.ravel(order="F"), [False]))
    ends = np.unique(np.concatenate((np.flatnonzero(np.diff(flat.astype(int))), [pixels.size])))
    return np.diff(ends, prepend=0).tolist()


def test_gapped_and_unordered_ids_keep_their_order_and_their_meaning(tiny) -> None:
    dataset, judge = load(tiny), COCO(str(tiny))
    a = dataset.annotations
    assert a.id.tolist() == list(judge.anns)
    assert dataset.images.id.tolist() == list(judge.imgs)
    assert [c.id for c in dataset.categories] == [40, 3, 7]
    for row, number in enumerate(a.id.tolist()):
        entry = judge.anns[number]
        assert int(dataset.images.id[a.image[row]]) == entry["image_id"]
        assert dataset.categories[a.category[row]].id == entry["category_id"]
        assert list(dataset.box(row).xywh) == entry["bbox"]
        assert a.area[row] == entry["area"]


def test_masks_are_those_of_pycocotools(tiny) -> None:
    dataset, judged = load(tiny), as_judged(tiny)
    for row, number in enumerate(dataset.annotations.id.tolist()):
        assert np.array_equal(full(dataset, row), judged[number])


@pytest.mark.parametrize("pixels", SHAPES.values(), ids=SHAPES.keys())
def test_run_lengths_of_both_kinds_are_read(tmp_path, pixels) -> None:
    height, width = pixels.shape
    counts = geometry.rle_counts(pixels).decode()
    forms = [{"size": [height, width], "counts": c} for c in (counts, plain(pixels))]
    dataset = load(write(tmp_path, forms, size=(width, height)))
    assert all(np.array_equal(full(dataset, row), pixels) for row in range(2))


def test_polygons_of_one_and_of_two_parts_are_read(tmp_path) -> None:
    one = [[2.0, 2, 10, 2, 10, 9]]
    path = write(tmp_path, [one, [*one, [15.5, 4.5, 20, 4, 18, 12, 14, 11]]])
    dataset, judged = load(path), as_judged(path)
    assert all(np.array_equal(full(dataset, row), judged[row]) for row in range(2))


@pytest.mark.parametrize("nothing", [..., None, [], [[]], {}, ""])
def test_a_segmentation_that_says_nothing_is_none(tmp_path, nothing) -> None:
    dataset = load(write(tmp_path, [nothing]))
    assert not dataset.has_mask(0)
    assert dataset.mask(0) is None


def test_an_empty_part_among_polygons_is_left_out(tmp_path) -> None:
    dataset = load(write(tmp_path, [[[], [2, 2, 10, 2, 10, 9]]]))
    assert json.loads(bytes(dataset.annotations.segmentation[0])) == [[2, 2, 10, 2, 10, 9]]


def test_a_crowd_is_one_whether_its_file_says_1_or_true(tmp_path) -> None:
    path = write(tmp_path, [..., ..., ...])
    document = json.loads(path.read_text())
    for entry, crowd in zip(document["annotations"], (1, True, 0), strict=True):
        entry["iscrowd"] = crowd
    path.write_text(json.dumps(document))
    dataset = load(path)
    assert dataset.annotations.crowd.tolist() == [True, True, False]
    assert dataset.rows_of("thing").tolist() == [2]
    assert dataset.rows_of("thing", crowds=True).tolist() == [0, 1, 2]


def test_an_annotation_may_have_the_id_0(tmp_path) -> None:
    assert load(write(tmp_path, [...])).annotations.id.tolist() == [0]


def test_an_area_that_is_missing_is_the_boxs(tmp_path) -> None:
    path = write(tmp_path, [...])
    path.write_text(path.read_text().replace("[0, 0, 1, 1]", "[2, 3, 4, 5]"))
    assert load(path).annotations.area.tolist() == [20]


def test_a_box_that_rounding_pushed_over_the_edge_is_clipped(tmp_path) -> None:
    path = write(tmp_path, [...])
    path.write_text(path.read_text().replace("[0, 0, 1, 1]", "[-0.7, 15, 30.9, 6]"))
    assert load(path).annotations.boxes.tolist() == [[0, 15, 30, 20]]


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "1e999"])
def test_odd_numbers_in_unknown_keys_do_no_harm(tiny, odd) -> None:
    wanted = load(tiny)
    tiny.write_text(tiny.read_text().replace('"kept": true', f'"kept": {odd}'))
    dataset = load(tiny)
    assert np.array_equal(dataset.annotations.boxes, wanted.annotations.boxes)
    assert all(
        np.array_equal(full(dataset, row), full(wanted, row)) for row in range(len(wanted.annotations))
    )


def test_whole_numbers_written_with_a_point_are_read(tiny) -> None:
    wanted = load(tiny)
    tiny.write_text(tiny.read_text().replace('"width": 96,', '"width": 96.0,'))
    assert np.array_equal(load(tiny).images.width, wanted.images.width)


def test_a_byte_order_mark_is_no_problem(tiny) -> None:
    wanted = load(tiny).annotations.id
    tiny.write_bytes(b"\xef\xbb\xbf" + tiny.read_bytes())
    assert np.array_equal(load(tiny).annotations.id, wanted)


def test_the_source_is_the_files_own_json(tiny) -> None:
    assert load(tiny).source() == json.loads(tiny.read_text())


def test_windows_separators_become_slashes(tmp_path) -> None:
    path = write(tmp_path, [...])
    path.write_text(path.read_text().replace("a.png", "images\\\\a.png"))
    assert load(path).images.file_name == ["images/a.png"]


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations.json", "."),
        ("annotations.json", "images"),
        ("annotations.json", "JPEGImages"),
        ("train.json", "train"),
        ("train.json", "images/train"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_default.json", "images/default"),
        ("annotations/all.json", "images"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_images_are_found_in_the_usual_places(tmp_path, file, images) -> None:
    made = write(tmp_path, [...], images=images)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    made.rename(path)
    assert load(path).image_path(0).resolve() == (tmp_path / images / "a.png").resolve()


def test_images_may_be_named(tmp_path) -> None:
    path = write(tmp_path, [...], images="far/away")
    with pytest.raises(DataError, match=r"found none of its images, such as 'a.png', in .*--images-dir"):
        load(path)
    assert load(path, tmp_path / "far/away").image_path(0).is_file()
    with pytest.raises(DataError, match="holds none of the images"):
        load(path, tmp_path)


def test_a_folder_with_one_annotation_file_means_that_file(tiny) -> None:
    assert load(tiny.parent).path == tiny
    (tiny.parent / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"name the COCO file .*annotations.json, other.json"):
        load(tiny.parent)


def test_a_dataset_reads_its_images(tiny) -> None:
    dataset = load(tiny)
    assert dataset.read(3).shape == (80, 96, 3)


def test_rows_in_an_image_are_in_the_files_order(tiny) -> None:
    dataset = load(tiny)
    rows = [dataset.rows_in(image).tolist() for image in range(len(dataset.images))]
    assert sorted(chain.from_iterable(rows)) == list(range(len(dataset.annotations)))
    assert all(found == sorted(found) for found in rows)


def test_the_digest_names_the_content(tiny) -> None:
    first = load(tiny).digest
    assert load(tiny).digest == first
    tiny.write_text(tiny.read_text().replace('"name": "star"', '"name": "moon"'))
    assert load(tiny).digest != first


@given(
    st.lists(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)), min_size=1, max_size=5)
)
def test_compressed_run_lengths_are_added_up_without_drawing(images) -> None:
    counts = [coco_mask.encode(np.asfortranarray(pixels, np.uint8))["counts"] for pixels in images]
    totals, least = geometry.run_totals(counts)
    assert totals.tolist() == [pixels.size for pixels in images]
    assert least.tolist() == [min(plain(pixels)) for pixels in images]


def test_large_images_are_added_up_as_well() -> None:
    pixels = np.zeros((3000, 5000), dtype=bool)
    pixels[1500:, 4000:] = True
    assert geometry.run_totals([geometry.rle_counts(pixels)])[0].tolist() == [15_000_000]


def test_checks_in_chunks_find_the_same_as_at_once(monkeypatch) -> None:
    column = [b"[[1,2,3]]", b"", b"[[1,2,3,4,5,6]]", b'"x"', b"[]", b"[[1,2,3,4,5,99]]"] * 5
    size = np.full((len(column), 2), 20.0)
    at_once = list(segments.check(list(column), size))
    monkeypatch.setattr(segments, "CHUNK", 4)
    assert sorted(segments.check(list(column), size)) == sorted(at_once)
    assert {row % 6 for row, _ in at_once} == {0, 3, 5}


@pytest.mark.shelf
@pytest.mark.parametrize("name", ["bccd", "aquarium", "hituav", "everyday", "sen2ships"])
def test_real_datasets_are_read_as_pycocotools_reads_them(shelf, name) -> None:
    path = shelf / name / "annotations.json"
    dataset, judge = load(path), COCO(str(path))
    a = dataset.annotations
    assert dataset.skipped == ()
    assert a.id.tolist() == list(judge.anns)
    wanted = np.array([entry["bbox"] for entry in judge.anns.values()], dtype=float)
    wanted[:, 2:] += wanted[:, :2]
    assert np.abs(a.boxes - wanted).max() <= 1
    for row in range(0, len(a), 37):
        entry = judge.anns[int(a.id[row])]
        if entry.get("segmentation"):
            assert np.array_equal(full(dataset, row), judge.annToMask(entry).astype(bool))
