"""Published checkpoints of the UNet family: our loop against diffusers' own call, class by class."""

import sys

import hub_models as tiny
import numpy as np
import pytest
import torch
from hub_models import SIZE
from PIL import Image

from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.denoise import Canvas, Sampling
from rarefill.generators.hub import build, maps, stack
from rarefill.hub_options import HubConfig

pytestmark = pytest.mark.usefixtures("one_thread", "offline")

GREY_LEVELS = 1
"""How far our pictures and diffusers' may lie apart, of 255: sums are taken in another order."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of every kind, made once."""
    root = tmp_path_factory.mktemp("hub")
    for channels in (4, 9):
        tiny.sd15(root / f"sd15-{channels}", channels=channels)
        tiny.sdxl(root / f"sdxl-{channels}", channels=channels)
    tiny.save_net(tiny.controlnet(), root / "canny")
    tiny.save_net(tiny.controlnet(seed=8), root / "line")
    tiny.save_net(tiny.controlnet(xl=True), root / "xl-canny")
    tiny.save_net(tiny.union(), root / "union")
    return root


def painter(models, base, *nets, **options):
    """The loop, loaded as a run loads it."""
    hub = HubConfig(
        controlnet=tuple(str(models / net) for net in nets),
        precision="float32",
        **{"control": ("canny", "lineart")[: len(nets)]} | options,
    )
    wanted = stack.find(f"hub:{models / base}", hub)
    loaded = stack.load(wanted, hub, device="cpu", dtype=torch.float32)
    return build.painter(loaded, hub)


def canvas(seed, *, prompt="disc", kinds=("canny",)):
    rng = np.random.default_rng([5, seed])
    y, x = np.mgrid[:SIZE, :SIZE]
    pixels = rng.uniform(0, 200, 3) + x[..., None] + rng.normal(0, 9, (SIZE, SIZE, 3))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    mask = (x - 14) ** 2 + (y - 17) ** 2 < (6 + seed) ** 2
    hidden = conditioning.grown(mask, 2)
    control = maps.drawers(kinds, None)(pixels, mask, hidden, redraw=False)
    noise = rng.standard_normal((4, SIZE // tiny.REDUCTION, SIZE // tiny.REDUCTION), dtype=np.float32)
    return Canvas(pixels, hidden, control, prompt, noise, seed)


def by_diffusers(painter, one, sampling, *, strength=1.0, **more):
    """The pipeline's own call for one window, from the same noise."""
    pipe = painter.stack.pipe
    k = len(painter.stack.controls)
    control = [Image.fromarray(one.control[:, :, 3 * n : 3 * n + 3]) for n in range(k)]
    if k:
        listed = len(painter.stack.nets) > 1 or painter.stack.union
        more["control_image"] = control if listed else control[0]
    if painter.stack.union:
        more["control_mode"] = list(painter.stack.modes)
    if strength == 1:
        more["latents"] = torch.from_numpy(one.noise[None].copy())
    painted = pipe(
        prompt=one.prompt,
        image=Image.fromarray(one.pixels),
        mask_image=Image.fromarray(one.hidden),
        height=SIZE,
        width=SIZE,
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        strength=strength,
        generator=torch.Generator().manual_seed(one.seed),
        output_type="np",
        **more,
    ).images
    return np.rint(painted * 255).astype(np.int64)[0]


CASES = [
    ("sd15-9", ()),
    ("sd15-4", ()),
    ("sd15-9", ("canny",)),
    ("sd15-4", ("canny",)),
    ("sd15-9", ("canny", "line")),
    ("sdxl-9", ()),
    ("sdxl-4", ()),
    ("sdxl-4", ("xl-canny",)),
    ("sdxl-9", ("xl-canny",)),
    ("sdxl-4", ("union",)),
]


@pytest.mark.parametrize(("base", "nets"), CASES)
def test_the_loop_paints_what_diffusers_own_call_paints(models, base, nets):
    ours = painter(models, base, *nets, control_scale=(0.7,))
    kinds = ours.stack.controls
    canvases = [canvas(1, kinds=kinds), canvas(2, prompt="a small red disc", kinds=kinds)]
    for sampling in (Sampling(3, guidance_scale=3.0), Sampling(2, guidance_scale=1.0)):
        painted = ours.paint(canvases, sampling).astype(np.int64)
        more = {"controlnet_conditioning_scale": [0.7, 0.7] if len(nets) > 1 else 0.7} if nets else {}
        for one, got in zip(canvases, painted, strict=True):
            theirs = by_diffusers(ours, one, sampling, **more)
            assert np.abs(got - theirs).max() <= GREY_LEVELS
        assert painted.std() > 5


def test_two_pictures_of_a_union_agree_with_diffusers(models):
    ours = painter(models, "sdxl-4", "union", control=("canny", "depth"), control_scale=(0.9, 0.4))
    one = canvas(1)
    two = Canvas(
        one.pixels, one.hidden, np.concatenate([one.control, 255 - one.control], 2), "disc", one.noise, 1
    )
    theirs = by_diffusers(ours, two, Sampling(3, 3.0), controlnet_conditioning_scale=[0.9, 0.4])
    assert ours.stack.modes == (3, 1)
    assert np.abs(ours.paint([two], Sampling(3, 3.0))[0].astype(np.int64) - theirs).max() <= GREY_LEVELS


@pytest.mark.parametrize(("base", "nets"), [("sd15-4", ()), ("sd15-9", ("canny",)), ("sdxl-4", ("union",))])
def test_the_loop_agrees_with_diffusers_below_full_strength(models, monkeypatch, base, nets):
    ours = painter(models, base, *nets)
    one, sampling = canvas(1), Sampling(4, 2.0)
    module = sys.modules[type(ours.stack.pipe).__module__]
    noise = torch.from_numpy(one.noise[None].copy())
    painted = ours.paint([one], sampling, strength=0.5)[0].astype(np.int64)
    monkeypatch.setattr(
        module, "randn_tensor", lambda *_, **__: noise
    )  # the call has no other way to be given it
    more = {"controlnet_conditioning_scale": 1.0} if nets else {}
    theirs = by_diffusers(ours, one, sampling, strength=0.5, **more)
    assert np.abs(painted - theirs).max() <= GREY_LEVELS
    assert np.abs(painted - ours.paint([one], sampling)[0]).max() > GREY_LEVELS


def test_a_batch_paints_each_window_as_if_it_were_alone(models):
    ours = painter(models, "sd15-9", "canny")
    canvases = [canvas(1), canvas(2, prompt="square"), canvas(3, prompt="cell nucleus")]
    together = ours.paint(canvases, Sampling(3, 3.0)).astype(np.int64)
    for one, got in zip(canvases, together, strict=True):
        assert np.abs(ours.paint([one], Sampling(3, 3.0))[0].astype(np.int64) - got).max() <= GREY_LEVELS
