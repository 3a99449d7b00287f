"""A model within the machine's memory: where its parts wait, and what happens when a batch does not fit.

The ladder: half of the bytes (16-bit weights), a quarter or less where asked for (`quantise.py`), one window at a time through the
autoencoder, parts that wait in main memory, a smaller batch, the autoencoder in tiles.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch
from accelerate import cpu_offload

from rarefill.errors import ModelError
from rarefill.generators.compact_conditioning import Rgb
from rarefill.generators.hub import families

Item = TypeVar("Item")
_SAID: Final = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN's, on a processor
    "could not create a memory object",
)
_SPARE: Final = 2 * 2**30
"""Bytes of a GPU that are left to what goes through the networks, when it is decided whether all of them fit."""


def place(
    pipe: Any, device: str, offload: Literal["auto", "none", "model", "layers"], *, layered: bool = True
) -> str:
    """Put a pipeline where it works.

    Args:
        pipe: of diffusers, in main memory.
        device: "cpu" or "cuda".
        offload: as the recipe says; on a processor there is nothing to move.
        layered: whether single layers can be moved; quantised ones cannot.

    Returns:
        What was done: "none", "model" or "layers".

    Raises:
        ModelError: the recipe wants quantised layers to move.
    """
    if offload == "layers" and not layered:
        raise ModelError("--offload layers does not go with --quantise; say --offload model")
    if device == "cpu":
        return "none"
    sizes = [n_bytes(network) for _, network in families.networks(pipe)]
    how = offload if offload != "auto" else chosen(sizes, torch.cuda.mem_get_info()[0])
    if how == "layers" and not layered:
        how = "model"
    move(pipe, how, device)
    if hasattr(pipe.vae, "enable_slicing"):
        pipe.vae.enable_slicing()
    return how


def move(pipe: Any, how: str, device: str) -> None:
    """Put a pipeline on a device, or have its parts ("model") or their layers ("layers") come there one at a time."""
    if how == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif how == "layers":
        _by_layers(pipe, torch.device(device))
    else:
        pipe.to(device)


def _by_layers(pipe: Any, device: torch.device) -> None:
    """As diffusers' sequential offload, which cannot do networks that share layers or attention that reads another layer's weights."""
    networks = families.networks(pipe)
    held = [network.state_dict() for _, network in networks]  # of all before any is moved: some share layers
    for (_, network), weights in zip(networks, held, strict=True):
        cpu_offload(
            network,
            device,
            offload_buffers=any(True for _ in network.parameters(recurse=False)),
            state_dict=weights,
            preload_module_classes=[torch.nn.MultiheadAttention.__name__],
        )


def n_bytes(network: Any) -> int:
    """What a network's weights take; quantised ones as they are stored, not as they are computed with."""
    return sum(_stored(weights.data) for weights in network.parameters())


def _stored(values: torch.Tensor) -> int:
    if type(values) is not torch.Tensor and hasattr(values, "__tensor_flatten__"):
        inner, _ = values.__tensor_flatten__()
        return sum(_stored(getattr(values, name)) for name in inner)
    return values.numel() * values.element_size()


def chosen(sizes: Sequence[int], free: int) -> Literal["none", "model", "layers"]:
    """What has to wait in main memory.

    Args:
        sizes: bytes of each part.
        free: bytes of the GPU that nobody has.
    """
    if sum(sizes) + _SPARE <= free:
        return "none"
    return "model" if max(sizes) + _SPARE <= free else "layers"


class Room:
    """How many items went through at once, as far as is known; what was too many is not tried again."""

    def __init__(self) -> None:
        self.most: float = math.inf


def halving(items: Sequence[Item], paint: Callable[[Sequence[Item]], Rgb], vae: Any, room: Room) -> Rgb:
    """Paint items at once, or in ever smaller batches where memory does not reach.

    Each item's noise is its own, so that a smaller batch paints the same picture but for the rounding of kernels.

    Args:
        items: what to paint.
        paint: paints some of them, uint8 (N, S, S, 3).
        vae: goes over to tiles when even one item is too much.
        room: remembers, for the next batch.

    Raises:
        ModelError: one item in tiles is too much.
    """
    if len(items) <= room.most:
        try:
            return paint(items)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if len(items) > 1:
        room.most = min(room.most, len(items) - 1)
        middle = len(items) // 2
        parts = items[:middle], items[middle:]
        return np.concatenate([halving(part, paint, vae, room) for part in parts])
    if _tiled(vae):
        return halving(items, paint, vae, room)
    raise ModelError(
        "not enough memory for one window; say --offload model (or layers, slower), --quantise float8, a smaller "
        "--window-px, or a smaller model of 'rarefill models'"
    )


def _tiled(vae: Any) -> bool:
    """Whether an autoencoder that took pictures whole goes over to tiles now; some kinds cannot."""
    if not hasattr(vae, "enable_tiling") or getattr(vae, "use_tiling", False):
        return False
    try:
        vae.enable_tiling()
    except NotImplementedError:
        return False
    return True


def out_of_memory(error: Exception) -> bool:
    """Whether an error of torch, or of what it computes with, says that memory did not reach."""
    said = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in said for words in _SAID)
