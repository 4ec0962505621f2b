"""An outage of the source: noticed by whoever asked, remembered for a moment, found to be over by one who tries.

While it lasts nobody waits: what is known is told at once, what is not is refused at once. Every few seconds one
question is let through. Whatever answers it, even with a refusal, ends the outage.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from headrace.errors import BrokenStream, Busy, ProxyRefused, SourceError, Stalled, Unreachable, Untrusted

_log = logging.getLogger("headrace.node")

_SILENT = (Unreachable, Stalled, BrokenStream, Untrusted, ProxyRefused)


class Outage:
    """Whether a source may be asked. Safe to share between threads.

    Args:
        name: what to call the source.
        pause_s: for how long at most it is not asked again.

    Attributes:
        failures: how many there were; who asks after one does not wait for what was asked before it.
    """

    def __init__(self, name: str, pause_s: float) -> None:
        self._name = name
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._refuse: Callable[[], SourceError] | None = None
        self.failures = 0
        self._failed_at = 0.0
        self._heard_at = 0.0
        self._until = 0.0

    def __repr__(self) -> str:
        return f"<Outage of {self._name}{'' if self._refuse is None else ', which is away'}>"

    @property
    def lasts(self) -> bool:
        """Whether the last thing heard of the source is that it cannot be asked."""
        return self._refuse is not None

    def look(self) -> None:
        """Raise `SourceError` where there was no answer a moment ago; one who comes later may try."""
        now = time.monotonic()
        with self._lock:
            if self._refuse is not None and now < self._until:
                raise self._refusal(self._refuse, now)

    def enter(self) -> float:
        """Before a question: the moment of asking, to be shown to `check`. Raises as `look`."""
        self.look()
        now = time.monotonic()
        with self._lock:
            if self._refuse is not None:
                self._until = now + self._pause_s  # this one finds out, for all others
        return now

    def check(self, asked_at: float) -> None:
        """Raise as `enter` where the source has failed since: a question that had to queue is not asked any more."""
        with self._lock:
            if self._refuse is not None and self._failed_at > asked_at:
                raise self._refusal(self._refuse, time.monotonic())

    def answered(self) -> None:
        """The source has said something."""
        with self._lock:
            is_back = self._refuse is not None
            self._heard_at, self._refuse = time.monotonic(), None
        if is_back:
            _log.warning("%s answers again", self._name)

    def failed(self, error: SourceError) -> None:
        """A question came to nothing. One that was only complained about is an outage if the source asked for a pause."""
        pause_s = self._pause_s
        if isinstance(error, Busy):
            pause_s = min(pause_s, error.retry_after_s or 0.0)
        elif not isinstance(error, _SILENT):
            return
        kind, message, wait_s = type(error), error.message, error.retry_after_s
        if pause_s:
            if not self.lasts:
                why = kind.code.replace("_", " ")
                _log.warning(
                    "%s cannot be asked (%s): what is known of it is served as stale", self._name, why
                )
            self._begin(lambda: kind(message, retry_after_s=wait_s), pause_s)

    def late(self, asked_at: float, error: SourceError) -> None:
        """Who asked has stopped waiting. If nobody else was answered since, the source is taken for silent."""
        if self._heard_at < asked_at:
            self.failed(error)

    def _begin(self, refuse: Callable[[], SourceError], pause_s: float) -> None:
        with self._lock:
            self._failed_at = time.monotonic()
            self._until = self._failed_at + pause_s
            self._refuse = refuse
            self.failures += 1

    def _refusal(self, refuse: Callable[[], SourceError], now: float) -> SourceError:
        """A new error each time: one that is raised again and again would collect all those tracebacks."""
        error = refuse()
        if error.retry_after_s is None:
            error.retry_after_s = max(0.0, self._until - now)
        return error
