"""A small blood-smear dataset of the project's own, rendered from nothing, in which platelets are rare.

Every picture is procedural and every mask is exact, so that the first run needs no download and its labels can be
trusted.
"""

import json
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from rarefill import __version__
from rarefill.demo import camera, smear
from rarefill.demo.cells import Cell, Layer
from rarefill.errors import UsageError
from rarefill.files import write_bytes
from rarefill.geometry import Mask, rle_counts
from rarefill.pictures import encode
from rarefill.progress import SILENT, Progress
from rarefill.scene import Pixels
from rarefill.seeds import Stage, rng

IDS = {"RBC": 1, "WBC": 4, "Platelets": 9}
"""Category ids with gaps, as real files have them."""

RARE = "Platelets"
DESCRIPTION = "rarefill demo: a procedural blood smear with rare platelets; no real cell was photographed"
IMAGES_A_SLIDE = 12
_FILL = 60
_QUICK = {"checker_steps": 300, "checker_batch": 4}  # enough for three kinds of cells that look so different
_STEPS = 50
"""Of adapting: enough for cells as plain as these, a minute of two idle cores. Counted, not timed: six steps of a busy minute paint motley."""
_MINUTES = 3.0  # of adapting at most, on a machine that has little time to spare
_LEAST_PX = 40  # a sliver at the image's edge, or behind other cells, is not a label that anyone would draw


