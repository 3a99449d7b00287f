"""Parts that share no group, rare categories in each, and files that say what the user's file said."""

import json

import cv2
import numpy as np
import pytest
from conftest import make_tiny

from rarefill.dataset import load
from rarefill.errors import DataError, UsageError
from rarefill.progress import SILENT
from rarefill.proof import groups, parts, split_command
from rarefill.proof.split_command import Options

SHARES = (0.6, 0.2, 0.2)


@pytest.fixture
def data(tmp_path):
    return make_tiny(tmp_path / "data", images=24)


def run(data, out, **more):
    return split_command.run(Options(data, out, **{"group_by": "none", "shares": SHARES, **more}), SILENT)


def read(path):
    return json.loads(path.read_text())


# Which part


def assigned(held, group=None, shares=SHARES, *, floor=0, seed=0):
    group = np.arange(len(held)) if group is None else group
    names = [f"c{n}" for n in range(held.shape[1])]
    return parts.assign(held, group, shares, names, np.random.default_rng(seed), floor=floor)


def test_rare_categories_reach_every_part_and_shares_hold():
    held = np.zeros((100, 3), dtype=bool)
    held[:, 0] = True
    held[::12, 1] = True  # nine images
    held[:3, 2] = True
    for seed in range(5):
        found = assigned(held, seed=seed)
        counts = [held[found.images(name)].sum(axis=0) for name in parts.NAMES]
        assert np.min(counts) >= 1
        assert [len(found.images(name)) for name in parts.NAMES] == pytest.approx([60, 20, 20], abs=3)
        assert not found.notes


def test_the_test_part_gets_its_floor_but_never_more_than_half():
    held = np.zeros((200, 2), dtype=bool)
    held[:, 0] = True
    held[:30, 1] = True
    found = assigned(held, shares=(0.8, 0.1, 0.1), floor=12)
    assert 12 <= held[found.images("test"), 1].sum() <= 15
    few = assigned(held[:190][::10], shares=(0.8, 0.1, 0.1), floor=12)
    assert held[:190][::10][few.images("test"), 1].sum() == 1


def test_groups_stay_whole_and_a_category_of_one_group_is_named():
    held = np.zeros((40, 2), dtype=bool)
    held[:, 0] = True
    held[:4, 1] = True
    group = np.arange(40) // 4
    found = assigned(held, group)
    assert all(len(set(found.part[group == g])) == 1 for g in range(10))
    assert held[found.images("train"), 1].sum() == 4
    assert found.notes == ("c1 stands in 1 group: none in val and test",)


def test_what_cannot_be_split_is_said():
    held = np.ones((6, 1), dtype=bool)
    with pytest.raises(DataError, match="1 group, and 3 parts"):
        assigned(held, np.zeros(6, dtype=int))
    for shares in ((0.5, 0.5), (1.0, 0.0, 0.0), (0.5, 0.2, 0.2), (0.0, 0.5, 0.5)):
        with pytest.raises(UsageError, match="--shares"):
            assigned(held, shares=shares)


def test_shots_hold_exactly_k_and_the_oracle_holds_them_too():
    holds = np.zeros(100, dtype=bool)
    holds[:30] = True
    pool = np.arange(80)
    found = parts.shots(holds, pool, 5, 40, np.random.default_rng(0), "x")
    assert (holds[found.few].sum(), len(found.few)) == (5, 40)
    assert (holds[found.oracle].sum(), len(found.oracle)) == (20, 40)
    assert set(found.few[holds[found.few]]) <= set(found.oracle)
    assert not holds[found.rest].any()
    assert not set(found.rest) & (set(found.few) | set(found.oracle))
    with pytest.raises(DataError, match="only 30 images"):
        parts.shots(holds, pool, 31, 40, np.random.default_rng(0), "x")


# Groups


