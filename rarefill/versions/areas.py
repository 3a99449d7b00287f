"""What of an image is repainted, and what stays."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import RecipeError
from rarefill.version_options import VersionsConfig

Bits = NDArray[np.bool_]
"""bool (H, W)."""


def images_of(dataset: Dataset, config: VersionsConfig) -> list[int]:
    """Rows of the images that there can be versions of: all, or those with an object to repaint.

    Images that lost an annotation are left aside as long as there are others.

    Raises:
        DataError: a category is named that the data has not.
        RecipeError: nothing is left, or categories are named where none is asked for.
    """
    for name in config.only:
        dataset.category_row(name)
    if config.area != "objects":
        if config.only:
            raise RecipeError("recipe: versions.only names objects to repaint; say --area objects, too")
        return [int(image) for image in np.flatnonzero(dataset.usable)]
    chosen = _chosen(dataset, config)
    held = np.isin(dataset.annotations.category, [dataset.category_row(name) for name in chosen])
    held &= ~dataset.annotations.crowd & dataset.usable[dataset.annotations.image]
    found = np.unique(dataset.annotations.image[held]).tolist()
    if not found:
        raise RecipeError(f"recipe: versions.only: no image holds an object of {', '.join(chosen)}")
    return [int(image) for image in found]


def _chosen(dataset: Dataset, config: VersionsConfig) -> tuple[str, ...]:
    return config.only or dataset.names


def kept_of(dataset: Dataset, image: int, config: VersionsConfig) -> Bits | None:
    """bool (H, W): what of an image stays as it is; None where nothing has to."""
    rows = [int(row) for row in dataset.rows_in(image)]
    match config.area:
        case "image":
            return None
        case "background":
            return objects(dataset, image, rows, config.keep_px)
        case "objects":
            chosen = _chosen(dataset, config)
            painted = [
                row
                for row in rows
                if dataset.names[int(dataset.annotations.category[row])] in chosen
                and not dataset.annotations.crowd[row]
            ]
            others = [row for row in rows if row not in painted]
            return ~objects(dataset, image, painted, config.keep_px) | objects(dataset, image, others, 0)


def objects(dataset: Dataset, image: int, rows: Sequence[int], margin_px: int) -> Bits:
    """bool (H, W): objects, each with a margin: its outline where the file has one, else its box."""
    height, width = int(dataset.images.height[image]), int(dataset.images.width[image])
    out = np.zeros((height, width), bool)
    for row in rows:
        mask = dataset.mask(row)
        if mask is not None:
            out |= _grown(mask.full(height, width), margin_px)
            continue
        x1, y1, x2, y2 = dataset.box(row).xyxy
        left, top = max(0, math.floor(x1) - margin_px), max(0, math.floor(y1) - margin_px)
        out[top : math.ceil(y2) + margin_px, left : math.ceil(x2) + margin_px] = True
    return out


def _grown(mask: Bits, margin_px: int) -> Bits:
    import cv2

    if margin_px == 0:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc).astype(bool))
