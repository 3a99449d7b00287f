"""What `rarefill report` does: the page of a finished run, or what it shows as JSON."""

import json
from pathlib import Path

from rarefill import pipeline
from rarefill import recipe as recipes
from rarefill.dataset import Dataset
from rarefill.errors import UsageError
from rarefill.files import page_at
from rarefill.layouts import Context
from rarefill.places import cache_folder
from rarefill.progress import Progress
from rarefill.report import page
from rarefill.rundir import RunDir


def report(run: Path, out: Path | None, progress: Progress, *, as_json: bool = False) -> str:
    """Write a run's page again.

    Args:
        run: a finished run's folder.
        out: the page to write; None for `RUN/report.html`.
        progress: shows the images.
        as_json: give what it shows as JSON, beside writing it.

    Returns:
        Lines for stdout.

    Raises:
        UsageError: no run.
        RunError: the run is not finished, or its dataset has changed since.
        DataError: an image is gone.
    """
    folder, dataset = opened(run, progress)
    if "versions" in folder.manifest()["rarefill"]:
        return _of_versions(folder, dataset, out, as_json=as_json)
    planned = folder.manifest()["rarefill"]["recipe"].get("layout", {})
    looked = planned.get("context") == "on"
    context = Context(dataset, cache=cache_folder(), progress=progress) if looked else None
    made = page.make(folder, dataset, context=context, progress=progress)
    written = page.write(page_at(out) if out else run / page.NAME, made)
    if as_json:
        return json.dumps({"page": str(written), **made.as_json()}, indent=2, ensure_ascii=False)
    return f"Open {written}"


def _of_versions(folder: RunDir, dataset: Dataset, out: Path | None, *, as_json: bool) -> str:
    """The page of a run of versions, which is always its own.

    Raises:
        UsageError: it was asked for elsewhere.
    """
    from rarefill.versions import run as versions

    if out is not None:
        raise UsageError(f"{folder.path} holds versions, whose page stands in it; leave out --out")
    manifest = folder.manifest()
    versions.rewrite(folder, dataset, seed=int(manifest["rarefill"]["recipe"]["seed"]))
    page = folder.path / "report.html"
    if as_json:
        return json.dumps({"page": str(page), **manifest["summary"]}, indent=2, ensure_ascii=False)
    return f"Open {page}"


def opened(run: Path, progress: Progress) -> tuple[RunDir, Dataset]:
    """A run's folder and the dataset that it was made from.

    Raises:
        UsageError: no run.
        DataError: its dataset cannot be read.
    """
    folder = RunDir(run)
    folder.manifest()
    recipe = recipes.resolve(recipes.read(folder.recipe), where=str(folder.recipe))
    return folder, pipeline.open_dataset(recipe, progress)
