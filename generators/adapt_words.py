"""A word of its own for each category: a token that the model learns from the category's objects."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AddedToken

from rarefill.generators.pipelines import Network


def token(category: str) -> str:
    """The word that stands for a category in prompts: its letters, and a few digits where some of it had to go."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", category).strip("-")
    if plain != category:
        plain = f"{plain}-{hashlib.sha256(category.encode()).hexdigest()[:6]}".lstrip("-")
    return f"<rarefill:{plain}>"


@torch.no_grad()
def add(tokenizer: Any, text_encoder: Network, names: Sequence[str]) -> None:
    """Add the categories' words, in place; each means at first what its name's own parts mean on average.

    Words that a model adapted before knows already keep what they mean.

    Args:
        tokenizer: CLIPTokenizer.
        text_encoder: CLIPTextModel; its table of embeddings grows.
        names: of categories.
    """
    known = len(tokenizer)
    parts = {name: tokenizer(name, add_special_tokens=False).input_ids for name in names}
    # As they are: the tokenizer would look for them in lower case.
    tokenizer.add_tokens([AddedToken(token(name), normalized=False) for name in names])
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = text_encoder.get_input_embeddings().weight
    for name, ids in parts.items():
        row = tokenizer.convert_tokens_to_ids(token(name))
        if row >= known:
            table[row] = table[ids].mean(0) if ids else table[:known].mean(0)
