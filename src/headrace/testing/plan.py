"""How one answer will leave: what faults bend, and what `delivery` keeps to."""

from __future__ import annotations

import enum
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.testing.answer import Answer, Request, Slice
from headrace.testing.bucket import TokenBucket
from headrace.testing.line import Line

Pace = Callable[[Line], TokenBucket]
"""Finds the bucket that a body on this line has to be paid from."""


class Ending(enum.Enum):
    """How an answer ends that is cut short."""

    RESET = "reset"
    TRUNCATE = "truncate"
    STALL = "stall"


class Framing(enum.Enum):
    """How a client learns where the body ends."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class Crowd:
    """How many connections each client address has open at each host."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def here(self, host: str, client: str) -> int:
        """The connections open now."""
        return self._open[host, client]

    def enter(self, host: str, client: str) -> None:
        """Count one more."""
        with self._lock:
            self._open[host, client] += 1

    def leave(self, host: str, client: str) -> None:
        """Count one less."""
        with self._lock:
            self._open[host, client] -= 1


@dataclass
class Plan:
    """How one answer will leave. Without a fault: whole, at once, as fast as the line."""

    answer: Answer
    request: Request
    host: str
    crowd: Crowd
    spent: set[str]  # signed addresses that are refused from now on
    delay_s: float = 0.0
    rate: float | None = None  # bytes a second
    paces: list[Pace] = field(default_factory=list)
    head_drip_s: float | None = None  # between two bytes of a head that never ends
    hangup: str | None = None  # "before" the answer, or after its "head"
    framing: Framing = Framing.LENGTH
    length_off: int = 0  # bytes that Content-Length is wrong by
    date_off_s: float = 0.0
    copies: int = 1
    cut: tuple[int, Ending] | None = None  # after so many body bytes
    flips: set[int] = field(default_factory=set)  # offsets in the file
    faults: list[str] = field(default_factory=list)  # kinds that hit

    @property
    def sends_body(self) -> bool:
        """Whether the request wants one."""
        return self.request.method != "HEAD"

    @property
    def span(self) -> range:
        """The file offsets that will leave; empty for answers that carry no file content."""
        body = self.answer.body
        if not self.sends_body or not isinstance(body, Slice):
            return range(0)
        stop = body.stop if self.cut is None else min(body.stop, body.start + self.cut[0])
        return range(body.start, stop)

    @property
    def is_last(self) -> bool:
        """Whether the connection cannot be used after this answer, since nobody could tell where it ends."""
        return self.framing is Framing.CLOSE or self.length_off != 0

    def buckets(self, line: Line) -> list[TokenBucket]:
        """All that the next bytes have to be paid from."""
        own = [] if self.rate is None else [line.bucket("rate", self.rate)]
        return own + [pace(line) for pace in self.paces]
