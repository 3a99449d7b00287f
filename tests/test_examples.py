"""The examples do what they say, on a small rendered demo."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from rarefill import demo, pipeline, recipe

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def smear(tmp_path_factory) -> Path:
    """Six rendered images, platelets on two of them."""
    return demo.render(tmp_path_factory.mktemp("smear"), images=6, platelet_images=2)


def test_an_edited_plan_is_obeyed(smear, tmp_path, capsys):
    runpy.run_path(str(EXAMPLES / "read_the_plan.py"))["main"](smear, "Platelets", tmp_path)
    out = capsys.readouterr().out
    assert "planned: 12 on" in out
    assert "painted: 13;" in out
    labels = json.loads((tmp_path / "run" / "annotations.json").read_text())
    by_hand = [a["bbox"] for a in labels["annotations"] if a["bbox"][0] < 20 and a["bbox"][1] < 20]
    assert any(abs(w - 24) <= 4 and abs(h - 24) <= 4 for _, _, w, h in by_hand)


def test_a_generator_of_ones_own_paints(smear, tmp_path):
    stain = runpy.run_path(str(EXAMPLES / "own_generator.py"))["Stain"]
    options = {
        "data": smear,
        "out": tmp_path / "run",
        "fill": {"Platelets": 4},
        "generator": {"generator": "paste"},
        "annotator": {"checker": "none"},
    }
    summary = pipeline.run(recipe.resolve(options), generator=stain())
    assert [t.made for t in summary.tallies] == [4]


def test_a_class_is_filled(smear, tmp_path, capsys, monkeypatch):
    def unchecked(options):
        return recipe.resolve(
            options | {"generator": {"generator": "paste"}, "annotator": {"checker": "none"}}
        )

    main = runpy.run_path(str(EXAMPLES / "fill_a_class.py"))["main"]
    monkeypatch.setitem(
        main.__globals__, "recipe", SimpleNamespace(resolve=unchecked)
    )  # fitting takes minutes
    main(smear, "Platelets", 3, tmp_path / "run")
    assert "Platelets: 3 of 3 made" in capsys.readouterr().out
    assert (tmp_path / "run" / "merged.json").exists()
