"""`RUN/report.html`: one file that loads nothing, with small copies of the pictures inside."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rarefill import __version__, files
from rarefill.dataset import Dataset
from rarefill.fidelity import copies, stored
from rarefill.fidelity.copies import Copies
from rarefill.fidelity.stored import Fidelity
from rarefill.layouts import Context
from rarefill.progress import SILENT, Progress
from rarefill.proof import study as studies
from rarefill.proof.study import Study
from rarefill.report import charts, facts, gather, representation, sections, words
from rarefill.report.facts import Facts
from rarefill.report.gather import Gathered
from rarefill.report.representation import Representation
from rarefill.rundir import RunDir
from rarefill.scene import Kind

NAME = "report.html"
SECTIONS = (
    ("asked", "Asked and made"),
    ("classes", "Classes"),
    ("objects", "Objects"),
    ("refused", "Refused"),
    ("checker", "Checker"),
    ("places", "Places"),
    ("representation", "Representation"),
    ("copies", "Copies"),
    ("fidelity", "Fidelity"),
    ("proof", "Proof"),
    ("provenance", "Provenance"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """All that a report shows.

    Attributes:
        facts: of the run.
        gathered: from its pixels.
        representation: of each category asked for.
        copies: of each category with painted objects.
        study: whether it helps, where somebody looked.
        fidelity: how near painted objects are to real ones, where somebody looked at these very objects.
    """

    facts: Facts
    gathered: Gathered
    representation: tuple[Representation, ...]
    copies: Mapping[str, Copies]
    study: Study | None
    fidelity: Fidelity | None

    def as_json(self) -> dict[str, Any]:
        """What is not in the manifest, as JSON values."""
        return {
            "run": self.facts.folder.path.name,
            **self.facts.summary.as_json(),
            "representation": [r.as_json() for r in self.representation],
            "copies": {name: copied(found) for name, found in self.copies.items()},
            "fidelity": None if self.fidelity is None else msgspec.to_builtins(self.fidelity),
        }


def copied(found: Copies) -> dict[str, Any]:
    """One category's copies as JSON values."""
    return {
        "painted": len(found.alike),
        "near": int(found.near.sum()) if found.mark is not None else None,
        "mark": None if found.mark is None else round(found.mark, 4),
        "median": round(float(np.median(found.alike)), 4),
        "real_median": round(float(np.median(found.real_alike)), 4) if len(found.real_alike) else None,
    }


