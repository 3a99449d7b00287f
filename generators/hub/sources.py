"""Where a published model's weights are: a folder on this disk, or the hub's cache, which is filled when it lacks them.

The hub's own variables hold: HF_HOME, HF_HUB_OFFLINE, HF_TOKEN, and the token that its login keeps.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rarefill.errors import MissingError, ModelError
from rarefill.generators import pipelines
from rarefill.generators.hub import commits
from rarefill.generators.hub.commits import Commits
from rarefill.presets import HUB, UNPINNED, Source

_SETTINGS: Final = ("*.json", "*.txt", "*.model", "*.jinja")
_TWICE: Final = ("*.fp16.*", "*non_ema*", "*.onnx*", "*flax*")
"""The same weights a second time."""
_NOBODY: Final = Commits()


@dataclass(frozen=True, slots=True)
class Found:
    """Weights on this disk.

    Attributes:
        place: a folder, or one file.
        name: as it was asked for.
        config: folder whose config.json describes that file; None for folders, which have their own.
    """

    place: Path
    name: str
    config: Path | None = None


def parsed(name: str, revision: str | None = None) -> Source:
    """OWNER/NAME@REVISION, or a folder, as a source.

    Args:
        name: with or without `hub:` before it.
        revision: instead of the name's own.
    """
    plain = name.removeprefix(HUB)
    if Path(plain).expanduser().exists():
        return Source(plain, revision or UNPINNED)
    owner_name, _, own = plain.partition("@")
    return Source(owner_name, revision or own or UNPINNED)


def pipeline(source: Source, known: Commits = _NOBODY) -> Found:
    """A whole pipeline, without pickles and without the same weights twice.

    Args:
        source: where from.
        known: what names stood for when they were first used.

    Raises:
        ModelError: neither here nor to be had.
    """
    flag = "--generator hub:"
    local = _local(source, flag)
    if local is not None:
        return local
    pinned = known.pinned(source)
    try:
        with _quiet():
            place = Path(_downloaded(pinned))
    except Exception as error:
        raise explained(error, pinned, flag) from error
    known.keep(source, place)
    return Found(place, _named(source))


def _downloaded(source: Source) -> str:
    """A pipeline's folder; some have safetensors of 16 bits alone, such as SD 1.5 for inpainting."""
    from diffusers import DiffusionPipeline

    given: dict[str, Any] = {"revision": source.revision, "use_safetensors": True, "safety_checker": None}
    try:
        return str(DiffusionPipeline.download(source.id, **given))
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        return str(DiffusionPipeline.download(source.id, variant="fp16", **given))


def part(source: Source, flag: str, known: Commits = _NOBODY) -> Found:
    """A ControlNet, an adapter, or one file of either.

    Args:
        source: where from.
        flag: the option that a folder of one's own is named with.
        known: what names stood for when they were first used.

    Raises:
        ModelError: neither here nor to be had.
    """
    local = _local(source, flag)
    if local is not None:
        if source.file and local.place.is_dir():
            return Found(local.place / source.file, local.name)
        return local
    pinned = known.pinned(source)
    try:
        with _quiet():
            place = _file_or_folder(pinned)
    except Exception as error:
        raise explained(error, pinned, flag) from error
    known.keep(source, place)
    if source.config is None:
        return Found(place, _named(source))
    said = part(Source(source.config, file="config.json"), flag, known)
    return Found(place, _named(source), said.place.parent)


def _file_or_folder(source: Source) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    if source.file:
        return Path(hf_hub_download(source.id, source.file, revision=source.revision))
    wanted = [*_SETTINGS, "*.safetensors"]
    return Path(
        snapshot_download(
            source.id, revision=source.revision, allow_patterns=wanted, ignore_patterns=list(_TWICE)
        )
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the hub's client says of each try to reach it: what came of them is said in a line."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        with pipelines.quiet():
            yield
    finally:
        client.setLevel(level)


def commit(found: Found) -> str | None:
    """OWNER/NAME@COMMIT of what came from the hub; None of one's own folders."""
    name = commits.of(found.place)
    return None if name is None else f"{found.name.partition('@')[0]}@{name}"


def fingerprint(found: Found) -> str:
    """What names weights exactly: the hub's commit, or a hash of everything in the folder.

    Raises:
        ModelError: a file cannot be read.
    """
    said = commit(found)
    if said is not None:
        return said
    if found.place.is_dir() and (found.place / "model_index.json").is_file():
        return pipelines.digest(found.place)
    h = hashlib.sha256()
    inside = [found.place] if found.place.is_file() else sorted(found.place.rglob("*"))
    for path in inside:
        if path.is_file() and path.suffix in {".safetensors", ".json", ".txt"}:
            h.update(path.name.encode() + b"\t")
            h.update(path.read_bytes())
    return h.hexdigest()


def explained(error: BaseException, source: Source, flag: str = "--generator hub:") -> ModelError:
    """One line for what the hub's libraries say in many.

    Args:
        error: as they raised it; what it came from is looked at, too.
        source: what was wanted.
        flag: the option that a folder of one's own is named with.
    """
    from huggingface_hub import errors

    chain = tuple(_chain(error))
    texts = " ".join(str(e) for e in chain)
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    name = _named(source)
    if any(isinstance(e, errors.GatedRepoError) for e in chain) or "Cannot access gated repo" in texts:
        return ModelError(
            f"{name}: gated: accept its licence on its page with your account, then set HF_TOKEN or run 'hf auth login'"
        )
    if any(isinstance(e, errors.RevisionNotFoundError) for e in chain):
        return ModelError(f"{name}: no such revision; look at the commits on its page")
    if any(isinstance(e, errors.RepositoryNotFoundError) for e in chain):
        return ModelError(
            f"{name}: the hub has no such model, or it is private; check OWNER/NAME, and HF_TOKEN if it is yours"
        )
    offline = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)
    if any(isinstance(e, offline) or "ConnectError" in type(e).__name__ for e in chain):
        return ModelError(
            f"{name}: not in the hub's cache, and the hub cannot be reached (no network, or HF_HUB_OFFLINE is set); "
            f"fetch it once with a network, or name a folder: {flag}FOLDER"
        )
    if any(isinstance(e, errors.EntryNotFoundError) for e in chain) or "named model_index.json" in texts:
        if source.file:
            return ModelError(f"{name}: has no {source.file}")
        return ModelError(f"{name}: no pipeline of diffusers: it has no model_index.json")
    if "safetensors" in texts:
        return ModelError(
            f"{name}: has no safetensors, and pickles are not opened, as they can run anything; "
            "take a revision or a copy with safetensors"
        )
    return ModelError(f"{name}: cannot be had from the hub ({said})")


def of_the_hub(source: Source) -> bool:
    """Whether a source is no folder or file of this disk, and can be a model of the hub."""
    path = Path(source.id).expanduser()
    return not (path.exists() or path.is_absolute()) and (
        source.id.count("/") == 1 and not source.id.startswith((".", "~"))
    )


def _local(source: Source, flag: str) -> Found | None:
    path = Path(source.id).expanduser()
    if path.exists():
        return Found(path, source.id)
    if not of_the_hub(source):
        besides = "; 'rarefill models' lists presets" if flag.startswith("--generator") else ""
        raise MissingError(
            f"{source.id}: no such folder, and no OWNER/NAME of the hub; say {flag}FOLDER or {flag}OWNER/NAME{besides}"
        )
    return None


def _named(source: Source) -> str:
    return source.id if source.revision == UNPINNED else f"{source.id}@{source.revision}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
