"""Adapting the embedded model to a dataset, with networks that take seconds."""

import json
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pipelines as tiny
import pytest
import torch
from conftest import make_tiny
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from rarefill import bank, dataset, generators, geometry
from rarefill.errors import ModelError
from rarefill.generators import adapt_loop, adapt_words, pipelines
from rarefill.generators.adapt import adapted, key, token
from rarefill.generators.adapt_loop import Course
from rarefill.generators.adapt_windows import Annotated, held_back
from rarefill.generators.adapt_world import World, has_up, world
from rarefill.generators.denoise import Denoiser
from rarefill.generators.train.diffusion import Painting
from rarefill.generators.window import CLOSE
from rarefill.recipe import GeneratorConfig

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 32
NAMES = ["Platelets", "a b", "a-b", "Öl-Wanne 3", "日本", "", "<|endoftext|>", "x" * 300]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("base") / "tiny", size=SIZE)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Twenty images, so that some can be held back; squares are rare."""
    return dataset.load(make_tiny(tmp_path_factory.mktemp("discs") / "data", images=20))


def windows(data, rare=("square",), **changed):
    captions = {name: name for name in data.names}
    return Annotated(data, bank.build(data, rare), rare=rare, captions=captions, **changed)


def drawn(source, n, *, size=SIZE, held=False):
    return [source.draw(np.random.default_rng(k), size, held=held) for k in range(n)]


def fit(data, base, cache, *, steps=4, seed=0, rare=("square",), progress=None, **changed):
    usual = {
        "minutes": 60,
        "batch": 4,
        "rate": 1e-3,
        "warmup": 2,
        "measured": 16,
        "measure_every": 2,
        "looked_from": 0.0,
    }
    course = Course(**{"steps": steps, **usual, **changed})
    given = {} if progress is None else {"progress": progress}
    return adapted(
        data,
        bank.build(data, rare),
        GeneratorConfig(),
        base=base,
        rare=rare,
        seed=seed,
        cache=cache,
        course=course,
        **given,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Told:
    """Progress that remembers, and that can end a run as a kill would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines, self.bars, self.steps, self._stop = [], [], 0, stop_after

    def say(self, line):
        self.lines.append(line)

    @contextmanager
    def bar(self, what, total, unit):
        self.bars.append((what, total, unit))
        yield self

    def advance(self, n=1, note=""):
        assert note
        self.steps += n
        if self._stop is not None and self.steps >= self._stop:
            raise KeyboardInterrupt


# Windows.


def test_the_shipped_model_learns_from_windows_as_close_as_it_paints_in(discs):
    wide, close = windows(discs), windows(discs, framing=CLOSE)
    shares = [np.median([d.mask.mean() for d in drawn(s, 60, size=64) if d.caption]) for s in (wide, close)]
    assert shares[1] > 1.4 * shares[0]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_lessons_keep_an_objects_lines_as_often_as_asked(discs, share):
    assert all(d.redraw == bool(share) for d in drawn(windows(discs, redraws=share), 30))


# Words.


def test_every_category_has_a_word_of_its_own():
    assert token("Platelets") == "<rarefill:Platelets>"
    assert token("a-b") == "<rarefill:a-b>"
    assert len({token(name) for name in NAMES}) == len(NAMES)
    assert token("日本") == token("日本")


@pytest.mark.parametrize("name", NAMES)
def test_a_categorys_word_is_one_token_that_survives_saving(name, base, tmp_path):
    pipeline = pipelines.load(base)
    known = len(pipeline.tokenizer)
    adapt_words.add(pipeline.tokenizer, pipeline.text_encoder, NAMES)
    pipeline.tokenizer.save_pretrained(tmp_path)
    again = type(pipeline.tokenizer).from_pretrained(tmp_path)
    for tokenizer in (pipeline.tokenizer, again):
        ids = tokenizer(token(name)).input_ids
        assert len(ids) == 3
        assert known <= ids[1] < known + len(NAMES)
    assert pipeline.text_encoder.get_input_embeddings().weight.shape[0] == known + len(NAMES)


def test_a_new_word_begins_with_the_mean_of_its_names_parts(base):
    pipeline = pipelines.load(base)
    before = pipeline.text_encoder.get_input_embeddings().weight.clone()
    parts = pipeline.tokenizer("nucleus disco", add_special_tokens=False).input_ids
    assert len(parts) > 1
    adapt_words.add(pipeline.tokenizer, pipeline.text_encoder, ["nucleus disco", ""])
    after = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(after[: len(before)], before)
    row = pipeline.tokenizer.convert_tokens_to_ids(token("nucleus disco"))
    assert torch.allclose(after[row], before[parts].mean(0))
    assert torch.allclose(after[pipeline.tokenizer.convert_tokens_to_ids(token(""))], before.mean(0))


