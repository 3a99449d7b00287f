"""The story of a run, top to bottom: plan, generate, annotate, export.

    recipe -> dataset -> budget -> layouts -> [chunks: paint -> check -> mend what was refused] -> exports

A chunk is a fixed number of layouts of the plan; what it gives depends on nothing else. Objects that no attempt
brought to life are planned again on other backgrounds (`top_ups`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rarefill import (
    __version__,
    advice,
    annotators,
    bank,
    evaluation,
    exporters,
    gaps,
    generators,
    plan_notes,
    plan_page,
    preview,
    sheet,
)
from rarefill import recipe as recipes
from rarefill.annotators import Checker, Standing
from rarefill.dataset import Dataset, load
from rarefill.errors import RarefillError, RecipeError, RunError, UsageError
from rarefill.generators import Generator
from rarefill.layouts import Context, Plan, Planner, Redraws, goals_in, read_plan, redraws_in
from rarefill.pictures import encode
from rarefill.places import cache_folder
from rarefill.progress import SILENT, Progress
from rarefill.recipe import Recipe
from rarefill.report import page as report_page
from rarefill.rounds import Rounds, only
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Kind, Layout
from rarefill.summary import Summary, refusals, summarise


def run(
    recipe: Recipe,
    *,
    plan: Path | None = None,
    dataset: Dataset | None = None,
    generator: Generator | None = None,
    checker: Checker | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Summary:
    """Make a labelled dataset; the same call again continues what was interrupted.

    Args:
        recipe: every option; `data` and `out` are needed.
        plan: a layouts.jsonl to obey, instead of planning.
        dataset: already loaded, instead of `recipe.data`.
        generator: your own, instead of the recipe's.
        checker: your own, instead of the recipe's.
        overwrite: throw away another run that stands in `out`.
        progress: where counts are shown.

    Raises:
        RarefillError: one clear line, or a table of reasons when nothing was accepted or too little of it.
    """
    if recipe.out is None:
        raise RecipeError("recipe: out is missing; say --out FOLDER")
    dataset = dataset or open_dataset(recipe, progress, named=_named(recipe, plan))
    folder = RunDir(recipe.out)
    with folder.locked():
        if plan is not None:
            if recipe.fill != "auto" or recipe.redraw or recipe.images is not None:
                progress.say("the plan says what to make; fill, redraw and images are left aside")
            recipe = recipe.model_copy(update={"fill": "auto", "redraw": {}, "images": None})
        asked = _asked(recipe, dataset, plan, progress)
        if generator is None:
            _check_redraws(recipe, asked)
            announce(recipe, dataset, progress)
        identity = _identity(recipe, dataset, plan, generator, checker)
        if folder.look(identity, overwrite=overwrite):
            return _finished(recipe, dataset, folder, asked, plan, progress)
        shapes = _shapes(recipe, dataset, asked, plan, progress)
        context = None if plan is not None else _context(recipe, dataset, asked, shapes, progress)
        rounds = Rounds(recipe, dataset, shapes, folder, asked, plan, context)
        for name, covered in rounds.covered.items():
            progress.say(f"{name}: {covered}")
        _say_notes(recipe, dataset, rounds.first if plan else (), progress)
        # Only now, when no mistake in what was asked can end the run any more: the folder, and the long work.
        folder.open(identity, as_run(recipe, dataset), overwrite=overwrite)
        folder.mend()
        folder.check_images(dataset)
        generator = generator or _generator(recipe, dataset, shapes, rounds.first, progress)
        checker = checker or _fitted(recipe, dataset, shapes, progress)
        for standing in checker.table:
            if standing.category in _categories(asked):
                progress.say(str(standing))
        with progress.bar("Painting", sum(asked.values()), "objects") as bar:
            notes = rounds.work(generator, checker, bar)
        summary = summarise(folder, dataset, asked, notes, rounds.stopped)
        if not any(t.made for t in summary.tallies):
            why = f"{summary.stopped}\n" if summary.stopped else ""
            raise RunError(f"nothing was accepted, so nothing was exported\n{why}{refusals(summary)}")
        _write_out(recipe, dataset, folder, asked, summary, progress)
        known = {
            "checker": [asdict(s) for s in checker.table],
            "covered": {name: [c.before, c.after] for name, c in rounds.covered.items()},
        }
        kept = summary.as_json() | known
        # Before the manifest says so: what kills the run here finds the report unwritten, and writes it again.
        _report(folder, dataset, context, folder.finished(kept), progress)
        folder.finish(kept)
    return _whole(summary)


def _whole(summary: Summary) -> Summary:
    """The summary of a run that was not stopped.

    Raises:
        RunError: it was: a failed run, though what holds is exported.
    """
    if summary.stopped:
        raise RunError(f"{summary.stopped}\n{refusals(summary)}")
    return summary


def _say_notes(recipe: Recipe, dataset: Dataset, layouts: Sequence[Layout], progress: Progress) -> list[str]:
    """What a person's plan asks beyond the limits: it is obeyed all the same."""
    notes = plan_notes.notes(dataset, layouts, recipe.layout)
    for note in notes:
        progress.say(note)
    return notes


