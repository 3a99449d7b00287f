"""The audit: who is asked, what the page holds, what the answers come to, and which real labels are looked at."""

import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from rarefill import audit, audit_page, cli, dataset, pictures, suspects
from rarefill.annotators.calibrate import Sight
from rarefill.annotators.detectors import Detections
from rarefill.audit import BAD_PICTURE, BOX_OFF, RIGHT, WRONG_CLASS, Item
from rarefill.errors import DataError, UsageError
from rarefill.geometry import Box, Mask
from rarefill.suspects import Why

NASTY = "</script><script>document.title='bad'</script><img src=x onerror=\"document.title='bad'\">&amp;"


def items(**counts: int) -> list[Item]:
    rng = np.random.default_rng(0)
    return [
        Item(f"{name}-{i}", name, "a.png", Box(0, 0, *rng.uniform(5, 60, 2)), score=float(rng.random()))
        for name, n in counts.items()
        for i in range(n)
    ]


def test_a_sample_names_its_objects_by_seed_alone() -> None:
    found = items(cell=300, speck=40)
    a, b, c = audit.draw(found, 60, 1), audit.draw(found, 60, 1), audit.draw(found, 60, 2)
    assert [i.id for i in a.items] == [i.id for i in b.items]
    assert {i.id for i in a.items} != {i.id for i in c.items}
    assert len({i.id for i in a.items}) == 60


def test_every_stratum_is_asked_and_the_rare_are_asked_more_often() -> None:
    found = items(cell=900, speck=90)
    drawn = audit.draw(found, 100, 0)
    assert set(drawn.stratum) == set(range(len(drawn.sizes)))
    assert sum(drawn.sizes) == 990
    counts = Counter(i.category for i in drawn.items)
    assert counts["speck"] / 90 > 1.5 * counts["cell"] / 900


def test_a_small_run_is_asked_whole() -> None:
    found = items(cell=7)
    assert len(audit.draw(found, 200, 0).items) == 7


def test_equal_weights_give_the_exact_interval() -> None:
    hits = np.arange(40) < 5
    rate = audit.rate(hits, np.ones(40))
    exact = binomtest(5, 40).proportion_ci(0.95, method="exact")
    assert rate.share == pytest.approx(0.125)
    assert (rate.low, rate.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(("hits", "low", "high"), [([False] * 30, 0.0, 0.1157), ([True] * 30, 0.8843, 1.0)])
def test_none_and_all_have_intervals_too(hits, low, high) -> None:
    rate = audit.rate(np.array(hits), np.ones(30))
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-4)


def test_unequal_weights_widen_the_interval() -> None:
    hits = np.arange(40) % 8 == 0
    even = audit.rate(hits, np.ones(40))
    uneven = audit.rate(hits, np.where(np.arange(40) % 2, 1.0, 5.0))
    assert uneven.high - uneven.low > even.high - even.low


def test_rates_are_those_of_the_run_not_of_the_sample() -> None:
    found = items(cell=900, speck=90)
    drawn = audit.draw(found, 120, 3)
    answers = {i.id: WRONG_CLASS if i.category == "speck" else RIGHT for i in drawn.items}
    rows = {row.category: row for row in audit.rows(found, drawn, answers)}
    assert rows["speck"].label.share == 1
    assert rows["cell"].label.share == 0
    assert rows["all"].label.share == pytest.approx(90 / 990, abs=1e-9)


def test_a_bad_picture_is_no_label_error() -> None:
    found = items(cell=20)
    drawn = audit.draw(found, 20, 0)
    given = [BAD_PICTURE] * 4 + [BOX_OFF] * 3 + [RIGHT] * 13
    (row,) = audit.rows(found, drawn, dict(zip((i.id for i in drawn.items), given, strict=True)))
    assert row.label.share == pytest.approx(3 / 20)
    assert row.any.share == pytest.approx(7 / 20)
    assert "3.2 to 37.9" in audit.table([row])


def test_objects_without_an_answer_count_for_nothing() -> None:
    found = items(cell=20)
    drawn = audit.draw(found, 20, 0)
    (row,) = audit.rows(found, drawn, {})
    assert (row.judged, row.label.low, row.label.high) == (0, 0.0, 1.0)
    assert "no answer" in audit.table([row])
    json.dumps(audit.as_json([row]), allow_nan=False)


