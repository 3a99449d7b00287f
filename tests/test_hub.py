"""Published checkpoints: the table, finding and reading weights, and what goes wrong, a line each."""

import io
import json

import hub_models as tiny
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from test_hub_unet import canvas, painter

from rarefill import models_command, presets
from rarefill import recipe as recipes
from rarefill.errors import ModelError, RecipeError
from rarefill.generators.denoise import Sampling
from rarefill.generators.hub import asked, memory, prompts, sources, stack
from rarefill.generators.hub.commits import Commits
from rarefill.generators.hub.unet import UNetPainter
from rarefill.generators.hub.words import Words
from rarefill.hub_options import HubConfig
from rarefill.models_command import Machine, fits
from rarefill.presets import PRESETS, Source

pytestmark = pytest.mark.usefixtures("one_thread", "offline")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    tiny.sd15(root / "sd15-9")
    tiny.save_net(tiny.controlnet(), root / "canny")
    return root


# The table.


def test_no_preset_without_commercial_use_comes_before_one_with_it():
    allowed = [preset.commercial for preset in PRESETS.values()]
    assert allowed == sorted(allowed, reverse=True)
    assert not PRESETS["flux-controlnet"].commercial
    assert recipes.Recipe().generator.generator == "compact"


def test_a_preset_brings_its_defaults_and_what_is_said_stands_over_them():
    made = recipes.resolve({"generator": {"generator": "sd15-lcm"}})
    assert (made.generator.steps, made.generator.guidance_scale, made.hub.scheduler) == (6, 1.0, "lcm")
    made = recipes.resolve({"generator": {"generator": "sd15-lcm", "steps": 3}, "hub": {"scheduler": "tcd"}})
    assert (made.generator.steps, made.hub.scheduler, made.hub.window_px) == (3, "tcd", 512)
    assert recipes.resolve(yaml.safe_load(recipes.as_yaml(made))) == made


def test_recipes_of_other_generators_say_nothing_of_checkpoints_in_a_runs_identity():
    assert "hub" not in recipes.identity(recipes.Recipe())
    assert "hub" in recipes.identity(recipes.resolve({"generator": {"generator": "sdxl"}}))


def test_an_unknown_generator_is_named_with_what_there_is():
    with pytest.raises(RecipeError, match=r"sdxl-union.*did you mean sdxl-union.*got 'sdxl-onion'"):
        recipes.resolve({"generator": {"generator": "sdxl-onion"}})


@pytest.mark.parametrize(
    ("machine", "name", "how"),
    [
        (Machine("a card", 80, 128, narrow=True), "qwen-image-edit", "yes"),
        (Machine("a card", 24, 64, narrow=True), "z-image-turbo", "with offload"),
        (Machine("a card", 8, 4, narrow=True), "sdxl-union", "no"),
        (Machine("", 0, 16, narrow=True), "sd15-lcm", "on the CPU"),
        (Machine("", 0, 16, narrow=False), "sdxl", "no"),
    ],
)
def test_what_fits_a_machine(machine, name, how):
    assert fits(PRESETS[name], machine) == how


def test_the_table_names_every_preset_with_its_licence():
    read = json.loads(models_command.as_json(Machine.this()))["models"]
    assert {row["name"] for row in read} == set(PRESETS)
    assert all(row["licence"] and row["fits"] and row["base"]["revision"] for row in read)
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(models_command.listed(Machine.this()))
    assert "FLUX.1 [dev] Non-Commercial License" in console.export_text()


@pytest.mark.usefixtures("offline")
def test_the_licence_is_said_before_anything_is_downloaded(tmp_path):
    said = asked.said("flux-controlnet", HubConfig(), Commits(tmp_path))
    assert "NO COMMERCIAL USE" in said[0]
    assert "black-forest-labs/FLUX.1-dev" in said[0]
    assert "InstantX/FLUX.1-dev-controlnet-canny@main is not pinned" in said[1]
    assert len(asked.said("flux2-klein-4b", HubConfig(), Commits(tmp_path))) == 1


# Finding and reading.


def test_a_model_of_the_hubs_cache_is_read_by_its_id_and_revision(tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "a" * 40
    cached = tmp_path / "hub" / "models--owner--tiny"
    tiny.sd15(cached / "snapshots" / commit)
    tiny.save_net(tiny.controlnet(), tmp_path / "hub" / "models--owner--net" / "snapshots" / commit)
    for kept in (cached, cached.with_name("models--owner--net")):
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "v1").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    found = sources.pipeline(sources.parsed("hub:owner/tiny@v1"))
    assert sources.fingerprint(found) == f"owner/tiny@{commit}"
    hub = HubConfig(control=("canny",), controlnet=("owner/net@v1",))
    wanted = stack.find("hub:owner/tiny@v1", hub)
    assert len(stack.load(wanted, hub, device="cpu", dtype=torch.float32).nets) == 1
    with pytest.raises(ModelError, match=r"owner/tiny@v2: not in the hub's cache"):
        stack.find("hub:owner/tiny@v2", HubConfig())


