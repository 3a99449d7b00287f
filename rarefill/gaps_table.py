"""The table that `rarefill gaps` shows. The rich library is imported here, so this module is, only on demand."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from rarefill import amounts
from rarefill.advice import KEPT, advise, sentence, unmeasured
from rarefill.gaps import Gaps, budget

_BARS = " ▁▂▃▄▅▆▇█"
_LISTED = 12


def drawn(gaps: Gaps, fill: Mapping[str, int] | Literal["auto"] = "auto") -> Table:
    """One line for each category that has objects, most objects first; below, what `fill` comes to.

    Raises:
        DataError, UsageError: what is asked for by name cannot be made.
    """
    out = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
        title=Text(
            f"{gaps.where}: {gaps.n_images:,} images, {int(gaps.objects.sum()):,} objects, "
            f"{len(gaps.names)} {'category' if len(gaps.names) == 1 else 'categories'}",
            "bold",
        ),
        title_justify="left",
        caption=_caption(gaps, fill),
        caption_style="",
        caption_justify="left",
    )
    # Only names give way where the terminal is narrow: a figure cut short is a wrong figure.
    out.add_column("category", overflow="fold", min_width=8)
    for heading in ("images", "objects", "share", "S/M/L %", "side px", "cut", "near", "over"):
        out.add_column(heading, justify="right", no_wrap=True)
    for heading in ("→", "↓"):
        out.add_column(heading, no_wrap=True)
    for heading in ("unseen", "r", *(["AP"] if gaps.evaluation else []), "auto"):
        out.add_column(heading, justify="right", no_wrap=True)
    lacking = gaps.lacking
    for row in np.argsort(-gaps.objects, kind="stable").tolist():
        if gaps.objects[row]:
            out.add_row(*_cells(gaps, row), style="bold yellow" if lacking[row] else "")
    return out


def _cells(gaps: Gaps, row: int) -> list[str | Text]:
    sizes, places = gaps.sizes[row], gaps.cells[row].sum(axis=0)
    low, middle, high = gaps.quantiles_px[row][[0, 2, 4]]
    auto = int(gaps.auto[row])
    return [
        Text(gaps.names[row]),  # as it is: names may look like markup
        f"{gaps.images[row]:,}",
        f"{gaps.objects[row]:,}",
        _percent(gaps.share[row]),
        "/".join(f"{100 * n / sizes.sum():.0f}" for n in sizes),
        f"{low:.0f} {middle:.0f} {high:.0f}",
        _percent(gaps.truncated[row]),
        f"{gaps.neighbours[row]:.1f}",
        _percent(gaps.overlap[row]),
        _bars(places.sum(axis=0).tolist()),
        _bars(places.sum(axis=1).tolist()),
        f"{int((gaps.cells[row] == 0).sum())}",
        f"{gaps.repeat[row]:.2f}",
        *([] if gaps.evaluation is None else ["?" if math.isnan(gaps.ap[row]) else f"{gaps.ap[row]:.3f}"]),
        f"+{auto:,}" if auto else "",
    ]


def _bars(counts: Sequence[int]) -> str:
    """Shares as bars of eight heights; only nothing is shown as nothing."""
    most = max(1, *counts)
    return "".join(_BARS[max(1, round(8 * n / most)) if n else 0] for n in counts)


def _percent(share: float) -> str:
    """Whole percents; a little is not nothing."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _caption(gaps: Gaps, fill: Mapping[str, int] | Literal["auto"]) -> Text:
    lines = [
        "",
        "S/M/L   COCO's small, medium and large objects, in percent",
        "side    square root of the area: 5 %, half and 95 % of the objects are smaller",
        "cut     objects that touch the image's edge",
        "near    other boxes that meet an object's box, on average",
        "over    share of an object's box under the other box that covers most of it",
        "→ ↓     where objects lie, left to right and top to bottom, in thirds of the image",
        "unseen  of 27 cells, 3 sizes x 9 places, those without a real object (--json)",
        f"r       √(t/f), rare above 1: f share of images, t {gaps.threshold:.1%} ({gaps.rule})",
        *_auto_lines(gaps),
        "",
        "Rare: ",
    ]
    out = Text("\n".join(lines)).append(_listed(gaps.rare), "bold yellow")
    if gaps.evaluation:
        out.append("\nWeak: ").append(_listed(gaps.weak), "bold yellow")
        if unknown := unmeasured(gaps):
            out.append("\nWithout an AP, judged by r: ").append(_listed(unknown))
    if gaps.missing:
        out.append("\nMissing, without a real object to make more of: ").append(_listed(gaps.missing), "red")
    return _with_budget(out, gaps, fill)


def _auto_lines(gaps: Gaps) -> list[str]:
    most = f"        at most {gaps.per_exemplar} for each real object"
    if gaps.evaluation is None:
        return ["auto    what --fill auto makes: until r is 1, as many an image as in real ones,", most]
    below = amounts.WEAK * amounts.median(gaps.ap)
    return [
        f"AP      weak below {below:.3f}, {amounts.WEAK:g} of the categories' median; ? not measured",
        "auto    what --fill auto makes: as many of each weak category, on as many images as there",
        f"        are real ones;{most[7:]}",
    ]


def _with_budget(out: Text, gaps: Gaps, fill: Mapping[str, int] | Literal["auto"]) -> Text:
    """What the budget comes to, where there is one: nothing is said of a dataset that lacks nothing."""
    asked = budget(gaps, fill) if fill != "auto" else {}
    if fill == "auto" and gaps.auto.any():
        asked = budget(gaps, "auto")
    if asked:
        advice = advise(gaps, asked)
        named = "auto" if fill == "auto" else "as asked"
        out.append("\n".join(["", "", f"--fill {named}: {sentence(advice)}", KEPT]))
        if advice.warning:
            out.append(f"\n{advice.warning}", "yellow")
    return out


def _listed(names: Sequence[str]) -> str:
    held = ", ".join(names[:_LISTED]) or "none"
    return held + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
