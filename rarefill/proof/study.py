"""What a study found, as one file: `OUT/study.json` of `rarefill evaluate`, `RUN/proof/study.json` of `--prove`.

All figures of AP are COCO's, from 0 to 1; `AP` is the mean over IoU 0.50 to 0.95. `rare` figures are means over the
categories that the study is about, `others` over all other categories that the test part holds.
"""

from pathlib import Path
from typing import Literal

import msgspec

from rarefill.errors import DataError
from rarefill.files import write_bytes

FILE = "study.json"
PLOT = "ratios.svg"
FORMAT = 1

Kind = Literal["baseline", "generated", "oracle"]
"""baseline: costs nothing but the real data; generated: has new images; oracle: more real data."""
Outcome = Literal["helps", "no evidence", "harms"]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One category's (or a mean's) COCO figures; None where the test part has no such object."""

    AP: float | None = None
    AP50: float | None = None
    small: float | None = None
    medium: float | None = None
    large: float | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def signed(self) -> str:
        """With a sign, for differences."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training and its test.

    Attributes:
        arm: name of the arm.
        split: which training file, from 0.
        seed: of the training.
        rare: mean of the categories that the study is about.
        others: mean of all others.
        classes: by category name.
        seconds: of training and test together.
        images: entries of the training list, repeats counted; `synthetic` of them are generated.
        resampled: whether its detections are kept, so that the test images could be resampled.
    """

    arm: str
    split: int
    seed: int
    rare: Figures
    others: Figures
    classes: dict[str, Figures]
    seconds: float = 0.0
    images: int = 0
    synthetic: int = 0
    resampled: bool = True


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way to train.

    Attributes:
        name: as asked for, such as `compact+rfs@0.5`.
        kind: see `Kind`.
        generator: `copy-paste`, `paste`, `compact` or a run folder's name; empty where nothing is generated.
        ratio: generated images seen for each real one; None where nothing is generated.
        sampling: how the real images are drawn: `rfs`, `repeat`, or empty for as they are.
        objects: objects of the rare categories on all its generated images, by split.
        failed: why it could not be made or trained; empty when it could. A failed arm has no runs.
        rare, others: means over runs, with intervals over test images and runs; None for a failed arm.
    """

    name: str
    kind: Kind
    generator: str = ""
    ratio: float | None = None
    sampling: str = ""
    objects: tuple[int, ...] = ()
    failed: str = ""
    rare: Estimate | None = None
    others: Estimate | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One arm against another on the same test images, splits and seeds.

    Attributes:
        arm: whose figure is meant.
        against: whose figure is taken off it.
        measure: `rare` or `others`, or the name of one category; all AP50:95.
        difference: with its interval.
        p: two-sided, of no difference.
        p_adjusted: after Holm's correction over the arms that were held against the same one; None where
            the comparison belongs to no family.
    """

    arm: str
    against: str
    measure: str
    difference: Estimate
    p: float
    p_adjusted: float | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One point of AP against ratio. Ratio 0 is the arm's own sampling of real images alone."""

    arm: str
    generator: str
    ratio: float
    rare: Estimate


class Equivalence(msgspec.Struct, frozen=True, kw_only=True):
    """How many real examples an arm is worth: between `real` and the oracle, AP is taken as linear in log examples.

    Attributes:
        arm: which.
        factor: 1 is no more than the real ones that were there; None where the oracle itself is not surely better.
        low, high: its 95 % interval; `high` is None where it has no end within the oracle's reach.
        oracle_factor: real objects of the rare categories that the oracle has for each of the training part.
    """

    arm: str
    factor: float | None
    low: float | None
    high: float | None
    oracle_factor: float


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """AP of one group of a category's test objects.

    Attributes:
        category: its name.
        attribute: what the group is made by, such as `brightness`.
        group: its name, such as `dark (below 90 grey)`.
        objects: of the test part that are in it.
        ap: AP50:95 by arm: `real`, the best free baseline and the best generated arm, means over trainings.
        difference: of the generated arm from the baseline.
    """

    category: str
    attribute: str
    group: str
    objects: int
    ap: dict[str, float]
    difference: Estimate | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What follows.

    Attributes:
        outcome: of the best generated arm against the best free baseline.
        arm: that arm; empty where no generated arm ran.
        baseline: the best free baseline.
        best_ratio: of the arms' ratios, where several were tried.
        worse_beyond: the ratio beyond which more is surely worse.
        lines: sentences for people, the most important first.
    """

    outcome: Outcome
    arm: str
    baseline: str
    lines: tuple[str, ...]
    best_ratio: float | None = None
    worse_beyond: float | None = None

    @property
    def shown(self) -> tuple[str, ...]:
        """The arms that groups of objects are told of: `real`, the best free one, the best generated one."""
        return tuple(dict.fromkeys(("real", self.baseline, self.arm)))


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """A whole study.

    Attributes:
        format: of this file.
        version: of rarefill.
        rare: the categories that it is about.
        categories: all of the training part, in its order.
        train: the training files' names, by split.
        test: the test file's name.
        test_images, test_groups: images, and groups of near-duplicates that were resampled together.
        test_objects: of each category.
        train_objects: of each rare category, in each split.
        trainer: the detector in words.
        settings: what a training follows from, as JSON values.
        seeds: of the trainings.
        complete: whether every run that was asked for is in it.
        arms, runs, comparisons, curve, equivalence: what was found.
        verdict: None while there is nothing to compare.
        notes: what a reader should know, such as failed arms or images that are alike in training and test.
        served: AP by groups of the rare categories' objects; empty while the study is not complete.
        synthetic_test: whether the test part holds generated images: then the figures speak of those.
    """

    format: int = FORMAT
    version: str
    rare: tuple[str, ...]
    categories: tuple[str, ...]
    train: tuple[str, ...]
    test: str
    test_images: int
    test_groups: int
    test_objects: dict[str, int]
    train_objects: tuple[dict[str, int], ...]
    trainer: str
    settings: dict[str, str | int | float | bool | None]
    seeds: tuple[int, ...]
    complete: bool
    arms: tuple[Arm, ...]
    runs: tuple[Run, ...]
    comparisons: tuple[Comparison, ...]
    curve: tuple[Point, ...] = ()
    equivalence: tuple[Equivalence, ...] = ()
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()
    served: tuple[Served, ...] = ()
    synthetic_test: bool = False

    def compared(self, arm: str, against: str) -> Comparison | None:
        """The rare categories' AP of one arm against another's; None where they were not held against each other."""
        same = (c for c in self.comparisons if (c.arm, c.against, c.measure) == (arm, against, "rare"))
        return next(same, None)

    def mean(self, arm: str, figure: str) -> float | None:
        """Mean over an arm's trainings of one of the rare categories' figures, such as `AP50`; None where none has it."""
        held = [getattr(run.rare, figure) for run in self.runs if run.arm == arm]
        known = [value for value in held if value is not None]
        return sum(known) / len(known) if known else None


def write(path: Path, study: Study) -> None:
    """Write a study as JSON, aside and renamed."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(study), indent=1) + b"\n")


def read(path: Path) -> Study:
    """A study as written.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        DataError: there is none, or it is another format's.
    """
    path = path / FILE if path.is_dir() else path
    try:
        return msgspec.json.decode(path.read_bytes(), type=Study)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}; 'rarefill evaluate' writes it") from e
    except msgspec.MsgspecError as e:
        raise DataError(f"{path}: not a study of this version of rarefill: {e}; evaluate again") from e
