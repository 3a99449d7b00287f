"""Figures as markdown tables."""

from collections.abc import Sequence
from typing import Any


def table(figures: Sequence[dict[str, Any]]) -> str:
    """One line for each case and kind of object, as docs/fidelity.md has it."""
    head = (
        "case", "what", "n", "KID window", "KID object", "accepted", "kept by the checker",
        "IoU asked, measured", "IoU asked, detected", "nearest exemplar: features", "pixels",
        "seam AUC", "fine AUC", "coarse AUC", "surroundings AUC", "texture AUC", "texture around",
    )  # fmt: skip
    rows = [row for one in figures for row in _rows(one)]
    return "\n".join([_line(head), _line(["---"] * len(head)), *map(_line, rows)])


def _rows(f: dict[str, Any]) -> list[list[str]]:
    arms = list(f["paints"])
    names = ["real halves", "other real", "held-out real", "background"]
    for arm in arms:
        names += [arm, f"{arm}, kept"]
    rows = []
    for name in names:
        arm = name if name in arms else None
        cells = [
            str(_count(f, name)),
            _pm(_at(f, "kid", "window", name), "kid"),
            _pm(_at(f, "kid", "object", name), "kid"),
            _pm(_at(f, "acceptance", name), "share"),
            _kept(f["paints"][arm]) if arm else "",
            _number(f["paints"][arm]["asked_overlap"]) if arm else "",
            _number((_at(f, "acceptance", name) or {}).get("overlap")),
            _median(_at(f, "copies", name), "features"),
            _median(_at(f, "copies", name), "pixels"),
            _interval(_at(f, "seams", name, "whole")),
            _interval(_at(f, "seams", name, "fine")),
            _interval(_at(f, "seams", name, "coarse")),
            _interval(_at(f, "seams", name, "surroundings")),
            _interval(_at(f, "seams", name, "texture")),
            _interval(_at(f, "seams", name, "texture around")),
        ]
        if any(cells[1:]):
            rows.append([f["case"], name, *cells])
    return rows


def _count(f: dict[str, Any], name: str) -> int | str:
    if name in f["paints"]:
        return int(f["paints"][name]["shown"])
    keys = {"real halves": "held", "held-out real": "held", "other real": "other", "background": "ground"}
    found = _at(f, "kid", "window", name) or _at(f, "acceptance", name) or {}
    return f["real"][keys[name]] if name in keys else found.get("n", "")


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _pm(found: dict[str, Any] | None, key: str) -> str:
    if not found or found.get(key) is None:
        return ""
    return f"{found[key]:.3f} ± {found['se']:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _median(found: dict[str, Any] | None, key: str) -> str:
    if not found:
        return ""
    return f"{found[key]['median']:.2f} ({found['near'][key]:.0%} near)"


def _interval(found: dict[str, Any] | None) -> str:
    return f"{found['auc']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if found else ""


def _kept(paints: dict[str, Any]) -> str:
    reasons, n = paints["checker"], paints["shown"]
    return f"{reasons.get('accepted', 0) / n:.2f}" if set(reasons) - {"unchecked"} else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
