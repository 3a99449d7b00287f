"""Detectors that others trained: read from folders and files, named as the dataset names, calibrated on its objects."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import detector_models
import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import make_tiny

from rarefill import annotators, bank, dataset, pictures
from rarefill import recipe as recipes
from rarefill.annotators import detectors
from rarefill.annotators.detectors import Detections, batches, names
from rarefill.annotators.detectors.whole import Whole
from rarefill.errors import ModelError, RecipeError
from rarefill.geometry import Box, Mask
from rarefill.recipe import CheckerConfig
from rarefill.scene import Layout, Paint, Placement, Reason, Render

pytestmark = pytest.mark.usefixtures("one_thread")
OURS = ["square", "disc", "star"]
FAMILIES = {
    **dict.fromkeys(detector_models.CLOSED, "transformers"),
    **dict.fromkeys(detector_models.ZERO_SHOT, "zero-shot"),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of each tiny model, written when it is first asked for."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = detector_models.save(tmp_path_factory.mktemp("hub") / name, name)
        return made[name]

    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A folder that a test may spoil."""
    return lambda name: shutil.copytree(saved(name), tmp_path / "copy")


def build(checker, place, needed=("disc",), **options):
    config = CheckerConfig(checker=checker, detector=str(place), **options)
    return detectors.build(config, OURS, list(needed))


def images():
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 255, (80, 96, 3), dtype=np.uint8),
        rng.integers(0, 60000, (60, 50, 1)).astype(np.uint16),
        rng.integers(0, 255, (80, 96, 4), dtype=np.uint8),
        rng.integers(0, 255, (80, 96, 1), dtype=np.uint8),
    ]


def same(a, b):
    return (
        np.allclose(a.boxes, b.boxes, atol=0.02)
        and (a.labels == b.labels).all()
        and np.allclose(a.scores, b.scores, atol=2e-4)
    )


# The seam.


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_of_the_hub_detects_offline(saved, name):
    made = build(FAMILIES[name], saved(name))
    found = made.detector.detect(images())
    assert len(found) == 4
    for image, one in zip(images(), found, strict=True):
        height, width = image.shape[:2]
        assert len(one.scores)
        assert one.boxes.dtype == one.scores.dtype == np.float64
        assert one.boxes.shape == (len(one.scores), 4)
        assert (one.boxes >= 0).all()
        assert (one.boxes <= [width, height, width, height]).all()
        assert set(one.labels) <= made.known
        assert one.scores.min() >= detectors.LEAST_SCORE
        assert one.scores.max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_depends_on_its_image_alone(saved, name):
    detector = build(FAMILIES[name], saved(name)).detector
    together = detector.detect(images())
    for image, one in zip(images(), together, strict=True):
        assert same(detector.detect([image])[0], one)


def test_batches_hold_images_of_one_size_and_answers_come_in_order():
    taken = []

    def look(some):
        taken.append([i.shape for i in some])
        return [int(i[0, 0, 0]) for i in some]

    stack = [np.full((4 + n % 2, 6, 1), n, dtype=np.uint8) for n in range(7)]
    assert batches.each(stack, 2, look) == list(range(7))
    assert [len(t) for t in taken] == [2, 2, 2, 1]
    assert all(shapes == [shapes[0]] * len(shapes) for shapes in taken)


def test_a_closed_set_finds_what_its_own_processor_finds(saved):
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder, image = saved("rt_detr_v2"), images()[0]
    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        outputs = model(**processor(images=image, return_tensors="pt"))
    (theirs,) = processor.post_process_object_detection(outputs, threshold=0.02, target_sizes=[(80, 96)])
    (ours,) = build("transformers", folder).detector.detect([image])
    assert np.allclose(np.sort(ours.scores), np.sort(theirs["scores"].numpy()), atol=1e-4)
    assert (np.sort(ours.labels) == np.sort(1 - theirs["labels"].numpy())).all()  # disc is 0 there and 1 here


def test_the_best_phrase_of_a_box_has_the_score_of_the_processor(saved):
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder, image = saved("grounding_dino"), images()[0]
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    with torch.inference_mode():
        outputs = model(**processor(images=[image], text=[OURS], return_tensors="pt"))
        # The stops between phrases are words to the processor, and none of any category.
        ids = processor.tokenizer(". ".join(OURS) + ".")["input_ids"]
        outputs.logits[:, :, [n for n, i in enumerate(ids) if i in {2, 3, 5}]] = -np.inf
    (theirs,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0.02, target_sizes=[(80, 96)]
    )
    (ours,) = build("zero-shot", folder).detector.detect([image])
    for box, score in zip(theirs["boxes"].numpy(), theirs["scores"].numpy(), strict=True):
        held = np.clip(box, 0, [96, 80, 96, 80])
        best = ours.scores[np.abs(ours.boxes - held).max(axis=1) < 0.02].max()
        assert best == pytest.approx(score, abs=1e-4)


