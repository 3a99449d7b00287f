"""How fast the embedded model paints, and how much of that is the networks themselves.

    python benchmarks/paint.py                    all tables; some minutes on two cores
    python benchmarks/paint.py --table run        only the run from end to end
    python benchmarks/paint.py --table compile    torch.compile, in a process of its own, with a time limit

Without --model the weights that ship are taken, and random ones of the same shape where none do: speed does not depend on
what a network has learned. Every table gives wall time, and the processor time of all threads together. Ratios are
of processor time: that holds on a machine that is busy with other things too, where wall time means little.

    goal: 3 objects a second end to end on two cores, and 0.8 of the bare networks' speed
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rarefill import bank, dataset, demo, engine, generators, pipeline, recipe
from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.denoise import Canvas, Denoiser, Sampling
from rarefill.generators.pipelines import SHIPPED, Pipeline, dtype, load
from rarefill.generators.train import shapes, words
from rarefill.progress import SILENT
from rarefill.recipe import GeneratorConfig

SIZE, BATCH, STEPS = 128, 16, (8, 12, 20)


class Took(NamedTuple):
    """Seconds: of the clock, and of all threads' processors."""

    wall: float
    cpu: float


def timed(work: Callable[[], object], repeats: int) -> Took:
    """The least of some runs, after one that warms up."""
    work()
    found = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return Took(*(min(column) for column in zip(*found, strict=True)))


def random_model(folder: Path) -> Path:
    """A pipeline of the shipped one's shape whose weights are drawn."""
    from diffusers import StableDiffusionControlNetInpaintPipeline

    torch.manual_seed(0)
    tokenizer = words.tokenizer(["red blood cell", "platelet"])
    made = StableDiffusionControlNetInpaintPipeline(
        vae=shapes.autoencoder(),
        unet=shapes.unet(),
        controlnet=shapes.controlnet(),
        text_encoder=shapes.text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        scheduler=shapes.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder)
    return folder


def canvases(denoiser: Denoiser, n: int) -> list[Canvas]:
    rng = np.random.default_rng(0)
    disc = np.hypot(*np.mgrid[:SIZE, :SIZE] - SIZE / 2) < SIZE / 5
    hidden = conditioning.grown(disc, 6)
    out = []
    for _ in range(n):
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        control = conditioning.control_map(pixels, disc, hidden, redraw=False)
        noise = rng.standard_normal(denoiser.noise_shape(SIZE), dtype=np.float32)
        out.append(Canvas(pixels, hidden, control, "platelet", noise))
    return out


@torch.no_grad()
def bare(model: Pipeline, sampling: Sampling, batch: int, *, last: bool = True) -> None:
    """Nothing but the forward passes that a batch needs: UNet and ControlNet, both passes where guidance is on.

    Args:
        model: the parts.
        sampling: how many passes.
        batch: windows.
        last: numbers of one pixel lie together in memory, as they do in the generator.
    """
    weights = next(model.unet.parameters())
    side = SIZE // model.reduction
    width = model.unet.config.cross_attention_dim
    length = model.tokenizer.model_max_length

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=weights.dtype, device=weights.device)

    own, into = model.unet.config.out_channels, model.unet.config.in_channels
    shapes_of = ((own, side, side), (length, width), (into - own, side, side), (3, SIZE, SIZE))
    inputs = [drawn(2 * batch, *shape) for shape in shapes_of]
    if last:
        inputs = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    for step in range(sampling.steps):
        n = batch * (2 if sampling.guided(step / sampling.steps) else 1)
        latents, told, given, control = (x[:n] for x in inputs)
        down, middle = model.controlnet(
            latents, 500, encoder_hidden_states=told, controlnet_cond=control, return_dict=False
        )
        model.unet(
            torch.cat([latents, given], 1),
            500,
            encoder_hidden_states=told,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )


def sampling_of(config: GeneratorConfig, **changed: float) -> Sampling:
    kept = {
        name: getattr(config, name) for name in ("steps", "guidance_scale", "guidance_from", "guidance_to")
    }
    return Sampling(**(kept | changed))


