"""Real objects repainted in place: the same label, a new look."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_tiny

from rarefill import bank, cli, geometry, pictures, pipeline, preview, summary
from rarefill import recipe as recipes
from rarefill.annotators import labels, measure
from rarefill.annotators.unchecked import Unchecked
from rarefill.dataset import Dataset, load
from rarefill.errors import DataError, LayoutError, RecipeError, RunError, UsageError
from rarefill.flags import _counts, _fill
from rarefill.generators import Framing, Job, Painted, render
from rarefill.geometry import Mask
from rarefill.layouts import Planner, Redraws, goals_in, read_plan, write_plan
from rarefill.layouts.obstacles import APART_PX
from rarefill.recipe import CheckerConfig, LayoutConfig
from rarefill.rundir import RunDir
from rarefill.scene import FEATHER_PX, Goal, Kind, Layout, Placement, Reason, Verdict

REDRAWN = Kind.REDRAWN


class Repaint:
    """Paints every mask, and half of the ring about it, in one colour that the random stream draws."""

    name = "repaint"
    framing = Framing()

    def __init__(self) -> None:
        self.keys: list[tuple[int, int, int, int]] = []

    def paint(self, windows):
        return [self._one(w) for w in windows]

    def _one(self, window):
        self.keys.append(window.key)
        top, n = np.iinfo(window.pixels.dtype).max, min(3, window.pixels.shape[2])
        colours = np.full((*window.mask.shape, n), window.rng().uniform(0, top, n), np.float32)
        alpha = window.mask.astype(np.float32)
        return window.answered(Painted(colours, alpha, 0.5 + 0.5 * alpha, {"flat": True}))


class Picky:
    """Accepts what `holds` says of a placement and its attempt; labels are what was painted."""

    table = ()

    def __init__(self, holds) -> None:
        self.holds = holds
        self.seen: Counter = Counter()

    def check(self, renders, todo):
        return [tuple(self._one(r, i) for i in indices) for r, indices in zip(renders, todo, strict=True)]

    def _one(self, render, index):
        placement = render.layout.placements[index]
        key = (render.layout.image, render.layout.copy, index)
        attempt, self.seen[key] = self.seen[key], self.seen[key] + 1
        if not self.holds(placement, attempt):
            return Verdict(index, Reason.NOT_FOUND, threshold=0.5)
        mask = render.paints[index].mask
        return Verdict(index, Reason.ACCEPTED, 0.9, 0.5, 1.0, 1.0, placement.label or mask.box, mask)


def asked(data: Path, out: Path, **more):
    options = {
        "data": data,
        "out": out,
        "fill": "none",
        "redraw": {"disc": 9},
        "annotator": {"checker": "none"},
        "workers": 1,
    }
    return recipes.resolve(recipes.merged(options, more))


def redrawn(folder: Path, dataset: Dataset):
    """Every redrawn object of a run with its sample."""
    samples = RunDir(folder).samples(dataset)
    return [(sample, i) for sample in samples for i in sample.instances if i.redraws is not None]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def bare(entry: dict) -> dict:
    """An annotation without what a new file has to change."""
    return {k: v for k, v in entry.items() if k not in {"id", "image_id", "rarefill"}}


def disc(x: int, y: int, r: int) -> Mask:
    yy, xx = np.mgrid[: 2 * r + 1, : 2 * r + 1] - r
    return Mask.of(xx**2 + yy**2 <= r * r, x - r, y - r)


def around(dataset: Dataset, held: set[int]) -> np.ndarray:
    """bool (80, 96): what the feather of some objects of the tiny dataset may reach."""
    inside = np.zeros((80, 96), np.uint8)
    for row in held:
        inside |= dataset.mask(row).full(80, 96).astype(np.uint8)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * FEATHER_PX + 1,) * 2)
    return cv2.dilate(inside, reach).astype(bool)


def rectangle(x1: int, y1: int, x2: int, y2: int) -> Mask:
    return Mask(x1, y1, np.ones((y2 - y1, x2 - x1), dtype=bool))


def drawn(folder: Path, *images: list[Mask], crowd: tuple[int, ...] = (), masks: bool = True) -> Dataset:
    """Noisy images of 120 x 100 with one category, `thing`; annotations are numbered from 10 on."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    annotations = []
    for n, held in enumerate(images):
        cv2.imwrite(str(folder / f"{n}.png"), rng.integers(90, 110, (100, 120, 3), dtype=np.uint8))
        for mask in held:
            entry = {
                "id": 10 + len(annotations),
                "image_id": n,
                "category_id": 5,
                "bbox": list(mask.box.xywh),
                "iscrowd": int(len(annotations) in crowd),
            }
            if masks:
                counts = geometry.rle_counts(mask.full(100, 120)).decode()
                entry["segmentation"] = {"size": [100, 120], "counts": counts}
            annotations.append(entry)
    entries = [{"id": n, "file_name": f"{n}.png", "width": 120, "height": 100} for n in range(len(images))]
    categories = [{"id": 5, "name": "thing"}]
    document = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(document))
    return load(folder / "a.json")


def planned(dataset: Dataset, n: int, *, seed: int = 0, fill=None, images=None, **layout):
    shapes = bank.build(dataset, dataset.names)
    config = LayoutConfig(**{"untouched": 0.0, **layout})
    name = "disc" if "disc" in dataset.names else "thing"
    return Planner(dataset, shapes, config, seed=seed).plan(fill or {}, redraw={name: n}, images=images)


def rows(plan) -> list[int]:
    return [p.redraws for layout in plan.layouts for p in layout.placements if p.redraws is not None]


# --- the plan -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_data(tiny_once) -> Dataset:
    return load(tiny_once)


