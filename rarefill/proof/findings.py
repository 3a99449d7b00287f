"""From the trainings' figures to comparisons, the curve of ratios, and what an arm is worth in real examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rarefill.proof.arms import ORACLE, Spec
from rarefill.proof.bootstrap import Measured, Noise, Spread, holm, spread
from rarefill.proof.study import Comparison, Equivalence, Estimate, Point


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The figures of every arm that was trained.

    Attributes:
        specs: of these arms, `real` first.
        rare, others: mean AP of the rare and of all other categories, by the arm's name.
        noise: the trainings' part of every draw.
        oracle_factor: rare objects that the oracle has for each of the training part; None without an oracle.
    """

    specs: tuple[Spec, ...]
    rare: Mapping[str, Measured]
    others: Mapping[str, Measured]
    noise: Noise
    oracle_factor: float | None = None

    @property
    def n_trainings(self) -> int:
        """Of the arm that has most."""
        return max(int(np.isfinite(arm.value).sum()) for arm in self.rare.values())

    def of(self, measure: str) -> Mapping[str, Measured]:
        return self.rare if measure == "rare" else self.others

    def level(self, name: str, measure: str = "rare") -> Spread | None:
        """An arm's mean figure; None where it has none."""
        return spread(self.of(measure), {name: 1.0}, self.noise)

    def difference(self, name: str, against: str, measure: str = "rare") -> Spread | None:
        """One arm less another, run by run."""
        return spread(self.of(measure), {name: 1.0, against: -1.0}, self.noise)


def best(evidence: Evidence, kind: str) -> str:
    """The arm of a kind with the highest AP of rare categories; empty where there is none."""
    levels = {s.name: evidence.level(s.name) for s in evidence.specs if s.kind == kind}
    known = {name: level.value for name, level in levels.items() if level is not None}
    return max(known, key=lambda name: known[name]) if known else ""


def comparisons(evidence: Evidence, baseline: str) -> tuple[Comparison, ...]:
    """Generated arms against the best free baseline, and every arm against `real`; of each, rare and others.

    Holm's correction goes over the arms that are held against the same one by their rare categories.
    """
    made = [s.name for s in evidence.specs if s.kind == "generated"]
    every = [s.name for s in evidence.specs if s.name != "real"]
    out: list[Comparison] = []
    for against, names in ((baseline, made), ("real", every)):
        if against:
            out += _family(evidence, names, against, "rare", corrected=True)
            out += _family(evidence, names, against, "others", corrected=False)
    unique = {(c.arm, c.against, c.measure): c for c in reversed(out)}  # the first of two holds
    return tuple(reversed(unique.values()))


def _family(
    evidence: Evidence, names: Sequence[str], against: str, measure: str, *, corrected: bool
) -> list[Comparison]:
    found = {name: evidence.difference(name, against, measure) for name in names}
    known = {name: s for name, s in found.items() if s is not None}
    adjusted = holm([s.p() for s in known.values()])
    return [
        Comparison(
            arm=name,
            against=against,
            measure=measure,
            difference=s.estimate(),
            p=s.p(),
            p_adjusted=p if corrected else None,
        )
        for (name, s), p in zip(known.items(), adjusted, strict=True)
    ]


def curve(evidence: Evidence) -> tuple[Point, ...]:
    """AP against ratio of each generator that was tried at several, with its own sampling alone as ratio 0."""
    out: list[Point] = []
    for line in lines(evidence.specs):
        arms = [(line[0].without, 0.0), *((s.name, s.ratio or 0.0) for s in line)]
        for name, ratio in arms:
            level = evidence.level(name) if name in evidence.rare else None
            if level is not None:
                out.append(Point(arm=name, generator=line[0].line, ratio=ratio, rare=level.level()))
    return tuple(out)


def lines(specs: Sequence[Spec]) -> list[list[Spec]]:
    """Arms that differ by their ratio alone, by ratio, where there are at least two."""
    by: dict[str, list[Spec]] = {}
    for spec in specs:
        if spec.ratio is not None:
            by.setdefault(spec.line, []).append(spec)
    return [sorted(line, key=lambda s: s.ratio or 0) for line in by.values() if len(line) > 1]


def worse_beyond(evidence: Evidence, line: Sequence[Spec]) -> tuple[float, float | None]:
    """The best of some ratios, and itself again where a larger one is surely worse (Holm's correction over those)."""
    levels = [evidence.level(s.name) for s in line]
    known = [(s, level.value) for s, level in zip(line, levels, strict=True) if level is not None]
    top = max(known, key=lambda pair: pair[1])[0]
    peak = top.ratio or 0.0
    beyond = [s for s, _ in known if (s.ratio or 0) > peak]
    found = [f for s in beyond if (f := evidence.difference(s.name, top.name)) is not None]
    sure = [p < 0.05 and f.value < 0 for f, p in zip(found, holm([f.p() for f in found]), strict=True)]
    return peak, peak if any(sure) else None


def equivalence(evidence: Evidence) -> tuple[Equivalence, ...]:
    """What each generated arm and copy-paste is worth in real examples, between an oracle and the same without more data."""
    factor = evidence.oracle_factor
    top = best(evidence, "oracle")
    if not top or factor is None or factor <= 1:
        return ()
    own = next(s for s in evidence.specs if s.name == top)
    floor = own.without if own.without in evidence.rare else "real"
    gain = evidence.difference(top, floor)
    if gain is None:
        return ()
    sure = gain.estimate().low > 0
    out = []
    for spec in evidence.specs:
        if not spec.generator or spec.source == ORACLE:
            continue
        part = evidence.difference(spec.name, floor)
        if part is None:
            continue
        if not sure:
            out.append(Equivalence(arm=spec.name, factor=None, low=None, high=None, oracle_factor=factor))
            continue
        whole = np.maximum(gain.draws, 1e-9)  # some draws may put the oracle below; those have no upper end
        share = np.where(gain.draws > 0, part.draws / whole, np.sign(part.draws) * np.inf)
        low, high = np.nanpercentile(share, (2.5, 97.5))
        out.append(
            Equivalence(
                arm=spec.name,
                factor=_worth(factor, part.value / gain.value),
                low=_worth(factor, float(low)),
                high=None if high > 2 else _worth(factor, float(high)),
                oracle_factor=factor,
            )
        )
    return tuple(out)


def _worth(factor: float, share: float) -> float:
    """Examples for each real one, from none to the square of what the oracle has: beyond, the line is only drawn on."""
    return float(factor ** np.clip(share, -2, 2))


def surely(estimate: Estimate) -> bool:
    """Whether an interval leaves out 0."""
    return estimate.low > 0 or estimate.high < 0
