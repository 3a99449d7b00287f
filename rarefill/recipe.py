"""Every option, one validated model. YAML files and command-line flags both end here.

Leaf names are unique in the whole recipe: `layout.max_overlap` is the flag `--max-overlap`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Polygon = tuple[tuple[float, float], ...]
Blend = Literal["hard", "feather", "pyramid", "poisson"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class LayoutConfig(_Section):
    """Where, how large, what shape."""

    untouched: Share = Field(
        0.1, description="share of the images written that are backgrounds left as they are"
    )
    max_reuse: int = Field(4, ge=1, description="how often one background may be used")
    per_image: int | None = Field(
        None,
        ge=1,
        description="objects to add per image at most; by default as many as the category shows in real images",
    )
    max_overlap: Share = Field(
        0.1, description="share of an existing object, or of a planned one, that may be covered"
    )
    margin_px: int = Field(2, ge=0, description="free pixels between two planned objects")
    min_px: float = Field(
        6.0,
        ge=1,
        description="smallest side of a planned object in pixels; a category whose own objects are smaller keeps its own least",
    )
    inside: Share = Field(1.0, description="share of an object that must lie inside the image")
    jitter: float = Field(
        0.15, ge=0, le=1, description="spread of size and aspect about a real object's, in log units"
    )
    region: tuple[Polygon, ...] = Field(
        (), description="objects' centres stay in these polygons; x y pairs from 0 to 1 of width and height"
    )
    tries: int = Field(200, ge=1, description="places tried per object before another background is taken")


class PasteConfig(_Section):
    """Real exemplars, transformed and blended."""

    kind: Literal["paste"] = "paste"
    blends: tuple[Blend, ...] = Field(
        ("hard", "feather", "pyramid", "poisson"),
        min_length=1,
        description="ways of blending, one drawn per object",
    )
    photometric: Share = Field(
        0.5, description="strength of brightness, contrast and colour changes; 0 is none"
    )
    match_noise: bool = Field(True, description="match noise and blur to the place")


GeneratorConfig = PasteConfig


class CheckerConfig(_Section):
    """The detector that looks again."""

    checker: Literal["fitted", "none"] = Field(
        "fitted", description="fitted: a small detector trained on your data; none: trust the paint"
    )
    folds: int = Field(
        2,
        ge=2,
        le=10,
        description="models in the cross-fit; each real object is judged by one that did not see it",
    )
    steps: int = Field(700, ge=1, description="training steps of each model")
    batch: int = Field(8, ge=1, description="crops per training step")
    keep: Share = Field(0.9, description="share of real objects that the threshold of a category keeps")
    min_score: Share = Field(0.05, description="no threshold is set below this confidence")
    min_overlap: Share = Field(
        0.5, description="IoU that the detector's box must reach with the measured one"
    )
    min_visible: Share = Field(
        0.25, description="an existing object whose visible share falls under this loses its label"
    )


class Recipe(_Section):
    """A whole run."""

    data: Path | None = Field(None, description="the COCO file, or YOLO's data.yaml")
    pictures: Path | None = Field(None, description="image folder, when it is not found beside the file")
    out: Path | None = Field(None, description="the run folder to make")
    seed: int = Field(0, ge=0, description="names the run's pictures: same recipe, same seed, same bytes")
    fill: dict[str, int] | Literal["auto"] = Field(
        "auto",
        description="objects to make per category, NAME=N, or auto: every rare category up to the rule's count",
    )
    images: int | None = Field(
        None, ge=1, description="images to write; by default as many as the objects need"
    )
    attempts: int = Field(3, ge=1, description="paints of one object before it is given up")
    top_ups: int = Field(3, ge=0, description="further plans for objects that were given up")
    lenient: bool = Field(False, description="skip bad annotations and report each, instead of stopping")
    formats: tuple[Literal["coco", "merged", "yolo"], ...] = Field(
        ("coco", "merged", "yolo"), min_length=1, description="what to write"
    )
    image_format: Literal["png", "webp", "jpeg"] = Field(
        "png", description="png and webp are lossless; jpeg changes every pixel"
    )
    workers: int | None = Field(
        None, ge=1, description="threads; by default one per core; the bytes do not depend on it"
    )
    layout: LayoutConfig = LayoutConfig()
    generator: GeneratorConfig = PasteConfig()
    annotator: CheckerConfig = CheckerConfig()
