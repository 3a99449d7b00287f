"""Who is served: AP by groups is COCO's, and shows whom a detector does not see."""

import json

import cv2
import numpy as np
import pytest
from test_proof_score import detections

from rarefill.attributes import COCO_SIZES
from rarefill.dataset import load
from rarefill.proof import score, served

SIDE = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve images, a dark and a light disc of two sizes on each, all of one category."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "images").mkdir()
    images, annotations = [], []
    for n in range(12):
        picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
        for k, (grey, px) in enumerate(((30, 20 if n % 2 else 60), (220, 60 if n % 2 else 20))):
            x, y = 30 + 110 * k, 40 + 8 * n
            cv2.circle(picture, (x + px // 2, y + px // 2), px // 2, (grey,) * 3, -1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": n + 1,
                    "category_id": 7,
                    "bbox": [x, y, px, px],
                    "area": px * px,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(folder / "images" / f"{n}.png"), picture)
        images.append({"id": n + 1, "file_name": f"{n}.png", "width": SIDE, "height": SIDE})
    file = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "disc"}]}
    (folder / "annotations.json").write_text(json.dumps(file))
    return load(folder / "annotations.json")


def found(data, rows, score=0.9):
    a = data.annotations
    corners = a.boxes[rows]
    return [
        {
            "image_id": int(data.images.id[a.image[row]]),
            "category_id": 7,
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": score,
        }
        for row, (x1, y1, x2, y2) in zip(rows, corners, strict=True)
    ]


def served_by(data, free, made):
    held = {("rfs", 0): free, ("paste", 0): made}
    parts = served.served(data, "disc", held, np.arange(len(data.images)), baseline="rfs", arm="paste")
    return {(p.attribute, p.group.split(" (")[0]): p for p in parts}


def test_ap_by_size_is_pycocotools_own(data):
    noisy = [d for d in detections(data, seed=3) if d["category_id"] == 7]
    (figures,) = score.figures(score.match(score.truth(data), noisy), ["disc"]).values()
    parts = served_by(data, noisy, noisy)
    assert figures.small is not None
    assert 0 < figures.small < 1
    assert parts[COCO_SIZES, "small"].ap["rfs"] == pytest.approx(figures.small, abs=1e-12)
    assert parts[COCO_SIZES, "medium"].ap["rfs"] == pytest.approx(figures.medium, abs=1e-12)


def test_whom_a_detector_does_not_see_stands_in_the_table(data):
    every = np.arange(len(data.annotations))
    light = every[1::2]
    parts = served_by(data, found(data, light), found(data, every))
    dark, bright = parts["brightness", "dark"], parts["brightness", "light"]
    assert (dark.objects, bright.objects) == (12, 12)
    assert (dark.ap["rfs"], dark.ap["paste"], bright.ap["rfs"]) == pytest.approx((0, 1, 1))
    assert dark.difference.low == pytest.approx(1)
    assert bright.difference.value == pytest.approx(0)
    assert parts["size", "small"].ap["rfs"] == pytest.approx(0.5, abs=0.01)


def test_what_is_found_where_nothing_is_counts_against_its_own_group(data):
    every = np.arange(len(data.annotations))
    spurious = [d | {"bbox": [5.0, 200.0, 20.0, 20.0], "score": 0.99} for d in found(data, every[::2])]
    parts = served_by(data, found(data, every), found(data, every) + spurious)
    assert parts[COCO_SIZES, "medium"].ap["paste"] == pytest.approx(1)
    assert parts[COCO_SIZES, "small"].ap["paste"] < 0.7


def test_groups_of_a_few_objects_are_left_out(data):
    parts = served_by(data, [], [])
    assert ("brightness", "medium") not in parts
    assert all(p.objects >= served.FEWEST for p in parts.values())
    assert all(p.ap == {"rfs": 0.0, "paste": 0.0} for p in parts.values())
