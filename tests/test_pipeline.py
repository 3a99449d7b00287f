"""A whole run, from a COCO file to labels that others read."""

import contextlib
import io
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny
from pycocotools.coco import COCO

from rarefill import pictures, pipeline
from rarefill import recipe as recipes
from rarefill.dataset import load
from rarefill.errors import DataError, RarefillError, RunError, UsageError
from rarefill.layouts import write_plan
from rarefill.progress import SILENT
from rarefill.rundir import RunDir
from rarefill.scene import Reason, Verdict


def _recipe(data: Path, out: Path, **more):
    options = {
        "data": data,
        "out": out,
        "fill": {"square": 12},
        "generator": {"generator": "paste"},
        "annotator": {"checker": "none"},
        "workers": 1,
    }
    return recipes.resolve(recipes.merged(options, more))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _made(recipe, **more) -> dict[str, bytes]:
    """The bytes of a run made anew in the recipe's folder (relative paths in it depend on the folder's name)."""
    shutil.rmtree(recipe.out, ignore_errors=True)
    pipeline.run(recipe, **more)
    return _bytes(recipe.out)


def _coco(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_one_call_makes_the_objects_asked_for_with_labels_that_others_read(tiny, tmp_path):
    summary = pipeline.run(_recipe(tiny, tmp_path / "run"))
    (tally,) = summary.tallies
    assert (tally.asked, tally.made) == (12, 12)
    made = _coco(tmp_path / "run" / "annotations.json")
    painted = [a for a in made.dataset["annotations"] if "generator" in a.get("rarefill", {})]
    assert len(painted) == 12
    assert {a["category_id"] for a in painted} == {40}
    assert min(made.anns) == 1
    for entry in made.dataset["images"]:
        file = tmp_path / "run" / "images" / entry["file_name"]
        assert pictures.read(file).shape[:2] == (entry["height"], entry["width"])
    merged = _coco(tmp_path / "run" / "merged.json")
    user = json.loads(tiny.read_text())
    assert merged.dataset["categories"] == user["categories"]
    assert merged.dataset["images"][: len(user["images"])] == user["images"]
    assert merged.dataset["annotations"][: len(user["annotations"])] == user["annotations"]
    assert merged.dataset["extra"] == user["extra"]
    for entry in merged.dataset["images"]:
        assert (tiny.parent / "images" / entry["file_name"]).resolve().is_file()


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (1, "uint16"), (3, "uint16")])
def test_what_is_not_painted_is_bit_exact_in_the_file_written(tmp_path, bands, dtype):
    data = make_tiny(tmp_path / "tiny", bands=bands, dtype=dtype)
    dataset = load(data)
    pipeline.run(_recipe(data, tmp_path / "run"))
    for sample in RunDir(tmp_path / "run").samples(dataset):
        real = dataset.read(sample.image)
        written = pictures.read(tmp_path / "run" / "images" / sample.file_name)
        assert written.dtype == real.dtype
        near = np.zeros(real.shape[:2], bool)
        for instance in sample.instances:
            if instance.annotation is None:
                x1, y1, x2, y2 = (int(v) for v in instance.box.xyxy)
                near[max(0, y1 - 12) : y2 + 12, max(0, x1 - 12) : x2 + 12] = True
        assert np.array_equal(written[~near], real[~near])
        assert (written != real).any() == near.any()


@pytest.mark.parametrize("workers", [2, 5])
def test_the_bytes_do_not_depend_on_the_number_of_workers(tiny, tmp_path, workers):
    one = _made(_recipe(tiny, tmp_path / "run"))
    assert _made(_recipe(tiny, tmp_path / "run", workers=workers)) == one


