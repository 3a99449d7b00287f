"""How long work shows itself: a protocol that every stage may call, and a silent one for libraries and tests."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One running count."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count n more as done; `note` stands beside the count until the next one."""
        ...


class Progress(Protocol):
    """Where counts are shown."""

    def bar(self, what: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        """Show one count while the context is open. `unit` is plural: images, objects, steps."""
        ...

    def say(self, line: str) -> None:
        """One line that stays."""
        ...


class _Silent:
    def advance(self, n: int = 1, note: str = "") -> None:
        del n, note

    @contextmanager
    def bar(self, what: str, total: int, unit: str) -> Iterator[Bar]:
        del what, total, unit
        yield self

    def say(self, line: str) -> None:
        del line


SILENT: Progress = _Silent()
"""Shows nothing."""