def test_a_pipeline_that_brings_its_controlnet_needs_no_other(tmp_path):
    base = tiny.sd15(tmp_path / "own", net=tiny.controlnet())
    ours = painter(tmp_path, base.name)
    assert ours.stack.controls == ()  # --control () was said
    hub = HubConfig()
    loaded = stack.load(stack.find(f"hub:{base}", hub), hub, device="cpu", dtype=torch.float32)
    assert (loaded.controls, len(loaded.nets)) == (("canny",), 1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.GatedRepoError, "gated: accept its licence"),
        (errors.RepositoryNotFoundError, "the hub has no such model, or it is private"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached"),
        (errors.OfflineModeIsEnabled, "the hub cannot be reached"),
        (ConnectionError, "the hub cannot be reached"),
        (errors.EntryNotFoundError, "no model_index.json"),
        (OSError, "cannot be had from the hub"),
    ],
)
def test_what_the_hub_says_is_one_line(error, said):
    raised = error.__new__(error, "from far away")  # the hub's own want an answer of a server
    line = str(sources.explained(raised, Source("owner/name", "v2")))
    assert line.startswith("owner/name@v2: ")
    assert said in line
    assert "\n" not in line


def test_a_name_that_is_neither_a_folder_nor_an_id(tmp_path):
    with pytest.raises(ModelError, match="no such folder, and no OWNER/NAME"):
        stack.find(f"hub:{tmp_path}/nothing", HubConfig())
    with pytest.raises(ModelError, match=r"owner/none: not in the hub's cache"):
        stack.find("hub:owner/none", HubConfig())


def _pickled(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "pytorch_model.bin")


def _incomplete(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def _no_index(folder):
    (folder / "model_index.json").unlink()


def _other_family(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "PixArtAlphaPipeline", "transformer": ["diffusers", "PixArtTransformer2DModel"]}
    index.pop("unet")
    (folder / "model_index.json").write_text(json.dumps(index))


def _not_numbers(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_out.bias"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_pickled, r"unet/pytorch_model.bin: pickles are not opened"),
        (_incomplete, "vae holds no safetensors"),
        (_no_index, "no model_index.json"),
        (_other_family, "PixArtAlphaPipeline with PixArtTransformer2DModel cannot be painted with"),
        (_not_numbers, "unet holds weights that are no numbers"),
    ],
)
def test_a_spoiled_folder_is_refused_in_a_line(tmp_path, spoil, said):
    folder = tiny.sd15(tmp_path / "spoiled")
    spoil(folder)
    hub = HubConfig()
    with pytest.raises(ModelError, match=said):
        stack.load(stack.find(f"hub:{folder}", hub), hub, device="cpu", dtype=torch.float32)


def test_a_controlnet_that_is_none_missing_or_of_another_family(models, tmp_path):
    tiny.save_net(tiny.controlnet(xl=True), tmp_path / "xl")
    tiny.save_net(tiny.union(), tmp_path / "union")
    base = f"hub:{models / 'sd15-9'}"
    with pytest.raises(ModelError, match=r"brings no ControlNet for 'canny'.*--controlnet"):
        stack.find(base, HubConfig(control=("canny",)))
    with pytest.raises(ModelError, match=r"sd15-9: no ControlNet: config\.json"):
        stack.find(base, HubConfig(control=("canny",), controlnet=(str(models / "sd15-9"),)))
    with pytest.raises(ModelError, match="ControlNetUnionModel is no ControlNet for sd15"):
        stack.find(base, HubConfig(control=("canny",), controlnet=(str(tmp_path / "union"),)))
    hub = HubConfig(control=("canny",), controlnet=(str(tmp_path / "xl"),))
    with pytest.raises(ModelError, match="another family"):
        stack.load(stack.find(base, hub), hub, device="cpu", dtype=torch.float32)
    two = HubConfig(control=("canny", "lineart"), controlnet=(str(models / "canny"),))
    with pytest.raises(ModelError, match="a ControlNet of one kind, and --control names 2"):
        stack.find(base, two)
    with pytest.raises(ModelError, match="names 2 and --control 1"):
        stack.find(base, HubConfig(control=("canny",), controlnet=("a", "b")))


def test_a_picture_that_is_no_number_is_one_line(models):
    ours = painter(models, "sd15-9")
    ours.stack.pipe.vae.decoder.conv_out.bias.data[0] = float("nan")
    with pytest.raises(ModelError, match=r"no number; try --precision"):
        ours.paint([canvas(1)], Sampling(1, 1.0))


# Memory.


def test_what_waits_in_main_memory():
    gb = 2**30
    assert memory.chosen([3 * gb, 2 * gb], 8 * gb) == "none"
    assert memory.chosen([10 * gb, 9 * gb], 14 * gb) == "model"
    assert memory.chosen([10 * gb, 9 * gb], 8 * gb) == "layers"


