"""`generate --prove`: a short study after a run, on parts of which the second is never painted from."""

import json
import sys

import pytest
from conftest import make_tiny

from rarefill import pipeline
from rarefill import recipe as recipes
from rarefill.dataset import load
from rarefill.errors import DataError, UsageError
from rarefill.progress import SILENT
from rarefill.proof import bootstrap, prove, study
from rarefill.proof.trainers import Settings

SHORT = Settings(steps=2, batch=2, size_px=64)


@pytest.fixture
def data(tmp_path):
    return make_tiny(tmp_path / "data", images=24)


class Said:
    """What was said, and nothing counted."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def bar(self, what, total, unit):
        return SILENT.bar(what, total, unit)


def test_prove_leaves_a_study_in_the_run(data, tmp_path, capsys, monkeypatch):
    from rarefill import cli

    monkeypatch.setattr(bootstrap, "DRAWS", 50)
    monkeypatch.setattr(prove.after, "__defaults__", (SILENT, SHORT))
    words = ["generate", str(data), "--fill", "square=4", "--out", str(tmp_path / "run"), "--prove"]
    words += ["--generator", "paste", "--checker", "none", "--json"]
    monkeypatch.setattr(sys, "argv", ["rarefill", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["proof"]["rare"] == ["square"]
    assert "Proof: 8 trainings of 2 steps" in told.err
    found = study.read(tmp_path / "run" / "proof")
    assert [a.name for a in found.arms] == ["real", "repeat", "rfs", "paste+rfs"]
    assert found.verdict is not None
    sides = [
        load(tmp_path / "run" / "proof" / f"{n}.json", data.parent / "images") for n in ("train", "test")
    ]
    names = [set(side.images.file_name) for side in sides]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 24
    made = load(tmp_path / "run" / "proof" / "made" / "0" / "paste" / "annotations.json")
    entries = made.source()["images"]
    # what was painted on is of the training part
    assert {e["rarefill"]["background"] for e in entries} <= set(sides[0].images.id.tolist())


def test_what_cannot_be_proved_is_one_clear_line(data, tmp_path):
    recipe = recipes.resolve(
        {
            "data": data,
            "out": tmp_path / "run",
            "fill": {"square": 2},
            "generator": {"generator": "paste"},
            "annotator": {"checker": "none"},
            "workers": 1,
        }
    )
    summary = pipeline.run(recipe)
    nothing = type("Nothing", (), {"tallies": (), "run": summary.run})
    with pytest.raises(UsageError, match="made none"):
        prove.after(recipe, nothing, SILENT)
    file = json.loads(data.read_text())
    first = next(a for a in file["annotations"] if a["category_id"] == 40)
    file["annotations"] = [a for a in file["annotations"] if a["category_id"] != 40 or a is first]
    data.write_text(json.dumps(file))
    with pytest.raises(DataError, match="too few images"):
        prove.held_back(load(data), ("square",), tmp_path / "held")
