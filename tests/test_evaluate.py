"""A study from files to verdict: lists of equal length, trainings that are done once, trainers of every kind."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny
from detector_models import save

from rarefill import recipe as recipes
from rarefill.dataset import load
from rarefill.errors import DataError, RunError, UsageError
from rarefill.progress import SILENT
from rarefill.proof import arms, bootstrap, command, copy_paste, mix, score, served, study, trainers
from rarefill.proof import evaluate as studies
from rarefill.proof.evaluate import Question
from rarefill.proof.trainer_command import Command
from rarefill.proof.trainers import Answer, Settings, Task
from rarefill.seeds import Stage, rng

PASTE = {"generator": {"generator": "paste"}, "annotator": {"checker": "none"}, "workers": 1}


class Pretender:
    """A trainer that draws true boxes worse the fewer rare objects its list shows."""

    words, steps = "a pretender", 3

    def __init__(self):
        self.trained = []

    def identity(self):
        return {"trainer": "pretender"}

    def run(self, task, bar):
        self.trained.append((len(task.mix), int(task.mix.synthetic.sum()), task.seed))
        bar.advance(self.steps)
        shown = sum(
            int((d.annotations.category[d.rows_in(row)] == d.category_row("square")).sum())
            for d, row in map(task.mix.at, range(len(task.mix)))
        )
        draw = np.random.default_rng([task.seed, shown])
        a, out = task.test.annotations, []
        for row in range(len(a)):
            x, y, w, h = task.test.box(row).xywh
            x, y = draw.normal((x, y), 6 / np.sqrt(1 + shown))
            image, category = task.test.images.id[a.image[row]], task.test.categories[a.category[row]].id
            found = {"image_id": int(image), "category_id": category, "bbox": [x, y, w, h]}
            out.append(found | {"score": float(draw.uniform())})
        return Answer(out)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 50)
    monkeypatch.setattr(served, "FEWEST", 1)


@pytest.fixture
def parts(tmp_path):
    """A training and a test part, and more real data, that share no file."""
    held = {}
    for name, images in (("train", 12), ("test", 16), ("more", 24)):
        path = make_tiny(tmp_path / name, images=images)
        held[name] = load(path)
    return held


def question(parts, **more):
    options = {
        "trains": (parts["train"],),
        "test": parts["test"],
        "rare": ("square",),
        "arms": ("real", "repeat", "rfs", "copy-paste"),
        "seeds": (0, 1),
        "objects": 6,
        "recipe": recipes.resolve(PASTE),
        "group_by": "none",
    }
    return Question(**options | more)


# Lists


def composed(parts, name, *, made=None, ratios=(1.0,), length=48, seed=0):
    spec = arms.parse([name], ratios)[-1]
    return mix.compose(spec, parts["train"], made, ["square"], rng(seed, Stage.FIT, 0), length=length)


def test_lists_are_as_long_and_say_what_the_arm_says(parts):
    held = np.array([("square" in names) for names in _names(parts["train"])])
    real, repeat, rfs = (composed(parts, name) for name in ("real", "repeat", "rfs"))
    assert [len(m) for m in (real, repeat, rfs)] == [48] * 3
    assert np.bincount(real.rows, minlength=12).tolist() == [4] * 12
    assert held[repeat.rows].mean() == pytest.approx(0.5, abs=0.05)
    # squares stand on a quarter of the images, so their factor is 2
    counts = np.bincount(rfs.rows, minlength=12)
    assert counts[held].mean() / counts[~held].mean() == pytest.approx(2, abs=0.35)


def test_a_ratio_is_generated_for_real(parts):
    for name, share in (("copy-paste", 24), ("copy-paste@0.5", 16), ("copy-paste@4", 38)):
        found = composed(parts, name, made=parts["more"])
        assert (len(found), int(found.synthetic.sum())) == (48, share)


def test_rare_images_are_half_of_the_real_ones_beside_generated_ones(parts):
    held = np.array([("square" in names) for names in _names(parts["train"])])
    found = composed(parts, "copy-paste+repeat", made=parts["more"])
    assert int(found.synthetic.sum()) == 24
    assert held[found.rows[~found.synthetic]].mean() == pytest.approx(0.5, abs=0.05)


def test_the_seed_alone_draws_a_list(parts):
    one, same, other = (composed(parts, "rfs", seed=s) for s in (0, 0, 1))
    assert one.digest() == same.digest() != other.digest()


def test_a_list_is_a_coco_file_that_others_read(parts, tmp_path):
    found = composed(parts, "copy-paste", made=parts["more"], length=30)
    path, images = mix.write(found, tmp_path / "list")
    held = json.loads(path.read_text())
    assert len(held["images"]) == 30
    assert len({i["file_name"] for i in held["images"]}) == 30
    assert all((images / i["file_name"]).exists() for i in held["images"])
    for n in range(30):
        dataset, row = found.at(n)
        own = [a for a in held["annotations"] if a["image_id"] == n + 1]
        assert [a["bbox"] for a in own] == [list(dataset.box(r).xywh) for r in dataset.rows_in(row)]
    assert held["categories"][0]["colour"] == "blue"


def _names(dataset):
    a = dataset.annotations
    return [{dataset.names[c] for c in a.category[dataset.rows_in(n)]} for n in range(len(dataset.images))]


# Plain copy-paste


def test_copy_paste_labels_what_it_pastes_and_touches_nothing_else(parts, tmp_path):
    train = parts["train"]
    path = copy_paste.make(train, ["square"], 8, tmp_path / "cp", 0)
    made = load(path, tmp_path / "cp" / "images")
    assert len(made.images) == 8
    assert len(made.rows_of("square")) >= 8
    blue = []
    for row in made.rows_of("square"):
        box = made.box(row)
        pixels = made.read(int(made.annotations.image[row]))
        blue.append(pixels[int((box.y1 + box.y2) / 2), int((box.x1 + box.x2) / 2), 2])
    assert np.mean(np.array(blue) > 180) > 0.8  # a later one may lie upon it
    before = path.read_bytes()
    stamp = path.stat().st_mtime_ns
    assert copy_paste.make(train, ["square"], 8, tmp_path / "cp", 0) == path
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
    copy_paste.make(train, ["square"], 8, tmp_path / "cp", 1)
    assert path.read_bytes() != before


# A whole study


def test_a_study_is_done_once_and_continues(parts, tmp_path):
    q = question(parts, arms=("real", "rfs", "copy-paste", "paste", "oracle"), oracles=(parts["more"],))
    trainer = Pretender()
    found = studies.evaluate(q, tmp_path / "out", SILENT, trainer)
    assert len(trainer.trained) == 10
    assert {n for n, _, _ in trainer.trained} == {48}
    assert found.complete
    assert found.verdict is not None
    assert found.verdict.arm == "paste"
    assert {a.name: a.kind for a in found.arms}["oracle"] == "oracle"
    assert "across the image" in {p.attribute for p in found.served}
    assert all(set(p.ap) == {"real", found.verdict.baseline, "paste"} for p in found.served)
    assert study.read(tmp_path / "out") == found
    assert (tmp_path / "out" / study.PLOT).read_text().startswith("<svg")
    assert not list((tmp_path / "out" / "work").iterdir())
    next((tmp_path / "out" / "runs").glob("0-paste-1.json")).write_text("torn")
    again = studies.evaluate(q, tmp_path / "out", SILENT, trainer)
    assert (again.arms, again.comparisons, again.verdict) == (found.arms, found.comparisons, found.verdict)
    assert len(trainer.trained) == 11


def test_a_sweep_shares_one_run(parts, tmp_path):
    q = question(parts, arms=("real", "paste"), ratios=(0.5, 1, 2), seeds=(0,))
    trainer = Pretender()
    found = studies.evaluate(q, tmp_path / "out", SILENT, trainer)
    assert [s for _, s, _ in trainer.trained] == [0, 16, 24, 32]
    assert [p.ratio for p in found.curve] == [0, 0.5, 1, 2]
    assert len(list((tmp_path / "out" / "made" / "0").iterdir())) == 1


def test_several_training_files_are_several_splits_of_one_test(parts, tmp_path):
    q = question(parts, trains=(parts["train"], parts["more"]), arms=("real", "copy-paste"), seeds=(0, 1))
    found = studies.evaluate(q, tmp_path / "out", SILENT, Pretender())
    assert {(r.split, r.seed) for r in found.runs if r.arm == "copy-paste"} == {
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    }
    assert {r.images for r in found.runs if r.split == 1} == {96}
    assert len(found.arms[1].objects) == 2
    assert "4 trainings an arm (2 seeds, 2 splits)" in " ".join(_printed(command.table(found)).split())


def test_a_run_folder_is_an_arm_and_one_of_other_data_is_refused(parts, tmp_path):
    from rarefill import pipeline

    options = PASTE | {"fill": {"square": 4}, "formats": ["coco"]}
    for name in ("train", "more"):
        own = options | {"data": parts[name].path, "out": tmp_path / f"run-{name}"}
        pipeline.run(recipes.resolve(own))
    q = question(parts, arms=("mine",), runs=(f"mine={tmp_path / 'run-train'}",), seeds=(0,))
    found = studies.evaluate(q, tmp_path / "out", SILENT, Pretender())
    assert [a.name for a in found.arms] == ["real", "mine"]
    assert found.arms[1].objects[0] >= 4
    q = question(parts, arms=("run-more",), runs=(str(tmp_path / "run-more"),))
    with pytest.raises(UsageError, match="may have seen the test part"):
        studies.evaluate(q, tmp_path / "out2", SILENT, Pretender())


def test_an_arm_that_cannot_be_made_is_left_out_and_said(parts, tmp_path, monkeypatch):
    from rarefill.proof import sources

    def fails(*args, **more):
        raise RunError("nothing was accepted")

    monkeypatch.setattr(sources.pipeline, "run", fails)
    found = studies.evaluate(
        question(parts, arms=("rfs", "paste"), seeds=(0,)), tmp_path / "out", SILENT, Pretender()
    )
    assert found.arms[-1].failed == "nothing was accepted"
    assert not found.complete
    assert found.verdict is None
    assert any("nothing was accepted" in note for note in found.notes)
    assert "nothing was accepted" in _printed(command.table(found))


def test_images_in_training_and_test_are_refused_and_near_ones_are_said(parts, tmp_path):
    q = question(parts, test=parts["train"])
    with pytest.raises(DataError, match="share none"):
        studies.evaluate(q, tmp_path / "out", SILENT, Pretender())
    # the same pictures under another folder: not the same files, but the same scenes
    shutil.copytree(parts["train"].path.parent, tmp_path / "again")
    q = question(parts, test=load(tmp_path / "again"), arms=("real", "rfs"), seeds=(0,), group_by="similar")
    found = studies.evaluate(q, tmp_path / "out", SILENT, Pretender())
    assert "nearly repeat" in found.notes[0]


def test_wrong_questions_are_one_clear_line(parts, tmp_path):
    for more, said in (
        ({"arms": ("oracle",)}, "--oracle FILE"),
        ({"rare": ("star",)}, "no object of star"),
        ({"oracles": (parts["more"],) * 2}, "once, or once for each"),
        ({"runs": (str(tmp_path),)}, "not a rarefill run"),
    ):
        with pytest.raises((UsageError, DataError), match=said):
            studies.evaluate(question(parts, **more), tmp_path / "out", SILENT, Pretender())


# Trainers


class Count:
    def __init__(self):
        self.n = 0

    def advance(self, n=1, note=""):  # noqa: ARG002
        self.n += n


def task(parts, folder, name="real"):
    folder.mkdir(parents=True, exist_ok=True)
    return Task(composed(parts, name), parts["test"], 0, folder)


def checked(answer, test):
    """What every trainer's detections must be."""
    truth = score.truth(test)
    assert answer.detections is not None
    figures = score.figures(score.match(truth, answer.detections), test.names)
    assert {d["category_id"] for d in answer.detections} <= {c.id for c in test.categories}
    return figures


