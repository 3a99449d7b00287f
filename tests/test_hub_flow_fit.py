"""Transformers learn a user's objects: what they are asked in lessons is what painting asks, and diffusers reads what came of it."""

import json

import hub_flow_models as tiny
import numpy as np
import pytest
import torch
from conftest import make_tiny
from hub_models import SIZE
from PIL import Image
from test_hub_flow import canvas

from rarefill import bank, dataset
from rarefill.errors import ModelError
from rarefill.generators import adapt_loop
from rarefill.generators.hub import flow_lessons, lora, quantise, stack
from rarefill.generators.hub.flow_lessons import FlowSubject
from rarefill.generators.hub.lessons import Task
from rarefill.hub_options import HubConfig
from rarefill.recipe import GeneratorConfig

pytestmark = [
    pytest.mark.usefixtures("one_thread", "offline"),
    # diffusers' ControlNet of FLUX.1 uses what diffusers calls deprecated.
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("flow")
    tiny.z_image(root / "z")
    tiny.klein(root / "klein")
    tiny.flux(root / "flux")
    tiny.flux_control(root / "flux-control")
    tiny.qwen_edit(root / "qwen")
    return root


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    data = dataset.load(make_tiny(tmp_path_factory.mktemp("data"), images=20))
    return data, bank.build(data, ["square"])


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    """Qwen-Image-Edit paints a megapixel, whatever it is given: too much for a test."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as module

    monkeypatch.setattr(module, "calculate_dimensions", lambda *_: (SIZE, SIZE, None))


def loaded(base, **options):
    hub = HubConfig(precision="float32", window_px=SIZE, control=(), **options)
    return stack.load(stack.find(f"hub:{base}", hub), hub, device="cpu", dtype=torch.float32)


def asked(pipe, call):
    """What a pipeline's transformer was told at its first step, by name, and what it said."""
    seen = []
    keep = pipe.transformer.register_forward_hook(
        lambda _, args, named, out: seen.append((args, named, out)), with_kwargs=True
    )
    try:
        call()
    finally:
        keep.remove()
    return seen[0]


def flat(told):
    """Every tensor in what was told, in order."""
    if isinstance(told, torch.Tensor):
        return [told]
    if isinstance(told, dict):
        return [tensor for name in sorted(told) for tensor in flat(told[name])]
    return [tensor for one in told for tensor in flat(one)] if isinstance(told, (list, tuple)) else []


@pytest.mark.parametrize("base", ["z", "klein", "flux", "qwen"])
def test_lessons_ask_what_diffusers_own_call_asks(models, base):
    made, one = loaded(models / base), canvas(1)
    told = {
        "z": {"guidance_scale": 0.0, "strength": 1.0, "height": SIZE, "width": SIZE},
        "klein": {"guidance_scale": 1.0, "strength": 1.0},
        "flux": {"guidance_scale": 1.0, "strength": 1.0, "height": SIZE, "width": SIZE},
        "qwen": {"true_cfg_scale": 1.0, "strength": 1.0},
    }[base]
    subject = FlowSubject(made, size=SIZE)
    if base == "qwen":  # its encoder draws; here next to nothing
        last = made.pipe.vae.quant_conv
        last.weight[last.out_channels // 2 :] = 0
        last.bias[last.out_channels // 2 :] = -30
    theirs = asked(
        made.pipe,
        lambda: made.pipe(
            prompt="disc",
            image=Image.fromarray(one.pixels),
            mask_image=Image.fromarray(one.hidden),
            num_inference_steps=1,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
            **told,
        ),
    )
    clean = subject._encode([one.pixels])
    height, width = clean.shape[-2:]
    if base == "z":
        noisy = torch.stack(theirs[0][0]).squeeze(2)
    else:
        rows = theirs[1]["hidden_states"]
        if base == "klein":
            noisy = rows[:, : height * width].transpose(1, 2).reshape(clean.shape)
        else:
            noisy = flow_lessons._unpacked(rows[:, : height * width // 4], height, width)
    places = (clean, [one.pixels]) if base in {"klein", "qwen"} else None
    task = Task(noisy, torch.ones(1), noisy, noisy[:, :1], places)
    with torch.no_grad():
        answer = []
        ours = asked(made.pipe, lambda: answer.append(subject.answer(task, ["disc"])))
    for mine, other in zip(flat(ours), flat(theirs), strict=True):
        assert torch.allclose(mine.float(), other.float(), atol=1e-5)
    assert answer[0].shape == clean.shape


def test_times_are_spread_as_the_paper_says_and_moved_towards_noise():
    share = (np.arange(1000) + 0.5) / 1000
    times = flow_lessons.logit_normal(share)
    logits = torch.logit(times)
    assert float(logits.mean()) == pytest.approx(0, abs=0.01)
    assert float(logits.std()) == pytest.approx(1, abs=0.01)
    assert torch.equal(flow_lessons.shifted(times, 1.0), times)
    moved = flow_lessons.shifted(times, 3.0)
    assert bool((moved > times).all())
    assert float(moved.max()) < 1


def test_a_place_that_is_shown_does_not_show_its_object():
    rng = np.random.default_rng(4)
    pixels, hidden = np.full((SIZE, SIZE, 3), 90, np.uint8), np.zeros((SIZE, SIZE), bool)
    hidden[8:24, 8:24] = True
    pixels[hidden] = rng.integers(0, 255, (int(hidden.sum()), 3))
    assert np.abs(flow_lessons.emptied(pixels, hidden).astype(int) - 90).max() <= 1


COURSE = lora.Course(5, 6, batch=2, rate=2e-2, measured=16, warmup=2, decay=0.5, save_minutes=0)


def fit(objects, base, cache, course=COURSE, **options):
    data, shapes = objects
    config = GeneratorConfig(generator=f"hub:{base}", minutes=5, adapt_steps=course.steps)
    hub = HubConfig(precision="float32", fit_rank=4, window_px=SIZE, **options)
    wanted = stack.find(config.generator, hub)
    return lora.fitted(
        data, shapes, config, hub, wanted, rare=("square",), seed=0, cache=cache, course=course
    )


PIPELINES = {
    "z": "ZImageInpaintPipeline",
    "klein": "Flux2KleinInpaintPipeline",
    "flux": "FluxInpaintPipeline",
    "qwen": "QwenImageEditInpaintPipeline",
}


def looked_at(pipe, base):
    """A picture by diffusers alone."""
    one = canvas(3)
    more = {} if base in {"klein", "qwen"} else {"height": SIZE, "width": SIZE}
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt="square",
        image=Image.fromarray(one.pixels),
        mask_image=Image.fromarray(one.hidden),
        num_inference_steps=2,
        strength=1.0,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
        **more,
    ).images


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("z", {}),
        ("klein", {"fit_words": False}),
        ("flux", {"control": ("canny",), "controlnet": ("{models}/flux-control",)}),
        ("qwen", {}),
    ],
)
def test_a_fit_lowers_its_loss_and_diffusers_alone_reads_it(objects, models, tmp_path, base, options):
    import diffusers

    options = {
        k: tuple(w.format(models=models) for w in v) if k == "controlnet" else v for k, v in options.items()
    }
    folder = fit(objects, models / base, tmp_path, **options)
    said = json.loads((folder / "fitted.json").read_text())
    before, after = said["held"]
    assert after < before
    taught = {"square": "<rarefill:square> square"} if options.get("fit_words", True) else {}
    assert said["words"] == taught
    assert (folder / stack.TOKENS).is_file() == bool(taught)
    pipe = getattr(diffusers, PIPELINES[base]).from_pretrained(models / base)
    plain = looked_at(pipe, base)
    pipe.load_lora_weights(folder, weight_name=stack.ADAPTER)
    assert np.abs(looked_at(pipe, base) - plain).max() > 1e-3  # six steps move Qwen's little
    again = loaded(models / base, lora=str(folder))  # and by us, words and all
    for _, tokenizer, _ in lora.tokens.encoders(again.pipe):
        assert ("<rarefill:square>" in tokenizer.get_vocab()) == bool(taught)


def test_a_stopped_fit_of_a_transformer_goes_on_to_the_same_bytes(objects, models, tmp_path, monkeypatch):
    whole = fit(objects, models / "z", tmp_path / "whole", fit_checkpointing=True)
    learn, done = adapt_loop._learn, []

    def stops(*given):
        done.append(given[1])
        if len(done) == 4:
            raise KeyboardInterrupt
        return learn(*given)

    monkeypatch.setattr(adapt_loop, "_learn", stops)
    with pytest.raises(KeyboardInterrupt):
        fit(objects, models / "z", tmp_path / "cut")
    monkeypatch.setattr(adapt_loop, "_learn", lambda *given: done.append(given[1]) or learn(*given))
    cut = fit(objects, models / "z", tmp_path / "cut")
    assert done == [0, 1, 2, 3, 3, 4, 5]
    assert cut.name == whole.name
    for name in (stack.ADAPTER, stack.TOKENS):  # remembered or computed again, in one go or in two
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_words_that_do_not_learn_are_encoded_once(models, monkeypatch):
    made = loaded(models / "flux")
    subject, noisy = FlowSubject(made, size=SIZE), torch.zeros(2, 4, SIZE // 2, SIZE // 2)
    task, said = Task(noisy, torch.full((2,), 0.5), noisy, noisy), ["disc", ""]
    with torch.no_grad():
        each_time = subject.answer(task, said)
        subject.keep(said)
        monkeypatch.setattr(made.pipe, "encode_prompt", None)
        assert torch.allclose(subject.answer(task, said), each_time, atol=1e-5)


def test_a_step_that_does_not_fit_is_one_line(objects, models, tmp_path, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FlowSubject, "task", never)
    with pytest.raises(ModelError, match=r"z: not enough memory for a step of 2 windows; say --fit-batch 1"):
        fit(objects, models / "z", tmp_path)


def test_an_optimiser_that_cannot_be_had_is_one_line(objects, models, tmp_path, monkeypatch):
    monkeypatch.setattr(lora.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes: pip install 'rarefill\[gpu\]'"):
        fit(objects, models / "z", tmp_path, fit_optimiser="8bit")
    monkeypatch.setattr(lora.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="8bit needs a GPU"):
        fit(objects, models / "z", tmp_path, fit_optimiser="8bit")


def test_moments_of_eight_bits_go_on_where_they_were_stopped(tmp_path):
    optim = pytest.importorskip("bitsandbytes.optim")
    from rarefill.generators.train import checkpoint

    def step(module, optimizer):
        optimizer.zero_grad()
        (module.weight**2).sum().backward()
        optimizer.step()

    torch.manual_seed(1)
    module = torch.nn.Linear(96, 96)
    averages, optimizer = checkpoint.Averages(module, 0.9), optim.AdamW8bit(module.parameters(), lr=1e-2)
    for _ in range(2):
        step(module, optimizer)
    checkpoint.save(tmp_path / "state.safetensors", 2, module, averages, optimizer)
    step(module, optimizer)
    other = torch.nn.Linear(96, 96)
    later = optim.AdamW8bit(other.parameters(), lr=1e-2)
    assert checkpoint.load(tmp_path / "state.safetensors", other, checkpoint.Averages(other, 0.9), later) == 2
    step(other, later)
    assert torch.equal(other.weight, module.weight)


def test_lessons_are_of_weights_that_can_be_gone_back_through():
    assert lora._for_lessons(HubConfig(quantise="float8", compile=True)).quantise == "none"
    assert lora._for_lessons(HubConfig(quantise="4bit")).quantise == "4bit"
    assert quantise.by_library("int8")
