"""The run folder: nothing is lost, nothing is overwritten unasked."""

import json

import numpy as np
import pytest

from rarefill.dataset import load
from rarefill.errors import RunError, UsageError
from rarefill.geometry import Box, Mask
from rarefill.records import Record, Trial
from rarefill.rundir import RunDir
from rarefill.scene import Instance, Reason, Sample, Verdict


@pytest.fixture
def dataset(tiny):
    return load(tiny)


def _record(dataset, chunk=0):
    mask = Mask.of(np.eye(5, dtype=bool), 20, 30)
    kept = Instance("disc", dataset.box(0), dataset.mask(0), annotation=0)
    cut = Instance("disc", Box(1, 2, 3.5, 4), None, annotation=1, changed=True)
    new = Instance("square", mask.box, mask, score=0.75, how={"blend": "hard", "flip": True})
    sample = Sample(chunk + 1, "000001.png", 96, 80, 0, 0, (kept, cut, new), ((2, 0.125),))
    said = Verdict(0, Reason.ACCEPTED, 0.75, 0.5, 0.9, 0.95, mask.box, mask)
    gone = Verdict(1, Reason.NOT_FOUND)
    trials = tuple(Trial(chunk + 1, a, "square", Box(0, 0, 5, 5), v) for a, v in enumerate((said, gone)))
    return Record(0, chunk, (sample,), trials, ("ab",))


def test_a_record_reads_back_as_it_was_written(tmp_path, dataset):
    run = RunDir(tmp_path / "run")
    run.open({"a": 1}, "x: 1\n")
    run.append(_record(dataset))
    (back,) = run.read(dataset)
    (sample,) = back.samples
    kept, cut, new = sample.instances
    assert (kept.annotation, kept.box, kept.changed) == (0, dataset.box(0), False)
    assert (cut.changed, cut.annotation, cut.box) == (True, 1, Box(1, 2, 3.5, 4))
    assert np.array_equal(new.mask.full(80, 96), _record(dataset).samples[0].instances[2].mask.full(80, 96))
    assert (new.score, new.how) == (0.75, {"blend": "hard", "flip": True})
    assert sample.dropped == ((2, 0.125),)
    assert [t.verdict.reason for t in back.trials] == [Reason.ACCEPTED, Reason.NOT_FOUND]
    assert back.trials[0].verdict.box == Box(20, 30, 25, 35)


def test_a_torn_last_line_is_cut_off_and_whole_lines_stay(tmp_path, dataset):
    run = RunDir(tmp_path / "run")
    run.open({}, "")
    run.append(_record(dataset))
    run.append(_record(dataset, 1))
    whole = run.records.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40, whole.index(b"\n") + 2):
        run.records.write_bytes(whole[:cut])
        run.mend()
        assert [r.chunk for r in run.read(dataset)] == [0]
    run.records.write_bytes(whole[:5])
    run.mend()
    assert list(run.read(dataset)) == []


def test_parts_of_files_that_a_kill_left_are_removed(tmp_path):
    run = RunDir(tmp_path / "run")
    run.open({}, "")
    run.images.mkdir()
    (run.images / "000001.png.part").write_bytes(b"half")
    run.mend()
    assert not list(run.images.iterdir())


def test_a_damaged_line_is_named(tmp_path, dataset):
    run = RunDir(tmp_path / "run")
    run.open({}, "")
    run.append(_record(dataset))
    run.records.write_bytes(run.records.read_bytes() + b'{"round": 0}\n')
    with pytest.raises(RunError, match="line 2 is damaged"):
        list(run.read(dataset))


def test_the_same_recipe_continues_and_another_is_refused(tmp_path):
    run = RunDir(tmp_path / "run")
    for _ in range(2):
        run.open({"recipe": {"seed": 0}}, "seed: 0\n")
        assert run.look({"recipe": {"seed": 0}}) is False
    with pytest.raises(UsageError, match=r"recipe\.seed: 0 there, 1 now"):
        run.open({"recipe": {"seed": 1}}, "seed: 1\n")


def test_overwriting_throws_away_the_run_and_nothing_else(tmp_path):
    run = RunDir(tmp_path / "run")
    run.open({"seed": 0}, "seed: 0\n")
    run.images.mkdir()
    (run.images / "000001.png").write_bytes(b"x")
    (run.path / "my notes.txt").write_text("keep me")
    run.open({"seed": 1}, "seed: 1\n", overwrite=True)
    assert (run.path / "my notes.txt").read_text() == "keep me"
    assert run.recipe.read_text() == "seed: 1\n"
    assert not run.images.exists()


def test_a_kill_while_overwriting_leaves_a_folder_that_is_free_to_use(tmp_path):
    run = RunDir(tmp_path / "run")
    run.open({"seed": 0}, "seed: 0\n")
    run.finish({"images": 1})
    (run.path / "manifest.json").write_text('{"cleared": true}')  # as it is while the old run is thrown away
    run.images.mkdir()
    (run.images / "000001.png").write_bytes(b"old")
    assert run.look({"seed": 0}) is False
    run.open({"seed": 1}, "seed: 1\n")
    assert not run.images.exists()
    assert run.recipe.read_text() == "seed: 1\n"


def test_a_broken_manifest_can_be_overwritten_and_only_then(tmp_path):
    run = RunDir(tmp_path / "run")
    run.open({"seed": 0}, "seed: 0\n")
    (run.path / "manifest.json").write_text("")
    with pytest.raises(UsageError, match="or --overwrite"):
        run.open({"seed": 0}, "seed: 0\n")
    run.open({"seed": 0}, "seed: 0\n", overwrite=True)
    assert run.look({"seed": 0}) is False


def test_a_second_process_is_kept_out(tmp_path):
    run = RunDir(tmp_path / "run")
    with run.locked(), pytest.raises(UsageError, match="another process"), RunDir(tmp_path / "run").locked():
        pass


def test_a_folder_that_is_something_else_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.doc").write_text("precious")
    with pytest.raises(UsageError, match="not empty and not a rarefill run"):
        RunDir(tmp_path / "run").open({}, "")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"), RunDir(tmp_path / "file").locked():
        pass


def test_a_kill_before_the_manifest_leaves_a_folder_that_can_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json.part").write_text("{")
    RunDir(tmp_path / "run").open({"seed": 0}, "")
    assert RunDir(tmp_path / "run").look({"seed": 0}) is False


def test_a_finished_run_says_so_with_the_hashes_of_its_files(tmp_path, dataset):
    run = RunDir(tmp_path / "run")
    run.open({"seed": 0}, "")
    run.append(_record(dataset))
    run.finish({"images": 1})
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert len(manifest["sha256"]["records.jsonl"]) == 64
    assert manifest["versions"]["numpy"] == np.__version__
    assert run.look({"seed": 0}) is True


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_broken_manifest_is_told_in_one_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError) as e:
        RunDir(tmp_path).manifest()
    assert "manifest.json" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="not a rarefill run"):
        RunDir(tmp_path).manifest()
