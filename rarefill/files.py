"""Files written aside and renamed into place, so that no reader ever sees half of one."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rarefill.errors import RunError, UsageError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to; at the context's end it takes the path's place, unless an error ends it.

    Raises:
        RunError: the folder is not writable or the disk is full.
    """
    # A name of its own: other processes may be writing the same file of a shared cache.
    aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        aside.replace(path)
    except OSError as e:
        raise RunError(
            f"{path}: cannot be written: {e.strerror or e}; free space or choose another place, then run again"
        ) from e
    finally:
        with contextlib.suppress(OSError):  # the parent may be no folder
            aside.unlink(missing_ok=True)


def page_at(path: Path) -> Path:
    """Where a page that is to be at a path is written: browsers show as a page what ends in .html.

    Raises:
        UsageError: a folder stands there.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give --out the page's own name, such as {path / 'page.html'}")
    return path if path.suffix.lower() in {".html", ".htm"} else path.with_name(path.name + ".html")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file.

    Raises:
        RunError: as for `writing`.
    """
    with writing(path) as f:
        f.write(data)