def test_words_stand_in_for_a_category(saved):
    from rarefill.annotators.detectors import zero_shot

    config = CheckerConfig(checker="zero-shot", detector="x", map={"Red_disc.": "disc", "round": "disc"})
    prompts, rows = zero_shot.asked(OURS, config)
    assert prompts == ["red disc", "round", "square", "star"]
    assert rows.tolist() == [1, 1, 0, 2]
    made = build("zero-shot", saved("grounding_dino"), map={"red disc": "disc"})
    assert set(made.detector.detect(images())[0].labels) <= {0, 1, 2}


@pytest.mark.parametrize("name", FAMILIES)
def test_pixels_that_cannot_be_written_to_can_be_looked_at(saved, name):
    image = images()[0]
    image.setflags(write=False)
    build(FAMILIES[name], saved(name)).detector.detect([image])


# Names.


def rows(theirs, needed=("disc",), **mapped):
    return names.rows(theirs, OURS, needed=needed, mapped=mapped, where="it").tolist()


def test_classes_are_ours_where_names_are_the_same():
    assert rows(["disc", "dog", "square"]) == [1, -1, 0]
    assert rows(["cat", "dog"], cat="disc") == [1, -1]


@pytest.mark.parametrize("near", ["Disc", "dISC ", "di sc", "discs"])
def test_a_name_that_differs_a_little_is_offered_and_not_taken(near):
    with pytest.raises(
        ModelError, match=r"it has no class 'disc', but .*; if that is the same, say --map '?" + near
    ):
        rows(["dog", near])


def test_every_category_without_a_class_is_named():
    with pytest.raises(ModelError) as e:
        rows(["dog", "Square"], needed=["disc", "square"])
    first, second = str(e.value).splitlines()
    assert "'disc'" in first
    assert "--map CLASS=disc" in first
    assert "'dog', 'Square'" in first
    assert "--map Square=square" in second


def test_a_map_of_what_does_not_exist_is_refused():
    with pytest.raises(ModelError, match="--map dgo=disc: it has no class 'dgo'; did you mean 'dog'"):
        rows(["dog"], dgo="disc")
    with pytest.raises(ModelError, match="no category 'disk' for it; did you mean 'disc'"):
        rows(["dog"], dog="disk")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.txt", "cat\ndog\n"),
        ("a.json", '["cat", "dog"]'),
        ("a.json", '{"1": "dog", "0": "cat"}'),
        ("data.yaml", "names: {0: cat, 1: dog}\nnc: 2\n"),
        ("data.yaml", "names: [cat, dog]\n"),
    ],
)
def test_class_names_come_in_several_files(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert names.read(tmp_path / file) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("file", "text"), [("a.json", "{"), ("a.json", "3"), ("a.txt", ""), ("a.yaml", "x: 1")]
)
def test_a_file_without_class_names_is_one_line(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(ModelError, match=file) as e:
        names.read(tmp_path / file)
    assert "\n" not in str(e.value)


# Folders that are not what they should be: one clear line each.


def one_line(place, said, checker="transformers", **options):
    with pytest.raises(ModelError, match=said) as e:
        build(checker, place, **options)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 700


@pytest.mark.parametrize("part", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_part_is_named(copy, part):
    folder = copy("detr")
    (folder / part).unlink()
    one_line(folder, f"no {part}")


def test_a_pickle_is_refused(copy):
    folder = copy("detr")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    one_line(folder, r"pytorch_model\.bin: pickles are not opened")


def test_no_folder_and_no_hub(tmp_path):
    one_line(tmp_path / "none", "no such folder or file")
    one_line("someone/nothing@main", "neither a folder here nor to be had from the hub")


def test_weights_that_are_no_numbers_are_refused(copy):
    folder = copy("detr")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["class_labels_classifier.bias"][0] = torch.nan
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    one_line(folder, "class_labels_classifier.bias holds weights that are no numbers")


def test_weights_that_are_missing_are_not_made_up(copy):
    folder = copy("detr")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["class_labels_classifier.bias"]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    one_line(folder, "has no weights for class_labels_classifier.bias")


def test_a_torn_file_of_weights_is_one_line(copy):
    folder = copy("detr")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    one_line(folder, "cannot be read as a detector of transformers")


def test_a_folder_of_something_else_is_one_line(saved):
    one_line(saved("owlv2"), "cannot be read as a detector of transformers")
    one_line(saved("detr"), "no tokenizer.json or vocab.txt", checker="zero-shot")


def test_classes_that_are_not_ours_are_told(saved):
    one_line(saved("detr"), "no class 'star', but 'square'; if that is the same, say --map", needed=["star"])


def test_a_digest_follows_the_weights(copy):
    config = CheckerConfig(checker="transformers", detector=str(copy("detr")))
    before = annotators.fingerprint(config)
    assert before == annotators.fingerprint(config)
    assert annotators.fingerprint(CheckerConfig()) is None
    path = Path(config.detector) / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"num_queries": 5}))
    assert annotators.fingerprint(config) != before


