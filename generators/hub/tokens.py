"""Words that were learned with an adapter: new rows of the text encoders' tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rarefill.errors import ModelError


def encoders(pipe: Any) -> Iterator[tuple[str, Any, Any]]:
    """A UNet pipeline's text encoders: name, tokenizer, network."""
    for suffix in ("", "_2"):
        tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
        network = getattr(pipe, f"text_encoder{suffix}", None)
        if tokenizer is not None and network is not None:
            yield f"text_encoder{suffix}", tokenizer, network


def add(pipe: Any, words: Mapping[str, str]) -> None:
    """Give each word a row of its own, beginning as the mean of what it stands for.

    Args:
        pipe: with CLIP text encoders.
        words: a new word, and the words that it begins as.
    """
    for _, tokenizer, network in encoders(pipe):
        begins = {
            word: tokenizer(like or word, add_special_tokens=False).input_ids for word, like in words.items()
        }
        tokenizer.add_tokens(list(words))
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        table = network.get_input_embeddings().weight
        with torch.no_grad():
            for word, ids in begins.items():
                table[tokenizer.convert_tokens_to_ids(word)] = table[ids].mean(0)


def save(pipe: Any, words: list[str], file: Path) -> None:
    """Write the words' rows."""
    rows: dict[str, Tensor] = {}
    for name, tokenizer, network in encoders(pipe):
        table = network.get_input_embeddings().weight.detach()
        for word in words:
            rows[f"{name}/{word}"] = table[tokenizer.convert_tokens_to_ids(word)].float().cpu().clone()
    save_file(rows, file)


def teach(pipe: Any, file: Path) -> None:
    """Give a pipeline the words of a file.

    Raises:
        ModelError: they were learned with text encoders of another width.
    """
    rows = load_file(file)
    words = sorted({name.partition("/")[2] for name in rows})
    add(pipe, dict.fromkeys(words, ""))
    for name, tokenizer, network in encoders(pipe):
        table = network.get_input_embeddings().weight
        for word in words:
            row = rows.get(f"{name}/{word}")
            if row is None or len(row) != table.shape[1]:
                raise ModelError(f"{file}: was learned with another model's {name}; fit the adapter again")
            with torch.no_grad():
                table[tokenizer.convert_tokens_to_ids(word)] = row.to(table.dtype)
