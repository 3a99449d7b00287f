"""Everything that can be wrong with a dataset is found in one pass, and said with its place."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rarefill import image_files
from rarefill.dataset import load
from rarefill.errors import DataError


def lines(path: Path, **settings) -> list[str]:
    """What is wrong, a line each, without the last one that says what to do."""
    with pytest.raises(DataError) as raised:
        load(path, **settings)
    return [line for line in str(raised.value).splitlines() if not line.startswith("--lenient")]


def edited(path: Path, place: str, **changes) -> Path:
    """The file with one entry's keys changed; ... takes a key away."""
    document = json.loads(path.read_text())
    what, _, row = place.partition(" ")
    entry = document[what][int(row or 0)]
    for key, value in changes.items():
        entry[key] = value
        if value is ...:
            del entry[key]
    path.write_text(json.dumps(document))
    return path


SIZE = {"size": [80, 96]}
WRONG = {
    "a missing box": ({"bbox": ...}, ".bbox: is missing; expected [left, top, width, height]"),
    "a missing id": ({"id": ...}, ".id: is missing"),
    "a missing image": ({"image_id": ...}, ".image_id: is missing"),
    "a missing category": ({"category_id": ...}, ".category_id: is missing"),
    "an id in quotes": ({"id": "17"}, '.id: must be a whole number, got "17"; write it without quotes'),
    "an id that is a word": ({"id": "a17"}, '.id: must be a whole number, got "a17"'),
    "half an id": ({"id": 1.5}, ".id: must be a whole number, got 1.5"),
    "an id that is no number": ({"id": float("nan")}, ".id: must be a whole number, got NaN"),
    "an id beyond all integers": (
        {"id": 2**70},
        f".id: must be a whole number of at most 64 bits, got {2**70}",
    ),
    "an id that a float cannot tell": ({"id": 2.0**60}, f".id: must be a whole number, got {2.0**60}"),
    "no width": (
        {"bbox": [12.0, 40.0, 0.0, 9.5]},
        ".bbox: width must be above 0, got [12.0, 40.0, 0.0, 9.5]",
    ),
    "a negative height": (
        {"bbox": [12, 40, 3, -9]},
        ".bbox: height must be above 0, got [12.0, 40.0, 3.0, -9.0]",
    ),
    "a box outside": (
        {"bbox": [90, 4, 20, 5]},
        ".bbox: must lie inside its image (96x80), got [90.0, 4.0, 20.0, 5.0], which is x 90 to 110, y 4 to 9",
    ),
    "a box left of the image": (
        {"bbox": [-3, 4, 20, 5]},
        ".bbox: must lie inside its image (96x80), got [-3.0, 4.0, 20.0, 5.0], which is x -3 to 17, y 4 to 9",
    ),
    "a box of three": (
        {"bbox": [1, 2, 3]},
        ".bbox: must be four numbers [left, top, width, height], got [1, 2, 3]",
    ),
    "a box of words": (
        {"bbox": ["1", 2, 3, 4]},
        '.bbox: must be four numbers [left, top, width, height], got ["1", 2, 3, 4]',
    ),
    "a box without end": (
        {"bbox": [1, 2, float("inf"), 4]},
        ".bbox: must be finite numbers, got [1, 2, Infinity, 4]",
    ),
    "a box of no number": (
        {"bbox": [1, float("nan"), 3, 4]},
        ".bbox: must be finite numbers, got [1, NaN, 3, 4]",
    ),
    "an unknown image": ({"image_id": 4711}, ".image_id: no image has id 4711"),
    "an unknown category": ({"category_id": 5}, ".category_id: no category has id 5; there are 40, 3, 7"),
    "a negative area": ({"area": -3}, ".area: must not be below 0, got -3"),
    "an area in words": ({"area": "9"}, '.area: must be a finite number, got "9"'),
    "two crowds": ({"iscrowd": 2}, ".iscrowd: must be 0 or 1, got 2"),
    "half a point": (
        {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        ".segmentation: polygon 0 must be x y pairs, at least 3, got 7 numbers",
    ),
    "two points": (
        {"segmentation": [[1, 2, 3, 9, 5, 6], [1, 2, 3, 4]]},
        ".segmentation: polygon 1 must be x y pairs, at least 3, got 4 numbers",
    ),
    "a flat polygon": (
        {"segmentation": [1, 2, 3, 4, 5, 6]},
        ".segmentation: must be a list of polygons, got one flat list of 6 numbers; put it in one more [ ]",
    ),
    "a polygon of words": (
        {"segmentation": [[1, 2, 3, 4, "5", 6]]},
        '.segmentation: polygon 0 must hold finite numbers, got "5"',
    ),
    "a polygon of no number": (
        {"segmentation": [[1, 2, 3, 4, float("nan"), 6]]},
        ".segmentation: polygon 0 must hold finite numbers, got NaN",
    ),
    "a polygon far out": (
        {"segmentation": [[1, 2, 3, 4, 5, 1e9]]},
        ".segmentation: points must lie in or near the image (96x80), got a coordinate 1e+09",
    ),
    "a word for a mask": (
        {"segmentation": "mask.png"},
        '.segmentation: must be polygons [[x1, y1, x2, y2, ...], ...] or run lengths, got "mask.png"',
    ),
    "run lengths without counts": (
        {"segmentation": SIZE},
        ".segmentation: run lengths need size and counts, counts missing",
    ),
    "run lengths of another size": (
        {"segmentation": {"size": [96, 80], "counts": [7680]}},
        ".segmentation: size must be the image's [80, 96], got [96, 80]",
    ),
    "run lengths that end early": (
        {"segmentation": SIZE | {"counts": [5, 5]}},
        ".segmentation: counts must add up to 80 x 96 = 7680 pixels, got 10",
    ),
    "run lengths below 0": (
        {"segmentation": SIZE | {"counts": [7690, -10]}},
        ".segmentation: counts must not be below 0, got -10",
    ),
    "compressed run lengths that end early": (
        {"segmentation": SIZE | {"counts": "55"}},
        ".segmentation: counts must add up to 80 x 96 = 7680 pixels, got 10",
    ),
    "text that is no run lengths": (
        {"segmentation": SIZE | {"counts": "~ hello"}},
        ".segmentation: counts is not COCO's compressed run lengths",
    ),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG.keys())
def test_an_annotation_may_have(tiny, changes, said) -> None:
    assert lines(edited(tiny, "annotations 17", **changes)) == [f"annotations.json: annotations[17]{said}"]


@pytest.mark.parametrize("changes", [changes for changes, _ in WRONG.values()], ids=WRONG.keys())
def test_lenient_reading_leaves_out_and_reports_an_annotation_with(tiny, changes) -> None:
    wanted = load(tiny).annotations.id.tolist()
    dataset = load(edited(tiny, "annotations 17", **changes), lenient=True)
    assert dataset.annotations.id.tolist() == wanted[:17] + wanted[18:]
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith("annotations.json: annotations[17]")
    assert dataset.skipped[0].endswith("; left out")
    assert all(dataset.mask(row) is not None for row in range(len(wanted) - 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file_name": ...}, ".file_name: is missing"),
        ({"file_name": 7}, ".file_name: must be a text, got 7"),
        ({"file_name": ""}, '.file_name: must be a text, got ""'),
        ({"file_name": "half \ud800.png"}, '.file_name: must be a text, got "half \ud800.png"'),
        ({"width": ...}, ".width: is missing"),
        ({"height": 0}, ".height: must be a number of pixels above 0, got 0"),
        ({"height": "80"}, '.height: must be a whole number, got "80"'),
        ({"file_name": "/etc/a.png"}, ".file_name: must be relative to the image folder, got '/etc/a.png'"),
        ({"file_name": "C:\\a.png"}, ".file_name: must be relative to the image folder, got 'C:/a.png'"),
        ({"file_name": "../../a.png"}, ".file_name: must stay inside the image folder, got '../../a.png'"),
        (
            {"file_name": "x/..\\../a.png"},
            ".file_name: must stay inside the image folder, got 'x/../../a.png'",
        ),
        ({"file_name": "gone.png"}, ".file_name: no file "),
        ({"width": 80, "height": 96}, ".width: expected 80x96 as annotated, but 002.png is 96x80"),
    ],
)
def test_an_image_may_be_wrong(tiny, changes, said) -> None:
    found = [line for line in lines(edited(tiny, "images 2", **changes)) if "annotations[" not in line]
    assert len(found) == 1
    assert found[0].startswith(f"annotations.json: images[2]{said}")


def test_lenient_reading_leaves_out_a_bad_image_with_its_annotations(tiny) -> None:
    whole = load(tiny)
    dataset = load(edited(tiny, "images 2", file_name="gone.png"), lenient=True)
    assert dataset.images.file_name == whole.images.file_name[:2] + whole.images.file_name[3:]
    n = len(whole.rows_in(2))
    assert len(dataset.annotations) == len(whole.annotations) - n
    assert dataset.skipped[0].endswith(f"; left out with its {n} annotation{'s' * (n != 1)}")
    assert [dataset.images.file_name[i] for i in dataset.annotations.image] == [
        whole.images.file_name[i] for i in whole.annotations.image if i != 2
    ]


def test_an_image_that_loses_an_annotation_is_known_and_no_new_image_is_made_of_it(tiny) -> None:
    whole = load(tiny)
    edited(tiny, "images 2", file_name="gone.png")
    losing = int(whole.annotations.image[-1])
    dataset = load(edited(tiny, f"annotations {len(whole.annotations) - 1}", bbox=[1, 2, 0, 4]), lenient=True)
    row = dataset.images.id.tolist().index(whole.images.id[losing])
    assert dataset.incomplete == {row}
    assert np.flatnonzero(~dataset.usable).tolist() == [row]
    assert whole.incomplete == frozenset()
    assert whole.usable.all()


def test_a_mended_annotation_is_another_dataset(tiny) -> None:
    broken = load(edited(tiny, "annotations 17", bbox=[1, 2, 0, 4]), lenient=True)
    document = json.loads(tiny.read_text())
    del document["annotations"][17]
    tiny.write_text(json.dumps(document))
    assert load(tiny).digest != broken.digest


def test_all_problems_come_in_one_pass_in_the_order_of_the_file(tiny) -> None:
    edited(tiny, "annotations 3", bbox=[1, 2, 3], category_id=5, image_id="x")
    edited(tiny, "annotations 1", segmentation=[[1, 2]])
    edited(tiny, "images 5", file_name="../gone.png")
    edited(tiny, "images 6", file_name="gone.png", width=None)
    found = lines(tiny)
    places = [line.split(": ")[1] for line in found]
    assert places == [
        "images[5].file_name",
        "images[6].width",
        "images[6].file_name",
        "annotations[1].segmentation",
        "annotations[3].image_id",
        "annotations[3].bbox",
        "annotations[3].category_id",
    ]


def test_twenty_problems_are_shown_and_the_rest_is_counted(tiny) -> None:
    document = json.loads(tiny.read_text())
    for entry in document["annotations"]:
        entry["category_id"] = 99
    tiny.write_text(json.dumps(document))
    n, found = len(document["annotations"]), lines(tiny)
    assert len(found) == 21
    assert found[-1] == f"and {n - 20} more problems, {n} in all"
    with pytest.raises(DataError, match="nothing is left"):
        load(tiny, lenient=True)


def test_the_error_says_that_lenient_reading_would_help_only_where_it_would(tiny) -> None:
    with pytest.raises(DataError, match="--lenient leaves out"):
        load(edited(tiny, "annotations 1", bbox=[1, 2, 3]))
    with pytest.raises(DataError) as raised:
        load(edited(tiny, "categories 1", name=5))
    assert "--lenient" not in str(raised.value)
    with pytest.raises(DataError, match=r"categories\[1\].name: must be a text, got 5"):
        load(tiny, lenient=True)


@pytest.mark.parametrize(
    ("place", "changes", "said"),
    [
        ("annotations 4", {"id": 500}, "annotations[4].id: 500 is already the id of annotations[0]"),
        ("categories 1", {"id": 40}, "categories[1].id: 40 is already the id of 'square'"),
        ("categories 1", {"name": "square"}, "categories[1].name: 'square' is already the name of id 40"),
        ("images 3", {"id": 2}, "images[3].id: 2 is already the id of images[0]"),
    ],
)
def test_nothing_is_there_twice(tiny, place, changes, said) -> None:
    assert any(line.startswith(f"annotations.json: {said}") for line in lines(edited(tiny, place, **changes)))


def one_file_twice(path: Path, *, boxes: int) -> Path:
    """The first image's file has a second entry, with so many of the first one's boxes."""
    document = json.loads(path.read_text())
    first = document["images"][0]
    document["images"].append(first | {"id": 900})
    own = [a for a in document["annotations"] if a["image_id"] == first["id"]]
    document["annotations"] += [a | {"id": 9000 + i, "image_id": 900} for i, a in enumerate(own[:boxes])]
    path.write_text(json.dumps(document))
    return path


def test_entries_of_one_file_with_other_objects_are_refused(tiny) -> None:
    row = len(json.loads(tiny.read_text())["images"])
    said = "one entry must hold all objects of a file"
    assert lines(one_file_twice(tiny, boxes=1)) == [
        f"annotations.json: images[0].file_name: '000.png' is also the file of images[{row}], with other objects; {said}",
        f"annotations.json: images[{row}].file_name: '000.png' is also the file of images[0], with other objects; {said}",
    ]


def test_of_entries_of_one_file_with_other_objects_lenient_reading_trusts_neither(tiny) -> None:
    assert "000.png" not in load(one_file_twice(tiny, boxes=0), lenient=True).images.file_name


def test_an_image_that_is_listed_again_with_all_its_objects_is_read(tiny) -> None:
    assert load(one_file_twice(tiny, boxes=99)).images.file_name.count("000.png") == 2


def test_large_ids_are_read_the_patient_way_too(tiny) -> None:
    dataset = load(edited(edited(tiny, "annotations 0", id=2**62), "annotations 1", id=501.0))
    assert {2**62, 501} <= set(dataset.annotations.id.tolist())


def test_where_every_id_is_quoted_a_line_for_each_key_says_so(tiny) -> None:
    document = json.loads(tiny.read_text())
    for what in ("categories", "images", "annotations"):
        document[what] = [
            {key: str(value) if key.endswith("id") else value for key, value in entry.items()}
            for entry in document[what]
        ]
    tiny.write_text(json.dumps(document))
    n, found = len(document["annotations"]), lines(tiny)
    quoted = ': must be a whole number, got "{}"; write it without quotes, and so {} more '
    assert found[:2] == [
        "annotations.json: categories[0].id" + quoted.format(40, 2) + "categories[].id",
        "annotations.json: images[0].id" + quoted.format(2, 11) + "images[].id",
    ]
    assert found[3] == "annotations.json: annotations[0].image_id" + quoted.format(2, n - 1) + (
        "annotations[].image_id"
    )
    assert len(found) == 5


def test_a_category_without_a_readable_id_is_told_once(tiny) -> None:
    assert lines(edited(tiny, "categories 1", id="3")) == [
        'annotations.json: categories[1].id: must be a whole number, got "3"; write it without quotes'
    ]


def test_of_two_files_with_one_id_lenient_reading_trusts_neither(tiny) -> None:
    dataset = load(edited(tiny, "images 3", id=2), lenient=True)
    assert not {"000.png", "003.png"} & set(dataset.images.file_name)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [..., [], None, {}, "x"])
