"""The output folder: append-only records, atomic files, resume.

    RUN/recipe.yaml       every option as resolved
    RUN/manifest.json     versions, seed, hashes; `finished` once everything is written
    RUN/layouts.jsonl     what was asked, one layout a line
    RUN/records.jsonl     what came of it, one chunk of layouts a line, appended as it is finished
    RUN/images/           the images written
    RUN/annotations.json, merged.json, yolo/, yolo-seg/, preview.png, report.html

A line of `records.jsonl` that ends in a newline is a finished chunk; its images stood in place before it was
written. A torn last line is cut off when the run continues.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from rarefill import records
from rarefill.dataset import Dataset
from rarefill.errors import RunError, UsageError
from rarefill.files import write_bytes
from rarefill.recipe import FILES, Format
from rarefill.records import Record
from rarefill.scene import Sample

OWN = (
    "recipe.yaml",
    "layouts.jsonl",
    "records.jsonl",
    "images",
    "annotations.json",
    "merged.json",
    "yolo",
    "yolo-seg",
    "preview.png",
    "proof",
    "report.html",
    "fidelity.json",
)

LIBRARIES = (
    "rarefill",
    "albumentations",
    "msgspec",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
    "scipy",
    "shapely",
    "torch",
    "torchvision",
)
"""Whose versions the manifest keeps."""


class RunDir:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = path / "images"
        self.layouts = path / "layouts.jsonl"
        self.records = path / "records.jsonl"
        self.recipe = path / "recipe.yaml"
        self._manifest = path / "manifest.json"

    def look(self, identity: Mapping[str, Any], *, overwrite: bool = False) -> bool:
        """Whether the same run stands here finished. Changes nothing.

        Args:
            identity: what decides the run's bytes; JSON values. A folder that holds a run with another one is refused.
            overwrite: accept that another run is here, since `open` will throw it away.

        Raises:
            UsageError: the folder holds something else.
        """
        if not self._manifest.exists():
            if self.path.exists() and any(not _ours(p) for p in self.path.iterdir()):
                raise UsageError(f"{self.path} is not empty and not a rarefill run; choose another --out")
            return False
        other = self._other(identity)
        if other and not overwrite:
            raise UsageError(f"{self.path} holds {other}; choose another --out, or --overwrite")
        return not other and bool(self.manifest().get("finished"))

    def open(self, identity: Mapping[str, Any], recipe_yaml: str, *, overwrite: bool = False) -> None:
        """Begin a run here, or continue the same one.

        Args:
            identity: as for `look`.
            recipe_yaml: for people, and for `rarefill export`.
            overwrite: throw away another run that is here, and only that; the same one continues.

        Raises:
            UsageError: the folder holds something else.
            RunError: the folder cannot be written.
        """
        self.look(identity, overwrite=overwrite)
        if self._manifest.exists() and self._other(identity):
            self._write_manifest({"cleared": True})  # a kill from here on leaves a folder that is free to use
        if self._cleared():
            self._clear()
        # The manifest first: it is what makes the folder a run that can be continued.
        if not self._manifest.exists() or self._cleared():
            self._write_manifest({"rarefill": dict(identity), "finished": False})
        if not self.recipe.exists():
            write_bytes(self.recipe, recipe_yaml.encode())

    def _other(self, identity: Mapping[str, Any]) -> str:
        """What other run is here, in words; empty when it is this one or none."""
        try:
            manifest = self.manifest()
        except UsageError as e:
            return f"a run whose manifest cannot be read ({e})"
        if manifest.get("cleared"):
            return ""
        differing = _differences(manifest.get("rarefill", {}), identity)
        return f"a run with another recipe ({'; '.join(differing)})" if differing else ""

    def _cleared(self) -> bool:
        return self._manifest.exists() and bool(self.manifest().get("cleared"))

    def _clear(self) -> None:
        for name in OWN:
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of the folder while this one works in it (where the system can).

        Raises:
            UsageError: another process works here.
            RunError: the folder cannot be written.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("a")
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"{self.path} is a file; --out names a folder") from None
        except OSError as e:
            raise RunError(f"{self.path}: cannot be written: {e.strerror or e}; choose another --out") from e
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"another process is working in {self.path}; wait for it, or stop it"
                ) from None
            except OSError as e:
                if e.errno not in {errno.ENOLCK, errno.ENOTSUP}:  # some file systems have no locks
                    raise RunError(f"{self.path}: cannot be locked: {e.strerror or e}") from e
            yield

    def manifest(self) -> dict[str, Any]:
        """The manifest as written.

        Raises:
            UsageError: there is none, or it is not JSON.
        """
        try:
            value = json.loads(self._manifest.read_text())
        except FileNotFoundError:
            raise UsageError(f"{self.path} is not a rarefill run: it has no manifest.json") from None
        except (OSError, ValueError) as e:
            raise UsageError(f"{self._manifest}: cannot be read: {e}") from e
        if not isinstance(value, dict):
            raise UsageError(f"{self._manifest}: expected an object, got {type(value).__name__}")
        return value

    def _write_manifest(self, value: Mapping[str, Any]) -> None:
        write_bytes(self._manifest, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Say in the manifest that everything is written, with its hashes."""
        self._write_manifest(self.finished(summary))

    def finished(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest that `finish` writes."""
        files = ["layouts.jsonl", "records.jsonl", "annotations.json", "merged.json"]
        files += ["yolo/data.yaml", "yolo-seg/data.yaml"]
        hashes = {name: _sha256(self.path / name) for name in files if (self.path / name).exists()}
        return {
            **self.manifest(),
            "finished": True,
            "summary": dict(summary),
            "sha256": hashes,
            "versions": versions(),
        }

    def append(self, record: Record) -> None:
        """Add one finished chunk, on disk before this returns.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        line = (
            json.dumps(records.to_json(record), separators=(",", ":"), ensure_ascii=False) + "\n"
        ).encode()
        try:
            with self.records.open("ab") as f:
                f.write(line)
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            raise RunError(
                f"{self.records}: cannot be written: {e.strerror or e}; free space, then run again"
            ) from e

    def mend(self) -> None:
        """Cut off a last line that a kill tore, and remove files that it left half written."""
        if self.records.exists():
            data = self.records.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                with self.records.open("r+b") as f:
                    f.truncate(whole)
        for part in self.path.rglob("*.part"):
            part.unlink()

    def check_images(self, dataset: Dataset) -> None:
        """Every image that the records name stands in its place.

        Raises:
            RunError: one is gone; what it showed cannot be told from the records.
        """
        gone = [s.file_name for s in self.samples(dataset) if not (self.images / s.file_name).exists()]
        if gone:
            raise RunError(
                f"{self.images / gone[0]} is gone ({len(gone)} in all), though {self.records.name} says it was written; "
                f"restore it, or delete {self.path} and run again"
            )

    def lacks(self, formats: Iterable[Format]) -> list[str]:
        """Which files of a finished run are not there."""
        wanted = [FILES[name] for name in formats] + ["preview.png"]
        return [name for name in wanted if not (self.path / name).exists()]

    def read(self, dataset: Dataset) -> Iterator[Record]:
        """Every finished chunk, in order.

        Raises:
            RunError: a line is not what `append` writes.
        """
        if not self.records.exists():
            return
        with self.records.open("rb") as f:
            for number, line in enumerate(f, 1):
                try:
                    yield records.from_json(json.loads(line), dataset)
                except (ValueError, KeyError, TypeError, IndexError) as e:
                    raise RunError(
                        f"{self.records}: line {number} is damaged ({e!r}); remove it and all that follow, then run again"
                    ) from e

    def samples(self, dataset: Dataset) -> Iterator[Sample]:
        """Every sample, in the plan's order."""
        for record in self.read(dataset):
            yield from record.samples


def versions() -> dict[str, str]:
    """What this machine ran: the pixels follow from these libraries too."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):  # another build of cv2, or rarefill from its sources
            found[name] = metadata.version(name)
    return found


def _ours(path: Path) -> bool:
    return path.suffix == ".part" or path.name == ".lock"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} there, {b!r} now")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
