"""RUN/report.html says what a run did, loads nothing, and takes no name for markup."""

import itertools
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny

from rarefill import files, pipeline, recipe
from rarefill.errors import RunError, UsageError
from rarefill.progress import SILENT
from rarefill.proof import study as studies
from rarefill.proof.study import Arm, Estimate, Figures, Served, Study, Verdict
from rarefill.proof.study import Run as Training
from rarefill.report import charts, command, facts, page
from rarefill.rundir import RunDir
from rarefill.scene import Kind, Step

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Every tag with its attributes, whether tags close in order, and what stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.wrong, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def made(data: Path, out: Path, **more) -> Path:
    options = {
        "data": data,
        "out": out,
        "generator": {"generator": "paste"},
        "annotator": {"checker": "none"},
    }
    pipeline.run(recipe.resolve({**options, "fill": {"square": 6}, "workers": 1, **more}))
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return made(make_tiny(folder / "tiny"), folder / "run")


@pytest.fixture(scope="module")
def parsed(run) -> Page:
    return Page((run / "report.html").read_text())


def test_every_run_ends_with_a_report_whose_tags_close(parsed):
    assert not parsed.wrong
    assert parsed.open == []
    assert "All 6 objects that were asked for are made" in parsed.text


def test_a_report_promises_real_pixels_only_where_the_format_keeps_them(parsed, tmp_path):
    kept = "pixels outside of painted objects as in the data"
    assert kept in parsed.text
    lossy = Page(
        (
            made(make_tiny(tmp_path / "tiny"), tmp_path / "run", image_format="jpeg") / "report.html"
        ).read_text()
    )
    assert kept not in lossy.text
    assert "Images are JPEG, as asked for" in lossy.text


def test_a_report_loads_nothing_from_anywhere(run, parsed):
    for attrs in parsed.all("img"):
        assert attrs["src"].startswith("data:image/")
    assert not parsed.all("link")
    assert all(not a["href"] or a["href"].startswith("#") for a in parsed.all("a"))
    text = (run / "report.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    policy = next(a["content"] for a in parsed.all("meta") if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_the_only_script_is_the_one_that_the_policy_names(run, parsed):
    import base64
    import hashlib

    assert len(parsed.all("script")) == 1
    text = (run / "report.html").read_text()
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"sha256-{digest}" in text


def test_every_picture_has_words_and_every_link_a_place(parsed):
    assert parsed.all("img")
    assert all(a["alt"].strip() for a in parsed.all("img"))
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in parsed.all("a")} <= set(ids)
    headings = [int(t[1]) for t, _ in parsed.tags if t in {"h1", "h2", "h3", "h4"}]
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))


def test_names_are_never_markup(tmp_path):
    data = make_tiny(tmp_path / "tiny")
    document = json.loads(data.read_text())
    for category in document["categories"]:
        if category["name"] == "square":
            category["name"] = HOSTILE
    data.write_text(json.dumps(document))
    out = made(data, tmp_path / 'run "><b>', fill={HOSTILE: 4})
    text = (out / "report.html").read_text()
    parsed = Page(text)
    assert not parsed.wrong
    assert HOSTILE not in text
    assert len(parsed.all("script")) == 1
    assert HOSTILE in parsed.text
    assert not any("onerror" in a or "onload" in a for _, a in parsed.tags)


def test_every_painted_object_is_shown_with_what_was_asked_and_measured(run, parsed):
    tiles = [a for _, a in parsed.tags if a.get("id", "").startswith("object-")]
    assert len(tiles) == 6
    classes = [a.get("class") for a in (*parsed.all("rect"), *parsed.all("path"))]
    assert classes.count("asked") == classes.count("painted") == 6


def test_facts_join_each_object_with_the_paint_that_it_came_of(run):
    folder, data = command.opened(run, SILENT)
    known = facts.read(folder, data)
    assert len(known.painted) == 6
    assert known.shown == tuple(range(6))
    for thing in known.painted:
        assert thing.kind is Kind.NEW
        assert thing.step is Step.FIRST
        assert thing.asked is not None
        assert thing.mask is not None
        assert abs(thing.asked.center[0] - thing.box.center[0]) < 4
    again = sum(known.repeated.values())
    assert again == known.summary.labels - 6


def test_pictures_beyond_the_cap_are_a_stated_even_sample(run, monkeypatch):
    monkeypatch.setattr(facts, "SHOWN", 4)
    folder, data = command.opened(run, SILENT)
    report = page.make(folder, data)
    assert len(report.facts.shown) == 4
    assert "4 of 6 painted objects, spread evenly over the run." in Page(page.html(report)).text


def test_a_finished_run_without_its_report_gets_one(run):
    (run / "report.html").unlink()
    folder = RunDir(run)
    pipeline.run(recipe.resolve({**recipe.read(folder.recipe), "out": str(run)}))
    assert (run / "report.html").exists()


def test_the_command_writes_the_page_and_the_same_as_json(run, tmp_path):
    out = tmp_path / "other.html"
    value = json.loads(command.report(run, out, SILENT, as_json=True))
    assert out.stat().st_size > 10_000
    assert value["page"] == str(out)
    assert command.report(run, tmp_path / "again", SILENT, as_json=False) == f"Open {tmp_path / 'again.html'}"
    (square,) = value["representation"]
    assert square["category"] == "square"
    for attribute in square["attributes"]:
        assert sum(g["real"] for g in attribute["groups"]) <= square["of_real"]
        assert sum(g["share_before"] for g in attribute["groups"]) == pytest.approx(1, abs=0.01)


