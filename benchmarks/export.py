"""A million annotations written as COCO: rarefill against dicts and `json.dump`, supervision and datumaro.

    python benchmarks/export.py                 boxes, then masks; about ten minutes
    python benchmarks/export.py --n 100000      a tenth of it

Every writer gets the same objects, twenty to an image of 640 x 480. In the `boxes` round nothing has a mask. In the
`masks` round each object is a disc of some 40 pixels, written exactly by rarefill (polygons along the pixels' edges),
as run lengths by json with pycocotools, and as each of the others does by default. For rarefill and json three of four
objects are labels of the background, copied with the user's own keys; the fourth is painted. Making the
objects for supervision and datumaro is not counted; making them for rarefill and json is, since both take a stream.
supervision and datumaro hold all objects at once, so they get fewer (`--share`), and rates are compared.

Each writer runs in a process of its own; memory is that process's peak above its peak before the work.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT, PER_IMAGE, BACKGROUNDS, PAINTED = 640, 480, 20, 200, 5
Objects = list[tuple[int, int, Any]]  # left, top, mask of each of one image's objects


def objects(image: int) -> Objects:
    """One image's objects, different from image to image."""
    from rarefill.geometry import Mask

    rng = np.random.default_rng(image)
    out = []
    for left, top, radius in rng.integers((0, 0, 14), (WIDTH - 50, HEIGHT - 50, 25), (PER_IMAGE, 3)).tolist():
        span = np.arange(2 * radius + 1) - radius
        mask = Mask.of(np.add.outer(span**2, span**2) <= radius**2, left, top)
        assert mask is not None
        out.append((left, top, mask))
    return out


def users_file(folder: Path, *, masks: bool) -> Path:
    """The user's COCO file: the backgrounds that new images are made from."""
    from rarefill.exporters import coco

    annotations = []
    for image in range(BACKGROUNDS):
        for left, top, mask in objects(image):
            entry = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": 1 + left % 3}
            entry |= {"bbox": list(mask.box.xywh), "area": mask.area, "iscrowd": 0, "by": "hand"}
            if masks:
                entry["segmentation"] = coco.segmentation(mask, HEIGHT, WIDTH)
            annotations.append(entry)
            del top
    images = [
        {"id": n + 1, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT, "license": 1}
        for n in range(BACKGROUNDS)
    ]
    categories = [{"id": n, "name": f"kind {n}", "supercategory": ""} for n in (1, 2, 3)]
    path = folder / "users.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