# torchvision.


def torchvision_file(tmp_path, architecture, n_classes, change=None):
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(architecture, weights=None, weights_backbone=None, num_classes=n_classes)
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    if change:
        change(weights)
    safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
    (tmp_path / "names.txt").write_text("disc\nsquare\n")
    return tmp_path / "weights.safetensors"


LITE = "ssdlite320_mobilenet_v3_large"


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_state_dict_of_torchvision_detects_with_or_without_a_background(tmp_path, n_classes):
    place = torchvision_file(tmp_path, LITE, n_classes)
    options = {"architecture": LITE, "class_names": tmp_path / "names.txt"}
    made = build("torchvision", place, **options)
    for one in made.detector.detect(images()):
        assert set(one.labels) <= ({0, 1} if n_classes == 3 else {0})


def lite(tmp_path, said, change=None, **options):
    place = torchvision_file(tmp_path, LITE, 3, change)
    (tmp_path / "odd.txt").write_text("a\nb\nc\ndisc\n")
    options = {"architecture": LITE, "class_names": tmp_path / "names.txt"} | options
    one_line(place, said, checker="torchvision", **options)


def test_frozen_layers_count_nothing(tmp_path):
    place = torchvision_file(
        tmp_path, LITE, 3, lambda w: [w.pop(k) for k in list(w) if k.endswith("num_batches_tracked")]
    )
    assert build("torchvision", place, architecture=LITE, class_names=tmp_path / "names.txt").known == {0, 1}


def test_another_architecture_is_told_from_its_weights(tmp_path):
    lite(tmp_path, "not the weights of fcos_resnet50_fpn with 2 classes", architecture="fcos_resnet50_fpn")


def test_an_architecture_that_is_none_is_told(tmp_path):
    lite(tmp_path, "did you mean 'fcos_resnet50_fpn'", architecture="fcos_resnet_50")


def test_a_wrong_number_of_class_names_is_told(tmp_path):
    lite(tmp_path, "with 4 classes, background or not", class_names=tmp_path / "odd.txt")


def test_broken_weights_of_torchvision_are_told(tmp_path):
    key = "head.classification_head.module_list.0.1.bias"
    lite(tmp_path, "no numbers", lambda w: w[key].fill_(torch.inf))
    lite(tmp_path, f"{key} is missing", lambda w: w.pop(key))


def test_a_pth_file_is_refused(tmp_path):
    torchvision_file(tmp_path, LITE, 3)
    torch.save({}, tmp_path / "weights.pth")
    one_line(
        tmp_path / "weights.pth",
        "pickles are not opened",
        checker="torchvision",
        architecture=LITE,
        class_names=tmp_path / "names.txt",
    )


# ONNX.


def onnx_file(tmp_path, outputs, side=64, count=1, names=None):
    """A file that gives fixed outputs, whatever it is shown."""
    onnx = pytest.importorskip("onnx", reason="onnx makes the files")
    pytest.importorskip("onnxruntime", reason="pip install 'rarefill[onnx]'")
    from onnx import TensorProto, helper, numpy_helper

    nodes, held, given = [], [], []
    for n, values in enumerate(outputs):
        held.append(numpy_helper.from_array(values.astype(np.float32), f"c{n}"))
        given.append(helper.make_tensor_value_info(f"o{n}", TensorProto.FLOAT, values.shape))
        nodes.append(helper.make_node("Add", [f"c{n}", "zero"], [f"o{n}"]))
    # Every output hangs on the input by a sum that is nothing.
    nodes[:0] = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nil"], ["zero"]),
    ]
    held.append(numpy_helper.from_array(np.float32(0), "nil"))
    shape = [count, 3, side, side]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "detector", [entry], given, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if names:
        helper.set_model_props(model, {"names": str(names)})
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def yolo(*found, anchors=10):
    """(1, 4 + 2, anchors) of cx cy w h and two scores."""
    values = np.zeros((1, 6, anchors))
    for n, one in enumerate(found):
        values[0, :, n] = one
    return values


