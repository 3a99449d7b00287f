"""Every preset by its name, from a hub's cache that holds tiny random models under the real ids."""

import dataclasses
import shutil

import diffusers
import hub_flow_models as flow
import hub_models as tiny
import numpy as np
import pytest
import torch
from hub_models import SIZE
from peft import LoraConfig, get_peft_model_state_dict
from test_hub_flow import canvas

from rarefill import recipe as recipes
from rarefill.errors import ModelError
from rarefill.generators.denoise import Canvas, Sampling
from rarefill.generators.hub import build, families, maps, memory, sources, stack
from rarefill.presets import PRESETS, UNPINNED, Source

pytestmark = [
    pytest.mark.usefixtures("one_thread", "offline"),
    # diffusers' ControlNet of FLUX.1 uses what diffusers calls deprecated.
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning"),
]

COMMIT = "c" * 40
FAMILIES = {
    "sd15": tiny.sd15,
    "z-image": flow.z_image,
    "flux": flow.flux,
    "flux2-klein": flow.klein,
    "qwen-edit": flow.qwen_edit,
}


def place(cache, source):
    """Where the hub keeps a model, at the revision that a preset names."""
    commit = COMMIT if source.revision == UNPINNED else source.revision
    home = cache / f"models--{source.id.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    return home / "snapshots" / commit


def lora(folder):
    """An adapter of SD 1.5 with random weights, as diffusers writes it."""
    unet = tiny.unet(channels=9)
    unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    layers = get_peft_model_state_dict(unet)
    diffusers.StableDiffusionInpaintPipeline.save_lora_weights(folder, unet_lora_layers=layers)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    flow.z_control(root / "z")
    for preset in PRESETS.values():
        base = place(root, preset.base)
        if preset.family == "sdxl":
            tiny.sdxl(base, channels=4 if preset.name == "sdxl-union" else 9)
        elif not base.exists():
            FAMILIES[preset.family](base)
        for source in preset.controls.values():
            folder = place(root, source)
            if source.file:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / "z" / "diffusion_pytorch_model.safetensors", folder / source.file)
                config = place(root, Source(source.config))
                config.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / "z" / "config.json", config)
            elif source.mode is not None:
                tiny.save_net(tiny.union(), folder)
            elif preset.family == "flux":
                flow.flux_control(folder)
            else:
                tiny.save_net(tiny.controlnet(xl=preset.family == "sdxl"), folder)
        if preset.lora is not None:
            lora(place(root, preset.lora))
    return root


@pytest.fixture
def hub(cache, monkeypatch):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as qwen
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(qwen, "calculate_dimensions", lambda *_: (2 * SIZE, 2 * SIZE, None))


def asked(name):
    return recipes.resolve(
        {"generator": {"generator": name}, "hub": {"window_px": SIZE, "precision": "float32"}}
    )


def painted(made, loaded, key=""):
    """One window, as a run of this recipe paints it."""
    painter = build.painter(loaded, made.hub, key=key)
    one = canvas(1)
    noise = np.random.default_rng(1).standard_normal(painter.noise_shape(SIZE), dtype=np.float32)
    control = maps.drawers(loaded.controls, None)(one.pixels, one.hidden, one.hidden, redraw=False)
    one = Canvas(one.pixels, one.hidden, control, one.prompt, noise, one.seed)
    sampling = Sampling(2, made.generator.guidance_scale)
    return painter.paint([one], sampling, strength=made.generator.strength[0])


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_loaded_and_paints(name):
    made = asked(name)
    wanted = stack.find(name, made.hub)
    assert wanted.controls == tuple(PRESETS[name].controls)[:1]
    assert len(wanted.loras) == (PRESETS[name].lora is not None)
    loaded = stack.load(wanted, made.hub, device="cpu", dtype=torch.float32)
    assert loaded.family == PRESETS[name].family
    picture = painted(made, loaded, wanted.digest())
    assert picture.shape == (1, SIZE, SIZE, 3)
    assert picture.std() > 1