def make(
    folder: RunDir,
    dataset: Dataset,
    *,
    context: Context | None = None,
    manifest: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Look at a finished run.

    Args:
        folder: the run's.
        dataset: what it was made from.
        context: knows the kinds of surroundings; without it they are left out.
        manifest: that the run will have; by default the one that it has.
        progress: shows the images.

    Raises:
        UsageError: no run.
        RunError: the run is not finished, or its dataset has changed since.
        DataError: an image is gone, or its study or figures cannot be read.
    """
    known = facts.read(folder, dataset, manifest)
    found = gather.gather(known, context=context, progress=progress)
    study = _study(folder.path)
    made = {t.category: 0 for t in known.summary.tallies}
    for t in known.summary.tallies:
        made[t.category] += t.made
    return Report(
        known,
        found,
        tuple(
            representation.represent(
                name,
                one.real,
                one.painted,
                of_real=known.real[name],
                of_painted=made[name],
                names=dataset.images.file_name,
                ap=_ap(study, name),
            )
            for name, one in found.categories.items()
        ),
        {
            name: copies.find(one.painted_windows, one.real_windows)
            for name, one in found.categories.items()
            if len(one.painted) and len(one.real)
        },
        study,
        _fidelity(known),
    )


def _fidelity(known: Facts) -> Fidelity | None:
    """The figures of `rarefill fidelity`; None where there are none, or those of other objects."""
    path = known.folder.path / stored.FILE
    found = stored.read(path) if path.exists() else None
    records = str(known.manifest["sha256"].get("records.jsonl", ""))
    return found if found is not None and records.startswith(found.run) else None


def _study(run: Path) -> Study | None:
    path = run / "proof" / studies.FILE
    return studies.read(path) if path.exists() else None


def _ap(study: Study | None, category: str) -> dict[str, tuple[float | None, float | None]]:
    """AP by COCO's sizes without and with generated images: means over the runs of the arms that the verdict compares."""
    if study is None or study.verdict is None or not study.verdict.arm:
        return {}

    def mean(arm: str, size: str) -> float | None:
        held = [r.classes[category] for r in study.runs if r.arm == arm and category in r.classes]
        values = [v for figures in held if (v := getattr(figures, size)) is not None]
        return float(np.mean(values)) if values else None

    pair = study.verdict.baseline, study.verdict.arm
    return {size: (mean(pair[0], size), mean(pair[1], size)) for size in ("small", "medium", "large")}


def write(path: Path, report: Report) -> Path:
    """Write the page.

    Raises:
        RunError: it cannot be written.
    """
    files.write_bytes(path, html(report).encode())
    return path


def html(report: Report) -> str:
    """The page's text."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files("rarefill") / "templates"
    plan_css, css, script, page = (
        (folder / file).read_text(encoding="utf-8")
        for file in ("plan.css", "report.css", "report.js", "report.html")
    )
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(page)
    return template.render(
        css=Markup(plan_css + css),  # noqa: S704 # our own files
        script=Markup(script),  # noqa: S704
        script_hash=Markup(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),  # noqa: S704
        version=__version__,
        sections=SECTIONS,
        chart={"width": charts.WIDTH, "height": charts.HEIGHT},
        **_values(report),
    )


def _values(report: Report) -> dict[str, Any]:
    """What the template shows."""
    known, found = report.facts, report.gathered
    drawn, more = sections.bars(known)
    shown, made = len(known.shown), len(known.painted)
    given_up = sum(t.given_up for t in known.summary.tallies)
    return {
        "name": known.folder.path.resolve().name,
        "headline": words.headline(known.summary),
        "summary": known.summary,
        "cards": sections.cards(known),
        "first": sections.stands_out(known, report.representation, report.copies, report.study),
        "tallies": sections.tallies(known),
        "notes": known.summary.notes,
        "bars": drawn,
        "more_classes": more,
        "shown": "All painted objects."
        if shown == made
        else f"{shown} of {made:,} painted objects, spread evenly over the run.",
        "groups": sections.groups(known, found, sections.near_rows(found, report.copies)),
        "refusals": sections.refusals(known),
        "steps": sections.steps(known),
        "given_up": known.given_up,
        "given_up_more": given_up > len(known.given_up),
        "judged": any(t.made > t.unjudged for t in known.summary.tallies),
        "checker": sections.checker(known),
        "places": sections.places(known, found),
        "representation": sections.represented(report.representation),
        "has_ap": report.study is not None,
        "pasted": any(p.how.get("generator") == "paste" for p in known.painted),
        "copies": sections.copies(report.copies),
        "pairs": _pairs(report),
        "fidelity": sections.fidelity(report.fidelity),
        "proof": sections.proof(report.study),
        "provenance": sections.provenance(known),
        "versions": sorted(known.manifest.get("versions", {}).items()),
        "hashes": sorted(known.manifest.get("sha256", {}).items()),
        "recipe": known.folder.recipe.read_text(encoding="utf-8") if known.folder.recipe.exists() else "",
    }


def _pairs(report: Report) -> list[dict[str, str]]:
    """The most alike near-copies beside the real objects that they are like."""
    from rarefill.plan_page import data_url

    rows = [
        (float(c.alike[i]), name, int(i))
        for name, c in report.copies.items()
        for i in np.flatnonzero(c.near)
        if report.facts.painted[report.gathered.categories[name].painted_rows[i]].kind is Kind.NEW
    ]
    out = []
    for alike, name, i in sorted(rows, key=lambda row: (-row[0], row[1], row[2]))[: sections.PAIRS]:
        one, found = report.gathered.categories[name], report.copies[name]
        out.append(
            {
                "category": name,
                "id": report.facts.painted[one.painted_rows[i]].id,
                "alike": f"{alike:.2f}",
                "painted": data_url(one.painted_windows.pixels[i], 8_000),
                "real": data_url(one.real_windows.pixels[int(found.nearest[i])], 8_000),
            }
        )
    return out
