"""What a recipe asks of the hub, and what has to be said before anything is fetched."""

from collections.abc import Sequence
from dataclasses import replace

from rarefill.errors import ModelError
from rarefill.generators.hub import sources
from rarefill.generators.hub.commits import Commits
from rarefill.hub_options import HubConfig
from rarefill.presets import PRESETS, Control, Preset, Source


def said(generator: str, hub: HubConfig, known: Commits) -> list[str]:
    """Lines: the licence, the size, what is not pinned and what became of that.

    Args:
        generator: a preset's name, or hub:...
        hub: the recipe's section.
        known: what names stood for when they were first used.
    """
    preset, wanted = PRESETS.get(generator), everything(generator, hub)
    loose = [line for line in map(known.said, wanted) if line]
    if preset is None:
        return [f"{generator}: its licence is its owner's; read it before you use what is painted", *loose]
    use = "commercial use allowed" if preset.commercial else "NO COMMERCIAL USE"
    terms = f" ({preset.terms})" if preset.terms and preset.commercial else ""
    gated = "; its owner wants a token of an account that accepted it (HF_TOKEN)" if preset.gated else ""
    places = ", ".join(source.id for source in wanted)
    return [
        f"{preset.name}: {preset.licence}: {use}{terms}{gated}; {preset.weights_gb:g} GB from {places}",
        *loose,
    ]


def everything(generator: str, hub: HubConfig) -> tuple[Source, ...]:
    """What is fetched from the hub, each once; folders are left out."""
    preset = PRESETS.get(generator)
    named = [sources.parsed(name) for name in hub.controlnet]
    if not named and preset is not None:
        named = [preset.controls[kind] for kind in controls(hub, preset) if kind in preset.controls]
    clip = [] if hub.clip is None else [sources.parsed(hub.clip)]
    found = (base(generator, hub), *named, *(source for source, _ in loras(hub, preset)), *clip)
    alike = {(s.id, s.revision, s.file): s for s in found if sources.of_the_hub(s)}
    configs = {s.config: Source(s.config) for s in alike.values() if s.config is not None}
    return (*alike.values(), *configs.values())


def base(generator: str, hub: HubConfig) -> Source:
    """The pipeline."""
    preset = PRESETS.get(generator)
    if preset is None:
        return sources.parsed(generator, hub.revision)
    return replace(preset.base, revision=hub.revision or preset.base.revision)


def controls(hub: HubConfig, preset: Preset | None, *, own: bool = False) -> tuple[Control, ...]:
    """The kinds of picture: as asked for, else the preset's first; a checkpoint that brings a ControlNet (`own`) sees edges."""
    if hub.control is not None:
        return hub.control
    if preset is not None:
        return tuple(preset.controls)[:1]
    return ("canny",) if own or hub.controlnet else ()


def net(kind: Control, at: int, named: Sequence[Source], preset: Preset | None, base: str) -> Source:
    """The ControlNet of a kind of picture.

    Raises:
        ModelError: nobody named one.
    """
    if named:
        return named[at] if len(named) > 1 else named[0]
    if preset is None:
        raise ModelError(
            f"{base}: brings no ControlNet for {kind!r}; name one with --controlnet, or say --control none"
        )
    if kind not in preset.controls:
        known = ", ".join(preset.controls) or "none"
        raise ModelError(
            f"{preset.name} has no ControlNet for {kind!r} (it has: {known}); name one with --controlnet"
        )
    return preset.controls[kind]


def loras(hub: HubConfig, preset: Preset | None) -> tuple[tuple[Source, float], ...]:
    """Adapters, with their weights."""
    found = [] if preset is None or preset.lora is None else [(preset.lora, 1.0)]
    if hub.lora is not None:
        found.append((sources.parsed(hub.lora), hub.lora_scale))
    return tuple(found)


def scales(asked: Sequence[float], n: int) -> tuple[float, ...]:
    """A weight for each ControlNet.

    Raises:
        ModelError: there are not as many.
    """
    if len(asked) == 1:
        return tuple(asked) * n
    if len(asked) != n:
        raise ModelError(
            f"--control-scale has {len(asked)} weights for {n} ControlNets; give one for each, or one"
        )
    return tuple(float(scale) for scale in asked)
