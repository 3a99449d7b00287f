"""The verdict is right where the truth is known: detectors are made up, so that nothing but the statistics is tested."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_tiny

from rarefill.dataset import load
from rarefill.progress import SILENT
from rarefill.proof import analysis, arms, bootstrap, findings, score, study, svg, verdict
from rarefill.proof.bootstrap import Measured, Noise
from rarefill.proof.findings import Evidence
from rarefill.proof.sources import Made

RARE = ("disc",)


@pytest.fixture(scope="module")
def test_part(tmp_path_factory):
    return load(make_tiny(tmp_path_factory.mktemp("verdict"), images=40))


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 200)


def detect(data, quality, draw):
    """A made-up detector: better ones miss less and draw boxes nearer to the objects; all see things."""
    quality = quality + draw.normal(0, 0.15)  # one training is not another
    found = []
    a = data.annotations
    for row in range(len(a)):
        image, category = int(data.images.id[a.image[row]]), data.categories[a.category[row]].id
        if draw.random() < 1 / (1 + np.exp(-quality)):
            x1, y1, x2, y2 = a.boxes[row] + draw.normal(0, 2.5 * np.exp(-0.5 * quality), 4)
            box = [x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0)]
            found.append(_row(image, category, box, draw.normal(1, 0.6)))
    for image in data.images.id.tolist():
        if draw.random() < 0.4:
            x, y = draw.uniform(0, 60, 2)
            category = data.categories[int(draw.integers(2))].id
            found.append(_row(image, category, [x, y, 16.0, 16.0], draw.normal(0, 0.6)))
    return found


def _row(image, category, box, s):
    return {"image_id": image, "category_id": category, "bbox": [float(v) for v in box], "score": float(s)}


def answer(data, qualities, *, seed, seeds=3, ratios=(1.0,), detections=True, oracle=None):
    """The study that made-up detectors of these qualities, by arm, come to."""
    draw = np.random.default_rng(seed)
    specs = arms.parse(qualities, ratios)
    train = SimpleNamespace(names=data.names, path=data.path, rows_of=lambda _: range(10))
    more = SimpleNamespace(rows_of=lambda _: range(40))
    bench = analysis.Bench(
        data,
        (train,),
        (more,) if oracle else (),
        RARE,
        tuple(range(seeds)),
        specs,
        Made(),
        np.arange(len(data.images)),
    )
    truth = score.truth(data)
    kept = {}
    for spec in specs:
        for k in range(seeds):
            found = detect(data, qualities[spec.name], draw)
            figures = {} if detections else score.figures(score.match(truth, found), data.names)
            kept[spec.name, 0, k] = SimpleNamespace(
                detections=found if detections else None, figures=figures, seconds=1.0, images=4, synthetic=0
            )
    return analysis.analyse(bench, kept, "made up", {}, [], SILENT)


def test_a_planted_oracle_helps(test_part):
    found = answer(test_part, {"real": 0.3, "rfs": 0.4, "paste": 0.4, "compact": 2.5}, seed=0)
    assert found.verdict.outcome == "helps"
    assert found.verdict.arm == "compact"
    assert found.verdict.lines[0].startswith("Generation adds +")
    against = [c for c in found.comparisons if (c.arm, c.against, c.measure) == ("compact", "rfs", "rare")]
    assert against[0].difference.low > 0
    assert against[0].p_adjusted < 0.05


@pytest.mark.parametrize("seed", range(2))
def test_a_placebo_does_not_help(test_part, seed):
    same = {"real": 0.5, "rfs": 0.5, "paste": 0.5, "compact": 0.5}
    found = answer(test_part, same, seed=seed)
    assert found.verdict.outcome != "helps"
    assert "helps here" in found.verdict.lines[0] or "worse here" in found.verdict.lines[0]


def test_studies_in_which_nothing_differs_seldom_say_that_it_helps():
    """At most one in twenty, though there are three generated arms: Holm's correction is for that."""
    draw = np.random.default_rng(3)
    specs = arms.parse(["real", "rfs", "paste", "compact", "compact+rfs"], (1.0,))
    outcomes = []
    for _ in range(120):
        noise = Noise.drawn([s.name for s in specs], 300, draw)
        weights = bootstrap.weights(np.arange(60), 300, draw)
        images = draw.normal(0.4, 0.3, 60)  # hard and easy ones, for every arm alike
        level = {s.name: _measured(images, weights, draw) for s in specs}
        evidence = Evidence(specs, level, level, noise)
        baseline = findings.best(evidence, "baseline")
        compared = findings.comparisons(evidence, baseline)
        outcomes.append(verdict.verdict(evidence, baseline, compared, (), RARE).outcome)
    assert outcomes.count("helps") <= 6
    assert outcomes.count("harms") <= 6


