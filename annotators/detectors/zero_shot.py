"""Detectors that are asked in words: whatever `AutoModelForZeroShotObjectDetection` reads (Grounding DINO, OWLv2, ...).

Each category's name is its prompt; `map` gives other words, several for one category where that helps.
"""

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from rarefill.annotators.detectors import LEAST_SCORE, Detections, batches, folders, names
from rarefill.annotators.detectors.closed_set import device, whole
from rarefill.errors import ModelError
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels

_SETTINGS = (
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.txt", "vocab.json"),
)
_STOPS = ".?"
"""What parts the phrases of a grounding model's text, and therefore no phrase may hold."""


class Asked:
    """A model that takes one prompt for each category and gives the prompt's number with each box (OWL-ViT, OWLv2, OmDet)."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        prompts: list[str],
        rows: NDArray[np.int64],
        *,
        batch: int,
        where: str,
    ) -> None:
        self._model, self._processor, self._prompts, self._rows = model, processor, prompts, rows
        self._batch, self._where = batch, where

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image."""
        return batches.each(images, self._batch, self._look)

    def _look(self, images: list[Pixels]) -> list[Detections]:
        size, asked = images[0].shape[:2], [self._prompts] * len(images)
        with torch.inference_mode():
            inputs = self._processor(images=images, text=asked, return_tensors="pt").to(self._model.device)
            outputs = self._model(**inputs)
            for name in ("logits", "pred_boxes", "decoder_class_logits", "decoder_coord_logits"):
                if name in outputs:
                    whole(outputs[name], self._where)
            found = self._processor.post_process_grounded_object_detection(
                outputs, threshold=LEAST_SCORE, target_sizes=[size] * len(images)
            )
        return batches.answered(found, self._rows, size=(size[0], size[1]), where=self._where)


class Grounded:
    """A model that reads all prompts as one text and scores every word of it (Grounding DINO, MM-Grounding-DINO).

    The processor's own way back gives each box the words above a second threshold, which may be those of two categories
    or half of one. Here a category's score is that of its best word, so that the best category has the processor's score,
    and every other category keeps the one that it would be judged by.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        prompts: list[str],
        rows: NDArray[np.int64],
        *,
        batch: int,
        where: str,
    ) -> None:
        self._model, self._processor, self._rows = model, processor, rows
        self._batch, self._where = batch, where
        self._prompts = prompts
        self._words = self._phrases()

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image."""
        return batches.each(images, self._batch, self._look)

    def _look(self, images: list[Pixels]) -> list[Detections]:
        height, width = images[0].shape[:2]
        with torch.inference_mode():
            inputs = self._processor(images=images, text=[self._prompts] * len(images), return_tensors="pt")
            outputs = self._model(**inputs.to(self._model.device))
            whole(outputs.logits, self._where)
            whole(outputs.pred_boxes, self._where)
            words = outputs.logits.float().sigmoid().cpu().numpy().astype(np.float64)  # (B, queries, words)
            centred = outputs.pred_boxes.float().cpu().numpy().astype(np.float64)
        scores = np.stack([words[:, :, place].max(axis=2) for place in self._words], axis=2)
        half = centred[..., 2:] / 2
        boxes = np.concatenate([centred[..., :2] - half, centred[..., :2] + half], axis=2)
        boxes *= np.array([width, height, width, height])
        return [
            batches.detections(
                boxes[n].repeat(len(self._rows), axis=0),
                np.tile(self._rows, len(boxes[n])),
                scores[n].reshape(-1),
                size=(height, width),
                where=self._where,
            )
            for n in range(len(images))
        ]

    def _phrases(self) -> list[NDArray[np.intp]]:
        """The places in the text of each prompt's words.

        Raises:
            ModelError: the text is longer than the model reads.
        """
        tokens = self._processor.tokenizer
        ids = np.array(tokens(". ".join(self._prompts) + ".")["input_ids"])
        most = self._model.config.max_text_len
        if len(ids) > most:
            raise ModelError(
                f"{self._where}: reads {most} words at most, and the categories' names have {len(ids)}; "
                "take a detector with classes of its own, or a dataset with fewer categories"
            )
        stops = np.isin(ids, [*tokens.all_special_ids, *tokens.convert_tokens_to_ids(list(_STOPS))])
        after = np.flatnonzero(stops)
        found = [np.arange(a + 1, b) for a, b in pairwise(after) if b > a + 1]
        if len(found) != len(self._prompts):
            raise ModelError(
                f"{self._where}: its tokenizer finds {len(found)} phrases in {len(self._prompts)} names; "
                "say plain words with --map 'WORDS=NAME'"
            )
        return found


def load(config: CheckerConfig, ours: Sequence[str]) -> tuple[Asked | Grounded, frozenset[int]]:
    """The recipe's detector, asked for every category of the dataset.

    Raises:
        ModelError: it cannot be read, or a prompt is for no category of the dataset.
    """
    where = str(config.detector)
    names.check(config.map, ours, where)
    folder = folders.find(where)
    folders.check(folder, _SETTINGS)
    model, processor = folders.load(
        folder, "a zero-shot detector of transformers", AutoModelForZeroShotObjectDetection, AutoProcessor
    )
    reads = getattr(processor, "post_process_grounded_object_detection", None)
    if reads is None:
        raise ModelError(
            f"{folder}: {type(processor).__name__} does not say how boxes are read from the model's outputs"
        )
    prompts, rows = asked(ours, config)
    model = model.to(device()).eval().requires_grad_(False)
    kind = Grounded if "text_threshold" in inspect.signature(reads).parameters else Asked
    made = kind(model, processor, prompts, rows, batch=config.detector_batch, where=where)
    return made, frozenset(range(len(ours)))


def asked(ours: Sequence[str], config: CheckerConfig) -> tuple[list[str], NDArray[np.int64]]:
    """The prompts, and the category row of each: the words of `map`, or the category's name where it has none."""
    row = {name: n for n, name in enumerate(ours)}
    pairs = [(words, row[own]) for words, own in config.map.items()]
    pairs += [(name, n) for name, n in row.items() if n not in {held for _, held in pairs}]
    plain = str.maketrans(dict.fromkeys(_STOPS + "_", " "))
    prompts = [" ".join(words.translate(plain).split()).lower() for words, _ in pairs]
    return prompts, np.array([held for _, held in pairs], dtype=np.int64)
