"""A detector's class names and the dataset's category names: exact matches, or a line that says what to map."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarefill.errors import MissingError, ModelError, shown

_SHOWN = 12


def rows(
    theirs: Sequence[str],
    ours: Sequence[str],
    *,
    needed: Sequence[str],
    mapped: Mapping[str, str],
    where: str,
) -> NDArray[np.int64]:
    """The category row of each of a detector's classes, int64 (len(theirs),); -1 for those that are none of ours.

    Names match where they are the same, letter for letter, or where `mapped` says so.

    Args:
        theirs: the detector's class names.
        ours: the dataset's categories.
        needed: those of ours that the detector has to know.
        mapped: our name of a class of theirs.
        where: names the detector in errors.

    Raises:
        ModelError: a needed category has no class, or `mapped` names what does not exist.
    """
    check(mapped, ours, where)
    for name in mapped:
        if name not in theirs:
            raise ModelError(
                f"--map {name}={mapped[name]}: {where} has no class {name!r}; {_offer(name, theirs)}"
            )
    row = {name: n for n, name in enumerate(ours)}
    found = np.array([row.get(mapped.get(name, name), -1) for name in theirs], dtype=np.int64)
    lacking = [name for name in needed if row[name] not in found]
    if lacking:
        raise ModelError("\n".join(_unmatched(name, theirs, where) for name in lacking))
    return found


def check(mapped: Mapping[str, str], ours: Sequence[str], where: str) -> None:
    """Whether every name that is mapped to is one of ours.

    Raises:
        ModelError: one is not.
    """
    for name, own in mapped.items():
        if own not in ours:
            raise ModelError(
                f"--map {name}={own}: the dataset has no category {own!r} for {where}; {_offer(own, ours)}"
            )


def _unmatched(name: str, theirs: Sequence[str], where: str) -> str:
    near = nearest(name, theirs)
    if near is not None:
        return f"{where} has no class {name!r}, but {near!r}; if that is the same, say --map {shown_pair(near, name)}"
    return f"{where} has no class {name!r}; say which one it is with --map {shown_pair('CLASS', name)}. {_known(theirs)}"


def shown_pair(theirs: str, ours: str) -> str:
    """A `--map` argument as a shell takes it."""
    pair = f"{theirs}={ours}"
    return f"'{pair}'" if set(pair) & set(" '\"()&|;<>*?$") else pair


def nearest(name: str, others: Sequence[str]) -> str | None:
    """The name that differs in case, spaces or a few letters alone, or None."""
    plain = {_plain(other): other for other in reversed(others)}
    if _plain(name) in plain:
        return plain[_plain(name)]
    close = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()) or name


def _offer(name: str, others: Sequence[str]) -> str:
    near = nearest(name, others)
    return f"did you mean {near!r}?" if near is not None else _known(others)


def _known(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"It knows {', '.join(map(repr, names[:_SHOWN]))}{more}"


def read(path: Path) -> list[str]:
    """Class names of a file: a line each, a JSON list or number-to-name mapping, or `names` of a YOLO data.yaml.

    Raises:
        ModelError: no such file, or no names in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            return in_order(json.loads(text), str(path))
        if path.suffix.lower() in {".yaml", ".yml"}:
            import yaml

            value = yaml.safe_load(text)
            return in_order(value.get("names") if isinstance(value, dict) else value, str(path))
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{path}: not a file of class names: {' '.join(str(error).split())[:200]}"
        ) from error
    return in_order(text.rstrip("\n").splitlines(), str(path))


def in_order(value: object, where: str) -> list[str]:
    """Names from a list, or from a mapping whose keys are the numbers of the classes.

    Raises:
        ModelError: it is neither.
    """
    if isinstance(value, dict):
        try:
            numbered = {int(key): str(name).strip() for key, name in value.items()}
        except (TypeError, ValueError):
            numbered = {}
        # Classes without a name have numbers all the same: COCO's 91 name 80.
        value = [numbered.get(n, f"class {n}") for n in range(max(numbered, default=-1) + 1)]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise ModelError(f"{where}: class names are expected, one for each class, got {shown(value)}")
    return [name.strip() for name in value]