def test_a_word_that_was_learned_before_keeps_its_meaning(base):
    pipeline = pipelines.load(base)
    adapt_words.add(pipeline.tokenizer, pipeline.text_encoder, ["disc"])
    table = pipeline.text_encoder.get_input_embeddings().weight
    table[-1] = 7.0
    adapt_words.add(pipeline.tokenizer, pipeline.text_encoder, ["disc", "square"])
    table = pipeline.text_encoder.get_input_embeddings().weight
    assert (table[-2] == 7).all()
    assert not (table[-1] == 7).any()


# Windows.


def test_half_of_the_windows_show_rare_objects_and_some_show_none(discs):
    said = [d.caption for d in drawn(windows(discs), 400)]
    assert said.count("square") / 400 == pytest.approx(0.5, abs=0.08)
    assert said.count("") / 400 == pytest.approx(0.15, abs=0.06)
    assert said.count("disc") == 400 - said.count("square") - said.count("")


def test_without_rare_categories_objects_are_drawn_by_the_root_of_their_number(discs):
    said = [d.caption for d in drawn(windows(discs, rare=()), 600)]
    odds = np.sqrt([len(discs.rows_of("disc")), len(discs.rows_of("square"))])
    assert said.count("square") / (600 - said.count("")) == pytest.approx(odds[1] / odds.sum(), abs=0.07)


def test_a_window_lies_under_its_mask_however_it_was_moved_and_turned(discs):
    for window in drawn(windows(discs), 60, size=64):
        assert window.pixels.shape == (64, 64, 3)
        assert window.pixels.dtype == np.uint8
        assert window.mask.any()
        assert 1 <= window.margin_px <= 24
        if window.caption == "square":  # the blue ones
            blue = window.pixels[..., 2].astype(int) - window.pixels[..., 0] > 60
            assert (blue & window.mask).sum() / window.mask.sum() > 0.85
        if window.caption == "disc":
            red = window.pixels[..., 0].astype(int) - window.pixels[..., 2] > 60
            assert (red & window.mask).sum() / window.mask.sum() > 0.85


def test_the_same_stream_gives_the_same_window(discs):
    one, other = (windows(discs).draw(np.random.default_rng(9), SIZE) for _ in range(2))
    assert (one.pixels == other.pixels).all()
    assert (one.mask == other.mask).all()
    assert (one.caption, one.margin_px, one.redraw) == (other.caption, other.margin_px, other.redraw)


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint16"), (4, "uint8")])
def test_any_sensors_pictures_give_windows_of_8_bits_and_three_bands(tmp_path, bands, dtype):
    data = dataset.load(make_tiny(tmp_path / "data", images=4, bands=bands, dtype=dtype))
    for window in drawn(windows(data), 20):
        assert window.pixels.shape == (SIZE, SIZE, 3)
        assert window.pixels.dtype == np.uint8
        assert window.pixels[window.mask].std() + np.ptp(window.pixels) > 20


def test_boxes_alone_give_rounded_masks_and_rare_objects_the_banks(tmp_path):
    data = dataset.load(make_tiny(tmp_path / "data", images=12, masks=False))
    held = bank.build(data, ["square"])
    source = Annotated(data, held, rare=["square"], captions=dict.fromkeys(data.names, ""))
    for row in data.rows_of("disc"):
        mask, box = source._mask(int(row)), data.box(int(row))
        assert geometry.iou(mask.box, box) > 0.9
        assert 0.7 < mask.area / box.area < 0.95
    for exemplar in held.of("square"):
        assert source._mask(exemplar.annotation) is exemplar.mask


def test_a_category_with_a_single_object_is_shown_as_often_as_any_rare_one(tmp_path):
    data = dataset.load(make_tiny(tmp_path / "data", images=4))
    assert len(data.rows_of("square")) == 1
    said = [d.caption for d in drawn(windows(data), 200)]
    assert said.count("square") / 200 == pytest.approx(0.5, abs=0.1)


