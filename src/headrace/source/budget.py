"""What hosts say may still be asked of them.

Hubs count requests by the address they come from and tell how many are left: `RateLimit: "api";r=489;t=189`
(draft-ietf-httpapi-ratelimit-headers), each kind of request apart. Once nothing is left, asking on only earns
429s: the question is not sent, and fails as their answer would.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from headrace.errors import Busy
from headrace.wire import rate_limit, retry_after_s

_SAME_WINDOW_S = 2.0  # ends that lie closer together are the same one; they are told in whole seconds
_RESERVE = 0.01  # of what a window allows: other processes behind the same address ask as well


@dataclass
class _Window:
    left: int
    until: float
    reserve: int


class Budget:
    """Counts along for each `key`, a kind of request to an origin. Safe to share between threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._windows: dict[Hashable, _Window] = {}
        self._asked: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def request(self, key: Hashable) -> Iterator[None]:
        """For the time of a request; what is said in its answer goes to `learn`.

        Raises:
            Busy: it may not be made now.
        """
        with self._lock:
            window, now = self._windows.get(key), time.monotonic()
            # Those on their way are not in what the host has counted yet.
            if window is not None and now < window.until and window.left - self._asked[key] <= window.reserve:
                wait_s = window.until - now
                told = f"{self._name} allows no more requests for {wait_s:.0f} s"
                raise Busy(told, retry_after_s=wait_s)
            self._asked[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._asked[key] -= 1

    def learn(self, key: Hashable, status: int, headers: Mapping[str, str]) -> None:
        """Take in what an answer says of the budget, if it says anything."""
        told = rate_limit(headers)
        if status == HTTPStatus.TOO_MANY_REQUESTS and (wait_s := retry_after_s(headers)) is not None:
            left, limit = 0, None
        elif told is not None:
            left, wait_s, limit = told.left, told.reset_s, told.limit
        else:
            return
        until = time.monotonic() + wait_s
        with self._lock:
            window = self._windows.get(key)
            if window is not None and until <= window.until + _SAME_WINDOW_S:
                left = min(left, window.left)  # answers may overtake each other
            self._windows[key] = _Window(left, until, int((limit or 0) * _RESERVE))
