"""The recipe's section for published checkpoints: what `--generator sd15` and its like need besides."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from rarefill.presets import Control, Scheduler
from rarefill.sections import Section

LISTS: dict[str, tuple[str, ...]] = {
    "light": ("in daylight", "in soft light", "in low light", "backlit"),
    "weather": ("in clear weather", "under an overcast sky", "in light rain", "in haze"),
    "viewpoint": ("seen from the front", "seen from the side", "seen from behind", "seen from above"),
    "conditions": ("in rain", "in fog", "at dusk", "at night", "in snow", "in bright sun"),
    "season": ("in spring", "in summer", "in autumn", "in winter"),
    "sensor": (
        "photographed through a dirty lens",
        "a noisy photograph in low light",
        "an overexposed photograph",
        "a frame of an old surveillance camera",
    ),
}
"""Words that `{light}`, `{weather}`, `{viewpoint}`, `{conditions}`, `{season}` and `{sensor}` in a description are drawn
from, where the recipe has no others."""


class HubConfig(Section):
    """Published checkpoints. Whatever stands here means nothing to `compact` and `paste`."""

    revision: str | None = Field(
        None,
        description="commit or branch of the checkpoint, instead of the preset's (hub:OWNER/NAME@REVISION)",
    )
    control: tuple[Control, ...] | None = Field(
        None,
        description="pictures that ControlNets are shown, one ControlNet each, such as canny,depth; none: no ControlNet; by default the preset's first",
    )
    control_scale: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        (1.0,), min_length=1, description="weight of each ControlNet; one number is for all"
    )
    controlnet: tuple[str, ...] = Field(
        (),
        description="folder or OWNER/NAME@REVISION of each ControlNet, instead of the preset's; one union serves all",
    )
    lora: str | None = Field(
        None, description="adapter to paint with: a folder, a safetensors file, or OWNER/NAME@REVISION"
    )
    lora_scale: float = Field(1.0, ge=0, le=2, description="weight of the adapter")
    scheduler: Scheduler = Field(
        "saved", description="how noise is taken away; saved: as the checkpoint says"
    )
    window_px: int | None = Field(
        None,
        ge=32,
        multiple_of=16,
        description="side of a window for the model; by default what it was trained for",
    )
    paint_batch: int = Field(4, ge=1, description="windows at a time; halved where memory does not reach")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="numbers of the weights; auto: bfloat16 where it is fast"
    )
    offload: Literal["auto", "none", "model", "layers"] = Field(
        "auto",
        description="what waits in main memory; model: all parts but the one at work; layers: all but one layer, slow",
    )
    enhance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="windows larger than the model's: paint them again at the image's own size, so far away from what was enlarged, such as 0.2; 0: no",
    )
    quantise: Literal["none", "float8", "int8", "8bit", "4bit"] = Field(
        "none",
        description="the denoiser's weights in fewer bits: float8 (no library needed), int8 (torchao), 8bit or 4bit (bitsandbytes, on a GPU)",
    )
    step_cache: Literal["none", "first-block", "taylor"] = Field(
        "none",
        description="transformers: what blocks said a step ago is used again; first-block: where little has changed; taylor: two steps of three",
    )
    compile: bool = Field(
        False,
        description="compile the denoiser's blocks at the first window: minutes once, then faster steps",
    )
    clip: str | None = Field(
        None,
        description="a CLIP that pulls each picture towards its words: a folder, or OWNER/NAME@REVISION of the hub",
    )
    clip_scale: float = Field(10.0, ge=0, description="strength of that pull; 0 is none")
    fit_rank: int = Field(16, ge=1, le=256, description="adapt: width of the adapter that is learned")
    fit_rate: float = Field(2e-4, gt=0, le=1, description="adapt: the highest learning rate")
    fit_batch: int = Field(4, ge=1, description="adapt: windows a step")
    fit_checkpointing: bool = Field(
        False, description="adapt: compute again instead of remembering: less memory, a third more time"
    )
    fit_words: bool = Field(
        True,
        description="adapt: a word of its own for each rare category; without them transformers' text encoders wait in main memory",
    )
    fit_optimiser: Literal["adamw", "8bit"] = Field(
        "adamw", description="adapt: 8bit keeps the optimiser's moments in 8 bits (bitsandbytes, on a GPU)"
    )
    describe: dict[str, str] = Field(
        {},
        description='words for a category, NAME="a {small|large} starfish, {light}"; one of each {..} is drawn per object',
    )
    vary: dict[str, tuple[str, ...]] = Field(
        {},
        description='words that {light}, {weather}, {viewpoint}, {conditions}, {season}, {sensor} or a list of your own are drawn from, LIST="one|other"',
    )
    negative_prompt: str = Field("", description="words that guidance moves away from")

    @field_validator("control", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return () if value in ("none", ("none",), ["none"]) else value

    @field_validator("vary", mode="before")
    @classmethod
    def _bars(cls, value: Any) -> Any:
        """A flag's "one|other" as a list."""
        if not isinstance(value, dict):
            return value
        return {
            k: tuple(w.strip() for w in v.split("|")) if isinstance(v, str) else v for k, v in value.items()
        }