def test_answers_about_other_objects_are_refused() -> None:
    found = items(cell=20)
    with pytest.raises(DataError, match="not in the sample"):
        audit.rows(found, audit.draw(found, 20, 0), {"cell-77": RIGHT})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected the answers"),
        ('{"rarefill_audit": 1, "run": "other", "seed": 0, "n": 5, "answers": {}}', "another run"),
        (
            '{"rarefill_audit": 1, "run": "abc", "seed": 0, "n": 5, "answers": {"a": "fine"}}',
            "must be one of",
        ),
        ('{"rarefill_audit": 1, "run": "abc", "seed": null, "n": 5, "answers": {}}', "whole numbers"),
    ],
)
def test_bad_files_of_answers_get_one_clear_line(tmp_path, text, says) -> None:
    path = tmp_path / "audit.json"
    path.write_text(text)
    with pytest.raises((DataError, UsageError), match=says) as e:
        audit.answers_of(path, "abc")
    assert "\n" not in str(e.value)


def page(folder, *, category: str = "cell") -> str:
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    (folder / "images" / "a.png").write_bytes(pictures.encode(pixels, "png"))
    mask = Mask.of(np.hypot(*np.mgrid[-9.5:10, -9.5:10]) < 9, 30, 20)
    found = [Item(f"a.png#{i}", category, "a.png", Box(30, 20, 50, 40), mask) for i in range(3)]
    drawn = audit.draw(found, 3, 0)
    return audit_page.write(folder / "audit.html", NASTY, "abc", drawn, 3, folder / "images").read_text()


def test_the_page_loads_nothing(tmp_path) -> None:
    text = page(tmp_path)
    assert "default-src 'none'" in text
    without = text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address that is opened
    assert not re.search(r"https?:|//[a-z]+\.|src=\"(?!data:)|<link|@import|url\(", without)


def test_names_are_text_and_never_markup(tmp_path) -> None:
    text = page(tmp_path, category=NASTY)
    assert "<script>document.title" not in text
    assert "<img src=x" not in text
    document = json.loads(re.search(r'id="audit">(.*?)</script>', text, re.DOTALL).group(1))
    assert document["items"][0]["category"] == NASTY


def test_the_box_and_the_outline_lie_on_the_object(tmp_path) -> None:
    document = json.loads(re.search(r'id="audit">(.*?)</script>', page(tmp_path), re.DOTALL).group(1))
    entry = document["items"][0]
    x, y, width, height = entry["box"]
    assert abs(x + width / 2 - 500) < 12
    assert abs(y + height / 2 - 500) < 12 or y > 0  # a crop at the image's edge is moved inside
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", entry["path"]), dtype=float)
    assert points.min(axis=0) == pytest.approx([x, y], abs=25)
    assert points.max(axis=0) == pytest.approx([x + width, y + height], abs=45)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_a_browser_shows_every_object_and_its_buttons(tmp_path) -> None:
    page(tmp_path, category=NASTY)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "audit.html"]
    command[-1] = (tmp_path / "audit.html").as_uri()
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    except subprocess.TimeoutExpired:
        pytest.skip("the browser takes longer than two minutes here")
    if not shown:
        pytest.skip("the browser does not start here")
    assert shown.count("<figure") == 3
    assert [f'data-answer="{a}"' in shown for a in audit.ANSWERS] == [True] * 4
    assert "<title>bad" not in shown


