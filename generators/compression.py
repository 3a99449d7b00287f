"""What JPEG did to an image's file, done to what is painted into it."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from rarefill.dataset import Dataset
from rarefill.generators.window import Colours

_UNIT_PX: Final = 16
"""Side of the largest block that a file's colours are coded in: painted blocks lie where the file's lie."""
_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Tables:
    """How one JPEG file was coded.

    Attributes:
        quantization: its tables, as Pillow reads and writes them.
        subsampling: of its colours, Pillow's number; -1 for grey.
    """

    quantization: dict[int, list[int]]
    subsampling: int


class Compression:
    """Codes parts of images with the tables of their own files. Safe in several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.tables = lru_cache(_KEPT)(self._tables)

    def of(self, colours: Colours, image: int, x: int, y: int) -> Colours:
        """Colours as the image's file would give them back; unchanged where it is no JPEG.

        Args:
            colours: float32 (h, w, C), 0 to 255.
            image: row of the image.
            x: column of the part's left edge in the image, and
            y: row of its top edge: they decide where its blocks lie.
        """
        tables = self.tables(image)
        if tables is None:
            return colours
        height, width, n = colours.shape
        left, top = x % _UNIT_PX, y % _UNIT_PX
        pads = (top, -(top + height) % _UNIT_PX, left, -(left + width) % _UNIT_PX)
        whole = np.clip(np.rint(cv2.copyMakeBorder(colours, *pads, cv2.BORDER_REPLICATE)), 0, 255)
        picture = Image.fromarray(whole.astype(np.uint8).reshape(*whole.shape[:2], n).squeeze())
        coded = BytesIO()
        own = tables.quantization if n == 3 else {0: tables.quantization[0]}
        # Pillow takes a number of its own for "as it is": grey files have no colours to sample.
        sampling = {"subsampling": tables.subsampling} if n == 3 and tables.subsampling >= 0 else {}
        picture.save(coded, "jpeg", qtables=own, **sampling)
        # The images were decoded by cv2, so this is, too.
        decoded = cv2.imdecode(np.frombuffer(coded.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
        back = np.atleast_3d(np.asarray(decoded))[top : top + height, left : left + width, ::-1]
        return np.ascontiguousarray(back, dtype=np.float32)

    def _tables(self, image: int) -> Tables | None:
        try:
            with Image.open(self._dataset.image_path(image)) as file:
                if not isinstance(file, JpegImageFile) or file.mode not in {"L", "RGB"}:
                    return None
                held = {number: list(table) for number, table in file.quantization.items()}
                if file.mode == "RGB" and len(held) == 1:
                    held[1] = held[0]
                return Tables(held, get_sampling(file) if file.mode == "RGB" else -1)
        except (OSError, UnidentifiedImageError):
            return None  # not Pillow's to read; cv2 reads more
