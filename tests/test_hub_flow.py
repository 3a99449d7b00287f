"""Transformer families: loaded from folders, painted in batches through diffusers' own calls."""

import hub_flow_models as tiny
import numpy as np
import pytest
import torch
from hub_models import SIZE
from PIL import Image

from rarefill.errors import ModelError
from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.denoise import Canvas, Sampling
from rarefill.generators.hub import build, maps, stack
from rarefill.hub_options import HubConfig

pytestmark = [
    pytest.mark.usefixtures("one_thread", "offline"),
    # diffusers' ControlNet of FLUX.1 uses what diffusers calls deprecated.
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning"),
]

GREY_LEVELS = 2
"""How far a batch and its windows alone may lie apart, of 255: kernels sum in another order."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("flow")
    tiny.z_image(root / "z")
    tiny.z_control(root / "z-control")
    tiny.klein(root / "klein")
    tiny.flux(root / "flux")
    tiny.flux_control(root / "flux-control")
    return root


def painter(base, net=None, **options):
    options = {"window_px": SIZE, "precision": "float32"} | options
    if net is not None:
        options |= {"control": ("canny",), "controlnet": (str(net),)}
    hub = HubConfig(**options)
    loaded = stack.load(stack.find(f"hub:{base}", hub), hub, device="cpu", dtype=torch.float32)
    return build.painter(loaded, hub)


def canvas(seed, *, prompt="disc", size=SIZE):
    rng = np.random.default_rng([5, seed])
    y, x = np.mgrid[:size, :size]
    pixels = np.clip(rng.uniform(0, 200, 3) + x[..., None] + rng.normal(0, 9, (size, size, 3)), 0, 255)
    mask = (x - size // 2) ** 2 + (y - size // 2) ** 2 < (size // 4) ** 2
    hidden = conditioning.grown(mask, 2)
    pixels = pixels.astype(np.uint8)
    control = maps.drawers(("canny",), None)(pixels, mask, hidden, redraw=False)
    return Canvas(pixels, hidden, control, prompt, np.zeros((1, 1, 1), np.float32), seed)


@pytest.mark.parametrize(
    ("base", "net", "family"),
    [
        ("z", None, "z-image"),
        ("z", "z-control", "z-image"),
        ("klein", None, "flux2-klein"),
        ("flux", None, "flux"),
        ("flux", "flux-control", "flux"),
    ],
)
def test_a_batch_paints_each_window_as_its_seed_says(models, base, net, family):
    ours = painter(models / base, net and models / net)
    assert ours.stack.family == family
    canvases = [canvas(1), canvas(2, prompt="a square")]
    sampling = Sampling(3, guidance_scale=2.0)
    together = ours.paint(canvases, sampling, strength=1.0)
    assert together.shape == (2, SIZE, SIZE, 3)
    assert np.array_equal(together, ours.paint(canvases, sampling, strength=1.0))
    for one, got in zip(canvases, together.astype(np.int64), strict=True):
        alone = ours.paint([one], sampling, strength=1.0)[0]
        assert np.abs(alone - got).max() <= GREY_LEVELS
    words = Canvas(**{f: getattr(canvases[0], f) for f in Canvas.__slots__} | {"prompt": "something else"})
    assert not np.array_equal(ours.paint([words], sampling)[0], together[0])
    other = Canvas(**{f: getattr(canvases[0], f) for f in Canvas.__slots__} | {"seed": 99})
    assert not np.array_equal(ours.paint([other], sampling)[0], together[0])


def test_a_picture_for_the_controlnet_counts(models):
    ours, one = painter(models / "z", models / "z-control"), canvas(1)
    inverse = Canvas(one.pixels, one.hidden, 255 - one.control, one.prompt, one.noise, one.seed)
    assert not np.array_equal(ours.paint([one], Sampling(2, 1.0)), ours.paint([inverse], Sampling(2, 1.0)))


def test_one_window_is_what_diffusers_own_call_paints(models):
    ours, one = painter(models / "klein"), canvas(1)
    theirs = ours.stack.pipe(
        prompt=one.prompt,
        image=Image.fromarray(one.pixels),
        mask_image=Image.fromarray(one.hidden),
        num_inference_steps=3,
        guidance_scale=1.0,
        strength=1.0,
        generator=torch.Generator().manual_seed(one.seed),
    ).images[0]
    assert np.array_equal(ours.paint([one], Sampling(3, 1.0))[0], np.asarray(theirs))


def test_words_are_encoded_once(models, monkeypatch):
    for base, net in (("z", "z-control"), ("klein", None), ("flux", "flux-control")):
        ours = painter(models / base, net and models / net)
        encode, asked = ours.stack.pipe.encode_prompt, []

        def counted(prompt, *more, encode=encode, asked=asked, **named):
            if prompt is not None:
                asked.append(prompt)
            return encode(prompt, *more, **named)

        monkeypatch.setattr(ours.stack.pipe, "encode_prompt", counted)
        first = ours.paint([canvas(1), canvas(2)], Sampling(1, 1.0))
        n = len(asked)
        assert np.array_equal(ours.paint([canvas(1), canvas(2)], Sampling(1, 1.0)), first)
        assert len([a for a in asked[n:] if a != [""]]) == 0, base


def test_qwen_image_edit_answers_at_the_windows_size(tmp_path, monkeypatch):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as module

    ours = painter(tiny.qwen_edit(tmp_path / "qwen"))
    assert (ours.batch, ours.stack.family) == (1, "qwen-edit")
    # A megapixel, whatever it is given: too much for a test.
    monkeypatch.setattr(module, "calculate_dimensions", lambda *_: (2 * SIZE, 2 * SIZE, None))
    painted = ours.paint([canvas(1)], Sampling(2, 2.0))
    assert painted.shape == (1, SIZE, SIZE, 3)
    assert painted.std() > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheduler": "ddim"}, "leave it at saved"),
        (
            {"control": ("canny",), "controlnet": ("{models}/flux-control",)},
            "FluxControlNetModel is no ControlNet",
        ),
        ({"control": ("depth",)}, "brings no ControlNet for 'depth'"),
    ],
)
def test_what_a_flow_cannot_do_is_one_line(models, options, said):
    options = {
        k: tuple(w.format(models=models) for w in v) if k == "controlnet" else v for k, v in options.items()
    }
    with pytest.raises(ModelError, match=said):
        painter(models / "klein", **options)
