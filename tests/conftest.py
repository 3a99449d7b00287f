"""Small real datasets that tests make for themselves."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

from rarefill import bank, dataset, geometry

settings.register_profile("busy", deadline=None)  # a busy machine is no error
settings.load_profile("busy")

SHELF = Path(os.environ.get("RAREFILL_SHELF", Path(__file__).parents[1].parent / "shared"))


@pytest.fixture
def shelf() -> Path:
    """The folder of real datasets, or a skip with its reason."""
    if not (SHELF / "data").is_dir():
        pytest.skip(f"no real datasets in {SHELF} (RAREFILL_SHELF)")
    return SHELF / "data"


@pytest.fixture
def offline(monkeypatch):
    """The hub is not asked, as with HF_HUB_OFFLINE=1 in the environment."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("RAREFILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def make_tiny(
    folder: Path, *, images: int = 12, bands: int = 3, dtype: str = "uint8", masks: bool = True
) -> Path:
    """A COCO dataset of noisy 96 x 80 images: two or three discs (id 3) in each, a square (id 40) in each fourth.

    Ids are gapped and unordered; unknown keys stand on every level. Nothing is named by the category id 7.
    """
    rng = np.random.default_rng(11)
    top = np.iinfo(dtype).max
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for n in range(images):
        canvas = rng.normal(0.35, 0.02, (80, 96, 1)).repeat(bands, axis=2)
        taken = np.zeros((80, 96), bool)
        kinds = ["disc"] * (2 + n % 2) + ["square"] * (n % 4 == 1)
        for kind in kinds:
            mask = _free(kind, taken, rng)
            taken |= cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))).astype(bool)
            colour = {"disc": (0.9, 0.4, 0.3), "square": (0.2, 0.75, 0.9)}[kind]
            canvas[mask] = np.array(colour[:bands] + (1.0,) * (bands - 3)) + rng.normal(
                0, 0.02, (mask.sum(), 1)
            )
            annotations.append(
                _entry(
                    mask, 500 - 3 * len(annotations), n * 5 + 2, {"disc": 3, "square": 40}[kind], masks=masks
                )
            )
        pixels = (canvas.clip(0, 1) * top).round().astype(dtype)
        order = [2, 1, 0, 3][:bands] if bands > 1 else [0]
        cv2.imwrite(str(folder / "images" / f"{n:03}.png"), pixels[:, :, order])
        entries.append(
            {
                "id": n * 5 + 2,
                "file_name": f"{n:03}.png",
                "width": 96,
                "height": 80,
                "license": 4,
                "site": "north",
            }
        )
    document = {
        "info": {"description": "tiny", "year": 2026},
        "licenses": [{"id": 4, "name": "CC0"}],
        "images": entries,
        "annotations": annotations,
        "categories": [
            {"id": 40, "name": "square", "supercategory": "shape", "colour": "blue"},
            {"id": 3, "name": "disc", "supercategory": "shape"},
            {"id": 7, "name": "star", "supercategory": "shape"},
        ],
        "extra": {"kept": True},
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def _free(kind: str, taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    yy, xx = np.mgrid[:80, :96]
    while True:
        x, y, r = rng.integers(14, 82), rng.integers(14, 66), rng.integers(7, 12)
        near = (xx - x, yy - y)
        mask = near[0] ** 2 + near[1] ** 2 <= r * r if kind == "disc" else np.maximum(*map(np.abs, near)) <= r
        if not (mask & taken).any():
            return mask


def _entry(mask: np.ndarray, id: int, image_id: int, category_id: int, *, masks: bool) -> dict:
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]
    entry = {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "iscrowd": 0,
        "by": "hand",
    }
    if masks:
        counts = geometry.rle_counts(mask).decode()
        entry |= {"segmentation": {"size": [80, 96], "counts": counts}, "area": int(mask.sum())}
    return entry


@pytest.fixture
def tiny(tmp_path) -> Path:
    """The annotations file of a tiny dataset."""
    return make_tiny(tmp_path / "tiny")


@pytest.fixture(scope="session")
def tiny_once(tmp_path_factory) -> Path:
    """The same, made once, for tests that only read it."""
    return make_tiny(tmp_path_factory.mktemp("once") / "tiny")


@pytest.fixture(scope="module")
def one_thread():
    """Networks as small as those of tests lose time to a second thread, the more so on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(
    scope="module", params=[(1, "uint8"), (3, "uint8"), (4, "uint8"), (1, "uint16"), (3, "uint16")]
)
def any_bands(request, tmp_path_factory):
    n, dtype = request.param
    data = dataset.load(make_tiny(tmp_path_factory.mktemp("bands") / "tiny", bands=n, dtype=dtype))
    return data, bank.build(data, ["disc", "square"])


@pytest.fixture(scope="module")
def tiny_bank(tiny_once):
    data = dataset.load(tiny_once)
    return data, bank.build(data, ["disc", "square"])


@pytest.fixture(scope="module")
def two_coloured(tmp_path_factory):
    """Squares whose left half is dark and whose right half is bright, one in each of four images; none in a fifth."""
    folder = tmp_path_factory.mktemp("two") / "data"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for n in range(1, 6):
        pixels = np.random.default_rng(n).normal(90, 3, (90, 100, 3))
        if n < 5:
            pixels[20:60, 30:50], pixels[20:60, 50:70] = 30, 220
            annotations.append(
                {
                    "id": n,
                    "image_id": n,
                    "category_id": 1,
                    "bbox": [30, 20, 40, 40],
                    "area": 1600,
                    "iscrowd": 0,
                    "segmentation": [[30, 20, 70, 20, 70, 60, 30, 60]],
                }
            )
        cv2.imwrite(str(folder / "images" / f"{n}.png"), pixels.clip(0, 255).astype(np.uint8))
        images.append({"id": n, "file_name": f"{n}.png", "width": 100, "height": 90})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "flag"}]}
    (folder / "annotations.json").write_text(json.dumps(document))
    data = dataset.load(folder / "annotations.json")
    return data, bank.build(data, ["flag"])