def test_near_duplicates_are_found_and_others_are_not(tmp_path):
    path = make_tiny(tmp_path / "d", images=6)
    folder = tmp_path / "d" / "images"
    draw = np.random.default_rng(0)
    scenes = [cv2.resize(draw.integers(0, 255, (8, 10, 3), dtype=np.uint8), (96, 80)) for _ in range(3)]
    for n in range(6):
        lit = np.clip(scenes[n // 2] * (1.0 if n % 2 else 0.9) + draw.normal(0, 4, (80, 96, 1)), 0, 255)
        cv2.imwrite(str(folder / f"{n:03}.png"), lit.astype(np.uint8))
    assert groups.find(load(path), "similar").tolist() == [0, 0, 1, 1, 2, 2]


def test_groups_by_key_and_by_name(data):
    file = read(data)
    for n, image in enumerate(file["images"]):
        image["site"] = n % 3
    data.write_text(json.dumps(file))
    held = load(data)
    assert groups.find(held, "key=site").tolist() == [n % 3 for n in range(24)]
    assert groups.find(held, r"^(\d\d)").tolist() == [n // 10 for n in range(24)]
    assert groups.find(held, "none").tolist() == list(range(24))
    for by, said in (
        ("key=place", "no such key; it has"),
        ("(", "regular expression"),
        ("x", "finds nothing"),
    ):
        with pytest.raises(UsageError, match=said):
            groups.find(held, by)


def test_shared_images_are_refused(data):
    held = load(data)
    with pytest.raises(DataError, match="24 images"):
        groups.refuse_shared(held, held)


# Files


def test_files_keep_ids_and_unknown_keys_and_lose_nothing(data, tmp_path):
    path, lines = run(data, tmp_path / "out")
    before = read(data)
    after = [read(tmp_path / "out" / f"{name}.json") for name in parts.NAMES]
    for key in ("images", "annotations"):
        entries = sorted((e for file in after for e in file[key]), key=lambda e: e["id"])
        assert entries == sorted(before[key], key=lambda e: e["id"])
    for file in after:
        assert {k: v for k, v in file.items() if k not in {"images", "annotations"}} == {
            k: v for k, v in before.items() if k not in {"images", "annotations"}
        }
        ids = {image["id"] for image in file["images"]}
        assert all(a["image_id"] in ids for a in file["annotations"])
    said = read(path)
    assert sum(told["images"] for told in said["files"].values()) == 24
    assert len(said["group_of"]) == 24
    assert any("--images-dir" in line for line in lines)
    held = load(tmp_path / "out" / "train.json", data.parent / "images")
    assert len(held.images) == len(after[0]["images"])


def test_one_image_of_one_group_is_said_as_one(tmp_path):
    _, lines = run(make_tiny(tmp_path / "data", images=3), tmp_path / "out", floor=0, group_by="none")
    assert lines[0] == "3 groups (each image alone), the largest of 1 image"
    assert any(line.startswith("test.json: 1 image of 1 group; ") for line in lines)


def test_few_shot_files_share_one_test_part(data, tmp_path):
    run(data, tmp_path / "out", shares=(0.6, 0.0, 0.4), rare="square", k=2, train_images=8, draws=2, floor=2)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"test.json", "train_k2_0.json", "train_k2_1.json", "split.json"} <= names
    test = {i["id"] for i in read(tmp_path / "out" / "test.json")["images"]}
    for n in range(2):
        file = read(tmp_path / "out" / f"train_k2_{n}.json")
        assert len(file["images"]) == 8
        assert len({a["image_id"] for a in file["annotations"] if a["category_id"] == 40}) == 2
        assert not test & {i["id"] for i in file["images"]}


def test_the_same_seed_is_the_same_split(data, tmp_path):
    files = [run(data, tmp_path / name)[0].parent / "train.json" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    other = run(data, tmp_path / "c", seed=1)[0].parent / "train.json"
    assert other.read_bytes() != files[0].read_bytes()


def test_wrong_use_is_one_clear_line(data, tmp_path):
    with pytest.raises(UsageError, match="go together"):
        run(data, tmp_path / "out", k=2)
    with pytest.raises(DataError, match="did you mean 'square'"):
        run(data, tmp_path / "out", rare="squar", k=2)
    run(data, tmp_path / "out")
    with pytest.raises(UsageError, match="exists"):
        run(data, tmp_path / "out")
    with pytest.raises(UsageError, match="three numbers"):
        split_command.shares_of("a,b")
