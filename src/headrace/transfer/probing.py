"""What sources deliver, found out by asking them.

Lists of files and first bytes are asked of all sources at once: they are short, and what they wait for is the way. What
brings a rate is measured of one address after the other, so that none takes the line from another; connections are
added to those that run, and bytes are counted once these are up to speed. Nothing that comes is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from headrace.errors import BadManifest, EntryNotFound, HeadraceError, NotFound, RangeIgnored, Stalled
from headrace.manifest import Manifest
from headrace.names import Repo
from headrace.plan.verdict import (
    RUNGS,
    Age,
    Facts,
    Freshness,
    Past,
    Probed,
    Rung,
    freshness,
    has_all,
    judge,
    next_rung,
)
from headrace.ranges import Range
from headrace.source.contract import Chronicled, Content, Request, Source
from headrace.source.http import Dialer, HttpResponse, HttpSession
from headrace.wire import parse_date

_LISTED = 0.4  # of the time, for lists of files
_LOOKED = 0.7  # until first bytes are here
_WINDOW_LEAST_S, _WINDOW_MOST_S = 0.15, 2.0
_SETTLING = 1 / 3  # of a window, in which connections come up to speed
_ROUNDS = 4.0  # how many first bytes a window lasts at least
_BYTES_MOST = 1024 * 1024 * 1024  # in all
_RUNG_BYTES_LEAST = 4 * 1024 * 1024
_PART_LEAST, _PART_MOST = 1024 * 1024, 64 * 1024 * 1024
_LOOK_BYTES = 4096
_BUFFER_BYTES = 256 * 1024
_TICK_S = 0.01
_PATIENCE, _PATIENCE_MOST_S = 0.3, 3.0  # of the time, for a first byte

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Subject:
    """A source to be probed.

    Attributes:
        name, url: what it is called, and where it is.
        source: itself.
        carrier: the same, no faster than the user allows.
    """

    name: str
    url: str
    source: Source
    carrier: Source


@dataclass(frozen=True)
class _Place:
    """One address of a source, and what is fetched there."""

    subject: Subject
    content: Content
    facts: Facts


class Probe:
    """Measures what sources deliver of one repo.

    Args:
        trusted: whose word on the revision is believed.
        subjects: those to be measured.
        hopeless: what is to be told of those that cannot be.
        wanted: the repo and the revision.
        seconds: how long it takes, about.
        connections: to one address, at most.
    """

    def __init__(
        self,
        trusted: Source,
        subjects: Sequence[Subject],
        hopeless: Sequence[Facts],
        wanted: tuple[Repo, str],
        dialer: Dialer,
        *,
        seconds: float,
        connections: int,
    ) -> None:
        self._trusted = trusted
        self._subjects = subjects
        self._wanted = wanted
        self._dialer = dialer
        self._seconds = seconds
        self._connections = connections
        self._patience_s = min(_PATIENCE_MOST_S, _PATIENCE * seconds)
        self._facts: dict[tuple[str, str], Facts] = {
            (one.name, ""): Facts(one.name, one.url) for one in subjects
        }
        self._facts |= {(one.source, ""): one for one in hopeless}

    @property
    def known(self) -> tuple[Probed, ...]:
        """What is known by now, the best first. For any time, an interruption included."""
        return judge(tuple(self._facts.values()))

    def run(self) -> None:
        """Find it all out. A `KeyboardInterrupt` leaves what is `known`."""
        began = time.monotonic()
        lists = self._list(began + _LISTED * self._seconds)
        places = self._look(lists, began + _LOOKED * self._seconds)
        deadline = began + self._seconds
        cap = max(_RUNG_BYTES_LEAST, _BYTES_MOST // (len(RUNGS) * max(1, len(places))))
        for index, place in enumerate(places):
            share_s = (deadline - time.monotonic()) / (len(places) - index) / len(RUNGS)
            self._climb(place, share_s, cap)

    # What there is

    def _list(self, until: float) -> dict[str, Manifest]:
        """What to ask each source for, the trusted one by the empty name: its own list; how that stands is noted."""
        repo, revision = self._wanted
        tasks = {"": partial(self._trusted.manifest, repo, revision)}
        for one in self._subjects:
            tasks[one.name] = partial(one.source.manifest, repo, revision)
        told = _together(tasks, until, "its list of files")
        lists = {name: one for name, one in told.items() if isinstance(one, Manifest)}
        commit = lists[""].commit if "" in lists else None
        past = self._past(commit, lists)
        for one in self._subjects:
            answer, facts = told.get(one.name), self._facts[one.name, ""]
            if isinstance(answer, Manifest):
                fresh = freshness(answer.commit, commit, past)
                if fresh.age in (Age.BEHIND, Age.OTHER) and has_all(answer, lists[""]):
                    fresh = Freshness(Age.ALIKE)
                facts = replace(facts, has_repo=True, commit=answer.commit, freshness=fresh)
            elif isinstance(answer, BadManifest) and "" in lists:
                # It cannot say what it has. A pull asks it all the same for what the trusted source lists.
                lists[one.name] = lists[""]
            elif isinstance(answer, Exception):
                missing = False if isinstance(answer, NotFound) else None
                facts = replace(facts, has_repo=missing, failure=_told(answer))
            self._facts[one.name, ""] = facts
        return lists

    def _past(self, commit: str | None, lists: Mapping[str, Manifest]) -> Sequence[Past]:
        """The trusted source's history, where it is needed and can be had."""
        trusted, repo = self._trusted, self._wanted[0]
        if commit is None or not isinstance(trusted, Chronicled):
            return ()
        if all(one.commit == commit for one in lists.values()):
            return ()
        # Of its own time: one silent source takes all that lists were given.
        until = time.monotonic() + self._patience_s
        told = _together({"": lambda: trusted.history(repo, commit)}, until, "its history")[""]
        return () if isinstance(told, Exception) else told

    # What is near

    def _look(self, lists: Mapping[str, Manifest], until: float) -> list[_Place]:
        """The addresses that give a first byte."""
        tasks = {
            one.name: partial(self._approach, one, lists, until)
            for one in self._subjects
            if one.name in lists
        }
        found = _together(tasks, until + self._patience_s, "its first byte")
        places = []
        for name, answer in found.items():
            if isinstance(answer, Exception):
                self._facts[name, ""] = replace(self._facts[name, ""], failure=_told(answer))
                continue
            del self._facts[name, ""]
            for one in answer:
                self._facts[name, one.facts.address] = one.facts
            places += [one for one in answer if not one.facts.failure]
        return places

    def _approach(self, subject: Subject, lists: Mapping[str, Manifest], until: float) -> list[_Place]:
        """All addresses of a source, each looked at for itself."""
        facts, own, trusted = self._facts[subject.name, ""], lists[subject.name], lists.get("", None)
        has_file = None if trusted is None else True
        content = _largest(trusted or own)
        try:
            facts = replace(facts, has_repo=True, has_file=has_file)
            first, siblings = self._knock(subject, content, facts, "")
        except NotFound:
            if trusted is None or own.commit == trusted.commit:
                raise
            content = _largest(own)  # of no use for a pull, but what it delivers can be told
            first, siblings = self._knock(subject, content, replace(facts, has_file=False), "")
        others = {
            one: partial(self._knock, subject, content, first, one)
            for one in siblings
            if one != first.address
        }
        places = [_Place(subject, content, first)]
        for address, told in _together(others, until, "its first byte").items():
            if isinstance(told, Exception):
                silent = replace(first, address=address, connect_s=None, first_byte_s=None, skew_s=None)
                places.append(_Place(subject, content, replace(silent, failure=_told(told))))
            else:
                places.append(_Place(subject, content, told[0]))
        return places

    def _knock(
        self, subject: Subject, content: Content, facts: Facts, address: str
    ) -> tuple[Facts, tuple[str, ...]]:
        """Ask one address for a few bytes, and see what comes first."""
        session, began, ranges = HttpSession(self._dialer), time.monotonic(), True
        part, patience_s = Range(1, min(content.entry.size, _LOOK_BYTES)), self._patience_s
        try:
            try:
                asked = Request(content, part, False, facts.host, address, patience_s)  # noqa: FBT003
                stream = subject.source.open(asked, session)
            except RangeIgnored:
                ranges, part, began = False, Range(0, content.entry.size), time.monotonic()
                asked = Request(content, part, True, facts.host, address, patience_s)  # noqa: FBT003
                stream = subject.source.open(asked, session)
            try:
                stream.readinto(memoryview(bytearray(1)))
                first_byte_s = time.monotonic() - began
            finally:
                stream.close()
        finally:
            session.close()
        home = urlsplit(subject.url).hostname
        facts = replace(
            facts,
            host=stream.host,
            address=stream.address,
            ranges=ranges,
            first_byte_s=first_byte_s,
            redirects_to=stream.host if home and stream.host != home else None,
        )
        if isinstance(stream, HttpResponse):
            date = parse_date(stream.headers.get("Date"))
            facts = replace(
                facts,
                connect_s=stream.connect_s,
                first_byte_s=max(0.0, first_byte_s - stream.connect_s),
                skew_s=None if date is None else float(round(date - time.time())),
            )
        return facts, stream.siblings

    # What comes

    def _climb(self, place: _Place, share_s: float, cap: int) -> None:
        """Measure one address, with more connections as long as they bring more."""
        facts = place.facts
        flow = _Flow(place, self._dialer)
        most = self._connections if facts.ranges else 1
        arrival_s = (facts.connect_s or 0.0) + (facts.first_byte_s or 0.0)
        window_s = min(max(share_s, _WINDOW_LEAST_S, _ROUNDS * arrival_s), _WINDOW_MOST_S)
        rungs: list[Rung] = []
        try:
            while (count := next_rung(rungs, most)) is not None:
                rungs.append(flow.measured(count, window_s, cap))
                self._facts[facts.source, facts.address] = replace(facts, rungs=tuple(rungs))
        finally:
            flow.close()


