"""Checkpoints in fewer bits, in less time, and read where 16-bit weights are all there is: options that are off by default."""

import importlib.util

import hub_flow_models as flow
import hub_models as tiny
import numpy as np
import pytest
import test_hub_flow as flows
import test_hub_unet as unets
import torch
from hub_models import SIZE
from peft import LoraConfig, get_peft_model_state_dict

from rarefill.errors import ModelError
from rarefill.generators.denoise import Sampling
from rarefill.generators.hub import faster, memory, sources, stack
from rarefill.hub_options import HubConfig
from rarefill.presets import Source

pytestmark = [
    pytest.mark.usefixtures("one_thread", "offline"),
    # diffusers' ControlNet of FLUX.1 uses what diffusers calls deprecated.
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("light")
    tiny.sd15(root / "sd15-9")
    flow.z_image(root / "z")
    flow.klein(root / "klein")
    flow.flux(root / "flux")
    flow.flux_control(root / "flux-control")
    flow.qwen_edit(root / "qwen")
    return root


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    """Qwen-Image-Edit paints a megapixel, whatever it is given: too much for a test."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as module

    monkeypatch.setattr(module, "calculate_dimensions", lambda *_: (SIZE, SIZE, None))


def adapter(transformer, pipe_class, folder):
    """An adapter with random weights, as diffusers writes it."""
    transformer.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    layers = get_peft_model_state_dict(transformer)
    pipe_class.save_lora_weights(folder, transformer_lora_layers=layers)
    return folder


# Fewer bits.


@pytest.mark.parametrize("base", ["sd15-9", "z", "klein"])
def test_layers_of_8_bit_floats_hold_less_and_paint_nearly_the_same(models, base):
    made, one = (unets, unets.canvas(1)) if base == "sd15-9" else (flows, flows.canvas(1))
    where = (models, base) if base == "sd15-9" else (models / base,)
    whole, small = (made.painter(*where, control=(), quantise=bits) for bits in ("none", "float8"))
    networks = [p.stack.pipe.unet if base == "sd15-9" else p.stack.pipe.transformer for p in (whole, small)]
    held = torch.float8_e4m3fn
    assert any(p.dtype == held for p in networks[1].parameters())
    assert memory.n_bytes(networks[1]) < 0.9 * memory.n_bytes(networks[0])
    painted, narrow, again = (p.paint([one], Sampling(2, 1.0)).astype(int) for p in (whole, small, small))
    assert np.array_equal(narrow, again)
    assert 0 < np.abs(painted - narrow).mean() < 12
    assert any(p.dtype == held for p in networks[1].parameters())  # narrow again when it is done


def test_an_adapter_is_melted_in_before_layers_are_narrowed(models, tmp_path):
    plain = flows.painter(models / "klein", control=()).stack.pipe
    folder = adapter(plain.transformer, type(plain), tmp_path / "lora")
    paintings = [
        flows.painter(models / "klein", control=(), quantise="float8", **more).paint(
            [flows.canvas(1)], Sampling(2, 1.0)
        )
        for more in ({}, {"lora": str(folder)})
    ]
    assert not np.array_equal(*paintings)


def test_integers_of_torchao_hold_less_and_an_adapter_lies_beside_them(models, tmp_path):
    pytest.importorskip("torchao")
    plain = flows.painter(models / "klein", control=())
    whole = memory.n_bytes(plain.stack.pipe.transformer)
    folder = adapter(plain.stack.pipe.transformer, type(plain.stack.pipe), tmp_path / "lora")
    small = flows.painter(models / "klein", control=(), quantise="int8")
    painted = small.paint([flows.canvas(1)], Sampling(2, 1.0))
    assert memory.n_bytes(small.stack.pipe.transformer) < 0.5 * whole
    adapted = flows.painter(models / "klein", control=(), quantise="int8", lora=str(folder))
    assert not np.array_equal(painted, adapted.paint([flows.canvas(1)], Sampling(2, 1.0)))


@pytest.mark.parametrize(
    ("bits", "library"), [("int8", "torchao"), ("8bit", "bitsandbytes"), ("4bit", "bitsandbytes")]
)
def test_a_library_that_is_not_there_is_one_line(models, monkeypatch, bits, library):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find(name))
    with pytest.raises(
        ModelError, match=rf"--quantise {bits} needs {library}: pip install 'rarefill\[gpu\]'"
    ):
        flows.painter(models / "klein", control=(), quantise=bits)


def test_bits_that_want_a_gpu_say_so(models, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="4bit needs a GPU; on a processor say float8 or int8"):
        flows.painter(models / "klein", control=(), quantise="4bit")


def test_single_layers_that_are_quantised_do_not_move():
    with pytest.raises(ModelError, match=r"--offload layers does not go with --quantise"):
        memory.place(None, "cpu", "layers", layered=False)


# Less time.


def calls(painter, sampling):
    """A picture, and how often an attention layer was asked."""
    asked = []
    network = painter.stack.pipe.transformer
    last = [m for name, m in network.named_modules() if name.rsplit(".", 1)[-1] in {"attn", "attention"}][-1]
    keep = last.to_q.register_forward_hook(lambda *_: asked.append(1)) if hasattr(last, "to_q") else None
    if keep is None:
        keep = last.to_qkv_mlp_proj.register_forward_hook(lambda *_: asked.append(1))
    try:
        return painter.paint([flows.canvas(1)], sampling)[0].astype(int), len(asked)
    finally:
        keep.remove()


CACHES = [
    ("klein", "taylor"),
    ("flux", "taylor"),
    ("flux", "first-block"),
    ("qwen", "first-block"),
]


@pytest.mark.parametrize(("base", "cache"), CACHES)
def test_a_cache_asks_less_and_repeats_itself(models, monkeypatch, base, cache):
    monkeypatch.setattr(faster, "_LIKE", 10.0)  # networks of random weights change more from step to step
    net = models / "flux-control" if base == "flux" else None
    plain = {} if net else {"control": ()}
    steps = Sampling(8, 1.0)
    painted, n = calls(flows.painter(models / base, net, **plain), steps)
    ours = flows.painter(models / base, net, step_cache=cache, **plain)
    assert ours.batch == 1 or cache == "taylor"
    other, m = calls(ours, steps)
    again, k = calls(ours, steps)
    assert m == k < n
    assert np.array_equal(other, again)
    assert np.abs(other - painted).max() > 0


def test_a_cache_forgets_a_call_that_failed(models, monkeypatch):
    ours, one = flows.painter(models / "klein", control=(), step_cache="taylor"), flows.canvas(1)
    painted = ours.paint([one], Sampling(6, 1.0))
    step = ours.stack.pipe.scheduler.step

    def stops(*given, **named):
        monkeypatch.setattr(ours.stack.pipe.scheduler, "step", step)
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(ours.stack.pipe.scheduler, "step", stops)
    with pytest.raises(RuntimeError, match="shapes differ"):
        ours.paint([flows.canvas(2)], Sampling(6, 1.0))
    assert np.array_equal(ours.paint([one], Sampling(6, 1.0)), painted)


@pytest.mark.parametrize(
    ("base", "cache", "said"),
    [
        ("klein", "first-block", "flux2-klein takes taylor"),
        ("z", "taylor", "z-image takes no cache"),
        ("sd15-9", "taylor", "sd15 takes no cache"),
    ],
)
def test_a_cache_that_a_family_does_not_take_is_one_line(models, base, cache, said):
    with pytest.raises(ModelError, match=said):
        flows.painter(models / base, control=(), step_cache=cache)


@pytest.mark.parametrize("base", ["sd15-9", "z"])
def test_repeated_blocks_are_compiled_where_it_is_said(models, monkeypatch, base):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, *_, **__: compiled.append(type(self).__name__)
    )
    flows.painter(models / base, control=(), compile=True)
    assert set(compiled) == {"BasicTransformerBlock"} if base == "sd15-9" else {"ZImageTransformerBlock"}


# Where 16 bits are all there is.


def test_a_pipeline_with_16_bit_safetensors_alone_is_fetched_so(tmp_path, monkeypatch):
    import diffusers

    asked = []

    def download(id, *, variant=None, **named):
        asked.append(variant)
        if variant is None:
            raise OSError(
                "Could not find the necessary `safetensors` weights in {'vae/a.bin'} (variant=None)"
            )
        return str(tmp_path)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    assert sources.pipeline(Source("owner/name")).place == tmp_path
    assert asked == [None, "fp16"]
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", lambda *_, **__: download("", variant=None))
    with pytest.raises(ModelError, match="has no safetensors, and pickles are not opened"):
        sources.pipeline(Source("owner/name"))


def test_what_is_off_by_default():
    hub = HubConfig()
    assert (hub.quantise, hub.step_cache, hub.compile, hub.fit_optimiser) == ("none", "none", False, "adamw")
    assert stack.ADAPTER.endswith(".safetensors")
