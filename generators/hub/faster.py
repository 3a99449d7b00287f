"""Ways to take steps in less time, and with a little less care: caches of what blocks said a step ago, and compiled blocks.

First-block cache (after Liu et al. 2024, TeaCache): where the first block says nearly what it said a step ago, the others are
taken to say what they said then. TaylorSeer (Liu et al. 2025): attention is computed every few steps and continued between by its
first differences. Both are diffusers' own.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal

from rarefill.errors import ModelError
from rarefill.generators.hub import families
from rarefill.presets import Family

Cache = Literal["none", "first-block", "taylor"]
_TAKES: Final[Mapping[Family, tuple[Cache, ...]]] = {
    "flux": ("first-block", "taylor"),
    "flux2-klein": ("taylor",),
    "qwen-edit": ("first-block", "taylor"),
}
"""What works with the installed diffusers: Z-Image's transformer has no caches, the blocks of FLUX.2 are none that first-block reads."""
_LIKE: Final = 0.08
"""First-block: the difference of the first block's answers, as part of them, below which the others are not asked."""
_EVERY: Final = 3
"""TaylorSeer: steps from one computation to the next."""
_FIRST: Final = 3
"""TaylorSeer: steps at the beginning that are all computed."""


def enable(pipe: Any, family: Family, cache: Cache, *, compiled: bool) -> None:
    """Set a pipeline up.

    Args:
        pipe: in place.
        family: its architecture.
        cache: as the recipe says.
        compiled: whether its repeated blocks are compiled when they are first used.

    Raises:
        ModelError: the family takes no such cache.
    """
    if cache != "none":
        known = _TAKES.get(family, ())
        if cache not in known:
            raise ModelError(
                f"--step-cache {cache}: {family} takes {' or '.join(known) or 'no cache'}; say --step-cache none"
            )
        families.denoiser(pipe).enable_cache(_config(cache, families.denoiser(pipe).dtype))
    if compiled:
        families.denoiser(pipe).compile_repeated_blocks()


def context(pipe: Any, family: Family, cache: Cache) -> AbstractContextManager[None]:
    """What a call of a pipeline stands in, beginning with nothing remembered; some do not tell the cache of their steps by themselves."""
    if cache == "none":
        return nullcontext()
    denoiser = families.denoiser(pipe)
    denoiser._reset_stateful_cache()  # noqa: SLF001 (diffusers does so after a call, but not after one that failed)
    if family in {"flux2-klein", "qwen-edit"}:
        return nullcontext()
    told: AbstractContextManager[None] = denoiser.cache_context("cond")
    return told


def alone(cache: Cache) -> bool:
    """Whether windows must be painted one by one: first-block decides by all that it sees at once."""
    return cache == "first-block"


def _config(cache: Cache, dtype: Any) -> Any:
    from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig

    if cache == "first-block":
        return FirstBlockCacheConfig(threshold=_LIKE)
    return TaylorSeerCacheConfig(
        cache_interval=_EVERY,
        disable_cache_before_step=_FIRST,
        taylor_factors_dtype=dtype,
    )