def waiting(made, name, how):
    """A preset whose parts come to the device one at a time; here from main memory to main memory."""
    loaded = stack.load(stack.find(name, made.hub), made.hub, device="cpu", dtype=torch.float32)
    memory.move(loaded.pipe, how, "cpu")
    return dataclasses.replace(loaded, offload=how)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", PRESETS)
def test_layers_that_wait_come_when_they_are_needed(name):
    made = asked(name)
    whole = painted(made, stack.load(stack.find(name, made.hub), made.hub, device="cpu", dtype=torch.float32))
    loaded = waiting(made, name, "layers")
    networks = [network for _, network in families.networks(loaded.pipe)]

    def away():  # without values: what is computed with such weights fails
        return all(p.device.type == "meta" for network in networks for p in network.parameters())

    assert away()
    assert np.array_equal(painted(made, loaded), whole)
    assert away()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", PRESETS)
def test_parts_that_wait_are_asked_by_the_door(name, monkeypatch):
    """A part that is called past its hook would still lie in main memory; here such a call fails."""
    from accelerate import hooks

    made = asked(name)
    whole = painted(made, stack.load(stack.find(name, made.hub), made.hub, device="cpu", dtype=torch.float32))
    here, came = set(), []

    def come(hook, module, *given, **named):
        if hook.prev_module_hook is not None:
            hook.prev_module_hook.offload()
        here.add(module)
        came.append(module)
        return given, named

    monkeypatch.setattr(hooks.CpuOffload, "init_hook", lambda _, module: here.discard(module) or module)
    monkeypatch.setattr(hooks.CpuOffload, "pre_forward", come)
    monkeypatch.setattr(hooks.UserCpuOffloadHook, "offload", lambda hook: here.discard(hook.model))
    loaded = waiting(made, name, "model")
    networks = [network for _, network in families.networks(loaded.pipe)]
    owner = {layer: network for network in networks for layer in network.modules() if layer is not network}

    def check(layer, _):
        assert owner.get(layer) in here or layer not in owner, f"{type(owner[layer]).__name__} was not called"

    with torch.nn.modules.module.register_module_forward_pre_hook(check):
        assert np.array_equal(painted(made, loaded), whole)
    assert set(came) == set(networks)
    assert not here


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", PRESETS)
def test_an_adapter_of_the_users_is_read(tmp_path, name):
    made = asked(name)
    plain = stack.load(stack.find(name, made.hub), made.hub, device="cpu", dtype=torch.float32).pipe
    denoiser = families.denoiser(plain)
    before = {k: v.clone() for k, v in denoiser.state_dict().items()}
    denoiser.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    layers = get_peft_model_state_dict(denoiser)
    part = "unet" if hasattr(plain, "unet") else "transformer"
    type(plain).save_lora_weights(tmp_path / "lora", **{f"{part}_lora_layers": layers})
    hub = made.hub.model_copy(update={"lora": str(tmp_path / "lora")})
    after = families.denoiser(
        stack.load(stack.find(name, hub), hub, device="cpu", dtype=torch.float32).pipe
    ).state_dict()
    changed = [k for k, v in after.items() if not torch.equal(v, before[k])]
    assert changed
    assert all("to_q" in k or "to_v" in k for k in changed)


@pytest.mark.usefixtures("hub")
def test_an_adapter_of_another_model_is_one_line(cache, tmp_path):
    made = asked("sdxl")
    found = sources.part(PRESETS["sd15-lcm"].lora, "--lora ")
    hub = made.hub.model_copy(update={"lora": str(found.place)})
    with pytest.raises(ModelError, match="an adapter of another model"):
        stack.load(stack.find("sdxl", hub), hub, device="cpu", dtype=torch.float32)


def test_a_preset_names_the_kinds_of_picture_that_it_has(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    made = recipes.resolve({"generator": {"generator": "sdxl"}, "hub": {"control": "canny,hed"}})
    with pytest.raises(ModelError, match=r"sdxl has no ControlNet for 'hed' \(it has: canny, depth, zoe\)"):
        stack.find("sdxl", made.hub)