def test_other_objects_are_drawn_as_long_as_there_are_any(tiny_data):
    n = len(tiny_data.rows_of("disc"))
    plan = planned(tiny_data, n)
    assert sorted(rows(plan)) == tiny_data.rows_of("disc").tolist()
    assert plan.shortfalls == ()
    assert sorted(rows(planned(tiny_data, 7, seed=1))) != sorted(rows(planned(tiny_data, 7, seed=2)))
    assert rows(planned(tiny_data, 7)) == rows(planned(tiny_data, 7))


def test_an_object_is_drawn_again_only_after_all_others_and_no_more_often_than_a_background(tiny_data):
    n = len(tiny_data.rows_of("disc"))
    uses = Counter(rows(planned(tiny_data, n + 5, max_reuse=6, margin_px=0)))
    assert sorted(uses.values()) == [1] * (n - 5) + [2] * 5
    plan = planned(tiny_data, 50 * n, max_reuse=3)
    assert max(Counter(rows(plan)).values()) <= 3
    assert max(Counter(layout.image for layout in plan.layouts).values()) <= 3
    (short,) = plan.shortfalls
    assert (short.kind, short.placed) == (REDRAWN, len(rows(plan)))
    assert str(short).endswith(
        "every real one that can be is redrawn already; lower the count or raise max_reuse"
    )


def test_objects_of_one_image_share_a_copy_where_they_do_not_touch(tmp_path):
    data = drawn(tmp_path / "d", [disc(20, 20, 10), disc(90, 80, 10), disc(50, 20, 10)])
    plan = planned(data, 3)
    assert [layout.copy for layout in plan.layouts] == [0, 1]
    together = max(({p.redraws for p in x.placements} for x in plan.layouts), key=len)
    assert together in ({0, 1}, {1, 2})  # 0 and 2 are too near to each other
    for layout in plan.layouts:
        for p in layout.placements:
            for q in layout.placements:
                if p is not q:
                    assert max(p.box.x1 - q.box.x2, q.box.x1 - p.box.x2, p.box.y1 - q.box.y2) or APART_PX
    alone = planned(data, 3, per_image=1)
    assert [len(layout.placements) for layout in alone.layouts] == [1, 1, 1]


def test_redraws_change_nothing_about_new_objects_and_use_further_copies(tiny_data):
    without = planned(tiny_data, 0, fill={"square": 10}, untouched=0.2)
    both = planned(tiny_data, 12, fill={"square": 10}, untouched=0.2)

    def shown(layouts):
        return [
            (x.image, x.copy, [(p.seed, p.box, p.shape, p.redraws) for p in x.placements]) for x in layouts
        ]

    assert shown(both.layouts[: len(without.layouts)]) == shown(without.layouts)
    assert len(rows(both)) == 12
    names = [(x.image, x.copy) for x in both.layouts]
    assert len(set(names)) == len(names)
    assert max(copy for _, copy in names) < 20
    late = both.layouts[len(without.layouts) :]
    assert sum(not x.placements for x in late) == round(sum(bool(x.placements) for x in late) / 4)
    seeds = [p.seed for x in both.layouts for p in x.placements]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("fill", [{}, {"square": 6}])
@pytest.mark.parametrize("images", [1, 2, 9, 20])
def test_the_number_of_images_holds_for_new_and_redrawn_objects_together(tiny_data, images, fill):
    plan = planned(tiny_data, 8, fill=fill, images=images, untouched=0.1)
    assert len(plan.layouts) == images
    assert bool(rows(plan)) == (images > 1 or not fill)
    if images == 20:
        assert len(rows(plan)) == 8


def test_objects_of_images_that_lost_an_annotation_are_not_redrawn(tiny_data):
    first = int(tiny_data.annotations.image[tiny_data.rows_of("disc")[0]])
    plan = planned(dataclasses.replace(tiny_data, incomplete=frozenset({first})), 300)
    assert {layout.image for layout in plan.layouts} == set(range(12)) - {first}


def test_a_category_only_on_images_that_lost_an_annotation_says_what_would_help(tiny_data):
    losing = frozenset(tiny_data.annotations.image[tiny_data.rows_of("square")].tolist())
    data = dataclasses.replace(tiny_data, incomplete=losing)
    packed = Redraws(data, bank.build(data, data.names), LayoutConfig(), seed=0).pack(
        {"square": 2}, np.zeros(12, dtype=np.int64)
    )
    assert not packed.layouts
    assert str(packed.shortfalls[0]).endswith(
        "all on images that lost a label to --lenient; mend the annotations that were left out"
    )


def test_crowds_and_what_is_small_or_out_of_the_region_is_left_alone(tmp_path):
    things = [disc(20, 20, 10), disc(90, 80, 10), rectangle(50, 50, 55, 55), disc(100, 20, 9)]
    data = drawn(tmp_path / "d", things, crowd=(0,))
    assert sorted(rows(planned(data, 9, min_px=6, max_reuse=1))) == [1, 3]
    left = (((0, 0), (0.5, 0), (0.5, 1), (0, 1)),)
    plan = planned(data, 2, region=left, min_px=6)
    assert rows(plan) == []
    assert plan.shortfalls[0].why.startswith("outside the region;")
    only = drawn(tmp_path / "e", [disc(20, 20, 10)], crowd=(0,))
    (short,) = planned(only, 2).shortfalls
    assert short.why == "no real object of it but crowds; label one"


