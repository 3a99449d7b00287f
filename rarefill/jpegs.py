"""Whether a JPEG file is damaged inside. Decoders fill what they cannot read with grey, and say so on stderr alone.

What libjpeg says can be had only by standing in for the process's stderr for a moment. So that is done for files alone
that look damaged: a quick look at the bytes comes first. It sees blocks of zeros and most blocks of noise, but not a
single wrong bit, nor a piece of another JPEG file.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_STRIDE: Final = 16
_RUN: Final = 2 * _STRIDE + 1
"""Equal bytes in a row that look like a lost block. Flat areas may have them too, so this is no proof."""
_WARNINGS: Final = (b"Corrupt JPEG data", b"Premature end of JPEG", b"Inconsistent progression")
_lock = threading.Lock()


def _allowed() -> NDArray[np.bool_]:
    """bool (256,): what may follow 0xFF from the first scan on: a zero, restarts, fill, tables and further scans."""
    out = np.zeros(256, dtype=bool)
    out[[0x00, 0xFF, 0xC4, _SCAN, 0xDB, 0xDC, 0xDD, _END, 0xFE]] = True
    out[0xD0:0xD8] = True
    out[0xE0:0xF0] = True
    return out


_ALLOWED = _allowed()


def looks_damaged(data: NDArray[np.uint8]) -> bool:
    """Whether a file's bytes, uint8 (N,), are a JPEG's with what encoders seldom write between its scan and its end."""
    start = _scan(data)
    if start is None:
        return False
    body = data[start:]
    marks = np.flatnonzero(body[:-1] == 0xFF)
    following = body[marks + 1]
    ends = np.flatnonzero(following == _END)
    if ends.size:  # what cameras append is none of the picture
        body, following = body[: marks[ends[0]]], following[: ends[0]]
    return not _ALLOWED[following].all() or _has_run(body)


def _scan(data: NDArray[np.uint8]) -> int | None:
    """Where a JPEG's first scan begins; None where there is none. Source: ITU-T T.81, annex B."""
    if data[:2].tolist() != [0xFF, _START]:
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        length = int(data[at + 2]) * 256 + int(data[at + 3])
        if data[at + 1] == _SCAN:
            return at + 2 + length
        at += 1 if data[at + 1] == 0xFF else 2 + length
    return None


def _has_run(body: NDArray[np.uint8]) -> bool:
    """Whether `_RUN` bytes in a row and more are equal. Three samples of each such run are, so few places are looked at."""
    seen = body[::_STRIDE]
    alike = np.flatnonzero((seen[2:] == seen[1:-1]) & (seen[1:-1] == seen[:-2])) * _STRIDE
    return any(bool((body[at : at + _RUN] == body[at]).all()) for at in alike.tolist())


def damage(complaint: str) -> str:
    """What is wrong with a damaged file, in words, after its name."""
    return f"is damaged inside ({complaint}), so a part of its picture is lost; restore the file"


def heard(decode: Callable[[], T]) -> tuple[T, str]:
    """What a call gives, and libjpeg's first complaint meanwhile; what others wrote to stderr is passed on."""
    with _lock, contextlib.ExitStack() as stack:
        try:
            own = os.dup(2)
        except OSError:  # no stderr to listen at
            return decode(), ""
        stack.callback(os.close, own)
        said = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(said.fileno(), 2)
        try:
            found = decode()
        finally:
            os.dup2(own, 2)
        said.seek(0)
        lines = said.read().splitlines(keepends=True)
        complaints = [line for line in lines if line.startswith(_WARNINGS)]
        for line in lines:
            if line not in complaints:
                os.write(2, line)
    return found, complaints[0].decode(errors="replace").strip() if complaints else ""
