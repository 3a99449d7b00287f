"""JSON taken apart one level deep, each value left as it is printed.

msgspec does it fast. Python's own reader takes more (NaN, Infinity, half characters, UTF-16), and so did the reader
of the dataset; what msgspec refuses is taken apart with it.
"""

import json
import re
from typing import Any

import msgspec
from msgspec import Raw

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_SCAN = json.JSONDecoder()
_SPACE = re.compile(r"[\s,:]*")  # between values: the text is known to be JSON


def members(data: bytes | Raw) -> dict[str, Raw]:
    """An object's values by their keys, in order.

    Raises:
        ValueError: it is not JSON, or no object.
    """
    try:
        return _OBJECT.decode(data)
    except msgspec.MsgspecError:
        parts = _parts(data, "{}")
        return {json.loads(key): Raw(value) for key, value in zip(parts[::2], parts[1::2], strict=True)}


def elements(data: bytes | Raw) -> list[Raw]:
    """A list's values.

    Raises:
        ValueError: it is not JSON, or no list.
    """
    try:
        return _LIST.decode(data)
    except msgspec.MsgspecError:
        return [Raw(value) for value in _parts(data, "[]")]


def value(data: bytes | Raw) -> Any:
    """A value itself."""
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return json.loads(bytes(data))


def _parts(data: bytes | Raw, brackets: str) -> list[bytes]:
    raw = bytes(data)
    text = raw.decode(json.detect_encoding(raw)).strip()
    _, end = _SCAN.raw_decode(text)
    if end != len(text) or (text[0], text[-1]) != tuple(brackets):
        raise ValueError(f"expected {brackets}, got {text[:20]!r}")
    found, at = [], _after(text, 1)
    while at < end - 1:
        _, stop = _SCAN.raw_decode(text, at)
        found.append(text[at:stop].encode())
        at = _after(text, stop)
    return found


def _after(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
