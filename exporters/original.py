"""The user's file as its own JSON: what is copied is copied as it was printed, numbers and unknown keys included."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from rarefill.dataset import Dataset
from rarefill.errors import RunError
from rarefill.exporters import spans

Entry = dict[str, Any]
"""One JSON object; values that are copied are msgspec.Raw."""


class _Id(msgspec.Struct, gc=False):
    id: Any = None


_NO_ID = int(np.iinfo(np.int64).min)
_IDS = msgspec.json.Decoder(list[_Id])


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One of the file's lists.

    Attributes:
        elements: every entry of the file, undecoded.
        row: int64 (N,), which of them each row of the dataset is: lenient reading leaves some out.
        largest: the largest id in the list, 0 where it is empty.
    """

    elements: list[Raw]
    row: NDArray[np.intp]
    largest: int

    @classmethod
    def of(cls, value: Raw, ids: NDArray[np.int64]) -> "Rows":
        """The entries that have these ids.

        Raises:
            KeyError: an id is not in the file.
        """
        elements = spans.elements(value)
        held = _ids(value, elements)
        order = np.argsort(held, kind="stable")
        at = np.searchsorted(held, ids, sorter=order)
        row = order[np.minimum(at, len(held) - 1)] if len(held) else np.zeros(len(ids), dtype=np.intp)
        unknown = held[row] != ids if len(held) else np.ones(len(ids), dtype=bool)
        if unknown.any():
            raise KeyError(f"no id {ids[int(unknown.argmax())]}")
        return cls(elements, row, int(held.max(initial=0)))

    def __getitem__(self, row: int) -> Entry:
        """One entry's keys with their values undecoded."""
        return dict(spans.members(self.elements[self.row[row]]))


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """The user's file, one level deep.

    Attributes:
        top: every top-level key with its undecoded value, in the file's order.
        images: the file's images, by the dataset's rows.
        annotations: the file's annotations, by the dataset's rows.
    """

    top: dict[str, Raw]
    images: Rows
    annotations: Rows


def read(dataset: Dataset) -> Original:
    """The dataset's file, read once more; of YOLO, what a COCO file would say of it.

    Raises:
        RunError: the file is gone, or no longer what was loaded.
    """
    try:
        data = dataset.path.read_bytes() if dataset.format == "coco" else as_coco(dataset)
        top = spans.members(data.removeprefix(b"\xef\xbb\xbf"))
        images = Rows.of(top["images"], dataset.images.id)
        annotations = Rows.of(top["annotations"], dataset.annotations.id)
    except OSError as e:
        raise RunError(f"{dataset.path}: cannot be read: {e.strerror or e}") from e
    except (KeyError, ValueError) as e:
        raise RunError(f"{dataset.path}: is no longer the file that was loaded ({e}); run again") from e
    return Original(top, images, annotations)


def as_coco(dataset: Dataset) -> bytes:
    """A dataset's columns as a COCO file."""
    encode = msgspec.json.encode
    images, a = dataset.images, dataset.annotations
    rows = zip(
        images.id.tolist(), images.file_name, images.width.tolist(), images.height.tolist(), strict=True
    )
    entries = (encode({"id": i, "file_name": f, "width": w, "height": h}) for i, f, w, h in rows)
    categories = encode(
        [{"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in dataset.categories]
    )
    info = encode({"description": f"{dataset.path.parent.name}/{dataset.path.name}, read as COCO"})
    annotations = (encode(_columns(dataset, row)) for row in range(len(a)))
    return b"".join(
        (
            b'{"info":' + info + b',"licenses":[],"categories":' + categories,
            b',"images":[' + b",".join(entries),
            b'],"annotations":[' + b",".join(annotations) + b"]}",
        )
    )


def _columns(dataset: Dataset, row: int) -> Entry:
    a = dataset.annotations
    x, y, width, height = dataset.box(row).xywh
    out: Entry = {
        "id": int(a.id[row]),
        "image_id": int(dataset.images.id[a.image[row]]),
        "category_id": dataset.categories[a.category[row]].id,
        "bbox": [x, y, width, height],
        "area": float(a.area[row]),
        "iscrowd": int(a.crowd[row]),
    }
    if dataset.has_mask(row):
        out["segmentation"] = Raw(bytes(a.segmentation[row]))
    return out


def has_masks(dataset: Dataset) -> bool:
    """Whether any annotation of the dataset has a segmentation."""
    return any(map(dataset.has_mask, range(len(dataset.annotations))))


def _ids(value: Raw, elements: list[Raw]) -> NDArray[np.int64]:
    """The id of each entry; the least number where it has none: lenient reading left those out."""
    try:
        return np.array([_whole(e.id) for e in _IDS.decode(value)], dtype=np.int64)
    except msgspec.MsgspecError:
        held = map(spans.value, elements)
        return np.array([_whole(e.get("id") if isinstance(e, dict) else None) for e in held], dtype=np.int64)


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and abs(value) < 2**63 else _NO_ID
