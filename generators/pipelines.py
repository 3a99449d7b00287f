"""Pipeline folders: an inpainting Stable Diffusion with its ControlNet, as diffusers saves it, read and checked.

The model that rarefill ships and any published checkpoint of that shape go the same way.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import StableDiffusionControlNetInpaintPipeline
from diffusers.utils import logging
from transformers.utils import logging as words

from rarefill.errors import MissingError, ModelError

SHIPPED: Final = Path(__file__).parent / "weights" / "compact"
"""The embedded model, as trained before any user's data."""

Network = Any
"""A network of diffusers or transformers: their classes are loaded lazily, and mypy cannot look into them."""

_PARTS: Mapping[str, tuple[str, ...]] = {
    "vae": ("config.json", "diffusion_pytorch_model"),
    "unet": ("config.json", "diffusion_pytorch_model"),
    "controlnet": ("config.json", "diffusion_pytorch_model"),
    "text_encoder": ("config.json", "model"),
    "tokenizer": ("tokenizer_config.json",),
    "scheduler": ("scheduler_config.json",),
}
"""What each part's folder must hold: its settings, and how its weights' files begin."""
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """The parts of a StableDiffusionControlNetInpaintPipeline.

    Attributes:
        vae: AutoencoderKL.
        unet: UNet2DConditionModel whose input is latents, mask and masked latents.
        controlnet: ControlNetModel.
        text_encoder: CLIPTextModel.
        tokenizer: CLIPTokenizer.
        scheduler: any of diffusers' schedulers; painting makes its own copies of it.
    """

    vae: Network
    unet: Network
    controlnet: Network
    text_encoder: Network
    tokenizer: Any
    scheduler: Any

    @property
    def reduction(self) -> int:
        """Pixels to one latent, each way."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def networks(self) -> dict[str, Network]:
        """Everything with weights, by its folder's name."""
        return {
            "vae": self.vae,
            "unet": self.unet,
            "controlnet": self.controlnet,
            "text_encoder": self.text_encoder,
        }


def load(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Pipeline:
    """Read a pipeline's folder from this disk; nothing is downloaded and no pickle is opened.

    Args:
        folder: as `save_pretrained` of StableDiffusionControlNetInpaintPipeline writes it.
        device: where the networks go.
        dtype: of their weights.

    Raises:
        ModelError: a part is missing, is a pickle, does not fit the others, or holds what is no number.
    """
    _check(folder)
    try:
        with quiet():
            read = StableDiffusionControlNetInpaintPipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype, safety_checker=None
            )
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder}: cannot be read as a pipeline ({type(error).__name__}: {said}); save it again with save_pretrained"
        ) from error
    names = ("vae", "unet", "controlnet", "text_encoder", "tokenizer", "scheduler")
    pipeline = Pipeline(*(getattr(read, name) for name in names))
    _fits(folder, pipeline)
    for name, network in pipeline.networks().items():
        if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
            raise ModelError(f"{folder}: {name} holds weights that are no numbers; its training went wrong")
        network.to(device, memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)
    return pipeline


def digest(folder: Path) -> str:
    """SHA-256 of everything in a pipeline's folder but what is for people.

    Raises:
        ModelError: the folder is not there.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder; give the folder of a diffusers pipeline to --model")
    h = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if "/" in name or name == "model_index.json":
            h.update(f"{name}\t{path.stat().st_size}\n".encode())
            h.update(path.read_bytes())
    return h.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' bars, and without their warning that a model of windows has no safety checker."""
    verbosity, bars = logging.get_verbosity(), words.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    words.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
        if bars:
            words.enable_progress_bar()


def _check(folder: Path) -> None:
    """Say what is missing before diffusers does, in a line."""
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder; give the folder of a diffusers pipeline to --model")
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder}: no model_index.json; a folder is expected that save_pretrained of a pipeline wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}/model_index.json: cannot be read: {error}") from error
    for part, needs in _PARTS.items():
        if not index.get(part, [None])[0] or not (folder / part).is_dir():
            raise ModelError(
                f"{folder}: the pipeline has no {part}; expected {', '.join(_PARTS)}, "
                f"as StableDiffusionControlNetInpaintPipeline has them, got {index.get('_class_name', 'no class')}"
            )
        names = [path.name for path in (folder / part).iterdir()]
        for need in needs:
            if any(name.startswith(need) and not _pickle(name) for name in names):
                continue
            pickles = sorted(name for name in names if _pickle(name))
            if pickles:
                raise ModelError(
                    f"{folder / part / pickles[0]}: pickles are not opened, as they can run anything; "
                    "save the pipeline with safe_serialization=True"
                )
            raise ModelError(f"{folder / part}: no {need}; the folder is incomplete, copy it again")


def _pickle(name: str) -> bool:
    return Path(name).suffix in _PICKLES


def _fits(folder: Path, pipeline: Pipeline) -> None:
    latents = pipeline.vae.config.latent_channels
    wanted = {
        ("unet", "in_channels"): 2 * latents + 1,
        ("unet", "out_channels"): latents,
        ("controlnet", "in_channels"): latents,
        ("unet", "cross_attention_dim"): pipeline.text_encoder.config.hidden_size,
        ("controlnet", "cross_attention_dim"): pipeline.text_encoder.config.hidden_size,
    }
    for (part, name), value in wanted.items():
        came = getattr(getattr(pipeline, part).config, name)
        if came != value:
            why = " (latents, mask, masked latents: an inpainting model)" if value == 2 * latents + 1 else ""
            raise ModelError(f"{folder}: {part} must have {name} {value}{why}, got {came}")


def device() -> str:
    """Where a model runs: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype(where: str) -> torch.dtype:
    """The numbers to paint with: bfloat16 where the processor multiplies them faster than 32 bits."""
    if where == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 (an operator of torch, spelt so)
    return torch.bfloat16 if fast else torch.float32