def test_an_empty_dataset_is_refused(tiny, key, value) -> None:
    document = json.loads(tiny.read_text())
    document[key] = value
    if value is ...:
        del document[key]
    tiny.write_text(json.dumps(document))
    said = "is missing" if value is ... else f"must be a list with entries, got {json.dumps(value)}"
    if key == "annotations" and value == []:
        said += "; label some objects of each class first: new ones are made after real ones"
    assert f"annotations.json: {key} {said}" in lines(tiny)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_entries_that_are_no_objects_are_said(tiny, key) -> None:
    document = json.loads(tiny.read_text())
    document[key].append([1, 2])
    tiny.write_text(json.dumps(document))
    row = len(document[key]) - 1
    assert f"annotations.json: {key}[{row}]: expected an object, got [1, 2]" in lines(tiny)


@pytest.mark.parametrize("at", [1, 40, 200, 900, 2000, -1])
def test_a_file_that_is_cut_off_says_where(tiny, at) -> None:
    data = tiny.read_bytes()[:at]
    tiny.write_bytes(data)
    (said,) = lines(tiny)
    assert said.startswith("annotations.json: cut off at line 1 column ")
    assert f"after {len(data)} bytes" in said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a JSON file: it is empty"),
        (b"<html>404</html>", 'expected { at line 1 column 1, got "<html>404</html>"'),
        (b"PK\x03\x04\xff\xfe\x99", "not a JSON file in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not a JSON file in UTF-8"),
        (b'{"images": [1,,2]}', "not valid JSON at line 1 column 15"),
        (
            b"[]",
            "expected an object with images, annotations and categories, got []; a list is what detection",
        ),
        (b"17", "expected an object with images, annotations and categories, got 17"),
        (b"[" * 200_000, "nested too deep"),
    ],
)
def test_what_is_no_coco_file_gets_one_line(tmp_path, data, said) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(data)
    (line,) = lines(path)
    assert said in line