NAMED = {0: "disc", 1: "square"}
BOXES = ((32, 32, 16, 8, 0.9, 0.1), (33, 32, 16, 8, 0.8, 0.0), (10, 40, 4, 6, 0.0, 0.5))


def test_a_yolo_file_undoes_its_letterbox_and_thins_out(tmp_path):
    place = onnx_file(tmp_path, [yolo(*BOXES)], names=NAMED)
    image = np.zeros((32, 128, 3), np.uint8)  # half the size, 24 rows of grey above and below
    (found,) = build("onnx", place, onnx_layout="yolo").detector.detect([image])
    assert found.labels.tolist() == [1, 0, 0]
    assert found.scores.tolist() == [0.9, 0.5, 0.1]
    assert found.boxes.tolist() == [[48, 8, 80, 24], [16, 26, 24, 32], [48, 8, 80, 24]]


def test_a_yolo_file_with_objectness(tmp_path):
    values = np.concatenate([yolo(*BOXES)[:, :4], np.full((1, 1, 10), 0.5), yolo(*BOXES)[:, 4:]], axis=1)
    place = onnx_file(tmp_path, [values.transpose(0, 2, 1)], names=NAMED)
    image = np.zeros((64, 64, 1), np.uint16)
    (found,) = build("onnx", place, onnx_layout="yolo-objectness").detector.detect([image])
    assert found.scores.tolist() == [0.45, 0.25, 0.05]
    assert found.boxes[0].tolist() == [24, 28, 40, 36]


@pytest.mark.parametrize("layout", ["detr", "detr-softmax"])
def test_a_detr_file_is_stretched(tmp_path, layout):
    logits = np.full((1, 5, 2 + (layout == "detr-softmax")), -9.0)
    logits[0, 0, 1], logits[0, 1:, -1] = 2.0, (9.0 if layout == "detr-softmax" else -9.0)
    boxes = np.tile([0.5, 0.5, 0.25, 0.5], (1, 5, 1))
    place = onnx_file(tmp_path, [logits, boxes], names=NAMED)
    (found,) = build("onnx", place, onnx_layout=layout).detector.detect([np.zeros((40, 80, 3), np.uint8)])
    assert found.labels.tolist() == [0]
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-2)) if layout == "detr" else 1, abs=1e-4)
    assert found.boxes.tolist() == [[30, 10, 50, 30]]


def test_what_a_file_is_shown_is_the_letterboxed_image(tmp_path, monkeypatch):
    place = onnx_file(tmp_path, [yolo()], names=NAMED)
    detector = build("onnx", place, onnx_layout="yolo").detector
    image = np.full((32, 128, 3), 255, np.uint8)
    shown = []
    given = detector._session.get_inputs()[0].name

    def run(_, feed):
        shown.append(feed[given])
        return [yolo()]

    monkeypatch.setattr(detector, "_session", SimpleNamespace(run=run))
    detector.detect([image])
    (stack,) = shown
    assert stack.shape == (1, 3, 64, 64)
    assert (stack[0, :, 24:40] == 1).all()
    assert stack[0, :, :24] == pytest.approx(114 / 255)


def test_a_file_of_yolox_is_shown_bytes_from_the_corner(tmp_path):
    place = onnx_file(tmp_path, [yolo((32, 8, 16, 8, 0.9, 0.1))], names=NAMED)
    options = {"onnx_layout": "yolo", "onnx_resize": "corner", "onnx_norm": "bytes-bgr"}
    detector = build("onnx", place, **options).detector
    (found,) = detector.detect([np.zeros((32, 128, 3), np.uint8)])
    assert found.boxes[0].tolist() == [48, 8, 80, 24]
    shown = detector._made(np.full((32, 128, 3), (1, 2, 3), np.uint8), (0.5, 0.5), 0, 0)
    assert shown[:, 0, 0].tolist() == [3, 2, 1]
    assert shown[:, 20, 0].tolist() == [114] * 3