def say_incomplete(dataset: Dataset, progress: Progress) -> None:
    """Say which images no new ones are made of, where lenient reading took labels away."""
    if (line := plan_notes.incomplete(dataset)) is not None:
        progress.say(line)


def _asked(recipe: Recipe, dataset: Dataset, plan: Path | None, progress: Progress) -> dict[Goal, int]:
    """The objects to make; and whether the rest of what was asked can be.

    Raises:
        DataError, LayoutError, RunError: it cannot.
    """
    for name in recipe.layout.no_mirror:
        dataset.category_row(name)
    encode(dataset.read(0)[:8, :8], recipe.image_format)
    if plan is None:
        say_incomplete(dataset, progress)
        return _budget(recipe, dataset, progress)
    return goals_in(plan, dataset)


def _budget(recipe: Recipe, dataset: Dataset, progress: Progress) -> dict[Goal, int]:
    """The objects that a recipe asks for, new ones before redrawn ones; what to think of their number is said.

    Raises:
        DataError: one cannot be made, or the evaluation cannot be read.
        RecipeError: nothing is asked for.
    """
    auto = recipe.fill == "auto" and recipe.evaluation is not None
    found = gaps.survey(
        dataset,
        evaluation=evaluation.read(recipe.evaluation, dataset) if auto and recipe.evaluation else None,
    )
    new: dict[str, int] = {}
    if recipe.fill == "none":
        if not recipe.redraw:
            raise RecipeError("recipe: fill is none and redraw names nothing, so there is nothing to make")
    elif recipe.fill != "auto" or not recipe.redraw or found.auto.any():
        new = gaps.budget(found, recipe.fill)
    if new:
        weighed = advice.advise(found, new, per_image=recipe.layout.per_image, images=recipe.images)
        if weighed.warning:
            progress.say(weighed.warning)
    if unmeasured := advice.unmeasured(found):
        progress.say(f"no AP of {', '.join(unmeasured)} in {recipe.evaluation}; judged by their count")
    redrawn = gaps.budget(found, recipe.redraw) if recipe.redraw else {}
    asked = {Goal(name): n for name, n in new.items()}
    return asked | {Goal(name, Kind.REDRAWN): n for name, n in redrawn.items()}


def _check_redraws(recipe: Recipe, asked: Mapping[Goal, int]) -> None:
    """Whether the recipe's generator can do what was asked.

    Raises:
        RecipeError: it cannot.
    """
    if recipe.generator.generator == "paste" and only(Kind.REDRAWN, asked):
        raise RecipeError(
            "recipe: generator is paste, which has no new look to give to a real object; "
            "redraw with --generator compact"
        )


def _categories(asked: Mapping[Goal, int]) -> list[str]:
    return list(dict.fromkeys(goal.category for goal in asked))


def _shapes(
    recipe: Recipe, dataset: Dataset, asked: Mapping[Goal, int], plan: Path | None, progress: Progress
) -> bank.Bank:
    """Silhouettes of every category that is painted, and of the objects to redraw."""
    cache = cache_folder(recipe.cache)
    shapes = bank.build(dataset, _categories(asked), cache=cache, progress=progress)
    redraw = only(Kind.REDRAWN, asked)
    if not redraw:
        return shapes
    if plan is not None:
        rows = redraws_in(plan, dataset)
    else:
        rows = Redraws(dataset, shapes, recipe.layout, seed=recipe.seed).lacking(redraw)
    return bank.more(shapes, dataset, rows, cache=cache, progress=progress)


def _context(
    recipe: Recipe,
    dataset: Dataset,
    asked: Mapping[Goal, int],
    shapes: bank.Bank | None,
    progress: Progress,
) -> Context | None:
    """What ranks places, where new objects are planned at all."""
    if recipe.layout.context == "off" or not only(Kind.NEW, asked):
        return None
    return Context(dataset, shapes, cache=cache_folder(recipe.cache), progress=progress)


