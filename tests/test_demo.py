"""The rendered demo: its labels are what was painted, and it is the same every time."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from rarefill import dataset, demo
from rarefill.demo import camera, cells, smear, stain
from rarefill.errors import UsageError
from rarefill.seeds import Stage, rng


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """A demo of nine images, three of them with platelets."""
    return demo.render(tmp_path_factory.mktemp("demo"), images=9, seed=3, platelet_images=3)


def field(seed: int, platelets: int = 2) -> smear.Smear:
    return smear.smear(
        rng(seed, Stage.RENDER, 0), smear.slide(rng(seed, Stage.RENDER, 0, 1)), platelets=platelets
    )


def test_pycocotools_reads_the_file_and_agrees_on_every_mask(rendered, capsys):
    coco = COCO(str(rendered))
    capsys.readouterr()
    assert coco.anns
    for entry in coco.anns.values():
        mask = coco.annToMask(entry)
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert entry["bbox"] == [xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1]
        assert entry["area"] == mask.sum()
        assert entry["iscrowd"] == 0
        assert entry["id"] > 0


def test_our_own_loader_finds_nothing_wrong(rendered):
    data = dataset.load(rendered)
    assert len(data.images) == 9
    assert [c.id for c in data.categories] == [1, 4, 9]


def test_category_ids_have_gaps(rendered):
    document = json.loads(rendered.read_text())
    assert {c["name"]: c["id"] for c in document["categories"]} == {"RBC": 1, "WBC": 4, "Platelets": 9}


def test_visible_masks_do_not_share_a_pixel(rendered, capsys):
    coco = COCO(str(rendered))
    capsys.readouterr()
    for image in coco.imgs:
        stacked = sum(coco.annToMask(a).astype(int) for a in coco.imgToAnns[image])
        assert stacked.max() == 1


def test_platelets_lie_only_where_they_were_asked_for(rendered):
    document = json.loads(rendered.read_text())
    on = Counter(a["image_id"] for a in document["annotations"] if a["category_id"] == 9)
    assert len(on) == 3
    assert set(on.values()) <= {1, 2}


def test_platelets_are_rare_unless_said_otherwise(tmp_path):
    document = json.loads(demo.render(tmp_path, images=9).read_text())
    counts = Counter(a["category_id"] for a in document["annotations"])
    assert len({a["image_id"] for a in document["annotations"] if a["category_id"] == 9}) == 1
    assert counts[1] > 40 * counts[9]


def test_every_image_has_red_cells_and_no_label_is_a_sliver(rendered):
    document = json.loads(rendered.read_text())
    red = Counter(a["image_id"] for a in document["annotations"] if a["category_id"] == 1)
    assert all(5 <= red[image["id"]] <= 24 for image in document["images"])
    assert min(a["area"] for a in document["annotations"]) >= 40
    sides = [side for a in document["annotations"] if a["category_id"] == 9 for side in a["bbox"][2:]]
    assert min(sides) >= 12
    assert max(sides) <= 36


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cell_changes_the_pixels_inside_its_mask_and_none_far_away(seed):
    image = field(seed)
    stack = smear.layers(image)
    whole = camera.photograph(image.slide, image.optics, stack).astype(int)
    near = np.ones(
        (2 * 30 + 1,) * 2, np.uint8
    )  # soft edges, defocus and the camera's sharpening reach no further
    for index, mask in enumerate(smear.masks(stack)):
        without = camera.photograph(image.slide, image.optics, [*stack[:index], *stack[index + 1 :]])
        changed = np.abs(whole - without).sum(axis=2)
        own = mask.full(camera.HEIGHT, camera.WIDTH)
        assert np.mean(changed[own] > 3) > 0.6, image.cells[index].kind
        assert changed[own].mean() > 12, image.cells[index].kind
        reach = smear.masks([stack[index]])[0].full(camera.HEIGHT, camera.WIDTH).astype(np.uint8)
        assert not changed[cv2.dilate(reach, near) == 0].any(), image.cells[index].kind


def test_a_mask_ends_where_the_eye_sees_the_cell_end():
    image = field(1, platelets=0)
    stack = smear.layers(image)
    empty = camera.photograph(image.slide, image.optics, []).astype(int)
    whole = camera.photograph(image.slide, image.optics, stack).astype(int)
    seen = (empty - whole)[..., 1] > 18  # red and white cells both take green light away
    labelled = np.zeros_like(seen)
    for mask in smear.masks(stack):
        labelled |= mask.full(*seen.shape)
    assert np.mean(seen[labelled]) > 0.85
    assert np.mean(labelled[seen]) > 0.93


def test_a_cell_in_front_takes_the_pixels_of_the_one_behind():
    edge = cells.Outline(3.5, 1.0, 0.0, np.zeros((0, 3)))
    on = smear.slide(rng(0, Stage.RENDER, 0, 1))
    pair = [cells.Cell("RBC", "discocyte", x, 15.0, edge, 5) for x in (20.0, 24.0)]
    behind, front = smear.masks([stain.layer(cell, on, camera.PX_PER_UM * camera.FINE) for cell in pair])
    alone = smear.masks([stain.layer(pair[0], on, camera.PX_PER_UM * camera.FINE)])[0]
    assert behind.area < alone.area
    assert behind.overlap_px(front) == 0
    assert behind.area + alone.overlap_px(front) == alone.area


def test_where_red_cells_overlap_it_is_darker():
    image = field(0, platelets=0)
    edge = cells.Outline(3.5, 1.0, 0.0, np.zeros((0, 3)))
    stack = [
        stain.layer(
            cells.Cell("RBC", "spherocyte", x, 20.0, edge, 5), image.slide, camera.PX_PER_UM * camera.FINE
        )
        for x in (20.0, 24.0)
    ]
    seen = camera.photograph(image.slide, image.optics, stack)[..., 1].astype(float)
    y = round(20 * camera.PX_PER_UM)
    columns = [round(x * camera.PX_PER_UM) for x in (18.0, 22.0, 26.0)]
    left, both, right = (seen[y - 6 : y + 6, x - 4 : x + 4].mean() for x in columns)
    assert both < min(left, right) - 10


def test_a_white_cell_dents_its_neighbour():
    on = smear.slide(rng(0, Stage.RENDER, 0, 1))
    scale = camera.PX_PER_UM * camera.FINE
    disc = cells.Outline(3.5, 1.0, 0.0, np.zeros((0, 3)))
    white = cells.Cell("WBC", "neutrophil", 29.0, 20.0, cells.Outline(6.5, 1.0, 0.0, np.zeros((0, 3))), 7)
    red = cells.Cell("RBC", "discocyte", 20.5, 20.0, disc, 5)
    free, dented = (smear.masks([stain.layer(red, on, scale, press)])[0] for press in ((), (white,)))
    assert dented.area < free.area
    assert dented.box.x2 < free.box.x2


@pytest.mark.parametrize("kind", ["neutrophil", "eosinophil", "monocyte", "lymphocyte"])
def test_a_nucleus_stays_inside_its_cell(kind):
    cell = cells.Cell("WBC", kind, 0.0, 0.0, cells.Outline(7.0, 1.0, 0.0, np.zeros((0, 3))), 0)
    for seed in range(50):
        chain = stain.lobes(np.random.default_rng(seed), cell)
        assert (np.hypot(chain[:, 0], chain[:, 1]) + chain[:, 2] <= 7.0).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    def files(name: str, seed: int) -> dict[str, bytes]:
        demo.render(tmp_path / name, images=2, seed=seed)
        return {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}

    first, again, other = files("a", 5), files("b", 5), files("c", 6)
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_an_image_looks_the_same_whatever_else_is_rendered(tmp_path):
    few = demo.render(tmp_path / "few", images=1, platelet_images=0).parent
    many = demo.render(tmp_path / "many", images=3, platelet_images=0).parent
    name = "images/smear_001.png"
    assert (few / name).read_bytes() == (many / name).read_bytes()


def test_a_demo_may_be_rendered_again_but_nothing_else_is_replaced(tmp_path):
    path = demo.render(tmp_path, images=1)
    before = path.read_bytes()
    assert demo.render(tmp_path, images=1).read_bytes() == before
    path.write_text('{"images": []}')
    with pytest.raises(UsageError, match="choose another folder"):
        demo.render(tmp_path, images=1)
    assert path.read_text() == '{"images": []}'


@pytest.mark.parametrize(("images", "with_platelets"), [(0, 0), (3, 4), (3, -1)])
def test_counts_that_cannot_be_are_refused(tmp_path, images, with_platelets):
    with pytest.raises(UsageError, match="demo: needs 1 image or more"):
        demo.render(tmp_path / "no", images=images, platelet_images=with_platelets)
    assert not (tmp_path / "no").exists()
