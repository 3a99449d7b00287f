"""A small vocabulary for prompts: byte pairs over the captions, every byte below them."""

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

from transformers import CLIPTokenizer

from rarefill.errors import ModelError
from rarefill.generators.train.shapes import WORDS

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def tokenizer(captions: Iterable[str], *, merges: int = 1000) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges come from these captions; any other text falls back to bytes.

    Args:
        captions: the texts to learn merges from, each as often as it counts.
        merges: at most so many.
    """
    letters = list(_bytes())
    pairs = byte_pairs(Counter(word for caption in captions for word in _split(caption)), merges)
    entries = [
        BEGIN,
        END,
        *letters,
        *(letter + END_OF_WORD for letter in letters),
        *("".join(pair) for pair in pairs),
    ]
    vocabulary = {entry: n for n, entry in enumerate(dict.fromkeys(entries))}
    # Annotated as strings, taken as pairs.
    merged: Any = pairs
    made = CLIPTokenizer(vocab=vocabulary, merges=merged, model_max_length=WORDS)
    if len(made) != len(vocabulary):
        raise ModelError(f"the vocabulary has {len(vocabulary)} entries, its tokenizer {len(made)}")
    return made


def byte_pairs(words: Counter[str], most: int) -> list[tuple[str, str]]:
    """The most frequent neighbours, merged one after another; ties go by the alphabet.

    Source: Sennrich et al. 2016, algorithm 1.
    """
    split = {word: [*word[:-1], word[-1] + END_OF_WORD] for word in words}
    merged: list[tuple[str, str]] = []
    while len(merged) < most:
        counts: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merged.append(best)
        split = {word: _merge(parts, best) for word, parts in split.items()}
    return merged


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    whole: list[str] = []
    for part in parts:
        if whole and (whole[-1], part) == pair:
            whole[-1] += part
        else:
            whole.append(part)
    return whole


def _split(caption: str) -> list[str]:
    return [
        "".join(_bytes()[byte] for byte in word.encode())
        for word in caption.lower().replace(",", " ").split()
    ]


def _bytes() -> list[str]:
    """A printable letter for every byte, as GPT-2's byte-level vocabularies have them, in byte order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]
