"""Published checkpoints that rarefill knows how to paint with: where they are, what they may be used for, what they need.

A table and nothing else: no weights are read here, so that `rarefill models` answers at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Control = Literal["canny", "lineart", "hed", "pidi", "depth", "zoe", "normal", "seg", "layout"]
"""Kinds of a ControlNet's picture, as `generators.conditioning` draws them; `layout` is the embedded model's."""
Family = Literal["sd15", "sdxl", "z-image", "flux2-klein", "flux", "qwen-edit"]
"""Architectures that can be painted with: the first two share the loop of `generators.hub.unet`."""
Scheduler = Literal["saved", "ddim", "dpm", "euler", "euler-a", "unipc", "lcm", "tcd"]

UNPINNED: Final = "main"
"""The revision of what is not pinned here: the commit that it stands for at the first use is kept in the cache, and said. Hashes are
those that several public projects, none of which knows of the others, print beside the very id; the hub itself could not be
asked where this table was written."""


@dataclass(frozen=True, slots=True)
class Source:
    """Weights of the hub.

    Attributes:
        id: OWNER/NAME.
        revision: a commit's hash, or `UNPINNED`.
        file: the one file of it that is wanted, where it is no folder of diffusers.
        config: OWNER/NAME whose config.json says how large the networks of that file are.
        mode: which of its kinds of picture a ControlNet-Union is given; None for one of a single kind.
    """

    id: str
    revision: str = UNPINNED
    file: str | None = None
    config: str | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of the table.

    Attributes:
        name: as `--generator` takes it.
        family: its architecture.
        base: the pipeline.
        controls: its ControlNets, by kind; the first is the default.
        lora: an adapter that belongs to it.
        licence: of all of it, the narrowest named.
        commercial: whether that licence lets you use pictures commercially.
        terms: what it asks for besides, in words.
        gated: whether the hub wants a token of an account that has accepted the licence.
        weights_gb: of everything in 16 bits.
        memory_gb: of a GPU that holds all of it and a batch.
        offload_gb: of a GPU that holds the largest part at a time.
        steps: denoising steps.
        guidance_scale: 1 is off.
        scheduler: "saved" is the checkpoint's own.
        window_px: side of the windows it was trained for.
        batch: windows at a time, where memory allows.
        note: what else to know.
    """

    name: str
    family: Family
    base: Source
    controls: Mapping[Control, Source]
    licence: str
    commercial: bool
    weights_gb: float
    memory_gb: float
    offload_gb: float
    steps: int
    guidance_scale: float
    scheduler: Scheduler
    window_px: int
    batch: int = 8
    terms: str = ""
    gated: bool = False
    lora: Source | None = None
    note: str = ""

    def sources(self) -> tuple[Source, ...]:
        """Everything that the default of it is read from."""
        first = next(iter(self.controls.values()), None)
        return tuple(s for s in (self.base, first, self.lora) if s is not None)

    @property
    def pinned(self) -> bool:
        """Whether every revision is a commit's hash."""
        return all(source.revision != UNPINNED for source in (*self.sources(), *self.controls.values()))


_USES = "no use that its list of restricted uses names"
_SD15_CONTROLS: Final[Mapping[Control, Source]] = {
    "canny": Source("lllyasviel/control_v11p_sd15_canny", "115a470d547982438f70198e353a921996e2e819"),
    "lineart": Source("lllyasviel/control_v11p_sd15_lineart", "8a158f547e031c5b8fbca19ead09a74767ff4db0"),
    "hed": Source("lllyasviel/control_v11p_sd15_softedge", "b5bcad0c48e9b12f091968cf5eadbb89402d6bc9"),
    "pidi": Source("lllyasviel/control_v11p_sd15_softedge", "b5bcad0c48e9b12f091968cf5eadbb89402d6bc9"),
    "depth": Source("lllyasviel/control_v11f1p_sd15_depth", "539f99181d33db39cf1af2e517cd8056785f0a87"),
    "zoe": Source("lllyasviel/control_v11f1p_sd15_depth", "539f99181d33db39cf1af2e517cd8056785f0a87"),
    "normal": Source("lllyasviel/control_v11p_sd15_normalbae", "cb7296e6587a219068e9d65864e38729cd862aa8"),
    "seg": Source("lllyasviel/control_v11p_sd15_seg"),
}
_UNION: Final = "brad-twinkl/controlnet-union-sdxl-1.0-promax"
_ZIMAGE: Final = Source(
    "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union-2.1",
    "5155fc56d17821007d6f62ac192c09e0f0e72016",
    file="Z-Image-Turbo-Fun-Controlnet-Union-2.1-2602-8steps.safetensors",
    config="hlky/Z-Image-Turbo-Fun-Controlnet-Union-2.1",
)

