"""Whole runs with published checkpoints: bytes, resume, records, and real pixels that stay real."""

import json

import hub_models as tiny_models
import numpy as np
import pytest
import torch
from hub_models import SIZE

from rarefill import bank, dataset, generators, pipeline
from rarefill import recipe as recipes
from rarefill.generators import Job, render
from rarefill.generators.compact import Compact
from rarefill.generators.hub import lora, stack
from rarefill.geometry import Box, box_mask
from rarefill.hub_options import HubConfig
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX, Layout, Placement, changed_pixels

pytestmark = pytest.mark.usefixtures("one_thread", "offline")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    tiny_models.sd15(root / "sd15")
    tiny_models.sdxl(root / "sdxl")
    tiny_models.save_net(tiny_models.controlnet(), root / "canny")
    tiny_models.save_net(tiny_models.union(), root / "union")
    return root


def asked(tiny, models, out, **more):
    options = {
        "data": tiny,
        "out": out,
        "fill": {"square": 20},
        "formats": ("coco",),
        "workers": 1,
        "generator": {"generator": f"hub:{models / 'sd15'}", "steps": 2, "guidance_scale": 2.0},
        "hub": {
            "controlnet": (str(models / "canny"),),
            "control": ("canny",),
            "precision": "float32",
            "describe": {"square": "a {small|large} {word}, {light}"},
        },
        "annotator": {"checker": "none"},
    }
    return recipes.resolve(recipes.merged(options, more))


def pictures_of(out):
    return {p.name: p.read_bytes() for p in sorted((out / "images").iterdir())}


