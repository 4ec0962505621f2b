"""How fast a connection, or several together, may send: a token bucket that can owe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LARGEST_BURST = 64 * 1024  # bytes
_BURST_SECONDS = 0.05
_SMALLEST_BURST = 2  # bytes


class TokenBucket:
    """Bytes that have been earned and not yet sent. Safe to share between connections.

    It starts empty: opening many connections earns nothing. What an idle connection earns is capped
    at `burst`, so a new request on an old connection gets no head start worth measuring. It may go
    into debt, and the caller sleeps the debt off; that keeps the long-run rate exact whatever the
    size of a single send.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate` in bytes a second (> 0); `clock` returns seconds and never goes back."""
        self._clock = clock
        self._rate = _positive(rate)
        self._earned = 0.0
        self._seen_s = clock()
        self._lock = threading.Lock()

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        # What was earned so far was earned at the old rate.
        with self._lock:
            self._accrue()
            self._rate = _positive(rate)

    @property
    def burst(self) -> float:
        """Bytes that may leave at once after a pause: 50 ms worth, at most 64 KiB."""
        return min(LARGEST_BURST, max(_SMALLEST_BURST, self._rate * _BURST_SECONDS))

    @property
    def chunk(self) -> int:
        """The size of one send, in bytes: half a burst, so that a late wake-up loses nothing."""
        return max(1, int(self.burst / 2))

    def spend(self, count: int) -> float:
        """Take `count` bytes and return the seconds to wait before they may leave."""
        with self._lock:
            self._accrue()
            self._earned -= count
            return max(0.0, -self._earned / self._rate)

    def _accrue(self) -> None:
        now = self._clock()
        self._earned = min(self.burst, self._earned + (now - self._seen_s) * self._rate)
        self._seen_s = now


def _positive(rate: float) -> float:
    if rate <= 0:
        raise ValueError(f"a rate must be positive, not {rate}")
    return float(rate)
