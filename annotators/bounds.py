"""What counts promise: exact intervals of a share, conformal levels, and tests of a share at many levels at once."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from rarefill.geometry import FloatArray

CONFIDENCE = 0.95
"""Of the two-sided intervals that are printed."""
LEVELS: FloatArray = np.round(np.arange(99, 0, -1) / 100, 2)
"""The scores that are tested, strictest first. Fixed before any data is seen: the tests need that."""


def interval(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a share of which `k` of `n` were seen (Clopper & Pearson 1934); 0 to 1 of nothing."""
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return round(low, 4), round(high, 4)


def p_value(k: int, n: int, share: float) -> float:
    """How likely `k` of `n` or fewer are, were the true share no lower than `share`: small means that it is lower."""
    return float(special.bdtr(k, n, share)) if n else 1.0


def needed(share: float, delta: float) -> int:
    """Examples, without a single one accepted, from which a share of at most `share` is sure at 1 - delta."""
    if share <= 0:
        raise ValueError(f"no number of examples shows that a share is {share}")
    return math.ceil(math.log(delta) / math.log1p(-share) - 1e-9) if share < 1 else 0


def certified(scores: Sequence[float], share: float, delta: float) -> float | None:
    """The lowest level at which at most `share` of errors pass, sure at 1 - delta for it and every level above.

    Fixed-sequence testing with exact binomial tests, from the strictest level down to the first that fails
    (Learn then Test: Angelopoulos, Bates, Candes, Jordan & Lei 2021, section 3).

    Args:
        scores: of errors, drawn independently of each other.
        share: of them that may pass.
        delta: how often the answer may be wrong.

    Returns:
        One of LEVELS, or None where even the strictest is not sure.
    """
    held = np.sort(np.asarray(scores, dtype=float))
    reached: float | None = None
    for level in LEVELS:
        passed = len(held) - int(np.searchsorted(held, level, side="left"))
        if p_value(passed, len(held), share) > delta:
            break
        reached = float(level)
    return reached


def conformal_rank(n: int, keep: float) -> int:
    """Which of `n` held-back scores, counted from the lowest, keeps a share `keep` of new objects; 0 when none does.

    A new object scores under the r-th lowest of n exchangeable ones with a probability of at most r / (n + 1) (Vovk,
    Gammerman & Shafer 2005; Papadopoulos et al. 2002).
    """
    return math.floor((1 - keep) * (n + 1) + 1e-9)


def fewest(keep: float) -> int | None:
    """Held-back objects from which a share `keep` can be promised at all; None when no number is enough."""
    return math.ceil(1 / (1 - keep) - 1e-9) - 1 if keep < 1 else None
