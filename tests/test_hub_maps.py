"""Pictures for ControlNets by networks: random weights in the layouts that controlnet-aux and transformers load."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rarefill.errors import ModelError
from rarefill.generators import compact_conditioning as compact
from rarefill.generators.conditioning import package
from rarefill.generators.hub import maps, segmentation

pytestmark = pytest.mark.usefixtures("one_thread", "offline")

SIZE = 96
"""No multiple of 64: detectors answer at another size, and maps must lie on their windows all the same."""


@pytest.fixture(scope="module")
def window():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE]
    pixels = np.clip(rng.uniform(0, 150, 3) + x[..., None] + rng.normal(0, 5, (SIZE, SIZE, 3)), 0, 255)
    mask = ((x - 50) / 24) ** 2 + ((y - 44) / 16) ** 2 < 1
    return pixels.astype(np.uint8), mask, compact.grown(mask, 4)


class Slope(nn.Module):
    """Stands for a network of hundreds of millions: answers with a slope, from weights that are read."""

    def __init__(self, *_, **__):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def down(self, pixels):
        rows = torch.linspace(0, 1, pixels.shape[2]) * self.weight
        return rows[:, None].expand(pixels.shape[2], pixels.shape[3])

    def forward(self, pixels):
        return self.down(pixels)[None]

    def infer(self, pixels):
        return 1 - self.down(pixels)[None, None]


class Looks(Slope):
    def forward(self, pixels):
        shown = self.down(pixels)
        return [[torch.stack([shown, -shown, shown])[None]]]


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder of weights in controlnet-aux's own layout, of networks that are small."""
    package()
    import controlnet_aux
    from controlnet_aux import midas, normalbae, zoe
    from controlnet_aux.pidi.model import pidinet

    torch.manual_seed(0)
    plain = {f"module.{k}": v for k, v in pidinet().state_dict().items()}
    torch.save({"state_dict": plain}, tmp_path / "table5_pidinet.pth")
    ones = {"weight": torch.ones(1)}
    torch.save(ones, tmp_path / "dpt_hybrid-midas-501f0c75.pt")
    torch.save({"model": ones}, tmp_path / "ZoeD_M12_N.pt")
    torch.save({"model": {f"module.{k}": v for k, v in ones.items()}}, tmp_path / "scannet.pt")

    def midas_network(model_type, model_path):
        made = Slope()
        made.load_state_dict(torch.load(model_path, weights_only=True))
        return made

    monkeypatch.setattr(midas, "MiDaSInference", midas_network)
    monkeypatch.setattr(zoe, "ZoeDepth", SimpleNamespace(build_from_config=lambda _: Slope()))
    monkeypatch.setattr(normalbae, "NNET", Looks)
    assert controlnet_aux.__version__
    return tmp_path


def drawn(kind, weights, window, *, redraw=False):
    return maps.drawers((kind,), weights)(*window, redraw=redraw)


def test_soft_edges_by_pidinet(weights, window):
    _, mask, hidden = window
    new, redrawn = (drawn("pidi", weights, window, redraw=redraw) for redraw in (False, True))
    assert new.shape == (SIZE, SIZE, 3)
    outside = ~compact.grown(hidden, 2 * compact.CLEARANCE_PX + 6)
    assert np.array_equal(new[outside], redrawn[outside])
    edge = mask & ~compact.grown(~mask, 1)
    assert new[mask].max() == 255
    assert edge.any()


@pytest.mark.parametrize("kind", ["depth", "zoe"])
def test_depth_lies_on_its_window_and_an_object_stands_on_its_ground(weights, window, kind):
    _, mask, _ = window
    new, scene = (drawn(kind, weights, window, redraw=redraw) for redraw in (False, True))
    assert new.shape == (SIZE, SIZE, 3)
    rows = scene[:, 5, 0].astype(int)
    assert (np.diff(rows) >= 0).all()  # nearer towards the foot of the picture
    foot = np.flatnonzero(mask.any(axis=1))[-1]
    assert (new[mask] == scene[foot][mask[foot]][0, 0]).all()
    assert np.array_equal(new[~mask], scene[~mask])


def test_a_new_object_looks_at_the_camera_and_a_redrawn_one_where_it_did(weights, window):
    _, mask, _ = window
    new, scene = (drawn("normal", weights, window, redraw=redraw) for redraw in (False, True))
    assert new.shape == (SIZE, SIZE, 3)
    assert (new[mask] == (128, 128, 255)).all()
    assert np.array_equal(new[~mask], scene[~mask])
    assert scene[-1, 5, 0] > scene[0, 5, 0]
    assert scene[-1, 5, 1] < scene[0, 5, 1]


def test_several_pictures_stand_behind_each_other(weights, window):
    both = maps.drawers(("canny", "normal"), weights)(*window, redraw=False)
    assert both.shape == (SIZE, SIZE, 6)
    assert np.array_equal(both[:, :, 3:], drawn("normal", weights, window))


def test_weights_of_other_networks_are_one_line(weights, window):
    torch.save({"model": {"a": torch.ones(2)}}, weights / "scannet.pt")
    with pytest.raises(
        ModelError, match=r"scannet.pt: not the weights of controlnet-aux's NormalBaeDetector"
    ):
        maps.drawers(("normal",), weights)
    (weights / "ZoeD_M12_N.pt").unlink()
    with pytest.raises(ModelError, match=r"needs ZoeD_M12_N\.pt"):
        maps.drawers(("zoe",), weights)


def segmenter(folder, classes=150):
    """A tiny segmentation model with random weights, as transformers saves it."""
    import transformers

    torch.manual_seed(1)
    shape = transformers.SegformerConfig(
        num_labels=classes,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
    )
    transformers.SegformerForSemanticSegmentation(shape).eval().save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_segments_have_ade20ks_colours_and_a_new_object_one_of_its_own(tmp_path, window):
    _, mask, _ = window
    folder = segmenter(tmp_path / "seg")
    scene, again, new = (drawn("seg", folder, window, redraw=redraw) for redraw in (True, True, False))
    assert scene.shape == (SIZE, SIZE, 3)
    assert np.array_equal(scene, again)
    palette = {tuple(map(int, colour)) for colour in package().util.ade_palette()}
    colours = {tuple(map(int, colour)) for colour in scene.reshape(-1, 3)}
    assert colours <= palette
    (own,) = {tuple(map(int, colour)) for colour in new[mask]}
    assert own in palette
    assert own not in {tuple(map(int, colour)) for colour in new[~mask]}
    assert np.array_equal(new[~mask], scene[~mask])
    labels = segmentation.Segments.load(folder, "seg")._model
    assert labels.config.num_labels == 150


def test_a_segmentation_of_other_classes_is_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"knows 19 classes; the ControlNets were shown ADE20K's 150"):
        maps.drawers(("seg",), segmenter(tmp_path / "city", classes=19))
    with pytest.raises(ModelError, match="control 'seg' needs a segmentation model"):
        maps.drawers(("seg",), None)
