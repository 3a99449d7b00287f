"""`rarefill fidelity`: figures of a run against real data, kept for its report."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny

from rarefill import dataset, files, pipeline, recipe
from rarefill.errors import DataError, ModelError, RunError
from rarefill.fidelity import command, features, layouts_compared, measure, saturation, stored, two_sample
from rarefill.fidelity.layouts_compared import Boxes
from rarefill.progress import SILENT
from rarefill.report import page
from rarefill.rundir import RunDir


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Means:
    """Features that need no network: mean and deviation of each colour in four quarters."""

    name = "means"

    def __call__(self, pictures):
        parts = [np.split(half, 2, axis=2) for half in np.split(pictures.astype(float), 2, axis=1)]
        flat = [p for row in parts for p in row]
        return np.concatenate([f(p, axis=(1, 2)) for p in flat for f in (np.mean, np.std)], axis=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[RunDir, dataset.Dataset]:
    folder = tmp_path_factory.mktemp("fidelity")
    data = dataset.load(make_tiny(folder / "tiny"))
    options = {"generator": {"generator": "paste"}, "annotator": {"checker": "none"}, "fill": {"disc": 12}}
    asked = recipe.resolve({"data": data.path, "out": folder / "run", "workers": 1, **options})
    pipeline.run(asked, dataset=data)
    return RunDir(folder / "run"), data


@pytest.fixture(scope="module")
def found(run) -> stored.Fidelity:
    folder, data = run
    return measure.measure(folder, data, data, Means(), SILENT, pixels=False)


def test_every_figure_has_its_floor_beside_it(found):
    views = {(d.category, d.view) for d in found.distances}
    assert views == {("disc", "object"), ("disc", "window"), ("", "scene")}
    assert all(d.floor is not None for d in found.distances)
    assert all(t.floor is not None for t in found.two_samples)
    assert {one.name for one in found.layouts} == set(layouts_compared.UNITS)
    assert found.own_data
    assert any("Held-out real data tells more" in note for note in found.notes)


def test_empty_places_are_further_away_than_pasted_discs(found):
    near = next(d for d in found.distances if d.view == "object")
    assert near.empty is not None
    assert near.value < near.empty


def test_figures_survive_their_file(found, tmp_path):
    stored.write(tmp_path / "fidelity.json", found)
    assert stored.read(tmp_path / "fidelity.json") == found


def test_the_same_run_gives_the_same_figures(run, found):
    folder, data = run
    assert measure.measure(folder, data, data, Means(), SILENT, pixels=False) == found


def test_a_file_of_something_else_gets_one_line(tmp_path):
    files.write_bytes(tmp_path / "fidelity.json", b'{"format": "x"}')
    with pytest.raises(DataError, match="run 'rarefill fidelity' again"):
        stored.read(tmp_path / "fidelity.json")


def test_the_text_says_first_that_it_predicts_nothing(found):
    lines = command.text(found).splitlines()
    assert lines[1] == stored.CAVEAT
    assert any("real to real" in line for line in lines)


def test_the_report_shows_the_figures_of_its_own_objects_alone(run, found):
    folder, data = run
    path = folder.path / stored.FILE
    stored.write(path, found)
    shown = page.html(page.make(folder, data))
    assert "Kernel distance to real ones" in shown
    assert "Does the next object add anything?" in shown
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"run": "0" * 16}))
    other = page.html(page.make(folder, data))
    path.unlink()
    assert "Not computed." in other


def test_real_data_without_the_category_gets_one_line(run, tmp_path):
    folder, data = run
    path = make_tiny(tmp_path / "tiny")
    document = json.loads(path.read_text())
    for category in document["categories"]:
        category["name"] = category["name"].replace("disc", "disk")
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="did you mean 'disk'"):
        measure.measure(folder, data, dataset.load(path), Means(), SILENT)


def test_an_unfinished_run_gets_one_line(tmp_path):
    files.write_bytes(tmp_path / "manifest.json", b'{"finished": false}')
    with pytest.raises(RunError, match="is not finished"):
        command.fidelity(command.Options(Path("real.json"), tmp_path), SILENT)


def test_features_that_are_nowhere_get_one_line(run):
    _, data = run
    with pytest.raises(ModelError, match="--features"):
        features.build("./no/such/folder", data, recipe.resolve({}), ["disc"], Path("cache"), SILENT)


def test_the_checkers_network_gives_rows_that_depend_on_their_own_picture_alone(one_thread):
    from rarefill.annotators import detector
    from rarefill.annotators.check import Judge

    judge = Judge((detector.build(2, 0).eval(),), np.zeros(1, np.int32), 1.0)
    seen = features.FromChecker(judge)
    pictures = rng().integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    rows = seen(pictures)
    assert rows.shape == (3, 192)
    assert np.allclose(rows[1:2], seen(pictures[1:2]), atol=1e-4)


def test_a_backbone_of_transformers_is_taken_from_its_folder(tmp_path, one_thread):
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        tmp_path
    )
    seen = features.build(str(tmp_path), None, recipe.resolve({}), [], Path("cache"), SILENT)  # type: ignore[arg-type]
    rows = seen(rng().integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    assert rows.shape == (2, 16)
    assert seen.name == str(tmp_path)


def test_alike_sets_are_not_told_apart_and_others_are():
    real, same, other = (rng(s).normal(shift, 1, (120, 8)) for s, shift in ((1, 0.0), (2, 0.0), (3, 1.5)))
    groups = np.arange(120) // 3
    alike = two_sample.told(real, same, groups, groups + 1000, rng())
    apart = two_sample.told(real, other, groups, groups + 1000, rng())
    assert alike.low < 0.5 < alike.high
    assert apart.auc > 0.9
    assert abs(alike.floor - 0.5) < 0.1


def test_too_few_pictures_are_not_judged():
    rows = rng().normal(size=(4, 3))
    assert two_sample.told(rows, rows, np.zeros(4, int), np.zeros(4, int), rng()) is None


def test_variety_ends_where_objects_repeat():
    real = rng(1).normal(size=(40, 8))
    copies = np.repeat(rng(2).normal(3, 1, (4, 8)), 30, axis=0) + rng(3).normal(0, 1e-3, (120, 8))
    fresh = rng(4).normal(0, 6, (120, 8))
    repeated, varied = (saturation.saturation(x, real, rng()) for x in (copies, fresh))
    assert repeated.stop is not None
    assert repeated.stop < 60
    assert repeated.last < 0.05
    assert varied.stop is None
    assert varied.last > 0.8
    assert "no reason to stop" in varied.says


def test_the_first_object_is_new_and_shares_only_fall():
    real = rng(1).normal(size=(30, 4))
    grown = saturation.saturation(rng(2).normal(4, 1, (60, 4)), real, rng())
    shares = [share for _, share in grown.points]
    assert shares[0] > 0.9
    assert all(b <= a + 0.05 for a, b in zip(shares, shares[1:], strict=False))  # noqa: RUF007


def test_a_handful_says_nothing_of_variety():
    assert saturation.saturation(np.zeros((4, 2)), np.zeros((9, 2)), rng()) is None


def boxes(n: int, side: float, seed: int) -> Boxes:
    corner = rng(seed).integers(0, 50, (n, 2)).astype(float)
    return Boxes(
        np.concatenate([corner, corner + side], axis=1),
        np.full((n, 2), 100.0),
        np.arange(n),
        np.ones(n),
    )


def test_layouts_that_differ_in_size_alone_differ_there():
    by_name = {c.name: c for c in layouts_compared.compared(boxes(80, 10, 1), boxes(80, 20, 2), rng())}
    assert by_name["size"].distance == 1.0
    assert by_name["size"].real == (10.0, 10.0, 10.0)
    assert by_name["aspect"].distance == 0.0
    assert by_name["per image"].distance == 0.0
    assert by_name["across"].floor < 0.4


def test_no_objects_no_layouts():
    assert layouts_compared.compared(boxes(0, 10, 1), boxes(5, 10, 2), rng()) == []
