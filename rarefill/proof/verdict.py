"""What a study comes to, in words that a person can act on."""

from collections.abc import Sequence

from rarefill.proof import findings
from rarefill.proof.arms import ADVICE, SAMPLED, Spec
from rarefill.proof.findings import Evidence, surely
from rarefill.proof.study import Comparison, Equivalence, Outcome, Verdict

SURE = 0.05
"""Of an adjusted p-value."""
LEARNT = 0.1
"""AP below which a detector tells more of itself than of its training data."""


def verdict(
    evidence: Evidence,
    baseline: str,
    compared: Sequence[Comparison],
    worth: Sequence[Equivalence],
    rare: Sequence[str],
) -> Verdict | None:
    """The verdict on generation; None where no generated arm or no baseline was trained.

    Args:
        evidence: all figures.
        baseline: the best free one.
        compared: `findings.comparisons`.
        worth: `findings.equivalence`.
        rare: the categories that the study is about.
    """
    main = [c for c in compared if c.against == baseline and c.measure == "rare" and _made(evidence, c.arm)]
    if not main:
        return None
    helping = [c for c in main if (c.p_adjusted or 1) < SURE and c.difference.value > 0]
    harming = [c for c in main if (c.p_adjusted or 1) < SURE and c.difference.value < 0]
    chosen = max(helping or main, key=lambda c: c.difference.value)
    outcome: Outcome = "helps" if helping else "harms" if len(harming) == len(main) else "no evidence"
    what = f"AP of {' and '.join(rare)}" if len(rare) < 4 else f"mean AP of {len(rare)} rare categories"
    said = [_first(outcome, chosen, baseline, what)]
    if outcome == "no evidence":
        said.append(_reach(chosen))
    said += _others(compared, chosen, outcome)
    peak, beyond, more = _ratios(evidence)
    said += more
    said += [_worth(w) for w in worth if w.arm == chosen.arm]
    top = max(level.value for s in evidence.specs if (level := evidence.level(s.name)) is not None)
    if top < LEARNT:
        said.append(
            f"No arm reaches an AP of {LEARNT:g}: the detector has hardly learnt these categories, so the study says little. "
            "Train longer (--train-steps), or take a stronger detector."
        )
    if evidence.n_trainings < 2:
        said.append("One training of each arm: another seed may say otherwise; take --seeds 3 or more.")
    return Verdict(
        outcome=outcome,
        arm=chosen.arm,
        baseline=baseline,
        lines=tuple(said),
        best_ratio=peak,
        worse_beyond=beyond,
    )


def _made(evidence: Evidence, name: str) -> bool:
    return next(s for s in evidence.specs if s.name == name).kind == "generated"


def _first(outcome: Outcome, chosen: Comparison, baseline: str, what: str) -> str:
    difference = chosen.difference.signed()
    if outcome == "helps":
        return f"Generation adds {difference} {what} over the best free baseline ({baseline}): train with {chosen.arm}."
    if outcome == "harms":
        return (
            f"Generation makes it worse here: the best generated arm ({chosen.arm}) is {difference} {what} from the "
            f"best free baseline ({baseline}); {_advice(baseline)}."
        )
    return (
        f"No evidence that generation helps here: the best generated arm ({chosen.arm}) is {difference} {what} from "
        f"the best free baseline ({baseline}); {_advice(baseline)}."
    )


def _advice(baseline: str) -> str:
    source, plus, sampling = baseline.partition("@")[0].partition("+")
    return ADVICE.get(source, f"train with {baseline}") + (SAMPLED[sampling] if plus else "")


def _reach(chosen: Comparison) -> str:
    """How large a gain could hide: an absent proof is no proof of absence."""
    high = chosen.difference.high
    if high <= 0:
        return "A gain of any size is unlikely."
    return f"A gain of up to {high:.3f} would not have shown in this study; more seeds or a larger test part would tell."


def _others(compared: Sequence[Comparison], chosen: Comparison, outcome: Outcome) -> list[str]:
    found = [c for c in compared if (c.arm, c.against, c.measure) == (chosen.arm, chosen.against, "others")]
    if not found:
        return []
    change = found[0].difference
    if not surely(change):
        return [f"The other categories change by {change.signed()}: not surely at all."]
    if change.value < 0:
        return [f"The other categories lose: {change.signed()} AP."]
    mild = f" Where they matter, train with {chosen.arm}." if outcome == "no evidence" else ""
    return [f"The other categories gain: {change.signed()} AP.{mild}"]


def _ratios(evidence: Evidence) -> tuple[float | None, float | None, list[str]]:
    """Best ratio of the first generated line that has several, the ratio beyond which more is worse, and the words."""
    held = [s for s in evidence.specs if s.kind == "generated" and s.name in evidence.rare]
    peak: float | None = None
    beyond: float | None = None
    said = []
    for n, line in enumerate(findings.lines(held)):
        best, worse = findings.worse_beyond(evidence, line)
        if n == 0:
            peak, beyond = best, worse
        said.append(_ratio(line, best, worse))
    return peak, beyond, said


def _ratio(line: Sequence[Spec], best: float, worse: float | None) -> str:
    name = line[0].line
    tried = ", ".join(f"{s.ratio:g}" for s in line)
    if worse is not None:
        return f"{name}: best at ratio {best:g} of {tried}; more is worse beyond ratio {worse:g}."
    return f"{name}: best at ratio {best:g} of {tried}; a larger one is not surely worse."


def _worth(w: Equivalence) -> str:
    if w.factor is None:
        return (
            f"What it is worth in real examples cannot be said: the oracle, with {w.oracle_factor:.1f} times the real "
            f"objects, is itself not surely better."
        )
    high = "no upper end within reach" if w.high is None else f"{w.high:.1f}"
    return (
        f"It is worth {w.factor:.1f} times the real objects ({w.low:.1f} to {high}); "
        f"the oracle has {w.oracle_factor:.1f} times as many."
    )
