"""The types that cross stages: Placement, Layout, Render, Verdict, Sample.

What was asked (a placement's box) and what was measured (an instance's box) never share a field. Categories
are named by their name: ids belong to files, and only readers and exporters deal in them.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rarefill.geometry import Box, Mask

Pixels = NDArray[Any]
"""uint8 or uint16 (H, W, C) with C = 1, 3 (RGB) or 4 (RGBA), as decoded from a file."""

FEATHER_PX = 8
"""How far beyond the mask asked for a generator may change pixels at most: a planner keeps twice that between two."""


class Kind(StrEnum):
    """How an object comes about."""

    NEW = "new"
    REDRAWN = "redrawn"


class Goal(NamedTuple):
    """What is asked for, and what counts towards it: objects of one category, new or redrawn."""

    category: str
    kind: Kind = Kind.NEW

    @classmethod
    def of(cls, category: str, redraws: int | None) -> "Goal":
        """The goal of an object that repaints this real one; of a new object where that is None."""
        return cls(category, Kind.NEW if redraws is None else Kind.REDRAWN)

    def __str__(self) -> str:
        return self.category if self.kind is Kind.NEW else f"{self.category} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Shape:
    """Which real silhouette a placement took, how it was turned and bent. Scale follows from the placement's box.

    Attributes:
        annotation: row of the exemplar in `dataset.annotations`.
        flip: mirrored left to right, before the rotation.
        rotation_deg: turned clockwise (y down) about the silhouette's centre, -180 to 180.
        bend: the largest shift of a smooth deformation, as a share of the object's width and height; 0 for none.
        bend_seed: what the deformation's form derives from, 0 or above; means nothing where `bend` is 0.
    """

    annotation: int
    flip: bool = False
    rotation_deg: float = 0.0
    bend: float = 0.0
    bend_seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """One object asked for.

    Attributes:
        category: its name.
        mask: the pixels it shall cover, in the background's frame, wholly inside the image.
        depth: order of painting: higher lies in front.
        seed: what its looks derive from, 0 or above.
        prompt: words for generators that read; empty for those that do not.
        shape: the silhouette's origin; None when a person drew the mask.
        score: how well the planner likes the place, higher is better; for people and previews.
        redraws: row in `dataset.annotations` of the real object that is repainted in place; None for a new object.
        label: the file's own box of that object, which its label keeps; None for a new object, whose box is measured.
        spared: pixels that stay as they are, feather or not: real objects in front of this one.
        whole: the box that all of the object fills where `mask` shows a part of it: the rest lies beyond the image's
            edge or behind `spared`; whole pixels, may reach beyond the image. None where all of it shows.
        strength: how far it may move away from the pixels that it begins with, above 0, to 1; None: as the recipe says.
    """

    category: str
    mask: Mask
    depth: int = 0
    seed: int = 0
    prompt: str = ""
    shape: Shape | None = None
    score: float = 0.0
    redraws: int | None = None
    label: Box | None = None
    spared: Mask | None = None
    whole: Box | None = None
    strength: float | None = None

    @property
    def box(self) -> Box:
        """The tight box of the mask asked for."""
        return self.mask.box

    @property
    def goal(self) -> Goal:
        """What it counts towards."""
        return Goal.of(self.category, self.redraws)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One background image with its placements.

    Attributes:
        image: row of the background in `dataset.images`.
        copy: which use of this background it is, from 0.
        placements: what to paint; empty for a background that stays untouched.
    """

    image: int
    copy: int
    placements: tuple[Placement, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Paint:
    """What a generator did for one placement.

    Attributes:
        index: which of the layout's placements.
        mask: the object's own pixels as painted (alpha of one half and above); None if nothing was painted.
        touched: every pixel that may differ from the background, feather included; holds `mask`.
        generator: which generator, as the recipe names it.
        how: what was drawn for it, for the record (blend, strength, exemplar...), JSON scalars only.
    """

    index: int
    mask: Mask | None
    touched: Mask | None
    generator: str
    how: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Render:
    """Pixels and the layout they answer.

    Attributes:
        layout: what was asked.
        background: the pixels as decoded, (H, W, C).
        pixels: the same size and dtype; equal to `background` outside every paint's `touched`.
        paints: one for each placement, in the placements' order.
    """

    layout: Layout
    background: Pixels
    pixels: Pixels
    paints: tuple[Paint, ...]


class Step(StrEnum):
    """How an object is painted: at first, or to mend what was refused."""

    FIRST = "first"
    SEED = "seed"
    STRENGTH = "strength"
    PLACE = "place"
    PASTE = "paste"


class Reason(StrEnum):
    """Why a painted object was accepted or refused."""

    ACCEPTED = "accepted"
    UNCHECKED = "unchecked"
    NOT_PAINTED = "not painted"
    NOT_FOUND = "not found"
    WRONG_CLASS = "other class"
    LOW_SCORE = "low score"
    BOX_OFF = "box off"
    HIDDEN = "hidden"
    NO_PLACE = "no place"
    SPOILED = "neighbour spoiled"
    EXTRA = "extra object"
    COPY = "near-copy"


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What the annotator says of one painted object.

    Attributes:
        index: which of the layout's placements.
        reason: ACCEPTED or UNCHECKED hold, all others refuse.
        score: the detector's confidence in the category asked for, 0 to 1; 0 when it found nothing.
        threshold: what the category demands, 0 to 1.
        overlap: IoU between the detector's box and the measured one, 0 to 1.
        asked_overlap: IoU between the box asked for and the measured pixels' own, 0 to 1.
        box: measured, drawn as loosely as the dataset's people draw it; None when refused for want of an object.
        mask: measured visible pixels; None as above.
    """

    index: int
    reason: Reason
    score: float = 0.0
    threshold: float = 0.0
    overlap: float = 0.0
    asked_overlap: float = 0.0
    box: Box | None = None
    mask: Mask | None = None

    @property
    def accepted(self) -> bool:
        return self.reason in {Reason.ACCEPTED, Reason.UNCHECKED}


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One object that holds in a sample, as measured.

    Attributes:
        category: its name.
        box: measured, float edges; the file's own for a redrawn object.
        mask: its visible pixels in the image's frame; None where the data has boxes only, and for an untouched
            or redrawn object of the background that was read back from a run: `dataset.mask` of its row has it.
        annotation: row in `dataset.annotations` for an object of the background; None for a painted one.
        redraws: row of the background's object that a painted one repaints in place, and whose label it has.
        crowd: COCO's iscrowd, which only objects of the background have.
        changed: a background's object, redrawn or not, whose label was re-measured because a painted one hides a part.
        score: the checker's confidence for a painted object that it judged, else None.
        how: a painted object's record (generator, blend, exemplar, verdict), JSON scalars only.
    """

    category: str
    box: Box
    mask: Mask | None = None
    annotation: int | None = None
    crowd: bool = False
    changed: bool = False
    score: float | None = None
    how: dict[str, str | int | float | bool] = field(default_factory=dict)
    redraws: int | None = None

    @property
    def row(self) -> int | None:
        """Row in `dataset.annotations` of the label it has from there, redrawn or not; None for a new object."""
        return self.annotation if self.redraws is None else self.redraws

    @property
    def goal(self) -> Goal:
        """What a painted object counts towards."""
        return Goal.of(self.category, self.redraws)

    @property
    def area(self) -> float:
        """The mask's pixel count, or the box's area where there is no mask."""
        return float(self.mask.area) if self.mask is not None else self.box.area


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image with the instances that hold: what exporters write.

    Attributes:
        number: from 1, unique in the run, in the plan's order.
        file_name: under the run's `images/`, with forward slashes.
        width: of the image in pixels.
        height: of the image in pixels.
        image: row of the background in `dataset.images`.
        copy: which use of that background.
        instances: background objects that stay visible, then painted ones.
        dropped: rows in `dataset.annotations` of background objects that paint hides, with the visible share.
        how: the record of an image that was repainted as a whole (generator, prompt, strength), JSON scalars.
    """

    number: int
    file_name: str
    width: int
    height: int
    image: int
    copy: int
    instances: tuple[Instance, ...]
    dropped: tuple[tuple[int, float], ...] = ()
    how: dict[str, str | int | float | bool] = field(default_factory=dict)


def changed_pixels(render: Render) -> NDArray[np.bool_]:
    """bool (H, W): where a render differs from its background."""
    return np.asarray((render.pixels != render.background).any(axis=2))