def test_a_file_of_other_outputs_says_what_was_declared(tmp_path):
    place = onnx_file(tmp_path, [yolo()], names=NAMED)
    for layout, said in (("yolo-objectness", r"\(N, anchors, 7\), got \(N, 6, 10\)"), ("detr", "logits")):
        with pytest.raises(ModelError, match=said):
            build("onnx", place, onnx_layout=layout).detector.detect([np.zeros((64, 64, 3), np.uint8)])


class Fixed(torch.nn.Module):
    """A YOLO's export as far as its outputs go: every cell's colour decides the score of the box that it holds."""

    def forward(self, x):
        red = torch.nn.functional.avg_pool2d(x[:, :1], 16).flatten(1)  # (N, 16) of a 64 px input
        at = torch.arange(4, dtype=torch.float32) * 16 + 8
        cy, cx = torch.meshgrid(at, at, indexing="ij")
        boxes = torch.stack([cx.flatten(), cy.flatten(), torch.full((16,), 16.0), torch.full((16,), 12.0)])
        return torch.cat([boxes[None].expand(x.shape[0], -1, -1), red[:, None], 0.1 * red[:, None]], dim=1)


@pytest.mark.filterwarnings("ignore")
def test_a_model_exported_by_torch_detects_what_it_did_before(tmp_path):
    """The exporter of TorchScript: the newer one needs onnxscript, which nothing else here does."""
    pytest.importorskip("onnx", reason="torch writes ONNX with it")
    pytest.importorskip("onnxruntime", reason="pip install 'rarefill[onnx]'")
    path = tmp_path / "exported.onnx"
    axes = {"images": {0: "batch"}, "found": {0: "batch"}}
    torch.onnx.export(
        Fixed().eval(),
        (torch.zeros(1, 3, 64, 64),),
        str(path),
        input_names=["images"],
        output_names=["found"],
        dynamic_axes=axes,
        dynamo=False,
    )
    (tmp_path / "names.txt").write_text("disc\nsquare\n")
    image = np.zeros((64, 128, 3), np.uint8)  # seen at half its size, 16 px of grey above and below
    image[32:64, 64:96] = (230, 0, 0)
    made = build("onnx", path, onnx_layout="yolo", class_names=tmp_path / "names.txt")
    first, second = made.detector.detect([image, np.zeros_like(image)])
    best = first.scores.argmax()
    np.testing.assert_allclose(first.boxes[best], [64, 36, 96, 60])
    assert OURS[first.labels[best]] == "disc"
    assert first.scores[best] == pytest.approx(230 / 255, abs=1e-3)
    assert second.scores.max(initial=0) < 0.5


def test_a_file_without_names_asks_for_them(tmp_path):
    place = onnx_file(tmp_path, [yolo()])
    one_line(place, "give a file of them to --class-names", checker="onnx", onnx_layout="yolo")
    (tmp_path / "names.txt").write_text("square\ndisc\n")
    made = build("onnx", place, onnx_layout="yolo", class_names=tmp_path / "names.txt")
    assert made.known == {0, 1}


def test_outputs_that_are_no_numbers_are_told(tmp_path):
    place = onnx_file(tmp_path, [yolo((np.nan,) * 6)], names=NAMED)
    with pytest.raises(ModelError, match="no numbers"):
        build("onnx", place, onnx_layout="yolo").detector.detect([np.zeros((64, 64, 3), np.uint8)])


def test_a_file_that_is_no_onnx_is_one_line(tmp_path):
    pytest.importorskip("onnxruntime", reason="pip install 'rarefill[onnx]'")
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    one_line(tmp_path / "a.onnx", "cannot be read as ONNX", checker="onnx", onnx_layout="yolo")


def test_without_onnx_runtime_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    one_line(tmp_path / "a.onnx", r"pip install 'rarefill\[onnx\]'", checker="onnx", onnx_layout="yolo")


# A detector of the user's, as the checker.


class Blobs:
    """Finds the tiny dataset's squares by their colour: right always, as far as anyone can see."""

    def __init__(self):
        self.looked = 0

    def detect(self, images):
        self.looked += len(images)
        return [self._one(pictures.rgb(image)) for image in images]

    def _one(self, image):
        blue = ((image[:, :, 2] > 180) & (image[:, :, 0] < 110)).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(blue)
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]], dtype=float).reshape(-1, 4)
        return Detections(boxes, np.zeros(count - 1, np.int64), np.full(count - 1, 0.8))


@pytest.fixture(scope="module")
def data(tiny_once):
    return dataset.load(tiny_once)


