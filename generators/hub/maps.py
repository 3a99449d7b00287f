"""What several ControlNets are shown of one window: a picture each, behind each other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from rarefill.errors import ModelError
from rarefill.generators import conditioning
from rarefill.generators.compact_conditioning import Bits, Rgb
from rarefill.generators.conditioning import Drawer
from rarefill.generators.hub import segmentation, sources
from rarefill.generators.hub.commits import Commits
from rarefill.presets import Control, Source

_ANNOTATORS: Final = Source("lllyasviel/Annotators", "982e7edaec38759d914a963c48c4726685de7d96")
"""Where controlnet-aux's weights are when no folder is named. They are pickles, read as bare tensors (weights_only)."""
_FLAG: Final = "--control-weights "
_FILES: Final[dict[str, str]] = {
    "hed": "ControlNetHED.pth",
    "pidi": "table5_pidinet.pth",
    "depth": "dpt_hybrid-midas-501f0c75.pt",
    "zoe": "ZoeD_M12_N.pt",
    "normal": "scannet.pt",
}
_FACING: Final = (128, 128, 255)
"""The normal that looks at the camera, as the normal ControlNet of SD 1.5 was shown it."""


class Maps:
    """Pictures of one window, uint8 (S, S, 3K) for K ControlNets."""

    def __init__(self, draw: Sequence[Drawer]) -> None:
        self._draw = tuple(draw)

    def __call__(self, pixels: Rgb, mask: Bits, hidden: Bits, *, redraw: bool) -> Rgb:
        """As one drawer, for all of them."""
        if not self._draw:
            return np.zeros((*mask.shape, 0), np.uint8)
        drawn = [draw(pixels, mask, hidden, redraw=redraw) for draw in self._draw]
        return np.concatenate(drawn, axis=2)


class Normals:
    """Which way surfaces look. A new object looks at the camera: how it is rounded is for the model to say."""

    def __init__(self, detect: Any) -> None:
        self._detect = detect

    def __call__(self, pixels: Rgb, mask: Bits, hidden: Bits, *, redraw: bool) -> Rgb:
        """A redrawn object keeps its own."""
        del hidden
        found = self._detect(pixels)
        if redraw:
            return np.ascontiguousarray(found)
        return np.where(mask[:, :, None], np.array(_FACING, np.uint8), found)


def drawers(kinds: Sequence[Control], weights: Path | None, known: Commits | None = None) -> Maps:
    """The drawers that a recipe names.

    Args:
        kinds: one for each ControlNet.
        weights: folder of controlnet-aux's weights, or OWNER/NAME@REVISION of the hub; for `seg` of a transformers model.
        known: what names stood for when they were first used.

    Raises:
        ModelError: weights are not to be had.
    """
    return Maps([_drawer(kind, weights, known or Commits()) for kind in kinds])


def _drawer(kind: Control, weights: Path | None, known: Commits) -> Any:
    if kind == "seg":
        if weights is None:
            raise ModelError(
                "--control-weights: control 'seg' needs a segmentation model of transformers, as a folder or "
                "OWNER/NAME; such as openmmlab/upernet-convnext-small, which knows ADE20K's classes"
            )
        found = sources.part(sources.parsed(str(weights)), _FLAG, known)
        return segmentation.Segments.load(found.place, found.name)
    folder = weights
    if kind in _FILES and not (weights is not None and weights.is_dir()):
        asked = _ANNOTATORS if weights is None else sources.parsed(str(weights))
        folder = sources.part(replace(asked, file=_FILES[kind]), _FLAG, known).place.parent
    if kind == "zoe":
        return conditioning.Depth(conditioning.detector(kind, folder))
    if kind == "normal":
        return Normals(conditioning.detector(kind, folder, bands=3))
    return conditioning.drawer(kind, folder)
