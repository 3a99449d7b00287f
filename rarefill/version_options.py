"""The recipe's section for versions of whole images: what `rarefill vary` makes."""

from typing import Annotated, Literal

from pydantic import Field

from rarefill.sections import Section


class VersionsConfig(Section):
    """Versions of whole images. Whatever stands here means nothing to `rarefill generate`."""

    area: Literal["image", "background", "objects"] = Field(
        "image",
        description="what is repainted; image: all of it, its edges or depth kept; background: all but the labelled objects; objects: these alone",
    )
    only: tuple[str, ...] = Field(
        (), description="objects: the categories that are repainted; by default all of them"
    )
    words: str = Field(
        "",
        description='what a version shows, "a street {in rain|at dusk}, {objects}"; one of each {..} is drawn per version; by default nothing is said',
    )
    copies: int = Field(1, ge=1, le=1000, description="versions of each image")
    version_strength: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.5,),
        min_length=1,
        description="how far a version moves away from the image's own pixels; 1: all new; one drawn per version",
    )
    keep_px: int = Field(
        8, ge=0, description="background, objects: pixels around each object's outline or box that go with it"
    )
    look_px: int | None = Field(
        None,
        ge=32,
        le=8192,
        description="shorter side at which the model sees an image, at least: more keeps small objects; by default its window's",
    )
    lose: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of an image's judged labels that may be gone without a trace; above it the version is refused",
    )