def test_two_reports_of_one_run_are_the_same_bytes(run, tmp_path):
    first, second = (tmp_path / name for name in ("a.html", "b.html"))
    for path in (first, second):
        command.report(run, path, SILENT)
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_that_is_no_run_gets_one_line(tmp_path):
    with pytest.raises(UsageError, match="not a rarefill run"):
        command.report(tmp_path, None, SILENT)


def test_an_unfinished_run_gets_one_line(run, tmp_path):
    _, data = command.opened(run, SILENT)
    manifest = json.loads((run / "manifest.json").read_text())
    other = RunDir(tmp_path)
    files.write_bytes(tmp_path / "manifest.json", json.dumps(manifest | {"finished": False}).encode())
    with pytest.raises(RunError, match="is not finished"):
        facts.read(other, data)


def study(category: str) -> Study:
    def training(arm: str, ap: float) -> Training:
        figures = Figures(AP=ap, small=ap, medium=ap + 0.1)
        return Training(arm=arm, split=0, seed=0, rare=figures, others=figures, classes={category: figures})

    return Study(
        version="0",
        rare=(category,),
        categories=(category,),
        train=("train.json",),
        test="test.json",
        test_images=9,
        test_groups=9,
        test_objects={category: 9},
        train_objects=({category: 3},),
        trainer="a small detector",
        settings={},
        seeds=(0,),
        complete=True,
        arms=(
            Arm(name="rfs", kind="baseline", rare=Estimate(value=0.3, low=0.2, high=0.4)),
            Arm(name="paste", kind="generated", failed="it <b>broke</b>"),
        ),
        runs=(training("rfs", 0.3), training("paste", 0.35)),
        comparisons=(),
        verdict=Verdict(outcome="helps", arm="paste", baseline="rfs", lines=("Generation adds +0.05.",)),
        served=(
            Served(
                category=category,
                attribute="brightness",
                group="dark <i>ones</i>",
                objects=7,
                ap={"rfs": 0.1, "paste": 0.2},
                difference=Estimate(value=0.1, low=0.02, high=0.18),
            ),
        ),
    )


def test_a_study_in_the_run_is_its_proof(run):
    path = run / "proof" / studies.FILE
    studies.write(path, study("square"))
    folder, data = command.opened(run, SILENT)
    report = page.make(folder, data)
    path.unlink()
    text = Page(page.html(report)).text
    assert "Generation adds +0.05." in text
    assert "it <b>broke</b>" in text
    assert "dark <i>ones</i> (AP 0.100 of 7 objects); paste +0.100 [+0.020, +0.180]" in text
    assert "Of 1 groups paste surely raises 1 over rfs and lowers 0" in text
    sizes = next(a for a in report.representation[0].attributes if a.name == "size as COCO has it")
    assert sizes.groups[0].ap == (0.3, 0.35)


def test_a_synthetic_test_set_says_so_everywhere(tiny, tmp_path):
    out = made(tiny, tmp_path / "run", fill={"square": 2}, role="test")
    labels = json.loads((out / "annotations.json").read_text())
    assert labels["info"]["role"] == "synthetic test"
    assert all(image["file_name"].startswith("synthetic-test-") for image in labels["images"])
    assert {p.name for p in (out / "images").iterdir()} == {i["file_name"] for i in labels["images"]}
    assert not (out / "merged.json").exists()
    assert not (out / "yolo").exists()
    assert "synthetic test set" in Page((out / "report.html").read_text()).text
    pipeline.run(recipe.resolve({**recipe.read(out / "recipe.yaml"), "out": str(out)}))  # nothing is lacking
    assert not (out / "merged.json").exists()
    with pytest.raises(UsageError, match="coco is all that it can be written as"):
        pipeline.export(out, ("merged",))


def test_pictures_of_16_bits_and_one_band_are_shown(tmp_path):
    out = made(make_tiny(tmp_path / "tiny", bands=1, dtype="uint16"), tmp_path / "run", fill={"disc": 3})
    parsed = Page((out / "report.html").read_text())
    assert not parsed.wrong
    assert "All 3 objects" in parsed.text


def test_a_damaged_study_takes_nothing_from_a_run(tiny, tmp_path):
    out = made(tiny, tmp_path / "run", fill={"square": 2})
    (out / "report.html").unlink()
    files.write_bytes(out / "proof" / studies.FILE, b"{")
    pipeline.run(recipe.resolve({**recipe.read(out / "recipe.yaml"), "out": str(out)}))
    assert not (out / "report.html").exists()


def test_spread_is_even_and_keeps_both_ends():
    assert facts.spread(5, 9) == [0, 1, 2, 3, 4]
    assert facts.spread(100, 3) == [0, 50, 99] or facts.spread(100, 3) == [0, 49, 99]
    assert facts.spread(0, 3) == []


def test_bars_are_of_one_scale():
    first, second = charts.class_bars([("a", 50, 25, 25, True), ("b", 10, 0, 0, False)])
    assert sum(first.widths) == pytest.approx(100)
    assert second.widths == (10.0, 0.0, 0.0)


def test_histograms_need_objects_on_both_sides():
    assert charts.size_steps(np.array([10.0, 20.0]), np.zeros(0)) is None
    steps = charts.size_steps(np.array([10.0, 20.0, 40.0]), np.array([12.0]))
    assert steps is not None
    assert [word for _, word in steps.ticks] == ["10", "20"]


def test_the_command_line_knows_the_report(run):
    from typer.testing import CliRunner

    from rarefill import cli

    result = CliRunner().invoke(cli.app, ["report", str(run)])
    assert result.exit_code == 0
    assert "report.html" in result.output


def test_dots_are_inside_their_frame():
    found = charts.place_map(np.array([[0.0, 0.0], [1.0, 1.0]]), np.zeros((0, 2)), 2.0)
    assert (found.width, found.height) == (300, 150)
    assert found.real == ((0.0, 0.0), (300.0, 150.0))