def test_what_lies_in_front_of_an_object_stays_to_the_bit(tmp_path):
    large, small = disc(50, 50, 30), rectangle(55, 45, 65, 60)
    data = drawn(tmp_path / "d", [large, small])
    plan = planned(data, 2, max_reuse=2)
    first, second = sorted((x.placements[0] for x in plan.layouts), key=lambda p: p.redraws)
    assert first.mask.area == large.area - small.area
    assert second.mask.area == small.area
    assert second.spared is None  # its background is the larger one, and may take its shade
    (done,) = render(Repaint(), [Job(Layout(0, 0, (first,)), data.read(0), (0,), None, (0,))], seed=0)
    inside = small.full(100, 120)
    assert np.array_equal(done.pixels[inside], done.background[inside])
    ring = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3))).astype(bool) & ~inside
    assert (done.pixels != done.background).any(axis=2)[ring].all()


def test_of_neighbours_that_only_touch_the_smaller_is_spared_by_the_feather(tmp_path):
    data = drawn(tmp_path / "d", [rectangle(20, 20, 60, 60), rectangle(60, 30, 80, 50)])
    placement = next(p for x in planned(data, 2).layouts for p in x.placements if p.redraws == 0)
    (done,) = render(Repaint(), [Job(Layout(0, 0, (placement,)), data.read(0), (0,), None, (0,))], seed=0)
    changed = (done.pixels != done.background).any(axis=2)
    assert not changed[30:50, 60:80].any()
    assert changed[21:29, 60 : 60 + FEATHER_PX].any()


def test_an_object_mostly_behind_others_is_not_redrawn(tmp_path):
    data = drawn(tmp_path / "d", [rectangle(20, 20, 50, 50), rectangle(22, 20, 52, 46)], [disc(50, 50, 9)])
    assert sorted(rows(planned(data, 9, max_reuse=1))) == [1, 2]
    (short,) = planned(drawn(tmp_path / "e", [disc(40, 40, 9), disc(40, 40, 9)]), 2, max_reuse=1).shortfalls
    assert short.placed == 1  # labelled twice: one of them is taken to lie in front


def test_of_boxes_alone_the_cut_outs_are_repainted(tmp_path):
    data = load(make_tiny(tmp_path / "tiny", masks=False))
    shapes = bank.build(data, ["disc"])
    plan = planned(data, 5)
    assert len(rows(plan)) == 5
    for layout in plan.layouts:
        for p in layout.placements:
            assert geometry.mask_iou(p.mask, shapes.at(p.redraws).mask) == 1
            assert (p.label, p.spared) == (data.box(p.redraws), None)


def test_of_many_boxes_those_that_the_draw_needs_are_cut_out_too(tmp_path, monkeypatch):
    monkeypatch.setattr(bank, "MOST", 4)
    data = load(make_tiny(tmp_path / "tiny", masks=False))
    shapes = bank.build(data, ["disc"], cache=tmp_path / "cache")
    drawing = Redraws(data, shapes, LayoutConfig(), seed=0)
    assert drawing.lacking({"disc": len(shapes)}) == []
    rows_ = drawing.lacking({"disc": 9})
    assert len(rows_) >= 9 - len(shapes)
    assert not any(r in shapes for r in rows_)
    known = bank.more(shapes, data, rows_, cache=tmp_path / "cache")
    assert (len(known), known.of("disc")) == (len(shapes), shapes.of("disc"))
    plan = Planner(data, known, LayoutConfig(), seed=0).plan({}, redraw={"disc": 9})
    assert len(set(rows(plan))) == 9
    again = bank.more(shapes, data, rows_, cache=tmp_path / "cache")
    assert all(geometry.mask_iou(again.at(r).mask, known.at(r).mask) == 1 for r in rows_)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_person_s_plan_may_name_an_object_that_the_bank_does_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(bank, "MOST", 2)
    data = make_tiny(tmp_path / "tiny", masks=False)
    entries = json.loads(data.read_text())["annotations"][:9]
    asking = [
        {"image": e["image_id"], "copy": i, "placements": [{"redraws": e["id"]}]}
        for i, e in enumerate(entries)
    ]
    done = pipeline.run(asked(data, tmp_path / "run"), plan=lines(tmp_path, *asking), generator=Repaint())
    assert sum(t.made for t in done.tallies) == 9


# --- the plan's file ------------------------------------------------------------------------------------------


def lines(tmp_path, *entries) -> Path:
    path = tmp_path / "edited.jsonl"
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries))
    return path


def test_a_plan_with_redraws_reads_back_as_it_was_written(tmp_path):
    data = drawn(tmp_path / "d", [disc(50, 50, 30), rectangle(55, 45, 65, 60)], [disc(40, 40, 12)])
    shapes, plan = bank.build(data, ["thing"]), planned(data, 3)
    write_plan(tmp_path / "a.jsonl", data, plan.layouts)
    back = read_plan(tmp_path / "a.jsonl", data, shapes)
    for p, q in zip(
        (p for x in plan.layouts for p in x.placements), (p for x in back for p in x.placements), strict=True
    ):
        assert (q.redraws, q.category, q.label, q.seed, q.shape) == (
            p.redraws,
            p.category,
            p.label,
            p.seed,
            None,
        )
        assert geometry.mask_iou(p.mask, q.mask) == 1
        assert (q.spared is None) == (p.spared is None)
        assert p.spared is None or geometry.mask_iou(p.spared, q.spared) == 1
    write_plan(tmp_path / "b.jsonl", data, back)
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert goals_in(tmp_path / "a.jsonl", data) == {Goal("thing", REDRAWN): 3}
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])["placements"][0]["redraws"] >= 10


def test_an_annotation_s_id_is_enough(tmp_path):
    data = drawn(tmp_path / "d", [disc(50, 50, 30), rectangle(55, 45, 65, 60)])
    path = lines(tmp_path, {"image": 0, "placements": [{"redraws": 10, "depth": 2}]})
    (layout,) = read_plan(path, data, bank.build(data, ["thing"]))
    (placement,) = layout.placements
    assert (placement.redraws, placement.category, placement.depth) == (0, "thing", 2)
    assert placement.mask.area == disc(50, 50, 30).area - 150