def test_the_same_bytes_with_two_workers_and_after_a_stop(tiny, models, tmp_path, monkeypatch):
    pipeline.run(asked(tiny, models, tmp_path / "one"))
    alone = pictures_of(tmp_path / "one")
    assert len(alone) >= 4
    pipeline.run(asked(tiny, models, tmp_path / "two", workers=2))
    assert pictures_of(tmp_path / "two") == alone
    paint, calls = Compact.paint, []

    def stops(self, windows):
        calls.append(len(windows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return paint(self, windows)

    monkeypatch.setattr(Compact, "paint", stops)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(asked(tiny, models, tmp_path / "stopped"))
    monkeypatch.undo()
    done = pictures_of(tmp_path / "stopped")
    assert 0 < len(done) < len(alone)
    pipeline.run(asked(tiny, models, tmp_path / "stopped"))
    assert pictures_of(tmp_path / "stopped") == alone


def test_a_run_records_each_objects_words_and_the_checkpoint(tiny, models, tmp_path):
    pipeline.run(asked(tiny, models, tmp_path / "run", fill={"square": 6}))
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    instances = [i for line in lines for sample in json.loads(line)["samples"] for i in sample["instances"]]
    how = [i["how"] for i in instances if "how" in i]
    assert {h["generator"] for h in how} == {"hub:sd15"}
    assert all(h["prompt"].startswith(("a small square, ", "a large square, ")) for h in how)
    assert len({h["prompt"] for h in how}) > 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert len(manifest["rarefill"]["model"]) == 64


def test_real_objects_are_varied_in_place_with_their_labels(tiny, models, tmp_path):
    run = asked(tiny, models, tmp_path / "run", fill="none", redraw={"square": 3})
    summary = pipeline.run(run)
    assert summary.tallies[0].made == 3
    lines = (tmp_path / "run" / "records.jsonl").read_text()
    assert '"redraws":' in lines


def generator(data, shapes, models, base, net, tmp_path):
    config = GeneratorConfig(generator=f"hub:{models / base}", steps=2, adapt=False, guidance_scale=2.0)
    hub = HubConfig(controlnet=(str(models / net),), control=("canny",), precision="float32")
    return generators.build(config, data, shapes, seed=0, cache=tmp_path, hub=hub)


@pytest.mark.parametrize(("base", "net"), [("sd15", "canny"), ("sdxl", "union")])
def test_pixels_outside_the_ring_stay_exactly(any_bands, models, tmp_path, base, net):
    data, shapes = any_bands
    paints = generator(data, shapes, models, base, net, tmp_path)
    mask = box_mask(Box(30, 30, 48, 50))
    layout = Layout(0, 0, (Placement("disc", mask, seed=3),))
    (done,) = render(paints, [Job(layout, data.read(0), (0,), None, (0,))], seed=1)
    changed = changed_pixels(done)
    reach = np.zeros_like(changed)
    reach[30 - FEATHER_PX : 50 + FEATHER_PX, 30 - FEATHER_PX : 48 + FEATHER_PX] = True
    assert changed.any()
    assert not (changed & ~reach).any()


# Fits.


def fit(data, models, base, cache, *, steps=16, shapes=None, rare=("square",), **options):
    config = GeneratorConfig(generator=f"hub:{models / base}", minutes=5, adapt_steps=steps)
    hub = HubConfig(precision="float32", fit_rank=4, fit_rate=5e-3, fit_batch=4, **options)
    wanted = stack.find(config.generator, hub)
    shapes = shapes or bank.build(data, rare)
    course = lora.Course(5, steps, batch=4, rate=2e-2, measured=16, warmup=2, decay=0.5)
    folder = lora.fitted(data, shapes, config, hub, wanted, rare=rare, seed=0, cache=cache, course=course)
    return folder, wanted, hub


def looked_at(pipe, prompt):
    """A picture by diffusers alone."""
    from PIL import Image

    gradient = np.linspace(0, 255, SIZE * SIZE * 3).reshape(SIZE, SIZE, 3).astype(np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:24, 8:24] = 255
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=prompt,
        image=Image.fromarray(gradient),
        mask_image=Image.fromarray(mask),
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        guidance_scale=1.0,
        strength=1.0,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images


def learns_and_reloads(data, models, base, cache, **options):
    import diffusers

    folder, wanted, hub = fit(data, models, base, cache, steps=16, **options)
    said = json.loads((folder / "fitted.json").read_text())
    before, after = said["held"]
    assert after < 0.99 * before
    classes = {
        "sd15": diffusers.StableDiffusionInpaintPipeline,
        "sdxl": diffusers.StableDiffusionXLInpaintPipeline,
    }
    pipe = classes[base].from_pretrained(models / base)
    plain = looked_at(pipe, "square")
    pipe.load_lora_weights(folder, weight_name=stack.ADAPTER)
    assert np.abs(looked_at(pipe, "square") - plain).max() > 1 / 255
    return folder, wanted, hub, said


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_a_fit_lowers_its_loss_and_diffusers_alone_reads_it(tmp_path, models, base):
    from conftest import make_tiny

    data = dataset.load(make_tiny(tmp_path / "data", images=20))
    folder, wanted, hub, said = learns_and_reloads(data, models, base, tmp_path / "cache")
    assert said["words"] == {"square": "<rarefill:square> square"}
    again, _, _ = fit(data, models, base, tmp_path / "cache", steps=16)
    assert again == folder  # kept
    from dataclasses import replace

    from rarefill.generators.hub.sources import Found

    adapted = replace(wanted, loras=((Found(folder, "fit"), 1.0),))
    loaded = stack.load(adapted, hub, device="cpu", dtype=torch.float32)
    tokenizer = loaded.pipe.tokenizer
    assert tokenizer.convert_tokens_to_ids("<rarefill:square>") == len(tokenizer) - 1
    assert adapted.digest() != wanted.digest()


def test_a_stopped_fit_goes_on(tiny, models, tmp_path, monkeypatch):
    from rarefill.generators import adapt_loop

    data = dataset.load(tiny)
    whole, _, _ = fit(data, models, "sd15", tmp_path / "whole", steps=6)
    learn, done = adapt_loop._learn, []

    def stops(*given):
        done.append(given[1])
        if len(done) == 4:
            raise KeyboardInterrupt
        return learn(*given)

    monkeypatch.setattr(adapt_loop, "_learn", stops)
    config = GeneratorConfig(generator=f"hub:{models / 'sd15'}", minutes=5, adapt_steps=6)
    hub = HubConfig(precision="float32", fit_rank=4, fit_rate=5e-3)
    wanted = stack.find(config.generator, hub)
    course = lora.Course(5, 6, batch=4, rate=2e-2, measured=16, warmup=2, decay=0.5, save_minutes=0)
    given = {"rare": ("square",), "seed": 0, "cache": tmp_path / "cut", "course": course}
    shapes = bank.build(data, ["square"])
    with pytest.raises(KeyboardInterrupt):
        lora.fitted(data, shapes, config, hub, wanted, **given)
    monkeypatch.undo()
    seen = []
    monkeypatch.setattr(adapt_loop, "_learn", lambda *g: seen.append(g[1]) or learn(*g))
    cut = lora.fitted(data, shapes, config, hub, wanted, **given)
    assert seen == [3, 4, 5]
    assert cut.name == whole.name
    for name in (stack.ADAPTER, stack.TOKENS):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_paints_with_what_it_fitted(tiny, models, tmp_path):
    options = {"generator": {"adapt": True, "adapt_steps": 2}, "hub": {"fit_rank": 2, "fit_batch": 2}}
    run = asked(tiny, models, tmp_path / "run", fill={"square": 3}, cache=tmp_path / "cache", **options)
    pipeline.run(run)
    (folder,) = (tmp_path / "cache").glob("lora-*")
    assert (folder / stack.ADAPTER).is_file()
    text = (tmp_path / "run" / "records.jsonl").read_text()
    assert "<rarefill:square> square" in text


@pytest.mark.shelf
def test_a_fit_on_blood_cells_lowers_its_loss_and_changes_the_picture(shelf, models, tmp_path):
    read = json.loads((shelf / "bccd" / "annotations.json").read_text())
    read["images"] = read["images"][:30]
    kept = {image["id"] for image in read["images"]}
    read["annotations"] = [a for a in read["annotations"] if a["image_id"] in kept]
    (tmp_path / "thirty.json").write_text(json.dumps(read))
    data = dataset.load(tmp_path / "thirty.json", shelf / "bccd" / "images")
    learns_and_reloads(data, models, "sd15", tmp_path / "cache", rare=("Platelets",))
