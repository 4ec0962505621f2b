"""Mending: which blocks of a blob are wrong, by the lists of those sources that have such, and who had given them.

When all of a blob came and hashed to something else, its sources are asked for block lists, each at most once, and
the blocks that are here are hashed. What the lists come to is for the plan (`plan.marks`). The bytes that are marked
are remembered by their hashes and by who gave them, so that once the digest matches it can be seen which of them
were wrong indeed: that is proof, whoever's list it was.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from headrace.blocklist import BlockList, block_at, blocks_in
from headrace.errors import Busy, HeadraceError, StoreError
from headrace.events import BlobRepaired, BlocksAsked, Emit
from headrace.plan.marks import Marks, marks_of
from headrace.plan.suspicion import Lie
from headrace.ranges import Range, RangeSet
from headrace.source.contract import BlockListing, Content, Source
from headrace.source.http import Dialer, HttpSession
from headrace.store.partial import Partial
from headrace.transfer.hashing import Answer, Workers, hash_of
from headrace.transfer.job import Job
from headrace.wire import BLOCK_BYTES

_PATIENCE_S = 10.0
_PATIENCE_MOST_S = 120.0  # whoever has others wait for a list that never comes gains no more than this
_MADE_BYTES_S = 100e6  # a node that makes a list reads the whole file, at this rate or so
_RETRY_LEAST_S = 0.2
EARLIER = ""
"""Who gave what was here from an earlier run: nobody knows any more."""


@dataclass(frozen=True)
class Piece:
    """Bytes that a list marked: where, who gave them, what they hashed to."""

    range: Range
    source: str
    hash: bytes


@dataclass(frozen=True)
class Seen:
    """What a closer look has shown.

    Attributes:
        marks: what the lists say of bytes that do not match.
        lists: those that are of use from now on; None where nobody was to be asked.
        pieces: the bytes that are marked.
        wrong: of a blob that matches now, the pieces that are others than they were.
        lies: who gave these.
    """

    marks: Marks | None = None
    lists: Mapping[str, BlockList] | None = None
    pieces: tuple[Piece, ...] = ()
    wrong: tuple[Piece, ...] = ()
    lies: tuple[Lie, ...] = ()


@dataclass(frozen=True)
class Checked:
    """A block that somebody said is wrong was looked at: `pieces` is what it consists of, if it is."""

    block: Range
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Mender:
    """What the mending of all blobs of an engine has in common.

    Attributes:
        sources: all of them, by name.
        trusted: the one whose lists are believed; empty if there is none.
        emit: is told what there is to tell.
    """

    sources: Mapping[str, Source]
    trusted: str
    dialer: Dialer
    emit: Emit

    def of(self, job: Job, partial: Partial) -> Mending:
        """The mending of one blob."""
        return Mending(self, job, partial)


class Mending:
    """The wrong blocks of one blob. For the engine's thread, but for the tasks it gives out."""

    def __init__(self, mender: Mender, job: Job, partial: Partial) -> None:
        self._emit = mender.emit
        self._content = job.content
        self._partial = partial
        self._trusted = mender.trusted
        self._sources = {name: mender.sources[name] for name in job.sources}
        self._inquiry = _Inquiry(job.content, mender.dialer)
        self._given = {EARLIER: partial.have.copy()}
        self._lists: Mapping[str, BlockList] | None = None
        self._pieces: list[Piece] = []

    @cached_property
    def _listers(self) -> dict[str, BlockListing]:
        return {name: one for name, one in self._sources.items() if isinstance(one, BlockListing)}

    def gave(self, source: str, arrived: Range) -> None:
        """Bytes came from there."""
        self._given.setdefault(source, RangeSet()).add(arrived)

    def forget(self, ranges: RangeSet) -> None:
        """These bytes are believed no more."""
        for one in ranges:
            for given in self._given.values():
                given.remove(one)

    def stop(self) -> None:
        """Have whatever task is under way end soon."""
        self._inquiry.stop()

    def look(self, *, matches: bool) -> Callable[[], Seen] | None:
        """The task of looking closer at a blob of which all is here; None where that shows nothing.

        It may take seconds; where a list has to be made, longer.
        """
        if matches:
            pieces = tuple(self._pieces)
            return (lambda: self._confirmed(pieces)) if pieces else None
        entry, is_new = self._content.entry, self._lists is None
        # Of a blob of one block the digest says it all.
        if entry.size <= BLOCK_BYTES or not (self._listers if is_new else self._lists):
            return None
        if is_new:
            self._emit(BlocksAsked(entry.path, str(entry.digest), tuple(self._listers)))
        lists, given = self._lists, {source: ranges.copy() for source, ranges in self._given.items()}
        return lambda: self._compared(lists, given)

    def check(self, block: Range, right: bytes) -> Callable[[], Checked]:
        """The task of looking whether a block is what the trusted source's list says."""
        given = {source: ranges.copy() for source, ranges in self._given.items()}

        def work() -> Checked:
            with suppress(StoreError):  # whoever hashes the whole has to deal with that
                if hash_of(self._partial, block) != right:
                    return Checked(block, tuple(self._cut(given, RangeSet([block]))))
            return Checked(block)

        return work

    def refuted(self, checked: Checked) -> Marks | None:
        """What comes of a block that was looked at; None where it is right."""
        self._pieces += checked.pieces
        return Marks(RangeSet([checked.block]), believed=True) if checked.pieces else None

    def take(self, seen: Seen) -> None:
        """Take note of what a look has shown."""
        self._pieces += seen.pieces
        if seen.lists is not None:
            self._lists = seen.lists
        if seen.wrong:
            self._emit(self._repaired(seen.wrong))

    # Tasks

    def _compared(self, lists: Mapping[str, BlockList] | None, given: Mapping[str, RangeSet]) -> Seen:
        size = self._content.entry.size
        known = self._inquiry.ask(self._listers, self._trusted) if lists is None else lists
        if not known:
            return Seen(lists={})
        try:
            found = _hashes(self._partial, size, self._inquiry.stopped)
            if len(found) < blocks_in(size):
                return Seen(lists=known)
            differing = {source: one.differs(found) for source, one in known.items()}
            marks = marks_of(differing, self._trusted, size)
            pieces = tuple(self._cut(given, marks.ranges)) if marks else ()
        except StoreError:
            return Seen(lists=known)  # whoever reads it next has to deal with that
        # By a list that finds nothing wrong the whole would have matched: it is one of something else.
        return Seen(marks, {source: one for source, one in known.items() if differing[source]}, pieces)

    def _confirmed(self, pieces: tuple[Piece, ...]) -> Seen:
        wrong = tuple(one for one in pieces if hash_of(self._partial, one.range) != one.hash)
        gave = _counted((one.source, one.range) for one in wrong if one.source != EARLIER)
        return Seen(wrong=wrong, lies=tuple(Lie(source, count) for source, count in gave.items()))

    def _repaired(self, wrong: tuple[Piece, ...]) -> BlobRepaired:
        entry = self._content.entry
        numbers = {one.range.start // BLOCK_BYTES for one in wrong}
        anew = RangeSet(one.range for one in wrong)
        return BlobRepaired(
            entry.path,
            str(entry.digest),
            blocks_in(entry.size),
            len(numbers),
            gave=_counted((one.source, one.range) for one in wrong),
            mended=_counted(part for one in anew for part in _parts(self._given, one)),
        )

    def _cut(self, given: Mapping[str, RangeSet], marked: RangeSet) -> Iterator[Piece]:
        """What is marked, block by block and by who gave it."""
        for one in marked:
            for number in range(one.start // BLOCK_BYTES, -(-one.stop // BLOCK_BYTES)):
                for source, part in _parts(given, block_at(number, self._content.entry.size)):
                    yield Piece(part, source, hash_of(self._partial, part))


class _Inquiry:
    """Asks sources for their lists, all at once."""

    def __init__(self, content: Content, dialer: Dialer) -> None:
        self._content = content
        self._dialer = dialer
        self._stop = threading.Event()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._sessions: list[HttpSession] = []

    def stop(self) -> None:
        self._stop.set()
        self._answers.put(Answer(None, None))  # nobody is waited for, not even who cannot be made to stop
        for session in list(self._sessions):
            session.abort()

    def stopped(self) -> bool:
        return self._stop.is_set()

    def ask(self, listers: Mapping[str, BlockListing], trusted: str) -> dict[str, BlockList]:
        """Their lists, by name; the trusted source's alone where it has one."""
        patience_s = _PATIENCE_S + self._content.entry.size / _MADE_BYTES_S
        until = time.monotonic() + min(patience_s, _PATIENCE_MOST_S)
        workers = Workers(self._answers.put, len(listers))
        self._sessions = [HttpSession(self._dialer) for _ in listers]
        for (name, lister), session in zip(listers.items(), self._sessions, strict=True):
            workers.run(name, self._asking(lister, session, until))
        workers.close()
        lists: dict[str, BlockList] = {}
        with suppress(queue.Empty):  # who has not answered by now is not waited for
            for _ in listers:
                if trusted in lists or self.stopped():
                    break
                answer = self._answers.get(timeout=max(0.0, until - time.monotonic()) + _RETRY_LEAST_S)
                if isinstance(answer.result, BlockList):
                    lists[str(answer.owner)] = answer.result
        for session in self._sessions:
            session.abort()
        return lists

    def _asking(
        self, lister: BlockListing, session: HttpSession, until: float
    ) -> Callable[[], BlockList | None]:
        def work() -> BlockList | None:
            try:
                while (got := self._try(lister, session)) is not None:
                    if isinstance(got, BlockList):
                        return got
                    if time.monotonic() + got > until or self._stop.wait(got):
                        return None
                return None
            finally:
                session.close()

        return work

    def _try(self, lister: BlockListing, session: HttpSession) -> BlockList | float | None:
        """The list, or after how many seconds to ask again, or None where that is of no use."""
        try:
            return lister.blocks(self._content, session)
        except Busy as busy:
            return None if busy.retry_after_s is None else max(busy.retry_after_s, _RETRY_LEAST_S)
        except HeadraceError:
            return None


def _hashes(partial: Partial, size: int, stopped: Callable[[], bool]) -> list[bytes]:
    """What each block hashes to, on as many threads as there are processors; fewer than there are where it is stopped.

    Raises:
        StoreError: the disk could not be read.
    """
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    workers = Workers(answers.put)
    found: dict[int, bytes] = {}

    def hashing(number: int) -> Callable[[], bytes | StoreError | None]:
        def work() -> bytes | StoreError | None:
            try:
                return None if stopped() else hash_of(partial, block_at(number, size))
            except StoreError as error:
                return error

        return work

    for number in range(blocks_in(size)):
        workers.run(number, hashing(number))
    workers.close()
    failures: list[StoreError] = []
    for _ in range(blocks_in(size)):
        answer = answers.get()
        if isinstance(answer.result, bytes) and isinstance(answer.owner, int):
            found[answer.owner] = answer.result
        elif isinstance(answer.result, StoreError):
            failures.append(answer.result)
    if failures:
        raise failures[0]
    return [found[number] for number in sorted(found)]


def _parts(given: Mapping[str, RangeSet], within: Range) -> Iterator[tuple[str, Range]]:
    """Who gave which bytes of a range."""
    for source, ranges in given.items():
        here = RangeSet([within])
        for gap in ranges.gaps(within):
            here.remove(gap)
        for part in here:
            yield source, part


def _counted(parts: Iterable[tuple[str, Range]]) -> dict[str, int]:
    """How many bytes each has."""
    counts: dict[str, int] = {}
    for source, part in parts:
        counts[source] = counts.get(source, 0) + len(part)
    return counts