def test_a_file_that_is_not_there_gets_one_line(tmp_path) -> None:
    assert "no such file" in lines(tmp_path / "annotations.json")[0]


def test_boxes_as_shares_are_recognised(tiny) -> None:
    document = json.loads(tiny.read_text())
    for entry in document["annotations"]:
        entry["bbox"] = [v / 100 for v in entry["bbox"]]
    tiny.write_text(json.dumps(document))
    assert "every box lies between 0 and 1" in lines(tiny)[0]


def test_boxes_as_corners_are_recognised(tiny) -> None:
    document = json.loads(tiny.read_text())
    for entry in document["annotations"]:
        entry["bbox"] = [60, 50, 90, 75]
    tiny.write_text(json.dumps(document))
    assert "would fit as x1 y1 x2 y2" in lines(tiny)[0]


def saved(tiny: Path, **settings) -> Path:
    """The third image, written anew as a JPEG."""
    path = tiny.parent / "images" / "002.jpg"
    Image.effect_noise((96, 80), 60).save(path, **settings)
    edited(tiny, "images 2", file_name="002.jpg")
    return path


def test_an_image_that_asks_to_be_turned_is_refused(tiny) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tiny, exif=exif)
    (said,) = lines(tiny)
    assert "images[2].file_name" in said
    assert "EXIF orientation 6" in said


