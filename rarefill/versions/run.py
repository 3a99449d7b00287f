"""The story of a run of versions: repaint images, look at their labels again, export.

    recipe -> dataset -> versions wanted -> [chunks: paint -> recheck -> paint again what was refused] -> exports

The folder, its records, its resumption and the exporters are those of `rarefill generate`.
"""

from collections.abc import Generator as Yields
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rarefill import __version__, annotators, bank, engine, exporters, gaps, pipeline
from rarefill import recipe as recipes
from rarefill.acceptance import CONFIDENCE, Acceptance
from rarefill.dataset import Dataset
from rarefill.errors import RecipeError, RunError
from rarefill.generators import versions as painting
from rarefill.pictures import encode
from rarefill.places import cache_folder
from rarefill.progress import SILENT, Bar, Progress
from rarefill.recipe import Recipe
from rarefill.records import Record
from rarefill.rundir import RunDir
from rarefill.versions import areas, pages, work
from rarefill.versions.summary import Summary, summarise, table

if TYPE_CHECKING:
    from rarefill.annotators.detectors import Detector
    from rarefill.generators.versions import Repaints

_ADVICE = "stay nearer to the images (--strength), say other words, or look at a few with --images 8 first"


def run(
    recipe: Recipe,
    *,
    dataset: Dataset | None = None,
    repainter: "Repaints | None" = None,
    detector: "Detector | None" = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Summary:
    """Make versions of a dataset's images; the same call again continues what was interrupted.

    Args:
        recipe: every option; `data` and `out` are needed.
        dataset: already loaded, instead of `recipe.data`.
        repainter: your own, instead of the recipe's generator.
        detector: your own, which looks at the labels, instead of the recipe's.
        overwrite: throw away another run that stands in `out`.
        progress: where counts are shown.

    Raises:
        RarefillError: one clear line, or a table of reasons when nothing was accepted or too little of it.
    """
    if recipe.out is None:
        raise RecipeError("recipe: out is missing; say --out FOLDER")
    if repainter is None:
        painting.check(recipe.generator, recipe.hub, recipe.versions)
    dataset = dataset or pipeline.open_dataset(recipe, progress, named=recipe.versions.only)
    pipeline.say_incomplete(dataset, progress)
    images = areas.images_of(dataset, recipe.versions)
    folder = RunDir(recipe.out)
    with folder.locked():
        encode(dataset.read(0)[:8, :8], recipe.image_format)
        wanted = work.jobs(images, recipe.versions.copies, recipe.images, recipe.seed)
        if repainter is None:
            pipeline.announce(recipe, dataset, progress)
        identity = _identity(recipe, dataset, repainter, detector)
        if folder.look(identity, overwrite=overwrite):
            return _finished(recipe, dataset, folder, progress)
        folder.open(identity, pipeline.as_run(recipe, dataset), overwrite=overwrite)
        folder.mend()
        folder.check_images(dataset)
        stages = _stages(recipe, dataset, folder, repainter, detector, progress)
        stopped = _work(stages, wanted, progress)
        summary = summarise(folder, dataset, len(wanted), stopped)
        if not summary.images:
            why = f"{stopped}\n" if stopped else ""
            raise RunError(f"no version was accepted, so nothing was exported\n{why}{table(summary)}")
        _write_out(recipe, dataset, folder, summary, progress)
        folder.finish(summary.as_json())
    return _whole(summary)


def _whole(summary: Summary) -> Summary:
    """The summary of a run that was not stopped.

    Raises:
        RunError: it was: a failed run, though what holds is exported.
    """
    if summary.stopped:
        raise RunError(f"{summary.stopped}\n{table(summary)}")
    return summary


def _stages(
    recipe: Recipe,
    dataset: Dataset,
    folder: RunDir,
    repainter: "Repaints | None",
    detector: "Detector | None",
    progress: Progress,
) -> work.Stages:
    """Who paints and who looks. The checker is that of `rarefill generate`, which may have fitted it already."""
    from rarefill.annotators.recheck import Recheck

    cache = cache_folder(recipe.cache)
    found = gaps.survey(dataset)
    rare = [name for name, n in zip(found.names, found.auto, strict=True) if n]
    shapes = bank.build(dataset, rare, cache=cache, progress=progress)
    if repainter is None:
        repainter = painting.build(
            recipe.generator,
            recipe.hub,
            recipe.versions,
            dataset,
            shapes,
            seed=0,
            cache=cache,
            no_mirror=recipe.layout.no_mirror,
            progress=progress,
        )
    checker = annotators.build(
        recipe.annotator, dataset, shapes, seed=0, cache=cache, progress=progress, detector=detector
    )
    for standing in checker.table:
        progress.say(str(standing))
    recheck = Recheck.of(checker, dataset, recipe.annotator)
    return work.Stages(recipe, dataset, repainter, recheck, folder)


def _work(stages: work.Stages, wanted: Sequence[work.Job], progress: Progress) -> str:
    """Run what no record names yet.

    Returns:
        Why the run ended early; empty when it did not.
    """
    folder, dataset = stages.run, stages.dataset
    acceptance, stopped = Acceptance(stages.recipe.floor), ""
    chunks = work.cut(wanted)
    with progress.bar("Repainting", len(wanted), "images") as bar:
        past = list(folder.read(dataset))
        for record in past:
            stopped = stopped or _counted(acceptance, record, bar)
        if stopped:
            return stopped
        running = engine.run(
            partial(work.process, stages), chunks[len(past) :], workers=stages.recipe.workers
        )
        with closing(cast("Yields[Record]", running)) as records:
            for record in records:
                folder.append(record)
                stopped = _counted(acceptance, record, bar)
                if stopped:
                    break
        if stopped:
            _tidy(folder, dataset)
    return stopped


def _counted(acceptance: Acceptance, record: Record, bar: Bar) -> str:
    """Why the run ends after this record; empty where it goes on."""
    last = {take.number: take.outcome.accepted for take in record.takes}
    acceptance.add(len(last), sum(last.values()))
    bar.advance(len(last), f"{acceptance.held} of {acceptance.tried} hold")
    if not acceptance.hopeless():
        return ""
    return (
        f"stopped early: {acceptance.held} of {acceptance.tried} versions held, so that fewer than {acceptance.floor:.0%} "
        f"will ({CONFIDENCE:.0%} sure); what was made is kept: {_ADVICE}; --checker none trusts the paint, --floor 0 goes on"
    )


def _tidy(folder: RunDir, dataset: Dataset) -> None:
    """Images of chunks that other threads had begun when the run was stopped: no record names them."""
    named = {sample.file_name for sample in folder.samples(dataset)}
    for file in folder.images.glob("*"):
        if file.name not in named:
            file.unlink()


def _finished(recipe: Recipe, dataset: Dataset, folder: RunDir, progress: Progress) -> Summary:
    """A run that was finished before; what is not in the folder is written again."""
    folder.check_images(dataset)
    kept = folder.manifest()["summary"]
    summary = summarise(folder, dataset, kept["asked"], kept["stopped"])
    lacking = folder.lacks(_formats(recipe))
    progress.say(
        f"{folder.path} is finished already" + (f"; writing {', '.join(lacking)}" if lacking else "")
    )
    if lacking:
        _write_out(recipe, dataset, folder, summary, progress)
        folder.finish(kept)
    return _whole(summary)


def _write_out(
    recipe: Recipe, dataset: Dataset, folder: RunDir, summary: Summary, progress: Progress
) -> None:
    exporters.write(
        _formats(recipe),
        folder.path,
        dataset,
        partial(folder.samples, dataset),
        role=recipe.role,
        total=summary.images,
        progress=progress,
    )
    pages.write(folder, dataset, summary, seed=recipe.seed)


def _formats(recipe: Recipe) -> tuple[recipes.Format, ...]:
    """What to write: images for validation and test go neither among one's own labels nor into a training folder."""
    return recipe.formats if recipe.role == "train" else ("coco",)


def _identity(
    recipe: Recipe, dataset: Dataset, repainter: "Repaints | None", detector: "Detector | None"
) -> Mapping[str, Any]:
    """What decides a run's bytes; stages that are not the recipe's own count by their names."""
    return {
        "version": __version__,
        "data": dataset.digest,
        "recipe": recipes.identity(recipe),
        "versions": recipe.versions.model_dump(mode="json"),
        "generator": repainter.name if repainter else None,
        **({"model": None} if repainter else pipeline.owed(recipe)),
        "checker": type(detector).__name__ if detector else annotators.fingerprint(recipe.annotator),
    }


def rewrite(folder: RunDir, dataset: Dataset, *, seed: int) -> None:
    """The page and the sheet of a finished run again.

    Raises:
        RunError: the run is not finished, or its dataset has changed since.
    """
    manifest = folder.manifest()
    if not manifest.get("finished"):
        raise RunError(f"{folder.path} is not finished; run its vary command again first")
    if dataset.digest != manifest["rarefill"]["data"]:
        raise RunError(f"{dataset.path} has changed since {folder.path} was made; its labels would not fit")
    kept = manifest["summary"]
    pages.write(folder, dataset, summarise(folder, dataset, kept["asked"], kept["stopped"]), seed=seed)
