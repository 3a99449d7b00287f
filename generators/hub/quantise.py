"""A denoiser's weights in fewer bits than it computes with."""

import importlib.util
from typing import Any, Final, Literal

import torch

from rarefill.errors import ModelError
from rarefill.generators.hub import families

Bits = Literal["none", "float8", "int8", "8bit", "4bit"]
_NEEDS: Final = {"int8": "torchao", "8bit": "bitsandbytes", "4bit": "bitsandbytes"}
"""Kinds that another library reads, and stores from the beginning; adapters then lie beside the weights, not in them."""


def by_library(bits: Bits) -> bool:
    """Whether weights are already in fewer bits when they are read."""
    return bits in _NEEDS


def settings(bits: Bits, part: str, dtype: torch.dtype) -> dict[str, Any]:
    """What diffusers' `from_pretrained` is told besides.

    Args:
        bits: as the recipe says.
        part: the pipeline's denoiser: "unet" or "transformer".
        dtype: that it computes with.

    Raises:
        ModelError: the library is not installed, or wants a GPU.
    """
    if bits not in _NEEDS:
        return {}
    if importlib.util.find_spec(_NEEDS[bits]) is None:
        raise ModelError(
            f"--quantise {bits} needs {_NEEDS[bits]}: pip install 'rarefill[gpu]'; float8 needs no library"
        )
    from diffusers import BitsAndBytesConfig, TorchAoConfig
    from diffusers.quantizers.pipe_quant_config import PipelineQuantizationConfig

    if bits == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        config: Any = TorchAoConfig(Int8WeightOnlyConfig())
    elif not torch.cuda.is_available():
        raise ModelError(f"--quantise {bits} needs a GPU; on a processor say float8 or int8")
    elif bits == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:  # normal floats of 4 bits: Dettmers et al. 2023, QLoRA, section 3
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping={part: config})}


def stored(pipe: Any, bits: Bits, dtype: torch.dtype) -> None:
    """Keep a denoiser's layers in 8-bit floats, each widened while it works; norms and embeddings stay as they are."""
    if bits == "float8":
        families.denoiser(pipe).enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype
        )
