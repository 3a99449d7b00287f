"""Write what others read."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, assert_never

from rarefill.dataset import Dataset
from rarefill.progress import SILENT, Progress
from rarefill.scene import Sample

Format = Literal["coco", "merged", "yolo", "yolo-seg"]


def write(
    formats: Iterable[Format],
    run: Path,
    dataset: Dataset,
    samples: Sequence[Sample] | Callable[[], Iterable[Sample]],
    *,
    masks: bool | None = None,
    role: str = "train",
    total: int = 0,
    progress: Progress = SILENT,
) -> tuple[Path, ...]:
    """Write a run's samples in each format named.

    Args:
        formats: coco (`annotations.json`), merged (`merged.json`), yolo (boxes, `yolo/data.yaml`), yolo-seg (polygons,
            `yolo-seg/data.yaml`).
        run: the run's folder; its images stand in `images/`.
        dataset: the data that the samples were made from.
        samples: all at once, or a function that begins to give them anew for each format.
        masks: whether painted objects get masks in COCO files; by default when any object of the dataset has one.
        role: what the images are for: `train`, `val` or `test`; COCO's info says it of the latter two.
        total: how many samples the function gives, for the progress.
        progress: one count for each format.

    Returns:
        The file to open for each format.

    Raises:
        RunError: a file cannot be written, or an image of the run is gone.
    """
    if not callable(samples):
        total = len(samples)
    paths = []
    for name in formats:
        stream = samples() if callable(samples) else samples
        match name:
            case "coco":
                from rarefill.exporters import coco

                paths.append(run / "annotations.json")
                coco.synthetic(
                    paths[-1], dataset, stream, masks=masks, role=role, total=total, progress=progress
                )
            case "merged":
                from rarefill.exporters import coco

                paths.append(run / "merged.json")
                coco.merged(
                    paths[-1],
                    dataset,
                    stream,
                    images=run / "images",
                    masks=masks,
                    total=total,
                    progress=progress,
                )
            case "yolo" | "yolo-seg":
                from rarefill.exporters import yolo

                paths.append(run / name / "data.yaml")
                yolo.write(
                    run / name,
                    dataset,
                    stream,
                    images=run / "images",
                    segments=name == "yolo-seg",
                    total=total,
                    progress=progress,
                )
            case _:
                assert_never(name)
    return tuple(paths)