class _Flow:
    """Connections that fetch a file over and over and keep nothing."""

    def __init__(self, place: _Place, dialer: Dialer) -> None:
        self._place = place
        self._dialer = dialer
        self._sessions: list[HttpSession] = []
        self._counts: list[int] = []
        self._refusal = ""
        self._next = 0
        self._is_over = False
        self._lock = threading.Lock()

    def measured(self, connections: int, window_s: float, cap: int) -> Rung:
        """The rate that so many connections come to; the window ends early when `cap` bytes have come."""
        while len(self._sessions) < connections:
            self._counts.append(0)
            self._sessions.append(HttpSession(self._dialer))
            number = len(self._sessions) - 1
            threading.Thread(target=self._work, args=(number,), daemon=True, name=f"probe {number}").start()
        began = time.monotonic()
        start = self._wait(began + window_s * _SETTLING, cap // 2)
        end = self._wait(began + window_s, cap // 2 + sum(self._counts))
        seconds, count = end[0] - start[0], end[1] - start[1]
        if self._refusal and not count:
            return Rung(connections, 0.0, self._refusal)
        return Rung(connections, count / max(seconds, _TICK_S), self._refusal)

    def close(self) -> None:
        """End all connections."""
        self._is_over = True
        for one in self._sessions:
            one.abort()

    def _wait(self, until: float, most: int) -> tuple[float, int]:
        """Wait until then, or until so many bytes have come or a connection was refused; the time and the count."""
        while True:
            now, count = time.monotonic(), sum(self._counts)
            if now >= until or count >= most or self._refusal:
                return now, count
            time.sleep(min(_TICK_S, until - now))

    def _work(self, number: int) -> None:
        session, buffer = self._sessions[number], memoryview(bytearray(_BUFFER_BYTES))
        try:
            while not self._is_over:
                self._fetch(number, session, buffer)
        except Exception as error:  # noqa: BLE001  # as in `_together`
            if not self._is_over:
                self._refusal = self._refusal or _told(error)
        finally:
            session.close()

    def _fetch(self, number: int, session: HttpSession, buffer: memoryview) -> None:
        facts, content = self._place.facts, self._place.content
        part = self._part() if facts.ranges else Range(0, content.entry.size)
        request = Request(content, part, not facts.ranges, facts.host, facts.address, _PATIENCE_MOST_S)
        stream = self._place.subject.carrier.open(request, session)
        try:
            while not self._is_over and (count := stream.readinto(buffer)):
                self._counts[number] += count
        finally:
            stream.close()

    def _part(self) -> Range:
        """The next part of the file; after its end comes its beginning."""
        size = self._place.content.entry.size
        length = min(size, max(_PART_LEAST, min(_PART_MOST, size // RUNGS[-1])))
        with self._lock:
            start = self._next if self._next < size else 0
            self._next = start + length
        return Range(start, min(size, start + length))


def _largest(manifest: Manifest) -> Content:
    """The file that is fetched. Raises `EntryNotFound` where there is none that has a part."""
    entry = max(manifest.entries, key=lambda one: one.size, default=None)
    if entry is None or entry.size <= 1:
        raise EntryNotFound(f"{manifest.repo} has no file to measure with")
    return Content(manifest.repo, manifest.commit, entry, manifest.revision)


def _together(
    tasks: Mapping[Key, Callable[[], Value]], until: float, what: str
) -> dict[Key, Value | Exception]:
    """Do all at once; each with what it came to, or why it came to nothing. Who is late is left behind."""
    results: dict[Key, Value | Exception] = {}
    began = time.monotonic()

    def work(key: Key, task: Callable[[], Value]) -> None:
        try:
            results[key] = task()
        except Exception as error:  # noqa: BLE001  # sources may be other people's; each failure is told as a reason
            results[key] = error

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in tasks.items()]
    for one in threads:
        one.start()
    for one in threads:
        one.join(max(0.0, until - time.monotonic()))
    late = Stalled(f"did not give {what} within {time.monotonic() - began:.0f} s")
    return {key: results.get(key, late) for key in tasks}


def _told(error: Exception) -> str:
    return error.message if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
