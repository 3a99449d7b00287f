"""Architectures that can be painted with, known by the classes that a pipeline's folder names."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rarefill.errors import ModelError
from rarefill.presets import Family

PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
CONTROLNETS: Final[Mapping[str, str]] = {
    "ControlNetModel": "sd",
    "ControlNetUnionModel": "sdxl",
    "FluxControlNetModel": "flux",
    "ZImageControlNetModel": "z-image",
}
"""Classes of ControlNets, and whom they serve; SD 1.5 and SDXL share one, told apart by the width of the words."""
_DENOISERS: Final[Mapping[str, Family]] = {
    "ZImageTransformer2DModel": "z-image",
    "Flux2Transformer2DModel": "flux2-klein",
    "FluxTransformer2DModel": "flux",
    "QwenImageTransformer2DModel": "qwen-edit",
}
_NOT_NEEDED: Final = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
_NO_WEIGHTS: Final = ("Tokenizer", "Scheduler", "Processor", "FeatureExtractor")


def index(folder: Path, name: str) -> Mapping[str, Any]:
    """A pipeline folder's table of parts.

    Raises:
        ModelError: there is none.
    """
    try:
        read = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{name}: no model_index.json; expected a pipeline's folder, as save_pretrained of diffusers writes it"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: model_index.json cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise ModelError(f"{name}: model_index.json is no table of parts")
    return read


def family(parts: Mapping[str, Any], name: str) -> Family:
    """Which architecture a pipeline is.

    Raises:
        ModelError: none that can be painted with.
    """
    if named_class(parts, "unet") == "UNet2DConditionModel" and named_class(parts, "text_encoder"):
        return "sdxl" if named_class(parts, "text_encoder_2") else "sd15"
    found = _DENOISERS.get(named_class(parts, "transformer"))
    if found is None:
        came = named_class(parts, "unet") or named_class(parts, "transformer") or "no denoiser"
        raise ModelError(
            f"{name}: {parts.get('_class_name', 'a pipeline')} with {came} cannot be painted with; "
            "expected SD 1.5, SDXL, Z-Image, FLUX.1, FLUX.2 klein or Qwen-Image-Edit"
        )
    return found


def reads_control(folder: Path, family: Family, name: str) -> bool:
    """Whether a FLUX.1 is a Control model, whose transformer reads the ControlNet's picture itself, beside the latents.

    Raises:
        ModelError: it reads something else (Fill), which is not painted with.
    """
    if family != "flux":
        return False
    try:
        read = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        taken = read["in_channels"]
        times = taken / (read.get("out_channels") or taken)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{name}: transformer/config.json cannot be read: {error!r}") from error
    if times not in {1, 2}:
        raise ModelError(
            f"{name}: a transformer that reads {taken} channels, as FLUX.1 Fill does, cannot be painted with; "
            "expected FLUX.1, or FLUX.1 Canny or Depth"
        )
    return bool(times == 2)


def pipeline_class(family: Family, *, control: bool, union: bool, reads: bool = False) -> Any:
    """The class of diffusers that inpaints with it.

    Args:
        family: its architecture.
        control: whether it is shown pictures for ControlNets.
        union: whether one ControlNet serves all kinds of them.
        reads: whether it needs no ControlNet for them.

    Raises:
        ModelError: the installed diffusers has none, or the family takes no ControlNet.
    """
    import diffusers

    names: Mapping[tuple[Family, bool], str] = {
        ("sd15", False): "StableDiffusionInpaintPipeline",
        ("sd15", True): "StableDiffusionControlNetInpaintPipeline",
        ("sdxl", False): "StableDiffusionXLInpaintPipeline",
        ("sdxl", True): "StableDiffusionXLControlNetInpaintPipeline",
        ("z-image", False): "ZImageInpaintPipeline",
        ("z-image", True): "ZImageControlNetInpaintPipeline",
        ("flux", False): "FluxInpaintPipeline",
        ("flux", True): "FluxControlNetInpaintPipeline",
        ("flux2-klein", False): "Flux2KleinInpaintPipeline",
        ("qwen-edit", False): "QwenImageEditInpaintPipeline",
    }
    name = names.get((family, control))
    if name is None:
        raise ModelError(f"{family} takes no ControlNet beside an image and a mask; say --control none")
    if union:
        name = "StableDiffusionXLControlNetUnionInpaintPipeline"
    if reads:
        name = "FluxControlInpaintPipeline"
    found = getattr(diffusers, name, None)
    if found is None:
        raise ModelError(f"diffusers {diffusers.__version__} has no {name}; install a newer diffusers")
    return found


def check_files(folder: Path, parts: Mapping[str, Any], name: str) -> str | None:
    """Refuse pickles and incomplete folders before anything is read.

    Returns:
        The variant of the weights' names ("fp16") where a part has no other; None else.

    Raises:
        ModelError: a part is missing or a pickle.
    """
    variants = set()
    for part, what in parts.items():
        if part.startswith("_") or part in _NOT_NEEDED or not isinstance(what, list) or not what[0]:
            continue
        place = folder / part
        if not place.is_dir():
            raise ModelError(f"{name}: no {part}, which model_index.json names; the folder is incomplete")
        if not any(word in str(what[1]) for word in _NO_WEIGHTS):
            variants.add(weights(place, name))
    return "fp16" if "fp16" in variants else None


def weights(place: Path, name: str) -> str | None:
    """Whether a part's folder holds weights that may be read; the variant of their names where there is no other.

    Raises:
        ModelError: none, or pickles alone.
    """
    files = sorted(path.name for path in place.iterdir() if path.is_file())
    safe = [file for file in files if file.endswith(".safetensors")]
    if not safe:
        pickles = [file for file in files if Path(file).suffix.lower() in PICKLES]
        if pickles:
            raise ModelError(
                f"{name}: {place.name}/{pickles[0]}: pickles are not opened, as they can run anything; "
                "save it with safe_serialization=True, or take a copy with safetensors"
            )
        raise ModelError(f"{name}: {place.name} holds no safetensors; the folder is incomplete")
    return None if any(".fp16" not in file for file in safe) else "fp16"


def control_class(place: Path, name: str, wanted: Family) -> str:
    """The class of a ControlNet's folder.

    Raises:
        ModelError: it is none, or one of another family.
    """
    try:
        read = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name}: no ControlNet: config.json is missing or no JSON; name a ControlNet's folder or OWNER/NAME"
        ) from error
    found = str(read.get("_class_name", "no class"))
    if found == "FluxControlNetModel" and read.get("num_mode") is not None:
        raise ModelError(
            f"{name}: a ControlNet-Union of FLUX.1 cannot be painted with; name one of a single kind"
        )
    serves = CONTROLNETS.get(found)
    if serves is None or serves not in {wanted, "sd" if wanted in {"sd15", "sdxl"} else wanted}:
        raise ModelError(f"{name}: {found} is no ControlNet for {wanted}; name another with --controlnet")
    return found


def denoiser(pipe: Any) -> Any:
    """The network that takes noise away."""
    return getattr(pipe, "unet", None) or pipe.transformer


def networks(pipe: Any) -> Sequence[tuple[str, Any]]:
    """Everything with weights, by its name."""
    import torch

    return [(name, part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)]


def named_class(parts: Mapping[str, Any], part: str) -> str:
    """The class that a pipeline's table names for a part; empty where it has no such part."""
    what = parts.get(part)
    return str(what[1]) if isinstance(what, list) and len(what) > 1 and what[1] else ""
