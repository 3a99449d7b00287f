"""What every section of a recipe is."""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

_LISTS = (
    "formats",
    "blends",
    "strength",
    "version_strength",
    "repair",
    "control",
    "control_scale",
    "controlnet",
)


class Section(BaseModel):
    """Frozen, without unknown options; lists may be written with commas, and a list of one as that one."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator(*_LISTS, mode="before", check_fields=False)
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, int | float):  # a single number, as YAML reads it
            return (value,)
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",")) if value.strip() else ()
        return value

    @field_validator("no_mirror", "only", mode="before", check_fields=False)
    @classmethod
    def _names(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
