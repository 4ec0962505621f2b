"""What can go wrong on the way to a client, as data, and how each kind bends an answer.

A fault never touches a socket. It edits the plan by which `delivery` sends one answer, so a new kind
is one function that says whether it hits and one that edits the plan, and a line in `_KINDS`.
"""

from __future__ import annotations

import dataclasses
import enum
import fnmatch
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from headrace.testing.answer import Answer, Slice, refusal


@dataclass(frozen=True)
class Fault:
    """One way to misbehave.

    kind:
        `rate`      `rate` bytes a second on each connection, without a burst for new ones
        `latency`   `delay_s` before the first byte of every answer, API answers included
        `reset`     RST after `after_bytes` of a body
        `truncate`  the length promises all, but the connection ends cleanly after `after_bytes`
        `stall`     nothing more after `after_bytes`, and the connection stays open
        `flip`      the byte at `offset` of the file is wrong in every answer that covers it
        `status`    an error, `status`, instead of any answer; with Retry-After if `delay_s` is given
        `whole`     a Range header is ignored: 200 and the file from its beginning
        `page`      200 and an HTML page instead of the file, as captive portals do
    match: a glob on the file's path inside its repo; `*` crosses slashes. Answers that are about no
        file have the empty path.
    host: `cdn` (large files), `hub` (small files and the API) or `any`.
    times: how many answers it hits, then it is over; None means for ever. An answer that is too short
        for the fault to show is not hit and not counted.
    """

    kind: str
    match: str = "*"
    host: str = "cdn"
    after_bytes: int = 0
    offset: int = 0  # bytes, in the file
    times: int | None = None
    rate: float | None = None  # bytes a second
    delay_s: float = 0.0  # seconds
    status: int = 503

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; there are {', '.join(sorted(_KINDS))}")
        if self.host not in {"cdn", "hub", "any"}:
            raise ValueError(f"host must be cdn, hub or any, not {self.host!r}")
        if self.kind == "rate" and (self.rate is None or self.rate <= 0):
            raise ValueError("a rate fault needs a positive rate")
        HTTPStatus(self.status)  # raises for a code that does not exist
        if min(self.after_bytes, self.offset, self.delay_s) < 0:
            raise ValueError("after_bytes, offset and delay_s cannot be negative")

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return dataclasses.asdict(self)


class Ending(enum.Enum):
    """How an answer ends that is cut short."""

    RESET = "reset"
    TRUNCATE = "truncate"
    STALL = "stall"


@dataclass
class Plan:
    """How one answer will leave. Without a fault: whole, at once, as fast as the line."""

    answer: Answer
    sends_body: bool = True
    delay_s: float = 0.0
    rate: float | None = None  # bytes a second
    cut: tuple[int, Ending] | None = None  # after so many body bytes
    flips: set[int] = field(default_factory=set)  # offsets in the file
    faults: list[str] = field(default_factory=list)  # kinds that hit

    @property
    def span(self) -> range:
        """The file offsets that will leave; empty for answers that carry no file content."""
        body = self.answer.body
        if not self.sends_body or not isinstance(body, Slice):
            return range(0)
        stop = body.stop if self.cut is None else min(body.stop, body.start + self.cut[0])
        return range(body.start, stop)


@dataclass(frozen=True)
class _Kind:
    hits: Callable[[Fault, Plan], bool]
    bend: Callable[[Fault, Plan], None]


def _always(_fault: Fault, _plan: Plan) -> bool:
    return True


def _carries_content(_fault: Fault, plan: Plan) -> bool:
    return len(plan.span) > 0


def _ends_early(fault: Fault, plan: Plan) -> bool:
    return len(plan.span) > fault.after_bytes


def _covers_offset(fault: Fault, plan: Plan) -> bool:
    return fault.offset in plan.span and fault.offset not in plan.flips


def _slow(fault: Fault, plan: Plan) -> None:
    rate = fault.rate or 0.0  # never None: checked when the fault was made
    plan.rate = rate if plan.rate is None else min(rate, plan.rate)


def _late(fault: Fault, plan: Plan) -> None:
    plan.delay_s += fault.delay_s


def _cut(ending: Ending) -> Callable[[Fault, Plan], None]:
    def cut(fault: Fault, plan: Plan) -> None:
        plan.cut = (fault.after_bytes, ending)

    return cut


def _flip(fault: Fault, plan: Plan) -> None:
    plan.flips.add(fault.offset)


def _fail(fault: Fault, plan: Plan) -> None:
    plan.answer = refusal(fault.status, "The drill says no")
    if fault.delay_s:
        plan.answer = plan.answer.having(("Retry-After", f"{math.ceil(fault.delay_s)}"))


def _is_partial(_fault: Fault, plan: Plan) -> bool:
    return plan.answer.status == HTTPStatus.PARTIAL_CONTENT


def _ignore_range(_fault: Fault, plan: Plan) -> None:
    body = plan.answer.body
    if isinstance(body, Slice):
        kept = tuple(header for header in plan.answer.headers if header[0] != "Content-Range")
        whole = Slice(body.file, 0, body.file.stat().st_size)
        plan.answer = dataclasses.replace(plan.answer, status=HTTPStatus.OK, headers=kept, body=whole)


def _is_content(_fault: Fault, plan: Plan) -> bool:
    return isinstance(plan.answer.body, Slice)


def _portal(_fault: Fault, plan: Plan) -> None:
    plan.answer = Answer(HTTPStatus.OK, (("Content-Type", "text/html"),), b"<html>Please log in</html>\n")


# Kinds act in this order, whatever the order of the faults: what is sent is settled first, then where
# it ends, then which of the bytes that really leave are wrong.
_KINDS = {
    "status": _Kind(_always, _fail),
    "whole": _Kind(_is_partial, _ignore_range),
    "page": _Kind(_is_content, _portal),
    "rate": _Kind(_carries_content, _slow),
    "latency": _Kind(_always, _late),
    "reset": _Kind(_ends_early, _cut(Ending.RESET)),
    "truncate": _Kind(_ends_early, _cut(Ending.TRUNCATE)),
    "stall": _Kind(_ends_early, _cut(Ending.STALL)),
    "flip": _Kind(_covers_offset, _flip),
}


@dataclass
class _Standing:
    fault: Fault
    left: int | None  # answers it may still hit


class FaultBook:
    """The faults in force. `profile` faults belong to the line itself and are never cleared."""

    def __init__(self, profile: Iterable[Fault] = ()) -> None:
        self._profile = [_Standing(fault, None) for fault in profile]
        self._faults: list[_Standing] = []
        self._lock = threading.Lock()

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put `faults` in the place of all earlier ones."""
        with self._lock:
            self._faults = [_Standing(fault, fault.times) for fault in faults]

    def plan(self, host: str, answer: Answer, *, sends_body: bool) -> Plan:
        """How `answer` leaves `host` now; uses up one of the `times` of each fault that hits."""
        plan = Plan(answer, sends_body)
        with self._lock:
            for standing in sorted([*self._profile, *self._faults], key=_turn):
                fault, kind = standing.fault, _KINDS[standing.fault.kind]
                if standing.left == 0 or not _concerns(fault, host, answer) or not kind.hits(fault, plan):
                    continue
                kind.bend(fault, plan)
                plan.faults.append(fault.kind)
                if standing.left is not None:
                    standing.left -= 1
        return plan


def _turn(standing: _Standing) -> int:
    return list(_KINDS).index(standing.fault.kind)


def _concerns(fault: Fault, host: str, answer: Answer) -> bool:
    return fault.host in {host, "any"} and fnmatch.fnmatchcase(answer.file or "", fault.match)
