"""AP for any weighting of the images is what pycocotools gives when the images really are repeated."""

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from conftest import make_tiny
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rarefill.dataset import load
from rarefill.proof import bootstrap, score


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    path = make_tiny(folder, images=10)
    file = json.loads(path.read_text())
    for n, annotation in enumerate(file["annotations"]):
        annotation["iscrowd"] = int(n % 7 == 3)
        if annotation["iscrowd"]:
            annotation.pop("segmentation", None)
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3] * (8 if n % 5 == 0 else 1)
    path.write_text(json.dumps(file))
    return load(path)


def detections(data, *, seed=0, coarse=True):
    """Boxes near objects, boxes anywhere, and many equal scores."""
    draw = np.random.default_rng(seed)
    found = []
    a = data.annotations
    for row in range(len(a)):
        for _ in range(int(draw.integers(0, 4))):
            x1, y1, x2, y2 = a.boxes[row] + draw.normal(0, 1.2, 4)
            category = int(draw.choice([c.id for c in data.categories]))
            s = round(float(draw.uniform()), 1 if coarse else 6)
            box = [x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0)]
            image = int(data.images.id[a.image[row]])
            found.append({"image_id": image, "category_id": category, "bbox": box, "score": s})
    return found


def theirs(truth, found, repeats=None):
    """pycocotools' own accumulation, on a file in which images really are repeated."""
    coco, counts = truth.coco, repeats if repeats is not None else np.ones(len(truth.image_ids), dtype=int)
    images, annotations, rows = [], [], []
    for at, n in enumerate(counts):
        for _ in range(int(n)):
            old, new = truth.image_ids[at], len(images) + 1
            images.append({"id": new})
            for annotation in coco.dataset["annotations"]:
                if annotation["image_id"] == old:
                    annotations.append(annotation | {"id": len(annotations) + 1, "image_id": new})
            rows += [d | {"image_id": new} for d in found if d["image_id"] == old]
    with redirect_stdout(io.StringIO()):
        whole = COCO()
        whole.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": coco.dataset["categories"],
        }
        whole.createIndex()
        run = COCOeval(whole, whole.loadRes(json.loads(json.dumps(rows))), "bbox")
        run.evaluate()
        run.accumulate()
    at = [run.params.catIds.index(i) for i in truth.names]  # COCOeval sorts by id
    return run.eval["precision"][..., -1][:, :, at]  # thresholds, recalls, categories, areas


def figure(precision):
    return float(precision.mean()) if (precision > -1).all() else None


def close(value):
    return None if value is None else pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_pycocotools(data, seed):
    truth = score.truth(data)
    found = detections(data, seed=seed)
    ours = score.figures(score.match(truth, found), data.names)
    precision = theirs(truth, found)
    for c, name in enumerate(data.names):
        got = ours[name]
        assert close(figure(precision[:, :, c, 0])) == got.AP
        assert close(figure(precision[0, :, c, 0])) == got.AP50
        for s, value in enumerate((got.small, got.medium, got.large), 1):
            assert value == close(figure(precision[:, :, c, s]))


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_repeated_images(data, seed):
    truth = score.truth(data)
    found = detections(data, seed=seed, coarse=False)
    table = score.match(truth, found)
    weights = bootstrap.weights(np.arange(len(truth.image_ids)), 3, np.random.default_rng(seed))
    assert (weights.sum(axis=1) == len(truth.image_ids)).all()
    for row in weights:
        precision = theirs(truth, found, row)
        for c, name in enumerate(data.names):
            got = score.average_precision(table[name, "all"], row[None])[0]
            wanted = precision[:, :, c, 0].mean(axis=1)
            assert np.nan_to_num(got, nan=-1) == pytest.approx(wanted, abs=1e-12)


def test_nothing_found_is_zero_and_nothing_there_is_unknown(data):
    truth = score.truth(data)
    table = score.match(truth, [])
    assert score.figures(table, data.names)[data.names[0]].AP == 0
    matches = table[data.names[0], "all"]
    assert np.isnan(
        score.average_precision(matches, np.zeros((1, len(matches.objects)), dtype=np.int64))
    ).all()
    assert np.isnan(score.resampled(table, (), np.ones((2, len(matches.objects)), dtype=np.int64))).all()


def test_ignored_regions_cost_no_precision(tmp_path):
    path = make_tiny(tmp_path, images=4)
    file = json.loads(path.read_text())
    image = file["images"][0]
    image["ignore"] = [[0, 0, image["width"], image["height"]]]
    file["annotations"] = [a for a in file["annotations"] if a["image_id"] != image["id"]]
    path.write_text(json.dumps(file))
    data = load(path)
    truth = score.truth(data)
    a = data.annotations
    right = [
        {
            "image_id": int(data.images.id[a.image[row]]),
            "category_id": data.categories[a.category[row]].id,
            "bbox": list(data.box(row).xywh),
            "score": 0.5,
        }
        for row in range(len(a))
    ]
    spurious = {"image_id": image["id"], "category_id": right[0]["category_id"], "bbox": [1.0, 1.0, 9.0, 9.0]}
    figures = score.figures(score.match(truth, [*right, spurious | {"score": 0.9}]), data.names)
    assert all(f.AP in (None, pytest.approx(1.0)) for f in figures.values())