PRESETS: Final[Mapping[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(
            name="sd15-lcm",
            family="sd15",
            base=Source(
                "stable-diffusion-v1-5/stable-diffusion-inpainting",
                "8a4288a76071f7280aedbdb3253bdb9e9d5d84bb",
            ),
            controls=_SD15_CONTROLS,
            lora=Source("latent-consistency/lcm-lora-sdv1-5", "cf2fced511dbe7e26c8d1d397e728fbab875db4b"),
            licence="CreativeML OpenRAIL-M",
            commercial=True,
            terms=_USES,
            weights_gb=2.9,
            memory_gb=6,
            offload_gb=4,
            steps=6,
            guidance_scale=1.0,
            scheduler="lcm",
            window_px=512,
            batch=8,
            note="few steps without guidance: the one for a CPU",
        ),
        Preset(
            name="sd15",
            family="sd15",
            base=Source(
                "stable-diffusion-v1-5/stable-diffusion-inpainting",
                "8a4288a76071f7280aedbdb3253bdb9e9d5d84bb",
            ),
            controls=_SD15_CONTROLS,
            licence="CreativeML OpenRAIL-M",
            commercial=True,
            terms=_USES,
            weights_gb=2.9,
            memory_gb=8,
            offload_gb=4,
            steps=20,
            guidance_scale=6.0,
            scheduler="dpm",
            window_px=512,
            batch=8,
        ),
        Preset(
            name="sdxl",
            family="sdxl",
            base=Source(
                "diffusers/stable-diffusion-xl-1.0-inpainting-0.1", "115134f363124c53c7d878647567d04daf26e41e"
            ),
            controls={
                "canny": Source(
                    "diffusers/controlnet-canny-sdxl-1.0-small", "edd85f64c5f87dfb6d73762949d9daca16389518"
                ),
                "depth": Source("diffusers/controlnet-depth-sdxl-1.0-small"),
                "zoe": Source("diffusers/controlnet-depth-sdxl-1.0-small"),
            },
            licence="CreativeML OpenRAIL++-M",
            commercial=True,
            terms=_USES,
            weights_gb=7.5,
            memory_gb=14,
            offload_gb=8,
            steps=25,
            guidance_scale=5.0,
            scheduler="euler",
            window_px=1024,
            batch=4,
        ),
        Preset(
            name="sdxl-union",
            family="sdxl",
            base=Source(
                "stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b"
            ),
            controls={
                "canny": Source(_UNION, mode=3),
                "lineart": Source(_UNION, mode=3),
                "hed": Source(_UNION, mode=2),
                "pidi": Source(_UNION, mode=2),
                "depth": Source(_UNION, mode=1),
                "zoe": Source(_UNION, mode=1),
                "normal": Source(_UNION, mode=4),
                "seg": Source(_UNION, mode=5),
            },
            licence="CreativeML OpenRAIL++-M",
            commercial=True,
            terms=_USES + "; the ControlNet is under Apache-2.0",
            weights_gb=9.4,
            memory_gb=18,
            offload_gb=9,
            steps=25,
            guidance_scale=5.0,
            scheduler="euler",
            window_px=1024,
            batch=4,
            note="one ControlNet for all kinds, several at once",
        ),
        Preset(
            name="flux2-klein-4b",
            family="flux2-klein",
            base=Source("black-forest-labs/FLUX.2-klein-4B", "e7b7dc27f91deacad38e78976d1f2b499d76a294"),
            controls={},
            licence="Apache-2.0",
            commercial=True,
            weights_gb=16,
            memory_gb=22,
            offload_gb=11,
            steps=4,
            guidance_scale=1.0,
            scheduler="saved",
            window_px=512,
            batch=4,
            note="takes no ControlNet: the mask alone makes the shape",
        ),
        Preset(
            name="z-image-turbo",
            family="z-image",
            base=Source("Tongyi-MAI/Z-Image-Turbo", "f332072aa78be7aecdf3ee76d5c247082da564a6"),
            controls=dict.fromkeys(("canny", "hed", "depth", "zoe", "lineart"), _ZIMAGE),
            licence="Apache-2.0",
            commercial=True,
            weights_gb=27,
            memory_gb=34,
            offload_gb=21,
            steps=8,
            guidance_scale=1.0,
            scheduler="saved",
            window_px=1024,
            batch=4,
            note="batched on 40 GB and more; always paints from noise alone",
        ),
        Preset(
            name="qwen-image-edit",
            family="qwen-edit",
            base=Source("Qwen/Qwen-Image-Edit", "ac7f9318f633fc4b5778c59367c8128225f1e3de"),
            controls={},
            licence="Apache-2.0",
            commercial=True,
            weights_gb=58,
            memory_gb=70,
            offload_gb=44,
            steps=30,
            guidance_scale=4.0,
            scheduler="saved",
            window_px=1024,
            batch=1,
            note="reads the window and an instruction; one window at a time",
        ),
        Preset(
            name="flux-controlnet",
            family="flux",
            base=Source("black-forest-labs/FLUX.1-dev", "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"),
            controls={"canny": Source("InstantX/FLUX.1-dev-controlnet-canny")},
            licence="FLUX.1 [dev] Non-Commercial License",
            commercial=False,
            terms="non-commercial use only",
            gated=True,
            weights_gb=40,
            memory_gb=50,
            offload_gb=28,
            steps=28,
            guidance_scale=3.5,
            scheduler="saved",
            window_px=1024,
            batch=1,
        ),
    )
}
"""From the smallest to the largest; what may not be used commercially stands last and is never a default."""

HUB: Final = "hub:"
"""Before the id or the folder of a checkpoint that is no preset."""


def is_hub(generator: str) -> bool:
    """Whether a generator's name is that of a published checkpoint."""
    return generator in PRESETS or generator.startswith(HUB)


def named(generator: str) -> bool:
    """Whether `--generator` can be this."""
    return generator in {"compact", "paste", *PRESETS} or (
        generator.startswith(HUB) and bool(generator.removeprefix(HUB).strip())
    )


def defaults(generator: str) -> tuple[dict[str, object], dict[str, object]]:
    """What a published checkpoint's recipe says where its user does not: of the sections generator and hub."""
    preset = PRESETS.get(generator)
    painting: dict[str, object] = {"adapt": False, "guidance_from": 0.0, "guidance_to": 1.0, "strength": 0.8}
    if preset is None:
        return painting | {"steps": 25, "guidance_scale": 5.0}, {}
    painting |= {"steps": preset.steps, "guidance_scale": preset.guidance_scale}
    if preset.family == "z-image":
        painting["strength"] = 1.0
    hub: dict[str, object] = {
        "scheduler": preset.scheduler,
        "window_px": preset.window_px,
        "paint_batch": preset.batch,
    }
    return painting, hub