def part_table(folder: Path, repeats: int) -> None:
    """What one window costs in each part of the pipeline, on one thread."""
    print("\n| part | numbers | batch 1, ms a window | batch 16 | 1 : 16 |\n|---|---|---|---|---|")
    for kind in kinds():
        model = load(folder, dtype=kind)
        for name, work in _parts(model).items():
            with engine.one_thread(), torch.no_grad():
                one, many = (timed(lambda n=n, w=work: w(n), repeats).cpu / n for n in (1, BATCH))
            print(
                f"| {name} | {_name(kind)} | {1000 * one:.1f} | {1000 * many:.1f} | {one / many:.2f} |",
                flush=True,
            )


def _parts(model: Pipeline) -> dict[str, Callable[[int], object]]:
    weights = next(model.unet.parameters())
    side, channels = SIZE // model.reduction, model.unet.config.out_channels
    once = Sampling(steps=1, guidance_scale=1.0)

    def blank(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=weights.dtype).contiguous(memory_format=torch.channels_last)

    return {
        "VAE, encode": lambda n: model.vae.encode(blank(n, 3, SIZE, SIZE)),
        "VAE, decode": lambda n: model.vae.decode(blank(n, channels, side, side)),
        "UNet and ControlNet, a step": lambda n: bare(model, once, n),
        "the same, channels first": lambda n: bare(model, once, n, last=False),
    }


def paint_table(folder: Path, config: GeneratorConfig, repeats: int) -> None:
    """`Denoiser.paint` on one thread: batches, steps, numbers and guidance, each against the recipe's own."""
    usual = (dtype("cpu"), sampling_of(config), BATCH)
    cases: dict[str, tuple[torch.dtype, Sampling, int]] = {"the recipe's": usual}
    cases["batch 1"] = (*usual[:2], 1)
    for steps in STEPS:
        if steps != config.steps:
            cases[f"{steps} steps"] = (usual[0], sampling_of(config, steps=steps), BATCH)
    cases["guidance on all steps"] = (usual[0], sampling_of(config, guidance_from=0, guidance_to=1), BATCH)
    cases["no guidance"] = (usual[0], sampling_of(config, guidance_scale=1.0), BATCH)
    for kind in kinds():
        if kind != usual[0]:
            cases[_name(kind)] = (kind, *usual[1:])
    first = None
    print(
        f"\nthe recipe's: {_name(usual[0])}, {config.steps} steps, guidance {config.guidance_scale} from "
        f"{config.guidance_from} to {config.guidance_to}, batches of {BATCH}; one thread\n"
    )
    print("| | ms a window | objects/s | speed | share of the bare networks |\n|---|---|---|---|---|")
    for name, (kind, sampling, batch) in cases.items():
        denoiser = Denoiser(load(folder, dtype=kind))
        painted = canvases(denoiser, batch)
        with engine.one_thread():
            took = timed(lambda d=denoiser, p=painted, s=sampling: d.paint(p, s), repeats)
            alone = timed(lambda d=denoiser, s=sampling, b=batch: bare(d.pipeline, s, b), repeats)
        each = took.cpu / batch
        first = first or each
        print(
            f"| {name} | {1000 * each:.0f} | {batch / took.wall:.2f} | {first / each:.2f} | {alone.cpu / took.cpu:.2f} |",
            flush=True,
        )


def run_table(folder: Path, config: GeneratorConfig, objects: int, workers: int) -> None:
    """A whole run, planning and files included, against the bare networks on as many threads.

    The ratio is of objects that begin with noise alone, since only those take every step; the default's strength takes fewer.
    """
    usual = whole_run(folder, config, objects, workers)
    took = whole_run(folder, config.model_copy(update={"strength": (1.0,)}), objects, workers)
    model, sampling = load(folder, dtype=dtype("cpu")), sampling_of(config)

    def alone() -> None:
        with engine.one_thread(), ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda _: bare(model, sampling, BATCH), range(workers)))

    found = timed(alone, 2)
    most, each = BATCH * workers / found.wall, found.cpu / (BATCH * workers)
    print(f"\n{objects} objects from plan to files on {workers} workers, {config.steps} steps")
    print("| | objects/s by the clock | processor seconds an object |\n|---|---|---|")
    print(f"| end to end, strength {config.strength} | {1 / usual.wall:.2f} (goal 3) | {usual.cpu:.3f} |")
    print(f"| end to end, strength 1 | {1 / took.wall:.2f} | {took.cpu:.3f} |")
    print(f"| bare networks, batches of {BATCH} | {most:.2f} | {each:.3f} |")
    print(
        f"| ratio at strength 1 | {1 / (took.wall * most):.2f} | {each / took.cpu:.2f} (goal 0.8) |",
        flush=True,
    )