def test_a_dataset_without_objects_cannot_be_adapted_to(tmp_path):
    path = make_tiny(tmp_path / "data", images=3)
    document = json.loads(path.read_text())
    dots = [entry | {"bbox": [*entry["bbox"][:2], 2, 2], "area": 4} for entry in document["annotations"]]
    path.write_text(json.dumps(document | {"annotations": dots}))
    with pytest.raises(ModelError, match="--no-adapt"):
        windows(dataset.load(path), rare=())


def sided(folder, images=6):
    """Boxes-only images, dark on the left and bright on the right, with a 'sign' in the middle of every other one."""
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for n in range(images):
        ramp = np.tile(np.linspace(0, 255, 200), (160, 1)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{n}.png"), cv2.merge([ramp] * 3))
        entries.append({"id": n + 1, "file_name": f"{n}.png", "width": 200, "height": 160})
        box = {"bbox": [90, 70, 20, 20], "area": 400, "iscrowd": 0, "category_id": 1 + n % 2}
        annotations.append({"id": n + 1, "image_id": n + 1, **box})
    categories = [{"id": 1, "name": "sign"}, {"id": 2, "name": "ball"}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": categories}))
    return dataset.load(path)


def test_images_with_what_is_never_mirrored_are_never_mirrored(tmp_path):
    source = windows(sided(tmp_path), rare=(), no_mirror=["sign"])
    seen = {"sign": set(), "ball": set()}
    for window in drawn(source, 120):
        if window.caption:
            seen[window.caption].add(bool(window.pixels[:, 0].mean() < window.pixels[:, -1].mean()))
    assert seen == {"sign": {True}, "ball": {True, False}}


def test_few_images_are_not_held_back_and_many_are_one_in_ten(tmp_path, discs):
    few = dataset.load(make_tiny(tmp_path / "data", images=6))
    assert not windows(few).held
    assert len(windows(discs).held) == 2
    assert windows(discs).held == windows(discs).held
    assert len({windows(discs, seed=n).held for n in range(8)}) > 1


def test_of_few_rare_objects_none_is_held_back_and_of_many_a_small_part(discs):
    assert len(discs.rows_of("square")) < 20
    with_squares = set(discs.annotations.image[discs.rows_of("square")].tolist())
    rows = {name: discs.rows_of(name) for name in discs.names}
    for seed in range(6):
        assert not held_back(discs, rows, ["square"], seed) & with_squares
        many = held_back(discs, rows, ["disc"], seed)
        n_held = np.isin(discs.annotations.image[rows["disc"]], list(many)).sum()
        assert 0 < n_held <= 0.15 * len(rows["disc"])


def test_what_is_held_back_is_measured_with_and_never_learned_from(discs, monkeypatch):
    source = windows(discs)
    read: set[int] = set()
    original = type(source._picture).__getitem__

    def noted(self, image):
        read.add(image)
        return original(self, image)

    monkeypatch.setattr(type(source._picture), "__getitem__", noted)
    drawn(source, 150)
    assert not read & source.held
    read.clear()
    drawn(source, 40, held=True)
    assert read <= source.held


# What may be turned.


def boxes(folder, make, *, blurred=False, n=80):
    """A dataset of one category whose boxes `make` gives, on noise."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(5)
    entries, annotations = [], []
    for k in range(n):
        noise = rng.integers(0, 255, (120, 120, 3)).astype(np.uint8)
        if blurred:
            noise = cv2.blur(noise, (3, 1))
        cv2.imwrite(str(folder / "images" / f"{k}.png"), noise)
        entries.append({"id": k + 1, "file_name": f"{k}.png", "width": 120, "height": 120})
        box = [float(v) for v in make(rng)]
        annotations.append({"id": k + 1, "image_id": k + 1, "category_id": 1, "bbox": box, "iscrowd": 0})
    path = folder / "annotations.json"
    path.write_text(
        json.dumps(
            {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        )
    )
    return dataset.load(path)


def scattered(rng):
    width, height = rng.uniform(10, 30, 2)
    return rng.uniform(0, 90), rng.uniform(0, 90), width, height


def standing(rng):
    width = rng.uniform(8, 12)
    return rng.uniform(0, 90), rng.uniform(0, 80), width, width * rng.uniform(1.8, 2.4)


def receding(rng):
    y = rng.uniform(0, 80)
    side = 6 + y / 4 + rng.uniform(0, 3)
    return rng.uniform(0, 80), y, side, side


def pictures_of(data):
    return data.read


def test_a_world_seen_from_above_may_be_turned_by_quarters(tmp_path):
    data = boxes(tmp_path, scattered)
    assert world(data, pictures_of(data)) == World(upside=True, quarter=True)


def test_a_sensor_whose_rows_differ_from_its_columns_allows_half_turns_alone(tmp_path):
    data = boxes(tmp_path, scattered, blurred=True)
    assert world(data, pictures_of(data)) == World(upside=True)


@pytest.mark.parametrize("make", [standing, receding])
def test_a_world_with_an_up_is_not_turned(tmp_path, make):
    data = boxes(tmp_path, make)
    assert has_up(data)
    assert world(data, pictures_of(data)) == World()


def test_where_too_few_objects_can_tell_nothing_is_turned(tmp_path):
    data = boxes(tmp_path, scattered, n=20)
    assert world(data, pictures_of(data)) == World()


# The adaptation.


def test_held_back_loss_falls_and_the_folder_is_a_pipeline_that_knows_the_words(discs, base, tmp_path):
    told = Told()
    folder = fit(discs, base, tmp_path, steps=30, measure_every=10, progress=told)
    outcome = json.loads((folder / "adapted.json").read_text())
    before, after = outcome["held"]
    assert after < 0.9 * before
    assert outcome["kept"] in dict(outcome["looks"])
    assert {p.name for p in folder.iterdir()} >= {p.name for p in base.iterdir()}
    pipeline = pipelines.load(folder)
    words = {tuple(pipeline.tokenizer(token(name)).input_ids) for name in discs.names}
    assert len(words) == len(discs.names)
    assert torch.isfinite(Denoiser(pipeline).words([token("square"), ""])).all()
    assert (
        next(iter(load_file(next((folder / "unet").glob("*.safetensors"))).values())).dtype == torch.float16
    )
    assert told.bars[-1] == ("adapting the model", 30, "steps")
    assert "30 steps" in told.lines[0]
    assert "kept" in told.lines[0]
    assert "held-back loss went from" in told.lines[-1]
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_the_encoder_of_pictures_stays_as_it_is(discs, base, tmp_path):
    folder = fit(discs, base, tmp_path)
    for name in ("vae", "scheduler"):
        for path in (base / name).iterdir():
            assert (folder / name / path.name).read_bytes() == path.read_bytes()


def test_a_finished_adaptation_is_not_made_twice(discs, base, tmp_path):
    first = fit(discs, base, tmp_path)
    told = Told()
    assert fit(discs, base, tmp_path, progress=told) == first
    assert not told.bars


def test_the_same_steps_give_the_same_weights_and_another_seed_others(discs, base, tmp_path):
    one, other = (fit(discs, base, tmp_path / name) for name in ("one", "other"))
    assert one.name == other.name
    assert same(one, other)
    assert not same(one, fit(discs, base, tmp_path / "one", seed=1))


def test_everything_that_the_weights_follow_from_is_in_the_key(discs, base, tmp_path):
    usual = {"base": base, "rare": ["square"], "seed": 0}
    course = Course(10.0)
    keys = {key(discs, course, **usual)}
    keys.add(key(discs, Course(11.0), **usual))
    keys.add(key(discs, Course(10.0, steps=50), **usual))
    keys.add(key(discs, course, **usual | {"rare": ["disc"]}))
    keys.add(key(discs, course, **usual | {"seed": 1}))
    keys.add(key(discs, course, **usual, no_mirror=["disc"]))
    keys.add(key(discs, course, **usual | {"base": tiny.save(tmp_path / "another", size=SIZE, seed=1)}))
    keys.add(key(dataset.load(make_tiny(tmp_path / "data", images=19)), course, **usual))
    assert len(keys) == 8
    assert key(discs, Course(10.0, save_minutes=9), **usual) in keys


@pytest.mark.parametrize("stop", [1, 4])
def test_an_adaptation_that_was_stopped_ends_with_the_same_weights(discs, base, tmp_path, stop):
    whole = fit(discs, base, tmp_path / "whole", steps=6)
    with pytest.raises(KeyboardInterrupt):
        fit(discs, base, tmp_path / "parted", steps=6, save_minutes=0, progress=Told(stop))
    told = Told()
    parted = fit(discs, base, tmp_path / "parted", steps=6, progress=told)
    assert f"going on after step {stop}" in told.lines[1]
    assert same(whole, parted)
    assert (whole / "adapted.json").read_text() == (parted / "adapted.json").read_text()


def test_it_ends_when_held_back_loss_no_longer_falls_and_keeps_the_best(discs, base, tmp_path):
    told = Told()
    folder = fit(
        discs, base, tmp_path, steps=200, rate=0.5, decay=0.0, measure_every=1, patience=3, progress=told
    )
    outcome = json.loads((folder / "adapted.json").read_text())
    assert outcome["why"] == adapt_loop.TURNED
    assert outcome["steps"] == outcome["kept"] + 3
    looks = dict(outcome["looks"])
    assert outcome["held"][1] == min(looks.values()) == looks[outcome["kept"]]


def test_when_no_step_helps_the_model_stays_as_it_was(discs, base, tmp_path):
    told = Told()
    folder = fit(discs, base, tmp_path, steps=50, rate=0.0, measure_every=1, patience=2, progress=told)
    assert "stays as it was" in told.lines[-1]
    theirs, ours = weights(base), weights(folder)
    assert all(torch.equal(ours[name], theirs[name].half()) for name in ours if name.startswith("unet"))


def test_the_clock_ends_it_where_no_number_of_steps_does(discs, base, tmp_path):
    told = Told()
    folder = fit(discs, base, tmp_path, steps=None, minutes=0.02, progress=told)
    outcome = json.loads((folder / "adapted.json").read_text())
    assert outcome["why"] == adapt_loop.TIME_UP
    assert outcome["steps"] >= 1
    assert told.bars[-1][2] == "seconds"


def test_too_few_images_leave_it_to_the_clock_or_the_steps(base, tmp_path):
    data = dataset.load(make_tiny(tmp_path / "data", images=4, bands=1, dtype="uint16"))
    told = Told()
    folder = fit(data, base, tmp_path / "cache", progress=told)
    outcome = json.loads((folder / "adapted.json").read_text())
    assert outcome["held"] is None
    assert outcome["kept"] == outcome["steps"] == 4
    assert "too few images" in told.lines[0]
    assert "nothing was held back" in told.lines[-1]


def test_a_broken_checkpoint_gets_one_line(discs, base, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(discs, base, tmp_path, save_minutes=0, progress=Told(2))
    (state,) = tmp_path.glob("*.part/state.safetensors")
    state.write_bytes(b"half a che")
    with pytest.raises(ModelError, match="move it away to start anew"):
        fit(discs, base, tmp_path)


def test_models_of_another_kind_are_refused_in_one_line(discs, tmp_path):

    other = tiny.save(tmp_path / "eps", size=SIZE, scheduler=DDIMScheduler(prediction_type="epsilon"))
    with pytest.raises(ModelError, match="prediction_type v_prediction, got epsilon"):
        fit(discs, other, tmp_path / "cache")
    with pytest.raises(ModelError, match="no such folder"):
        fit(discs, tmp_path / "nowhere", tmp_path / "cache")


def test_the_recipes_model_is_adapted_and_its_words_go_with_it(base, tmp_path):
    data = dataset.load(make_tiny(tmp_path / "data", images=4))
    config = GeneratorConfig(generator="compact", model=base, adapt_steps=1)
    shapes = bank.build(data, ["square"])
    folder, prompts = generators.fit(config, data, shapes, seed=0, cache=tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    assert prompts == {name: token(name) for name in data.names}
    words = Denoiser(pipelines.load(folder)).words([prompts["disc"], prompts["square"]])
    assert not torch.equal(words[0], words[1])


def test_lessons_are_of_the_noise_that_painting_begins_with(discs, base, tmp_path, monkeypatch):
    times = []
    error = Painting._error

    def noted(self, batch, words, control, t, noise):
        times.append(t)
        return error(self, batch, words, control, t, noise)

    monkeypatch.setattr(Painting, "_error", noted)
    fit(discs, base, tmp_path, steps=8, batch=8, measured=4, measure_every=100)
    low = (torch.cat([t for t in times if len(t) == 8]) < 350).float().mean()
    assert 0.45 < float(low) < 0.75  # evenly drawn, it would be 0.35


def test_what_is_held_back_is_not_looked_at_while_the_rate_is_high(discs, base, tmp_path):
    home = fit(
        discs, base, tmp_path, steps=6, looked_from=0.5, measured=4, measure_every=1, patience=1, rate=0.3
    )
    looks = [step for step, _ in json.loads((home / "adapted.json").read_text())["looks"]]
    assert looks[:2] == [0, 3]  # far too high a rate: the first look in between would have ended it