def test_another_seed_makes_other_pictures(tiny, tmp_path):
    pipeline.run(_recipe(tiny, tmp_path / "a"))
    pipeline.run(_recipe(tiny, tmp_path / "b", seed=1))
    assert (tmp_path / "a" / "layouts.jsonl").read_bytes() != (tmp_path / "b" / "layouts.jsonl").read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_twenty_random_points_the_run_ends_with_the_same_bytes(tiny, tmp_path):
    options = {"fill": {"square": 30}, "layout": {"max_reuse": 40, "per_image": 1}, "workers": 2}
    out = tmp_path / "run"
    reference = _made(_recipe(tiny, out, **options))
    began = time.monotonic()
    assert _made(_recipe(tiny, out, **options)) == reference
    seconds = time.monotonic() - began
    rng = np.random.default_rng(5)
    torn = 0
    for share in rng.uniform(0, 1, 20):
        shutil.rmtree(out)
        _killed_after(share * seconds, _recipe(tiny, out, **options))
        torn += (
            not (out / "manifest.json").exists()
            or not json.loads((out / "manifest.json").read_text())["finished"]
        )
        pipeline.run(_recipe(tiny, out, **options))
        assert _bytes(out) == reference
    assert torn >= 10  # the kills came while there was work to lose


def _killed_after(seconds: float, recipe) -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            pipeline.run(recipe)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_finished_run_is_not_made_again(tiny, tmp_path):
    first = pipeline.run(_recipe(tiny, tmp_path / "run"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    again = pipeline.run(_recipe(tiny, tmp_path / "run"))
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_another_run_in_the_same_folder_is_refused_unless_asked_for(tiny, tmp_path):
    pipeline.run(_recipe(tiny, tmp_path / "run"))
    with pytest.raises(UsageError, match=r"recipe\.seed: 0 there, 3 now"):
        pipeline.run(_recipe(tiny, tmp_path / "run", seed=3))
    pipeline.run(_recipe(tiny, tmp_path / "run", seed=3), overwrite=True)
    overwritten = _bytes(tmp_path / "run")
    assert _made(_recipe(tiny, tmp_path / "run", seed=3)) == overwritten


def test_overwriting_the_same_run_continues_it(tiny, tmp_path):
    recipe = _recipe(tiny, tmp_path / "run")
    pipeline.run(recipe)
    (tmp_path / "run" / "images" / "000001.png").touch()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    pipeline.run(recipe, overwrite=True)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_labels_that_are_gone_or_newly_asked_for_are_written_without_painting_again(tiny, tmp_path):
    pipeline.run(_recipe(tiny, tmp_path / "run", formats="coco"))
    before = (tmp_path / "run" / "annotations.json").read_bytes()
    (tmp_path / "run" / "annotations.json").unlink()
    painted = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "images").iterdir()}
    pipeline.run(_recipe(tiny, tmp_path / "run", formats="coco,yolo-seg"))
    assert (tmp_path / "run" / "annotations.json").read_bytes() == before
    assert (tmp_path / "run" / "yolo-seg" / "data.yaml").exists()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "images").iterdir()} == painted


def test_an_image_that_was_deleted_from_a_run_is_told(tiny, tmp_path):
    pipeline.run(_recipe(tiny, tmp_path / "run"))
    next((tmp_path / "run" / "images").iterdir()).unlink()
    with pytest.raises(RunError, match=r"is gone \(1 in all\)"):
        pipeline.run(_recipe(tiny, tmp_path / "run"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": {"no_mirror": "sqare"}},
        {"fill": {"star": 3}},
        {"images": 1000},
        {"image_format": "webp", "bands": "sixteen bit"},
    ],
)
def test_what_cannot_be_is_told_before_the_folder_is_taken_and_before_any_long_work(tmp_path, wrong):
    sixteen = wrong.pop("bands", None)
    data = make_tiny(tmp_path / "tiny", dtype="uint16" if sixteen else "uint8")
    with pytest.raises(RarefillError):
        pipeline.run(_recipe(data, tmp_path / "run", annotator={"checker": "fitted"}, **wrong))
    pipeline.run(_recipe(data, tmp_path / "run"))


def test_what_is_missing_is_told_with_its_reason(tiny, tmp_path):
    summary = pipeline.run(_recipe(tiny, tmp_path / "run", images=2, layout={"per_image": 1, "untouched": 0}))
    assert summary.notes == ("made 2 of 12 'square': all 2 images are used; raise --images or --per-image",)


