"""A published pipeline with its ControlNets and adapters, read from this disk or the hub, checked, and put in place."""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers.utils import logging as diffusers_log

from rarefill.errors import ModelError
from rarefill.generators import pipelines
from rarefill.generators.hub import asked, families, faster, memory, quantise, sources
from rarefill.generators.hub.commits import Commits
from rarefill.generators.hub.sources import Found
from rarefill.hub_options import HubConfig
from rarefill.presets import PRESETS, Control, Family, Source

ADAPTER: Final = "pytorch_lora_weights.safetensors"
TOKENS: Final = "learned_tokens.safetensors"
"""What a fitted adapter's folder holds besides: a row of the text encoder's table for each word, by the word."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Weights as a recipe names them, on this disk.

    Attributes:
        base: the pipeline.
        controls: kinds of picture, and
        nets: the ControlNet of each; one that stands twice is loaded once; empty where the pipeline brings its own.
        modes: which of a union's kinds each is.
        loras: adapters, and their weights.
        clip: what guides, where the recipe names it.
    """

    base: Found
    controls: tuple[Control, ...]
    nets: tuple[Found, ...]
    modes: tuple[int | None, ...]
    loras: tuple[tuple[Found, float], ...]
    clip: Found | None = None

    def digest(self) -> str:
        """Names all of it exactly."""
        said = [
            sources.fingerprint(self.base),
            self.controls,
            [sources.fingerprint(net) for net in self.nets],
            self.modes,
            [(sources.fingerprint(found), scale) for found, scale in self.loras],
            [] if self.clip is None else [sources.fingerprint(self.clip)],
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def commits(self) -> tuple[str, ...]:
        """What of it came from the hub: OWNER/NAME@COMMIT, each once."""
        found = [self.base, *self.nets, *(lora for lora, _ in self.loras)]
        found += [] if self.clip is None else [self.clip]
        return tuple(dict.fromkeys(said for said in map(sources.commit, found) if said is not None))


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """A pipeline, ready to paint.

    Attributes:
        pipe: of diffusers.
        family: its architecture.
        controls: kinds of picture that it is shown; empty without a ControlNet.
        modes: which of a union's kinds each of them is; None for a ControlNet of one kind.
        device: where it works.
        offload: what waits in main memory.
        clip: what guides, where the recipe names it; not read yet.
    """

    pipe: Any
    family: Family
    controls: tuple[Control, ...]
    modes: tuple[int | None, ...]
    device: str
    offload: str = "none"
    clip: Found | None = None

    @property
    def nets(self) -> tuple[Any, ...]:
        """Its ControlNets, one for each picture; a union serves all."""
        net = getattr(self.pipe, "controlnet", None)
        if net is None:
            return ()
        return tuple(net.nets) if hasattr(net, "nets") else (net,)

    @property
    def union(self) -> bool:
        """Whether one ControlNet serves all kinds of picture."""
        return any(mode is not None for mode in self.modes)


def find(generator: str, hub: HubConfig, known: Commits | None = None) -> Wanted:
    """Bring everything that a recipe names to this disk.

    Args:
        generator: a preset's name, or hub:...
        hub: the recipe's section.
        known: what names stood for when they were first used.

    Raises:
        ModelError: something cannot be had, or does not belong together.
    """
    preset, known = PRESETS.get(generator), known or Commits()
    base = sources.pipeline(asked.base(generator, hub), known)
    parts = families.index(base.place, base.name)
    found = families.family(parts, base.name)
    reads = families.reads_control(base.place, found, base.name)
    own = reads or bool(families.named_class(parts, "controlnet"))
    if reads and (not hub.control or hub.controlnet):
        raise ModelError(
            f"{base.name}: reads one kind of picture by itself; say which with --control, such as canny or depth, "
            "and leave --controlnet out"
        )
    controls = asked.controls(hub, preset, own=own)
    named = [sources.parsed(name) for name in hub.controlnet]
    if named and len(named) not in {1, len(controls)}:
        raise ModelError(
            f"--controlnet names {len(named)} and --control {len(controls)}; give one for each, or one union for all"
        )
    clip = sources.part(sources.parsed(hub.clip), "--clip ", known) if hub.clip is not None else None
    loras = tuple(
        (sources.part(source, "--lora ", known), scale) for source, scale in asked.loras(hub, preset)
    )
    if len(controls) > 1 and (reads or found == "z-image"):
        raise ModelError(f"{base.name}: takes one picture, and --control names {len(controls)}; name one")
    if own and not named:
        return Wanted(base, controls, (), tuple(None for _ in controls), loras, clip)
    chosen = [asked.net(kind, k, named, preset, base.name) for k, kind in enumerate(controls)]
    nets = tuple(sources.part(source, "--controlnet ", known) for source in chosen)
    modes = tuple(_mode(net, kind, source) for net, kind, source in zip(nets, controls, chosen, strict=True))
    for net in nets:
        if net.place.is_dir():
            families.control_class(net.place, net.name, found)
            families.weights(net.place, net.name)
    if len(named) == 1 and len(controls) > 1 and None in modes:
        raise ModelError(
            f"{named[0].id}: a ControlNet of one kind, and --control names {len(controls)}; "
            "name one for each with --controlnet, or a union"
        )
    return Wanted(base, controls, nets, modes, loras, clip)


def load(wanted: Wanted, hub: HubConfig, *, device: str, dtype: torch.dtype) -> Stack:
    """Read a pipeline and put it in place.

    Args:
        wanted: its weights.
        hub: the recipe's section.
        device: "cpu" or "cuda".
        dtype: of its weights.

    Raises:
        ModelError: it cannot be read, its parts do not fit, or hold what is no number.
    """
    parts = families.index(wanted.base.place, wanted.base.name)
    family = families.family(parts, wanted.base.name)
    variant = families.check_files(wanted.base.place, parts, wanted.base.name)
    union = any(mode is not None for mode in wanted.modes)
    with pipelines.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what diffusers calls deprecated, and uses
        given: dict[str, Any] = {"safety_checker": None} if family == "sd15" else {}
        if wanted.nets:
            given["controlnet"] = _nets(wanted.nets, dtype)
        part = "unet" if family in {"sd15", "sdxl"} else "transformer"
        given |= quantise.settings(hub.quantise, part, dtype)
        reads = families.reads_control(wanted.base.place, family, wanted.base.name)
        control = bool(wanted.controls)
        cls = families.pipeline_class(family, control=control, union=union, reads=reads)
        try:
            pipe = cls.from_pretrained(
                wanted.base.place,
                local_files_only=True,
                use_safetensors=True,
                variant=variant,
                dtype=dtype,
                **given,
            )
        except Exception as error:
            raise ModelError(f"{wanted.base.name}: cannot be read as a pipeline ({_said(error)})") from error
        _adapt(pipe, wanted.loras, melt=not quantise.by_library(hub.quantise))
    _checked(wanted, pipe)
    if family == "sdxl" and dtype == torch.float16 and pipe.vae.config.force_upcast:
        pipe.vae.to(torch.float32)  # its values leave the range of float16
    pipe.set_progress_bar_config(disable=True)
    for _, network in families.networks(pipe):
        network.eval().requires_grad_(requires_grad=False)
    quantise.stored(pipe, hub.quantise, dtype)
    offload = memory.place(pipe, device, hub.offload, layered=hub.quantise == "none")
    faster.enable(pipe, family, hub.step_cache, compiled=hub.compile)
    return Stack(pipe, family, wanted.controls, wanted.modes, device, offload, wanted.clip)


def precision(hub: HubConfig, device: str) -> torch.dtype:
    """The numbers that a recipe asks for."""
    named: Mapping[str, torch.dtype] = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    return named.get(hub.precision) or pipelines.dtype(device)


_UNION_MODES: Final[Mapping[str, int]] = {
    "depth": 1,
    "zoe": 1,
    "hed": 2,
    "pidi": 2,
    "canny": 3,
    "lineart": 3,
    "normal": 4,
    "seg": 5,
}
"""Of the published ControlNet-Union of SDXL."""


def _mode(net: Found, kind: Control, source: Source) -> int | None:
    """Which of a union's kinds a picture is; None for a ControlNet of one kind."""
    if source.mode is not None:
        return source.mode
    config = net.place / "config.json"
    if config.is_file() and '"ControlNetUnionModel"' in config.read_text(encoding="utf-8"):
        if kind not in _UNION_MODES:
            raise ModelError(f"{net.name}: a union has no picture of the kind {kind!r}")
        return _UNION_MODES[kind]
    return None


def _nets(nets: Sequence[Found], dtype: torch.dtype) -> Any:
    """One ControlNet, or a list of them; one that stands twice is read once."""
    import diffusers

    read: dict[Any, Any] = {}
    for net in nets:
        if net.place in read:
            continue
        try:
            if net.place.is_file():
                read[net.place] = diffusers.ZImageControlNetModel.from_single_file(
                    str(net.place),
                    config=str(net.config) if net.config else None,
                    local_files_only=net.config is not None or None,
                    dtype=dtype,
                )
                continue
            cls = getattr(
                diffusers, json.loads((net.place / "config.json").read_text(encoding="utf-8"))["_class_name"]
            )
            read[net.place] = cls.from_pretrained(
                net.place,
                local_files_only=True,
                use_safetensors=True,
                variant=families.weights(net.place, net.name),
                dtype=dtype,
            )
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{net.name}: cannot be read as a ControlNet ({_said(error)})") from error
    loaded = [read[net.place] for net in nets]
    return (
        loaded[0] if len(read) == 1 and (len(loaded) == 1 or "Union" in type(loaded[0]).__name__) else loaded
    )


def _adapt(pipe: Any, loras: Sequence[tuple[Found, float]], *, melt: bool) -> None:
    """Melt adapters into the weights, or lay them beside those that are quantised, and teach the words learned with them."""
    for k, (found, scale) in enumerate(loras):
        folder, file = (
            (found.place.parent, found.place.name) if found.place.is_file() else (found.place, None)
        )
        try:
            with _speechless():
                pipe.load_lora_weights(
                    str(folder),
                    weight_name=file,
                    local_files_only=True,
                    use_safetensors=True,
                    adapter_name=f"adapter{k}",
                )
            if melt:
                pipe.fuse_lora(lora_scale=scale)
                pipe.unload_lora_weights()
        except Exception as error:
            if "size mismatch" in str(error):
                raise ModelError(
                    f"{found.name}: an adapter of another model: its layers are not as wide as this one's; "
                    "name one of the same family with --lora"
                ) from error
            raise ModelError(
                f"{found.name}: cannot be read as an adapter of this model ({_said(error)})"
            ) from error
        if (folder / TOKENS).is_file():
            from rarefill.generators.hub import tokens

            tokens.teach(pipe, folder / TOKENS)
    if loras and not melt:
        pipe.set_adapters([f"adapter{k}" for k in range(len(loras))], [scale for _, scale in loras])


@contextmanager
def _speechless() -> Iterator[None]:
    """Without what diffusers says of an error that it raises, too."""
    before = diffusers_log.get_verbosity()
    diffusers_log.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        diffusers_log.set_verbosity(before)


def _checked(wanted: Wanted, pipe: Any) -> None:
    """Refuse parts that do not fit each other, and weights that are no numbers.

    Raises:
        ModelError: with the first such part.
    """
    name = wanted.base.name
    unet = getattr(pipe, "unet", None)
    if unet is not None:
        latents = pipe.vae.config.latent_channels
        if unet.config.in_channels not in {latents, 2 * latents + 1}:
            raise ModelError(
                f"{name}: unet must have in_channels {latents}, or {2 * latents + 1} (latents, mask, masked latents), "
                f"got {unet.config.in_channels}"
            )
        net = getattr(pipe, "controlnet", None)
        for k, one in enumerate(getattr(net, "nets", [net] if net is not None else [])):
            width = one.config.cross_attention_dim
            if width != unet.config.cross_attention_dim:
                which = wanted.nets[min(k, len(wanted.nets) - 1)].name if wanted.nets else name
                raise ModelError(
                    f"{which}: a ControlNet for words of width {width}, but {name} has {unet.config.cross_attention_dim}: "
                    "it belongs to another family (SD 1.5 has 768, SDXL 2048); name another with --controlnet"
                )
    for part, network in families.networks(pipe):
        plain = (weights for weights in network.parameters() if type(weights.data) is torch.Tensor)
        if not all(bool(torch.isfinite(weights).all()) for weights in plain):
            raise ModelError(f"{name}: {part} holds weights that are no numbers; copy it again")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
