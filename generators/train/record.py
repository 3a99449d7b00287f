"""How a pipeline came about: `training.json` beside its weights, and the way back into a training folder."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rarefill.errors import ModelError
from rarefill.generators import pipelines, upscale
from rarefill.generators.pipelines import Network
from rarefill.generators.train import checkpoint
from rarefill.generators.train.critic import Critic
from rarefill.generators.train.diffusion import Parts
from rarefill.generators.train.shelf import Shelf
from rarefill.generators.train.upscale import module

STATE: Final = "state.safetensors"
RECORD: Final = "training.json"
"""In a pipeline's folder what export wrote; in a training folder what was known when its weights were taken up."""
_TOLD: Final = ("rate", "warmup", "steps", "decay", "batch", "window", "power", "seed")


def write(to: Path, folder: Path, shelf: Shelf) -> None:
    """Write a pipeline's record: what its stages did, those of earlier sessions included.

    Args:
        to: the pipeline's folder.
        folder: the training folder.
        shelf: the pictures.
    """
    stages: dict[str, dict[str, Any]] = read(folder)["stages"] if (folder / RECORD).exists() else {}
    for state in sorted(folder.glob(f"*/{STATE}")):
        stages[state.parent.name] = {**stages.get(state.parent.name, {}), **_stage(state.parent)}
    pictures = {"trained": len(shelf.train), "held": len(shelf.held)}
    text = json.dumps({"format": 1, "pictures": pictures, "stages": stages}, indent=1)
    (to / RECORD).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The record in a folder.

    Raises:
        ModelError: there is none, or it is no record.
    """
    try:
        told: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if not isinstance(told["stages"], dict):
            raise TypeError("no stages")
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: no {RECORD}; only a folder that export wrote can be taken up") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / RECORD}: not a record of training ({error}); export the folder again"
        ) from error
    return told


def take_up(pipeline: Path, folder: Path) -> int:
    """Begin a training folder with a shipped pipeline's weights, so that its stages go on from them.

    The optimizer's moments are not shipped: the rate climbs again from nothing.

    Args:
        pipeline: the folder that `export` wrote; the upscaler beside it is taken up, too.
        folder: the training folder; it must not have begun another training.

    Returns:
        The steps of stage 2 that the weights have behind them.

    Raises:
        ModelError: the pipeline cannot be read, or the folder holds another training.
    """
    told = read(pipeline)
    for name in ("autoencoder", "tokenizer", "diffusion", "decoder", "upscale", RECORD):
        if (folder / name).exists():
            raise ModelError(f"{folder / name}: a training stands here already; choose another folder")
    held = pipelines.load(pipeline)
    parts = Parts(held.unet, held.controlnet, held.text_encoder)
    folder.mkdir(parents=True, exist_ok=True)
    held.vae.save_pretrained(folder / "autoencoder")
    held.tokenizer.save_pretrained(folder / "tokenizer")
    shutil.copy(pipeline / RECORD, folder / RECORD)
    if "decoder" in told["stages"]:
        _begin(folder / "decoder", held.vae, told["stages"]["decoder"])
    upscaler = pipeline.parent / "upscaler"
    if "upscale" in told["stages"] and upscaler.is_dir():
        _begin(folder / "upscale", module(upscale.read(upscaler), Critic()), told["stages"]["upscale"])
    return _begin(folder / "diffusion", parts.module(), told["stages"].get("diffusion", {}))


def _begin(folder: Path, module: Network, told: Mapping[str, Any]) -> int:
    step = int(told.get("steps", 0))
    folder.mkdir(exist_ok=True)
    said = {"since": str(step), "settings": json.dumps(told.get("settings") or {})}
    if told.get("windows") is not None:
        said["windows"] = str(told["windows"])
    averages = checkpoint.Averages(module, 0.0)
    checkpoint.save(folder / STATE, step, module, averages, None, notes=said)
    return step


def _stage(folder: Path) -> dict[str, Any]:
    """What one stage's checkpoint and log say; what they do not say is left out."""
    said = checkpoint.notes(folder / STATE)
    settings = json.loads(said.get("settings", "{}"))
    told: dict[str, Any] = {
        "steps": int(said["step"]),
        "windows": int(said["windows"]) if "windows" in said else None,
        "settings": {name: settings[name] for name in _TOLD if name in settings} or None,
        **_measured(folder / "log.jsonl"),
    }
    return {name: value for name, value in told.items() if value is not None}


def _measured(log: Path) -> dict[str, float]:
    """The last figures that were measured on what was held back."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):  # a kill may have torn it
            held = {name: value for name, value in json.loads(line).items() if name.startswith("held_")}
            if held:
                return held
    return {}