def whole_run(folder: Path, config: GeneratorConfig, objects: int, workers: int) -> Took:
    """What one object takes in a run of its own."""
    with tempfile.TemporaryDirectory() as place:
        data = dataset.load(demo.render(Path(place) / "data", images=12))
        shapes_of = bank.build(data, [demo.RARE])
        options = {
            "data": data.path,
            "out": Path(place) / "run",
            "fill": {demo.RARE: objects},
            "layout": {"untouched": 0.0, "max_reuse": objects},
            "annotator": {"checker": "none"},
            "workers": workers,
            "attempts": 1,
            "generator": {**config.model_dump(), "generator": "compact", "model": folder, "adapt": False},
        }
        asked = recipe.resolve(options)
        painter = generators.build(
            asked.generator, data, shapes_of, seed=0, cache=Path(place), progress=SILENT
        )
        wall, cpu = time.perf_counter(), time.process_time()
        summary = pipeline.run(asked, dataset=data, generator=painter)
        took = Took(time.perf_counter() - wall, time.process_time() - cpu)
        made = sum(t.made for t in summary.tallies)
    return Took(took.wall / made, took.cpu / made)


def compile_table(folder: Path, config: GeneratorConfig, limit_s: int) -> None:
    """torch.compile in a process of its own: it may need a compiler that is not here, or very long."""
    command = [sys.executable, __file__, "--table", "compile-child", "--model", str(folder)]
    command += ["--steps", str(config.steps)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:  # its own compiling processes end when they see it gone
        print(f"\ntorch.compile: not ready after {limit_s} s")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"\ntorch.compile: does not work here ({last[:200]})")
        return
    before, after, spent = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\ntorch.compile: {before / after:.2f} times as fast, after {spent:.0f} s of compiling; batches of {BATCH}"
    )


def compile_child(folder: Path) -> None:
    """Print processor seconds of a step before and after, and seconds of compiling."""
    model, once = load(folder, dtype=dtype("cpu")), Sampling(steps=1, guidance_scale=1.0)
    with engine.one_thread():
        before = timed(lambda: bare(model, once, BATCH), 3).cpu
        model.unet.compile()
        model.controlnet.compile()
        began = time.perf_counter()
        bare(model, once, BATCH)
        spent = time.perf_counter() - began
        after = timed(lambda: bare(model, once, BATCH), 3).cpu
    print(json.dumps([before, after, spent]))


def kinds() -> Sequence[torch.dtype]:
    """32 bits, and bfloat16 whether or not the processor is quick at it."""
    return (torch.bfloat16, torch.float32)


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a pipeline's folder; by default the one that ships")
    parser.add_argument(
        "--table", choices=("parts", "paint", "run", "compile", "compile-child", "all"), default="all"
    )
    parser.add_argument("--objects", type=int, default=64, help="of the run from end to end")
    parser.add_argument("--workers", type=int, default=engine.default_workers())
    parser.add_argument("--repeats", type=int, default=2, help="of each measurement; the least counts")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--limit", type=int, default=300, help="seconds for torch.compile")
    given = parser.parse_args()
    config = GeneratorConfig(**({"steps": given.steps} if given.steps else {}))
    with tempfile.TemporaryDirectory() as place:
        folder = given.model or (SHIPPED if (SHIPPED / "model_index.json").exists() else None)
        if given.table != "compile-child":
            print(f"model: {folder or 'random weights of the shape that ships'}")
        folder = folder or random_model(Path(place))
        if given.table == "compile-child":
            compile_child(folder)
        if given.table in {"parts", "all"}:
            part_table(folder, given.repeats)
        if given.table in {"paint", "all"}:
            paint_table(folder, config, given.repeats)
        if given.table in {"run", "all"}:
            run_table(folder, config, given.objects, given.workers)
        if given.table in {"compile", "all"}:
            compile_table(folder, config, given.limit)


if __name__ == "__main__":
    main()
