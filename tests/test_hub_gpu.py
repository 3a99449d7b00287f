"""Published checkpoints on a GPU: parts that wait in main memory, 16 bits, batches."""

import hub_models as tiny
import numpy as np
import pytest
import torch
from test_hub_unet import canvas

from rarefill.generators.denoise import Sampling
from rarefill.generators.hub import build, stack
from rarefill.hub_options import HubConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("offline"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("gpu")
    tiny.sd15(root / "sd15")
    tiny.sdxl(root / "sdxl")
    tiny.save_net(tiny.controlnet(), root / "canny")
    tiny.save_net(tiny.union(), root / "union")
    return root


def painted(models, base, net, offload, dtype, n=3):
    hub = HubConfig(controlnet=(str(models / net),), control=("canny",), offload=offload)
    loaded = stack.load(stack.find(f"hub:{models / base}", hub), hub, device="cuda", dtype=dtype)
    painter = build.painter(loaded, hub)
    return painter.paint([canvas(k) for k in range(n)], Sampling(3, 3.0)).astype(int)


@pytest.mark.parametrize(("base", "net"), [("sd15", "canny"), ("sdxl", "union")])
@pytest.mark.parametrize("offload", ["model", "layers"])
def test_parts_that_wait_in_main_memory_paint_the_same(models, base, net, offload):
    whole = painted(models, base, net, "none", torch.float32)
    assert np.abs(whole - painted(models, base, net, offload, torch.float32)).max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_paint_nearly_the_same_and_repeat_themselves(models, dtype):
    wide = painted(models, "sd15", "canny", "auto", torch.float32)
    narrow, again = (painted(models, "sd15", "canny", "auto", dtype) for _ in range(2))
    assert np.array_equal(narrow, again)
    assert np.abs(wide - narrow).mean() < 8