def _finished(
    recipe: Recipe,
    dataset: Dataset,
    folder: RunDir,
    asked: Mapping[Goal, int],
    plan: Path | None,
    progress: Progress,
) -> Summary:
    """A run that was finished before; what is not in the folder is exported again."""
    folder.check_images(dataset)
    kept = folder.manifest()["summary"]
    summary = summarise(folder, dataset, asked, kept["notes"], kept.get("stopped", ""))
    lacking = folder.lacks(_formats(recipe))
    progress.say(
        f"{folder.path} is finished already" + (f"; writing {', '.join(lacking)}" if lacking else "")
    )
    if lacking:
        _write_out(recipe, dataset, folder, asked, summary, progress)
        folder.finish(kept)
    if not (folder.path / report_page.NAME).exists():
        context = None if plan is not None else _context(recipe, dataset, asked, None, progress)
        _report(folder, dataset, context, folder.manifest(), progress)
    return _whole(summary)


def _write_out(
    recipe: Recipe,
    dataset: Dataset,
    folder: RunDir,
    asked: Mapping[Goal, int],
    summary: Summary,
    progress: Progress,
) -> None:
    samples = partial(folder.samples, dataset)
    formats = _formats(recipe)
    exporters.write(
        formats, folder.path, dataset, samples, role=recipe.role, total=summary.images, progress=progress
    )
    sheet.write(folder.path / "preview.png", dataset, folder, asked)


def _formats(recipe: Recipe) -> tuple[recipes.Format, ...]:
    """What to write: images for validation and test go neither among one's own labels nor into a training folder."""
    return recipe.formats if recipe.role == "train" else ("coco",)


def _report(
    folder: RunDir,
    dataset: Dataset,
    context: Context | None,
    manifest: Mapping[str, Any],
    progress: Progress,
) -> None:
    """The page about a run. What keeps it from being written is said, and takes nothing from the run."""
    try:
        made = report_page.make(folder, dataset, context=context, manifest=manifest, progress=progress)
        report_page.write(folder.path / report_page.NAME, made)
    except RarefillError as e:
        progress.say(f"no {report_page.NAME}: {e}; 'rarefill report {folder.path}' tries again")


def _fitted(recipe: Recipe, dataset: Dataset, shapes: bank.Bank, progress: Progress) -> Checker:
    """The recipe's checker. It is the same for every seed of a run, so that a second run need not fit again."""
    return annotators.build(
        recipe.annotator, dataset, shapes, seed=0, cache=cache_folder(recipe.cache), progress=progress
    )


def _generator(
    recipe: Recipe, dataset: Dataset, shapes: bank.Bank, layouts: Sequence[Layout], progress: Progress
) -> Generator:
    """The recipe's generator; adapted, where it has to be, to the data alone, as the checker is."""
    config = recipe.generator
    placements = [placement for layout in layouts for placement in layout.placements]
    large = generators.too_large(config, placements)
    if large:
        progress.say(
            f"{large} of {len(placements)} planned objects are too large for the embedded model to paint well, so they are pasted; "
            f"--paste-above 0 paints them, too"
        )
    if large and large == len(placements):
        config = config.model_copy(update={"generator": "paste"})
    return generators.build(config, dataset, shapes, hub=recipe.hub, **_adapting(recipe, progress))


def _adapting(recipe: Recipe, progress: Progress) -> dict[str, Any]:
    """What an adaptation needs to know of a recipe. It is the same for every seed of a run, too."""
    return {
        "seed": 0,
        "cache": cache_folder(recipe.cache),
        "no_mirror": recipe.layout.no_mirror,
        "progress": progress,
    }


def fit(recipe: Recipe, progress: Progress = SILENT) -> tuple[Standing, ...]:
    """Adapt the generator's model and train the checker now; how well the checker knows each category."""
    dataset = open_dataset(recipe, progress, named=_named(recipe))
    names = _categories(_budget(recipe, dataset, progress))
    shapes = bank.build(dataset, names, cache=cache_folder(recipe.cache), progress=progress)
    announce(recipe, dataset, progress)
    generators.prepare(recipe.generator, dataset, shapes, hub=recipe.hub, **_adapting(recipe, progress))
    return _fitted(recipe, dataset, shapes, progress).table


def _identity(
    recipe: Recipe, dataset: Dataset, plan: Path | None, generator: Generator | None, checker: Checker | None
) -> dict[str, Any]:
    """What decides a run's bytes; stages that are not the recipe's own count by their names."""
    judged = recipe.evaluation if recipe.fill == "auto" and plan is None else None
    return {
        "version": __version__,
        "data": dataset.digest,
        "recipe": recipes.identity(recipe),
        "plan": hashlib.sha256(plan.read_bytes()).hexdigest() if plan else None,
        "generator": generator.name if generator else None,
        **(owed(recipe) if generator is None else {"model": None}),
        "checker": type(checker).__name__ if checker else annotators.fingerprint(recipe.annotator),
        **({"evaluation": hashlib.sha256(judged.read_bytes()).hexdigest()} if judged else {}),
    }