def test_the_command_writes_a_page_and_reads_its_answers(tiny, tmp_path) -> None:
    out = tmp_path / "run"
    run = CliRunner()
    made = [
        "generate",
        str(tiny),
        "--generator",
        "paste",
        "--checker",
        "none",
        "--fill",
        "square=6",
        "--out",
        str(out),
    ]
    assert run.invoke(cli.app, made).exit_code == 0
    assert run.invoke(cli.app, ["audit", str(out), "--n", "4"]).exit_code == 0
    document = json.loads(
        re.search(r'id="audit">(.*?)</script>', (out / "audit.html").read_text(), re.DOTALL).group(1)
    )
    assert len(document["items"]) == 4
    given = {e["id"]: (BOX_OFF if i == 0 else RIGHT) for i, e in enumerate(document["items"])}
    answers = {"rarefill_audit": 1, "run": document["run"], "seed": 0, "n": 4, "answers": given}
    (tmp_path / "audit.json").write_text(json.dumps(answers))
    said = run.invoke(cli.app, ["audit", str(out), "--answers", str(tmp_path / "audit.json"), "--json"])
    (row,) = json.loads(said.stdout)
    assert (row["painted"], row["judged"], row["answers"]["box off"]) == (6, 4, 1)
    assert row["label_error"]["low"] > 0
    said = run.invoke(cli.app, ["audit", str(out), "--out", str(tmp_path / "look.v2")])
    assert f"open {tmp_path / 'look.v2.html'}," in said.stdout
    assert (tmp_path / "look.v2.html").exists()
    with pytest.raises(UsageError, match=f"{out} is a folder; give --out the page's own name"):
        run.invoke(cli.app, ["audit", str(out), "--out", str(out)], catch_exceptions=False)


# The real data's labels.


class Stub:
    """Sees what it is told, at given boxes."""

    def __init__(self, boxes, labels, scores, sight=None) -> None:
        self.seen = Detections(
            np.array(boxes, float).reshape(-1, 4), np.array(labels, int), np.array(scores, float)
        )
        self.sight = sight or Sight(score=0.9)

    def look(self, pixels, image, box, label, min_overlap):
        del pixels, image, box, label, min_overlap
        return self.sight

    def around(self, pixels, image, box):
        del pixels, image, box
        return self.seen

    def ahead(self, images):
        del images


def test_a_confident_detection_without_a_label_is_listed_once(tiny) -> None:
    data = dataset.load(tiny)
    box = data.annotations.boxes[data.rows_in(0)[0]]
    free = [70, 2, 82, 14] if box[0] < 50 else [2, 2, 14, 14]
    judge = Stub([box, free, np.array(free) + 1, [0, 60, 10, 70]], [1, 1, 1, 1], [0.95, 0.9, 0.8, 0.3])
    found = list(suspects.missing(data, judge, 0, data.read(0), {"disc": 0.4}, 40))
    assert [(s.why, s.box.xyxy) for s in found] == [(Why.MISSING, tuple(map(float, free)))]


def test_labels_that_are_not_found_or_taken_for_others_are_listed(tiny) -> None:
    data = dataset.load(tiny)
    known, well, pixels = {"disc": 0.4, "square": 0.4}, {"disc"}, data.read(0)
    lost = list(suspects.labels(data, Stub([], [], [], Sight(score=0.1)), 0, pixels, known, well))
    assert {s.why for s in lost} == {Why.NOT_FOUND}
    assert len(lost) == len(data.rows_in(0))
    row = data.rows_in(0)[0]
    other = data.category_row("square")
    judge = Stub([data.annotations.boxes[row]], [other], [0.9], Sight(score=0.1, rival=0.9))
    taken = list(suspects.labels(data, judge, 0, pixels, known, well))
    assert [(s.why, s.instead) for s in taken] == [(Why.OTHER_CLASS, "square")]
    assert not list(suspects.labels(data, Stub([], [], []), 0, pixels, known, well))


def test_the_kinds_take_turns_and_the_page_is_written(tiny, tmp_path) -> None:
    data = dataset.load(tiny)
    found = suspects.ranked(
        [
            suspects.Suspect(why, 0, Box(5, 5, 20, 20), "disc", None, strength)
            for why in (Why.MISSING, Why.NOT_FOUND)
            for strength in (0.2, 0.9)
        ]
    )
    assert [(s.why, s.strength) for s in found[:2]] == [(Why.MISSING, 0.9), (Why.NOT_FOUND, 0.9)]
    suspects.write(tmp_path / "suspects.html", data, found)
    assert "2 object without a label" in (tmp_path / "suspects.html").read_text()


@pytest.mark.parametrize(("width", "height"), [(640, 480), (100, 30), (50, 50)])
def test_the_squares_cover_the_image(width, height) -> None:
    seen = np.zeros((height, width), bool)
    for box in suspects.squares(width, height, 100):
        x, y = box.center
        seen[max(0, int(y - 50)) : int(y + 50), max(0, int(x - 50)) : int(x + 50)] = True
    assert seen.all()
