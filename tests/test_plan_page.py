"""The page of a plan: what it holds, what a person does to it, and that the edited plan is obeyed."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rarefill import plan_notes, plan_page
from rarefill.bank import build
from rarefill.dataset import load
from rarefill.geometry import Box, Mask, box_mask
from rarefill.layouts import Planner, read_plan, write_plan
from rarefill.recipe import LayoutConfig
from rarefill.scene import Layout, Placement

MODEL = Path(plan_page.__file__).parent / "templates" / "plan_model.js"
NASTY = "</script><script>document.title='bad'</script><img src=x onerror=\"document.title='bad'\">&amp;"


@pytest.fixture
def planned(tiny, tmp_path):
    """A dataset, its silhouettes, and a plan of 8 squares and 5 discs in a file."""
    return _planned(tiny, tmp_path)


def _planned(annotations, folder, names=("square", "disc")):
    data = load(annotations)
    shapes = build(data, list(names))
    made = Planner(data, shapes, LayoutConfig(), seed=3).plan(dict(zip(names, (8, 5), strict=True)))
    write_plan(folder / "plan.jsonl", data, made.layouts)
    return data, shapes, folder / "plan.jsonl"


def page(planned, **options) -> Path:
    data, shapes, plan = planned
    return plan_page.write(plan.with_name("plan.html"), data, plan, read_plan(plan, data, shapes), **options)


def embedded(path: Path) -> dict:
    found = re.search(
        r'<script type="application/json" id="plan">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(found.group(1))


def line_of(layout: dict) -> str:
    """What the page's own `lineText` does, for a layout that nobody edited."""
    if "text" in layout:
        return layout["text"]
    items = ", ".join("".join(item["text"]) for item in layout["items"])
    return f'{layout["head"][:-1]}, "placements": [{items}]}}'


def test_the_page_holds_the_plan_letter_by_letter(planned) -> None:
    lines = planned[2].read_text().splitlines()
    layouts = embedded(page(planned))["layouts"]
    assert [line_of(layout) for layout in layouts] == lines
    assert any("text" in layout for layout in layouts)  # an untouched background


def test_keys_that_the_page_knows_nothing_of_are_kept() -> None:
    text = '{"box": [1.5, 2, 30, 40], "new": {"box": [0, 1]}, "seed": 123456789012345678901, "score": 1e-9}'
    parts = plan_page._cut(json.loads(text))
    assert parts[1] == "[1.5, 2, 30, 40]"
    assert json.loads("".join(parts)) == json.loads(text)
    assert json.loads(parts[0] + "[0, 0, 9, 9]" + parts[2])["new"] == {"box": [0, 1]}


def test_the_page_loads_nothing_and_is_one_file(planned) -> None:
    text = page(planned).read_text()
    assert "default-src 'none'" in text
    without = text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address that is opened
    assert not re.search(r"https?:|//[a-z]+\.|src=\"(?!data:)|<link|@import|url\(", without)
    assert all(t.startswith("data:image/webp;base64,") for t in embedded(page(planned))["thumbs"])


def test_a_background_that_is_used_twice_is_stored_once(planned) -> None:
    document = embedded(page(planned))
    shown = [layout for layout in document["layouts"] if "items" in layout]
    assert {layout["thumb"] for layout in shown} == set(range(len(document["thumbs"])))
    assert len({layout["file"] for layout in shown}) == len(document["thumbs"])


def test_above_the_limit_the_first_are_shown_and_all_are_kept(planned) -> None:
    path = page(planned, shown=2)
    layouts = embedded(path)["layouts"]
    assert sum("items" in layout for layout in layouts) == 2
    assert [line_of(layout) for layout in layouts] == planned[2].read_text().splitlines()
    assert "This page shows the first 2 backgrounds of" in path.read_text()


def test_pictures_are_of_bounded_size(monkeypatch, planned) -> None:
    whole = sum(map(len, embedded(page(planned))["thumbs"]))
    monkeypatch.setattr(plan_page, "PICTURES_BYTES", 1)
    monkeypatch.setattr(plan_page, "_STEPS", ((96, 80), (48, 50)))
    assert sum(map(len, embedded(page(planned))["thumbs"])) < whole


