"""Prompts as the networks read them: each one is encoded once, alone, and kept on disk for later runs."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

Encode = Callable[[str], tuple[Tensor, ...]]
"""One prompt as tensors of one row each."""
_VERSION: Final = 1


class Words:
    """Encoded prompts. Safe in several threads: two may encode the same prompt, and get the same."""

    def __init__(self, encode: Encode, *, key: str, folder: Path | None) -> None:
        """Keep prompts.

        Args:
            encode: the text encoders; only asked for prompts that are not kept.
            key: names the text encoders' weights and numbers.
            folder: where they are kept on disk; None keeps them in memory alone.
        """
        self._encode, self._key, self._folder = encode, key, folder
        self._kept: dict[str, tuple[Tensor, ...]] = {}

    def of(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Prompts, stacked: one tensor of (N, ...) for each that the text encoders give."""
        found = [self.one(prompt) for prompt in prompts]
        return tuple(torch.cat(rows) for rows in zip(*found, strict=True))

    def one(self, prompt: str) -> tuple[Tensor, ...]:
        """One prompt."""
        kept = self._kept.get(prompt)
        if kept is None:
            kept = self._read(prompt)
            if kept is None:
                kept = tuple(tensor.detach() for tensor in self._encode(prompt))
                self._write(prompt, kept)
            self._kept[prompt] = kept
        return kept

    def _file(self, prompt: str) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(f"{_VERSION}\0{self._key}\0{prompt}".encode()).hexdigest()[:32]
        return self._folder / f"{name}.safetensors"

    def _read(self, prompt: str) -> tuple[Tensor, ...] | None:
        file = self._file(prompt)
        if file is None or not file.exists():
            return None
        try:
            read = load_file(file)
        except (OSError, SafetensorError):
            return None  # torn by a kill: it is encoded again
        return tuple(read[str(n)] for n in range(len(read)))

    def _write(self, prompt: str, tensors: Sequence[Tensor]) -> None:
        file = self._file(prompt)
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f"{file.stem}.{os.getpid()}.part")
        save_file({str(n): tensor.contiguous().cpu() for n, tensor in enumerate(tensors)}, aside)
        aside.replace(file)
