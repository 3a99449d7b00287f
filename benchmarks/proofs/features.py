"""Features of windows from the judge's backbone: a YOLOX-nano trained on COCO, none of whose images is here."""

import numpy as np
import torch
from numpy.typing import NDArray

from proofs.cases import Desk
from rarefill.fidelity.distances import Floats

INPUT_PX = 128
"""A window as it is: its object is as large in it as most of COCO's are for this network. Close crops are enlarged."""
BATCH = 16


class Backbone:
    """The last three stages of the backbone, each averaged over the window: 64 + 128 + 256 numbers."""

    def __init__(self, desk: Desk) -> None:
        weights = desk.judge / "weights" / "yolox_nano_coco.safetensors"
        model = desk.module("yolox_nano").YOLOXNano(1, weights)
        self._net = model.backbone.backbone.eval()

    @torch.no_grad()
    def __call__(self, windows: NDArray[np.uint8]) -> Floats:
        """Features, float64 (N, 448), of uint8 (N, S, S, 3) in RGB."""
        found = []
        for start in range(0, len(windows), BATCH):
            bgr = np.ascontiguousarray(windows[start : start + BATCH, :, :, ::-1])
            x = torch.from_numpy(bgr).permute(0, 3, 1, 2).float()
            if x.shape[-1] != INPUT_PX:
                x = torch.nn.functional.interpolate(x, (INPUT_PX, INPUT_PX), mode="bilinear", antialias=True)
            found.append(torch.cat([stage.mean((2, 3)) for stage in self._net(x)], 1).double().numpy())
        return np.concatenate(found) if found else np.zeros((0, 448))
