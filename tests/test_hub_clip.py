"""CLIP guidance: pictures grow more like their words, by the measure that guides them."""

import dataclasses

import hub_models as tiny
import numpy as np
import pytest
import torch
import transformers
from test_hub_unet import canvas

from rarefill.errors import ModelError
from rarefill.generators.denoise import Sampling
from rarefill.generators.hub import build, guidance, memory, stack
from rarefill.generators.hub.sources import Found
from rarefill.hub_options import HubConfig

pytestmark = pytest.mark.usefixtures("one_thread", "offline")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    tiny.sd15(root / "sd15")
    tiny.sdxl(root / "sdxl")
    torch.manual_seed(2)
    words = tiny.tokenizer()
    text = {"vocab_size": len(words), "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 1}
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = transformers.CLIPConfig(
        text_config=small | text, vision_config=small | {"image_size": 32, "patch_size": 8}, projection_dim=16
    )
    transformers.CLIPModel(shape).save_pretrained(root / "clip")
    words.save_pretrained(root / "clip")
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(root / "clip")
    return root


def painter(models, base, scale, *, offload="none", **options):
    hub = HubConfig(precision="float32", clip=str(models / "clip"), clip_scale=scale, **options)
    loaded = stack.load(stack.find(f"hub:{models / base}", hub), hub, device="cpu", dtype=torch.float32)
    memory.move(loaded.pipe, offload, "cpu")
    return build.painter(dataclasses.replace(loaded, offload=offload), hub)


@pytest.mark.parametrize(("base", "scheduler"), [("sd15", "saved"), ("sd15", "dpm"), ("sdxl", "euler")])
def test_guided_pictures_are_more_like_their_words(models, base, scheduler):
    judge = guidance.Likeness(Found(models / "clip", "clip"), device="cpu")
    canvases = [canvas(1), canvas(2, prompt="square")]

    def likeness(scale):
        painted = painter(models, base, scale, scheduler=scheduler).paint(canvases, Sampling(6, 1.0))
        seen = torch.from_numpy(painted).movedim(-1, 1) / 127.5 - 1
        return judge.of(seen, [c.prompt for c in canvases]).detach().numpy()

    without, with_it = likeness(0.0), likeness(10.0)
    assert (with_it > without).all()


@pytest.mark.parametrize("offload", ["model", "layers"])
def test_guidance_goes_through_parts_that_wait(models, offload):
    whole, waiting = (
        painter(models, "sdxl", 10.0, offload=how).paint([canvas(1)], Sampling(3, 2.0))
        for how in ("none", offload)
    )
    assert np.array_equal(whole, waiting)


def test_the_gradient_is_that_of_small_differences(models):
    judge = guidance.Likeness(Found(models / "clip", "clip"), device="cpu")
    ours = painter(models, "sd15", 1.0)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.3
    found = judge.gradient(ours._pixels, latents, ["disc"])
    way = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    step = 1e-2
    with torch.no_grad():
        ends = [judge.of(ours._pixels(latents + s * step * way).clamp(-1, 1), ["disc"]) for s in (1, -1)]
    measured = float(ends[0] - ends[1]) / (2 * step)
    assert float((found * way).sum()) == pytest.approx(measured, rel=0.05, abs=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_pull_moves_the_predicted_picture_its_own_way(kind):
    looked, answer, pull = (
        torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(n)) for n in range(3)
    )
    kept = torch.tensor(0.6)
    before = guidance.predicted(looked, answer, kept, kind)
    after = guidance.predicted(looked, guidance.bent(answer, kept, pull, kind), kept, kind)
    assert torch.allclose((after - before) / pull, torch.full_like(pull, 0.4 / 0.6), rtol=1e-4)


def test_a_clip_that_is_none_is_one_line(models):
    with pytest.raises(ModelError, match="no CLIP of transformers"):
        guidance.Likeness(Found(models / "sd15", "sd15"), device="cpu")
    assert np.isfinite(painter(models, "sd15", 1.0).paint([canvas(1)], Sampling(1, 1.0))).all()
