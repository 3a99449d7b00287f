"""How strict to be: each category's threshold, from real objects that the judging model did not train on.

Two promises, each with what it needs. *Keep*: a real object is accepted with a probability of at least `keep`; that sets the
threshold. *Refuse*: of each kind of planted error at most `false_accept` pass; that is tested, and said where it holds.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rarefill.annotators import bounds
from rarefill.annotators.faults import Kind

BLIND = 0.25
"""A category of whose real objects the checker finds a smaller share than this is not judged at all: see `Standing`."""
SHORT = 0.1
"""How much less than what was asked for is still worth a promise."""
_FEW = 9
"""Errors of a kind below which they do not move a threshold."""
RIVAL_MARGIN = 0.1
"""By how much another class must score higher at the same place to be the better answer."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a detector says of one place, asked for one category.

    Attributes:
        score: of the best detection of the category that fits the box; 0 when there is none.
        overlap: IoU of that detection with the box, or of the best one of the category that does not fit.
        near: score of the best detection of the category that touches the box without fitting it.
        rival: score of the best detection of any other category that fits the box.
        weighed: the score has weighed all categories against each other already, so that a rival takes nothing from it.
        unseen: the detector found nothing of the category that fits the box; the score is what else speaks for it.
    """

    score: float = 0.0
    overlap: float = 0.0
    near: float = 0.0
    rival: float = 0.0
    weighed: bool = False
    unseen: bool = False

    @property
    def mistaken(self) -> bool:
        """Whether another category is clearly the better answer."""
        return self.rival > self.score + RIVAL_MARGIN

    @property
    def standing(self) -> float:
        """The score that counts against a threshold: nothing for what is taken for something else."""
        return 0.0 if self.mistaken and not self.weighed else self.score


@dataclass(frozen=True, slots=True)
class Errors:
    """What the checker lets pass of one kind of planted error.

    Attributes:
        kind: which.
        tried: errors of this category that were shown.
        passed: of those, how many reach the threshold.
        low: of the exact interval of the share that passes, 0 to 1, at `bounds.CONFIDENCE`.
        high: its other end.
        level: the score from which on at most the share asked for passes, sure at 1 - delta; None where no score is.
        left: share of the held-back real objects that reach `level`, 0 to 1; 0 where there is none.
        pooled: how many errors of all categories stand behind `level`, where the category's own are too few; else 0.
        needed: examples from which on anything can be sure.
        holds: whether the threshold is at `level` or above.
    """

    kind: str
    tried: int
    passed: int
    low: float
    high: float
    level: float | None
    left: float
    pooled: int
    needed: int
    holds: bool

    @property
    def unknown(self) -> bool:
        """Whether there are too few examples to be sure of anything."""
        return max(self.tried, self.pooled) < self.needed


@dataclass(frozen=True, slots=True)
class Standing:
    """How well the checker knows one category, from real objects that the judging model did not train on.

    Attributes:
        category: its name.
        held_back: real objects that were judged.
        found: share of them that the threshold accepts, 0 to 1.
        threshold: the score that a painted object needs, 0 to 1.
        pooled: the category had too few held-back objects for a threshold of its own.
        empty: places without any object that were shown to the checker as this category.
        fooled: share of those places that it accepts, 0 to 1.
        images: that the held-back objects stand on; objects of one image are alike, so this says more than their number.
        kept_low: of the exact interval of the share of real objects kept, 0 to 1, at `bounds.CONFIDENCE`.
        kept_high: its other end.
        keep: share of real objects that was asked for.
        keeps: share that is promised for a new real object: `keep` or more where the data allow it, less where they do
            not, 0 where nothing can be said.
        false_accept: share of planted errors that may pass.
        delta: how often a statement about errors may be wrong.
        errors: each kind of planted error.
    """

    category: str
    held_back: int
    found: float
    threshold: float
    pooled: bool
    empty: int = 0
    fooled: float = 0.0
    images: int = 0
    kept_low: float = 0.0
    kept_high: float = 1.0
    keep: float = 0.0
    keeps: float = 0.0
    false_accept: float = 1.0
    delta: float = 0.1
    errors: tuple[Errors, ...] = ()

    @property
    def blind(self) -> bool:
        """Whether the checker knows too little of the category to judge: its objects then stay unchecked."""
        return self.found < BLIND

    @property
    def kept(self) -> bool:
        """Whether the share asked for is promised."""
        return self.keeps >= self.keep - 1e-9

    @property
    def refused(self) -> tuple[str, ...]:
        """Kinds of errors of which at most the share asked for pass."""
        return tuple(e.kind for e in self.errors if e.holds)

    def __str__(self) -> str:
        if self.blind:
            return (
                f"{self.category}: the checker finds {self.found:.0%} of {self.held_back} real objects held back from it; "
                "painted ones are not judged by it"
            )
        pooled = ", leaning on the other categories" if self.pooled else ""
        between = f" ({self.kept_low:.0%} to {self.kept_high:.0%})" if self.keep else ""
        return (
            f"{self.category}: finds {self.found:.0%}{between} of {self.held_back} real objects held back from it, takes "
            f"{self.fooled:.0%} of {self.empty} empty places for one (score {self.threshold:.2f} and above{pooled})"
            f"{self._sure()}"
        )

    def _sure(self) -> str:
        """The end of the line: which errors are kept out for sure."""
        if not self.errors:
            return ""
        if not self.refused:
            return "; sure of no kind of error"
        what = "every kind of error" if len(self.refused) == len(self.errors) else ", ".join(self.refused)
        return f"; refuses {1 - self.false_accept:.0%} for sure of: {what}"


def threshold(scores: Sequence[float], keep: float, min_score: float) -> tuple[float, float]:
    """The highest score that keeps a share of new real objects, and the share that it promises.

    With r the rank that `keep` allows among n scores, the r-th lowest: a new object reaches it with a probability of at
    least 1 - r / (n + 1) (`bounds.conformal_rank`). With too few objects for that the lowest score, which promises less.

    Where more were missed than `keep` allows, but no more than `SHORT` less would allow, the lowest score that was found, and
    the promise of that lesser share: a promise by how many were missed would be too good, as it is chosen after they were
    counted. Where still more were missed, `keep` of those that were found, and a promise of 0: a detector that misses a third
    of the real objects is no reason to take whatever it sees a shadow of.

    Args:
        scores: of held-back real objects, 0 for what was missed.
        keep: share of new objects to keep.
        min_score: no threshold is lower.
    """
    ordered = sorted(scores)
    level, promised = _lowest(ordered, keep)
    if level >= min_score:
        return level, promised
    found = [s for s in ordered if s >= min_score]
    weaker, promised = _lowest(ordered, max(keep - SHORT, 0.0))
    if weaker >= min_score:
        return found[0], promised
    return max(_lowest(found, keep)[0], min_score), 0.0


def lowest(errors: Sequence[Sequence[float]], share: float) -> float | None:
    """The lowest of some errors' scores, rounded up, from which on at most a share of them passes, on average over their kinds.

    Args:
        errors: standings of planted errors, by kind; kinds without any do not count.
        share: that may pass.

    Returns:
        A score of 0 to 1, or more where errors score 1; None without any error.
    """
    kinds = [sorted(held) for held in errors if held]
    if not kinds:
        return None
    for level in sorted({0.0, *(round(score + 1e-4, 4) for held in kinds for score in held)}):
        if sum(1 - bisect_left(held, level) / len(held) for held in kinds) <= share * len(kinds):
            return level
    return None


def _by_errors(
    scores: Sequence[float], errors: Sequence[Sequence[float]], share: float, min_score: float
) -> float | None:
    """The threshold that errors ask for: as low as they allow, and never so high that it blinds. None without errors."""
    level = lowest([held for held in errors if len(held) >= _FEW], share)
    if level is None:
        return None
    seen = sorted(scores, reverse=True)[max(0, math.ceil(BLIND * len(scores)) - 1) :]
    return max(min(level, seen[0]) if seen else level, min_score)


def _lowest(ordered: Sequence[float], keep: float) -> tuple[float, float]:
    if not ordered:
        return 0.0, 0.0
    rank = max(1, bounds.conformal_rank(len(ordered), keep))
    return ordered[rank - 1], 1 - rank / (len(ordered) + 1)


def standings(
    seen: Mapping[str, Sequence[float]],
    fooled: Mapping[str, Sequence[float]],
    *,
    keep: float,
    min_score: float,
    faults: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    images: Mapping[str, int] | None = None,
    false_accept: float = 0.1,
    delta: float = 0.1,
) -> tuple[Standing, ...]:
    """Each category's threshold, and what it does to real objects and to planted errors.

    Args:
        seen: per category the standing of each held-back real object, 0 for those that were missed.
        fooled: per category the standing of places that hold no object. Where nothing can be promised of real
            objects, or only with too many errors, these categories get the threshold that `lowest` gives.
        keep: share of real objects to keep.
        min_score: no threshold is lower.
        faults: per category and kind of planted error the standing of each; empty places are in `fooled`.
        images: per category how many images its held-back objects stand on.
        false_accept: share of each kind of error that may pass.
        delta: how often a statement about errors may be wrong.
    """
    common, _ = threshold([s for scores in seen.values() for s in scores], keep, min_score)
    shown = {
        category: ({str(Kind.EMPTY): fooled[category]} if category in fooled else {})
        | dict((faults or {}).get(category, {}))
        for category in seen
    }
    out = []
    for category, scores in seen.items():
        level, promised, pooled = _level(scores, common, keep, min_score)
        if category in fooled:
            strict = _by_errors(scores, list(shown[category].values()), false_accept, min_score)
            if strict is not None and (strict > level or not promised):
                level, promised = strict, 0.0
        low, high = bounds.interval(sum(s >= level for s in scores), len(scores))
        empty = fooled.get(category, ())
        asked = [kind for kind in map(str, Kind) if kind in shown[category]] if category in fooled else []
        out.append(
            Standing(
                category=category,
                held_back=len(scores),
                found=_share(scores, level),
                threshold=level,
                pooled=pooled,
                empty=len(empty),
                fooled=_share(empty, level),
                images=(images or {}).get(category, 0),
                kept_low=low,
                kept_high=high,
                keep=keep,
                keeps=promised,
                false_accept=false_accept,
                delta=delta,
                errors=tuple(
                    _errors(category, kind, shown, scores, level, false_accept, delta) for kind in asked
                ),
            )
        )
    return tuple(out)


def _level(
    scores: Sequence[float], common: float, keep: float, min_score: float
) -> tuple[float, float, bool]:
    """A category's threshold, what it promises, and whether it leans on the other categories.

    Too few objects for the share asked for: the others' threshold, but never above the lowest score of its own
    that was found. Leaning on others can so only keep more of its real objects.
    """
    own, promised = threshold(scores, keep, min_score)
    few = bounds.conformal_rank(len(scores), keep) < 1
    level = common if not len(scores) else min(own, common) if few else own
    return math.floor(level * 1e4 + 1e-6) / 1e4, round(promised, 4), few  # up would lose the object itself


def _errors(
    category: str,
    kind: str,
    shown: Mapping[str, Mapping[str, Sequence[float]]],
    real: Sequence[float],
    level: float,
    share: float,
    delta: float,
) -> Errors:
    """One kind of error of one category; others' errors stand in where its own are too few and do not speak against it."""
    own = shown[category][kind]
    passed = sum(s >= level for s in own)
    low, high = bounds.interval(passed, len(own))
    needed = bounds.needed(share, delta)
    basis, pooled = own, 0
    if len(own) < needed:
        others = [s for name, held in shown.items() if name != category for s in held.get(kind, ())]
        if len(own) + len(others) >= needed and low <= _share(others, level) <= high:
            basis = [*own, *others]
            pooled = len(basis)
    sure = bounds.certified(basis, share, delta)
    holds = sure is not None and sure <= level
    left = 0.0 if sure is None else _share(real, sure)
    return Errors(kind, len(own), passed, low, high, sure, left, pooled, needed, holds)


def _share(scores: Sequence[float], level: float) -> float:
    return round(sum(s >= level for s in scores) / len(scores), 4) if len(scores) else 0.0
