"""What a run must remember to go on as if it had never stopped, in one safetensors file."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rarefill.errors import ModelError

_MOMENTS = frozenset({"exp_avg", "exp_avg_sq"})
"""What torch's AdamW keeps of each parameter."""
_NARROW = ("state1", "state2", "qmap1", "qmap2", "absmax1", "absmax2")
"""What bitsandbytes' keeps, whose tables are tensors, too."""


class Averages:
    """Exponential moving averages of a module's parameters, kept in float32.

    The decay grows with the number of updates, so that the first thousand steps do not hang on the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.values = {name: value.detach().clone().float() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        named = dict(module.named_parameters())
        own = list(self.values.values())
        torch._foreach_lerp_(own, [named[name].detach() for name in self.values], weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, value in module.named_parameters():
            value.copy_(self.values[name])


def save(
    path: Path,
    step: int,
    module: nn.Module,
    averages: Averages,
    optimizer: torch.optim.Optimizer | None,
    *,
    notes: Mapping[str, str] | None = None,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Write aside and rename: whenever the run is killed, one whole file is there.

    Args:
        path: of the file.
        step: steps done.
        module: what learns.
        averages: of it.
        optimizer: its moments are kept, too; None where there are none yet.
        notes: text by name, which `notes` reads back.
        more: other tensors by name, which `tensors` reads back.
    """
    held = dict(more or {})
    for name, value in module.named_parameters():
        held[f"model.{name}"] = value.detach()
        held[f"average.{name}"] = averages.values[name]
        for key, moment in (optimizer.state.get(value, {}) if optimizer else {}).items():
            # An optimiser of 8 bits counts in plain numbers and shares its tables between parameters.
            held[f"{key}.{name}"] = moment if key in _MOMENTS else torch.as_tensor(moment).clone()
    plain = {name: value.contiguous() for name, value in held.items()}
    aside = path.with_suffix(".part")
    save_file(plain, aside, metadata={"step": str(step), **(notes or {})})
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.rename(path)


@torch.no_grad()
def load(path: Path, module: nn.Module, averages: Averages, optimizer: torch.optim.Optimizer) -> int:
    """Take up what `save` wrote, in place.

    Returns:
        The number of steps done.

    Raises:
        ModelError: the file is broken or belongs to a model of another shape.
    """
    step, held = _read(path)
    _copy(path, held, "model", dict(module.named_parameters()))
    _copy(path, held, "average", averages.values)
    for name, value in module.named_parameters():
        if f"exp_avg.{name}" in held:
            # Laid out like the parameter itself: the fused optimizer walks them side by side.
            moments = {
                key: torch.zeros_like(value).copy_(held[f"{key}.{name}"]) for key in ("exp_avg", "exp_avg_sq")
            }
            optimizer.state[value] = {"step": held[f"step.{name}"].to(value.device, copy=True), **moments}
        elif f"state1.{name}" in held:
            keys = [key for key in _NARROW if f"{key}.{name}" in held]
            narrow = {key: held[f"{key}.{name}"].to(value.device) for key in keys}
            optimizer.state[value] = {"step": int(held[f"step.{name}"]), **narrow}
    return step


def load_averages(path: Path, module: nn.Module) -> int:
    """Give a module the averaged weights of a checkpoint, which are those to use.

    Returns:
        The number of steps they were trained for.

    Raises:
        ModelError: there is no such file, it is broken, or it belongs to a model of another shape.
    """
    step, held = _read(path)
    _copy(path, held, "average", dict(module.named_parameters()))
    return step


def notes(path: Path) -> dict[str, str]:
    """What a checkpoint says of itself, `step` with it, without its tensors.

    Raises:
        ModelError: there is no such file, or it is broken.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


def tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `kind` and a dot, by what follows.

    Raises:
        ModelError: there is no such file, or it is broken.
    """
    with _opened(path) as file:
        names = [name for name in file.keys() if name.startswith(f"{kind}.")]  # noqa: SIM118 (not a dict)
        return {name.removeprefix(f"{kind}."): file.get_tensor(name) for name in names}


def _read(path: Path) -> tuple[int, dict[str, Tensor]]:
    with _opened(path) as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return int(file.metadata()["step"]), held


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such checkpoint; run the stage before this one first") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: not a checkpoint of this program ({error}); move it away to start anew"
        ) from error


@torch.no_grad()
def _copy(path: Path, held: Mapping[str, Tensor], kind: str, into: Mapping[str, Tensor]) -> None:
    for name, value in into.items():
        found = held.get(f"{kind}.{name}")
        if found is None or found.shape != value.shape:
            came = "nothing" if found is None else tuple(found.shape)
            raise ModelError(
                f"{path}: {kind}.{name} must be {tuple(value.shape)}, got {came}; move it away to start anew"
            )
        value.copy_(found)
