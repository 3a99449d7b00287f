"""Models are fetched from a hub by its own client; what a name stood for at first stays what is painted with."""

import json
from pathlib import Path

import fake_hub
import hub_models as tiny
import pytest
from huggingface_hub import constants, hf_api

from rarefill import generators, pipeline
from rarefill import recipe as recipes
from rarefill.errors import ModelError
from rarefill.generators.hub import asked, sources, stack
from rarefill.generators.hub.commits import NAME, Commits
from rarefill.hub_options import HubConfig
from rarefill.presets import PRESETS, Source

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny.sd15(root / "sd15")
    tiny.sd15(root / "pickled")
    unet = root / "pickled" / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_name("diffusion_pytorch_model.bin"))
    tiny.save_net(tiny.controlnet(), root / "canny")
    return root


@pytest.fixture
def hub(models, tmp_path, monkeypatch):
    """A hub with a pipeline and a ControlNet; it is the only one that the client knows."""
    with fake_hub.running() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        hub.add("owner/tiny", models / "sd15", FIRST)
        hub.add("owner/canny", models / "canny", FIRST)
        yield hub


def weights(name="hub:owner/tiny", cache=None, **options):
    return stack.find(name, HubConfig(**options), Commits(cache)).commits()


def said(cache, name="hub:owner/tiny", **options):
    return asked.said(name, HubConfig(**options), Commits(cache))


def test_a_name_stays_what_it_stood_for_at_first(hub, models, tmp_path):
    cache = tmp_path / "cache"
    net = {"control": ("canny",), "controlnet": ("owner/canny",)}
    assert "owner/canny@main is not pinned" in said(cache, **net)[-1]
    assert weights(cache=cache, **net) == (f"owner/tiny@{FIRST}", f"owner/canny@{FIRST}")
    kept = json.loads((cache / NAME).read_text())
    assert kept == {"owner/tiny@main": FIRST, "owner/canny@main": FIRST}
    assert len(said(cache, **net)) == 1  # the licence, and nothing else
    hub.add("owner/canny", models / "canny", SECOND)
    assert weights(cache=cache, **net) == (f"owner/tiny@{FIRST}", f"owner/canny@{FIRST}")
    (line,) = said(cache, **net)[1:]
    assert f"owner/canny@main stands for commit {SECOND} now; this run takes {FIRST}" in line
    net["controlnet"] = (f"owner/canny@{SECOND}",)
    assert weights(cache=cache, **net)[1] == f"owner/canny@{SECOND}"
    assert len(said(cache, **net)) == 1
    assert json.loads((cache / NAME).read_text()) == kept


@pytest.mark.usefixtures("offline")
def test_a_name_that_another_program_moved_is_said_without_a_network(models, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    home, cache = tmp_path / "hub" / "models--owner--tiny", tmp_path / "cache"
    for commit in (FIRST, SECOND):
        (home / "snapshots").mkdir(parents=True, exist_ok=True)
        (home / "snapshots" / commit).symlink_to(models / "sd15")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(FIRST)
    assert weights(cache=cache) == (f"owner/tiny@{FIRST}",)
    (home / "refs" / "main").write_text(SECOND)
    assert weights(cache=cache) == (f"owner/tiny@{FIRST}",)
    assert f"stands for commit {SECOND} now" in said(cache)[1]
    (home / "snapshots" / FIRST).unlink()
    with pytest.raises(ModelError, match=f"owner/tiny@{FIRST}: not in the hub's cache"):
        weights(cache=cache)


def test_a_run_names_its_commits(hub, tiny_once, tmp_path):
    recipe = recipes.resolve(
        {
            "data": tiny_once,
            "out": tmp_path / "run",
            "cache": tmp_path / "cache",
            "fill": {"square": 1},
            "workers": 1,
            "formats": ("coco",),
            "generator": {"generator": "hub:owner/tiny", "steps": 1},
            "annotator": {"checker": "none"},
        }
    )
    pipeline.run(recipe)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["rarefill"]["weights"] == [f"owner/tiny@{FIRST}"]
    assert pipeline.owed(recipe)["weights"] == [f"owner/tiny@{FIRST}"]
    assert "weights" not in generators.owed(
        recipes.Recipe().generator.model_copy(update={"generator": "paste"}), HubConfig(), cache=tmp_path
    )


@pytest.mark.parametrize("text", ["torn", '["a list"]', '{"owner/tiny@main": "no commit"}'])
def test_notes_of_commits_that_cannot_be_read_are_one_line(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ModelError, match=rf"{NAME}: .*mend or delete it"):
        Commits(tmp_path)


def test_what_keeps_the_hub_from_giving_a_model_is_one_line(hub, models, tmp_path, monkeypatch):
    hub.add("owner/gated", models / "sd15", FIRST)
    hub.gated.add("owner/gated")
    hub.add("owner/pickled", models / "pickled", FIRST)
    hub.add("owner/notes", models / "canny", FIRST)
    for name, line in {
        "nobody/nothing": "the hub has no such model, or it is private",
        "owner/tiny@v9": "no such revision",
        "owner/gated": "gated: accept its licence",
        "owner/pickled": "has no safetensors, and pickles are not opened",
        "owner/notes": "no pipeline of diffusers: it has no model_index.json",
    }.items():
        with pytest.raises(ModelError, match=line):
            weights(f"hub:{name}")
    for name, line in {
        "nobody/nothing": "the hub has no such model",
        str(tmp_path / "gone"): "no such folder.*say --%s FOLDER",
    }.items():
        for flag, options in {
            "controlnet": {"control": ("canny",), "controlnet": (name,)},
            "lora": {"lora": name},
            "clip": {"clip": name},
        }.items():
            with pytest.raises(ModelError, match=line.replace("%s", flag)):
                weights(**options)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    assert weights("hub:owner/gated") == (f"owner/gated@{FIRST}",)


def test_what_is_fetched_is_said_with_its_licence():
    hub = HubConfig(control=("depth", "hed"), lora="owner/lora")
    found = asked.everything("sd15-lcm", hub)
    assert [s.id.rpartition("/")[2] for s in found] == [
        "stable-diffusion-inpainting",
        "control_v11f1p_sd15_depth",
        "control_v11p_sd15_softedge",
        "lcm-lora-sdv1-5",
        "lora",
    ]
    assert "HF_TOKEN" in asked.said("flux-controlnet", HubConfig(), Commits())[0]
    z = asked.everything("z-image-turbo", HubConfig())
    assert Source(PRESETS["z-image-turbo"].controls["canny"].config) in z
    assert not asked.everything(f"hub:{Path(__file__).parent}", HubConfig(control=()))


def test_a_single_file_brings_the_settings_that_it_needs(hub, models, tmp_path):
    hub.add("owner/file", models / "canny", FIRST)
    source = Source("owner/file", file="diffusion_pytorch_model.safetensors", config="owner/canny")
    found = sources.part(source, "--controlnet ", Commits(tmp_path))
    assert found.place.name == source.file
    assert (found.config / "config.json").is_file()
    assert json.loads((tmp_path / NAME).read_text()) == {"owner/file@main": FIRST, "owner/canny@main": FIRST}
    with pytest.raises(ModelError, match=r"owner/file: has no other\.safetensors"):
        sources.part(Source("owner/file", file="other.safetensors"), "--controlnet ")