def test_names_are_text_and_never_markup(tiny, tmp_path) -> None:
    text = page(_nasty(tiny, tmp_path)).read_text()
    assert text.count("<script") == 3
    assert "<img src=x" not in text
    assert NASTY in [c["name"] for c in embedded(tmp_path / "plan.html")["categories"]]


def _nasty(tiny, folder):
    document = json.loads(tiny.read_text())
    for category in document["categories"]:
        if category["name"] == "square":
            category["name"] = NASTY
    tiny.write_text(json.dumps(document))
    return _planned(tiny, folder, (NASTY, "disc"))


def test_an_outline_fills_its_box() -> None:
    pixels = np.ones((20, 40), dtype=bool)
    pixels[:10, :20] = False
    numbers = [int(v) for v in re.findall(r"-?\d+", plan_page._path(Mask(5, 7, pixels), 1.0))]
    xs, ys = numbers[::2], numbers[1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((0, 1000, 0, 1000), abs=10)
    assert not any(x < 450 and y < 450 for x, y in zip(xs, ys, strict=True))


def noted(dataset, *layouts, **config):
    return plan_notes.notes(dataset, layouts, LayoutConfig(**config))


def test_a_planned_plan_has_no_notes(planned) -> None:
    data, shapes, plan = planned
    assert noted(data, *read_plan(plan, data, shapes)) == []


def test_what_a_planner_would_not_have_done_is_said(tiny) -> None:
    data = load(tiny)
    row = 0
    image, real = int(data.annotations.image[row]), data.box(row)
    there, elsewhere = box_mask(real), box_mask(Box(0, 0, 6, 6))
    (line,) = noted(data, Layout(image, 0, (Placement("square", there),)))
    assert line.startswith(
        f"layout 1 ({data.images.file_name[image]}, copy 0): placements[0] hides 100% of a real"
    )
    assert "loses its label" in line
    twice = Layout(image, 0, (Placement("square", elsewhere, depth=1), Placement("square", elsewhere)))
    (line,) = noted(data, twice)
    assert "placements[0] covers 100% of placements[1]; max_overlap is 0.1" in line
    assert noted(data, twice, max_overlap=1) == []
    (line,) = noted(data, *(Layout(image, copy) for copy in range(3)), max_reuse=2)
    assert line == f"{data.images.file_name[image]} is used 3 times; max_reuse is 2"
    right = ((0.5, 0), (1, 0), (1, 1), (0.5, 1))
    (line,) = noted(data, Layout(image, 0, (Placement("square", elsewhere),)), region=(right,))
    assert "outside the region" in line
    crowd = [Layout(image, copy, (Placement("square", there),)) for copy in range(12)]
    assert noted(data, *crowd, max_reuse=99)[-1] == "and 4 more of the kind"


def test_notes_stand_on_the_page(planned) -> None:
    assert "<li>a &lt;b&gt; note</li>" in page(planned, notes=["a <b> note"]).read_text()


# ---- the script, run by node and by a browser where there is one ----


def node(script: str) -> object:
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node to run the page's script")
    code = f"const m = require({json.dumps(str(MODEL))});\nconsole.log(JSON.stringify({script}))"
    done = subprocess.run([program, "-e", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("call", "box"),
    [
        ("m.moved([10, 10, 20, 30], 5.4, -3.6, {w: 100, h: 80})", [15, 6, 25, 26]),
        ("m.moved([10, 10, 20, 30], -50, 500, {w: 100, h: 80})", [0, 60, 10, 80]),
        ("m.moved([0, 0, 100, 80], 9, 9, {w: 100, h: 80})", [0, 0, 100, 80]),
        ("m.moved([1.5, 2.5, 11, 12], 1, 1, {w: 12, h: 80})", [2, 4, 11.5, 13.5]),
        ("m.scaled([10, 10, 30, 30], 1.1, {w: 100, h: 80})", [9, 9, 31, 31]),
        ("m.scaled([10, 10, 12, 12], 1 / 1.1, {w: 100, h: 80})", [10, 10, 12, 12]),
        ("m.scaled([10, 10, 13, 13], 1.1, {w: 100, h: 80})", [10, 10, 14, 14]),
        ("m.scaled([0, 0, 99, 80], 1.1, {w: 100, h: 80})", [0, 0, 100, 80]),
        ("m.spanned([30.2, 9], [9, 30.4], {w: 100, h: 80})", [9, 9, 30, 30]),
        ("m.spanned([-5, 70], [20, 99], {w: 100, h: 80})", [0, 70, 20, 80]),
        ("m.spanned([5, 5], [6, 40], {w: 100, h: 80})", None),
    ],
)
def test_boxes_stay_inside_the_image_on_whole_pixels(call, box) -> None:
    assert node(call) == box


def test_the_script_writes_back_what_it_was_given(planned) -> None:
    document = page(planned).with_suffix(".json")
    document.write_text(json.dumps(embedded(planned[2].with_name("plan.html"))))
    text = node(f"m.planText(require({json.dumps(str(document))}).layouts)")
    assert text == planned[2].read_text()


PLAYED = r"""
(() => {
  const result = { errors: [] };
  window.addEventListener("error", (e) => result.errors.push(String(e.message)));
  const files = [];
  const TrueBlob = window.Blob;
  window.Blob = function (parts, options) { files.push(parts.join("")); return new TrueBlob(parts, options); };
  HTMLAnchorElement.prototype.click = () => {};  // nothing is written to a disk
  const get = (query, inside = document) => inside.querySelector(query);
  const point = (node, type, x, y) => node.dispatchEvent(
    new PointerEvent(type, { bubbles: true, clientX: x, clientY: y, button: 0, pointerId: 1 }));
  const key = (node, key, more = {}) =>
    node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
  const tool = (name) => get(`input[value="${name}"]`).click();
  const download = () => { get("#download").click(); return files.at(-1); };
  const drag = (svg, node, from, to) => {
    const f = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const at = ([x, y]) => [f.left + (x * f.width) / view.width, f.top + (y * f.height) / view.height];
    point(node, "pointerdown", ...at(from)); point(svg, "pointermove", ...at(to)); point(svg, "pointerup", ...at(to));
  };
  PLAY
  result.edits = get("#edits").textContent;
  result.title = document.title;
  const text = new TextEncoder().encode(JSON.stringify(result));
  const out = document.createElement("pre");
  out.id = "result";
  out.textContent = btoa(String.fromCharCode(...text));
  document.body.append(out);
})();
"""


def played(path: Path, play: str) -> dict:
    """What a person would do, done to the page in a browser; what `result` then holds."""
    program = next(
        filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser", "chrome"))), None
    )
    if program is None:
        pytest.skip("no Chromium to open the page")
    copy = path.with_name("played.html")
    copy.write_text(
        path.read_text().replace("</body>", f"<script>{PLAYED.replace('PLAY', play)}</script></body>")
    )
    settings = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", "--dump-dom"]
    folder = f"--user-data-dir={path.parent / 'browser'}"
    command = [program, *settings, folder, copy.as_uri()]
    try:
        text = subprocess.run(command, capture_output=True, check=False, timeout=60).stdout.decode()
    except subprocess.TimeoutExpired as e:  # it shows the page and then does not always end on a busy machine
        text = (e.stdout or b"").decode()
    found = re.search(r'<pre id="result">([^<]*)</pre>', text)
    assert found, text[-2000:]
    return json.loads(base64.b64decode(found.group(1)))


def test_a_person_deletes_moves_and_adds_and_the_plan_is_obeyed(planned) -> None:
    data, shapes, plan = planned
    lines = [json.loads(line) for line in plan.read_text().splitlines()]
    filled = [i for i, line in enumerate(lines) if line["placements"]]
    result = played(
        page(planned),
        """
        result.before = download();
        const figures = [...document.querySelectorAll("figure")];
        const svg = (i) => get("svg", figures[i]);
        const middle = (i) => { const r = get(".hit", svg(i)); const n = (k) => Number(r.getAttribute(k));
          return [n("x") + n("width") / 2, n("y") + n("height") / 2]; };
        tool("delete");
        drag(svg(0), get(".hit", svg(0)), middle(0), middle(0));
        tool("move");
        drag(svg(1), get(".hit", svg(1)), middle(1), [0, 0]);
        key(get(".name", figures[1]), "ArrowRight", { shiftKey: true });
        key(get(".name", figures[1]), "ArrowDown");
        tool("add");
        get("#category").value = "disc";
        drag(svg(2), svg(2), [10, 12], [30, 34]);
        drag(svg(2), svg(2), [40, 40], [41, 41]);
        get(".remove", figures[3]).click();
        get("#undo").click();
        result.after = download();
        """,
    )
    assert result["errors"] == []
    assert result["edits"] == "1 deleted, 1 moved, 1 added"
    assert result["before"] == plan.read_text()
    first, second, third = filled[:3]
    del lines[first]["placements"][0]
    x1, y1, x2, y2 = lines[second]["placements"][0]["box"]
    lines[second]["placements"][0]["box"] = [10, 1, 10 + x2 - x1, 1 + y2 - y1]
    lines[third]["placements"].append({"category": "disc", "box": [10, 12, 30, 34]})
    assert [json.loads(line) for line in result["after"].splitlines()] == lines
    edited = plan.with_name("edited.jsonl")
    edited.write_text(result["after"])
    layouts = read_plan(edited, data, shapes)
    assert layouts[second].placements[0].box.xyxy == (10, 1, 10 + x2 - x1, 1 + y2 - y1)
    assert layouts[third].placements[-1].box.xyxy == (10, 12, 30, 34)


def test_categories_are_filtered_and_layouts_sorted_by_score(planned) -> None:
    plan = planned[2]
    lines = [json.loads(line) for line in plan.read_text().splitlines()]
    scores = iter(range(100))
    for placement in (p for line in lines for p in line["placements"]):
        placement["score"] = next(scores) * 7 % 13 / 13
    plan.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = played(
        page(planned),
        """
        const scores = () => [...document.querySelectorAll("figure:not([hidden])")].map(
          (f) => [...f.querySelectorAll(".name")].map((n) => Number(n.lastChild.textContent)));
        const order = (value) => { get("#sort").value = value; get("#sort").dispatchEvent(new Event("change")); };
        order("low"); result.low = scores();
        order("high"); result.high = scores();
        [...document.querySelectorAll("#chips label")].find((l) => l.textContent.startsWith("disc")).click();
        result.words = [...new Set([...document.querySelectorAll(".words")].map((n) => n.textContent))];
        result.all = download();
        """,
    )
    assert [min(s) for s in result["low"]] == sorted(min(s) for s in result["low"])
    assert [max(s) for s in result["high"]] == sorted((max(s) for s in result["high"]), reverse=True)
    assert all(s == sorted(s) for s in result["low"])
    assert result["words"] == ["square"]
    assert result["all"] == plan.read_text()


def test_a_placement_is_edited_by_keyboard_alone(planned) -> None:
    result = played(
        page(planned),
        """
        const figure = get("figure");
        [...figure.querySelectorAll("button")].find((b) => b.textContent === "Add here").click();
        result.focused = document.activeElement.getAttribute("aria-label");
        key(document.activeElement, "ArrowLeft");
        key(document.activeElement, "+");
        result.still = document.activeElement.getAttribute("aria-label");
        key(document.activeElement, "Delete");
        result.gone = document.activeElement.getAttribute("aria-label");
        result.none = get("#edits").textContent;
        for (let i = 0; i < 3; i++) key(document.body, "z", { ctrlKey: true });
        result.added = get("#edits").textContent;
        """,
    )
    assert result["errors"] == []
    assert "added" in result["focused"]
    assert "added" in result["still"]
    assert "deleted" in result["gone"]
    assert result["none"] == "no edits"
    assert result["added"] == "1 added"


def test_a_name_that_looks_like_a_script_stays_a_name(tiny, tmp_path) -> None:
    result = played(
        page(_nasty(tiny, tmp_path)),
        """
        result.words = [...new Set([...document.querySelectorAll(".words")].map((n) => n.textContent))].sort();
        result.images = [...document.images].filter((i) => !i.src.startsWith("data:")).length;
        """,
    )
    assert result["words"] == sorted([NASTY, "disc"])
    assert (result["images"], result["title"]) == (0, "Plan plan.jsonl")
