"""What is told of a blob that another process is at: how far it is, and that it is stopped where that is so.

A process that is there is not dead, and who is stopped keeps what it holds: it may go on at any moment, and write. So it
is waited for, and whoever waits hears for whom and what can be done.
"""

from __future__ import annotations

import time

from headrace.events import BlobAwaited, Emit, Warned
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry
from headrace.store.lease import Holder
from headrace.store.partial import landed_bytes

STOPPED = "stopped"
"""The topic of the warning."""

_EVERY_S = 1.0
_STOPPED_S = 3.0  # who stops all that somebody runs wakes it soon, or stops this one as well


class Awaited:
    """One such blob. For one thread."""

    def __init__(self, entry: Entry, layout: WorkshopLayout, emit: Emit) -> None:
        self._entry = entry
        self._layout = layout
        self._emit = emit
        self._told_at = self._running_at = float("-inf")
        self._is_told = False

    def tell(self, holder: Holder | None) -> None:
        """It is still so; cheap to call often. `holder` is None where that cannot be read."""
        now = time.monotonic()
        gap_s = now - self._told_at
        if gap_s < _EVERY_S:
            return
        self._told_at = now
        entry = self._entry
        landed = landed_bytes(self._layout, entry.size)
        whom = str(holder or "another process")
        self._emit(BlobAwaited(entry.path, str(entry.digest), entry.size, landed, whom))
        if holder is None or not holder.is_stopped():
            self._running_at, self._is_told = now, False
        elif gap_s > _STOPPED_S:  # it is the first look, or we were stopped ourselves
            self._running_at = now
        elif now - self._running_at >= _STOPPED_S and not self._is_told:
            self._is_told = True
            told = f"{whom} is at work on {entry.path!r}, and is stopped: let it go on (kill -CONT {holder.pid}) or end it"
            self._emit(Warned(STOPPED, f"{told} (kill -KILL {holder.pid}); until then this one waits"))
