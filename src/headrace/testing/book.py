"""The faults in force: counts how often each may still hit, and lets them bend what passes."""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from headrace.testing.answer import Answer, Request
from headrace.testing.bending import TURNS, Memory, bend, hits
from headrace.testing.catalog import DEFAULT_REVISION
from headrace.testing.cdn import EXPIRED, signature_of
from headrace.testing.faults import Fault
from headrace.testing.plan import Crowd, Plan

_BEFORE_REVISIONS = frozenset(("revision", "tree", "resolve", "paths-info", "commits"))


@dataclass
class _Standing:
    fault: Fault
    left: int | None  # answers it may still hit
    spared: int  # answers it lets pass first
    memory: Memory = field(default_factory=dict)

    @classmethod
    def of(cls, fault: Fault) -> _Standing:
        return cls(fault, fault.times, fault.skip)

    def strikes(self) -> bool:
        """Whether it hits what it could hit, which is counted."""
        if self.left == 0:
            return False
        if self.spared:
            self.spared -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


class FaultBook:
    """The faults in force. `profile` faults belong to the line itself and are never cleared."""

    def __init__(self, profile: Iterable[Fault] = ()) -> None:
        self._profile = [_Standing.of(fault) for fault in profile]
        self._crowd = Crowd()
        self._spent: set[str] = set()
        self._lock = threading.Lock()
        self._answers: list[_Standing] = []
        self._moves: list[_Standing] = []
        self._doors: list[_Standing] = []
        self.replace(())

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put `faults` in the place of all earlier ones."""
        standing = [*self._profile, *map(_Standing.of, faults)]
        with self._lock:
            self._moves = [one for one in standing if one.fault.kind == "moved"]
            self._doors = [one for one in standing if one.fault.kind == "crowd"]
            answers = [one for one in standing if one.fault.kind in TURNS]
            self._answers = sorted(answers, key=lambda one: TURNS[one.fault.kind])

    def reroute(self, host: str, request: Request) -> Request:
        """The request as it is understood: what names the main branch may mean another by now."""
        if not self._moves or host != "hub":
            return request
        with self._lock:
            for standing in self._moves:
                at = _revision_in(request)
                if at is not None and standing.strikes():
                    segments = (*request.segments[:at], standing.fault.to, *request.segments[at + 1 :])
                    request = dataclasses.replace(request, segments=segments)
        return request

    def plan(self, host: str, request: Request, answer: Answer) -> Plan:
        """How `answer` leaves `host` now; uses up one of the `times` of each fault that hits."""
        if self._spent and signature_of(request) in self._spent:
            answer = EXPIRED
        plan = Plan(answer, request, host, self._crowd, self._spent)
        with self._lock:
            for standing in self._answers:
                fault = standing.fault
                if _concerns(fault, host, answer) and hits(fault, plan) and standing.strikes():
                    bend(fault, plan, standing.memory)
                    plan.faults.append(fault.kind)
        return plan

    @contextmanager
    def admission(self, host: str, client: str) -> Iterator[str | None]:
        """While a connection is open: how it is turned away (`crowd`), or None where it is welcome."""
        refused = self._knock(host, client)
        if refused is not None:
            yield refused
            return
        try:
            yield None
        finally:
            self._crowd.leave(host, client)

    def _knock(self, host: str, client: str) -> str | None:
        with self._lock:
            for standing in self._doors:
                fault = standing.fault
                full = self._crowd.here(host, client) >= fault.most
                if full and fault.host in {host, "any"} and standing.strikes():
                    return fault.way
            self._crowd.enter(host, client)
            return None


def _revision_in(request: Request) -> int | None:
    """Which segment names the main branch."""
    for at, segment in enumerate(request.segments[:-1]):
        if segment in _BEFORE_REVISIONS and request.segments[at + 1] == DEFAULT_REVISION:
            return at + 1
    return None


def _concerns(fault: Fault, host: str, answer: Answer) -> bool:
    return fault.host in {host, "any"} and fnmatch.fnmatchcase(answer.file or "", fault.match)