def announce(recipe: Recipe, dataset: Dataset, progress: Progress) -> None:
    """Say what a recipe's weights may be used for, before anything is downloaded."""
    cache = cache_folder(recipe.cache)
    generators.announce(recipe.generator, recipe.hub, dataset, cache=cache, progress=progress)


def owed(recipe: Recipe) -> dict[str, Any]:
    """The weights that a recipe paints with, as a run's identity has them."""
    return generators.owed(recipe.generator, recipe.hub, cache=cache_folder(recipe.cache))


def as_run(recipe: Recipe, dataset: Dataset) -> str:
    """The recipe as the run folder keeps it: with places that hold from anywhere."""
    pictures = recipe.pictures.resolve() if recipe.pictures else None
    judged = recipe.evaluation.resolve() if recipe.evaluation else None
    kept = recipe.model_copy(
        update={"data": dataset.path.resolve(), "pictures": pictures, "evaluation": judged}
    )
    return recipes.as_yaml(kept, leave_out=frozenset({"out", "cache", "workers"}))


def open_dataset(recipe: Recipe, progress: Progress, *, named: Sequence[str] = ()) -> Dataset:
    """The dataset that a recipe names; `named`: categories that it must have."""
    if recipe.data is None:
        raise RecipeError("recipe: data is missing; name a COCO file or YOLO's data.yaml")
    return load(recipe.data, recipe.pictures, lenient=recipe.lenient, named=named, progress=progress)


def _named(recipe: Recipe, plan: Path | None = None) -> tuple[str, ...]:
    """The categories that a recipe asks for by name; a plan puts its own in the place of what is to be made."""
    filled = recipe.fill if isinstance(recipe.fill, dict) else {}
    made = () if plan is not None else (*filled, *recipe.redraw)
    return (*made, *recipe.layout.no_mirror)


def make_plan(recipe: Recipe, progress: Progress = SILENT) -> tuple[Dataset, Plan]:
    """The first plan of a run, on its own: what `rarefill plan` writes."""
    dataset = open_dataset(recipe, progress, named=_named(recipe))
    asked = _asked(recipe, dataset, None, progress)
    shapes = _shapes(recipe, dataset, asked, None, progress)
    context = _context(recipe, dataset, asked, shapes, progress)
    return dataset, Planner(dataset, shapes, recipe.layout, seed=recipe.seed, context=context).plan(
        only(Kind.NEW, asked), redraw=only(Kind.REDRAWN, asked), images=recipe.images
    )


def draw_plan(recipe: Recipe, plan: Path, out: Path, progress: Progress = SILENT) -> list[Path]:
    """A plan for people: a page to look at and edit, and sheets to print. What `rarefill preview` makes."""
    dataset = open_dataset(recipe, progress)
    shapes = _shapes(recipe, dataset, goals_in(plan, dataset), plan, progress)
    layouts = read_plan(plan, dataset, shapes)
    notes = _say_notes(recipe, dataset, layouts, progress)
    page = plan_page.write(out / "plan.html", dataset, plan, layouts, notes=notes)
    return [page, *preview.plan_sheets(dataset, layouts, out)]


def export(folder: Path, formats: Sequence[recipes.Format], progress: Progress = SILENT) -> None:
    """Write a finished run's labels again.

    Raises:
        UsageError: the folder is no run.
        RunError: the run is not finished, or its dataset has changed since.
    """
    run_dir = RunDir(folder)
    manifest = run_dir.manifest()
    if not manifest.get("finished"):
        raise RunError(f"{folder} is not finished; run its generate command again first")
    recipe = recipes.resolve(recipes.read(run_dir.recipe), where=str(run_dir.recipe))
    if recipe.role != "train" and set(formats) - set(_formats(recipe)):
        raise UsageError(f"{folder} is a synthetic {recipe.role} set: coco is all that it can be written as")
    dataset = open_dataset(recipe, progress)
    if dataset.digest != manifest["rarefill"]["data"]:
        raise RunError(f"{dataset.path} has changed since {folder} was made; its labels would not fit")
    exporters.write(
        formats,
        folder,
        dataset,
        partial(run_dir.samples, dataset),
        role=recipe.role,
        total=manifest["summary"]["images"],
        progress=progress,
    )