def test_the_fitted_detector_learns_the_same_from_the_same(parts, tmp_path):
    settings = Settings(steps=2, batch=2, size_px=64)
    trainer, bar = trainers.build(settings), Count()
    one, same = (trainer.run(task(parts, tmp_path / n), bar) for n in "ab")
    assert bar.n == 4
    checked(one, parts["test"])
    assert one.detections == same.detections
    assert trainer.identity()["steps"] == 2


@pytest.mark.parametrize("name", ["rt_detr_v2", "detr"])
def test_a_detector_of_transformers_is_fine_tuned_with_its_own_loss(parts, tmp_path, name):
    folder = save(tmp_path / "model", name)
    trainer = trainers.build(Settings(detector=str(folder), steps=2, batch=2, size_px=64))
    bar = Count()
    found = trainer.run(task(parts, tmp_path / "w"), bar)
    assert bar.n == 2
    assert found.detections
    checked(found, parts["test"])


SCRIPT = """
import json, sys
train, images, test, out, seed = sys.argv[1:]
held = json.load(open(test))
assert len(json.load(open(train))["images"]) == 48
rows = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in held["annotations"]]
json.dump(rows if seed == "0" else {"per_class": {"disc": 0.5, "square": 0.25}}, open(out, "w"))
"""


def external(tmp_path, script):
    path = tmp_path / "my trainer.py"
    path.write_text(script)
    return Command(f"{sys.executable} '{path}' {{train}} {{train_images}} {{test}} {{out}} {{seed}}")