def rarefill(folder: Path, n: int, *, masks: bool) -> Callable[[], None]:
    """Our stream."""
    import msgspec

    from rarefill import exporters
    from rarefill.dataset import Annotations, Category, Dataset, Images
    from rarefill.geometry import Box
    from rarefill.scene import Instance, Sample

    path = users_file(folder, masks=masks)
    value = json.loads(path.read_text())
    entries = value["annotations"]
    boxes = np.array([e["bbox"] for e in entries])
    boxes[:, 2:] += boxes[:, :2]
    dataset = Dataset(
        path,
        folder,
        "coco",
        tuple(Category(c["id"], c["name"]) for c in value["categories"]),
        Images(
            np.arange(BACKGROUNDS) + 1,
            np.full(BACKGROUNDS, WIDTH),
            np.full(BACKGROUNDS, HEIGHT),
            [f"{k}.png" for k in range(BACKGROUNDS)],
        ),
        Annotations(
            np.array([e["id"] for e in entries]),
            np.array([e["image_id"] - 1 for e in entries]),
            np.array([e["category_id"] - 1 for e in entries]),
            boxes,
            np.array([e["area"] for e in entries], dtype=float),
            np.zeros(len(entries), dtype=bool),
            [msgspec.json.encode(e["segmentation"]) if masks else b"" for e in entries],
        ),
    )
    pool = [objects(image) for image in range(BACKGROUNDS)]
    how: dict[str, str | int | float | bool] = {"generator": "paste", "blend": "feather"}

    def samples() -> Iterator[Sample]:
        for number in range(1, n // PER_IMAGE + 1):
            image = number % BACKGROUNDS
            kept = [
                Instance(dataset.names[dataset.annotations.category[row]], dataset.box(row), annotation=row)
                for row in range(image * PER_IMAGE, (image + 1) * PER_IMAGE - PAINTED)
            ]
            painted = [
                Instance("kind 1", Box(*mask.box.xyxy), mask, score=0.9, how=how)
                for _, _, mask in pool[image][-PAINTED:]
            ]
            yield Sample(number, f"{number}.png", WIDTH, HEIGHT, image, number, (*kept, *painted))

    return lambda: _ignore(exporters.write(("coco",), folder, dataset, samples))


def plain_json(folder: Path, n: int, *, masks: bool) -> Callable[[], None]:
    """What a script does: a dict for each annotation, pycocotools for the masks, one json.dump."""
    from pycocotools import mask as coco_mask

    value = json.loads(users_file(folder, masks=masks).read_text())
    pool = [objects(image) for image in range(BACKGROUNDS)]

    def painted(mask: Any) -> dict[str, Any]:
        entry = {"category_id": 1, "bbox": list(mask.box.xywh), "area": mask.area, "iscrowd": 0}
        entry["rarefill"] = {"generator": "paste", "blend": "feather", "score": 0.9}
        if masks:
            rle = coco_mask.encode(np.asfortranarray(mask.full(HEIGHT, WIDTH), dtype=np.uint8))
            entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        return entry

    def work() -> None:
        images, annotations = [], []
        for number in range(1, n // PER_IMAGE + 1):
            image = number % BACKGROUNDS
            images.append({**value["images"][image], "id": number, "file_name": f"{number}.png"})
            rows = range(image * PER_IMAGE, (image + 1) * PER_IMAGE - PAINTED)
            entries = [dict(value["annotations"][row]) for row in rows]
            entries += [painted(mask) for _, _, mask in pool[image][-PAINTED:]]
            for entry in entries:
                entry |= {"id": len(annotations) + 1, "image_id": number}
                annotations.append(entry)
        with (folder / "annotations.json").open("w") as f:
            json.dump({**value, "images": images, "annotations": annotations}, f)

    return work


def supervision(folder: Path, n: int, *, masks: bool) -> Callable[[], None]:
    """DetectionDataset.as_coco."""
    import cv2
    from supervision import DetectionDataset, Detections

    first = folder / "0.png"
    cv2.imwrite(str(first), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    found = {}
    for number in range(1, n // PER_IMAGE + 1):
        path = folder / f"{number}.png"
        os.link(first, path)
        each = [mask for _, _, mask in objects(number % BACKGROUNDS)]
        found[str(path)] = Detections(
            xyxy=np.array([mask.box.xyxy for mask in each]),
            class_id=np.zeros(len(each), dtype=int),
            mask=np.stack([mask.full(HEIGHT, WIDTH) for mask in each]) if masks else None,
        )
    dataset = DetectionDataset(["kind 1", "kind 2", "kind 3"], list(found), found)
    return lambda: _ignore(dataset.as_coco(annotations_path=str(folder / "annotations.json")))


def datumaro(folder: Path, n: int, *, masks: bool) -> Callable[[], None]:
    """Dataset.export to coco_instances."""
    from datumaro import Bbox, Dataset, DatasetItem, Image, Mask

    def entry(mask: Any, number: int) -> Any:
        if masks:
            return Mask(mask.full(HEIGHT, WIDTH), label=0, id=number, group=number)
        return Bbox(*mask.box.xywh, label=0, id=number, group=number)

    items = [
        DatasetItem(
            id=str(number),
            media=Image.from_numpy(np.zeros((HEIGHT, WIDTH, 3), np.uint8), size=(HEIGHT, WIDTH)),
            annotations=[entry(mask, k + 1) for k, (_, _, mask) in enumerate(objects(number % BACKGROUNDS))],
        )
        for number in range(1, n // PER_IMAGE + 1)
    ]
    dataset = Dataset.from_iterable(items, categories=["kind 1", "kind 2", "kind 3"])
    return lambda: dataset.export(str(folder / "out"), "coco_instances", save_media=False)


WRITERS = {"rarefill": rarefill, "json.dump": plain_json, "supervision": supervision, "datumaro": datumaro}


def _ignore(_: object) -> None: ...


def measure(writer: str, n: int, *, masks: bool) -> None:
    """In a process of its own: one JSON line with seconds and peak MiB."""
    with tempfile.TemporaryDirectory() as name:
        work = WRITERS[writer](Path(name), n, masks=masks)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        written = max(p.stat().st_size for p in Path(name).rglob("*.json") if p.name != "users.json")
    print(json.dumps({"seconds": seconds, "mib": peak / 1024, "file_mib": written / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="annotations")
    parser.add_argument(
        "--share",
        type=float,
        default=0.05,
        help="of n that supervision and datumaro get; a fifth of it with masks",
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        writer, n, kind = args.child
        measure(writer, int(n), masks=kind == "masks")
        return
    for kind in ("boxes", "masks"):
        print(
            f"{kind:<14}{'annotations':>12}{'seconds':>9}{'1/s':>10}{'rate':>8}{'peak MiB':>10}{'file MiB':>10}"
        )
        ours = 0.0
        for writer in WRITERS:
            held = writer in {"supervision", "datumaro"}
            n = int(args.n * (args.share / (5 if kind == "masks" else 1) if held else 1))
            n -= n % PER_IMAGE
            out = subprocess.run(
                [sys.executable, __file__, "--child", writer, str(n), kind],
                capture_output=True,
                text=True,
                check=True,
            )
            m = json.loads(out.stdout.splitlines()[-1])
            rate = n / m["seconds"]
            ours = ours or rate
            print(
                f"{writer:<14}{n:>12}{m['seconds']:>9.1f}{rate:>10.0f}{rate / ours:>8.3f}{m['mib']:>10.0f}{m['file_mib']:>10.0f}"
            )


if __name__ == "__main__":
    main()
