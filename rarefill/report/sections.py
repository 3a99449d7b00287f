"""What each section of a report shows, as plain values for its template. Names stay as they are: the template escapes all."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from rarefill.annotators import Standing
from rarefill.annotators.promises import kept_promise, refusal
from rarefill.fidelity import stored
from rarefill.fidelity.copies import Copies
from rarefill.fidelity.saturation import STOP
from rarefill.fidelity.stored import Fidelity
from rarefill.layouts import Covered
from rarefill.likeness import CHANCE
from rarefill.proof import served
from rarefill.proof.study import Study
from rarefill.report import charts, words
from rarefill.report.facts import Facts, Painted
from rarefill.report.gather import Gathered, Tile
from rarefill.report.representation import Group, Representation
from rarefill.report.words import percent
from rarefill.scene import Goal, Kind, Step

CLASSES = 40
"""Categories in the chart, those asked for first, then the most frequent."""
PAIRS = 12
"""Near-copies shown beside the real object that they are like."""
_SAID = ("exemplar", "generator", "blend", "strength", "rotation_deg", "flip", "zoom", "scale", "verdict")
"""What of an object's record is shown when it is opened."""

Values = dict[str, Any]


def cards(facts: Facts) -> list[tuple[str, str]]:
    """The figures that stand first."""
    tallies = facts.summary.tallies
    made, asked = sum(t.made for t in tallies), sum(t.asked for t in tallies)
    paints = sum(t.paints for t in tallies)
    held = sum(t.mended[step] for t in tallies for step in Step)
    judged = sum(t.made - t.unjudged for t in tallies)
    return [
        (f"{made:,} of {asked:,}", "objects made"),
        (f"{facts.summary.images:,}", "images written"),
        (percent(held / paints) if paints else "none", f"of {words.count(paints, 'paint')} held"),
        (percent(judged / made) if made else "none", "of them judged by a checker"),
    ]


def stands_out(
    facts: Facts, found: Iterable[Representation], alike: Mapping[str, Copies], study: Study | None
) -> list[str]:
    """What a reader should know first, the verdict on its worth last."""
    said = [
        f"{t.title}: {t.unjudged:,} of {t.made:,} were not judged by a checker; look at them yourself."
        for t in facts.summary.tallies
        if t.unjudged
    ]
    if facts.manifest["rarefill"]["recipe"]["image_format"] == "jpeg":
        said.append(
            "Images are JPEG, as asked for: pixels outside of painted objects are not quite the data's own."
        )
    for r in found:
        groups = [(a.name, g) for a in r.attributes for g in a.groups if g.few and g.change == "worsened"]
        said += [
            f"{r.category}: few real ones are {g.name} ({name}), and the painted ones lower their share further."
            for name, g in groups
        ]
    for name, c in alike.items():
        share = float(c.near.mean()) if c.mark is not None else 0.0
        if share > 3 * CHANCE:
            said.append(
                f"{name}: {share:.0%} of the painted ones are near-copies of real ones; {CHANCE:.0%} would be chance."
            )
    if study is None or study.verdict is None:
        said.append("Whether training on it helps is not known: there is no study of this run.")
    else:
        said += study.verdict.lines[:1]
    return said


def tallies(facts: Facts) -> list[Values]:
    """Counts of each goal."""
    return [
        {
            "title": t.title,
            "asked": t.asked,
            "made": t.made,
            "paints": t.paints,
            "first": t.mended[Step.FIRST],
            "repaired": sum(n for step, n in t.mended.items() if step is not Step.FIRST),
            "given_up": t.given_up,
            "unjudged": t.unjudged,
        }
        for t in facts.summary.tallies
    ]


def bars(facts: Facts) -> tuple[list[charts.ClassBar], str]:
    """The classes' chart, and what it leaves out."""
    made = dict.fromkeys(facts.dataset.names, 0)
    for t in facts.summary.tallies:
        made[t.category] += t.made if t.kind is Kind.NEW else 0
    again = dict(facts.repeated)
    for t in facts.summary.tallies:
        if t.kind is Kind.REDRAWN:  # a real label under new paint
            again[t.category] = again.get(t.category, 0) + t.made
    asked = set(facts.categories)
    names = sorted(facts.dataset.names, key=lambda n: (n not in asked, -facts.real[n]))
    rows = [(n, facts.real[n], again.get(n, 0), made[n], n in asked) for n in names[:CLASSES]]
    left = len(names) - CLASSES
    more = f"{left} more categories, all with fewer labels, are not drawn." if left > 0 else ""
    return charts.class_bars(rows), more