def test_a_changed_dataset_is_another_run(tiny, tmp_path):
    pipeline.run(_recipe(tiny, tmp_path / "run"))
    document = json.loads(tiny.read_text())
    document["annotations"].pop()
    tiny.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="data:"):
        pipeline.run(_recipe(tiny, tmp_path / "run"))
    with pytest.raises(RunError, match="has changed since"):
        pipeline.export(tmp_path / "run", ("coco",))


def test_an_image_that_becomes_unreadable_stops_the_run_and_loses_nothing(tiny, tmp_path):
    whole = _made(_recipe(tiny, tmp_path / "run"))
    dataset = load(tiny)
    last = list(RunDir(tmp_path / "run").samples(dataset))[-1]
    shutil.rmtree(tmp_path / "run")
    file = dataset.image_path(last.image)
    good = file.read_bytes()
    file.write_bytes(good[:40].ljust(len(good), b"\0"))
    with pytest.raises(DataError, match=file.name) as e:
        pipeline.run(_recipe(tiny, tmp_path / "run"), dataset=dataset)
    assert "\n" not in str(e.value)
    file.write_bytes(good)
    pipeline.run(_recipe(tiny, tmp_path / "run"))
    assert _bytes(tmp_path / "run") == whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("limit", [2_000, 9_000])
def test_a_full_disk_is_told_in_one_line_and_loses_nothing(tiny, tmp_path, limit):
    import resource

    whole = _made(_recipe(tiny, tmp_path / "run"))
    shutil.rmtree(tmp_path / "run")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # writes beyond it fail as on a full disk
        with contextlib.suppress(BaseException), pytest.raises(RunError) as e:
            pipeline.run(_recipe(tiny, tmp_path / "run"))
        os._exit(7 if "cannot be written" in str(e.value) and "\n" not in str(e.value) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    pipeline.run(_recipe(tiny, tmp_path / "run"))
    assert _bytes(tmp_path / "run") == whole


class _Refuses:
    """A checker that accepts nothing, or nothing on the first attempt."""

    table = ()

    def __init__(self, *, first: int) -> None:
        self.first, self.calls = first, 0
        self.lock = threading.Lock()

    def check(self, renders, todo):
        with self.lock:
            self.calls += 1
            refuse = self.calls <= self.first
        return [
            tuple(
                Verdict(i, Reason.NOT_FOUND)
                if refuse
                else Verdict(i, Reason.ACCEPTED, 0.9, 0.5, 1.0, 1.0, r.paints[i].mask.box, r.paints[i].mask)
                for i in indices
            )
            for r, indices in zip(renders, todo, strict=True)
        ]


def test_a_run_that_accepts_nothing_fails_with_a_table_of_reasons(tiny, tmp_path):
    with pytest.raises(RunError, match="nothing was accepted") as e:
        pipeline.run(_recipe(tiny, tmp_path / "run", top_ups=0), checker=_Refuses(first=10**6))
    assert "not found" in str(e.value)
    assert not (tmp_path / "run" / "annotations.json").exists()


def test_what_was_refused_is_painted_again_elsewhere_and_taken_back_where_it_was(tiny, tmp_path):
    dataset = load(tiny)
    summary = pipeline.run(_recipe(tiny, tmp_path / "run"), checker=_Refuses(first=2))
    (tally,) = summary.tallies
    assert tally.made == 12
    assert tally.refused["not found"] > 0
    for sample in RunDir(tmp_path / "run").samples(dataset):
        new = [i for i in sample.instances if i.annotation is None]
        changed = (
            pictures.read(tmp_path / "run" / "images" / sample.file_name) != dataset.read(sample.image)
        ).any(2)
        for instance in new:
            x1, y1, x2, y2 = (int(v) for v in instance.box.xyxy)
            changed[max(0, y1 - 12) : y2 + 12, max(0, x1 - 12) : x2 + 12] = False
        assert not changed.any()


def test_objects_that_were_given_up_are_planned_again_on_other_backgrounds(tiny, tmp_path):
    checker = _Refuses(first=1)  # the whole first chunk
    summary = pipeline.run(_recipe(tiny, tmp_path / "run", attempts=1), checker=checker)
    assert summary.tallies[0].made == 12
    rounds = {r.round for r in RunDir(tmp_path / "run").read(load(tiny))}
    assert rounds == {0, 1}


def test_a_plan_that_a_person_edited_is_obeyed(tiny, tmp_path):
    recipe = _recipe(tiny, tmp_path / "run")
    dataset, made = pipeline.make_plan(recipe)
    plan = tmp_path / "plan.jsonl"
    write_plan(plan, dataset, made.layouts)
    lines = [json.loads(line) for line in plan.read_text().splitlines()]
    edited = [line for line in lines if line["placements"]][:1]
    edited[0]["placements"] = [{"category": "square", "box": [70, 50, 90, 70]}]
    plan.write_text("".join(json.dumps(line) + "\n" for line in edited))
    summary = pipeline.run(_recipe(tiny, tmp_path / "run"), plan=plan)
    assert (summary.images, summary.tallies[0].made) == (1, 1)
    (sample,) = RunDir(tmp_path / "run").samples(dataset)
    (new,) = [i for i in sample.instances if i.annotation is None]
    assert np.abs(np.subtract(new.box.xyxy, (70, 50, 90, 70))).max() <= 3


def test_untouched_backgrounds_are_the_files_as_they_were(tiny, tmp_path):
    summary = pipeline.run(_recipe(tiny, tmp_path / "run", layout={"untouched": 0.4}))
    assert summary.untouched > 0
    dataset = load(tiny)
    for sample in RunDir(tmp_path / "run").samples(dataset):
        if all(i.annotation is not None for i in sample.instances):
            written = pictures.read(tmp_path / "run" / "images" / sample.file_name)
            assert np.array_equal(written, dataset.read(sample.image))
            assert len(sample.instances) == len(dataset.rows_in(sample.image))


class Spoken(type(SILENT)):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line):
        self.lines.append(line)


