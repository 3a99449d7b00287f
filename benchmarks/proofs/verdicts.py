"""How often the verdict is right, on figures whose truth is known: no detector, the statistics alone.

A figure of an arm is a mean over test images: what an image gives is its own ease (the same for every arm), the training's
luck, and chance. The spreads are about those of the judge on real data: .015 between trainings, some .03 by the choice of
100 test images.
"""

from collections import Counter

import numpy as np

from rarefill.proof import arms, bootstrap, findings, verdict
from rarefill.proof.bootstrap import Measured, Noise
from rarefill.proof.findings import Evidence

ARMS = ("real", "rfs", "copy-paste", "paste", "compact", "compact+rfs")
IMAGES = 100
OF_IMAGES, OF_TRAININGS, OF_BOTH = 0.3, 0.015, 0.15
DRAWS = 400


def study(effect: float, seeds: int, draw: np.random.Generator) -> tuple[str, bool]:
    """One study in which `compact` alone differs: its outcome, and whether the interval of compact against rfs holds the truth."""
    specs = arms.parse(ARMS, (1.0,))
    weights = bootstrap.weights(np.arange(IMAGES), DRAWS, draw)
    ease = draw.normal(0.4, OF_IMAGES, IMAGES)
    level = {}
    for spec in specs:
        own = effect if spec.name == "compact" else 0.0
        each = ease + own + draw.normal(0, OF_TRAININGS, seeds)[:, None]
        each = each + draw.normal(0, OF_BOTH, (seeds, IMAGES))
        level[spec.name] = Measured(each.mean(axis=1), each @ weights.T / IMAGES)
    evidence = Evidence(specs, level, level, Noise.drawn(level, DRAWS, draw))
    baseline = findings.best(evidence, "baseline")
    compared = findings.comparisons(evidence, baseline)
    found = verdict.verdict(evidence, baseline, compared, (), ("rare",))
    difference = evidence.difference("compact", "rfs")
    assert found is not None
    assert difference is not None
    interval = difference.estimate()
    return found.outcome, interval.low <= effect <= interval.high


def run(studies: int) -> None:
    """Print outcomes by true effect and number of seeds."""
    print("| true gain in AP | seeds | helps | no evidence | harms | interval holds the truth |")
    print("|---|---|---|---|---|---|")
    for effect in (0.0, 0.02, 0.05, 0.1):
        for seeds in (3, 5):
            draw = np.random.default_rng([round(effect * 100), seeds])
            found = [study(effect, seeds, draw) for _ in range(studies)]
            counts = Counter(outcome for outcome, _ in found)
            shares = " | ".join(f"{counts[o] / studies:.1%}" for o in ("helps", "no evidence", "harms"))
            held = sum(holds for _, holds in found) / studies
            print(f"| {effect:g} | {seeds} | {shares} | {held:.1%} |", flush=True)