def test_a_batch_that_does_not_fit_is_halved_and_paints_the_same(models, monkeypatch):
    ours = painter(models, "sd15-9", "canny")
    canvases = [canvas(n) for n in range(5)]
    whole = ours.paint(canvases, Sampling(2, 2.0))
    paint, seen = ours._paint, []

    def small(part, *more):
        seen.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return paint(part, *more)

    monkeypatch.setattr(ours, "_paint", small)
    halved = ours.paint(canvases, Sampling(2, 2.0))
    assert seen == [5, 2, 3, 1, 2]
    assert np.abs(whole.astype(int) - halved).max() <= 1
    seen.clear()
    assert np.array_equal(ours.paint(canvases, Sampling(2, 2.0)), halved)
    assert seen == [2, 1, 2]  # what was too many is not tried again


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_what_says_that_memory_does_not_reach(error):
    assert memory.out_of_memory(error)


def test_one_window_that_does_not_fit_is_tried_in_tiles_and_then_one_line(models, monkeypatch):
    ours = painter(models, "sd15-9")

    def never(part, *more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ours, "_paint", never)
    with pytest.raises(ModelError, match=r"not enough memory.*--offload"):
        ours.paint([canvas(1)], Sampling(1, 1.0))
    assert ours.stack.pipe.vae.use_tiling


def test_an_error_that_is_not_about_memory_is_not_hidden(models, monkeypatch):
    ours = painter(models, "sd15-9")
    monkeypatch.setattr(ours, "_paint", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        ours.paint([canvas(1)], Sampling(1, 1.0))


# Words.


def test_prompts_are_encoded_once_and_kept_on_disk(models, tmp_path):
    first = painter(models, "sd15-9")
    asked = []

    def encode(prompt):
        asked.append(prompt)
        return first._encode_words(prompt)

    kept = Words(encode, key="k", folder=tmp_path)
    (words,) = kept.of(["disc", "square", "disc"])
    assert asked == ["disc", "square"]
    assert torch.equal(words[0], words[2])
    later = Words(encode, key="k", folder=tmp_path)
    assert torch.equal(later.of(["square"])[0][0], words[1])
    assert asked == ["disc", "square"]
    Words(encode, key="other weights", folder=tmp_path).of(["disc"])
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"torn")
    assert torch.equal(Words(encode, key="k", folder=tmp_path).of(["disc"])[0][0], words[0])


def test_descriptions_are_drawn_from_by_seed():
    lists = {"light": ("at dusk", "at noon")}
    drawn = {
        prompts.drawn("a {small|large} star, {light}, {unknown}", lists, np.random.default_rng(n))
        for n in range(60)
    }
    assert drawn == {
        f"a {size} star, {light}, {{unknown}}" for size in ("small", "large") for light in lists["light"]
    }
    assert prompts.drawn("a star{|, wet}", lists, np.random.default_rng(1)) in {"a star", "a star, wet"}


@pytest.mark.parametrize(
    ("text", "said"), [("a {moon}", "no list named 'moon'"), ("a {small|large", "braces must pair")]
)
def test_descriptions_that_cannot_be_drawn_from(text, said):
    with pytest.raises(RecipeError, match=said):
        prompts.Describer(["disc"], {"disc": text}, {}, {})
    with pytest.raises(RecipeError, match="no category named 'disk'"):
        prompts.Describer(["disc"], {"disk": "a disc"}, {}, {})


def test_a_negative_prompt_counts(models):
    plain, other = (painter(models, "sd15-9", negative_prompt=words) for words in ("", "square"))
    assert not np.array_equal(
        plain.paint([canvas(1)], Sampling(2, 3.0)), other.paint([canvas(1)], Sampling(2, 3.0))
    )


# Schedulers and numbers.


@pytest.mark.parametrize("name", ["ddim", "dpm", "euler", "euler-a", "unipc", "lcm", "tcd"])
def test_every_scheduler_paints_and_repeats_itself(models, name):
    ours = painter(models, "sd15-9", scheduler=name)
    painted, again = (ours.paint([canvas(1), canvas(2)], Sampling(4, 1.0), strength=0.6) for _ in range(2))
    assert np.array_equal(painted, again)
    assert painted.std() > 5


def test_sixteen_bits_paint_nearly_the_same(models):
    hub = HubConfig(control=())
    wanted = stack.find(f"hub:{models / 'sd15-9'}", hub)
    wide, narrow = (
        UNetPainter(stack.load(wanted, hub, device="cpu", dtype=d), hub)
        for d in (torch.float32, torch.bfloat16)
    )
    painted = [one.paint([canvas(1)], Sampling(2, 2.0)).astype(int) for one in (wide, narrow)]
    assert 0 < np.abs(painted[0] - painted[1]).mean() < 8


def test_the_recipes_numbers():
    assert stack.precision(HubConfig(precision="float16"), "cpu") == torch.float16
    assert presets.is_hub("hub:a/b")
    assert not presets.is_hub("paste")
