"""What people see on stderr: bars with rate and time left, or plain lines where stderr is not a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rarefill.progress import Bar, Progress

PLAIN_EVERY_S = 15.0


class _Plain:
    """Lines for logs: one at the start of a count, one every quarter of a minute, one at its end."""

    def __init__(self) -> None:
        self.what, self.total, self.unit = "", 0, ""
        self.done, self.note = 0, ""
        self.began = self.shown = 0.0

    @contextmanager
    def bar(self, what: str, total: int, unit: str) -> Iterator[Bar]:
        counter = _Plain()
        counter.what, counter.total, counter.unit = what, total, unit
        counter.began = counter.shown = time.monotonic()
        yield counter
        counter.show()

    def say(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done, self.note = self.done + n, note
        if time.monotonic() - self.shown > PLAIN_EVERY_S and self.done < self.total:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        seconds = max(self.shown - self.began, 1e-6)
        rate = self.done / seconds
        left = f", {clock((self.total - self.done) / rate)} left" if 0 < self.done < self.total else ""
        note = f"  {self.note}" if self.note else ""
        self.say(
            f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {clock(seconds)}{left}{note}"
        )


class _Rich:
    """Live bars for terminals."""

    @contextmanager
    def bar(self, what: str, total: int, unit: str) -> Iterator[Bar]:
        from rich import progress as parts
        from rich.console import Console

        columns = (
            parts.TextColumn("{task.description}", markup=False),
            parts.BarColumn(),
            parts.MofNCompleteColumn(),
            parts.TextColumn("{task.fields[unit]} {task.fields[rate]} {task.fields[note]}", markup=False),
            parts.TimeElapsedColumn(),
            parts.TextColumn("left"),
            parts.TimeRemainingColumn(),
        )
        with parts.Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(what, total=total, unit=unit, rate="", note="")
            began = time.monotonic()

            class Live:
                done = 0

                def advance(self, n: int = 1, note: str = "") -> None:
                    self.done += n
                    rate = self.done / max(time.monotonic() - began, 1e-6)
                    bars.update(task, advance=n, rate=f"{rate:.1f}/s", note=note)

            yield Live()

    def say(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def on_stderr() -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return _Rich() if sys.stderr.isatty() else _Plain()
