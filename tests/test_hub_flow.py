"""Transformer families: loaded from folders, painted in batches through diffusers' own calls."""

import hub_flow_models as tiny
import numpy as np
import pytest
import torch
from hub_models import SIZE
from PIL import Image

from rarefill import generators
from rarefill.errors import ModelError
from rarefill.generators import Job, render
from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.denoise import Canvas, Sampling
from rarefill.generators.hub import build, lora, maps, stack
from rarefill.geometry import Box, box_mask
from rarefill.hub_options import HubConfig
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX, Layout, Placement, changed_pixels

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
    tiny.flux(root / "flux-reads", reads=2)
    tiny.qwen_edit(root / "qwen")
    return root


@pytest.fixture
def _small_pictures(monkeypatch):
    """Qwen-Image-Edit paints a megapixel, whatever it is given: too much for a test."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as module

    monkeypatch.setattr(module, "calculate_dimensions", lambda *_: (SIZE, SIZE, None))


def painter(base, net=None, **options):
    options = {"window_px": SIZE, "precision": "float32"} | options
    if base.name == "flux-reads":
        options |= {"control": ("canny",)}
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
        ("flux-reads", None, "flux"),
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


@pytest.mark.parametrize(("base", "net"), [("z", "z-control"), ("flux-reads", None)])
def test_a_picture_for_the_controlnet_counts(models, base, net):
    ours, one = painter(models / base, net and models / net), canvas(1)
    inverse = Canvas(one.pixels, one.hidden, 255 - one.control, one.prompt, one.noise, one.seed)
    assert not np.array_equal(ours.paint([one], Sampling(2, 1.0)), ours.paint([inverse], Sampling(2, 1.0)))


@pytest.mark.usefixtures("_small_pictures")
@pytest.mark.parametrize(
    ("base", "net", "more"),
    [
        ("klein", None, {"guidance_scale": 1.0, "strength": 0.7}),
        ("z", None, {"guidance_scale": 0.0, "strength": 0.7}),
        ("z", "z-control", {"guidance_scale": 0.0, "controlnet_conditioning_scale": 1.0}),
        ("flux", None, {"guidance_scale": 1.0, "strength": 0.7}),
        (
            "flux",
            "flux-control",
            {"guidance_scale": 1.0, "strength": 0.7, "controlnet_conditioning_scale": 1.0},
        ),
        ("flux-reads", None, {"guidance_scale": 1.0, "strength": 0.7}),
        ("qwen", None, {"true_cfg_scale": 1.0, "strength": 0.7}),
    ],
)
def test_one_window_is_what_diffusers_own_call_paints(models, base, net, more):
    ours, one = painter(models / base, net and models / net), canvas(1)
    if ours.stack.controls:
        more |= {"control_image": Image.fromarray(one.control)}
    if base not in {"klein", "qwen"}:
        more |= {"height": SIZE, "width": SIZE}
    theirs = ours.stack.pipe(
        prompt=one.prompt,
        image=Image.fromarray(one.pixels),
        mask_image=Image.fromarray(one.hidden),
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(one.seed),
        **more,
    ).images[0]
    painted = ours.paint([one], Sampling(3, 1.0), strength=more.get("strength", 1.0))[0]
    assert np.array_equal(painted, np.asarray(theirs))


def test_two_controlnets_of_flux_have_weights_of_their_own(models):
    net = str(models / "flux-control")
    one = canvas(1)
    twice = Canvas(
        one.pixels, one.hidden, np.concatenate([one.control, 255 - one.control], 2), one.prompt, one.noise, 1
    )

    def painted(*scales):
        kinds = {"control": ("canny", "lineart"), "controlnet": (net, net), "control_scale": scales}
        return painter(models / "flux", **kinds).paint([twice], Sampling(2, 1.0))

    assert np.array_equal(painted(0.5), painted(0.5, 0.5))
    assert not np.array_equal(painted(0.5, 0.5), painted(0.5, 0.0))
    with pytest.raises(ModelError, match="3 weights for 2 ControlNets"):
        painted(0.5, 0.5, 0.5)


@pytest.mark.usefixtures("_small_pictures")
@pytest.mark.parametrize("base", ["z", "klein", "flux", "flux-reads", "qwen"])
def test_pixels_outside_the_ring_stay_exactly(models, tiny_bank, tmp_path, base):
    data, shapes = tiny_bank
    config = GeneratorConfig(generator=f"hub:{models / base}", steps=2, adapt=False, guidance_scale=1.0)
    control = ("canny",) if base == "flux-reads" else ()
    hub = HubConfig(control=control, precision="float32", window_px=SIZE)
    paints = generators.build(config, data, shapes, seed=0, cache=tmp_path, hub=hub)
    layout = Layout(0, 0, (Placement("disc", box_mask(Box(30, 30, 48, 50)), seed=3),))
    (done,) = render(paints, [Job(layout, data.read(0), (0,), None, (0,))], seed=1)
    changed = changed_pixels(done)
    assert changed[32:48, 32:46].any()
    changed[30 - FEATHER_PX : 50 + FEATHER_PX, 30 - FEATHER_PX : 48 + FEATHER_PX] = False
    assert not changed.any()


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


def test_qwen_image_edit_answers_at_the_windows_size(models, monkeypatch):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as module

    ours = painter(models / "qwen")
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


def test_a_flux_that_reads_something_else_is_one_line(models, tmp_path):
    fill = tiny.flux(tmp_path / "fill", reads=6)
    for base, options, said in (
        (fill, {}, "as FLUX.1 Fill does, cannot be painted with"),
        (models / "flux-reads", {"control": ()}, "say which with --control"),
        (models / "flux-reads", {"control": ("canny", "depth")}, "takes one picture, and --control names 2"),
        (models / "z", {"control": ("canny", "hed")}, "takes one picture, and --control names 2"),
    ):
        with pytest.raises(ModelError, match=said):
            stack.find(f"hub:{base}", HubConfig(**options))
    with pytest.raises(ModelError, match="Canny and Depth take no lessons"):
        lora._subject(painter(models / "flux-reads").stack, HubConfig())
