"""Where a detector's weights are: a folder or a file on this disk, or a model of the hub; never a pickle."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rarefill.errors import MissingError, ModelError

PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files of the hub that are fetched: settings, words and weights that run nothing."""


def find(name: str, flag: str = "--detector") -> Path:
    """The place of a detector on this disk; a model of the hub is fetched first, unless its cache holds it.

    Args:
        name: a folder, a file, or OWNER/NAME of the hub, with @REVISION to pin it.
        flag: what names it, for the messages.

    Raises:
        ModelError: there is none.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    repo, _, revision = name.partition("@")
    if repo.count("/") != 1 or path.is_absolute() or repo.startswith((".", "~")) or path.suffix in _FILES:
        raise MissingError(f"{name}: no such folder or file; give the model's own to {flag}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(_WANTED)))
    except Exception as error:
        raise ModelError(
            f"{name}: neither a folder here nor to be had from the hub ({_said(error)}); "
            f"fetch it once with a network, or give a folder to {flag}"
        ) from error


_FILES = PICKLES | {".onnx", ".safetensors"}


def check(folder: Path, needs: Sequence[Sequence[str]]) -> None:
    """Say what a transformers folder lacks, before transformers does in many lines.

    Args:
        folder: as `save_pretrained` writes it.
        needs: file names, one of each group has to be there.

    Raises:
        ModelError: something is missing, or the weights are a pickle.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: a folder is expected, as save_pretrained of transformers writes it")
    names = {path.name for path in folder.iterdir()}
    for group in needs:
        if not names.intersection(group):
            raise ModelError(f"{folder}: no {' or '.join(group)}; the folder is incomplete, copy it again")
    if not any(name.endswith(".safetensors") for name in names):
        refuse_pickles(folder, sorted(names))
        raise ModelError(f"{folder}: no model.safetensors; the folder is incomplete, copy it again")


def refuse_pickles(folder: Path, names: Sequence[str]) -> None:
    """Refuse weights that could run anything.

    Raises:
        ModelError: one of the files is such.
    """
    for name in names:
        if Path(name).suffix.lower() in PICKLES:
            raise ModelError(
                f"{folder / name}: pickles are not opened, as they can run anything; save the weights as safetensors"
            )


def digest(place: Path, extra: Sequence[Path] = ()) -> str:
    """SHA-256 of a file or of all that a folder holds for machines.

    Raises:
        ModelError: a file cannot be read.
    """
    h = hashlib.sha256()
    inside = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    kept = [p for p in inside if place.is_file() or any(p.match(pattern) for pattern in _WANTED)]
    try:
        for path in (*kept, *extra):
            h.update(f"{path.name}\t{path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    h.update(block)
    except OSError as error:
        kind = MissingError if isinstance(error, FileNotFoundError) else ModelError
        raise kind(f"{path}: cannot be read: {error.strerror or error}") from error
    return h.hexdigest()


@contextmanager
def reading(place: Path, what: str) -> Iterator[None]:
    """Turn whatever a library says of a bad folder into one line, and keep it quiet otherwise."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{place}: cannot be read as {what} ({_said(error)})") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def complete(place: Path, model: Any, told: dict[str, Any]) -> None:
    """Refuse a model whose weights are not all there, do not fit, or are no numbers.

    Args:
        place: where it came from.
        model: the network.
        told: `output_loading_info` of its `from_pretrained`.

    Raises:
        ModelError: with the first such weight.
    """
    import torch

    for key, what in (
        ("missing_keys", "has no weights for"),
        ("mismatched_keys", "has weights of another shape for"),
    ):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in told.get(key) or ())
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelError(f"{place}: {what} {names[0]}{more}; the folder holds another model's weights")
    for name, weights in model.named_parameters():
        if not bool(torch.isfinite(weights).all()):
            raise ModelError(f"{place}: {name} holds weights that are no numbers; its training went wrong")


def load(place: Path, what: str, network: Any, reader: Any) -> tuple[Any, Any]:
    """A network of transformers and what prepares pictures for it, whole, from this disk.

    Args:
        place: the folder.
        what: it should be, for people.
        network: the class of the network, mostly an `AutoModelFor...`.
        reader: the class of its processor.

    Raises:
        ModelError: it cannot be read, or not all of it is there.
    """
    with reading(place, what):
        model, told = network.from_pretrained(
            place, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        processor = reader.from_pretrained(place, local_files_only=True)
    complete(place, model, told)
    return model, processor