def test_a_part_of_an_object_can_be_repainted(tmp_path):
    data = drawn(tmp_path / "d", [rectangle(20, 20, 60, 60)])
    shapes = bank.build(data, ["thing"])
    half = {"redraws": 10, "box": [10, 10, 40, 90]}
    (layout,) = read_plan(lines(tmp_path, {"image": 0, "placements": [half]}), data, shapes)
    assert layout.placements[0].box.xyxy == (20, 20, 40, 60)
    counts = geometry.rle_counts(np.ones((4, 4), bool)).decode()
    given = {"redraws": 10, "box": [30, 30, 42, 42], "mask": {"size": [4, 4], "counts": counts}}
    (layout,) = read_plan(lines(tmp_path, {"image": 0, "placements": [given]}), data, shapes)
    assert layout.placements[0].box.xyxy == (30, 30, 42, 42)
    assert layout.placements[0].label == data.box(0)


MASK = {"size": [2, 2], "counts": geometry.rle_counts(np.ones((2, 2), bool)).decode()}
WRONG = [
    ({"redraws": 999}, "placements[0].redraws: no annotation has id 999 in a.json"),
    ({"redraws": "ten"}, "placements[0].redraws: expected a whole number, got"),
    ({"redraws": 12}, "placements[0].redraws: 12 is an object of image 1; redraw it there"),
    ({"redraws": 11}, "placements[0].redraws: 11 is a crowd; only single objects can be redrawn"),
    ({"redraws": 10, "category": "other"}, "no category named 'other' in a.json"),
    ({"redraws": 10, "shape": {"annotation": 12}}, "placements[0].shape: what is redrawn has its own shape"),
    ({"redraws": 10, "box": [90, 90, 99, 99]}, "placements[0].box: holds nothing of the object"),
    ({"redraws": 10, "mask": MASK}, "placements[0]: box is missing: the mask fills it"),
    ({"redraws": 10, "box": [30, 30, 90, 60], "mask": MASK}, "placements[0].mask: reaches over the object"),
    ({"redraws": 10, "redrawn": True}, "placements[0]: unknown key 'redrawn'; did you mean 'redraws'?"),
]


@pytest.mark.parametrize(("entry", "line"), WRONG)
def test_what_is_wrong_with_a_redraw_is_said_with_its_place(tmp_path, entry, line):
    things = [rectangle(20, 20, 60, 60), rectangle(70, 70, 90, 90)]
    data = drawn(tmp_path / "d", things, [disc(40, 40, 9)], crowd=(1,))
    with pytest.raises(LayoutError) as e:
        read_plan(lines(tmp_path, {"image": 0, "placements": [entry]}), data, bank.build(data, ["thing"]))
    assert str(e.value).startswith("edited.jsonl: line 1")
    assert line in str(e.value)
    assert "\n" not in str(e.value)


def test_other_labels_and_second_redraws_are_told(tiny_data, tmp_path):
    row = int(tiny_data.rows_of("disc")[0])
    image, number = tiny_data.annotations.image[row], int(tiny_data.annotations.id[row])
    line = {
        "image": int(tiny_data.images.id[image]),
        "placements": [{"redraws": number}, {"redraws": number}, {"redraws": number, "category": "square"}],
    }
    with pytest.raises(LayoutError) as e:
        read_plan(lines(tmp_path, line), tiny_data, bank.build(tiny_data, ["disc"]))
    again, label = str(e.value).splitlines()
    assert f"placements[1].redraws: {number} is redrawn by another placement of this line" in again
    assert f"placements[2].category: {number} is labelled 'disc' and keeps its label" in label


def test_an_object_without_a_known_silhouette_needs_a_mask(tmp_path):
    data = drawn(tmp_path / "d", [rectangle(20, 20, 60, 60)], masks=False)
    nothing = bank.Bank([])
    with pytest.raises(LayoutError, match="no silhouette of 10 is known; give it a mask"):
        read_plan(lines(tmp_path, {"image": 0, "placements": [{"redraws": 10}]}), data, nothing)
    given = {"redraws": 10, "box": [20, 20, 60, 60], "mask": MASK}
    (layout,) = read_plan(lines(tmp_path, {"image": 0, "placements": [given]}), data, nothing)
    assert layout.placements[0].mask.area == 1600


def test_a_preview_names_redraws(tiny_data, tmp_path, monkeypatch):
    words = []
    draw = preview._label

    def spied(canvas, placement, *rest):
        write = canvas.text
        monkeypatch.setattr(
            canvas, "text", lambda at, told, *more, **how: (words.append(told), write(at, told, *more, **how))
        )
        draw(canvas, placement, *rest)

    monkeypatch.setattr(preview, "_label", spied)
    layouts = planned(tiny_data, 1).layouts
    (sheet,) = preview.plan_sheets(tiny_data, layouts, tmp_path)
    assert sheet.exists()
    assert words[0].startswith("redraw disc ")


# --- the labels -----------------------------------------------------------------------------------------------


def judged(dataset: Dataset, *placements: Placement, refuse: tuple[int, ...] = ()):
    """The labels of one image on which placements were painted, and the render."""
    todo = tuple(range(len(placements)))
    layout = Layout(0, 0, placements)
    job = Job(layout, dataset.read(0), (0,) * len(todo), None, todo)
    (done,) = render(Repaint(), [job], seed=0)
    config = CheckerConfig(checker="none")
    (verdicts,) = Unchecked(bank.Bank([]), config).check([done], [todo])
    verdicts = tuple(
        dataclasses.replace(v, reason=Reason.NOT_FOUND) if v.index in refuse else v for v in verdicts
    )
    return (*labels.remeasure(dataset, done, verdicts, config), done)