def _losing(tiny: Path, *rows: int) -> set[str]:
    """Annotations lose their boxes; the images they were on."""
    document = json.loads(tiny.read_text())
    for row in rows:
        document["annotations"][row]["bbox"] = [4, 4, 0, 9]
    tiny.write_text(json.dumps(document))
    names = {entry["id"]: entry["file_name"] for entry in document["images"]}
    return {names[document["annotations"][row]["image_id"]] for row in rows}


def test_no_new_image_is_made_of_one_that_lost_a_label_to_lenient_reading(tiny, tmp_path):
    losing = _losing(tiny, 0, 4)
    recipe = _recipe(tiny, tmp_path / "run", lenient=True, layout={"untouched": 0.4})
    assert pipeline.run(recipe, progress=(said := Spoken())).untouched > 0
    dataset = load(tiny, lenient=True)
    samples = list(RunDir(tmp_path / "run").samples(dataset))
    assert samples
    assert not losing & {dataset.images.file_name[sample.image] for sample in samples}
    line = (
        "2 images of 12 lost an annotation that was left out, so something there has no label: "
        "no new image is made of them"
    )
    assert said.lines.count(line) == 1


def test_where_every_image_lost_a_label_that_is_said(tiny, tmp_path):
    document = json.loads(tiny.read_text())
    seen: set[int] = set()
    firsts = [
        row
        for row, a in enumerate(document["annotations"])
        if a["image_id"] not in seen and not seen.add(a["image_id"])
    ]
    _losing(tiny, *firsts)
    assert (
        pipeline.run(_recipe(tiny, tmp_path / "run", lenient=True), progress=(said := Spoken()))
        .tallies[0]
        .made
    )
    assert any(line.startswith("every image lost an annotation that was left out") for line in said.lines)


def test_the_number_of_images_can_be_asked_for(tiny, tmp_path):
    summary = pipeline.run(_recipe(tiny, tmp_path / "run", images=9))
    assert summary.images == 9


def test_a_yolo_dataset_goes_in_and_comes_out(tiny, tmp_path):
    pipeline.run(_recipe(tiny, tmp_path / "first"))
    yolo = tmp_path / "first" / "yolo" / "data.yaml"
    summary = pipeline.run(_recipe(yolo, tmp_path / "second", fill={"square": 3}))
    assert summary.tallies[0].made == 3
    assert (tmp_path / "second" / "yolo" / "data.yaml").exists()
