"""The engine: performs what the plan orders, and tells the plan what became of it.

One thread (whoever calls `run`) owns all mutable state. Lanes, hashers and publishers are other threads; they
report to the inbox and never touch anything else. A tick hands time to the plan when nothing happens.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from headrace.errors import DigestMismatch, HeadraceError, Interrupted, StoreError
from headrace.events import (
    BlobFailed,
    BlobMismatch,
    BlobPublished,
    BlobStarted,
    BytesForgotten,
    BytesHashed,
    BytesLanded,
    Emit,
    SegmentOpened,
)
from headrace.manifest import Digest
from headrace.plan import orders
from headrace.plan.fetch import FetchPlan
from headrace.plan.limits import Limits
from headrace.ranges import Range, RangeSet
from headrace.source.contract import Request, Source
from headrace.source.http import Dialer
from headrace.store.partial import Partial
from headrace.transfer.active import Active
from headrace.transfer.chores import Begun, Published, Synced, begin, publish, surprise, sync
from headrace.transfer.crew import Crew
from headrace.transfer.hashing import Answer, Crashed, Step, Workers
from headrace.transfer.job import Job, NotYet, Suspected, Unwanted, Wanted, key_of
from headrace.transfer.lane import Errand, Report
from headrace.transfer.mending import Checked, Mender, Seen
from headrace.transfer.news import closed, mismatch, named, news_of, nobody_left, retried, silence
from headrace.transfer.turns import BEGUN_AT_ONCE, Turns

TICK_S = 0.1
_SYNCED_AT_ONCE = 2  # syncs wait for the disk, while hashing wants processors
_WIDEN_S = 0.2
_BATCH = 256


class _Stop:
    pass


@dataclass(frozen=True)
class _Lost:
    """A blob was given up: it is let go when nothing else is about to be done to it."""


class Engine:
    """Fetches blobs from `sources` (by name). `add` jobs from any thread, `run` on one.

    Attributes:
        received: source name → bytes that came from it.
        told_to_stop: whether jobs that take their time to begin had better not.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        dialer: Dialer,
        limits: Limits,
        emit: Emit,
        trusted: str = "",
    ) -> None:
        """`trusted` is the source, if any, whose list of files says what is wanted: its block lists are believed."""
        self._sources = dict(sources)
        self._mender = Mender(self._sources, trusted, dialer, emit)
        self._silence_s = limits.patience_s
        self._emit = emit
        self._plan = FetchPlan(limits, random.SystemRandom().random)
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._turns = Turns()
        self._active: dict[str, Active] = {}
        self._doubted: dict[str, str] = {}  # blobs that did not match → what users call them
        self._crew = Crew(dialer, self._inbox.put)
        self._workers = Workers(self._inbox.put)
        self._beginners = Workers(self._inbox.put, BEGUN_AT_ONCE)
        self._syncers = Workers(self._inbox.put, _SYNCED_AT_ONCE)
        self._menders = Workers(self._inbox.put)  # most of what they do is to wait
        self._widened_at = float("-inf")
        self._stopping = False
        self.told_to_stop = False
        self.received: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Engine {len(self._active)} blobs active, {len(self._turns)} waiting, {self._plan}>"

    def add(self, job: Job) -> None:
        """Want a blob. For any thread."""
        self._inbox.put(Wanted(job))

    def wish(self, digest: Digest, wanted: Range, *, urgent: bool = True) -> None:
        """Somebody waits for these bytes, or will where it is not `urgent`: they go first. For any thread.

        A blob that has not begun begins next.
        """
        self._inbox.put(orders.Wished(key_of(digest), wanted, urgent))

    def suspect(self, digest: Digest, block: Range, right: bytes) -> None:
        """By the trusted source's list a block is wrong: then it is fetched again. For any thread; it may be repeated."""
        self._inbox.put(Suspected(key_of(digest), block, right))

    def drop(self, digest: Digest) -> None:
        """Want a blob no more: its job ends with `Interrupted`, what has landed is kept. For any thread."""
        self._inbox.put(Unwanted(key_of(digest)))

    def stop(self) -> None:
        """Make `run` end: as soon as nobody waits for the disk. What has landed is kept. For any thread."""
        self.told_to_stop = True
        self._inbox.put(_Stop())

    def run(self, *, until_idle: bool) -> None:
        """Work until stopped, or until nothing is left to do; once, since all threads end with it.

        Not for a thread that may be interrupted: an exception between any two steps would tear the state.
        """
        try:
            self._take_all(0.0)
            while not self._stopping and not (until_idle and self._idle):
                now = time.monotonic()
                self._begin(now)
                self._perform(now)
                self._take_all(TICK_S)
        finally:
            self._say_farewell()

    @property
    def _idle(self) -> bool:
        return not (self._active or self._turns) and self._inbox.empty()

    # Jobs

    def _begin(self, now: float) -> None:
        for active in self._active.values():
            active.partial.beat(now)
            if not active.syncing and active.partial.wants_sync(now):
                active.syncing = True
                self._syncers.run(active, partial(sync, active.job, active.partial))
        # Nobody waits in the dark: where the plan bears more silence than usual, the user hears of it.
        for errand, silent_s in self._crew.silent(now, self._silence_s):
            self._emit(silence(errand, silent_s))
        self._widen(now)
        while (job := self._turns.next(now, is_full=not self._plan.wants_blobs)) is not None:
            self._beginners.run(job, partial(begin, job))

    def _take_begun(self, begun: Begun, now: float) -> None:
        job, result = begun.job, begun.result
        wanted = self._turns.began(job)
        if isinstance(result, Interrupted):
            return  # it was told to stop, and so were we
        if isinstance(result, HeadraceError):
            self._report_failure(job, result)
        elif not wanted and result is not NotYet.HERE:
            if isinstance(result, Partial):
                result.close()
            self._report_failure(job, nobody_left())
        elif result is NotYet.HELD:
            self._turns.hold(job)
        elif result is NotYet.HERE:
            job.ended(None)
        else:
            self._activate(Active(job, result, self._mender.of(job, result)), now)

    def _leave(self, key: str) -> None:
        """Nobody wants a blob any more."""
        if key in self._active:
            self._give_up(self._active[key], nobody_left())
        for job in self._turns.drop(key):
            self._report_failure(job, nobody_left())

    def _widen(self, now: float) -> None:
        """See whether all is wanted of blobs of which only a part was: another process may wait for them."""
        if now - self._widened_at < _WIDEN_S:
            return
        self._widened_at = now
        for active in list(self._active.values()):
            if active.is_asked_for():
                self._plan.take(orders.Widened(active.key), now)
                self._advance(active, now)

    def _activate(self, active: Active, now: float) -> None:
        entry = active.job.content.entry
        self._active[active.key] = active
        self._emit(BlobStarted(entry.path, active.key, entry.size, active.partial.have.total))
        have, sources = active.partial.have, active.job.sources
        self._plan.take(orders.Added(active.key, entry.size, have, sources, active.is_partly), now)
        for wished in self._turns.wishes(active.key):
            self._plan.take(wished, now)
        self._advance(active, now)

    def _advance(self, active: Active, now: float) -> None:
        """Hash what can be hashed; when all is hashed, publish or complain; when all is lost, let go."""
        if self._active.get(active.key) is not active:
            return
        if active.hasher.busy:
            return
        if active.error is not None:
            if active.idle:
                self._let_go(active, now)
        elif active.is_partly:
            return
        elif active.is_whole:
            # The last lane has yet to say that it is done, or the plan what comes of a mismatch.
            if active.errands == 0 and active.mismatch is None and not active.checking:
                self._judge(active, now)
        elif (end := active.landed.end_of_run(active.hasher.frontier)) > active.hasher.frontier:
            self._workers.run(active, active.hasher.step(end))

    def _judge(self, active: Active, now: float) -> None:
        """All is hashed: look closer where that helps, then publish or complain."""
        entry, got = active.job.content.entry, active.hasher.hexdigest()
        if got != entry.digest.hex:
            active.mismatch, self._doubted[active.key] = got, entry.path
        closer = active.mending.look(matches=active.mismatch is None)
        if closer is None:
            self._decide(active, Seen(), now)
        else:
            active.hasher.busy = True
            self._menders.run(active, closer)

    def _take_seen(self, active: Active, seen: Seen, now: float) -> None:
        active.hasher.busy = False
        active.mending.take(seen)
        if active.error is None:
            self._decide(active, seen, now)

    def _decide(self, active: Active, seen: Seen, now: float) -> None:
        if active.mismatch is not None:
            error = mismatch(active.job, active.mismatch)
            self._plan.take(orders.Mismatched(active.key, error, seen.marks), now)
            return
        self._plan.take(orders.Matched(active.key, seen.lies), now)
        if active.key in self._doubted:
            self._perform(now)  # who lied is told while there is still somebody to be told
        active.hasher.busy = True  # the file belongs to the publisher now
        self._workers.run(active, partial(publish, active.job, active.partial))

    def _check(self, active: Active, suspected: Suspected) -> None:
        if active.may_check(suspected.block):
            active.checking.add(suspected.block)
            self._menders.run(active, active.mending.check(suspected.block, suspected.hash))

    def _take_checked(self, active: Active, checked: Checked, now: float) -> None:
        active.checking.discard(checked.block)
        marks = active.mending.refuted(checked) if active.may_check(checked.block) else None
        if marks is not None:
            self._doubted[active.key] = active.job.content.entry.path
            error = mismatch(active.job, f"a block that its list at {self._mender.trusted} contradicts")
            self._plan.take(orders.Doubted(active.key, error, marks), now)
            self._perform(now)  # it is forgotten before anything is decided about the whole

    def _let_go(self, active: Active, now: float) -> None:
        del self._active[active.key]
        self._plan.take(orders.Ended(active.key), now)
        with suppress(StoreError):  # what is not noted down stays as it is, and is found to be wrong again
            if isinstance(active.error, DigestMismatch):
                active.job.doubt()
                active.partial.drop()
        active.partial.close()
        if active.error is not None:
            self._report_failure(active.job, active.error)

    def _report_failure(self, job: Job, error: HeadraceError) -> None:
        entry = job.content.entry
        self._emit(BlobFailed(entry.path, key_of(entry.digest), error.code, error.message))
        job.ended(error)

    # What others report

    def _take_all(self, timeout_s: float) -> None:
        """Take what is in the inbox; wait for the first message if there is none."""
        try:
            message = self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait()
            for _ in range(_BATCH):
                self._take(message, time.monotonic())
                message = self._inbox.get_nowait()
            self._take(message, time.monotonic())
        except queue.Empty:
            return

    def _take(self, message: object, now: float) -> None:
        match message:
            case orders.Located() | orders.Opened() | orders.Landed() | orders.Finished() | orders.Failed():
                self._take_from_lane(message, now)
            case Answer():
                self._take_answer(message, now)
            case orders.Wished():
                if message.blob in self._active:
                    self._plan.take(message, now)
                else:
                    self._turns.wish(message)
            case Suspected() if message.key in self._active:
                self._check(self._active[message.key], message)
            case Unwanted():
                self._leave(message.key)
            case Wanted():
                self._turns.add(message.job)
            case _Stop():
                self._stopping = True

    def _take_answer(self, answer: Answer, now: float) -> None:
        if isinstance(answer.result, Begun):
            self._take_begun(answer.result, now)
        owner = answer.owner
        if not isinstance(owner, Active) or self._active.get(owner.key) is not owner:
            return  # published meanwhile; another may have its digest
        match answer.result:
            case Step():
                self._take_step(owner, answer.result, now)
            case Synced():
                owner.syncing = False
                if answer.result.error is not None:
                    self._give_up(owner, answer.result.error)
            case Published():
                self._take_published(owner, answer.result, now)
            case Seen():
                self._take_seen(owner, answer.result, now)
            case Checked():
                self._take_checked(owner, answer.result, now)
            case Crashed():
                owner.hasher.busy = False
                owner.checking.clear()
                self._give_up(owner, surprise(owner.job, answer.result.error))
        self._advance(owner, now)

    def _take_from_lane(self, report: Report, now: float) -> None:
        errand = self._crew.errand(report.number)
        if errand is None:
            return
        errand.heard_at = now
        active = self._active[key_of(errand.request.content.entry.digest)]
        match report:
            case orders.Opened():
                place, asked = report.place, errand.request.range
                self._emit(
                    SegmentOpened(
                        active.key, asked.start, asked.stop, place.source, place.address, report.first_byte_s
                    )
                )
            case orders.Landed():
                self._land(active, report, errand.source.name)
            case orders.Finished() | orders.Failed():
                self._crew.take(report)
                active.errands -= 1
                self._emit(closed(active.key, errand, report))
                if isinstance(report, orders.Failed) and isinstance(report.error, StoreError):
                    active.error = active.error or report.error
        self._plan.take(report, now)
        self._advance(active, now)

    def _land(self, active: Active, report: orders.Landed, source: str) -> None:
        count = len(report.range)
        try:
            active.partial.landed(report.range)
        except StoreError as error:
            self._give_up(active, error)
            return  # nobody is told of bytes that are not recorded
        active.landed.add(report.range)
        active.mending.gave(source, report.range)
        active.network_bytes += count
        self.received[source] = self.received.get(source, 0) + count
        self._emit(BytesLanded(active.key, report.range.start, report.range.stop, source))

    def _take_step(self, active: Active, step: Step, now: float) -> None:
        if not active.hasher.takes(step):
            return
        if step.error is not None:
            self._give_up(active, step.error)
        else:
            self._plan.take(orders.Hashed(active.key, step.frontier), now)
            self._emit(BytesHashed(active.key, step.frontier))

    def _take_published(self, active: Active, published: Published, now: float) -> None:
        active.hasher.busy = False
        if published.error is not None:
            active.error = published.error
            return
        del self._active[active.key]
        self._plan.take(orders.Ended(active.key), now)
        entry = active.job.content.entry
        self._emit(BlobPublished(entry.path, active.key, entry.size, active.network_bytes))
        active.job.ended(None)

    # What the plan orders

    def _perform(self, now: float) -> None:
        for order in self._plan.orders(now):
            self._obey(order, now)

    def _obey(self, order: orders.Order, now: float) -> None:
        match order:
            case orders.Fetch():
                self._send(order)
            case orders.Shorten():
                errand = self._crew.errand(order.number)
                if errand is not None:
                    self._plan.take(orders.Shortened(order.number, errand.shorten(order.stop)), now)
            case orders.Cancel():
                self._crew.cancel(order.number)
            case orders.Forget():
                self._forget(self._active[order.blob], order.ranges, refuted=order.refuted)
            case orders.Retry():
                if order.blob in self._active:
                    self._emit(retried(order, self._path_of(order.blob)))
            case orders.Struck() | orders.Lied() | orders.Returned():
                self._emit(news_of(order, self._path_of))
            case orders.GiveUp():
                self._give_up(self._active[order.blob], named(order.error, self._path_of(order.blob)))

    def _path_of(self, key: str) -> str:
        active = self._active.get(key)
        return active.job.content.entry.path if active is not None else self._doubted.get(key, "")

    def _send(self, order: orders.Fetch) -> None:
        active, place = self._active[order.blob], order.place
        request = Request(
            active.job.content, order.range, order.whole, place.host, place.address, order.patience_s
        )
        active.errands += 1
        self._crew.send(Errand(order.number, request, self._sources[place.source], active.partial))

    def _forget(self, active: Active, ranges: RangeSet, *, refuted: bool) -> None:
        active.hasher.restart()
        active.mending.forget(ranges)
        for one in ranges:
            active.landed.remove(one)
            self._emit(BytesForgotten(active.key, one.start, one.stop))
        try:
            active.job.doubt()
            active.partial.forget(ranges, refuted=refuted)
        except StoreError as error:
            self._give_up(active, error)
        if active.mismatch is not None:
            entry = active.job.content.entry
            self._emit(BlobMismatch(entry.path, active.key, active.mismatch, ranges.total))
            active.mismatch = None

    def _give_up(self, active: Active, error: HeadraceError) -> None:
        """Work on a blob no more. It goes through the inbox: whoever gives up is in the midst of something."""
        active.error = active.error or error
        self._plan.take(orders.Ended(active.key), time.monotonic())
        self._inbox.put(Answer(active, _Lost()))

    # The end

    def _say_farewell(self) -> None:
        """Stop all threads, keep what has landed, let other processes have the blobs."""
        self._crew.cancel_all()
        for active in self._active.values():
            active.mending.stop()
        while self._turns.beginning or any(not one.idle for one in self._active.values()):
            for active in self._active.values():
                active.partial.beat(time.monotonic())
            with suppress(queue.Empty):
                self._take_late(self._inbox.get(timeout=TICK_S))
        for active in self._active.values():
            active.partial.close()
        self._crew.retire()
        for workers in (self._workers, self._beginners, self._syncers, self._menders):
            workers.close()

    def _take_late(self, message: object) -> None:
        match message:
            case orders.Landed() if (errand := self._crew.errand(message.number)) is not None:
                self._land(
                    self._active[key_of(errand.request.content.entry.digest)], message, errand.source.name
                )
            case orders.Finished() | orders.Failed() if (
                errand := self._crew.errand(message.number)
            ) is not None:
                self._active[key_of(errand.request.content.entry.digest)].errands -= 1
            case Answer(result=Begun() as begun):
                self._turns.began(begun.job)
                if isinstance(begun.result, Partial):
                    begun.result.close()
            case Answer(owner=Active() as owner) if self._active.get(owner.key) is owner:
                match message.result:
                    case Step() | Crashed() | Seen():
                        owner.hasher.busy = False
                    case Checked():
                        owner.checking.discard(message.result.block)
                    case Synced():
                        owner.syncing = False
                    case Published():
                        self._take_published(owner, message.result, time.monotonic())
