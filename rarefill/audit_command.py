"""What `rarefill audit` does: a page for eyes, or error rates from its answers."""

import json
from dataclasses import dataclass
from pathlib import Path

from rarefill import audit, audit_page, pipeline
from rarefill import recipe as recipes
from rarefill.dataset import Dataset, load
from rarefill.errors import RunError, UsageError
from rarefill.files import page_at
from rarefill.progress import Progress
from rarefill.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Options:
    """As on the command line."""

    where: Path
    n: int
    seed: int
    out: Path | None
    answers: Path | None
    pictures: Path | None
    as_json: bool = False


def painted(options: Options, progress: Progress) -> str:
    """The page of a run's painted objects, or what its answers say.

    Returns:
        Lines for stdout.

    Raises:
        UsageError: no run, or answers for another one.
        RunError: the run is not finished, made nothing, or its dataset has changed since.
        DataError: an image or the answers cannot be read.
    """
    run = RunDir(options.where)
    name = audit.identity(run)
    dataset = _dataset(run, progress)
    items = audit.painted(run, dataset)
    if not items:
        raise RunError(f"{options.where} holds no painted object to look at")
    if options.answers is not None:
        answers, seed, n = audit.answers_of(options.answers, name)
        rows = audit.rows(items, audit.draw(items, n, seed), answers)
        return json.dumps(audit.as_json(rows), indent=2) if options.as_json else audit.table(rows)
    drawn = audit.draw(items, options.n, options.seed)
    page = page_at(options.out) if options.out else options.where / "audit.html"
    audit_page.write(page, options.where.resolve().name, name, drawn, len(items), run.images)
    if options.as_json:
        return json.dumps({"page": str(page), "objects": len(drawn.items), "of": len(items)})
    return f"{len(drawn.items)} of {len(items)} painted objects: open {page}, then rarefill audit {options.where} --answers FILE"


def real(options: Options, progress: Progress) -> str:
    """The page and the list of the real data's most suspicious labels.

    Args:
        options: `where` is a run, whose fitted checker and recipe are taken, or the data itself.
        progress: shows the fit, where no cache holds it.

    Raises:
        UsageError: answers were given, which only a run's page has.
        ModelError: the data cannot be fitted.
    """
    if options.answers is not None:
        raise UsageError("--answers goes with a run's page, not with --real")
    from rarefill import suspects

    if (options.where / "manifest.json").exists():
        run = RunDir(options.where)
        recipe = recipes.resolve(recipes.read(run.recipe), where=str(run.recipe))
        dataset, out = _dataset(run, progress), options.where / "suspects.html"
    else:
        recipe = recipes.resolve({"data": str(options.where)})
        dataset, out = load(options.where, options.pictures, progress=progress), Path("suspects.html")
    found = suspects.find(dataset, recipe, progress)[: options.n]
    page = page_at(options.out) if options.out else out
    suspects.write(page, dataset, found)
    if options.as_json:
        return json.dumps([s.as_json(dataset) for s in found], indent=2, ensure_ascii=False)
    lines = [s.line(dataset) for s in found[:20]]
    more = [f"... and {len(found) - 20} more"] if len(found) > 20 else []
    return "\n".join([*lines, *more, f"{len(found)} places to look at: open {page}"])


def _dataset(run: RunDir, progress: Progress) -> Dataset:
    manifest = run.manifest()
    dataset = pipeline.open_dataset(
        recipes.resolve(recipes.read(run.recipe), where=str(run.recipe)), progress
    )
    if dataset.digest != manifest["rarefill"]["data"]:
        raise RunError(f"{dataset.path} has changed since {run.path} was made; its labels would not fit")
    return dataset
