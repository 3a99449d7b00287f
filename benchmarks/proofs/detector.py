"""An independent detector: the judge's own, trained on every real image that is not held out."""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from proofs.cases import Desk
from rarefill import geometry
from rarefill.fidelity.distances import Floats

KEPT = 0.9
"""Share of held-out real objects that the threshold keeps,"""
LEAST = 0.05
"""but it does not sink below this score, where a detector finds anything anywhere."""
FITS = 0.5
"""IoU from which a detection is of an object."""
MOST = 300

Rows = list[dict[str, Any]]
"""COCO result rows: image_id, category_id, bbox, score."""


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """The trained network and how it is asked."""

    judge: Any
    model: Any
    classes: list[str]
    settings: argparse.Namespace

    def look(self, root: Path, images: Sequence[dict[str, Any]], rare: str) -> Rows:
        """Detections of one class on pictures of a folder, each given as COCO's image entry."""
        coco = {"images": list(images), "categories": [{"id": 1, "name": rare}]}
        found: Rows = self.judge.detect(self.model, coco, root, self.classes, self.settings, MOST)
        return found


def trained(desk: Desk, *, seed: int = 0) -> Detector:
    """Train with the judge's own code and recipe (repeat-factor sampling), or read what an earlier call kept."""
    judge = desk.module("judge")
    path = desk.split / "real.json"
    coco = json.loads(path.read_text())
    classes = list(judge.category_names(coco).values())
    settings = argparse.Namespace(
        size=desk.case.size, steps=desk.case.steps, batch=8, lr=4e-3, mosaic=0.4, seed=seed, extra_prob=0.0,
        sampler="rfs", rfs_t=None, threads=desk.threads, device="cpu", verbose=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    weights = desk.judge / "weights" / "yolox_nano_coco.safetensors"
    model = desk.module("yolox_nano").YOLOXNano(len(classes), weights)
    model = model.to(memory_format=torch.channels_last)
    what = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {settings.size} {settings.steps} {seed}"
    kept = desk.out / "cache" / f"detector-{hashlib.sha256(what.encode()).hexdigest()[:16]}.safetensors"
    if kept.exists():
        model.load_state_dict(load_file(str(kept)))
        return Detector(judge, model.eval(), classes, settings)
    began = time.monotonic()
    judge.train(model, judge.Images(path, desk.pictures, classes, 2 * settings.size), None, settings)
    kept.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, str(kept), {"seconds": str(round(time.monotonic() - began))})
    return Detector(judge, model.eval(), classes, settings)


def matched(rows: Rows, images: NDArray[np.int64], boxes: Floats) -> tuple[Floats, Floats]:
    """The best score among detections that fit each object, and that detection's box.

    Args:
        rows: detections of the class.
        images: int64 (N,), `image_id` of each object's picture.
        boxes: float64 (N, 4), its label.

    Returns:
        Scores, float64 (N,), 0 where nothing fits; boxes, float64 (N, 4), nan there.
    """
    by_image: dict[int, list[list[float]]] = {}
    for row in rows:
        x, y, w, h = row["bbox"]
        by_image.setdefault(row["image_id"], []).append([x, y, x + w, y + h, row["score"]])
    scores, found = np.zeros(len(images)), np.full((len(images), 4), np.nan)
    for i, (image, box) in enumerate(zip(images.tolist(), boxes, strict=True)):
        near = np.array(by_image.get(image, []), dtype=np.float64).reshape(-1, 5)
        near = near[geometry.ious(near[:, :4], box[None])[:, 0] >= FITS] if len(near) else near
        if len(near):
            best = near[near[:, 4].argmax()]
            scores[i], found[i] = best[4], best[:4]
    return scores, found


def threshold(real: Floats) -> float:
    """The score that keeps 90 % of held-out real objects."""
    return max(LEAST, float(np.quantile(real, 1 - KEPT)))


def overlaps(a: Floats, b: Floats) -> Floats:
    """IoU of matching rows, float64 (N,); nan where a box is."""
    top, end = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.maximum(end - top, 0).prod(axis=1)
    return np.asarray(shared / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared))
