"""What a ControlNet is shown of a layout. Each kind of ControlNet was trained on a picture of its own.

`layout` is the shipped model's. The others are what published ControlNets expect: the scene as controlnet-aux sees it, the
painted area wiped clean, and the silhouette drawn into it in the same manner.
"""

import os
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import cv2
import numpy as np

from rarefill.errors import ModelError
from rarefill.generators import compact_conditioning as compact
from rarefill.generators.compact_conditioning import Bits, Rgb
from rarefill.recipe import Conditioning

_DETECTORS: Final[dict[str, tuple[str, str]]] = {
    # kind: (class of controlnet-aux, its weights' file)
    "hed": ("HEDdetector", "ControlNetHED.pth"),
    "pidi": ("PidiNetDetector", "table5_pidinet.pth"),
    "depth": ("MidasDetector", "dpt_hybrid-midas-501f0c75.pt"),
    "zoe": ("ZoeDetector", "ZoeD_M12_N.pt"),
    "normal": ("NormalBaeDetector", "scannet.pt"),
}
_LINE_PX: Final = 1
"""Half the width of an outline drawn as Canny or a line drawing would have it; soft edges are blurred after."""
_SOFT_PX: Final = 1.5
_LINE_SIGMA: Final = 6.0
_LINE_LEAST: Final = 8.0
"""How the line detector of controlnet-aux tells a line: so many grey levels darker than its surroundings."""
_LEAST_PX: Final = 64
"""Detectors round to multiples of this, and smaller windows to nothing."""


class Drawer(Protocol):
    """Draws a ControlNet's picture."""

    def __call__(self, pixels: Rgb, mask: Bits, hidden: Bits, *, redraw: bool) -> Rgb:
        """As `compact_conditioning.control_map`: uint8 (S, S, 3) of one window."""
        ...


def drawer(kind: Conditioning, weights: Path | None) -> Drawer:
    """The drawer that a recipe names.

    Args:
        kind: as in the recipe.
        weights: folder of controlnet-aux's weights; needed for hed, pidi and depth.

    Raises:
        ModelError: the weights are not there, or not the detector's.
    """
    match kind:
        case "layout":
            return compact.control_map
        case "canny":
            return Lines(_canny)
        case "lineart":
            return Lines(_lineart())
        case "hed" | "pidi":
            return Lines(detector(kind, weights), soft_px=_SOFT_PX)
        case "depth":
            return Depth(detector(kind, weights))


class Lines:
    """White lines on black: the scene's outside of the painted area, the silhouette's outline inside."""

    def __init__(self, detect: Any, *, soft_px: float = 0.0) -> None:
        self._detect, self._soft_px = detect, soft_px

    def __call__(self, pixels: Rgb, mask: Bits, hidden: Bits, *, redraw: bool) -> Rgb:
        """A redrawn object keeps the lines inside of it."""
        found = self._detect(pixels)
        shown = ~compact.grown(hidden, compact.CLEARANCE_PX)
        if redraw:
            shown |= mask
        lines = np.where(shown, found, np.uint8(0))
        outline = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((2 * _LINE_PX + 1,) * 2)).astype(bool)
        drawn = outline.astype(np.float32) * 255
        if self._soft_px:
            drawn = cv2.GaussianBlur(drawn, (0, 0), self._soft_px)
            drawn *= 255 / max(float(drawn.max()), 1.0)
        return _grey(np.maximum(lines, drawn.astype(np.uint8)))


class Depth:
    """Near is bright. A new object is as near as the ground at its foot."""

    def __init__(self, detect: Any) -> None:
        self._detect = detect

    def __call__(self, pixels: Rgb, mask: Bits, hidden: Bits, *, redraw: bool) -> Rgb:
        """A redrawn object keeps its own depth."""
        del hidden
        found = self._detect(pixels)
        if not redraw and mask.any():
            rows = np.flatnonzero(mask.any(axis=1))
            foot = found[rows[-1]][mask[rows[-1]]]
            found = np.where(mask, np.uint8(np.median(foot)), found)
        return _grey(found)


def _grey(values: np.ndarray[Any, Any]) -> Rgb:
    return np.ascontiguousarray(np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2))


def _canny(pixels: Rgb) -> np.ndarray[Any, Any]:
    return compact.edges(pixels).astype(np.uint8) * np.uint8(255)


def _lineart() -> Any:
    detector = package().LineartStandardDetector()

    def detect(pixels: Rgb) -> np.ndarray[Any, Any]:
        size = pixels.shape[0]
        seen = pixels.astype(np.float32)
        darker = (cv2.GaussianBlur(seen, (0, 0), _LINE_SIGMA) - seen).min(axis=2)
        if not (
            darker > _LINE_LEAST
        ).any():  # it would take a median of no lines, and warn; the rest is as it does it
            return np.asarray(darker.clip(0, 255) / 16 * 127, np.uint8)
        found = detector(pixels, detect_resolution=max(size, _LEAST_PX), output_type="np")
        return _one_band(found, size)

    return detect


def detector(kind: str, weights: Path | None, *, bands: Literal[1, 3] = 1) -> Any:
    """A detector of controlnet-aux with weights, from this disk alone.

    Args:
        kind: hed, pidi, depth, zoe or normal.
        weights: folder of controlnet-aux's weights.
        bands: of its answers, uint8 (S, S) or (S, S, 3) for a window of S px.

    Raises:
        ModelError: the weights are not there, or not the detector's.
    """
    name, file = _DETECTORS[kind]
    if weights is None or not (weights / file).is_file():
        raise ModelError(
            f"{weights or '--control-weights'}: conditioning {kind!r} needs {file} of controlnet-aux in that folder; "
            "name it with --control-weights, or use layout, canny or lineart, which need none"
        )
    try:
        # The files are .pth; torch reads them with weights_only, which runs nothing that they bring.
        with redirect_stdout(StringIO()):  # some tell what they read
            made = getattr(package(), name).from_pretrained(str(weights), filename=file)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{weights / file}: not the weights of controlnet-aux's {name} ({type(error).__name__}: {said})"
        ) from error

    def detect(pixels: Rgb) -> np.ndarray[Any, Any]:
        size = pixels.shape[0]
        look = max(size, _LEAST_PX)
        found = made(pixels, detect_resolution=look, image_resolution=look, output_type="np")
        return _sized(found, size) if bands == 3 else _one_band(found, size)

    return detect


def _one_band(found: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    return _sized(found if found.ndim == 2 else found[:, :, 0], size)


def _sized(found: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Some detectors round a window's size to multiples of 64: brought back, so that maps lie on their windows."""
    if found.shape[:2] != (size, size):
        found = cv2.resize(found, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(found, np.uint8)


def package() -> Any:
    """controlnet-aux. Its import warns of every optional part that it does not find, and sets a variable for OpenMP."""
    kept = os.environ.get("KMP_DUPLICATE_LIB_OK")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import controlnet_aux
    if kept is None:
        os.environ.pop("KMP_DUPLICATE_LIB_OK", None)
    return controlnet_aux
