"""The diffusion generator: pipeline folders, the sampling loop, and what it does to images."""

import json
import multiprocessing
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pipelines as tiny_pipelines
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionControlNetInpaintPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from rarefill import console, generators, pictures, pipeline
from rarefill import recipe as recipes
from rarefill.errors import ModelError, RarefillError
from rarefill.generators import Job, render
from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.compact import Compact
from rarefill.generators.denoise import Canvas, Denoiser, Sampling
from rarefill.generators.paste import Paste
from rarefill.generators.pipelines import load
from rarefill.generators.window import CLOSE, cut, middle
from rarefill.geometry import Box, box_mask
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX, Layout, Placement, changed_pixels

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pipelines.save(tmp_path_factory.mktemp("pipeline") / "tiny", size=SIZE)


@pytest.fixture(scope="module")
def denoiser(folder):
    return Denoiser(load(folder))


def canvas(seed: int, *, prompt: str = "disc", radius: int = 8) -> Canvas:
    rng = np.random.default_rng([3, seed])
    y, x = np.mgrid[:SIZE, :SIZE]
    pixels = np.clip(rng.uniform(0, 255, 3) + x[..., None] + rng.normal(0, 9, (SIZE, SIZE, 3)), 0, 255)
    pixels = pixels.astype(np.uint8)
    mask = (x - 15) ** 2 + (y - 16) ** 2 < radius**2
    hidden = conditioning.grown(mask, 2)
    control = conditioning.control_map(pixels, mask, hidden, redraw=False)
    noise = rng.standard_normal((4, SIZE // 4, SIZE // 4), dtype=np.float32)
    return Canvas(pixels, hidden, control, prompt, noise, seed)


def by_the_pipeline(folder, canvases, sampling, strength=1.0, scheduler=None):
    """What diffusers' own call paints, from the same noise."""
    pipeline = StableDiffusionControlNetInpaintPipeline.from_pretrained(folder, safety_checker=None)
    if scheduler is not None:
        pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.from_numpy(np.stack([c.noise for c in canvases]))
    given = {"latents": noise} if strength == 1 else {}
    if strength < 1:  # the call then takes noise from its generators alone
        draws = iter(noise.split(1))
        pipeline.prepare_latents = _with_noise(pipeline, draws)
    painted = pipeline(
        [c.prompt for c in canvases],
        negative_prompt=[""] * len(canvases),
        image=[Image.fromarray(c.pixels) for c in canvases],
        mask_image=[Image.fromarray(c.hidden) for c in canvases],
        control_image=[Image.fromarray(c.control) for c in canvases],
        height=SIZE,
        width=SIZE,
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        controlnet_conditioning_scale=float(sampling.conditioning_scale),
        strength=strength,
        generator=[torch.Generator().manual_seed(c.seed) for c in canvases],
        output_type="np",
        **given,
    ).images
    return np.rint(painted * 255).astype(np.int64)


def _with_noise(pipeline, draws):
    prepare = pipeline.prepare_latents

    def given(*args, **names):
        def noise(shape, **_):
            return torch.cat([next(draws) for _ in range(shape[0])])

        import diffusers.pipelines.controlnet.pipeline_controlnet_inpaint as module

        before, module.randn_tensor = module.randn_tensor, noise
        try:
            return prepare(*args, **names)
        finally:
            module.randn_tensor = before

    return given


@pytest.mark.parametrize(
    "sampling",
    [Sampling(steps=3, guidance_scale=2.5), Sampling(steps=2, guidance_scale=1.0, conditioning_scale=0.6)],
)
def test_the_loop_paints_what_the_pipelines_own_call_paints(folder, denoiser, sampling):
    canvases = [canvas(1), canvas(2, prompt="square", radius=5), canvas(3, prompt="cell nucleus")]
    ours = denoiser.paint(canvases, sampling).astype(np.int64)
    theirs = by_the_pipeline(folder, canvases, sampling)
    assert np.abs(ours - theirs).max() <= 1
    assert ours.std() > 5


def test_maps_in_the_other_order_of_colours_are_seen_as_the_pipeline_sees_them(folder, tmp_path):
    blue_first = tmp_path / "blue first"
    shutil.copytree(folder, blue_first)
    settings = json.loads((blue_first / "controlnet" / "config.json").read_text())
    settings["controlnet_conditioning_channel_order"] = "bgr"
    (blue_first / "controlnet" / "config.json").write_text(json.dumps(settings))
    canvases, sampling = [canvas(1), canvas(2, radius=5)], Sampling(steps=3)
    ours = Denoiser(load(blue_first)).paint(canvases, sampling).astype(np.int64)
    assert np.abs(ours - by_the_pipeline(blue_first, canvases, sampling)).max() <= 1
    assert np.abs(ours - by_the_pipeline(folder, canvases, sampling)).max() > 1


def test_below_full_strength_a_solver_takes_closer_steps_towards_the_picture(denoiser, monkeypatch):
    canvases, times = [canvas(1), canvas(2)], []
    told = DPMSolverMultistepScheduler.set_timesteps

    def noted(self, *args, **names):
        times.append(names["timesteps"])
        return told(self, *args, **names)

    with monkeypatch.context() as patched:
        patched.setattr(DPMSolverMultistepScheduler, "set_timesteps", noted)
        ours = denoiser.paint(canvases, Sampling(steps=6, guidance_scale=2.0), strength=0.5)
    assert times == [[500, 281, 125, 31]]
    assert ours.std() > 5
    for part in (0.001, 0.35, 0.99):
        assert np.isfinite(denoiser.paint(canvases, Sampling(steps=2), strength=part)).all()


def test_as_many_steps_as_one_likes_come_to_the_same_picture(denoiser):
    one, strength = [canvas(1)], 0.35
    fine = denoiser.paint(one, Sampling(steps=400, guidance_scale=1), strength=strength).astype(float)
    errors = [
        np.abs(denoiser.paint(one, Sampling(n, guidance_scale=1), strength=strength) - fine).mean()
        for n in (3, 12, 48)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_other_schedulers_agree_with_the_pipeline_below_full_strength(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "plain")
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    DDIMScheduler(**betas, prediction_type="v_prediction", clip_sample=False).save_pretrained(
        tmp_path / "plain" / "scheduler"
    )
    index = json.loads((tmp_path / "plain" / "model_index.json").read_text())
    index["scheduler"][1] = "DDIMScheduler"
    (tmp_path / "plain" / "model_index.json").write_text(json.dumps(index))
    canvases, sampling = [canvas(1), canvas(2)], Sampling(steps=6, guidance_scale=2.0)
    ours = Denoiser(load(tmp_path / "plain")).paint(canvases, sampling, strength=0.5).astype(np.int64)
    theirs = by_the_pipeline(tmp_path / "plain", canvases, sampling, strength=0.5)
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(
    "kind", [DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler, DDPMScheduler]
)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_other_schedulers_paint_and_repeat_themselves(folder, kind, strength):
    pipeline = load(folder)
    settings = {k: v for k, v in pipeline.scheduler.config.items() if k != "rescale_betas_zero_snr"}
    ours = Denoiser(type(pipeline)(*_parts(pipeline), kind.from_config(settings)))
    assert ours._spaced == (kind is DPMSolverMultistepScheduler)  # others keep their own steps
    canvases = [canvas(1), canvas(2)]
    first, again = (ours.paint(canvases, Sampling(steps=4), strength=strength) for _ in range(2))
    assert np.array_equal(first, again)
    if strength == 1 and kind is not DDPMScheduler:
        theirs = by_the_pipeline(folder, canvases, Sampling(steps=4), scheduler=kind.from_config(settings))
        assert np.abs(first.astype(np.int64) - theirs).max() <= 1


def _parts(pipeline):
    return (
        pipeline.vae,
        pipeline.unet,
        pipeline.controlnet,
        pipeline.text_encoder,
        pipeline.tokenizer,
    )


def test_guidance_on_an_interval_costs_and_does_less(denoiser):
    asked = []
    ask = denoiser._ask
    denoiser._ask = lambda looked, *rest: asked.append(len(looked)) or ask(looked, *rest)
    try:
        part = denoiser.paint([canvas(1)], Sampling(steps=4, guidance_from=0.25, guidance_to=0.75))
    finally:
        del denoiser._ask
    assert asked == [1, 2, 2, 1]
    asked.clear()
    denoiser._ask = lambda looked, *rest: asked.append(len(looked)) or ask(looked, *rest)
    try:
        denoiser.paint([canvas(1)], Sampling(steps=4, guidance_from=0.25, guidance_to=0.75), strength=0.75)
    finally:
        del denoiser._ask
    assert asked == [2, 2, 1]  # the interval lies on the whole way: beginning later moves nothing
    whole, none = (denoiser.paint([canvas(1)], s) for s in (Sampling(4), Sampling(4, guidance_scale=1)))
    assert not np.array_equal(part, whole)
    assert not np.array_equal(part, none)


def test_words_map_and_noise_all_count(denoiser):
    one = canvas(1)
    base = denoiser.paint([one], Sampling(2))[0]
    others = {
        "prompt": Canvas(one.pixels, one.hidden, one.control, "square", one.noise),
        "map": Canvas(one.pixels, one.hidden, 255 - one.control, one.prompt, one.noise),
        "noise": Canvas(one.pixels, one.hidden, one.control, one.prompt, one.noise[:, ::-1].copy()),
    }
    for name, other in others.items():
        assert not np.array_equal(base, denoiser.paint([other], Sampling(2))[0]), name


def test_what_lies_under_the_mask_is_not_looked_at(denoiser):
    one = canvas(1)
    changed = one.pixels.copy()
    changed[one.hidden] = 255 - changed[one.hidden]
    other = Canvas(changed, one.hidden, one.control, one.prompt, one.noise)
    assert np.array_equal(denoiser.paint([one], Sampling(2)), denoiser.paint([other], Sampling(2)))


def test_numbers_that_are_none_get_a_line(folder):
    pipeline = load(folder)
    pipeline.unet.conv_out.weight.data[0] = 1e38
    with pytest.raises(ModelError, match=r"no number.*--model"):
        Denoiser(pipeline).paint([canvas(1)], Sampling(2))


def _without(part):
    def spoil(folder):
        shutil.rmtree(folder / part)

    return spoil


def _pickled(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()


def _weights(change):
    def spoil(folder):
        path = folder / "controlnet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return spoil


def _nan(tensors):
    next(iter(tensors.values())).view(-1)[0] = float("nan")


def _cut(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


SPOILT = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "no model_index.json"),
    "index": (lambda folder: (folder / "model_index.json").write_text("{"), "cannot be read"),
    "no controlnet": (_without("controlnet"), "no controlnet"),
    "no tokenizer": (_without("tokenizer"), "no tokenizer"),
    "pickle": (_pickled, "pickles are not opened"),
    "cut": (_cut, "cannot be read as a pipeline"),
    "no weights": (
        lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
        "incomplete",
    ),
    "nan": (_weights(_nan), "controlnet holds weights that are no numbers"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_folder_gets_one_clear_line(folder, tmp_path, how):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt)
    spoil, says = SPOILT[how]
    spoil(spoilt)
    with pytest.raises(ModelError, match=says) as caught:
        load(spoilt)
    assert "\n" not in str(caught.value)
    assert str(spoilt) in str(caught.value)


def test_a_model_that_cannot_inpaint_gets_one_clear_line(tmp_path):
    from diffusers import UNet2DConditionModel

    made = tiny_pipelines.networks(SIZE, 0)
    config = dict(made["unet"].config) | {"in_channels": 4}
    folder = tiny_pipelines.save(tmp_path / "four", size=SIZE, unet=UNet2DConditionModel.from_config(config))
    with pytest.raises(ModelError, match=r"in_channels 9 .*inpainting model.*, got 4"):
        load(folder)


def compact(data, shapes, denoiser, *, framed=CLOSE, lines=True, **options) -> Compact:
    config = GeneratorConfig(generator="compact", steps=2, **options)
    paste = Paste(config, data, shapes)
    return Compact(config, denoiser, data, paste=paste, prompts={}, framed=framed, lines=lines)


def placed(box, seed=0, category="disc") -> Placement:
    mask = box_mask(Box(*box))
    assert mask is not None
    return Placement(category, mask, seed=seed)


def job(data, placements, image=0) -> Job:
    n = len(placements)
    return Job(Layout(image, 0, tuple(placements)), data.read(image), (0,) * n, None, tuple(range(n)))


PLACES = {
    "one pixel": (40, 40, 41, 41),
    "a line": (10, 20, 70, 22),
    "first corner": (0, 0, 20, 16),
    "last corner": (80, 70, 96, 80),
    "larger than the window": (10, 5, 90, 75),
    "usual": (30, 30, 48, 50),
}


@pytest.mark.parametrize("framed", [CLOSE, None])
@pytest.mark.parametrize("place", PLACES)
def test_pixels_outside_the_ring_stay_exactly(any_bands, denoiser, place, framed):
    data, shapes = any_bands
    asked = placed(PLACES[place])
    (done,) = render(compact(data, shapes, denoiser, framed=framed), [job(data, [asked])], seed=1)
    changed = changed_pixels(done)
    box = asked.box
    reach = np.zeros_like(changed)
    y1, x1 = max(0, int(box.y1) - FEATHER_PX), max(0, int(box.x1) - FEATHER_PX)
    reach[y1 : int(box.y2) + FEATHER_PX, x1 : int(box.x2) + FEATHER_PX] = True
    assert changed.any()
    assert not changed[~reach].any()
    assert done.paints[0].mask.box == box
    if data.read(0).shape[2] == 4:
        assert np.array_equal(done.pixels[:, :, 3], done.background[:, :, 3])
    assert done.pixels.dtype == done.background.dtype


def test_strength_below_one_starts_from_a_real_object(tiny_bank, denoiser):
    data, shapes = tiny_bank
    box = (30, 30, 48, 50)
    paints = {}
    for strength in (1.0, 0.5):
        generator = compact(data, shapes, denoiser, strength=(strength,))
        (done,) = render(generator, [job(data, [placed(box)])], seed=1)
        paints[strength] = done
        assert done.paints[0].how["strength"] == strength
    assert "exemplar" in paints[0.5].paints[0].how
    assert "exemplar" not in paints[1.0].paints[0].how
    assert not np.array_equal(paints[0.5].pixels, paints[1.0].pixels)


@pytest.mark.parametrize("place", PLACES)
def test_a_closer_framing_is_the_middle_of_a_wider_one(any_bands, place):
    data, _ = any_bands
    wide, close = (
        cut(data.read(0), placed(PLACES[place]), framing, image=0, key=(0, 0, 0, 0), seed=0)
        for framing in (Compact.framing, CLOSE)
    )
    seen = middle(wide, CLOSE)
    assert np.array_equal(wide.pixels[seen, seen], close.pixels)
    assert np.array_equal(wide.mask[seen, seen], close.mask)
    assert close.side < wide.side


def seen_by(generator, monkeypatch, jobs):
    """The canvases that the model is shown."""
    seen, paint = [], Denoiser.paint
    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "paint", lambda s, c, *a, **k: seen.extend(c) or paint(s, c, *a, **k))
        render(generator, jobs, seed=1)
    return seen


def test_an_object_fills_more_of_what_the_model_sees_in_a_closer_framing(tiny_bank, denoiser, monkeypatch):
    data, shapes = tiny_bank
    jobs = [job(data, [placed((30, 30, 48, 50))])]
    share = {}
    for framed in (None, CLOSE):
        generator = compact(data, shapes, denoiser, framed=framed, strength=(1.0,))
        (canvas,) = seen_by(generator, monkeypatch, jobs)
        share[framed] = (canvas.control[:, :, 0] > 0).mean()
    expected = (20 + 48) ** 2 / (20 + 24) ** 2
    assert share[CLOSE] / share[None] == pytest.approx(expected, rel=0.15)


def test_the_generator_that_is_built_sees_objects_close_and_their_lines(
    tiny_bank, folder, tmp_path, monkeypatch
):
    data, shapes = tiny_bank
    jobs = [job(data, [placed((30, 30, 48, 50))])]
    given = {"steps": 2, "strength": (0.5,), "adapt": False, "model": str(folder)}
    built = generators.build(
        GeneratorConfig(generator="compact", **given), data, shapes, seed=0, cache=tmp_path
    )
    ours = compact(data, shapes, Denoiser(load(folder)), strength=(0.5,))
    (as_built,) = seen_by(built, monkeypatch, jobs)
    (close,) = seen_by(ours, monkeypatch, jobs)
    assert np.array_equal(as_built.control, close.control)
    assert np.array_equal(as_built.pixels, close.pixels)


def test_what_the_model_painted_lands_where_it_was_seen(tiny_bank):
    """A cross through the middle of the canvas goes through the middle of the object."""
    data, shapes = tiny_bank
    x, y = 30, 30

    class Crossed(Speckled):
        def paint(self, canvases, *_, **__):
            answers = np.stack([c.pixels for c in canvases])
            at = self.size // 2
            answers[:, at - 2 : at + 2], answers[:, :, at - 2 : at + 2] = 255, 255
            return answers

    generator = compact(data, shapes, Crossed(128), strength=(1.0,), match_noise=False)
    (done,) = render(generator, [job(data, [placed((x, y, x + 20, y + 20))])], seed=1)
    lit = (done.pixels.astype(int) - done.background).sum(axis=2)[y : y + 20, x : x + 20] > 60
    for axis in (0, 1):
        crossed = np.flatnonzero(lit.mean(axis=axis) > 0.7)
        assert len(crossed)
        assert set(crossed) <= {9, 10}


def test_an_object_to_start_from_keeps_its_lines_in_the_map(two_coloured, denoiser, monkeypatch):
    data, shapes = two_coloured
    jobs = [job(data, [placed((30, 20, 70, 60), category="flag")], image=4)]
    drawn = {}
    for lines, strength in ((True, 0.5), (False, 0.5), (True, 1.0)):
        generator = compact(
            data, shapes, denoiser, framed=None, lines=lines, strength=(strength,), paste_above=0
        )
        (canvas,) = seen_by(generator, monkeypatch, jobs)
        inside = canvas.control[:, :, 2] > 0
        assert not (inside & (canvas.control[:, :, 0] == 0)).any(), "lines beyond the silhouette"
        drawn[lines, strength] = inside.sum()
    assert drawn[True, 0.5] > 5
    assert drawn[False, 0.5] == 0
    assert drawn[True, 1.0] == 0, "from noise there are none"


class Speckled:
    """A model that paints everything dark, with a detail of its own."""

    batch = 16

    def __init__(self, size: int) -> None:
        self.size = size

    def noise_shape(self, _):
        return 1, 1, 1

    def paint(self, canvases, *_, **__):
        dark = np.full((self.size, self.size, 3), 20, np.uint8)
        dark[::2] += 30
        return np.stack([np.where(c.hidden[:, :, None], dark, c.pixels) for c in canvases])


@pytest.mark.parametrize("own", [True, False])
def test_the_shipped_models_objects_have_the_colours_of_those_they_began_with(tiny_bank, own):
    """A model that the user brought may paint what it likes."""
    data, shapes = tiny_bank
    jobs = [job(data, [placed((30, 20, 58, 48))])]
    model = {} if own else {"model": "theirs"}
    made = compact(data, shapes, Speckled(64), strength=(0.6,), match_noise=False, **model)
    config = GeneratorConfig(photometric=0.5)
    (painted,) = render(made, jobs, seed=1)
    (pasted,) = render(Paste(config, data, shapes), jobs, seed=1)
    inside = (slice(26, 42), slice(36, 52))
    ours, theirs = (r.pixels[inside].astype(float) for r in (painted, pasted))
    assert painted.paints[0].how["exemplar"] == pasted.paints[0].how["exemplar"]
    off = np.abs(ours.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1))).max()
    rough = np.abs(np.diff(ours, axis=0)).mean()
    assert rough > 5
    if own:
        assert off < 20
    else:
        assert off > 40


def test_a_mix_of_strengths_is_drawn_per_object(tiny_bank, denoiser):
    data, shapes = tiny_bank
    jobs = [job(data, [placed((20, 20, 36, 36), seed=n)], image=n) for n in range(12)]
    done = render(compact(data, shapes, denoiser, strength=(1.0, 0.7, 0.3)), jobs, seed=2)
    assert {r.paints[0].how["strength"] for r in done} == {1.0, 0.7, 0.3}


def test_objects_too_large_for_the_shipped_model_are_pasted_among_the_others(tiny_bank, denoiser):
    data, shapes = tiny_bank
    small, large = placed((8, 8, 24, 24)), placed((30, 20, 70, 60))
    done = {}
    for above in (0.6, 0):
        generator = compact(data, shapes, denoiser, paste_above=above)
        (done[above],) = render(generator, [job(data, [small, large])], seed=1)
    of = {above: [paint.how.get("painted_by") for paint in done[above].paints] for above in done}
    assert of == {0.6: [None, "paste"], 0: [None, None]}
    assert np.array_equal(done[0.6].pixels[:20, :20], done[0].pixels[:20, :20])
    assert not np.array_equal(done[0.6].pixels[30:50, 40:60], done[0].pixels[30:50, 40:60])
    config = GeneratorConfig(generator="compact", paste_above=0.6)
    assert generators.too_large(config, [small, large]) == 1
    assert generators.too_large(config, [small, replace(large, redraws=0)]) == 0
    for other in ({"paste_above": 0}, {"model": "mine"}, {"generator": "paste"}):
        assert generators.too_large(config.model_copy(update=other), [small, large]) == 0


def test_a_run_of_large_objects_alone_adapts_no_model(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generators, "fit", lambda *_, **__: pytest.fail("a model was adapted"))
    asked = {
        "data": tiny,
        "out": tmp_path / "run",
        "fill": {"square": 3},
        "generator": {"generator": "compact", "paste_above": 0.1},
        "annotator": {"checker": "none"},
    }
    summary = pipeline.run(recipes.resolve(asked), progress=console.on_stderr())
    assert summary.tallies[0].made == 3
    assert "3 of 3 planned objects are too large for the embedded model" in " ".join(
        capsys.readouterr().err.split()
    )


def test_another_seed_another_look_the_same_seed_the_same_bytes(tiny_bank, denoiser):
    data, shapes = tiny_bank
    generator = compact(data, shapes, denoiser)

    def once(seed):
        return render(generator, [job(data, [placed((30, 30, 48, 50))])], seed=seed)[0].pixels

    assert np.array_equal(once(1), once(1))
    assert not np.array_equal(once(1), once(2))


def test_threads_change_no_byte(tiny_bank, folder):
    data, shapes = tiny_bank
    jobs = [job(data, [placed((20, 20, 36, 36), seed=n)], image=n) for n in range(6)]
    generator = compact(data, shapes, Denoiser(load(folder)))
    alone = [render(generator, [one], seed=2)[0].pixels for one in jobs]
    with ThreadPoolExecutor(3) as pool:
        beside = list(pool.map(lambda one: render(generator, [one], seed=2)[0].pixels, jobs))
    for one, other in zip(alone, beside, strict=True):
        assert np.array_equal(one, other)


def test_sixteen_bits_go_through_stated_percentiles_and_back():
    rng = np.random.default_rng(4)
    pixels = rng.integers(900, 3000, (40, 50, 1)).astype(np.uint16)
    between = pictures.limits(pixels)
    assert between == tuple(np.percentile(pixels, pictures.PERCENTILES))
    seen = pictures.rgb(pixels[:10], between)
    back = pictures.from_rgb(seen.astype(np.float32), 1, between)
    inside = (pixels[:10] > between[0]) & (pixels[:10] < between[1])
    step = (between[1] - between[0]) / 255
    assert np.abs(back - pixels[:10])[inside].max() <= step


def _asked(tiny_data, folder, out, **more):
    options = {
        "data": tiny_data,
        "out": out,
        "fill": {"square": 24},
        "formats": ("coco",),
        "generator": {
            "generator": "compact",
            "model": folder,
            "adapt": False,
            "steps": 2,
            "strength": (1.0, 0.5),
        },
        "annotator": {"checker": "none"},
    }
    return recipes.resolve(recipes.merged(options, more))


def _run(tiny_data, folder, out, **more):
    pipeline.run(_asked(tiny_data, folder, out, **more))
    return {p.name: p.read_bytes() for p in sorted((out / "images").iterdir())}


def test_a_run_has_the_same_bytes_with_one_and_two_workers_and_after_a_kill(tiny, folder, tmp_path):
    alone = _run(tiny, folder, tmp_path / "one", workers=1)
    assert len(alone) >= 4
    assert _run(tiny, folder, tmp_path / "two", workers=2) == alone
    killed = tmp_path / "killed"
    # Not forked: a child would inherit torch's threads, which are not there any more.
    start = multiprocessing.get_context("spawn").Process
    child = start(target=pipeline.run, args=(_asked(tiny, folder, killed, workers=1),))
    child.start()
    records = killed / "records.jsonl"
    while child.is_alive() and not (records.exists() and records.stat().st_size):
        time.sleep(0.002)
    child.kill()  # the first chunk is on the disk
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert _run(tiny, folder, killed, workers=2) == alone


def test_another_model_is_another_run(tiny, folder, tmp_path):
    _run(tiny, folder, tmp_path / "run", workers=1, fill={"square": 2})
    other = tiny_pipelines.save(tmp_path / "other", size=SIZE, seed=5)
    with pytest.raises(RarefillError, match="model"):
        _run(tiny, other, tmp_path / "run", workers=1, fill={"square": 2})


def test_a_model_that_is_not_there_is_told_before_any_work(tiny, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        _run(tiny, tmp_path / "none", tmp_path / "run")
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("*.jsonl"))
