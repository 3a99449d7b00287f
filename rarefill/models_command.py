"""`rarefill models`: the published checkpoints that can be painted with, and which of them this machine can hold."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich.markup import escape
from rich.table import Table

from rarefill.presets import PRESETS, UNPINNED, Preset, Source

SYSTEM_GB = 2.0
"""Main memory that is left to everything else, where a model runs on the processor."""
_RUNGS_GB = (8, 24, 80)
ACTIVATIONS = 1.25
"""Of the weights: what a window on its way through a model takes besides, on a processor; an estimate."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a model may take.

    Attributes:
        gpu: its name; empty without one.
        gpu_gb: its memory.
        ram_gb: main memory.
        narrow: whether the processor multiplies 16 bits fast; else weights are held in 32.
    """

    gpu: str
    gpu_gb: float
    ram_gb: float
    narrow: bool

    @classmethod
    def this(cls) -> "Machine":
        """The machine that this runs on."""
        import torch

        ram = (
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
        )
        narrow = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 (an operator of torch, spelt so)
        if not torch.cuda.is_available():
            return cls("", 0.0, ram, narrow)
        card = torch.cuda.get_device_properties(0)
        return cls(card.name, card.total_memory / 1e9, ram, narrow)

    def __str__(self) -> str:
        main = f"{self.ram_gb:.0f} GB of main memory"
        return f"{self.gpu} with {self.gpu_gb:.0f} GB, {main}" if self.gpu else f"no GPU, {main}"


def fits(preset: Preset, machine: Machine) -> str:
    """How a machine can hold a model: "yes", "with offload", "on the CPU" or "no". By arithmetic, not by trying."""
    if machine.gpu:
        if machine.gpu_gb >= preset.memory_gb:
            return "yes"
        if machine.gpu_gb >= preset.offload_gb and machine.ram_gb >= preset.weights_gb + SYSTEM_GB:
            return "with offload"
    wide = 1 if machine.narrow else 2
    if machine.ram_gb >= ACTIVATIONS * wide * preset.weights_gb + SYSTEM_GB:
        return "on the CPU"
    return "no"


def listed(machine: Machine) -> Table:
    """The table for people."""
    table = Table(box=None, title=f"This machine: {machine}", title_justify="left", pad_edge=False)
    right = {"GB", "GPU GB", "steps", "window"}
    heads = (
        "preset",
        "fits",
        "GB",
        "GPU GB",
        "steps",
        "scheduler",
        "window",
        "control",
        "licence",
        "commercial",
    )
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left")
    for preset in PRESETS.values():
        table.add_row(
            preset.name,
            fits(preset, machine),
            f"{preset.weights_gb:g}",
            f"{preset.memory_gb:g} ({preset.offload_gb:g})",
            str(preset.steps),
            "its own" if preset.scheduler == "saved" else preset.scheduler,
            f"{preset.window_px} px",
            escape(preset.licence) + (", gated" if preset.gated else ""),
            "yes" if preset.commercial else "NO",
            ", ".join(preset.controls) or "none",
        )
    return table


def notes() -> list[str]:
    """What stands under the table."""
    return [
        "",
        *(f"{p.name}: {_ids(p.sources())}" for p in PRESETS.values()),
        "",
        *ladder(),
        "",
        "GB: weights in 16 bits, as downloaded at least. GPU GB: memory that holds all of it and a batch (with offload).",
        "Fits: by arithmetic. Gated: wants a token of an account that accepted the licence. Nothing is downloaded by this command.",
        "Paint with --generator PRESET, or with another checkpoint: --generator hub:OWNER/NAME@REVISION or hub:FOLDER.",
        f"What says {UNPINNED!r} is not pinned: the commit of its first use is kept, and later runs take that one.",
    ]


def ladder() -> list[str]:
    """What GPUs of usual sizes hold, a line each, from the table's own figures."""
    lines = []
    for gb in _RUNGS_GB:
        card = Machine("a GPU", gb, ram_gb=8 * gb, narrow=True)
        held = {
            how: [p.name for p in PRESETS.values() if fits(p, card) == how] for how in ("yes", "with offload")
        }
        batched = [p.name for p in PRESETS.values() if p.batch > 1 and gb >= p.memory_gb]
        offloaded = ", ".join(held["with offload"])
        lines.append(
            f"{gb} GB of GPU: {', '.join(held['yes'])}"
            + (f"; with offload {offloaded}" if offloaded else "")
            + (
                f"; in batches all but {', '.join(n for n in held['yes'] if n not in batched)}"
                if set(held["yes"]) - set(batched)
                else ""
            )
        )
    return lines


def as_json(machine: Machine) -> str:
    """The same for machines."""
    rows = [asdict(p) | {"fits": fits(p, machine)} for p in PRESETS.values()]
    return json.dumps({"machine": asdict(machine), "models": rows}, indent=2)


def _ids(sources: Iterable[Source]) -> str:
    return " + ".join(f"{s.id}@{s.revision}" for s in sources)
