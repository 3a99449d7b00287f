"""Plain copy-paste, the free baseline: rare objects cut out of the training images and laid down anywhere.

No model, no context, no measuring: what a person writes in an afternoon (Ghiasi et al. 2021, for a rare class). It shares no
code with the stages, so that it cannot get better or worse with them.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.dataset import Dataset
from rarefill.errors import DataError
from rarefill.files import write_bytes
from rarefill.geometry import FloatArray
from rarefill.progress import SILENT, Progress
from rarefill.scene import Pixels
from rarefill.seeds import Stage, rng

FILE = "annotations.json"
MOST_A_PICTURE = 3
_SCALES = (0.6, 1.6)
_MARGIN = 0.08
"""Of a box's sides, cut out around it where there is no mask."""
_LARGEST = 0.9
_HIDDEN = 0.6
"""Share of a box under a pasted one beyond which its label goes."""


@dataclass(frozen=True, slots=True, eq=False)
class Cutting:
    """A rare object.

    Attributes:
        pixels: (h, w, C) around it.
        alpha: float32 (h, w), how much of it shows.
        box: x1 y1 x2 y2 inside `pixels`.
        category: row.
    """

    pixels: Pixels
    alpha: NDArray[np.float32]
    box: FloatArray
    category: int


def make(
    dataset: Dataset,
    rare: list[str],
    n: int,
    folder: Path,
    seed: int,
    progress: Progress = SILENT,
) -> Path:
    """Write n pictures with pasted rare objects, as a COCO folder; the same one that stands there finished is kept.

    Args:
        dataset: the training part; nothing else is read.
        rare: categories to paste.
        n: pictures.
        folder: to write; images/ and annotations.json.
        seed: names the pictures.
        progress: counts them.

    Raises:
        DataError: there is no object to paste.
    """
    path = folder / FILE
    info = {"description": "plain copy-paste", "data": dataset.digest, "rare": rare, "n": n, "seed": seed}
    if _stands(path, info):
        return path
    path.unlink(missing_ok=True)
    draw = rng(seed, Stage.PAINT, 1)
    rows = [int(row) for name in rare for row in dataset.rows_of(name)]
    if not rows:
        raise DataError(f"{dataset.path.name}: no object of {', '.join(rare)} to paste")
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    queue: list[int] = []
    ids = [c.id for c in dataset.categories]
    backgrounds = np.flatnonzero(dataset.usable)
    with progress.bar("plain copy-paste", n, "images") as bar:
        for number in range(1, n + 1):
            image = int(backgrounds[draw.integers(len(backgrounds))])
            canvas = dataset.read(image).copy()
            boxes, labels, crowds = _labels(dataset, image)
            for _ in range(int(draw.integers(1, MOST_A_PICTURE + 1))):
                queue = queue or draw.permutation(rows).tolist()
                laid = _lay(canvas, _cut(dataset, queue.pop()), draw)
                if laid is None:
                    continue
                box, category = laid
                kept = crowds | (_under(boxes, box) <= _HIDDEN)
                boxes = np.vstack([boxes[kept], box])
                labels, crowds = np.append(labels[kept], category), np.append(crowds[kept], False)
            name = f"{number:06}.png"
            write_bytes(folder / "images" / name, pictures.encode(canvas, "png"))
            height, width = canvas.shape[:2]
            entries.append({"id": number, "file_name": name, "width": width, "height": height})
            for (x1, y1, x2, y2), label, crowd in zip(boxes.tolist(), labels, crowds, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": ids[int(label)],
                        "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                        "area": round((x2 - x1) * (y2 - y1), 2),
                        "iscrowd": int(crowd),
                    }
                )
            bar.advance()
    categories = [{"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in dataset.categories]
    document = {"info": info, "images": entries, "annotations": annotations, "categories": categories}
    write_bytes(path, msgspec.json.encode(document))
    return path


def _stands(path: Path, info: dict[str, Any]) -> bool:
    """Whether these pictures were made before."""
    try:
        return bool(msgspec.json.decode(path.read_bytes())["info"] == info)
    except (OSError, msgspec.MsgspecError, KeyError, TypeError):
        return False


def _labels(dataset: Dataset, image: int) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.bool_]]:
    rows = dataset.rows_in(image)
    a = dataset.annotations
    return a.boxes[rows].copy(), a.category[rows].astype(np.int64), a.crowd[rows].copy()


def _cut(dataset: Dataset, row: int) -> Cutting:
    """One object with its surroundings: along its mask, or its box."""
    image = int(dataset.annotations.image[row])
    pixels, box = dataset.read(image), dataset.annotations.boxes[row]
    height, width = pixels.shape[:2]
    margin = np.maximum(2, _MARGIN * (box[2:] - box[:2]))
    x1, y1 = (int(v) for v in np.maximum(0, np.floor(box[:2] - margin)))
    x2, y2 = (int(v) for v in np.minimum((width, height), np.ceil(box[2:] + margin)))
    mask = dataset.mask(row)
    if mask is None:
        alpha = np.zeros((y2 - y1, x2 - x1), dtype=np.float32)
        inner = np.rint(box - np.array([x1, y1, x1, y1])).astype(int)
        alpha[inner[1] : max(inner[3], inner[1] + 1), inner[0] : max(inner[2], inner[0] + 1)] = 1
    else:
        alpha = mask.window(x1, y1, x2 - x1, y2 - y1).astype(np.float32)
    soft = cv2.GaussianBlur(alpha, (0, 0), max(0.8, float(margin.min()) / 2))
    return Cutting(
        pixels[y1:y2, x1:x2],
        np.asarray(soft, dtype=np.float32),
        box - np.array([x1, y1, x1, y1]),
        int(dataset.annotations.category[row]),
    )


def _lay(canvas: Pixels, cutting: Cutting, draw: np.random.Generator) -> tuple[FloatArray, int] | None:
    """Lay a cutting anywhere, at another size and perhaps mirrored; its box on the canvas. None where bands differ."""
    if cutting.pixels.shape[2:] != canvas.shape[2:] or cutting.pixels.dtype != canvas.dtype:
        return None
    h, w = cutting.alpha.shape
    height, width = canvas.shape[:2]
    scale = min(float(draw.uniform(*_SCALES)), _LARGEST * width / w, _LARGEST * height / h)
    size = (max(3, round(w * scale)), max(3, round(h * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    patch = cv2.resize(cutting.pixels, size, interpolation=how).reshape(size[1], size[0], -1)
    alpha = cv2.resize(cutting.alpha, size, interpolation=how)[:, :, None]
    box = cutting.box * np.array([size[0] / w, size[1] / h] * 2)
    if draw.random() < 0.5:
        patch, alpha = patch[:, ::-1], alpha[:, ::-1]
        box = np.array([size[0] - box[2], box[1], size[0] - box[0], box[3]])
    x, y = (int(draw.integers(0, max(1, free + 1))) for free in (width - size[0], height - size[1]))
    under = canvas[y : y + size[1], x : x + size[0]]
    patch, alpha = patch[: under.shape[0], : under.shape[1]], alpha[: under.shape[0], : under.shape[1]]
    mixed = under + (patch.astype(np.float32) - under) * alpha
    under[:] = np.clip(np.rint(mixed), 0, np.iinfo(canvas.dtype).max).astype(canvas.dtype)
    return np.clip(box + np.array([x, y, x, y]), 0, (width, height) * 2), cutting.category


def _under(boxes: FloatArray, box: FloatArray) -> FloatArray:
    """Which share of each box (N, 4) lies under another."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(np.maximum(0, sides).prod(axis=1) / np.maximum(areas, 1e-9))
