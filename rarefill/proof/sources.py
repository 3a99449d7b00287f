"""The new images of a study's arms: made from the training part alone, or brought as run folders.

Generator and checker see nothing but the training file: a test object that was painted from would be a test of memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rarefill import pipeline
from rarefill.dataset import Dataset, load
from rarefill.errors import LayoutError, ModelError, RunError, UsageError
from rarefill.progress import Progress
from rarefill.proof import copy_paste
from rarefill.proof.arms import COPY_PASTE, GENERATORS
from rarefill.recipe import Recipe
from rarefill.rundir import RunDir

Key = tuple[int, str]
"""A split and a source's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """New images by split and source.

    Attributes:
        datasets: those that there are.
        failed: why the others are not.
    """

    datasets: dict[Key, Dataset] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)


def brought(runs: Sequence[str], trains: Sequence[Dataset]) -> dict[Key, Path]:
    """Which split each run folder belongs to: that from whose file it was made.

    Args:
        runs: `FOLDER`, or `NAME=FOLDER` where several splits have a run each of one arm.
        trains: the training parts, by split.

    Raises:
        UsageError: a folder is no run, is not finished, or was made from another file.
    """
    found: dict[Key, Path] = {}
    digests = [train.digest for train in trains]
    for text in runs:
        name, equals, place = text.partition("=")
        folder = Path(place if equals else text)
        name = name if equals else folder.resolve().name
        manifest = RunDir(folder).manifest()
        if not manifest.get("finished"):
            raise UsageError(f"--run {folder}: is not finished; run its generate command again first")
        digest = manifest.get("rarefill", {}).get("data")
        if digest not in digests:
            files = ", ".join(str(train.path) for train in trains)
            raise UsageError(
                f"--run {folder}: was not made from {files}; a run of other data may have seen the test part. "
                "Generate from the training file alone, or leave --run out and name its generator in --arms"
            )
        found[digests.index(digest), name] = folder
    return found


def make(
    sources: Sequence[str],
    trains: Sequence[Dataset],
    runs: Mapping[Key, Path],
    recipe: Recipe,
    rare: Sequence[str],
    objects: int,
    out: Path,
    progress: Progress,
) -> Made:
    """Make, or read, the new images of every source and split. What stands there finished is kept.

    Args:
        sources: names; a run's, `copy-paste`, `paste` or `compact`.
        trains: the training parts, by split.
        runs: `brought`.
        recipe: options of the runs that are made here.
        rare: categories to fill.
        objects: new objects of each.
        out: the study's folder.
        progress: shows the work.
    """
    made = Made()
    for split, train in enumerate(trains):
        for source in sources:
            folder = out / "made" / str(split) / source
            try:
                made.datasets[split, source] = _one(
                    source, train, runs.get((split, source)), recipe, rare, objects, folder, progress
                )
            except (RunError, ModelError, LayoutError) as e:
                made.failed[split, source] = str(e)
                progress.say(f"{source}, split {split}: cannot be made, so its arms are left out: {e}")
    return made


def _one(
    source: str,
    train: Dataset,
    run: Path | None,
    recipe: Recipe,
    rare: Sequence[str],
    objects: int,
    folder: Path,
    progress: Progress,
) -> Dataset:
    if run is None and source in GENERATORS:
        progress.say(f"{source}: {objects} objects each of {', '.join(rare)} from {train.path.name}")
        pipeline.run(_recipe(recipe, train, source, rare, objects, folder), dataset=train, progress=progress)
        run = folder
    if run is not None:
        return load(run / "annotations.json", run / "images", progress=progress)
    if source == COPY_PASTE:
        pictures = max(1, round(2 * objects * len(rare) / (1 + copy_paste.MOST_A_PICTURE)))
        path = copy_paste.make(train, list(rare), pictures, folder, recipe.seed, progress)
        return load(path, folder / "images", progress=progress)
    raise RunError(f"no --run of {source} was made from {train.path}")


def _recipe(
    recipe: Recipe, train: Dataset, generator: str, rare: Sequence[str], objects: int, folder: Path
) -> Recipe:
    """The recipe of one run: the person's options, for this training part and generator."""
    painting = recipe.generator.model_copy(update={"generator": generator})
    return recipe.model_copy(
        update={
            "data": train.path,
            "pictures": train.root,
            "out": folder,
            "fill": dict.fromkeys(rare, objects),
            "redraw": {},
            "images": None,
            "evaluation": None,
            "formats": ("coco",),
            "generator": painting,
        }
    )
