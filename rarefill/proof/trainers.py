"""Who trains: a trainer takes an arm's list and a test part, and gives detections, or at least AP by category."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rarefill.dataset import Dataset
from rarefill.errors import UsageError
from rarefill.progress import Bar
from rarefill.proof.mix import Mix
from rarefill.proof.score import Detection
from rarefill.proof.study import Figures


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One training.

    Attributes:
        mix: what to learn from.
        test: what to look at afterwards, with the last weights.
        seed: of everything random.
        folder: for files of this training alone; thrown away afterwards.
    """

    mix: Mix
    test: Dataset
    seed: int
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of it: detections of the test images, in COCO's results form, or figures alone."""

    detections: list[Detection] | None = None
    figures: Mapping[str, Figures] = field(default_factory=dict)


class Trainer(Protocol):
    """Trains one detector and looks at the test images with it."""

    @property
    def words(self) -> str:
        """The detector, for people."""
        ...

    @property
    def steps(self) -> int:
        """What the bar counts of one training."""
        ...

    def identity(self) -> dict[str, Any]:
        """What its answers follow from besides the task, as JSON values."""
        ...

    def run(self, task: Task, bar: Bar) -> Answer:
        """Train and test.

        Raises:
            ModelError, RunError: it cannot.
        """
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """Which trainer, and how long.

    Attributes:
        detector: `fitted`, or a folder or hub id of a detector of transformers.
        command: an external trainer's command line; holds over `detector`.
        steps: of training, for the two that train here.
        batch: images a step.
        size_px: longer side of what the fitted detector sees.
        learning_rate: None takes the trainer's own.
    """

    detector: str = "fitted"
    command: str | None = None
    steps: int = 600
    batch: int = 8
    size_px: int = 320
    learning_rate: float | None = None


def build(settings: Settings) -> Trainer:
    """Make the trainer. Heavy imports happen here, on demand.

    Raises:
        UsageError: numbers that cannot be.
        ModelError: a detector that is not there.
    """
    if settings.steps < 1 or settings.batch < 1 or settings.size_px < 64:
        raise UsageError("--train-steps and --batch are at least 1, --size at least 64")
    if settings.command is not None:
        from rarefill.proof.trainer_command import Command

        return Command(settings.command)
    if settings.detector == "fitted":
        from rarefill.proof.trainer_fitted import Fitted

        return Fitted(settings)
    from rarefill.proof.trainer_transformers import Transformers

    return Transformers(settings)
