"""What `rarefill fidelity` does: compare a run with real data, print the figures, and keep them for its report."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from rarefill import pipeline
from rarefill import recipe as recipes
from rarefill.dataset import load
from rarefill.errors import RunError
from rarefill.fidelity import stored
from rarefill.places import cache_folder
from rarefill.progress import Progress
from rarefill.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Options:
    """As on the command line."""

    real: Path
    run: Path
    pictures: Path | None = None
    features: str = "fitted"
    pixels: bool = True
    as_json: bool = False


def fidelity(options: Options, progress: Progress) -> str:
    """Compare, write `RUN/fidelity.json`, and write the run's report again.

    Returns:
        Lines for stdout: tables, or JSON.

    Raises:
        UsageError: no run.
        RunError: the run is not finished, made nothing, or its dataset has changed since.
        DataError: an image or the real data cannot be read.
        ModelError: the features cannot be had.
    """
    from rarefill.fidelity import features, measure
    from rarefill.report import command as report

    folder = RunDir(options.run)
    manifest = folder.manifest()
    if not manifest.get("finished"):
        raise RunError(f"{options.run} is not finished; run its generate command again first")
    if "versions" in manifest["rarefill"]:
        raise RunError(f"{options.run} holds versions of whole images, and no painted object to compare")
    recipe = recipes.resolve(recipes.read(folder.recipe), where=str(folder.recipe))
    own = pipeline.open_dataset(recipe, progress)
    if own.digest != manifest["rarefill"]["data"]:
        raise RunError(f"{own.path} has changed since {options.run} was made; its labels would not fit")
    real = load(options.real, options.pictures, progress=progress)
    made = [*manifest["summary"]["categories"], *manifest["summary"]["redrawn"]]
    seen = features.build(options.features, own, recipe, made, cache_folder(recipe.cache), progress)
    found = measure.measure(folder, own, real, seen, progress, pixels=options.pixels)
    stored.write(options.run / stored.FILE, found)
    page = report.report(options.run, None, progress)
    if options.as_json:
        return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    return "\n".join([text(found), "", page])


def text(found: stored.Fidelity) -> str:
    """The figures as tables for a terminal, the caveat first."""
    lines = [f"Against {found.reference}, by {found.features}.", stored.CAVEAT, *found.notes]
    for table in stored.tables(found):
        rows = [table.head, *table.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(table.head))]
        lines += ["", table.title]
        lines += [
            "  ".join(
                [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            ).rstrip()
            for row in rows
        ]
    lines += [f"\n{curve.category}: {curve.says}" for curve in found.curves]
    return "\n".join(lines)