def redraw_of(dataset: Dataset, row: int) -> Placement:
    plan = planned(dataset, 4 * len(dataset.annotations))
    return next(p for x in plan.layouts for p in x.placements if p.redraws == row)


def fractions(dataset: Dataset, row: int, *edges: float) -> Dataset:
    """The same dataset with one label that does not end at whole pixels."""
    boxes = dataset.annotations.boxes.copy()
    boxes[row] = edges
    return dataclasses.replace(dataset, annotations=dataclasses.replace(dataset.annotations, boxes=boxes))


def test_a_redrawn_object_has_the_file_s_own_label_and_stands_once(tmp_path):
    data = fractions(
        drawn(tmp_path / "d", [disc(40, 40, 12), disc(90, 60, 12)]), 0, 27.123456, 28, 53.5, 53.1
    )
    instances, dropped, _ = judged(data, redraw_of(data, 0))
    (other, new) = instances
    assert (other.annotation, other.redraws, dropped) == (1, None, ())
    assert (new.annotation, new.redraws, new.row, new.changed) == (None, 0, 0, False)
    assert new.box.xyxy == (27.123456, 28, 53.5, 53.1)
    assert geometry.mask_iou(new.mask, data.mask(0)) == 1
    assert new.how["redraws"] == 10
    assert new.goal == Goal("thing", REDRAWN)


def test_a_refused_redraw_leaves_the_real_label(tmp_path):
    data = drawn(tmp_path / "d", [disc(40, 40, 12), disc(90, 60, 12)])
    instances, _, _ = judged(data, redraw_of(data, 0), refuse=(0,))
    assert [(i.annotation, i.redraws, i.changed) for i in instances] == [(0, None, False), (1, None, False)]


def test_a_redraw_hides_nothing_that_its_object_did_not_hide_before(tmp_path):
    data = drawn(tmp_path / "d", [disc(50, 50, 30), rectangle(55, 45, 65, 60)])
    for row in (0, 1):
        instances, dropped, _ = judged(data, redraw_of(data, row))
        assert {i.row: i.box for i in instances} == {0: data.box(0), 1: data.box(1)}
        assert not any(i.changed for i in instances)
        assert dropped == ()
        for i in instances:
            assert geometry.mask_iou(i.mask, data.mask(i.row)) == 1


def test_a_new_object_in_front_of_a_redrawn_one_has_it_measured_again(tmp_path):
    data = drawn(tmp_path / "d", [rectangle(20, 20, 60, 60)])
    front = Placement("thing", rectangle(50, 10, 80, 70), depth=1)
    (seen, new), dropped, done = judged(data, redraw_of(data, 0), front)
    assert (seen.redraws, seen.changed, seen.box.xyxy) == (0, True, (20, 20, 50, 60))
    assert seen.mask.area == 30 * 40
    assert (new.redraws, new.box.xyxy, dropped) == (None, (50, 10, 80, 70), ())
    assert measure.verdict(done, 0, bank.Bank([]), CheckerConfig()).box == data.box(0)


def test_a_redrawn_object_that_new_ones_nearly_hide_is_dropped(tmp_path):
    data = drawn(tmp_path / "d", [rectangle(20, 20, 60, 60)])
    front = Placement("thing", rectangle(24, 10, 80, 70), depth=1)
    (new,), dropped, _ = judged(data, redraw_of(data, 0), front)
    assert (new.redraws, dropped) == (None, ((0, 0.1),))


def test_a_new_object_that_paint_hides_does_not_change_the_redrawn_one_in_front(tmp_path):
    data = drawn(tmp_path / "d", [rectangle(20, 20, 60, 60)])
    behind = Placement("thing", rectangle(50, 10, 80, 70), depth=0)
    front = dataclasses.replace(redraw_of(data, 0), depth=1)
    (new, seen), _, _ = judged(data, behind, front)
    assert (seen.redraws, seen.changed, seen.box) == (0, False, data.box(0))
    assert new.mask.overlap_px(data.mask(0)) == 0


# --- a whole run ----------------------------------------------------------------------------------------------


def test_a_run_redraws_what_was_asked_and_labels_it_as_the_file_does(tiny, tmp_path):
    data = load(tiny)
    done = pipeline.run(
        asked(tiny, tmp_path / "run", formats="coco,merged,yolo,yolo-seg"), generator=Repaint()
    )
    (tally,) = done.tallies
    assert (tally.category, tally.kind, tally.asked, tally.made) == ("disc", REDRAWN, 9, 9)
    user = json.loads(tiny.read_text())
    own = {entry["id"]: entry for entry in user["annotations"]}
    made = json.loads((tmp_path / "run" / "annotations.json").read_text())
    new = [e for e in made["annotations"] if "rarefill" in e]
    assert len(new) == 9
    assert len({e["rarefill"]["redraws"] for e in new}) == 9
    for entry in new:
        assert bare(entry) == bare(own[entry["rarefill"]["redraws"]])  # with keys of the user's own
        assert entry["rarefill"]["generator"] == "repaint"
    # Every image has each of its background's labels once.
    background = {i["id"]: i["rarefill"]["background"] for i in made["images"]}
    for image in made["images"]:
        here = [json.dumps(bare(e)) for e in made["annotations"] if e["image_id"] == image["id"]]
        real = [json.dumps(bare(e)) for e in own.values() if e["image_id"] == background[image["id"]]]
        assert Counter(here) == Counter(real)
    merged = json.loads((tmp_path / "run" / "merged.json").read_text())
    n = len(user["annotations"])
    assert merged["annotations"][:n] == user["annotations"]
    assert merged["images"][: len(user["images"])] == user["images"]
    assert [bare(e) for e in merged["annotations"][n:]] == [bare(e) for e in made["annotations"]]
    for sample, _ in redrawn(tmp_path / "run", data):
        for folder in ("yolo", "yolo-seg"):
            text = tmp_path / "run" / folder / "labels" / "train" / Path(sample.file_name).with_suffix(".txt")
            assert len(text.read_text().splitlines()) == len(data.rows_in(sample.image))


