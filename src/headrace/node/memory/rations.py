"""What may still be asked of a source, counted by all processes of a node together.

Hubs count calls by the address they come from, each kind apart (`RateLimit: "api";r=489;t=189`), and so do we:
every call is counted before it is made, and what is left is kept in a small file that the serving process and its
worker share. Half of what a window allows may go at once. The rest is spread over the time that is left, so that
after a rush there is no time in which nothing can be asked. An operator's own bound is a window of five minutes
for all calls to the source together.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

from headrace.errors import Busy
from headrace.store.disk import storing
from headrace.wire import origin_of, rate_limit, retry_after_s

_BELIEVED_S = 300.0  # hubs count in windows of five minutes; no word of theirs silences us for longer
_OWN_WINDOW_S = 300.0
_SAME_WINDOW_S = 2.0  # ends that lie closer together are the same one; they are told in whole seconds
_RESERVE = 0.02  # of what a window allows: others behind the same address ask as well
_AT_ONCE = 0.5  # of what a window allows
_KEPT_FOR_KNOWN = 0.25  # of what a window allows
_WAIT_MOST_S = 1.5
_WAITERS_MOST = 4
_LOOK_S = 0.05
_BYTES_MOST = 65536
_ALL = "all"  # what the operator's own bound counts


class Spent(Busy):
    """Asking now would be more than the source allows; it was not asked."""

    code = "spent"


@dataclass
class _Window:
    """`limit` calls in `window_s` seconds; 0 where that is not known. `until` is on the clock that never jumps."""

    left: int
    until: float
    limit: int = 0
    window_s: float = 0.0

    def renewed(self, now: float) -> _Window | None:
        """What follows when it is over; None where that is not known."""
        if not self.limit or not self.window_s:
            return None
        return _Window(self.limit, now + self.window_s, self.limit, self.window_s)

    def wait_s(self, now: float, kept: float) -> float:
        """How long the next call has to wait that leaves this share of the limit to others."""
        rest_s, spare = self.until - now, self.left - int(self.limit * kept)
        if spare <= 0:
            return rest_s
        if not self.limit or not self.window_s:
            return 0.0
        # Calls kept back fall evenly to none at the end of the window.
        return max(0.0, rest_s - spare * self.window_s / (self.limit * _AT_ONCE))


class Rations:
    """Counts along; see `source.budget.Allowance`. Safe to share between threads, and by `folder` between processes.

    Args:
        name: what to call the source.
        url: its endpoint.
        folder: where the counts are kept; one file for each source.
        calls_most: how many calls of any kind are made in five minutes; 0 leaves that to what the source says.

    Raises:
        StoreError: there is no such folder, or it cannot be written.
    """

    def __init__(self, name: str, url: str, folder: Path, calls_most: int = 0) -> None:
        self._name = name
        self._home = f"({origin_of(url)}"
        self._calls_most = calls_most
        path = folder / f"rations-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
        with storing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._heard: set[str] = set()
        self._waiting = 0
        self._manner = threading.local()

    def __repr__(self) -> str:
        return f"<Rations of {self._name}>"

    @contextmanager
    def modestly(self) -> Iterator[None]:
        """What this thread asks meanwhile is about what nobody knows here: anybody can think of any number of names.

        A part of what is allowed is left to questions about what is known, which say who may still read it.
        """
        self._manner.modest = True
        try:
            yield
        finally:
            self._manner.modest = False

    @contextmanager
    def request(self, key: Hashable, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """For the time of a request; what is said in its answer goes to `learn`.

        It waits for a moment where that is enough, and calls `check` meanwhile, which may raise to end that.

        Raises:
            Spent: it may not be made now.
        """
        kind = str(key)
        self._await_first(kind, check)
        wait_s = self._take(kind)
        if wait_s:
            self._wait(kind, wait_s, check)
        try:
            yield
        finally:
            with self._lock:
                self._asked[kind] -= 1

    def learn(self, key: Hashable, status: int, headers: Mapping[str, str]) -> None:
        """Take in what an answer says of the budget, if it says anything."""
        kind, now = str(key), time.monotonic()
        told, pause_s = rate_limit(headers), retry_after_s(headers)
        self._heard.add(kind)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            window = _Window(0, now + min(pause_s or 0.0, _BELIEVED_S))
        elif told is not None:
            limit, window_s = told.limit or 0, min(told.window_s or 0.0, _BELIEVED_S)
            window = _Window(told.left, now + min(told.reset_s, _BELIEVED_S), limit, window_s)
        else:
            return
        with self._shared(now) as windows:
            known = windows.get(kind)
            if known is not None:
                window.limit, window.window_s = window.limit or known.limit, window.window_s or known.window_s
            if known is not None and window.until <= known.until + _SAME_WINDOW_S:
                # Ours counts those on their way, too; theirs counts others behind the same address.
                window.left, window.until = min(window.left, known.left), max(window.until, known.until)
            else:
                window.left -= max(0, self._asked[kind] - 1)  # those on their way are not counted there yet
            windows[kind] = window

    @property
    def _kept(self) -> float:
        return _KEPT_FOR_KNOWN if getattr(self._manner, "modest", False) else _RESERVE

    def _wait(self, kind: str, wait_s: float, check: Callable[[], None]) -> None:
        deadline = time.monotonic() + _WAIT_MOST_S
        with self._lock:
            self._waiting += 1
        try:
            while wait_s:
                check()
                if time.monotonic() + wait_s > deadline or self._waiting > _WAITERS_MOST:
                    told = f"{self._name} allows no more requests for {wait_s:.0f} s, by its rate limit"
                    raise Spent(told, retry_after_s=wait_s)
                time.sleep(min(wait_s, _LOOK_S))
                wait_s = self._take(kind)
        finally:
            with self._lock:
                self._waiting -= 1

    def _await_first(self, kind: str, check: Callable[[], None]) -> None:
        """Where nothing is known of what the source allows, let one find out."""
        deadline = time.monotonic() + _WAIT_MOST_S
        while kind.startswith(self._home) and kind not in self._heard and time.monotonic() < deadline:
            with self._lock:
                if not self._asked[kind]:
                    return
            check()
            time.sleep(_LOOK_S / 5)

    def _take(self, kind: str) -> float:
        """Count a request; where it may not be made now, nothing is counted, and the answer is how long to wait."""
        now = time.monotonic()
        with self._shared(now) as windows:
            counted = [windows[kind]] if kind in windows else []
            if self._calls_most and kind.startswith(self._home):
                fresh = _Window(self._calls_most, now + _OWN_WINDOW_S, self._calls_most, _OWN_WINDOW_S)
                counted.append(windows.setdefault(_ALL, fresh))
            wait_s = max((window.wait_s(now, self._kept) for window in counted), default=0.0)
            if wait_s <= 0:
                for window in counted:
                    window.left -= 1
                self._asked[kind] += 1
        return max(0.0, wait_s)

    @contextmanager
    def _shared(self, now: float) -> Iterator[dict[str, _Window]]:
        """The windows as they are now, alone with them; what is changed is written down."""
        with self._lock:
            with suppress(OSError):  # where files cannot be locked, two processes may count one call less
                fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                text = os.pread(self._file, _BYTES_MOST, 0)
                windows = _read(text, now)
                yield windows
                changed = json.dumps({kind: asdict(window) for kind, window in windows.items()}).encode()
                if changed != text:
                    os.pwrite(self._file, changed, 0)
                    os.ftruncate(self._file, len(changed))
            finally:
                with suppress(OSError):
                    fcntl.flock(self._file, fcntl.LOCK_UN)


def _read(text: bytes, now: float) -> dict[str, _Window]:
    """The windows that still stand; none where a process was killed while it wrote, or the machine was started anew."""
    try:
        found = {kind: _Window(**window) for kind, window in json.loads(text or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    standing = {}
    for kind, window in found.items():
        current = window if now < window.until <= now + _BELIEVED_S + 1 else window.renewed(now)
        if current is not None:
            standing[kind] = current
    return standing
