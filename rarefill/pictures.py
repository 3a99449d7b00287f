"""Image files to arrays and back, without loss.

Arrays are uint8 or uint16 (H, W, C) with C = 1, 3 (RGB) or 4 (RGBA), as decoded; no EXIF rotation is applied, because
labels know nothing of it.
"""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import jpegs
from rarefill.errors import DataError, RecipeError, RunError
from rarefill.scene import Pixels

ImageFormat = Literal["png", "webp", "jpeg"]
SUFFIX: dict[ImageFormat, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
_SETTINGS: dict[ImageFormat, list[int]] = {
    "png": [cv2.IMWRITE_PNG_COMPRESSION, 4],
    "webp": [cv2.IMWRITE_WEBP_QUALITY, 101],  # above 100 means lossless
    "jpeg": [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ],
}


def read(path: Path) -> Pixels:
    """Decode a file to (H, W, C).

    Raises:
        DataError: the file is missing, damaged, not an image, or of a depth other than 8 or 16 bit.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    pixels, complaint = decoded(data) if data.size else (None, "")
    if complaint:
        raise DataError(f"{path}: {jpegs.damage(complaint)}")
    if pixels is None:
        raise DataError(f"{path}: not a readable image ({data.size} bytes); restore it or remove its entry")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: 8 or 16 bit per band are supported, got {pixels.dtype}")
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels[:, :, None])
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2])
    if order is None:
        raise DataError(f"{path}: 1, 3 or 4 bands are supported, got {pixels.shape[2]}")
    return np.ascontiguousarray(pixels[:, :, order])


def decoded(data: NDArray[np.uint8]) -> tuple[Any, str]:
    """What cv2 makes of a file, None where it is no image, and what libjpeg says of one that looks damaged."""
    if jpegs.looks_damaged(data):
        return jpegs.heard(lambda: cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED), ""


def encode(pixels: Pixels, format: ImageFormat) -> bytes:
    """A file's bytes. PNG and WebP keep every value.

    Raises:
        RecipeError: the format cannot hold the array (16 bit in anything but PNG, alpha in JPEG).
    """
    if pixels.dtype == np.uint16 and format != "png":
        raise RecipeError(f"16-bit images need png, got {format}; leave --image-format at png")
    if format == "jpeg" and pixels.shape[2] == 4:
        raise RecipeError("jpeg has no alpha band; leave --image-format at png")
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    if format == "webp" and pixels.shape[2] == 1:
        order = [0, 0, 0]  # WebP has no grey images
    ok, data = cv2.imencode(SUFFIX[format], np.ascontiguousarray(pixels[:, :, order]), _SETTINGS[format])
    if not ok:
        raise RunError(f"cv2 could not encode {pixels.shape} {pixels.dtype} as {format}")
    return data.tobytes()


PERCENTILES = (1.0, 99.7)
"""What of a 16-bit picture becomes black and white for eyes and networks."""


def limits(pixels: Pixels) -> tuple[float, float]:
    """The values that become 0 and 255 in `rgb`: percentiles of a whole 16-bit picture, 0 and 255 for 8 bits."""
    if pixels.dtype != np.uint16:
        return 0.0, 255.0
    low, high = (float(v) for v in np.percentile(pixels[:, :, :3], PERCENTILES))
    return low, max(high, low + 1)


def rgb(pixels: Pixels, between: tuple[float, float] | None = None) -> Pixels:
    """uint8 (H, W, 3) for eyes and networks: one band is repeated, alpha is left out, 16 bit is scaled to its range.

    Args:
        pixels: a whole picture, or a part of one.
        between: `limits` of the whole picture, for a part.
    """
    if pixels.dtype == np.uint16:
        low, high = between or limits(pixels)
        scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
        pixels = np.clip(scaled, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3])


def from_rgb(colours: NDArray[np.float32], bands: int, between: tuple[float, float]) -> NDArray[np.float32]:
    """The way back from `rgb`, in a picture's own units and not yet rounded.

    Args:
        colours: float32 (H, W, 3), 0 to 255.
        bands: 1 or 3: one band is the mean of the three.
        between: the picture's `limits`.
    """
    low, high = between
    own = colours if bands == 3 else colours.mean(axis=2, keepdims=True)
    return np.asarray(own * np.float32((high - low) / 255) + np.float32(low), dtype=np.float32)


GRAIN_OF_NOISE = 6 * 0.6745
"""The median of `grain` where noise has a standard deviation of 1."""
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)


def grain(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What of a picture is noise, in each pixel, float32 (h, w, C) as the picture: its median measures the noise.

    The difference of two Laplacians is blind to planes and edges, a median to what texture is left.
    Source: Immerkaer, Fast Noise Variance Estimation, 1996, with a median for his mean.
    """
    high = cv2.filter2D(pixels, cv2.CV_32F, _LAPLACIANS, borderType=cv2.BORDER_REFLECT)
    return np.asarray(np.abs(high.reshape(pixels.shape)))
