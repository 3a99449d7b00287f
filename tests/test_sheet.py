"""A run's contact sheet."""

import cv2
import numpy as np
import pytest

from rarefill import pictures, sheet
from rarefill.dataset import Annotations, Category, Dataset, Images
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Instance, Sample

EACH = 30


@pytest.fixture
def many(tmp_path) -> Dataset:
    """80 categories with 30 objects each, all on one image."""
    cv2.imwrite(str(tmp_path / "0.png"), np.full((90, 90, 3), 90, np.uint8))
    n, names = 80 * EACH, [f"kind {i:02}" for i in range(80)]
    return Dataset(
        tmp_path / "a.json",
        tmp_path,
        "coco",
        tuple(Category(i, name) for i, name in enumerate(names)),
        Images(np.array([1]), np.array([90], np.int32), np.array([90], np.int32), ["0.png"]),
        Annotations(
            np.arange(n),
            np.zeros(n, np.int32),
            np.repeat(np.arange(80), EACH).astype(np.int32),
            np.tile([20.0, 20, 40, 40], (n, 1)),
            np.full(n, 400.0),
            np.zeros(n, bool),
            [b""] * n,
        ),
    )


@pytest.fixture
def run(many, tmp_path, monkeypatch) -> RunDir:
    """A run that painted each category ten times on the only image."""
    painted = tuple(Instance(name, many.box(0)) for name in many.names for _ in range(10))
    sample = Sample(1, "0.png", 90, 90, 0, 0, painted)
    folder = RunDir(tmp_path / "run")
    folder.images = tmp_path
    monkeypatch.setattr(folder, "samples", lambda _: iter([sample]))
    return folder


def written(monkeypatch, tmp_path, many, run, n: int):
    """The sheet of the first categories: its groups, its title and its picture."""
    seen = {}

    def watched(groups, *, title=""):
        seen.update(groups=groups, title=title)
        return contact_sheet(groups, title=title)

    contact_sheet = sheet.contact_sheet
    monkeypatch.setattr(sheet, "contact_sheet", watched)
    sheet.write(tmp_path / "preview.png", many, run, dict.fromkeys(map(Goal, many.names[:n]), 10))
    return seen["groups"], seen["title"], pictures.read(tmp_path / "preview.png")


def test_a_few_categories_get_all_the_room(monkeypatch, tmp_path, many, run):
    groups, title, _ = written(monkeypatch, tmp_path, many, run, 6)
    assert [(len(g.real), len(g.painted)) for g in groups] == [(24, 10)] * 6
    assert title == ""


def test_many_categories_get_one_row_each(monkeypatch, tmp_path, many, run):
    groups, title, _ = written(monkeypatch, tmp_path, many, run, 7)
    assert [(len(g.real), len(g.painted)) for g in groups] == [(6, 6)] * 7
    assert groups[0].note == "10 painted, 30 real"
    assert title == ""


def test_categories_that_are_too_many_for_a_sheet_are_counted(monkeypatch, tmp_path, many, run):
    groups, title, picture = written(monkeypatch, tmp_path, many, run, 80)
    assert [g.category for g in groups] == list(many.names[:24])
    assert title == "The first 24 of 80 categories; 56 more are not shown"
    assert picture.shape[0] < 6000
