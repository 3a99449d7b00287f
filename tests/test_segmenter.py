"""A promptable segmenter as evidence: tiny random models in the hub's layout, and one that knows the truth."""

import detector_models
import numpy as np
import pytest
from test_measure import disc, scene, touched

from rarefill import annotators
from rarefill.annotators import outline, segmenter
from rarefill.annotators.outline import Source
from rarefill.errors import ModelError
from rarefill.geometry import Box, mask_iou
from rarefill.recipe import CheckerConfig


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module", params=list(detector_models.SEGMENTERS))
def folder(request, tmp_path_factory):
    return detector_models.save(tmp_path_factory.mktemp(request.param), request.param)


def test_a_folder_of_the_hub_segments_a_crop_at_its_own_size(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    segment = segmenter.named(str(folder))
    found, quality = segment(pixels, Box(10, 10, 40, 30))
    assert found.shape == (50, 70)
    assert found.dtype == bool
    assert 0 <= quality <= 1
    again, _ = segment(pixels, Box(10, 10, 40, 30))
    assert (again == found).all()


def test_a_mask_is_what_the_processor_itself_makes_of_the_outputs(folder):
    import torch
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    model = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=pixels, input_boxes=[[[8.0, 8.0, 40.0, 40.0]]], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs, multimask_output=False)
    logits = torch.nn.functional.interpolate(outputs.pred_masks[0].float(), (64, 64), mode="bilinear")
    found, _ = segmenter.named(str(folder))(pixels, Box(8, 8, 40, 40))
    assert (found == (logits[0, 0].numpy() > 0)).mean() > 0.95


def test_the_segmenter_counts_among_what_names_a_run(folder):
    with_it = annotators.fingerprint(CheckerConfig(segmenter=str(folder)))
    assert with_it is not None
    assert annotators.fingerprint(CheckerConfig()) is None


def test_a_missing_folder_and_a_model_of_another_kind_are_one_line(tmp_path):
    with pytest.raises(ModelError, match="--segmenter"):
        segmenter.named(str(tmp_path / "none"))
    detr = detector_models.save(tmp_path / "detr", "detr")
    with pytest.raises(ModelError, match="segmenter of transformers"):
        segmenter.named(str(detr))


def test_a_segmenter_that_is_sure_is_believed_and_one_that_is_not_only_votes():
    true, planned = disc(80, 80, 26, 20), disc(83, 78, 23, 22)
    pixels, background = scene([(true, (200, 60, 40))])
    allowed = touched(planned, 12)
    asked = []

    def knows(crop, box, quality):
        asked.append((crop.shape, box))
        left, top = planned.x - round(box.x1), planned.y - round(box.y1)
        return true.window(left, top, crop.shape[1], crop.shape[0]), quality

    sure = outline.measured(
        pixels, background, planned, allowed, segment=lambda crop, box: knows(crop, box, 0.95)
    )
    assert sure.source is Source.EVIDENCE
    assert mask_iou(sure.mask, true) > 0.95
    unsure = outline.measured(
        pixels, background, planned, allowed, segment=lambda crop, box: knows(crop, box, 0.2)
    )
    assert mask_iou(unsure.mask, true) > mask_iou(planned, true)
    (shape, box), _ = asked
    assert box.width == planned.box.width
    assert max(shape) < 120, "it is shown the crop alone"


def test_a_segmenter_that_sees_something_else_leaves_the_silhouette():
    true = disc(80, 80, 26, 20)
    pixels, background = scene([(true, (200, 60, 40))])

    def elsewhere(crop, box):
        del box
        found = np.zeros(crop.shape[:2], bool)
        found[:10, :10] = True
        return found, 0.99

    found = outline.measured(pixels, background, true, touched(true), segment=elsewhere)
    assert found.mask is true
    assert found.source is not Source.EVIDENCE
