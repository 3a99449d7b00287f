"""Where randomness comes from: a seed names a picture.

Every random choice in a run derives from `SeedSequence(seed, spawn_key=(image, copy, placement, attempt, stage))`,
so that the order of work, the number of workers and interruptions change nothing.
"""

from enum import IntEnum

import numpy as np


class Stage(IntEnum):
    """The last part of every spawn key. Numbers are never reused: they name pictures of old runs."""

    PLAN = 0
    PLACE = 1
    PAINT = 2
    CHECK = 3
    FIT = 4
    EXPORT = 5
    RENDER = 6
    VERSION = 7


def rng(seed: int, stage: Stage, *key: int) -> np.random.Generator:
    """A fresh random stream for one named choice.

    Args:
        seed: the run's seed, 0 or above.
        stage: which stage draws.
        key: what is drawn for, outermost first (image, copy, placement, attempt); 0 or above each.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*key, int(stage))))
