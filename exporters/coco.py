"""COCO files: the new images alone, and the user's file with the new images after its own.

What an untouched object's label said, it still says, to the letter. What was painted or changed is measured.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

import rarefill
from rarefill.dataset import Dataset
from rarefill.errors import RunError
from rarefill.exporters import original, spans
from rarefill.exporters.original import Entry, Original
from rarefill.exporters.outline import compressed, rings, run_lengths
from rarefill.exporters.pile import Pile
from rarefill.files import writing
from rarefill.geometry import Box, Mask
from rarefill.progress import SILENT, Progress
from rarefill.scene import Instance, Sample

Segmentation = list[list[int]] | dict[str, Any]

# A new picture is not the one behind the link, and LVIS readers take the file's name from it.
_OTHER_PICTURE = frozenset({"id", "file_name", "width", "height", "coco_url", "rarefill"})
_ENCODER = msgspec.json.Encoder()


def segmentation(mask: Mask, height: int, width: int, *, crowd: bool = False) -> Segmentation:
    """A mask as pycocotools gives back pixel by pixel.

    Parts without holes are polygons along the pixels' edges. COCO's polygons know no holes, so a mask with one is
    compressed run lengths; so is a crowd, as everywhere in COCO.

    Args:
        mask: the pixels, in the image's frame.
        height: of the image in pixels.
        width: of the image in pixels.
        crowd: whether the annotation is one.
    """
    if not crowd:
        outline = rings(mask)
        if not any(ring.hole for ring in outline):
            return [ring.points.ravel().tolist() for ring in outline]
    return {
        "size": [height, width],
        "counts": compressed(run_lengths(mask, height, width), height, width),
    }


def annotation(
    instance: Instance,
    *,
    id: int,
    image_id: int,
    category_id: int,
    size: tuple[int, int] | None = None,
) -> Entry:
    """One measured object as a COCO annotation.

    Args:
        instance: the object; a mask lies inside the image.
        id: unique in the file, from 1: COCOeval reads 0 as "no match".
        image_id: of the image it is on.
        category_id: as in the user's file.
        size: height and width of the image, for the segmentation; None leaves it out.

    Returns:
        bbox is (left, top, width, height) in pixels; area is the mask's pixel count where the mask is written, else
        the box's, as in data that has boxes only.
    """
    mask = None if size is None else instance.mask
    out: Entry = {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": _bbox(instance.box),
        "area": round(instance.box.area, 2) if mask is None else mask.area,
        "iscrowd": int(instance.crowd),
    }
    if size is not None and mask is not None:
        out["segmentation"] = segmentation(mask, *size, crowd=instance.crowd)
    return {**out, **_paint(instance)}


def _paint(instance: Instance) -> Entry:
    """The record of a painted object, new or redrawn; nothing for one of the background."""
    if instance.annotation is not None:
        return {}
    score = {} if instance.score is None else {"score": round(instance.score, 4)}
    cut = {"changed": True} if instance.changed else {}
    return {"rarefill": {**instance.how, **score, **cut}}


def _bbox(box: Box) -> list[float]:
    """Edges to hundredths of a pixel, so that left + width is the right edge to the same precision."""
    x1, y1, x2, y2 = (round(v, 2) for v in box.xyxy)
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def changed(entry: Entry, measured: Entry, *, had_mask: bool) -> Entry:
    """A label that paint hides in part: its own keys, with what was measured anew.

    Args:
        entry: as in the user's file.
        measured: from `annotation`.
        had_mask: whether the entry's segmentation means something; then it goes, even where none was measured.
    """
    out = {key: value for key, value in entry.items() if not (had_mask and key == "segmentation")}
    out.update(measured)
    out["rarefill"] = {**_record(entry), "changed": True, "was": entry["id"]}
    return out


def _record(entry: Entry) -> dict[str, Any]:
    """What an earlier run said of an entry."""
    value = spans.value(entry["rarefill"]) if "rarefill" in entry else None
    return value if isinstance(value, dict) else {}


def image(entry: Entry, sample: Sample, *, id: int, folder: str, dropped: list[Entry]) -> Entry:
    """A new image's entry: the background's licence and other keys, under its own name.

    Args:
        entry: of the background, as in the user's file.
        sample: the new image.
        id: unique in the file.
        folder: what stands before the file's name; empty or ending in a slash.
        dropped: objects of the background that paint hides.
    """
    record: Entry = {"background": entry["id"], "copy": sample.copy, **sample.how}
    if dropped:
        record["dropped"] = dropped
    return {
        "id": id,
        "file_name": folder + sample.file_name,
        "width": sample.width,
        "height": sample.height,
        **{key: value for key, value in entry.items() if key not in _OTHER_PICTURE},
        "rarefill": record,
    }


def synthetic(
    path: Path,
    dataset: Dataset,
    samples: Iterable[Sample],
    *,
    masks: bool | None = None,
    role: str = "train",
    total: int = 0,
    progress: Progress = SILENT,
) -> None:
    """Write the new images alone. File names are relative to the run's `images/`.

    Annotations are numbered from 1; an image's id is its sample's number.

    Args:
        path: the file to write.
        dataset: what the samples' rows mean.
        samples: in the order to write.
        masks: whether painted objects get a segmentation; by default when any object of the dataset has one.
        role: what the images are for; `val` and `test` stand in the file's info as synthetic.
        total: how many samples there are, for the progress.
        progress: counts the images.

    Raises:
        RunError: the file cannot be written, or the dataset's file is no longer the one that was loaded.
    """
    source = original.read(dataset)
    info = {"description": f"made by rarefill from {dataset.path.name}", "version": rarefill.__version__}
    if role != "train":
        info["role"] = f"synthetic {role}"
    new = {"info": Raw(_ENCODER.encode(info)), "images": Raw(b"[]"), "annotations": Raw(b"[]")}
    # What entries refer to comes along: licences, categories, and keys that only the user knows.
    top = {**source.top, **new}
    pen = _Pen(source, dataset, original.has_masks(dataset) if masks is None else masks)
    with _piles(path.parent) as piles, progress.bar(f"Writing {path.name}", total, "images") as bar:
        for sample in samples:
            pen.add(sample, piles)
            bar.advance()
        _put_together(path, top, piles)


def merged(
    path: Path,
    dataset: Dataset,
    samples: Iterable[Sample],
    *,
    images: Path,
    masks: bool | None = None,
    total: int = 0,
    progress: Progress = SILENT,
) -> None:
    """Write the user's file as it is, the new images and annotations after its own, with ids after its largest.

    Args:
        path: the file to write.
        dataset: what the samples' rows mean.
        samples: in the order to write.
        images: the folder of the new images; their names lead there from the user's image folder.
        masks: as in `synthetic`.
        total: as in `synthetic`.
        progress: as in `synthetic`.

    Raises:
        RunError: as in `synthetic`.
    """
    source = original.read(dataset)
    after = (source.images.largest, source.annotations.largest)
    # Resolved, because the system follows links before it follows "..".
    folder = Path(os.path.relpath(images.resolve(), dataset.root.resolve())).as_posix() + "/"
    pen = _Pen(source, dataset, original.has_masks(dataset) if masks is None else masks, folder, *after)
    with _piles(path.parent) as piles, progress.bar(f"Writing {path.name}", total, "images") as bar:
        for sample in samples:
            pen.add(sample, piles)
            bar.advance()
        _put_together(path, source.top, piles)


@dataclass(slots=True)
class _Pen:
    """Turns samples into entries and counts their ids. `image_id` and `annotation_id` are the largest in use before."""

    source: Original
    dataset: Dataset
    masks: bool
    folder: str = ""
    image_id: int = 0
    annotation_id: int = 0

    def add(self, sample: Sample, piles: Mapping[str, Pile]) -> None:
        """Pile up a sample's image and annotations."""
        image_id = self.image_id + sample.number
        dropped = [
            {"annotation": int(self.dataset.annotations.id[row]), "visible": round(share, 4)}
            for row, share in sample.dropped
        ]
        background = self.source.images[sample.image]
        entry = image(background, sample, id=image_id, folder=self.folder, dropped=dropped)
        piles["images"].add(_ENCODER.encode(entry))
        for instance in sample.instances:
            self.annotation_id += 1
            ids = {"id": self.annotation_id, "image_id": image_id}
            piles["annotations"].add(
                _ENCODER.encode(self._entry(instance, (sample.height, sample.width), ids))
            )

    def _entry(self, instance: Instance, size: tuple[int, int], ids: dict[str, int]) -> Entry:
        row = instance.row
        if row is not None and not instance.changed:
            return {**self.source.annotations[row], **ids, **_paint(instance)}
        category_id = self.dataset.categories[self.dataset.category_row(instance.category)].id
        if row is None:
            return annotation(instance, **ids, category_id=category_id, size=size if self.masks else None)
        had_mask = self.dataset.has_mask(row)
        measured = annotation(instance, **ids, category_id=category_id, size=size if had_mask else None)
        return {**changed(self.source.annotations[row], measured, had_mask=had_mask), **_paint(instance)}


@contextmanager
def _piles(folder: Path) -> Iterator[dict[str, Pile]]:
    try:
        with Pile(folder) as images, Pile(folder) as annotations:
            yield {"images": images, "annotations": annotations}
    except OSError as e:
        raise RunError(f"{folder}: cannot be written: {e.strerror or e}; free space, then run again") from e


def _put_together(path: Path, top: Mapping[str, Raw], piles: Mapping[str, Pile]) -> None:
    """Write top-level keys in their order; where a pile has the key's name, its elements follow those that are there."""
    with writing(path) as out:
        for n, (key, value) in enumerate(top.items()):
            out.write((b",\n" if n else b"{\n") + _ENCODER.encode(key) + b":")
            if key not in piles:
                out.write(value)
                continue
            inside = memoryview(value)[1:-1]
            out.write(b"[")
            out.write(inside)
            if piles[key].n and re.search(rb"\S", inside):
                out.write(b",")
            piles[key].pour(out)
            out.write(b"]")
        out.write(b"}\n")
