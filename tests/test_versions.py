"""Versions of whole images: real pixels that stay, labels looked at again, resume, and the tiles that they are painted in."""

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import hub_flow_models as tiny_flows
import hub_models as tiny_models
import numpy as np
import pytest
from conftest import make_tiny
from hub_models import SIZE

from rarefill import bank, dataset, generators, pictures, pipeline
from rarefill import recipe as recipes
from rarefill.annotators import Detections, Standing
from rarefill.annotators.detectors.whole import Whole
from rarefill.annotators.recheck import Fate, Recheck
from rarefill.errors import RecipeError, RunError
from rarefill.generators import Job, render, whole
from rarefill.generators import versions as versions_of
from rarefill.generators.denoise import Sampling
from rarefill.generators.versions import Repainter, Version, check, teller
from rarefill.geometry import Box, box_mask
from rarefill.hub_options import HubConfig
from rarefill.progress import SILENT
from rarefill.recipe import CheckerConfig, GeneratorConfig
from rarefill.report import command
from rarefill.scene import FEATHER_PX, Layout, Placement, changed_pixels
from rarefill.version_options import VersionsConfig
from rarefill.versions import run as versions
from rarefill.versions.areas import images_of, kept_of, objects
from rarefill.versions.work import jobs

pytestmark = pytest.mark.usefixtures("one_thread", "offline")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    tiny_models.sd15(root / "sd15")
    tiny_models.sdxl(root / "sdxl")
    tiny_models.save_net(tiny_models.controlnet(), root / "canny")
    tiny_models.save_net(tiny_models.union(), root / "union")
    return root


def asked(data, out, models=None, **more):
    options = {
        "data": data,
        "out": out,
        "images": 6,
        "formats": ("coco",),
        "workers": 1,
        "attempts": 2,
        "generator": {
            "generator": f"hub:{models / 'sd15'}" if models else "hub:own",
            "steps": 2,
            "guidance_scale": 2.0,
        },
        "hub": {"precision": "float32"},
        "annotator": {"checker": "none"},
        "versions": {"words": "{objects}, {conditions}", "version_strength": 0.5},
    }
    if models:
        options["hub"] |= {"controlnet": (str(models / "canny"),), "control": ("canny",)}
    return recipes.resolve(recipes.merged(options, more))


def files_of(out):
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.suffix in {".png", ".jsonl"} or p.name in {"annotations.json", "report.html"}
    }


# Runs.


def test_the_same_bytes_with_two_workers_and_after_a_stop(tiny_once, models, tmp_path, monkeypatch):
    summary = versions.run(asked(tiny_once, tmp_path / "run", models))
    assert (summary.images, summary.asked, summary.unchecked) == (6, 6, 6)
    alone = files_of(tmp_path / "run")
    paint, calls = Repainter.paint, []

    def stops(self, orders):
        calls.append(len(orders))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return paint(self, orders)

    (tmp_path / "run").rename(tmp_path / "first")
    monkeypatch.setattr(Repainter, "paint", stops)
    with pytest.raises(KeyboardInterrupt):
        versions.run(asked(tiny_once, tmp_path / "run", models))
    monkeypatch.undo()
    assert len(list((tmp_path / "run" / "images").iterdir())) == 4
    versions.run(asked(tiny_once, tmp_path / "run", models, workers=2))
    assert files_of(tmp_path / "run") == alone


