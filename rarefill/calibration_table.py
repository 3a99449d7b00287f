"""The table that `rarefill calibrate` shows. The rich library is imported here, so this module is, only on demand."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from rarefill import pipeline
from rarefill.annotators import Standing
from rarefill.annotators.bounds import CONFIDENCE
from rarefill.annotators.calibrate import Errors
from rarefill.annotators.promises import kept_promise, refusal
from rarefill.errors import UsageError
from rarefill.progress import Progress
from rarefill.recipe import Recipe


def standings(recipe: Recipe, progress: Progress) -> tuple[Standing, ...]:
    """How well the checker knows the categories to be painted, fitted or calibrated now where no cache holds it.

    Raises:
        UsageError: the recipe names no checker.
    """
    if recipe.annotator.checker == "none":
        raise UsageError("--checker none looks at nothing, so there is nothing to calibrate")
    no_model = recipe.generator.model_copy(update={"generator": "paste"})  # the painting model is not needed
    found = pipeline.fit(recipe.model_copy(update={"generator": no_model}), progress)
    return tuple(s for s in found if s.errors)


def drawn(table: Sequence[Standing]) -> Table:
    """One block for each category: its threshold and what it keeps, then a line for each kind of planted error."""
    out = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        caption=Text("\n".join(_notes(table))),
        caption_style="",
        caption_justify="left",
    )
    out.add_column("category", overflow="fold", min_width=8)
    out.add_column("shown", overflow="fold", min_width=9)
    for heading in ("accepted", "share", f"{CONFIDENCE:.0%} interval", "score"):
        out.add_column(heading, justify="right", no_wrap=True)
    out.add_column("promise", overflow="fold", min_width=20)
    for standing in table:
        out.add_row(*_objects(standing), style="bold")
        for errors in standing.errors:
            out.add_row(*_errors(standing, errors))
    return out


def _objects(s: Standing) -> list[str | Text]:
    kept = round(s.found * s.held_back)
    return [
        Text(s.category),  # as it is: names may look like markup
        f"real objects, on {s.images} images",
        f"{kept} of {s.held_back}",
        f"{s.found:.0%}",
        f"{s.kept_low:.0%} to {s.kept_high:.0%}",
        f"{s.threshold:.2f}",
        kept_promise(s),
    ]


def _errors(s: Standing, e: Errors) -> list[str | Text]:
    return [
        "",
        e.kind,
        f"{e.passed} of {e.tried}",
        f"{e.passed / e.tried:.0%}" if e.tried else "",
        f"{e.low:.0%} to {e.high:.0%}" if e.tried else "",
        "" if e.level is None else f"{e.level:.2f}",
        refusal(s, e),
    ]


def _notes(table: Sequence[Standing]) -> list[str]:
    first = table[0] if table else None
    if first is None:
        return []
    return [
        "",
        "real objects  held back from the model that judges them; a promise holds on average over datasets like this",
        "              one, not for this one alone (docs/calibration.md)",
        f"errors        planted on purpose; each line by itself is wrong in at most {first.delta:.0%} of datasets",
        "score         of an object what it needs to be accepted; of an error the least at which so few pass",
    ]