def render(
    out: Path,
    *,
    images: int = 72,
    seed: int = 0,
    platelet_images: int | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write `images/*.png` and `annotations.json` (COCO, run-length masks of the visible pixels).

    Args:
        out: a folder; made when absent. A demo that stands there already is replaced.
        images: how many, 1 or above.
        seed: names the whole dataset: the same seed gives the same bytes.
        platelet_images: on how many of them one or two platelets lie; None means one in six, at least one.
        progress: where the count is shown.

    Returns:
        The annotation file.

    Raises:
        UsageError: a count that cannot be, or another dataset stands in `out`.
        RunError: the folder cannot be written.
    """
    if platelet_images is None:
        platelet_images = max(1, images // 6)
    if not 0 <= platelet_images <= images or images < 1:
        raise UsageError(
            f"demo: needs 1 image or more, and platelets on at most all of them; got {images} and {platelet_images}"
        )
    path = out / "annotations.json"
    _refuse_another(path)
    coco = _frame(images, seed)
    platelets = _platelets(images, platelet_images, seed)
    with progress.bar("Rendering the demo", images, "images") as bar:
        for index in range(images):
            name = f"smear_{index + 1:03d}.png"
            picture, cells = field(index, seed, platelets[index])
            height, width, _ = picture.shape
            write_bytes(out / "images" / name, encode(picture, "png"))
            coco["images"].append(
                {
                    "id": index + 1,
                    "file_name": name,
                    "width": width,
                    "height": height,
                    "license": 1,
                    "slide": _slide(index) + 1,
                }
            )
            for cell, mask in cells:
                coco["annotations"].append(
                    annotation(
                        cell, mask, id=len(coco["annotations"]) + 1, image_id=index + 1, size=(height, width)
                    )
                )
            bar.advance()
    write_bytes(path, (json.dumps(coco, indent=1) + "\n").encode())
    return path


def run(out: Path, *, seed: int = 0, progress: Progress = SILENT) -> str:
    """Render the dataset into `out/data`, fill its rare class into `out/run`, and say where to look.

    Args:
        out: a folder; made when absent. The same call again continues or repeats nothing.
        seed: of the dataset and of the run.
        progress: where counts are shown.

    Returns:
        Some lines for people.
    """
    from rarefill import pipeline
    from rarefill import recipe as recipes
    from rarefill.summary import refusals

    data = render(out / "data", seed=seed, progress=progress)
    options = {
        "data": data,
        "out": out / "run",
        "seed": seed,
        "fill": {RARE: _FILL},
        "generator": {"minutes": _MINUTES, "adapt_steps": _STEPS},
        "annotator": _QUICK,
    }
    summary = pipeline.run(recipes.resolve(options), progress=progress)
    return "\n".join(
        [
            refusals(summary),
            "",
            "Look at",
            f"  {summary.run / 'preview.png'}   real platelets beside painted ones",
            f"  {data.parent / 'images'}   the rendered slides that the run started from",
            f"  {summary.run / 'images'}   the {summary.images} images that it made",
            f"  {summary.run / 'merged.json'}   old and new labels in one COCO file",
            f"  {summary.run / 'yolo' / 'data.yaml'}   the same for YOLO",
        ]
    )


def annotation(cell: Cell, mask: Mask, *, id: int, image_id: int, size: tuple[int, int]) -> dict[str, Any]:
    """One cell as a COCO annotation; `kind` is a key of the demo's own.

    Args:
        cell: what was painted.
        mask: its visible pixels.
        id: unique in the file, from 1.
        image_id: of its image.
        size: the image's height and width in pixels.
    """
    counts = rle_counts(mask.full(*size)).decode("ascii")
    return {
        "id": id,
        "image_id": image_id,
        "category_id": IDS[cell.category],
        "bbox": [float(v) for v in mask.box.xywh],
        "area": mask.area,
        "iscrowd": 0,
        "segmentation": {"size": list(size), "counts": counts},
        "kind": cell.kind,
    }


def field(index: int, seed: int, platelets: int) -> tuple[Pixels, list[tuple[Cell, Mask]]]:
    """One picture, uint8 (H, W, 3), and its labelled cells with their visible pixels.

    Args:
        index: of the picture; `IMAGES_A_SLIDE` neighbours show one slide.
        seed: of the dataset.
        platelets: how many lie in the field.
    """
    on = smear.slide(rng(seed, Stage.RENDER, _slide(index), 1))
    image = smear.smear(rng(seed, Stage.RENDER, index), on, platelets=platelets)
    image, stack, masks = _without_slivers(image)
    return camera.photograph(image.slide, image.optics, stack), list(zip(image.cells, masks, strict=True))


def _without_slivers(image: smear.Smear) -> tuple[smear.Smear, tuple[Layer, ...], tuple[Mask, ...]]:
    """Take away cells of which too little shows: they are not painted, rather than painted without a label."""
    cells, stack = image.cells, smear.layers(image)
    while True:
        visible = smear.masks(stack)
        masks = tuple(m for m in visible if m is not None and m.area >= _LEAST_PX)
        if len(masks) == len(cells):
            return smear.Smear(image.slide, cells, image.optics), stack, masks
        shown = [m is not None and m.area >= _LEAST_PX for m in visible]
        cells, stack = tuple(compress(cells, shown)), tuple(compress(stack, shown))


def _slide(index: int) -> int:
    return index // IMAGES_A_SLIDE


def _platelets(images: int, with_platelets: int, seed: int) -> list[int]:
    """How many platelets each image gets."""
    draw = rng(seed, Stage.RENDER)
    counts = np.zeros(images, dtype=int)
    counts[draw.choice(images, with_platelets, replace=False)] = draw.integers(1, 3, with_platelets)
    return [int(n) for n in counts]


def _frame(images: int, seed: int) -> dict[str, Any]:
    """The file with neither images nor annotations."""
    return {
        "info": {
            "description": DESCRIPTION,
            "version": __version__,
            "contributor": "rarefill",
            "images": images,
            "seed": seed,
        },
        "licenses": [
            {"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": "blood cell"} for name, number in IDS.items()
        ],
        "images": [],
        "annotations": [],
    }


def _refuse_another(path: Path) -> None:
    """Only a demo may be replaced."""
    if not path.exists():
        return
    try:
        found = json.loads(path.read_bytes())["info"]["description"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != DESCRIPTION:
        raise UsageError(
            f"{path} is not a demo's; choose another folder, so that nothing of yours is replaced"
        )