@pytest.fixture(scope="module")
def shapes(data):
    return bank.build(data, ["square"])


def rendered(data, mask):
    background = data.read(0)
    pixels = background.copy()
    pixels[mask.full(*pixels.shape[:2])] = (51, 191, 230)
    placement = Placement("square", mask, depth=0)
    return Render(Layout(0, 0, (placement,)), background, pixels, (Paint(0, mask, mask, "paste"),))


SQUARE = Mask(40, 30, np.ones((16, 16), bool))


def test_a_detector_of_the_users_judges_paint_by_real_objects(data, shapes, tmp_path):
    checker = annotators.build(CheckerConfig(), data, shapes, seed=0, cache=tmp_path, detector=Blobs())
    (standing,) = [s for s in checker.table if s.category == "square"]
    assert (standing.found, standing.threshold) == (1.0, 0.8)
    render = rendered(data, SQUARE)
    ((verdict,),) = checker.check([render], [(0,)])
    assert verdict.reason is Reason.ACCEPTED
    assert verdict.score == 0.8


def test_one_image_is_looked_at_once(data, shapes, tmp_path):
    own = Blobs()
    checker = annotators.build(CheckerConfig(), data, shapes, seed=0, cache=tmp_path, detector=own)
    before = own.looked
    render = rendered(data, SQUARE)
    checker.check([render, render], [(0,), (0,)])
    checker.check([render], [(0,)])
    assert own.looked == before + 1


def test_what_a_named_detector_said_is_kept(data, shapes, saved, tmp_path, monkeypatch):
    config = CheckerConfig(checker="transformers", detector=str(saved("rt_detr_v2")))
    first = annotators.build(config, data, shapes, seed=0, cache=tmp_path).table
    assert [p.name for p in tmp_path.rglob("*.json")] == ["held-back.json"]
    monkeypatch.setattr(Whole, "look", None)
    assert annotators.build(config, data, shapes, seed=0, cache=tmp_path).table == first
    assert {s.category for s in first} == {"square", "disc"}  # it has no class for stars


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "0 answers for 1 images"),
        ([Detections(np.zeros((1, 3)), np.zeros(1, int), np.zeros(1))], r"boxes \(N, 4\)"),
        ([Detections(np.full((1, 4), np.nan), np.zeros(1, int), np.zeros(1))], "no numbers"),
        ([Detections(np.ones((1, 4)), np.zeros(1, int), np.ones(1) * 70)], "scores from 0 to 1"),
        ([Detections(np.ones((1, 4)), np.full(1, 3), np.ones(1))], "rows of the dataset's 3 categories"),
    ],
)
def test_a_detector_that_does_not_answer_is_told(answer, said):
    judge = Whole(SimpleNamespace(detect=lambda _: answer), 3)
    with pytest.raises(ModelError, match=said):
        judge.look(np.zeros((8, 8, 3), np.uint8), 0, Box(1, 1, 4, 4), 0, 0.5)


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint16")])
def test_any_depth_and_bands_can_be_looked_at(saved, tmp_path, bands, dtype):
    data = dataset.load(make_tiny(tmp_path / "tiny", images=2, bands=bands, dtype=dtype))
    detector = build("transformers", saved("d_fine")).detector
    raw, seen = detector.detect([data.read(0), pictures.rgb(data.read(0))])
    assert same(raw, seen)


# The recipe.


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"checker": "transformers"},
            "annotator.detector must be a folder or a model of the hub for checker",
        ),
        ({"detector": "x"}, "annotator.detector must be left out for checker fitted"),
        (
            {"checker": "onnx", "detector": "a.onnx"},
            "annotator.onnx_layout must be yolo, yolo-objectness, detr",
        ),
        ({"checker": "torchvision", "detector": "a", "class_names": "b"}, "annotator.architecture must be"),
        ({"map": "cat"}, "annotator.map must be CLASS=NAME"),
    ],
)
def test_what_a_checker_needs_is_asked_for_in_one_line(options, line):
    with pytest.raises(RecipeError) as e:
        recipes.resolve({"annotator": options})
    assert line in str(e.value)
    assert "\n" not in str(e.value)


def test_a_map_comes_from_a_flag_or_a_file():
    flag = CheckerConfig(map="stop sign=sign,Car=car")
    assert flag.map == CheckerConfig(map={"stop sign": "sign", "Car": "car"}).map
    assert CheckerConfig(map=["a=b"]).map == {"a": "b"}