def test_any_command_is_a_trainer(parts, tmp_path):
    trainer = external(tmp_path, SCRIPT)
    found = trainer.run(task(parts, tmp_path / "w"), Count())
    figures = checked(found, parts["test"])
    assert pytest.approx(1.0) == figures["square"].AP
    other = Task(composed(parts, "real"), parts["test"], 1, tmp_path / "w")
    assert trainer.run(other, Count()).figures["square"].AP == 0.25


def test_what_a_command_does_wrong_is_said_in_its_own_last_words(parts, tmp_path):
    for script, said in (
        ("import sys; print('no GPU'); sys.exit(3)", "code 3; its last words: no GPU"),
        ("pass", "wrote no out.json"),
        (
            "import sys; open(sys.argv[4], 'w').write('[{\"image_id\": 2}]')",
            r"\[0\]: expected image_id",
        ),
        (
            'import sys; open(sys.argv[4], "w").write(\'[{"image_id": -4, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 1}]\')',
            "no such image",
        ),
        ("import sys; open(sys.argv[4], 'w').write('nothing')", "not JSON"),
    ):
        with pytest.raises((RunError, DataError), match=said):
            external(tmp_path, script).run(task(parts, tmp_path / "w"), Count())
    with pytest.raises(RunError, match="nobody-has-this"):
        Command("nobody-has-this {train} {out}").run(task(parts, tmp_path / "w"), Count())
    for text, said in (("train.py {train}", "lacks {out}"), ("train.py '{train}{out}", "No closing")):
        with pytest.raises(UsageError, match=said):
            Command(text)


# The command line


def _printed(table):
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=160).print(table)
    return out.getvalue()


def test_the_command_line_goes_all_the_way(parts, tmp_path, capsys, monkeypatch):
    from rarefill import cli

    script = tmp_path / "t.py"
    script.write_text(SCRIPT)
    line = f"{sys.executable} {script} {{train}} {{train_images}} {{test}} {{out}} {{seed}}"
    words = [
        "evaluate",
        str(parts["train"].path),
        "--test",
        str(parts["test"].path),
        "--out",
        str(tmp_path / "o"),
    ]
    words += ["--rare", "square", "--arms", "real,rfs,paste", "--seeds", "1", "--objects", "4"]
    words += ["--checker", "none", "--command", line]
    monkeypatch.setattr(sys, "argv", ["rarefill", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "paste" in said
    assert "No evidence that generation helps here" in " ".join(said.split())
    assert study.read(tmp_path / "o").trainer.startswith("command:")
    assert Path(tmp_path / "o" / "runs" / "0-paste-0.json").exists()