def test_only_the_object_and_its_feather_get_a_new_look(tiny, tmp_path):
    data = load(tiny)
    pipeline.run(asked(tiny, tmp_path / "run"), generator=Repaint())
    for sample in RunDir(tmp_path / "run").samples(data):
        real = data.read(sample.image)
        changed = (pictures.read(tmp_path / "run" / "images" / sample.file_name) != real).any(axis=2)
        held = {i.redraws for i in sample.instances if i.redraws is not None}
        for row in held:
            assert changed[data.mask(row).full(*changed.shape)].mean() > 0.95
        assert not changed[~around(data, held)].any()


def test_yolo_data_is_redrawn_too(tiny, tmp_path):
    pipeline.run(asked(tiny, tmp_path / "first"), generator=Repaint())
    yolo = tmp_path / "first" / "yolo" / "data.yaml"
    done = pipeline.run(asked(yolo, tmp_path / "second", redraw={"disc": 3}), generator=Repaint())
    assert done.tallies[0].made == 3
    data = load(yolo)
    for sample, new in redrawn(tmp_path / "second", data):
        text = (tmp_path / "second" / "yolo" / "labels" / "train" / sample.file_name).with_suffix(".txt")
        source = (tmp_path / "first" / "yolo" / "labels" / "train" / data.images.file_name[sample.image]).name
        old = (tmp_path / "first" / "yolo" / "labels" / "train" / source).with_suffix(".txt")
        assert sorted(text.read_text().splitlines()) == sorted(old.read_text().splitlines())
        assert new.mask is None


def test_new_and_redrawn_objects_are_counted_apart(tiny, tmp_path):
    recipe = asked(tiny, tmp_path / "run", fill={"disc": 3, "square": 2}, redraw={"disc": 4})
    done = pipeline.run(recipe, generator=Repaint())
    assert [(t.title, t.asked, t.made) for t in done.tallies] == [
        ("disc", 3, 3),
        ("square", 2, 2),
        ("disc (redrawn)", 4, 4),
    ]
    told = done.as_json()
    assert told["categories"].keys() == {"disc", "square"}
    assert told["redrawn"]["disc"]["made"] == 4
    assert "disc (redrawn)      4     4" in summary.refusals(done)
    assert (done.made(Kind.NEW), done.made(REDRAWN)) == (5, 4)


def test_a_refused_redraw_is_painted_again_in_place_then_taken_back(tiny, tmp_path):
    data, generator = load(tiny), Repaint()
    bad = {int(r) for r in data.rows_of("disc")[::2]}
    picky = Picky(lambda p, _: p.redraws not in bad)
    n = len(data.rows_of("disc"))
    recipe = asked(tiny, tmp_path / "run", redraw={"disc": n}, top_ups=0, layout={"untouched": 0})
    done = pipeline.run(recipe, generator=generator, checker=picky)
    assert done.tallies[0].made == len(data.rows_of("disc")) - len(bad)
    assert done.tallies[0].refused == {"not found": recipe.attempts * len(bad)}
    assert done.notes[0].startswith(
        f"redrew {done.tallies[0].made} of {done.tallies[0].asked} 'disc': the rest was"
    )
    by_place = Counter(key[:3] for key in generator.keys)
    assert set(by_place.values()) == {1, recipe.attempts}
    trials = [t for record in RunDir(tmp_path / "run").read(data) for t in record.trials]
    places = {(t.number, t.verdict.index): set() for t in trials}
    for t in trials:
        places[t.number, t.verdict.index].add(t.asked)
        assert t.redraws is not None
    assert all(len(boxes) == 1 for boxes in places.values())
    for sample in RunDir(tmp_path / "run").samples(data):
        written = pictures.read(tmp_path / "run" / "images" / sample.file_name)
        held = {i.redraws for i in sample.instances if i.redraws is not None}
        assert held
        assert not held & bad
        assert sorted(i.row for i in sample.instances) == data.rows_in(sample.image).tolist()
        assert not any(i.changed for i in sample.instances)
        changed = (written != data.read(sample.image)).any(axis=2)
        assert not (changed & ~around(data, held)).any()


def test_a_second_attempt_that_holds_shows_another_look(tiny, tmp_path):
    data = load(tiny)
    once = asked(tiny, tmp_path / "a")
    pipeline.run(once, generator=Repaint())
    again = asked(tiny, tmp_path / "b")
    pipeline.run(again, generator=Repaint(), checker=Picky(lambda _, attempt: attempt == 1))
    for sample, new in redrawn(tmp_path / "b", data):
        x, y = (int(v) for v in new.box.center)
        looks = [pictures.read(tmp_path / run / "images" / sample.file_name)[y, x] for run in "ab"]
        assert not np.array_equal(*looks)


def test_top_ups_redraw_other_objects_first(tiny, tmp_path):
    data = load(tiny)
    bad: set[int] = set()

    def holds(placement, attempt):
        if len(bad) < 4:
            bad.add(placement.redraws)
        return placement.redraws not in bad

    recipe = asked(tiny, tmp_path / "run", attempts=1)
    done = pipeline.run(recipe, generator=Repaint(), checker=Picky(holds))
    assert done.tallies[0].made == 9
    found = [i.redraws for _, i in redrawn(tmp_path / "run", data)]
    assert len(set(found)) == 9
    assert not bad & set(found)
    assert {r.round for r in RunDir(tmp_path / "run").read(data)} == {0, 1}


