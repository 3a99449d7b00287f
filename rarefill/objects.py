"""Objects as columns with what can be computed of each: size, place, light, sharpness, surroundings, source."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.geometry import Box
from rarefill.scene import Pixels

_LEAST_PX = 6
"""Side of the smallest part of an image that light and sharpness are taken from."""
_FLAT = 2.0
"""Grey levels of deviation below which a part shows nothing that could be sharp."""

Surroundings = Callable[[int, NDArray[np.float64]], NDArray[np.integer]]
"""The kind of surroundings of boxes (n, 4) on a background, given by its row."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Real or painted objects of one category, N of them.

    Attributes:
        image: int64 (N,), row of the image, or of a painted object's background.
        boxes: float64 (N, 4), labels, x1 y1 x2 y2.
        frame: float64 (N, 2), width and height of the image.
        light: float64 (N,), mean grey inside the box, 0 to 255.
        sharp: float64 (N,), log of how strong its finest detail is against its contrast; nan where it is flat.
        around: int64 (N,), kind of surroundings, from the darkest; -1 where it is not known.
    """

    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    frame: NDArray[np.float64]
    light: NDArray[np.float64]
    sharp: NDArray[np.float64]
    around: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def joined(cls, parts: Iterable["Objects"]) -> "Objects":
        """All rows of all parts."""
        held = list(parts)
        if not held:
            return none()
        return cls(*(np.concatenate([getattr(p, f.name) for p in held]) for f in fields(cls)))

    def take(self, rows: Sequence[int]) -> "Objects":
        """Some rows, in this order."""
        at = np.asarray(rows, dtype=np.intp)
        return Objects(*(getattr(self, f.name)[at] for f in fields(Objects)))

    @property
    def side(self) -> NDArray[np.float64]:
        """float64 (N,), root of the box's area in pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.asarray(np.sqrt(sides[:, 0] * sides[:, 1]))

    @property
    def centre(self) -> NDArray[np.float64]:
        """float64 (N, 2), as shares of the image's width and height."""
        return np.asarray((self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / self.frame)


def none() -> Objects:
    """No objects."""
    n, f = np.zeros(0, np.int64), np.zeros(0)
    return Objects(n, np.zeros((0, 4)), np.zeros((0, 2)), f, f, n)


def seen(pixels: Pixels, image: int, boxes: Iterable[Box], around: Surroundings | None) -> Objects:
    """The columns of objects on one picture.

    Args:
        pixels: of the whole picture, (H, W, C).
        image: row of the image, or of the background.
        boxes: the objects' labels.
        around: their surroundings, on the background; None where nobody looked.
    """
    held = list(boxes)
    if not held:
        return none()
    grey = np.asarray(cv2.cvtColor(pictures.rgb(pixels), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    looks = np.array([look(grey, box) for box in held])
    corners = np.array([box.xyxy for box in held])
    n = len(held)
    return Objects(
        np.full(n, image, dtype=np.int64),
        corners,
        np.tile([float(grey.shape[1]), float(grey.shape[0])], (n, 1)),
        looks[:, 0],
        looks[:, 1],
        np.full(n, -1, dtype=np.int64) if around is None else around(image, corners).astype(np.int64),
    )


def look(grey: NDArray[np.uint8], box: Box) -> tuple[float, float]:
    """How light an object is, 0 to 255, and how sharp: the log of its Laplacian's deviation over its own.

    Args:
        grey: uint8 (H, W), the whole image.
        box: the label.
    """
    part = grey[_within(box.y1, box.y2, grey.shape[0]), _within(box.x1, box.x2, grey.shape[1])]
    values = part.astype(np.float64)
    deviation = float(values.std())
    if deviation < _FLAT:
        return float(values.mean()), float("nan")
    fine = cv2.Laplacian(values, cv2.CV_64F, borderType=cv2.BORDER_REFLECT)
    return float(values.mean()), float(np.log(max(float(fine.std()), 1e-3) / deviation))


def _within(low: float, high: float, size: int) -> slice:
    """The pixels from one edge to another, some at least, inside the image."""
    middle, half = (low + high) / 2, max(high - low, _LEAST_PX) / 2
    start = int(np.clip(np.floor(middle - half), 0, max(0, size - _LEAST_PX)))
    return slice(start, max(start + 1, min(size, int(np.ceil(middle + half)))))
