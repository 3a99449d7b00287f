"""Large files written piece by piece, aside, and renamed when they are whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from rarefill.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to; at the context's end it takes the path's place, unless an error ends it.

    Raises:
        RunError: the folder is not writable or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except OSError as e:
        raise RunError(
            f"{path}: cannot be written: {e.strerror or e}; free space or choose another --out, then run again"
        ) from e
    finally:
        with suppress(OSError):  # the parent may be no folder
            part.unlink(missing_ok=True)


class Pile:
    """The elements of a JSON list, kept on disk until the file that holds it is put together."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self.n = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, element: bytes) -> None:
        """Append one encoded element."""
        self._file.write(b",\n" if self.n else b"\n")
        self._file.write(element)
        self.n += 1

    def pour(self, out: IO[bytes]) -> None:
        """Write the elements, separated by commas, one a line."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, out, 1 << 20)