def groups(facts: Facts, gathered: Gathered, near: frozenset[int]) -> list[Values]:
    """Tiles of each goal's painted objects, beside some real ones."""
    out, told = [], set()
    for goal in facts.goals:
        rows = [row for row in facts.shown if facts.painted[row].goal == goal]
        made = next(t.made for t in facts.summary.tallies if Goal(t.category, t.kind) == goal)
        of = "all" if len(rows) == made else f"{len(rows)} of"
        real = [t for t in gathered.real_tiles.values() if t["category"] == goal.category]
        out.append(
            {
                "title": str(goal),
                "heading": f"{'Redrawn' if goal.kind is Kind.REDRAWN else 'Painted'}: {of} {made:,}",
                "real": [] if goal.category in told else real,
                "tiles": [_tile(facts.painted[row], gathered.tiles[row], row, row in near) for row in rows],
            }
        )
        told.add(goal.category)
    return out


def _tile(thing: Painted, tile: Tile, row: int, near: bool) -> Values:  # noqa: FBT001
    threshold = thing.how.get("threshold")
    score = "" if thing.score is None else f"{thing.score:.2f}"
    facts = [("file", f"{thing.file}, on {thing.size[0]} × {thing.size[1]} px")]  # noqa: RUF001
    facts.append(("label as measured", _corners(thing.box.xyxy)))
    if thing.mask is not None:
        facts.append(("pixels painted", f"{_corners(thing.mask.box.xyxy)}, {thing.mask.area:,} px"))
    if thing.asked is not None:
        facts.append(("box asked for", _corners(thing.asked.xyxy)))
    judged = f"score {score}, needed {float(threshold or 0):.2f}" if score else "not judged"
    facts.append(("checker", judged))
    if thing.attempt:
        facts.append(("painted", f"{words.how(thing.step)} (paint {thing.attempt + 1})"))
    facts.append(("how", ", ".join(f"{key} {thing.how[key]}" for key in _SAID if key in thing.how)))
    return {
        **tile,
        "anchor": f"object-{row + 1}",
        "alt": f"Painted {thing.category}, {tile['note']}",
        "score": score,
        "near": near,
        "facts": facts,
    }


def _corners(xyxy: Sequence[float]) -> str:
    x1, y1, x2, y2 = xyxy
    return f"{x1:.0f}, {y1:.0f} to {x2:.0f}, {y2:.0f}"


def refusals(facts: Facts) -> list[tuple[str, str, int, str]]:
    """Category, reason, paints and what the reason means."""
    return [
        (t.title, reason, n, words.why(reason))
        for t in facts.summary.tallies
        for reason, n in t.refused.most_common()
    ]


def steps(facts: Facts) -> list[tuple[str, str, int, int]]:
    """Category, way of painting, tried and held; none where nothing was mended."""
    if not any(t.tried[s] for t in facts.summary.tallies for s in Step if s is not Step.FIRST):
        return []
    return [
        (t.title, words.how(step), t.tried[step], t.mended[step])
        for t in facts.summary.tallies
        for step in Step
        if t.tried[step]
    ]


def checker(facts: Facts) -> list[Values]:
    """The calibration of the categories that were asked for, errors under each."""
    return [
        row for s in facts.checker if s.category in facts.categories for row in (_objects(s), *_errors(s))
    ]


def _objects(s: Standing) -> Values:
    return {
        "name": s.category,
        "sub": False,
        "shown": f"real objects, on {s.images} images",
        "accepted": f"{round(s.found * s.held_back)} of {s.held_back}",
        "share": f"{s.found:.0%}",
        "interval": f"{s.kept_low:.0%} to {s.kept_high:.0%}",
        "score": f"{s.threshold:.2f}",
        "promise": kept_promise(s),
    }


def _errors(s: Standing) -> list[Values]:
    return [
        {
            "name": "",
            "sub": True,
            "shown": e.kind,
            "accepted": f"{e.passed} of {e.tried}",
            "share": f"{e.passed / e.tried:.0%}" if e.tried else "",
            "interval": f"{e.low:.0%} to {e.high:.0%}" if e.tried else "",
            "score": "" if e.level is None else f"{e.level:.2f}",
            "promise": refusal(s, e),
        }
        for e in s.errors
    ]


def places(facts: Facts, gathered: Gathered) -> list[Values]:
    """Maps and sizes of each category."""
    out = []
    for name, category in gathered.categories.items():
        frames = category.real.frame if len(category.real) else category.painted.frame
        aspect = float(np.median(frames[:, 0] / frames[:, 1])) if len(frames) else 1.0
        covered = facts.covered.get(name)
        sampled = (
            len(category.real) < facts.real[name]
            or max(len(category.real), len(category.painted)) > charts.DOTS
        )
        out.append(
            {
                "category": name,
                "covered": f"{str(Covered(*covered)).capitalize()}." if covered else "",
                "map": charts.place_map(category.real.centre, category.painted.centre, aspect),
                "sizes": charts.size_steps(category.real.side, category.painted.side),
                "sampled": " (an even sample)" if sampled else "",
            }
        )
    return out


