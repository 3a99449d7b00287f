"""Detectors as ONNX files, run by ONNX Runtime: the recipe declares what their outputs mean."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from rarefill.annotators.detectors import LEAST_SCORE, Detections, batches, folders, names
from rarefill.errors import ModelError
from rarefill.geometry import FloatArray
from rarefill.recipe import CheckerConfig
from rarefill.scene import Pixels

_GREY: Final = 114  # what YOLO's own letterbox is filled with
_SIDE: Final = 640
"""Of the input, where the file leaves it open and the recipe does not say."""
_SAME: Final = 0.7  # IoU from which two boxes of one class are one object, as YOLO's own export has it
_MOST: Final = 300  # detections of an image
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class OnnxFile:
    """A session, how its input is made, and what its outputs mean."""

    def __init__(
        self, session: Any, config: CheckerConfig, classes: Sequence[str], rows: NDArray[np.int64], where: str
    ) -> None:
        self._session, self._config, self._rows, self._where = session, config, rows, where
        self._n_classes = len(classes)
        (self._input,) = session.get_inputs()
        count, _, height, width = self._input.shape
        side = config.onnx_px or _SIDE
        self._height = height if isinstance(height, int) else side
        self._width = width if isinstance(width, int) else side
        self._batch = count if isinstance(count, int) else config.detector_batch
        self._fixed = isinstance(count, int)

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image."""
        return batches.each(images, self._batch, self._look)

    def _look(self, images: list[Pixels]) -> list[Detections]:
        height, width = images[0].shape[:2]
        scale, left, top = self._fit(height, width)
        stack = np.stack([self._made(image, scale, left, top) for image in images])
        if self._fixed and len(stack) < self._batch:  # an export for so many images takes no fewer
            stack = np.concatenate([stack, stack[-1:].repeat(self._batch - len(stack), axis=0)])
        outputs = self._session.run(None, {self._input.name: stack})
        found = []
        for n in range(len(images)):
            boxes, labels, scores = self._read(
                [np.asarray(output[n], dtype=np.float64) for output in outputs]
            )
            boxes = (boxes - np.array([left, top] * 2)) / np.array(scale * 2)
            rows = self._rows[labels]
            found.append(batches.detections(boxes, rows, scores, size=(height, width), where=self._where))
        return found

    def _fit(self, height: int, width: int) -> tuple[tuple[float, float], float, float]:
        """Input pixels per image pixel, across and down, and where the image begins in the input."""
        across, down = self._width / width, self._height / height
        how = resized(self._config)
        if how == "stretch":
            return (across, down), 0.0, 0.0
        scale = min(across, down)
        free = self._width - round(width * scale), self._height - round(height * scale)
        left, top = (0, 0) if how == "corner" else (free[0] // 2, free[1] // 2)
        return (scale, scale), float(left), float(top)

    def _made(
        self, image: Pixels, scale: tuple[float, float], left: float, top: float
    ) -> NDArray[np.float32]:
        """float32 (3, H, W) of one image."""
        height, width = image.shape[:2]
        size = (max(1, round(width * scale[0])), max(1, round(height * scale[1])))
        small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        canvas = np.full((self._height, self._width, 3), _GREY, dtype=np.uint8)
        canvas[int(top) : int(top) + size[1], int(left) : int(left) + size[0]] = small
        values = canvas.astype(np.float32)
        match self._config.onnx_norm:
            case "unit":
                values /= np.float32(255)
            case "imagenet":
                values = (values / np.float32(255) - _MEAN) / _STD
            case "bytes-bgr":
                values = values[:, :, ::-1]
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    def _read(self, outputs: list[FloatArray]) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
        """Boxes x1 y1 x2 y2 in the input's pixels, class numbers and scores, from one image's outputs.

        Raises:
            ModelError: the outputs are not what the recipe declares.
        """
        for output in outputs:
            if np.isnan(output).any():
                raise ModelError(f"{self._where}: gives outputs that are no numbers; its export is broken")
        layout, n = self._config.onnx_layout, self._n_classes
        if layout in {"detr", "detr-softmax"}:
            return self._sets(outputs, n + (layout == "detr-softmax"))
        wanted = (4 + n, None) if layout == "yolo" else (None, 5 + n)
        fitting = [
            o
            for o in outputs
            if o.ndim == 2 and all(w in (None, s) for w, s in zip(wanted, o.shape, strict=True))
        ]
        if not fitting:
            said = f"(N, {4 + n}, anchors)" if layout == "yolo" else f"(N, anchors, {5 + n})"
            raise self._unlike(f"an output {said}", outputs)
        values = fitting[0].T if layout == "yolo" else fitting[0]
        scores = values[:, 4:] if layout == "yolo" else values[:, 4:5] * values[:, 5:]
        return _thinned(_corners(values[:, :4]), scores)

    def _sets(self, outputs: list[FloatArray], n: int) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
        boxes = next((o for o in outputs if o.ndim == 2 and o.shape[1] == 4 and _shares(o)), None)
        logits = next((o for o in outputs if o is not boxes and o.ndim == 2 and o.shape[1] == n), None)
        if boxes is None or logits is None:
            raise self._unlike(f"logits (N, queries, {n}) and boxes (N, queries, 4) from 0 to 1", outputs)
        if self._config.onnx_layout == "detr-softmax":
            grown = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = (grown / grown.sum(axis=1, keepdims=True))[:, :-1]
        else:
            scores = 1 / (1 + np.exp(-logits))
        query, label = np.nonzero(scores >= LEAST_SCORE)
        corners = _corners(boxes) * np.array([self._width, self._height] * 2)
        return corners[query], label.astype(np.int64), scores[query, label]

    def _unlike(self, wanted: str, outputs: list[FloatArray]) -> ModelError:
        came = ", ".join(f"(N, {', '.join(map(str, o.shape))})" for o in outputs)
        return ModelError(
            f"{self._where}: {self._config.onnx_layout} of {self._n_classes} classes means {wanted}, got {came}; "
            "choose another --onnx-layout, or give the right --class-names"
        )


def load(
    config: CheckerConfig, ours: Sequence[str], needed: Sequence[str]
) -> tuple[OnnxFile, frozenset[int]]:
    """The recipe's detector, and the categories that it knows.

    Raises:
        ModelError: ONNX Runtime is not installed, the file cannot be read, or lacks a needed category.
    """
    try:
        import onnxruntime as runtime
    except ImportError as error:
        raise ModelError("checker onnx needs ONNX Runtime: pip install 'rarefill[onnx]'") from error
    where = str(config.detector)
    place = folders.find(where)
    folders.refuse_pickles(place.parent, [place.name])
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    held = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        session = runtime.InferenceSession(str(place), providers=held)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"{place}: cannot be read as ONNX ({said})") from error
    _check_input(session, place)
    classes = names.read(Path(config.class_names)) if config.class_names else _classes(session, place)
    rows = names.rows(classes, ours, needed=needed, mapped=config.map, where=where)
    known = frozenset(int(row) for row in rows if row >= 0)
    return OnnxFile(session, config, classes, rows, where), known


