"""A fit of a published architecture to a dataset: its loss on images held back, and whether diffusers alone reads what came of it.

The checkpoint is a reduced Stable Diffusion 1.5 of random weights, saved as hubs keep it: what is shown is that lessons teach, not how
good pictures get.

    python benchmarks/hub_fit.py data/annotations.json --rare Platelets --steps 80
"""

import argparse
import json
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from hub import REDUCED, parts
from PIL import Image

from rarefill import bank, console, dataset
from rarefill.generators.hub import lora, stack
from rarefill.hub_options import HubConfig
from rarefill.recipe import GeneratorConfig


def checkpoint(folder: Path) -> Path:
    """Without a ControlNet, as those learn nothing."""
    made = parts(REDUCED, xl=False)
    made.pop("controlnet")
    diffusers.StableDiffusionInpaintPipeline(**made).save_pretrained(folder)
    return folder


def picture(pipe: diffusers.StableDiffusionInpaintPipeline, prompt: str, px: int) -> np.ndarray:
    """By diffusers alone, uint8 (S, S, 3)."""
    ramp = np.linspace(0, 255, px * px * 3).reshape(px, px, 3).astype(np.uint8)
    mask = np.zeros((px, px), np.uint8)
    mask[px // 4 : -px // 4, px // 4 : -px // 4] = 255
    pipe.set_progress_bar_config(disable=True)
    found = pipe(
        prompt=prompt,
        image=Image.fromarray(ramp),
        mask_image=Image.fromarray(mask),
        height=px,
        width=px,
        num_inference_steps=8,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    return np.asarray(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--rare", required=True)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--px", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = dataset.load(options.data)
    with tempfile.TemporaryDirectory() as folder:
        base = checkpoint(Path(folder) / "checkpoint")
        config = GeneratorConfig(generator=f"hub:{base}", minutes=options.minutes, adapt_steps=options.steps)
        hub = HubConfig(precision="float32", window_px=options.px, fit_rate=2e-3)
        home = lora.fitted(
            data,
            bank.build(data, [options.rare], cache=Path(folder)),
            config,
            hub,
            stack.find(config.generator, hub),
            rare=[options.rare],
            seed=0,
            cache=Path(folder),
            progress=console.on_stderr(),
        )
        said = json.loads((home / "fitted.json").read_text())
        pipe = diffusers.StableDiffusionInpaintPipeline.from_pretrained(base)
        plain = picture(pipe, options.rare, options.px)
        pipe.load_lora_weights(home, weight_name=stack.ADAPTER)
        fitted = picture(pipe, options.rare, options.px)
    print(json.dumps(said, indent=1))
    moved = np.abs(plain.astype(int) - fitted)
    print(
        f"the picture by diffusers alone moved by {moved.mean():.1f} grey levels of 255, at most {moved.max()}"
    )


if __name__ == "__main__":
    main()
