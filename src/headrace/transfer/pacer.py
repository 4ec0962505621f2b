"""A rate that all lanes keep to together: a token bucket, and sources that ask it before they receive.

Bytes are paid for before they are received, each lane in its turn, and those that did not come are given back: in
the long run the rate is exact, and lanes that share it get equal parts. A lane that waits here reads nothing, so
the time does not count as its source's silence; parts are so small that every lane is heard of often.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from headrace.manifest import Manifest
from headrace.names import Repo
from headrace.source.contract import Request, Source, Stream
from headrace.source.http import HttpSession

BURST_S = 0.1
"""What may come at once after a pause, as seconds at the rate."""
PART_S = 0.05
"""What a lane pays for at a time, as seconds at the rate: 32 lanes take turns in less than two seconds."""

_LOOK_S = 0.05  # how soon a lane that waits notices that it was cancelled


class Bucket:
    """Bytes that may be received: `rate` of them are earned a second. May owe; not thread-safe.

    `clock` gives seconds and never goes back.
    """

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self.rate = rate
        self._clock = clock
        self._earned = 0.0  # nothing at first: many short pulls must not come to more than the rate
        self._seen_at = clock()

    def spend(self, count: int) -> float:
        """Pay for `count` bytes; seconds until they may be received."""
        now = self._clock()
        self._earned = min(BURST_S * self.rate, self._earned + (now - self._seen_at) * self.rate) - count
        self._seen_at = now
        return max(0.0, -self._earned / self.rate)

    def give_back(self, count: int) -> None:
        """Bytes that were paid for did not come."""
        self._earned += count


class Pacer:
    """Shares `rate` bytes a second out among all lanes that ask."""

    def __init__(self, rate: int) -> None:
        self._bucket = Bucket(rate, time.monotonic)
        self._lock = threading.Lock()
        self._part = math.ceil(rate * PART_S)

    def take(self, most: int, check: Callable[[], None]) -> int:
        """Wait for the turn of at most `most` bytes; how many may be received now is the answer.

        `check` is called while it waits, and may raise to end that.
        """
        count = min(most, self._part)
        with self._lock:
            due = time.monotonic() + self._bucket.spend(count)
        try:
            while (left_s := due - time.monotonic()) > 0:
                check()
                time.sleep(min(left_s, _LOOK_S))
            check()
        except BaseException:
            self.give_back(count)
            raise
        return count

    def give_back(self, count: int) -> None:
        """Bytes that were taken did not come."""
        with self._lock:
            self._bucket.give_back(count)


class PacedSource:
    """A source whose bytes come no faster than the pacer says; see `Source`."""

    def __init__(self, source: Source, pacer: Pacer) -> None:
        self.name = source.name
        self._source = source
        self._pacer = pacer

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`: lists of files are not counted."""
        return self._source.manifest(repo, revision)

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Stream:
        """See `Source.open`."""
        return _PacedStream(self._source.open(request, session, located), self._pacer, session.check)


class _PacedStream:
    """See `Stream`."""

    def __init__(self, stream: Stream, pacer: Pacer, check: Callable[[], None]) -> None:
        self.host = stream.host
        self.address = stream.address
        self.siblings = stream.siblings
        self._stream = stream
        self._pacer = pacer
        self._check = check

    def readinto(self, buffer: memoryview) -> int:
        paid = self._pacer.take(len(buffer), self._check)
        count = 0
        try:
            count = self._stream.readinto(buffer[:paid])
        finally:
            self._pacer.give_back(paid - count)
        return count

    @property
    def can_splice(self) -> bool:
        return self._stream.can_splice

    def splice(self, pipe: int, most: int) -> int | None:
        if not self._stream.can_splice:  # what cannot come is not paid for
            return None
        paid = self._pacer.take(most, self._check)
        count = None
        try:
            count = self._stream.splice(pipe, paid)
        finally:
            self._pacer.give_back(paid - (count or 0))
        return count

    def close(self) -> None:
        self._stream.close()
