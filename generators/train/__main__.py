"""Train the embedded model from nothing: vae, freeze, diffusion, decoder, upscale, export, in this order. Or take weights up."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rarefill.errors import RarefillError

if TYPE_CHECKING:
    from rarefill.generators.train.rendered import Field

_SMEARS: Final = 20_000
"""Seed of the rendered pictures; the demo that people see has others."""

STAGES = {
    # name: (what it does, length of the cosine in steps, highest learning rate, batch, window)
    "vae": ("stage 1: the autoencoder", 12_000, 2e-4, 8, 64),
    "diffusion": (
        "stage 2: the denoising network, its ControlNet and its text encoder",
        100_000,
        3e-4,
        16,
        128,
    ),
    "decoder": ("stage 3: the autoencoder's decoder alone, under fixed latents", 20_000, 2e-4, 8, 64),
    "upscale": ("stage 4: super-resolution of what is painted", 6_000, 5e-4, 16, 64),
}


def main(words: list[str] | None = None) -> int:
    """Run one stage. Returns the exit code."""
    given = _parser().parse_args(words)
    try:
        print(_run(given))  # noqa: T201
    except RarefillError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rarefill.generators.train", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    for name, (what, steps, rate, batch, window) in STAGES.items():
        stage = stages.add_parser(name, help=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        _shared(stage)
        stage.add_argument("--minutes", type=float, required=True, help="how long this call may train")
        stage.add_argument("--until", type=int, help="stop after so many steps in all")
        stage.add_argument("--steps", type=int, default=steps, help="length of the learning rate's cosine")
        stage.add_argument("--rate", type=float, default=rate, help="highest learning rate")
        stage.add_argument("--batch", type=int, default=batch, help="windows a step")
        stage.add_argument("--window", type=int, default=window, help="side of a window in pixels")
        stage.add_argument("--seed", type=int, default=0)
        stage.add_argument("--sheet-minutes", type=float, default=10.0, help="between two sample sheets")
        if name == "diffusion":
            stage.add_argument(
                "--rendered",
                type=float,
                default=0.05,
                help="share of windows that show blood cells made in code",
            )
            stage.add_argument(
                "--power", type=float, default=1.0, help="above 1: more of little noise, less of much"
            )
    _shared(stages.add_parser("freeze", help="fix the latents of stage 1 for the stages after it"))
    export = stages.add_parser("export", help="write the pipeline's folder as it is shipped")
    _shared(export)
    export.add_argument("--to", type=Path, required=True, help="folder to write")
    taken = stages.add_parser("take-up", help="begin a training folder with a shipped pipeline's weights")
    taken.add_argument("--from", type=Path, required=True, dest="pipeline", help="folder that export wrote")
    taken.add_argument("--out", type=Path, required=True, help="training folder to begin")
    return parser


def _shared(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--pictures", type=Path, required=True, help="folder of pictures, with SOURCES.csv or without"
    )
    stage.add_argument(
        "--out", type=Path, required=True, help="training folder: decoded pictures, checkpoints, logs"
    )
    stage.add_argument("--threads", type=int, default=2, help="of the CPU")


def _run(given: argparse.Namespace) -> str:
    import torch

    from rarefill.generators.train import export, loop, record, stages
    from rarefill.generators.train.shelf import open_shelf

    if given.stage == "take-up":
        step = record.take_up(given.pipeline, given.out)
        return f"{given.out}: goes on after {step} steps"
    torch.set_num_threads(given.threads)
    work = stages.Work(
        given.out,
        open_shelf(given.pictures, given.out),
        "cuda" if torch.cuda.is_available() else "cpu",
        smear,
        getattr(given, "rendered", 0.0),
    )
    if given.stage == "freeze":
        step = export.freeze(work.folder / "vae" / "state.safetensors", work.frozen, work.shelf)
        return f"{work.frozen}: latents fixed after {step} steps"
    if given.stage == "export":
        step = stages.write(work, given.to)
        return f"{given.to}: a pipeline after {step} steps"
    names: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("minutes", "until", "steps", "rate", "batch", "window", "seed")
    }
    settings = loop.Settings(**names, sheet_minutes=given.sheet_minutes, power=getattr(given, "power", 1.0))
    run = {
        "vae": stages.vae,
        "decoder": stages.decoder,
        "diffusion": stages.diffusion,
        "upscale": stages.upscale,
    }
    step = run[given.stage](work, settings)
    return f"{work.folder / given.stage}: {step} steps"


def smear(number: int) -> "Field":
    """One picture that the project renders: a blood smear, each of a slide of its own, and its named cells."""
    from rarefill import demo

    words = {"RBC": "red blood cell", "WBC": "white blood cell", "Platelets": "platelet"}
    pixels, cells = demo.field(number * demo.IMAGES_A_SLIDE, _SMEARS, platelets=1 + number % 3)
    return np.asarray(pixels, np.uint8), [(words[cell.category], mask) for cell, mask in cells]


if __name__ == "__main__":
    raise SystemExit(main())