def _measured(images, weights, draw):
    """An arm of three trainings whose figure is a mean over images."""
    each = images + draw.normal(0, 0.02, 3)[:, None] + draw.normal(0, 0.15, (3, len(images)))
    return Measured(each.mean(axis=1), (each @ weights.T) / len(images))


def test_spared_others_are_an_argument_where_the_rare_ones_are_none():
    draw = np.random.default_rng(4)
    specs = arms.parse(["real", "copy-paste", "paste"], (1.0,))
    noise = Noise.drawn([s.name for s in specs], 300, draw)
    weights = bootstrap.weights(np.arange(60), 300, draw)
    images = draw.normal(0.4, 0.05, 60)
    rare = {s.name: _measured(images, weights, draw) for s in specs}
    others = {s.name: _measured(images + 0.3 * (s.name == "paste"), weights, draw) for s in specs}
    evidence = Evidence(specs, rare, others, noise)
    compared = findings.comparisons(evidence, "copy-paste")
    found = verdict.verdict(evidence, "copy-paste", compared, (), RARE)
    assert found.outcome == "no evidence"
    assert any("Where they matter, train with paste." in line for line in found.lines)


def test_levels_end_where_ap_does():
    wide = bootstrap.Spread(0.1, np.linspace(-0.5, 1.5, 101))
    assert (wide.level().low, wide.level().high) == (0, 1)
    assert wide.estimate().low < 0


def test_figures_without_detections_leave_the_seeds(test_part):
    qualities = {"real": 0.3, "rfs": 0.3, "paste": 2.5}
    assert answer(test_part, qualities, seed=1, detections=False).verdict.outcome == "helps"
    same = {"real": 0.5, "rfs": 0.5, "paste": 0.5}
    assert answer(test_part, same, seed=1, detections=False).verdict.outcome == "no evidence"


def test_worse_pictures_are_said_to_be_worse(test_part):
    found = answer(test_part, {"real": 1.5, "rfs": 2.0, "paste": -0.5}, seed=0)
    assert found.verdict.outcome == "harms"
    assert "makes it worse" in found.verdict.lines[0]
    assert "repeat-factor sampling" in found.verdict.lines[0]


def test_more_is_worse_beyond_the_best_ratio(test_part):
    qualities = {"real": 0.5, "paste@0.5": 1.0, "paste": 2.5, "paste@4": -0.5}
    found = answer(test_part, qualities, seed=0)
    assert (found.verdict.best_ratio, found.verdict.worse_beyond) == (1, 1)
    assert any("more is worse beyond ratio 1" in line for line in found.verdict.lines)
    assert [p.ratio for p in found.curve] == [0, 0.5, 1, 4]
    drawing = svg.draw(found)
    assert drawing.count("<circle") == 4 + 1
    assert drawing.startswith("<svg")


def test_an_arm_is_worth_as_many_examples_as_the_oracle_has_when_it_does_as_well(test_part):
    qualities = {"real": 0.0, "paste": 2.0, "oracle": 2.0}
    found = answer(test_part, qualities, seed=0, seeds=4, oracle=True)
    (worth,) = found.equivalence
    assert worth.oracle_factor == 4
    assert worth.low < 4 < (worth.high or 99)
    assert worth.low > 1.5
    flat = answer(test_part, dict.fromkeys(qualities, 0.5), seed=0, oracle=True)
    assert flat.equivalence[0].factor is None


def test_one_training_says_so(test_part):
    found = answer(test_part, {"real": 0.5, "paste": 0.6}, seed=0, seeds=1)
    assert any("another seed" in line for line in found.verdict.lines)


def test_a_study_is_read_as_it_was_written(test_part, tmp_path):
    found = answer(test_part, {"real": 0.5, "rfs": 0.6, "paste": 0.6}, seed=0)
    study.write(tmp_path / study.FILE, found)
    assert study.read(tmp_path) == found
    assert study.read(tmp_path / study.FILE) == found
    with pytest.raises(Exception, match="rarefill evaluate"):
        study.read(tmp_path / "none.json")


def test_names_in_a_drawing_are_harmless(test_part):
    found = answer(test_part, {"real": 0.5, "paste": 0.6}, seed=0)
    evil = [study.Arm(name="<script>", kind="generated", rare=found.arms[0].rare)]
    drawing = svg.draw(study.msgspec.structs.replace(found, rare=("<b>",), arms=tuple(evil)))
    assert "<script>" not in drawing
    assert "<b>" not in drawing


