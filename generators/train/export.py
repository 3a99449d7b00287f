"""From checkpoints to folders that `from_pretrained` reads."""

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, StableDiffusionControlNetInpaintPipeline
from transformers import CLIPTokenizer

from rarefill.errors import ModelError
from rarefill.generators import pipelines
from rarefill.generators.pipelines import Network
from rarefill.generators.train import checkpoint, shapes, vae
from rarefill.generators.train.diffusion import Parts
from rarefill.generators.train.shelf import Shelf

LARGEST_FILE: Final = 16 * 2**20
LARGEST_FOLDER: Final = 64 * 2**20


def freeze(state: Path, folder: Path, shelf: Shelf, *, windows_seen: int = 512) -> int:
    """Fix the latents: write stage 1's averaged weights, normalised, as an autoencoder's folder.

    Args:
        state: stage 1's checkpoint.
        folder: written; stage 2 is bound to it from now on.
        shelf: whose pictures the latents' statistics are taken from.
        windows_seen: so many.

    Returns:
        The number of steps that it was trained for.
    """
    if folder.exists():
        raise ModelError(
            f"{folder}: the latents are fixed already; move the folder away to train stage 2 anew"
        )
    model = shapes.autoencoder()
    step = checkpoint.load_averages(state, model)
    vae.normalise(model, vae.some(shelf, windows_seen, 10_000))
    aside = folder.with_suffix(".part")
    model.save_pretrained(aside)
    aside.rename(folder)
    return step


def autoencoder(folder: Path) -> Network:
    """The autoencoder that `freeze` wrote, in float32.

    Raises:
        ModelError: the folder is not there.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no autoencoder; run the stages vae and freeze first")
    return AutoencoderKL.from_pretrained(folder).eval()


def write_pipeline(
    folder: Path,
    parts: Parts,
    model: Network,
    tokenizer: CLIPTokenizer,
    *,
    dtype: torch.dtype = torch.float16,
) -> None:
    """An ordinary folder of `StableDiffusionControlNetInpaintPipeline`, in files small enough to be shipped.

    Raises:
        ModelError: a file or the folder is larger than what may be shipped.
    """
    pipeline: Any = StableDiffusionControlNetInpaintPipeline(
        vae=model,
        text_encoder=parts.text_encoder,
        tokenizer=tokenizer,
        unet=parts.unet,
        controlnet=parts.controlnet,
        scheduler=shapes.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with pipelines.quiet():
        pipeline.to(dtype).save_pretrained(folder, max_shard_size="15MB")
    small_enough(folder)


def small_enough(*folders: Path) -> None:
    """Check what is shipped together.

    Raises:
        ModelError: a file or all of them are larger than what may be shipped.
    """
    sizes = {path: path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    if sizes[largest] > LARGEST_FILE or sum(sizes.values()) > LARGEST_FOLDER:
        raise ModelError(
            f"{largest} has {sizes[largest]} bytes and all files {sum(sizes.values())}; "
            f"at most {LARGEST_FILE} and {LARGEST_FOLDER} may be shipped"
        )
