"""Near-copies: what was pasted is found again, what is only alike is not."""

import json

import cv2
import numpy as np
import pytest

from rarefill import dataset, likeness, pipeline, recipe, windows
from rarefill.annotators.originals import Originals
from rarefill.errors import RunError
from rarefill.fidelity import copies
from rarefill.geometry import Box, box_mask
from rarefill.scene import Layout, Placement, Reason, Render, Verdict
from rarefill.windows import Windows


def grains(n: int, seed: int) -> np.ndarray:
    """Objects with a grain of their own, uint8 (n, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n, 32, 32, 3))
    fine = np.stack([cv2.GaussianBlur(one, (0, 0), 1.0) for one in coarse])
    return np.clip(128 + 90 * fine, 0, 255).astype(np.uint8)


def held(objects: np.ndarray, images) -> Windows:
    """Windows whose objects fill the middle 32 px, so that `stretched` finds them again."""
    n = len(objects)
    pixels = np.full((n, windows.WINDOW_PX, windows.WINDOW_PX, 3), 128, np.uint8)
    side = 96
    for one, o in zip(pixels, objects, strict=True):
        one[16 : 16 + side, 16 : 16 + side] = cv2.resize(o, (side, side), interpolation=cv2.INTER_CUBIC)
    share = np.tile([16 / 128, 16 / 128, 112 / 128, 112 / 128], (n, 1))
    return Windows(
        pixels, np.zeros((n, 48, 48, 3), np.uint8), np.asarray(images), np.arange(n), share * 128, share
    )


def test_the_quick_way_is_the_whole_one_where_something_is_a_copy():
    pool = grains(30, 1)
    turned = np.stack([np.rot90(pool[7]), pool[12][:, ::-1], pool[3]])
    lit = np.clip(turned * 0.8 + 20, 0, 255).astype(np.uint8)
    best, which = likeness.Pool(pool).most_alike(lit)
    whole = likeness.likeness(lit, pool)
    assert which.tolist() == [7, 12, 3] == whole.argmax(axis=1).tolist()
    assert np.allclose(best, whole.max(axis=1), atol=0.02)
    assert (best > 0.9).all()


def test_the_quick_way_is_never_above_the_whole_one():
    objects, pool = grains(12, 2), grains(20, 3)
    best, _ = likeness.Pool(pool).most_alike(objects)
    assert (best <= likeness.likeness(objects, pool).max(axis=1) + 1e-5).all()


def test_what_may_not_be_compared_is_not():
    pool = grains(6, 4)
    allowed = ~np.eye(6, dtype=bool)
    best, which = likeness.Pool(pool).most_alike(pool, allowed=allowed)
    assert (which != np.arange(6)).all()
    assert (best < 0.9).all()
    none, _ = likeness.Pool(pool).most_alike(pool[:1], allowed=np.zeros((1, 6), bool))
    assert none.tolist() == [-1.0]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0)])
def test_nothing_is_like_nothing(n, m):
    none = np.zeros((0, 32, 32, 3), np.uint8)
    best, which = likeness.Pool(grains(m, 2) if m else none).most_alike(grains(n, 1) if n else none)
    assert len(best) == len(which) == n


def test_copies_are_found_and_new_objects_are_not():
    real = grains(40, 50)
    painted = np.concatenate([real[[4, 9]][:, ::-1], grains(20, 200)])
    found = copies.find(held(painted, np.arange(22)), held(real, np.arange(40) // 2))
    assert found.near[:2].all()
    assert found.nearest[:2].tolist() == [4, 9]
    assert found.near[2:].mean() < 0.3
    assert found.mark is not None
    assert (found.real_alike > found.mark).mean() == pytest.approx(likeness.CHANCE, abs=0.03)


def test_objects_of_one_image_set_no_mark():
    found = copies.find(held(grains(3, 7), [0, 1, 2]), held(grains(12, 8), np.zeros(12, int)))
    assert found.mark is None
    assert not found.near.any()
    assert len(found.real_alike) == 0


def test_a_recipe_can_refuse_near_copies(tmp_path):
    data = dataset.load(textured(tmp_path / "data"))
    layout = Layout(
        0,
        0,
        (
            Placement("grain", box_mask(Box(60, 10, 92, 42))),
            Placement("grain", box_mask(Box(110, 60, 142, 92))),
        ),
    )
    pixels = data.read(0).copy()
    background = pixels.copy()
    pixels[10:42, 60:92] = np.rot90(data.read(5)[20:52, 20:52])
    pixels[60:92, 110:142] = grains(1, 999)[0]
    render = Render(layout, background, pixels, ())
    boxes = [p.box for p in layout.placements]
    verdicts = (
        Verdict(0, Reason.ACCEPTED, box=boxes[0]),
        Verdict(1, Reason.UNCHECKED, box=boxes[1]),
        Verdict(0, Reason.LOW_SCORE, box=boxes[0]),
        Verdict(0, Reason.NOT_PAINTED),
    )
    (judged,) = Originals(data).judged([render], [verdicts])
    assert [v.reason for v in judged] == [Reason.COPY, Reason.UNCHECKED, Reason.LOW_SCORE, Reason.NOT_PAINTED]


def test_a_run_refuses_them_when_asked(tmp_path):
    path = textured(tmp_path / "data")
    asked = {
        "data": path,
        "fill": {"grain": 4},
        "layout": {"max_overlap": 0.5},
        "annotator": {"checker": "none"},
        "workers": 1,
        "floor": 0,
        "top_ups": 0,
    }
    asked |= {"generator": {"generator": "paste", "photometric": 0, "match_noise": False, "blends": ["hard"]}}
    pasted = pipeline.run(recipe.resolve({**asked, "out": tmp_path / "a"}))
    assert pasted.tallies[0].made == 4
    strict = asked | {
        "annotator": {"checker": "none", "refuse_copies": "on"},
        "attempts": 1,
        "out": tmp_path / "b",
    }
    with pytest.raises(RunError, match="near-copy"):
        pipeline.run(recipe.resolve(strict))


def textured(folder):
    """Twelve images of 160 x 120 px with one object each, whose grain is its own."""
    (folder / "images").mkdir(parents=True)
    objects = grains(12, 70)
    images, annotations = [], []
    for n, one in enumerate(objects):
        canvas = np.full((120, 160, 3), 110, np.uint8)
        canvas[20:52, 20:52] = one
        cv2.imwrite(str(folder / "images" / f"{n}.png"), canvas[:, :, ::-1])
        images.append({"id": n, "file_name": f"{n}.png", "width": 160, "height": 120})
        polygon = [20, 20, 52, 20, 52, 52, 20, 52]
        entry = {
            "id": n + 1,
            "image_id": n,
            "category_id": 1,
            "bbox": [20, 20, 32, 32],
            "area": 1024,
            "iscrowd": 0,
        }
        annotations.append({**entry, "segmentation": [polygon]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "grain"}]}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder / "annotations.json"