@pytest.mark.parametrize(("bands", "dtype", "masks"), [(1, "uint16", True), (4, "uint8", False)])
def test_objects_and_their_margin_stay_exactly_when_the_background_is_repainted(
    models, tmp_path, bands, dtype, masks
):
    path = make_tiny(tmp_path / "tiny", images=3, bands=bands, dtype=dtype, masks=masks)
    background = {"area": "background", "keep_px": 3, "words": "clean ground", "version_strength": 1}
    wanted = asked(path, tmp_path / "run", models, images=2, versions=background)
    versions.run(wanted)
    data = dataset.load(path)
    for entry in json.loads((tmp_path / "run" / "annotations.json").read_text())["images"]:
        row = data.images.id.tolist().index(entry["rarefill"]["background"])
        made, real = pictures.read(tmp_path / "run" / "images" / entry["file_name"]), data.read(row)
        kept = kept_of(data, row, wanted.versions)
        assert (made.shape, made.dtype) == (real.shape, real.dtype)
        assert (made[kept] == real[kept]).all()
        assert (made[~kept] != real[~kept]).any(axis=1).mean() > 0.5
        assert bands < 4 or (made[:, :, 3] == real[:, :, 3]).all()
        assert entry["rarefill"]["prompt"] == "clean ground"
        inside = data.mask(int(data.rows_in(row)[0])) if masks else box_mask(data.box(data.rows_in(row)[0]))
        assert kept[inside.y, inside.x + inside.pixels.shape[1] // 2]


def test_what_stays_has_a_margin_and_an_image_full_of_objects_is_left_alone(tiny_once, models, tmp_path):
    data = dataset.load(tiny_once)
    rows = [int(row) for row in data.rows_in(0)]
    grown, bare = objects(data, 0, rows, 5), objects(data, 0, rows, 0)
    assert grown.sum() > bare.sum() == sum(int(data.mask(int(r)).area) for r in data.rows_in(0))
    wanted = asked(
        tiny_once, tmp_path / "run", models, images=1, versions={"area": "background", "keep_px": 200}
    )
    with pytest.raises(RunError, match="1 nothing to repaint"):
        versions.run(wanted)


def test_objects_of_a_category_alone_are_repainted_where_there_are_any(tiny_once, models, tmp_path):
    squares = {"area": "objects", "only": ["square"], "keep_px": 4, "words": "{objects}"}
    wanted = asked(tiny_once, tmp_path / "run", models, images=None, versions=squares)
    summary = versions.run(wanted)
    data = dataset.load(tiny_once)
    rows = data.rows_of("square")
    assert summary.asked == summary.images == len(rows)
    assert images_of(data, wanted.versions) == data.annotations.image[rows].tolist()
    losing = replace(data, incomplete=frozenset(images_of(data, wanted.versions)[:1]))
    assert images_of(losing, wanted.versions) == images_of(data, wanted.versions)[1:]
    for entry in json.loads((tmp_path / "run" / "annotations.json").read_text())["images"]:
        image = data.images.id.tolist().index(entry["rarefill"]["background"])
        changed = (pictures.read(tmp_path / "run" / "images" / entry["file_name"]) != data.read(image)).any(2)
        square = [int(row) for row in data.rows_in(image) if data.annotations.category[row] == 0]
        discs = [int(row) for row in data.rows_in(image) if data.annotations.category[row] == 1]
        assert changed[objects(data, image, square, 0)].mean() > 0.9
        assert not changed[~objects(data, image, square, 4)].any()
        assert not changed[objects(data, image, discs, 0)].any()


@pytest.mark.parametrize("family", ["klein", "z_image"])
def test_transformers_make_versions_too(tiny_once, tmp_path, family):
    getattr(tiny_flows, family)(tmp_path / family)
    data = dataset.load(tiny_once)
    config = GeneratorConfig(generator=f"hub:{tmp_path / family}", steps=2, adapt=False, guidance_scale=1.0)
    hub, wanted = HubConfig(precision="float32", window_px=64), VersionsConfig(words="in fog")
    none = bank.Bank(())
    repainter = versions_of.build(config, hub, wanted, data, none, seed=0, cache=tmp_path)
    real = data.read(0)
    kept = objects(data, 0, [int(row) for row in data.rows_in(0)], 2)

    def version():
        rng = np.random.default_rng(3)
        (made,) = repainter.paint([versions_of.Order(0, real, kept, "in fog", 0.5, rng)])
        return made.pixels

    made = version()
    assert (made.shape, made.dtype) == (real.shape, real.dtype)
    assert (made[kept] == real[kept]).all()
    assert (made[~kept] != real[~kept]).any(axis=1).mean() > 0.5
    assert (made == version()).all()


# Labels, with a repainter and a detector of the user's own.


class Colours:
    """A detector for discs and squares, by their colours."""

    def detect(self, images):
        return [self._one(pictures.rgb(image).astype(int)) for image in images]

    def _one(self, seen):
        boxes, labels = [], []
        for label, own, other in ((1, 0, 2), (0, 2, 0)):  # disc is row 1, square row 0
            mask = (seen[:, :, own] - seen[:, :, other] > 60).astype(np.uint8)
            for x, y, w, h, area in cv2.connectedComponentsWithStats(mask)[2][1:]:
                if area > 20:
                    boxes.append((x, y, x + w, y + h))
                    labels.append(label)
        n = len(labels)
        return Detections(np.array(boxes, float).reshape(-1, 4), np.array(labels, np.int64), np.full(n, 0.9))


GREY = 89
"""Of the tiny dataset's ground."""


class Changes:
    """Repaints by a function of the pixels, the image's row and the number of earlier calls."""

    name = "own"

    def __init__(self, data, change):
        self.data, self.change, self.calls = data, change, 0

    def say(self, categories, rng):
        del rng
        return ", ".join(categories)

    def paint(self, orders):
        self.calls += 1
        out = []
        for order in orders:
            pixels = order.background.copy()
            self.change(pixels, [self.data.box(int(r)) for r in self.data.rows_in(order.image)], self.calls)
            out.append(Version(pixels, {"generator": self.name, "prompt": order.prompt}))
        return out


def keep(pixels, boxes, call):
    pixels[:] = pixels * 0.9


def erase(pixels, boxes, call, share=1.0):
    x1, y1, x2, y2 = (int(v) for v in boxes[0].xyxy)
    pixels[y1:y2, x1 : x1 + round((x2 - x1) * share)] = GREY


def half(pixels, boxes, call):
    erase(pixels, boxes, call, share=0.65)


def add(pixels, boxes, call):
    if call == 1:
        pixels[0:12, 0:12] = (230, 100, 75)


def changed_run(tiny, out, change, **more):
    data = dataset.load(tiny)
    recipe = asked(tiny, out, floor=0, **more)
    return versions.run(recipe, dataset=data, repainter=Changes(data, change), detector=Colours())


def test_labels_that_are_found_again_are_kept_to_the_letter(tiny_once, tmp_path):
    summary = changed_run(tiny_once, tmp_path / "run", keep, formats=("coco", "merged", "yolo"))
    assert (summary.images, summary.dropped, summary.unchecked, summary.takes) == (6, 0, 0, 6)
    theirs = {a["id"]: a for a in json.loads(tiny_once.read_text())["annotations"]}
    made = json.loads((tmp_path / "run" / "annotations.json").read_text())
    merged = json.loads((tmp_path / "run" / "merged.json").read_text())
    assert len(made["annotations"]) == summary.labels > 6
    assert len(merged["annotations"]) == len(theirs) + summary.labels
    boxes = [a["bbox"] for a in theirs.values()]
    assert all(a["bbox"] in boxes and a["by"] == "hand" for a in made["annotations"])
    assert all(i["rarefill"]["verdict"] == "accepted" for i in made["images"])
    assert len(list((tmp_path / "run" / "yolo" / "labels" / "train").iterdir())) == 6
    pipeline.export(tmp_path / "run", ("yolo-seg",))
    assert len(list((tmp_path / "run" / "yolo-seg" / "labels" / "train").iterdir())) == 6
    page = (tmp_path / "run" / "report.html").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    command.report(tmp_path / "run", None, SILENT)
    assert (tmp_path / "run" / "report.html").read_bytes() == page


def test_a_label_whose_object_is_gone_is_dropped_where_that_is_allowed(tiny_once, tmp_path):
    summary = changed_run(tiny_once, tmp_path / "run", erase, versions={"lose": 0.6})
    assert (summary.images, summary.dropped) == (6, 6)
    made = json.loads((tmp_path / "run" / "annotations.json").read_text())
    gone = {d["annotation"] for i in made["images"] for d in i["rarefill"]["dropped"]}
    assert len(gone) == 6
    first = json.loads((tmp_path / "run" / "records.jsonl").read_text().splitlines()[0])
    assert all(take["gone"] and not take["spoiled"] for take in first["takes"])
    again = changed_run(tiny_once, tmp_path / "run", erase, versions={"lose": 0.6})
    assert again == summary


def test_a_version_is_refused_where_too_much_is_gone(tiny_once, tmp_path):
    with pytest.raises(RunError, match=r"(?s)no version was accepted.*12 labels lost"):
        changed_run(tiny_once, tmp_path / "run", erase)


def test_a_version_that_shows_half_an_object_is_refused_whatever_may_be_lost(tiny_once, tmp_path):
    with pytest.raises(RunError, match=r"12 label spoiled"):
        changed_run(tiny_once, tmp_path / "run", half, versions={"lose": 1})


def test_a_version_with_an_object_too_many_is_painted_again(tiny_once, tmp_path):
    summary = changed_run(tiny_once, tmp_path / "run", add, images=4)
    assert (summary.images, summary.takes, summary.refused) == (4, 8, {"extra object": 4})
    text = (tmp_path / "run" / "report.html").read_text()
    assert "extra: disc" in text


def test_a_run_that_surely_fails_is_stopped_with_one_line(tiny_once, tmp_path):
    recipe = asked(tiny_once, tmp_path / "run", images=None, floor=0.9)
    data = dataset.load(tiny_once)
    with pytest.raises(RunError, match="stopped early: 0 of 4 versions held"):
        versions.run(recipe, dataset=data, repainter=Changes(data, erase), detector=Colours())


def standing(category, found=1.0):
    return Standing(category, 40, found, 0.5, pooled=False)


def test_what_the_checker_is_blind_to_is_not_judged(tiny_once):
    data = dataset.load(tiny_once)
    real = data.read(0)
    blank = np.full_like(real, GREY)
    blind = Recheck(Whole(Colours(), 3), [standing("disc", 0.1), standing("square")], data, CheckerConfig())
    assert {label.fate for label in blind.labels(0, real, blank)} == {Fate.UNJUDGED}
    sees = Recheck(Whole(Colours(), 3), [standing("disc")], data, CheckerConfig())
    assert {label.fate for label in sees.labels(0, real, blank)} == {Fate.GONE}
    unsure = Recheck(Whole(Colours(), 3), [standing("disc")], data, CheckerConfig())
    assert {label.fate for label in unsure.labels(0, blank, blank)} == {Fate.UNJUDGED}
    assert not Recheck(None, (), data, CheckerConfig()).looks


def test_an_extra_counts_where_it_was_painted_and_was_not_there_before(tiny_once):
    data = dataset.load(tiny_once)
    sees = Recheck(Whole(Colours(), 3), [standing("disc")], data, CheckerConfig())
    real = data.read(0)
    version = real.copy()
    version[0:12, 0:12] = (230, 100, 75)
    (extra,) = sees.extras(0, real, version, None)
    assert (extra.category, extra.box.xyxy) == ("disc", (0, 0, 12, 12))
    elsewhere = np.zeros(real.shape[:2], bool)
    elsewhere[40:] = True
    assert not sees.extras(0, real, version, elsewhere)
    assert not sees.extras(0, version, version, None)


# Tiles.


class Flat:
    """A painter that answers with one grey level, and remembers what it was shown."""

    size, batch = 32, 3

    def __init__(self):
        self.shown = []

    def noise_shape(self, size):
        del size
        return 1, 2, 2

    def paint(self, canvases, sampling, *, strength=1.0):
        del sampling, strength
        self.shown += canvases
        return np.full((len(canvases), 32, 32, 3), 200, np.uint8)


def no_maps(pixels, mask, hidden, *, redraw):
    return np.zeros((*mask.shape, 0), np.uint8)


def sheet(height, width, hidden=None, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 90, (height, width, 3), dtype=np.uint8)
    hidden = np.ones((height, width), bool) if hidden is None else hidden
    return whole.Sheet(pixels, hidden, False, "words", 0.5, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [(32, 32), (32, 33), (70, 150), (20, 31), (200, 40)])
def test_tiles_cover_a_picture_of_any_size_and_are_continued(size):
    painter = Flat()
    (painted,) = whole.paint(painter, no_maps, [sheet(*size)], Sampling())
    assert painted.shape == (*size, 3)
    assert (painted == 200).all()
    known = [canvas.pixels[~canvas.hidden] for canvas in painter.shown[1:]]
    assert all((pixels == 200).all() for pixels in known)  # what neighbours made, and nothing else
    assert max(size) <= 32 or any(len(pixels) for pixels in known)


def test_what_is_not_hidden_stays_and_tiles_without_any_are_not_painted():
    hidden = np.zeros((70, 150), bool)
    hidden[5:9, 5:9] = True
    painter, one = Flat(), sheet(70, 150, hidden)
    (painted,) = whole.paint(painter, no_maps, [one], Sampling())
    assert (painted[hidden] == 200).all()
    assert (painted[~hidden] == one.pixels[~hidden]).all()
    assert len(painter.shown) == 1


def test_a_sheet_is_painted_the_same_beside_others():
    alone, beside = Flat(), Flat()
    whole.paint(alone, no_maps, [sheet(40, 60)], Sampling())
    whole.paint(beside, no_maps, [sheet(33, 35, seed=1), sheet(40, 60)], Sampling())
    seeds = [canvas.seed for canvas in alone.shown]
    assert seeds == [canvas.seed for canvas in beside.shown if canvas.seed in seeds]


def test_small_objects_are_enlarged_where_that_is_asked():
    painter = Flat()
    (painted,) = whole.paint(painter, no_maps, [sheet(40, 60)], Sampling(), least_px=80)
    assert painted.shape == (40, 60, 3)
    assert len(painter.shown) == len(whole.tiles(80, 120, 32)) > len(whole.tiles(40, 60, 32))


# Enhanced windows.


@pytest.mark.parametrize(("base", "net"), [("sd15", "canny"), ("sdxl", "union")])
def test_an_enhanced_window_is_another_and_keeps_real_pixels(tiny_once, models, tmp_path, base, net):
    data = dataset.load(tiny_once)
    shapes = bank.build(data, ["disc"])
    layout = Layout(0, 0, (Placement("disc", box_mask(Box(30, 30, 60, 58)), seed=3),))
    reach = np.zeros((80, 96), bool)
    reach[30 - FEATHER_PX : 58 + FEATHER_PX, 30 - FEATHER_PX : 60 + FEATHER_PX] = True
    made = {}
    for enhance in (0.0, 0.5):
        config = GeneratorConfig(generator=f"hub:{models / base}", steps=2, adapt=False, guidance_scale=2.0)
        hub = HubConfig(
            controlnet=(str(models / net),), control=("canny",), precision="float32", enhance=enhance
        )
        paints = generators.build(config, data, shapes, seed=0, cache=tmp_path, hub=hub)
        for again in range(2 if enhance else 1):
            (done,) = render(paints, [Job(layout, data.read(0), (0,), None, (0,))], seed=1)
            made[enhance, again] = done.pixels
            assert not (changed_pixels(done) & ~reach).any()
    assert (made[0.5, 0] == made[0.5, 1]).all()
    assert (made[0.5, 0] != made[0.0, 0]).any()
    assert SIZE < 60


# What is asked.


def test_words_are_drawn_and_name_what_is_there():
    say = teller("a {big|big} {objects}, {place}", {"place": ("here",)}, {"disc": "<disc> disc"})
    assert say(["disc", "square"], np.random.default_rng(0)) == "a big <disc> disc, square, here"
    assert say([], np.random.default_rng(0)).startswith("a big what is there")
    assert teller("", {}, {})(["disc"], np.random.default_rng(0)) == ""


def test_versions_wanted_are_numbered_and_drawn_by_the_seed():
    assert [(j.number, j.image, j.copy) for j in jobs([4, 7], 2, None, 0)] == [
        (1, 4, 0),
        (2, 4, 1),
        (3, 7, 0),
        (4, 7, 1),
    ]
    few = jobs(range(50), 2, 10, 3)
    assert len(few) == 10
    assert few == jobs(range(50), 2, 10, 3)
    assert few != jobs(range(50), 2, 10, 4)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"generator": {"generator": "compact"}}, "makes no versions of whole images .*--redraw"),
        ({"generator": {"generator": "paste"}}, "makes no versions of whole images"),
        ({"versions": {"words": "in {wether}"}}, "recipe: versions.words: no list named 'wether'"),
        ({"versions": {"words": "in {rain"}}, "braces must pair"),
        ({"generator": {"generator": "sd15"}, "versions": {"only": "disc"}}, "say --area objects, too"),
        (
            {"generator": {"generator": "sd15"}, "versions": {"area": "objects", "only": "star"}},
            "no image holds an object of star",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_is_made(tiny_once, tmp_path, options, line):
    with pytest.raises(RecipeError, match=line) as told:
        versions.run(asked(tiny_once, tmp_path / "run", **options))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_z_image_with_a_controlnet_begins_with_noise_alone_and_is_refused():
    from rarefill.errors import ModelError
    from rarefill.generators.hub.build import refuse_without_strength

    with pytest.raises(ModelError, match="a version begins with the picture's own pixels"):
        refuse_without_strength(SimpleNamespace(family="z-image", controls=("canny",)), "a version")
    refuse_without_strength(SimpleNamespace(family="z-image", controls=()), "a version")
    check(GeneratorConfig(generator="sd15"), HubConfig(), VersionsConfig())
