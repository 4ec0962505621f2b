"""A load on one line of a terminal, written anew as it goes on, and wiped away in the end."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headrace.cli.board import Meter
from headrace.cli.talk import is_terminal, say
from headrace.cli.words import part, rate, safe
from headrace.events import Event, LoadProgress


@contextmanager
def shown_loading(what: str) -> Iterator[Callable[[Event], None]]:
    """Show a load while this holds, by the events that are handed over."""
    line = LoadLine(what, time.monotonic())
    try:
        yield lambda event: line.take(event, time.monotonic())
    finally:
        line.close()


class LoadLine:
    """What is being loaded, and how far that is. Without a terminal it is named once, and that is all."""

    def __init__(self, what: str, now: float) -> None:
        self._what = safe(what)
        self._began = now
        self._meter = Meter()
        self._landed: int | None = None
        self._width = 0
        if is_terminal():
            self._write(self._what)
        else:
            say(self._what)

    def take(self, event: Event, now: float) -> None:
        """An event came."""
        if not isinstance(event, LoadProgress):
            return
        if self._landed is not None:  # what was here at the first look did not come in this moment
            self._meter.count(max(0, event.landed_bytes - self._landed), now)
        self._landed = event.landed_bytes
        if is_terminal():
            self._write(f"{self._what}: {self._told(event, now)}")

    def close(self) -> None:
        """Wipe it away."""
        if is_terminal():
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _told(self, event: LoadProgress, now: float) -> str:
        far = f"{event.done} of {event.tensors} tensors, {part(event.landed_bytes, event.bytes)}"
        fast = rate(self._meter.per_second(now, self._began))
        return f"{far}, {fast}, " + (
            f"waits for {safe(event.awaited)}" if event.awaited else "waits for nothing"
        )

    def _write(self, line: str) -> None:
        """Over what was there before; without escapes, which not every terminal knows."""
        line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)
