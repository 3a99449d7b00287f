"""Which commit a name stood for when it was first used; later runs take exactly that one.

A branch such as `main` moves under those who use it. Its commit is written down in the cache folder at the first download, and asked
for from then on. A commit that is named (`--revision`, OWNER/NAME@COMMIT) needs no such note.
"""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from rarefill import files
from rarefill.errors import ModelError
from rarefill.presets import Source

NAME: Final = "commits.json"
"""In the cache folder: OWNER/NAME@BRANCH and its commit, for people to read and to edit."""
_HASH: Final = re.compile("[0-9a-f]{40}")
_PATIENCE_S: Final = 5.0


class Commits:
    """What names stood for when they were first used."""

    def __init__(self, folder: Path | None = None) -> None:
        """Read the notes.

        Args:
            folder: the cache folder; None keeps none.

        Raises:
            ModelError: they cannot be read.
        """
        self._file = None if folder is None else folder / NAME
        self._known = self._read()

    def first(self, source: Source) -> str | None:
        """The commit that a name stood for when it was first used; None for a new one, and for a commit."""
        return None if named(source) else self._known.get(_key(source))

    def pinned(self, source: Source) -> Source:
        """A source at the commit that is known of it."""
        return replace(source, revision=self.first(source) or source.revision)

    def keep(self, source: Source, place: Path) -> None:
        """Write down where a name led: a folder or file of the hub's cache.

        Raises:
            RunError: the cache folder cannot be written.
        """
        commit = of(place)
        if self._file is None or commit is None or named(source) or _key(source) in self._known:
            return
        self._known = self._read() | {_key(source): commit}  # another run may have added to it
        files.write_bytes(self._file, (json.dumps(self._known, indent=1, sort_keys=True) + "\n").encode())

    def said(self, source: Source) -> str:
        """A line for a name that is not pinned; empty where there is nothing to say."""
        if named(source) or self._file is None:
            return ""
        first = self.first(source)
        if first is None:
            return f"{_key(source)} is not pinned: the commit that it stands for now is kept in {self._file} for later runs"
        stands = now(source)
        if stands in {None, first}:
            return ""
        return (
            f"{_key(source)} stands for commit {stands} now; this run takes {first}, which was used here first; "
            f"to take the other, name {source.id}@{stands} or change {self._file}"
        )

    def _read(self) -> dict[str, str]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            read = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{self._file}: cannot be read ({error}); mend or delete it") from error
        if not isinstance(read, dict) or not all(
            isinstance(v, str) and _HASH.fullmatch(v) for v in read.values()
        ):
            raise ModelError(f"{self._file}: expected commits by name; mend or delete it")
        return read


def named(source: Source) -> bool:
    """Whether a source names a commit."""
    return _HASH.fullmatch(source.revision) is not None


def of(place: Path) -> str | None:
    """The commit that a folder or a file of the hub's cache belongs to; None for others."""
    for folder in (place, *place.parents):
        if folder.parent.name == "snapshots" and _HASH.fullmatch(folder.name):
            return folder.name
    return None


def now(source: Source) -> str | None:
    """The commit that a name stands for, as the hub says, or as its cache last heard; None where neither knows."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    with suppress(Exception):  # whatever keeps the hub from answering
        return HfApi().model_info(source.id, revision=source.revision, timeout=_PATIENCE_S).sha
    kept = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.id, repo_type="model")
    ref = kept / "refs" / source.revision
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def _key(source: Source) -> str:
    return f"{source.id}@{source.revision}"
