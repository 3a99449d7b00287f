"""What of a box is the object: a small network that ships, asked where a dataset has boxes and no masks.

It has learnt from pieces of pictures laid into other pictures, from cells that stand out by themselves and from what the project
renders, so it knows no classes: it looks for what belongs together inside the box and goes on nowhere outside.
"""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rarefill import engine
from rarefill.cutouts import CONTEXT, WEIGHTS
from rarefill.geometry import Box, FloatArray
from rarefill.scene import Pixels

SIDE_PX: Final = 80
"""Of the square that the network sees."""
_WIDTHS: Final = (12, 32, 64, 96, 128)
"""Few at full size, where they cost most."""
_GROUPS: Final = 4


class Cutter(nn.Module):
    """A U-Net of five levels without attention: 0.8 million parameters.

    Source: Ronneberger, Fischer and Brox, U-Net, 2015; group normalisation as in Wu and He 2018.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = list(pairwise(_WIDTHS))
        self.stem = _layer(4, _WIDTHS[0])
        self.down = nn.ModuleList(
            nn.Sequential(_layer(before, after, stride=2), _layer(after, after)) for before, after in pairs
        )
        self.up = nn.ModuleList(_layer(before + after, before) for before, after in pairs[::-1])
        self.out = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, S, S) from (B, 4, S, S): three bands as `seen` gives them, and the box; S a multiple of 16."""
        x = self.stem(x)
        kept = []
        for step in self.down:
            kept.append(x)
            x = step(x)
        for step in self.up:
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = step(torch.cat([x, kept.pop()], dim=1))
        found: Tensor = self.out(x)
        return found


def build(seed: int) -> Cutter:
    """A network with random weights that follow from the seed alone. Not for several threads at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Cutter().to(memory_format=torch.channels_last)


def save(path: Path, model: Cutter, step: int) -> None:
    """Write what ships, in 16 bits; `step`: for how many steps it was trained."""
    kept = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, path, metadata={"step": str(step)})


def shares(picture: Pixels, box: Box, frame: Box, size: tuple[int, int]) -> NDArray[np.float32]:
    """How likely each pixel belongs to the object in a box.

    Args:
        picture: uint8 (H, W, 3) RGB.
        box: of the object, inside it.
        frame: the part of the picture that is asked about.
        size: width and height of the answer, whose pixels lie side by side over the frame.

    Returns:
        float32 (height, width), 0 to 1, rounded so that machines agree; 0 far from the box.
    """
    drawn = np.array(box.xyxy)
    pixels, corner, scale = square(picture, drawn, SIDE_PX)
    with engine.one_thread(), torch.inference_mode():
        # One by one: what is cut must not depend on what else is asked.
        logits = _shipped()(seen(pixels[None], ((drawn - np.tile(corner, 2)) * scale)[None]))
        small = np.round(torch.sigmoid(logits[0, 0]).numpy(), 2)
    zoom = np.array([frame.width, frame.height]) / size * scale
    shift = (np.array([frame.x1, frame.y1]) - corner) * scale + 0.5 * zoom - 0.5
    back = np.array([[zoom[0], 0, shift[0]], [0, zoom[1], shift[1]]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(small, back, size, flags=how, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(found, np.float32)


def square(
    pixels: NDArray[np.uint8], box: FloatArray, size: int, *, border: int = cv2.BORDER_REPLICATE
) -> tuple[NDArray[np.uint8], FloatArray, float]:
    """The square that the cutter sees about a box, the corner (x, y) of it in the picture, and what it is enlarged by.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        box: float64 (4,), x1 y1 x2 y2 in it.
        size: of the square, in its own pixels.
        border: what goes on where it leaves the picture: the picture's border, or nothing (cv2's names).
    """
    longer = max(box[2] - box[0], box[3] - box[1])
    side = (1 + 2 * CONTEXT) * longer
    corner = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]) - side / 2
    scale = size / side
    if scale < 1:
        # Averaged first: one pixel in two or three would be noise.
        less = max(scale, 1 / max(pixels.shape[:2]))
        low = np.floor(np.maximum(corner - 2, 0)).astype(int)
        high = np.ceil(np.minimum(corner + side + 2, pixels.shape[1::-1])).astype(int)
        part = pixels[low[1] : high[1], low[0] : high[0]]
        shape = (max(1, round(part.shape[1] * less)), max(1, round(part.shape[0] * less)))
        small = cv2.resize(part, shape, interpolation=cv2.INTER_AREA)
        zoom = np.array([shape[0] / part.shape[1], shape[1] / part.shape[0]])
        shift, stretch = (corner - low) * zoom, scale / zoom
    else:
        small, shift, stretch = pixels, corner, np.array([scale, scale])
    how = np.array(
        [
            [1 / stretch[0], 0, shift[0] + 0.5 / stretch[0] - 0.5],
            [0, 1 / stretch[1], shift[1] + 0.5 / stretch[1] - 0.5],
        ]
    )
    seen = cv2.warpAffine(
        small, how, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
    )
    return np.asarray(seen, np.uint8), corner, scale


def seen(pixels: NDArray[np.uint8], boxes: NDArray[np.float64]) -> Tensor:
    """What the network sees: float32 (B, 4, S, S), each picture brought to mean 0 and deviation 1, and its box.

    Args:
        pixels: uint8 (B, S, S, 3).
        boxes: float64 (B, 4), x1 y1 x2 y2.
    """
    values = pixels.astype(np.float32)
    mean, spread = values.mean(axis=(1, 2, 3), keepdims=True), values.std(axis=(1, 2, 3), keepdims=True)
    side = pixels.shape[1]
    centres = np.arange(side) + 0.5
    x1, y1, x2, y2 = (edge[:, None] for edge in boxes.T)
    across, down = (x1 <= centres) & (centres <= x2), (y1 <= centres) & (centres <= y2)
    inside = (down[:, :, None] & across[:, None, :]).astype(np.float32)
    stacked = np.concatenate([(values - mean) / (spread + 4), inside[..., None]], axis=3)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


@cache
def _shipped() -> Cutter:
    model = build(0)
    model.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return model.eval().requires_grad_(requires_grad=False)


def _layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False),
        nn.GroupNorm(_GROUPS, after),
        nn.ReLU(inplace=True),
    )