def test_redraws_that_all_fail_end_the_run_with_the_table(tiny, tmp_path):
    picky = Picky(lambda *_: False)
    with pytest.raises(RunError, match=r"disc \(redrawn\)"):
        pipeline.run(asked(tiny, tmp_path / "run", top_ups=0), generator=Repaint(), checker=picky)


def test_a_person_s_plan_may_mix_new_and_redrawn_objects(tiny, tmp_path):
    data = load(tiny)
    row = int(data.rows_of("disc")[0])
    image = int(data.annotations.image[row])
    number, box = int(data.annotations.id[row]), data.box(row)
    x1 = int(box.x2) - 4
    front = [x1, int(box.y1) - 2, min(96, x1 + 16), int(box.y2) + 2]
    line = {
        "image": int(data.images.id[image]),
        "placements": [{"redraws": number}, {"category": "square", "box": front, "depth": 1}],
    }
    done = pipeline.run(asked(tiny, tmp_path / "run"), plan=lines(tmp_path, line), generator=Repaint())
    assert [(t.title, t.made) for t in done.tallies] == [("square", 1), ("disc (redrawn)", 1)]
    made = json.loads((tmp_path / "run" / "annotations.json").read_text())
    (cut,) = [e for e in made["annotations"] if e.get("rarefill", {}).get("redraws") == number]
    own = next(e for e in json.loads(tiny.read_text())["annotations"] if e["id"] == number)
    assert cut["rarefill"]["changed"]
    assert cut["bbox"][2] < own["bbox"][2]
    assert (cut["by"], cut["category_id"]) == ("hand", 3)
    assert cut["area"] < own["area"]


def test_the_contact_sheet_sets_redrawn_objects_beside_what_they_were(tiny, tmp_path, monkeypatch):
    from rarefill import sheet

    seen = {}
    drawn_sheet = sheet.contact_sheet
    monkeypatch.setattr(
        sheet, "contact_sheet", lambda groups, **k: seen.update(groups=groups) or drawn_sheet(groups, **k)
    )
    pipeline.run(asked(tiny, tmp_path / "run", fill={"disc": 2}), generator=Repaint())
    new, again = seen["groups"]
    assert (new.category, again.category) == ("disc", "disc (redrawn)")
    assert again.note == "9 repainted in place; left: the same objects as they were"
    assert len(again.real) == len(again.painted) == 9
    for before, after in zip(again.real, again.painted, strict=True):
        assert np.array_equal(before[2:6, 2:6], after[2:6, 2:6])  # the same surroundings


def test_the_bytes_do_not_depend_on_the_number_of_workers(tiny, tmp_path):
    def made(workers):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        recipe = asked(tiny, tmp_path / "run", fill={"square": 6}, redraw={"disc": 20}, workers=workers)
        pipeline.run(recipe, generator=Repaint())
        return files(tmp_path / "run")

    assert made(2) == made(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_point_the_run_ends_with_the_same_bytes(tiny, tmp_path):
    out = tmp_path / "run"
    recipe = asked(tiny, out, redraw={"disc": 40}, layout={"per_image": 1}, formats="coco")

    def half_hold():
        return Picky(lambda p, attempt: (p.redraws + attempt) % 3 > 0)

    def run():
        # Picky counts attempts itself, so each run has its own.
        pipeline.run(recipe, generator=Repaint(), checker=half_hold())

    run()
    began, reference = time.monotonic(), files(out)
    shutil.rmtree(out)
    run()
    seconds = time.monotonic() - began
    assert files(out) == reference
    for share in (0.2, 0.4, 0.6, 0.8):
        shutil.rmtree(out)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                run()
            os._exit(0)
        time.sleep(share * seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        run()
        assert files(out) == reference


def test_a_finished_run_is_exported_again_from_its_records(tiny, tmp_path):
    recipe = asked(tiny, tmp_path / "run", formats="coco,yolo-seg")
    pipeline.run(recipe, generator=Repaint())
    before = files(tmp_path / "run")
    (tmp_path / "run" / "annotations.json").unlink()
    shutil.rmtree(tmp_path / "run" / "yolo-seg")
    pipeline.export(tmp_path / "run", ("coco", "yolo-seg"))
    assert files(tmp_path / "run") == before


# --- asking for it --------------------------------------------------------------------------------------------


def test_paste_is_refused_before_anything_is_begun(tiny, tmp_path):
    paste = asked(tiny, tmp_path / "run", generator={"generator": "paste"}, annotator={"checker": "fitted"})
    with pytest.raises(RecipeError, match="redraw with --generator compact") as e:
        pipeline.run(paste)
    assert "\n" not in str(e.value)
    plan = lines(tmp_path, {"file": "000.png", "placements": [{"redraws": 500}]})
    with pytest.raises(RecipeError, match="redraw with --generator compact"):
        pipeline.run(recipes.resolve(paste.model_dump() | {"redraw": {}}), plan=plan)
    assert not [p for p in (tmp_path / "run").iterdir() if p.name != ".lock"]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"redraw": {"dsic": 3}}, "no category named 'dsic' in annotations.json; did you mean 'disc'?"),
        ({"redraw": {"star": 3}}, "'star' has no object in annotations.json"),
        ({"fill": {"sqare": 3}}, "no category named 'sqare' in annotations.json; did you mean 'square'?"),
    ],
)
def test_names_that_are_not_there_get_the_same_line_as_for_fill(tiny, tmp_path, more, line):
    with pytest.raises(DataError) as e:
        pipeline.run(asked(tiny, tmp_path / "run", **more), generator=Repaint())
    assert line in str(e.value)


