"""What `rarefill gaps --json` prints: JSON values only, null where a category has no objects."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from rarefill import amounts
from rarefill.advice import KEPT, advise
from rarefill.gaps import QUANTILES, SIZES, Gaps, budget


def document(gaps: Gaps, fill: Mapping[str, int] | Literal["auto"]) -> dict[str, Any]:
    """All that was found, and what `fill` comes to.

    Raises:
        DataError, UsageError: what is asked for by name cannot be made.
    """
    auto = {name: int(n) for name, n in zip(gaps.names, gaps.auto, strict=True) if n}
    return {
        "data": gaps.where,
        "images": gaps.n_images,
        "objects": int(gaps.objects.sum()),
        "threshold": _plain(gaps.threshold),
        "rule": gaps.rule,
        "auto_per_real_object": gaps.per_exemplar,
        "rare": list(gaps.rare),
        "missing": list(gaps.missing),
        "evaluation": _evaluation(gaps),
        "auto": auto,
        "budget": _budget(gaps, auto if fill == "auto" else budget(gaps, fill)),
        "categories": {name: _category(gaps, row) for row, name in enumerate(gaps.names)},
    }


def _category(gaps: Gaps, row: int) -> dict[str, Any]:
    name = gaps.names[row]
    return {
        "images": int(gaps.images[row]),
        "objects": int(gaps.objects[row]),
        "crowds": int(gaps.crowds[row]),
        "share": _plain(gaps.share[row]),
        "sizes": dict(zip(SIZES, gaps.sizes[row].tolist(), strict=True)),
        "sqrt_area_px": {f"{q:g}": _plain(v) for q, v in zip(QUANTILES, gaps.quantiles_px[row], strict=True)},
        "truncated": _plain(gaps.truncated[row]),
        "neighbours": _plain(gaps.neighbours[row]),
        "overlap": _plain(gaps.overlap[row]),
        "center": [_plain(v) for v in gaps.center[row]],
        "places": gaps.cells[row].sum(axis=0).tolist(),
        "unseen": list(gaps.unseen(name)),
        "repeat_factor": _plain(gaps.repeat[row]),
        "ap": _plain(gaps.ap[row]),
        "weak": name in gaps.weak if not math.isnan(gaps.ap[row]) else None,
        "auto": int(gaps.auto[row]),
    }


def _evaluation(gaps: Gaps) -> dict[str, Any] | None:
    if gaps.evaluation is None:
        return None
    median = amounts.median(gaps.ap)
    return {
        "file": gaps.evaluation.where,
        "measure": gaps.evaluation.measure,
        "percent": gaps.evaluation.percent,
        "median": _plain(median),
        "weak_below": _plain(amounts.WEAK * median),
        "weak": list(gaps.weak),
        "missing": list(gaps.evaluation.missing),
    }


def _budget(gaps: Gaps, fill: Mapping[str, int]) -> dict[str, Any]:
    advice = advise(gaps, fill)
    return {
        "fill": dict(advice.fill),
        "objects": sum(advice.fill.values()),
        "images": advice.images,
        "ratio": _plain(advice.ratio),
        "ratio_range": [amounts.LEAST_RATIO, amounts.MOST_RATIO],
        "warning": advice.warning or None,
        "note": KEPT,
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
