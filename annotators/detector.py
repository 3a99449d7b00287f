"""The detector: torchvision's FCOS on MobileNetV3-small, cut down to 1.1 million parameters, from random weights.

Differences from torchvision's own builders, each for learning from nothing within minutes:
BatchNorm that trains (its detection builders freeze it, which is useless without pretrained weights), a head of two
convolutions, three levels at strides 8, 16 and 32, and a size range per level of half the usual, so that the objects of
a small crop spread over the levels.
"""

from collections import OrderedDict
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork

from rarefill.annotators.crops import CROP_PX
from rarefill.annotators.detectors import LEAST_SCORE, Detections
from rarefill.scene import Pixels

__all__ = ["Detections", "build", "detect", "images"]

_CHANNELS = 64
_TAPS = {3: 24, 8: 48, 11: 96}  # MobileNetV3-small's last block of strides 8, 16, 32, and its channels
_ANCHORS_PX = ((4,), (8,), (16,))  # half a stride: a level then takes objects of 4 to 8 strides a side
_CENTER_RADIUS = 3.0  # in anchors, so 1.5 strides, as in the paper (Tian et al. 2019)
_CANDIDATES = 200  # per level, before overlapping ones are thinned out


class Backbone(nn.Module):
    """MobileNetV3-small under a feature pyramid."""

    def __init__(self) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.05)
        features = mobilenet_v3_small(weights=None, norm_layer=norm).features
        self.body = nn.ModuleList(list(features)[: max(_TAPS) + 1])
        self.pyramid = FeaturePyramidNetwork(list(_TAPS.values()), _CHANNELS)
        self.out_channels = _CHANNELS

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Three maps of `out_channels` from (B, 3, H, W)."""
        taps: OrderedDict[str, Tensor] = OrderedDict()
        for i, block in enumerate(self.body):
            x = block(x)
            if i in _TAPS:
                taps[str(i)] = x
        maps: dict[str, Tensor] = self.pyramid(taps)
        return maps


def build(n_classes: int, seed: int) -> FCOS:
    """A detector with random weights that follow from the seed alone. Not for several threads at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FCOS(
            Backbone(),
            num_classes=n_classes,
            min_size=CROP_PX,  # crops come at their size; without this torchvision enlarges them to 800
            max_size=CROP_PX,
            image_mean=[0.5] * 3,
            image_std=[0.25] * 3,
            anchor_generator=AnchorGenerator(_ANCHORS_PX, ((1.0,),) * len(_ANCHORS_PX)),
            head=FCOSHead(_CHANNELS, num_anchors=1, num_classes=n_classes, num_convs=2),
            center_sampling_radius=_CENTER_RADIUS,
            score_thresh=LEAST_SCORE,
            topk_candidates=_CANDIDATES,
            _skip_resize=True,
        )
        for module in model.head.modules():
            # torchvision's 0.01 is meant for pretrained features; here the gradient must reach the backbone.
            if isinstance(module, nn.Conv2d) and module.out_channels == _CHANNELS:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # The sides pass a relu: from 0 half of them would never receive a gradient.
        nn.init.constant_(model.head.regression_head.bbox_reg.bias, 3.0)
    return model.to(memory_format=torch.channels_last)


def images(crops: NDArray[np.uint8]) -> Tensor:
    """float32 (B, 3, H, W) from 0 to 1, of uint8 (B, H, W, 3)."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).to(torch.float32).div_(255)


def detect(model: FCOS, crop: Pixels) -> Detections:
    """Find objects in one crop, uint8 (CROP_PX, CROP_PX, 3).

    A crop goes through alone and on one thread, and numbers are rounded: the answer depends neither on what else is
    checked nor on how many workers there are.
    """
    if crop.shape != (CROP_PX, CROP_PX, 3):
        raise ValueError(f"expected a crop of {CROP_PX}x{CROP_PX}x3, got {crop.shape}")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            found = model([images(crop[None])[0]])[0]
    finally:
        torch.set_num_threads(before)
    return Detections(
        boxes=np.round(found["boxes"].numpy().astype(np.float64), 2),
        labels=found["labels"].numpy().astype(np.int64),
        scores=np.round(found["scores"].numpy().astype(np.float64), 4),
    )