def represented(found: Iterable[Representation]) -> list[Values]:
    """The groups of every category, in words and percent."""
    return [
        {
            "category": r.category,
            "looked": f"{r.real:,} of {r.of_real:,} real objects, {r.painted:,} of {r.of_painted:,} painted"
            if r.real < r.of_real or r.painted < r.of_painted
            else f"{r.real:,} real objects, {r.painted:,} painted",
            "attributes": [
                {
                    "name": a.name[:1].upper() + a.name[1:],
                    "says": a.says,
                    "ap": any(v is not None for g in a.groups for v in g.ap),
                    "groups": [_group(g) for g in a.groups],
                }
                for a in r.attributes
            ],
        }
        for r in found
    ]


def _group(g: Group) -> Values:
    before, after = (f"{v:.3f}" if v is not None else "?" for v in g.ap)
    return {
        "name": g.name,
        "real": g.real,
        "painted": g.painted,
        "before": percent(g.share_before),
        "after": percent(g.share_after),
        "few": g.few,
        "change": g.change,
        "ap": f"{before} to {after}",
    }


def copies(found: Mapping[str, Copies]) -> list[Values]:
    """The copies' table."""
    return [
        {
            "category": name,
            "n": len(c.alike),
            "near": f"{int(c.near.sum()):,}" if c.mark is not None else "unknown",
            "share": percent(float(c.near.mean())) if c.mark is not None else "too few real objects",
            "median": f"{np.median(c.alike):.2f}",
            "real": f"{np.median(c.real_alike):.2f}" if len(c.real_alike) else "unknown",
            "mark": f"{c.mark:.2f}" if c.mark is not None else "none",
        }
        for name, c in found.items()
        if len(c.alike)
    ]


def near_rows(gathered: Gathered, found: Mapping[str, Copies]) -> frozenset[int]:
    """Rows of `Facts.painted` that are near-copies."""
    return frozenset(
        gathered.categories[name].painted_rows[int(i)]
        for name, c in found.items()
        for i in np.flatnonzero(c.near)
    )


def proof(study: Study | None) -> Values | None:
    """A study's arms and verdict; None without one."""
    if study is None:
        return None
    lines = list(study.verdict.lines) if study.verdict else []
    return {
        "lines": lines,
        "notes": list(study.notes),
        "caption": f"{', '.join(study.rare)}: AP at IoU 0.50 to 0.95 on {study.test_images:,} images of {study.test}, "
        f"{study.trainer}; 95 % intervals",
        "arms": [
            {
                "name": arm.name,
                "kind": arm.kind,
                "rare": arm.failed or (str(arm.rare) if arm.rare else ""),
                "others": str(arm.others) if arm.others else "",
            }
            for arm in study.arms
        ],
        "served": _served(study),
    }


def _served(study: Study) -> Values | None:
    """AP by groups as a table; None where the study does not tell them."""
    if not study.served or study.verdict is None:
        return None
    shown = study.verdict.shown
    return {
        "lines": served.says(study),
        "head": ["group", "objects", *shown, "difference"],
        "rows": [
            [
                f"{part.category}, {part.attribute}: {part.group}"
                if len(study.rare) > 1
                else f"{part.attribute}: {part.group}",
                f"{part.objects:,}",
                *(f"{part.ap[name]:.3f}" if name in part.ap else "" for name in shown),
                part.difference.signed() if part.difference else "",
            ]
            for part in study.served
        ],
    }


def fidelity(found: Fidelity | None) -> Values | None:
    """The figures of `rarefill fidelity` as tables and curves; None without them."""
    if found is None:
        return None
    return {
        "reference": f"{found.reference}, {'the data that the run was made from' if found.own_data else 'other real data'}",
        "features": found.features,
        "caveat": stored.CAVEAT,
        "notes": list(found.notes),
        "tables": stored.tables(replace(found, copies=())),  # the page has them already
        "curves": [_curve(c) for c in found.curves],
    }


def _curve(curve: stored.Curve) -> Values:
    last = float(curve.points[-1][0])
    return {
        "category": curve.category,
        "says": curve.says,
        "path": charts.curve([(float(k), v) for k, v in curve.points], last),
        "stop": charts.curve([(0.0, STOP), (last, STOP)], last),
        "ticks": charts.counted(curve.points[-1][0]),
    }


def _outside(image_format: str) -> str:
    if image_format == "jpeg":
        return "which changes every pixel a little, outside of painted objects too"
    return "pixels outside of painted objects as in the data"


def provenance(facts: Facts) -> list[tuple[str, str]]:
    """What decided the run's bytes."""
    own = facts.manifest["rarefill"]
    recipe = own["recipe"]
    weights = own.get("model") or "none: no model painted"
    rows = [
        ("rarefill", own["version"]),
        ("seed", recipe["seed"]),
        ("role", "training" if recipe.get("role", "train") == "train" else f"synthetic {recipe['role']} set"),
        ("data", f"{facts.dataset.path.name}, digest {own['data']}"),
        ("plan", own["plan"] or "made by the run"),
        ("generator", own["generator"] or recipe["generator"]["generator"]),
        ("painting weights", weights),
        ("checker", own["checker"] or recipe["annotator"]["checker"]),
        ("images", f"{recipe['image_format']}, {_outside(recipe['image_format'])}"),
    ]
    return [(key, str(value)) for key, value in rows]