def test_asking_for_nothing_is_told(tiny, tmp_path):
    with pytest.raises(RecipeError, match="nothing to make"):
        pipeline.run(asked(tiny, tmp_path / "run", redraw={}), generator=Repaint())


def test_auto_still_fills_what_is_rare_and_nothing_where_nothing_is(tiny, tmp_path):
    done = pipeline.run(asked(tiny, tmp_path / "a", fill="auto", redraw={"disc": 2}), generator=Repaint())
    assert [t.title for t in done.tallies] == ["square", "disc (redrawn)"]
    even = drawn(tmp_path / "d", [disc(40, 40, 12)], [disc(50, 50, 12)])
    recipe = asked(even.path, tmp_path / "b", fill="auto", redraw={"thing": 2})
    done = pipeline.run(recipe, generator=Repaint())
    assert [t.title for t in done.tallies] == ["thing (redrawn)"]


def test_flags_say_how_they_are_written():
    assert _counts(["a=b=3", "stop sign=20"], "--redraw", "NAME=N") == {"a=b": 3, "stop sign": 20}
    assert _fill(["none"]) == "none"
    assert _fill(["none=2"]) == {"none": 2}
    for texts in (["car"], ["car=x"], ["car=1", "car=2"], ["none"]):
        with pytest.raises(UsageError, match="--redraw"):
            _counts(texts, "--redraw", "NAME=N")
    with pytest.raises(UsageError, match="--fill none stands alone"):
        _fill(["none", "car=1"])


def test_the_recipe_checks_redraws():
    with pytest.raises(
        RecipeError, match=r"r.yaml: redraw must be a whole number .* for 'car', got {'car': 0}"
    ):
        recipes.resolve({"redraw": {"car": 0}}, where="r.yaml")
    with pytest.raises(RecipeError, match=r"r.yaml: redraw must be NAME: N for each category, got 'auto'"):
        recipes.resolve({"redraw": "auto"}, where="r.yaml")
    with pytest.raises(RecipeError, match=r"generator\.redraw_strength must be"):
        recipes.resolve({"generator": {"redraw_strength": 0}})
    below, above = {"redraw": {"a": 1}}, {"redraw": {"b": 2}}
    assert recipes.merged(below, above) == above


def test_the_diffusion_generator_starts_from_the_object_s_own_pixels(tiny, tmp_path):
    import pipelines as tiny_pipelines

    folder = tiny_pipelines.save(tmp_path / "pipeline")
    recipe = asked(
        tiny,
        tmp_path / "run",
        redraw={"disc": 3},
        formats="coco",
        generator={
            "generator": "compact",
            "model": folder,
            "adapt": False,
            "steps": 2,
            "redraw_strength": 0.5,
        },
    )
    assert pipeline.run(recipe).tallies[0].made == 3
    data = load(tiny)
    for sample, new in redrawn(tmp_path / "run", data):
        assert (new.how["generator"], new.how["strength"]) == ("compact", 0.5)
        assert "exemplar" not in new.how
        written = pictures.read(tmp_path / "run" / "images" / sample.file_name)
        inside = data.mask(new.redraws).full(80, 96)
        assert (written != data.read(sample.image)).any(axis=2)[inside].mean() > 0.5


def _program(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["rarefill", *map(str, words)])
    with pytest.raises(SystemExit) as e:
        cli.main()
    out, err = capsys.readouterr()
    return int(e.value.code or 0), out, err


def test_the_program_redraws(tiny, tmp_path, monkeypatch, capsys):
    import pipelines as tiny_pipelines

    words = ["--fill", "none", "--redraw", "disc=3", "--redraw", "square=1", "--redraw-strength", "0.9"]
    model = ["--model", tiny_pipelines.save(tmp_path / "pipeline"), "--no-adapt", "--steps", "2"]
    options = [*words, "--generator", "compact", *model, "--checker", "none", "--workers", "1"]
    code, out, err = _program(monkeypatch, capsys, "generate", tiny, "--out", tmp_path / "run", *options)
    assert code == 0, err
    assert "disc (redrawn)        3     3" in out
    assert "\n0 new and 4 redrawn objects on" in out
    told = _program(monkeypatch, capsys, "generate", tiny, "--out", tmp_path / "run", "--json", *options)[1]
    assert {name: t["made"] for name, t in json.loads(told)["redrawn"].items()} == {"disc": 3, "square": 1}
    plan = tmp_path / "plan.jsonl"
    code, out, err = _program(monkeypatch, capsys, "plan", tiny, *words[:-2], "--out", plan)
    assert code == 0, err
    assert sum(line.count('"redraws"') for line in plan.read_text().splitlines()) == 4
    code, _, err = _program(
        monkeypatch, capsys, "preview", tiny, "--plan", plan, "--out", tmp_path / "sheets"
    )
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--redraw", "disc"], "--redraw takes NAME=N, got 'disc'"),
        (["--redraw", "disc=0"], "redraw must be a whole number of objects from 1"),
        (["--redraw", "dics=2"], "did you mean 'disc'?"),
        (["--redraw", "disc=2", "--redraw-strength", "2"], "generator.redraw_strength must be at most 1"),
        (["--redraw", "disc=2", "--generator", "paste"], "redraw with --generator compact"),
        (["--fill", "none"], "fill is none and redraw names nothing"),
    ],
)
def test_wrong_usage_gets_one_line_and_exit_2(tiny, tmp_path, monkeypatch, capsys, words, line):
    code, out, err = _program(monkeypatch, capsys, "generate", tiny, "--out", tmp_path / "r", *words)
    assert (code, out) == (2, "")
    assert line in err
    assert "Traceback" not in err