def test_an_image_that_is_upright_by_its_tag_is_fine(tiny) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    saved(tiny, exif=exif)
    assert len(load(tiny).images) == 12


@pytest.mark.parametrize("name", ["002.jpg", "003.png"])
def test_a_cut_off_image_is_found_without_decoding_the_others(tiny, name) -> None:
    saved(tiny)
    path = tiny.parent / "images" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (said,) = lines(tiny)
    assert f"{name} is cut off after {path.stat().st_size} bytes" in said


def test_a_jpeg_that_lost_a_block_is_left_out_in_lenient_reading(tiny) -> None:
    images = json.loads(tiny.read_text())["images"]
    for row, entry in enumerate(images[:2]):
        old = tiny.parent / "images" / entry["file_name"]
        new = old.with_suffix(".jpg")
        Image.open(old).save(new, quality=95)
        edited(tiny, f"images {row}", file_name=new.name)
    data = bytearray(new.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    new.write_bytes(data)
    dataset = load(tiny, lenient=True)
    assert len(dataset.images) == len(images) - 1
    assert "000.jpg" in dataset.images.file_name
    assert "001.jpg is damaged inside (Corrupt JPEG data" in dataset.skipped[0]
    with pytest.raises(DataError, match=r"001\.jpg: is damaged inside"):
        load(tiny).read(1)


def test_what_cameras_append_to_a_jpeg_does_no_harm(tiny) -> None:
    path = saved(tiny)
    path.write_bytes(path.read_bytes() + b"\0" * 20_000)
    assert len(load(tiny).images) == 12


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_found(tiny, data) -> None:
    saved(tiny).write_bytes(data)
    (said,) = lines(tiny)
    assert f"not a readable image ({len(data)} bytes)" in said


def test_floating_point_images_are_refused(tiny) -> None:
    Image.new("F", (96, 80)).save(tiny.parent / "images" / "002.tiff")
    (said,) = lines(edited(tiny, "images 2", file_name="002.tiff"))
    assert "has F pixels; 8 or 16 bit" in said


def test_a_link_out_of_the_image_folder_is_refused(tiny, tmp_path) -> None:
    outside = tmp_path / "outside.png"
    image = tiny.parent / "images" / "002.png"
    image.rename(outside)
    image.symlink_to(outside)
    (said,) = lines(tiny)
    assert "images[2].file_name: '002.png' is a link out of the image folder" in said


def test_a_folder_of_links_to_elsewhere_is_refused_in_a_few_lines(tiny, tmp_path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tiny.parent / "images").rename(elsewhere)
    (tiny.parent / "images").mkdir()
    for image in elsewhere.iterdir():
        (tiny.parent / "images" / image.name).symlink_to(image)
    said = lines(edited(tiny, "annotations 4", category_id=99))
    assert [line.split(":")[-1].split(" to ")[0] for line in said[:3]] == [
        f" '00{i}.png' is a link out of the image folder," for i in range(3)
    ]
    assert "annotations[4].category_id" in said[3]
    assert said[4] == (
        "and 9 more such links, 12 in all: images are read from inside their folder only; "
        "copy the files there, or name the real folder with --images-dir"
    )
    assert len(said) == 5
    assert len(load(edited(tiny, "annotations 4", category_id=7), elsewhere).images) == 12


def test_links_inside_the_image_folder_and_to_it_are_followed(tiny) -> None:
    images = tiny.parent / "images"
    (images / "real").mkdir()
    (images / "002.png").rename(images / "real" / "002.png")
    (images / "002.png").symlink_to("real/002.png")
    images.rename(tiny.parent / "elsewhere")
    images.symlink_to("elsewhere")
    assert len(load(tiny).images) == 12


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_says_so(tiny) -> None:
    (tiny.parent / "images" / "002.png").chmod(0)
    assert "Permission denied" in lines(tiny)[0]


def test_very_large_images_are_only_looked_at_by_their_headers(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    path = tmp_path / "large.png"
    Image.new("L", (96, 80)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert image_files.examine(path, str(tmp_path), (96, 80)) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert "too large" in image_files.examine(path, str(tmp_path), (96, 80))[1]


def test_files_are_not_looked_at_when_told_not_to(tiny) -> None:
    for image in (tiny.parent / "images").iterdir():
        image.unlink()
    assert len(load(tiny, check_files=False).images) == 12


def test_what_is_left_out_is_said_while_reading(tiny) -> None:
    said = []

    class Spoken:
        def bar(self, what, total, unit):
            from rarefill.progress import SILENT

            return SILENT.bar(what, total, unit)

        def say(self, line):
            said.append(line)

    dataset = load(edited(tiny, "annotations 1", bbox=[1, 2, 3]), lenient=True, progress=Spoken())
    assert tuple(said) == dataset.skipped


def paths(value, here=()):
    """Every place in a JSON value."""
    yield here
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield from paths(inner, (*here, key))


ODD = [
    None,
    True,
    "",
    "x",
    -1,
    0,
    1.5,
    1e308,
    -(2**63),
    2**64,
    float("nan"),
    float("-inf"),
    [],
    [[]],
    {},
    [None],
    "\ud800",
]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("fuzz") / "tiny", images=3)


@given(data=st.data())
def test_whatever_stands_anywhere_is_read_or_said(good, data) -> None:
    document = json.loads(good.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(list(paths(document))[1:]))
        inner = document
        for key in way:
            inner = inner[key]
        inner[last] = data.draw(st.sampled_from(ODD))
    path = good.with_name("changed.json")
    path.write_text(json.dumps(document))
    for lenient in (False, True):
        try:
            dataset = load(path, good.parent / "images", lenient=lenient)
        except DataError as e:
            assert "changed.json" in str(e)  # noqa: PT017
        else:
            for row in range(len(dataset.annotations)):
                dataset.mask(row)
            assert np.isfinite(dataset.annotations.boxes).all()


@given(st.data())
def test_any_broken_byte_is_read_or_said(good, data) -> None:
    text = bytearray(good.read_bytes())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path = good.with_name("broken.json")
    path.write_bytes(text)
    try:
        load(path, good.parent / "images")
    except DataError as e:
        assert "broken.json" in str(e)  # noqa: PT017
