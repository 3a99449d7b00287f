"""Words that were learned with an adapter: new rows of the text encoders' tables."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AddedToken

from rarefill.errors import ModelError


def encoders(pipe: Any) -> Iterator[tuple[str, Any, Any]]:
    """A pipeline's text encoders: name, tokenizer, network. One that reads pictures, too, brings its tokenizer in its processor."""
    for suffix in ("", "_2"):
        tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
        if not suffix and getattr(pipe, "processor", None) is not None:
            tokenizer = pipe.processor.tokenizer
        network = getattr(pipe, f"text_encoder{suffix}", None)
        if tokenizer is not None and network is not None:
            yield f"text_encoder{suffix}", tokenizer, network


@torch.no_grad()
def add(pipe: Any, words: Mapping[str, str]) -> None:
    """Give each word a row of its own, beginning as the mean of what it stands for.

    Args:
        pipe: its text encoders may be CLIP, T5 or language models.
        words: a new word, and the words that it begins as; one that is known stays as it is.
    """
    for _, tokenizer, network in encoders(pipe):
        known = len(tokenizer)
        begins = {
            word: tokenizer(like or word, add_special_tokens=False).input_ids for word, like in words.items()
        }
        # As they are: the tokenizer would look for them in lower case.
        tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
        if (
            len(tokenizer) > network.get_input_embeddings().num_embeddings
        ):  # language models have rows to spare
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        table = network.get_input_embeddings().weight
        for word, ids in begins.items():
            row = tokenizer.convert_tokens_to_ids(word)
            if row >= known:
                table[row] = table[ids].mean(0) if ids else table[:known].mean(0)


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


def learning(pipe: Any, words: list[str]) -> dict[str, nn.Parameter]:
    """The words' rows as parameters that stand in for the table's own, and nothing else of the table.

    Returns:
        By name of the text encoder, a slash, and the word.
    """
    rows: dict[str, nn.Parameter] = {}
    for name, tokenizer, network in encoders(pipe):
        table = network.get_input_embeddings()
        ids = {word: tokenizer.convert_tokens_to_ids(word) for word in words}
        mine = {word: nn.Parameter(table.weight[row].detach().float().clone()) for word, row in ids.items()}
        rows |= {f"{name}/{word}": value for word, value in mine.items()}
        table.register_forward_hook(_instead(ids, mine))
    return rows


@torch.no_grad()
def settle(pipe: Any, rows: Mapping[str, nn.Parameter]) -> None:
    """Write rows that were learned into the tables."""
    for name, tokenizer, network in encoders(pipe):
        table = network.get_input_embeddings().weight
        for key, value in rows.items():
            if key.startswith(f"{name}/"):
                table[tokenizer.convert_tokens_to_ids(key.partition("/")[2])] = value.to(table.dtype)


def _instead(ids: Mapping[str, int], rows: Mapping[str, nn.Parameter]) -> Callable[..., Tensor]:
    def hook(_: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        for word, row in ids.items():
            out = torch.where((given[0] == row)[..., None], rows[word].to(out.dtype), out)
        return out

    return hook
