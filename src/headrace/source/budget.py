"""What hosts say may still be asked of them.

Hubs count requests by the address they come from and tell how many are left: `RateLimit: "api";r=489;t=189`
(draft-ietf-httpapi-ratelimit-headers), each kind of request apart. Once nothing is left, asking on only earns
429s: the question is not sent, and fails as their answer would. One header must not silence us for days: a window
is believed for some minutes, and then one request finds out whether it still stands.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from headrace.errors import Busy
from headrace.wire import rate_limit, retry_after_s

_SAME_WINDOW_S = 2.0  # ends that lie closer together are the same one; they are told in whole seconds
_RESERVE = 0.01  # of what a window allows: other processes behind the same address ask as well
_LOOK_S = 0.1  # how soon it is noticed that nobody waits any more
_AGAIN_S = 1.0


class Allowance(Protocol):
    """Says whether a request may be made; see `Budget`, which is for one process."""

    def request(
        self, key: Hashable, check: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[None]:
        """For the time of a request. Raises `Busy` where it may not be made now."""

    def learn(self, key: Hashable, status: int, headers: Mapping[str, str]) -> None:
        """Take in what its answer says."""


@dataclass
class _Window:
    left: int
    until: float
    reserve: int
    is_cut: bool  # it was told to last longer


class Budget:
    """Counts along for each `key`, a kind of request to an origin. Safe to share between threads.

    Args:
        name: what to call the host.
        believed_s: how long a `RateLimit` is believed at most.
        obeyed_s: how long a 429's `Retry-After` is obeyed at most.
        patience_s: how long a request waits for others to come back that may have spent what is left.
    """

    def __init__(
        self,
        name: str,
        *,
        believed_s: float = 300.0,
        obeyed_s: float = float("inf"),
        patience_s: float = 5.0,
    ) -> None:
        self._name = name
        self._believed_s = believed_s
        self._obeyed_s = obeyed_s
        self._patience_s = patience_s
        self._windows: dict[Hashable, _Window] = {}
        self._asked: Counter[Hashable] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def request(self, key: Hashable, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """For the time of a request; what is said in its answer goes to `learn`.

        While it waits for others to come back it calls `check`, which may raise to end that.

        Raises:
            Busy: it may not be made now.
        """
        with self._changed:
            deadline = time.monotonic() + self._patience_s
            while self._must_wait(key, time.monotonic()):
                check()
                if time.monotonic() >= deadline:
                    told = f"{self._name} allows few more requests, and others are on their way"
                    raise Busy(told, retry_after_s=_AGAIN_S)
                self._changed.wait(min(_LOOK_S, self._patience_s))
            self._asked[key] += 1
        try:
            yield
        finally:
            with self._changed:
                self._asked[key] -= 1
                self._changed.notify_all()

    def _must_wait(self, key: Hashable, now: float) -> bool:
        """Whether to wait for those on their way, which are not in what the host has counted yet."""
        window = self._windows.get(key)
        if window is None:
            return False
        if now >= window.until:
            return window.is_cut and self._asked[key] > 0  # one finds out, the others wait for what it hears
        if window.left <= 0:
            wait_s = window.until - now
            told = f"{self._name} allows no more requests for {wait_s:.0f} s, by its rate limit"
            raise Busy(told, retry_after_s=wait_s)
        return self._asked[key] > 0 and window.left - self._asked[key] <= window.reserve

    def learn(self, key: Hashable, status: int, headers: Mapping[str, str]) -> None:
        """Take in what an answer says of the budget, if it says anything."""
        told, most_s = rate_limit(headers), self._believed_s
        if status == HTTPStatus.TOO_MANY_REQUESTS and (wait_s := retry_after_s(headers)) is not None:
            left, limit = 0, None
            most_s = self._obeyed_s if headers.get("Retry-After") else most_s
        elif told is not None:
            left, wait_s, limit = told.left, told.reset_s, told.limit
        else:
            self._drop_if_over(key)
            return
        until = time.monotonic() + min(wait_s, most_s)
        with self._changed:
            window = self._windows.get(key)
            if window is not None and until <= window.until + _SAME_WINDOW_S and not self._is_over(window):
                left = min(left, window.left)  # answers may overtake each other
            reserve = int((limit or 0) * _RESERVE)
            self._windows[key] = _Window(left, until, reserve, wait_s > most_s)

    def _drop_if_over(self, key: Hashable) -> None:
        """Who was asked again after a window's time and says nothing of one has none any more."""
        with self._changed:
            window = self._windows.get(key)
            if window is not None and self._is_over(window):
                del self._windows[key]

    def _is_over(self, window: _Window) -> bool:
        return time.monotonic() >= window.until