# Intervals


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Three trainings and sixty images: 95 % intervals of a difference that is 0 hold 0 in some 95 of 100."""
    draw = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        effect_of_image = draw.normal(0, 1.0, 60)
        of_training = draw.normal(0, 0.15, 3)
        noise = Noise.drawn("ab", 300, draw)
        each = effect_of_image[None] + of_training[:, None] + draw.normal(0, 0.5, (3, 60))
        weights = bootstrap.weights(np.arange(60), 300, draw)
        arm = Measured(each.mean(axis=1), (each @ weights.T) / 60)
        nothing = Measured(np.zeros(3), np.zeros((3, 300)))
        found = bootstrap.spread({"a": arm, "b": nothing}, {"a": 1, "b": -1}, noise).estimate()
        held += found.low <= 0 <= found.high
    assert 180 <= held <= 200


def test_holm_corrects_step_by_step():
    assert bootstrap.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert bootstrap.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert bootstrap.holm([]) == []


def test_groups_are_drawn_whole():
    groups = np.array([0, 0, 1, 2, 2, 2])
    drawn = bootstrap.weights(groups, 50, np.random.default_rng(0))
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 3] == drawn[:, 5]).all()
    assert (drawn[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_only_trainings_that_both_arms_have_are_compared():
    noise = Noise.drawn("ab", 10, np.random.default_rng(0))
    full = Measured(np.array([0.1, 0.2, 0.9]), np.zeros((3, 10)))
    part = Measured(np.array([0.1, 0.1, np.nan]), np.zeros((3, 10)))
    found = bootstrap.spread({"a": full, "b": part}, {"a": 1, "b": -1}, noise)
    assert found.value == pytest.approx(0.05)
    none = Measured(np.full(3, np.nan), np.zeros((3, 10)))
    assert bootstrap.spread({"a": full, "b": none}, {"a": 1, "b": -1}, noise) is None


# Arms


def test_arms_are_read_as_they_are_named():
    specs = arms.parse(
        ["rfs", "compact+rfs", "paste@0.5", "my+run", "repeat", "paste+repeat"], (1, 2), ["my+run"]
    )
    assert [s.name for s in specs] == [
        "real",
        "rfs",
        "compact+rfs",
        "compact+rfs@2",
        "paste@0.5",
        "my+run",
        "my+run@2",
        "repeat",
        "paste+repeat",
        "paste+repeat@2",
    ]
    assert [s.kind for s in specs[:3]] == ["baseline", "baseline", "generated"]
    assert [(s.line, s.without) for s in specs[-2:]] == [("paste+repeat", "repeat")] * 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reel", "no arm 'reel'"),
        ("real@2", "takes no ratio"),
        ("paste@x", "a ratio is a number"),
        ("paste@0", "above 0"),
        ("paste+rsf", "no arm"),
        ("repeat+rfs", "in two ways"),
        ("rfs+repeat", "in two ways"),
        ("paste+", "no arm"),
    ],
)
def test_bad_arms_are_refused(name, said):
    with pytest.raises(Exception, match=said):
        arms.parse([name], (1.0,))


def test_words_name_the_free_way():
    said = verdict._advice("copy-paste+rfs")
    assert said == "use plain copy-paste with repeat-factor sampling"
    assert verdict._advice("repeat") == "repeat the rare images"
    assert verdict._advice("copy-paste+repeat@2") == "use plain copy-paste and repeat the rare images"


def test_a_detector_that_has_learnt_nothing_is_said():
    specs = arms.parse(["real", "paste"], (1.0,))
    for value, said in ((0.02, True), (0.4, False)):
        level = {s.name: Measured(np.array([value, value]), np.full((2, 10), value)) for s in specs}
        evidence = Evidence(specs, level, level, Noise.drawn(level, 10, np.random.default_rng(0)))
        compared = findings.comparisons(evidence, "real")
        found = verdict.verdict(evidence, "real", compared, (), RARE)
        assert any("hardly learnt" in line for line in found.lines) == said


def test_nothing_generated_is_no_verdict():
    specs = arms.parse(["real", "rfs"], (1.0,))
    level = {s.name: Measured(np.array([0.1, 0.2]), np.zeros((2, 10))) for s in specs}
    evidence = Evidence(specs, level, level, Noise.drawn(level, 10, np.random.default_rng(0)))
    compared = findings.comparisons(evidence, "rfs")
    assert verdict.verdict(evidence, "rfs", compared, (), RARE) is None
    assert {(c.arm, c.against) for c in compared} == {("rfs", "real")}