def resized(config: CheckerConfig) -> str:
    """How an image becomes the input: YOLO's keeps its shape, DETR's is stretched, unless the recipe says otherwise."""
    if config.onnx_resize != "auto":
        return config.onnx_resize
    return "letterbox" if config.onnx_layout in {"yolo", "yolo-objectness"} else "stretch"


def _check_input(session: Any, place: Path) -> None:
    inputs = session.get_inputs()
    shapes = [f"{i.name} {i.shape}" for i in inputs]
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in {3, "channels", None}:
        raise ModelError(
            f"{place}: one input (N, 3, height, width) is expected, got {', '.join(shapes)}; export it without its processing"
        )
    if inputs[0].type != "tensor(float)":
        raise ModelError(
            f"{place}: an input of 32-bit floats is expected, got {inputs[0].type}; export it in float32"
        )


def _classes(session: Any, place: Path) -> list[str]:
    """Class names as YOLO's export writes them into the file."""
    text = session.get_modelmeta().custom_metadata_map.get("names")
    if text is None:
        raise ModelError(f"{place}: the file does not name its classes; give a file of them to --class-names")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ModelError(
            f"{place}: its class names cannot be read; give a file of them to --class-names"
        ) from error
    return names.in_order(value, str(place))


def _shares(values: FloatArray) -> bool:
    return bool((values > -0.5).all() and (values < 1.5).all())


def _corners(boxes: FloatArray) -> FloatArray:
    """x1 y1 x2 y2 of cx cy w h."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _thinned(boxes: FloatArray, scores: FloatArray) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """One box for each object and class: of those that overlap much, the one with the best score."""
    anchor, label = np.nonzero(scores >= LEAST_SCORE)
    held, best = boxes[anchor], scores[anchor, label]
    kept = batched_nms(
        torch.from_numpy(held), torch.from_numpy(best), torch.from_numpy(label), _SAME
    ).numpy()[:_MOST]
    return held[kept], label[kept].astype(np.int64), best[kept]
