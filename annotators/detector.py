"""The detector: torchvision's FCOS on MobileNetV3-small, cut down to 1.1 million parameters.

It begins with weights of the project's own (`START`), which have learnt to find things but none by name: see
docs/training.md. Differences from torchvision's own builders, each for learning within minutes: BatchNorm that trains
(its detection builders freeze it, which is useless without weights trained at length), a head of two convolutions,
three levels at strides 8, 16 and 32, and a size range per level of half the usual, so that the objects of a small crop
spread over the levels.
"""

import hashlib
from collections import OrderedDict
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
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
START = Path(__file__).with_name("weights") / "detector.safetensors"
_OWN = "head.classification_head.cls_logits."
_MEAN, _DEVIATION = 0.5, 0.25
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


def build(n_classes: int, seed: int, *, start: bool = True) -> FCOS:
    """A detector that can learn. Not for several threads at once.

    Args:
        n_classes: of objects.
        seed: names the random weights: those that tell the classes apart, or all of them.
        start: begin with the shipped weights, which have learnt to find things, whatever they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FCOS(
            Backbone(),
            num_classes=n_classes,
            min_size=CROP_PX,  # crops come at their size; without this torchvision enlarges them to 800
            max_size=CROP_PX,
            image_mean=[_MEAN] * 3,
            image_std=[_DEVIATION] * 3,
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
    if start:
        model.load_state_dict(_start(), strict=False)
    return model.to(memory_format=torch.channels_last)


def save_start(path: Path, model: FCOS, step: int) -> None:
    """Write what `build` begins with: all but the layer that tells classes apart, in 16 bits.

    Args:
        path: of the safetensors file.
        model: trained.
        step: for how many steps.
    """
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith(_OWN)}
    narrow = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in kept.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(narrow, path, metadata={"step": str(step)})


@cache
def start_digest() -> str:
    """16 hex digits of the weights that detectors begin with: other ones make other detectors."""
    return hashlib.sha256(START.read_bytes()).hexdigest()[:16]


@cache
def _start() -> dict[str, Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(START).items()}


def images(crops: NDArray[np.uint8]) -> Tensor:
    """float32 (B, 3, H, W) from 0 to 1, of uint8 (B, H, W, 3)."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).to(torch.float32).div_(255)


def normalised(batch: Tensor) -> Tensor:
    """What the backbone takes, of images from 0 to 1: what the whole detector does to its input first."""
    return (batch - _MEAN) / _DEVIATION


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
