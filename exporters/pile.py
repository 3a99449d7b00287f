"""A JSON list that is too long for memory."""

import shutil
import tempfile
from pathlib import Path
from typing import IO, Self


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
