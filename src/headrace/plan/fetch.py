"""The plan of a transfer: which lane fetches which bytes of which blob from which place, and when it is hopeless.

Theory of operation. `take()` is told a fact, `orders()` says what to do next; the engine calls the second after
each batch of the first and on every tick. An idle lane takes the lowest free segment inside a window ahead of
some blob's frontier, blobs in the order they were added. Until a source's answer for a blob has begun only one
lane asks it, so that a redirect is followed once. With no segment free, an idle lane takes the back half of the
assignment that would end last, if that gains. A place that fails rests; a source that cannot have the content
is struck from the blob; a blob that got no byte for too long is given up.

Invariants: a byte is in `landed`, or in exactly one assignment, or free; an assignment's bytes become free only
when its lane has answered; at most `allowed` assignments exist; memory is bounded by blobs and assignments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from headrace.errors import (
    AccessDenied,
    Busy,
    HeadraceError,
    NotFound,
    RangeIgnored,
    SourceError,
    Unreachable,
)
from headrace.plan.blob import Assignment, BlobPlan, segment_bytes
from headrace.plan.lanes import LaneGovernor
from headrace.plan.limits import Limits
from headrace.plan.orders import (
    Added,
    Cancel,
    Ended,
    Fact,
    Failed,
    Fetch,
    Finished,
    Forget,
    GiveUp,
    Hashed,
    Landed,
    Mismatched,
    Opened,
    Order,
    Place,
    Retry,
    Shorten,
    Shortened,
)
from headrace.plan.places import Places
from headrace.ranges import Range, RangeSet

_FIRST_BYTES_WORTH = 40
"""A segment lasts at least this many times the wait for its first byte: at most 2.5 % of a lane's time is waiting."""


class FetchPlan:
    """Decides for all blobs of one engine. `chance` gives uniform numbers in [0, 1)."""

    def __init__(self, limits: Limits, chance: Callable[[], float]) -> None:
        self._limits = limits
        self._chance = chance
        self._places = Places(limits)
        self._governor = LaneGovernor(limits)
        self._blobs: dict[str, BlobPlan] = {}
        self._assignments: dict[int, Assignment] = {}
        self._numbers = 0
        self._first_byte_s = 0.0  # the last one seen anywhere: the scale of an epoch, no more
        self._outbox: list[Order] = []

    @property
    def wants_blobs(self) -> bool:
        """Whether another blob may be begun."""
        return len(self._blobs) < self._limits.blobs_at_once

    @property
    def done(self) -> bool:
        """Whether nothing is left to decide."""
        return not self._blobs and not self._assignments

    def __repr__(self) -> str:
        return f"<FetchPlan {len(self._blobs)} blobs, {len(self._assignments)} of {self._governor.allowed} lanes>"

    def take(self, fact: Fact, now: float) -> None:
        """Learn what happened."""
        match fact:
            case Added():
                self._blobs[fact.blob] = BlobPlan(fact)
            case Hashed():
                if (blob := self._blobs.get(fact.blob)) is not None:
                    blob.frontier = fact.frontier
            case Mismatched():
                self._mismatched(fact)
            case Ended():
                self._bury(fact.blob)
            case _:
                if (assignment := self._assignments.get(fact.number)) is not None:
                    self._take_from_lane(assignment, fact, now)

    def orders(self, now: float) -> list[Order]:
        """What to do now."""
        self._governor.look(now, len(self._assignments), self._first_byte_s)
        for blob in list(self._blobs.values()):
            self._judge(blob, now)
        self._outbox.extend(self._fetches(now))
        self._outbox.extend(self._thefts(now))
        orders, self._outbox = self._outbox, []
        return orders

    # What lanes report

    def _take_from_lane(self, one: Assignment, fact: Fact, now: float) -> None:
        match fact:
            case Opened():
                self._opened(one, fact, now)
            case Landed():
                one.blob.land(fact.range)
                self._governor.landed(len(fact.range))
                one.position = fact.range.stop
                self._places.delivered(one.place, one.rate(now))
            case Shortened():
                one.shortening = False
                if fact.stop < one.stop:
                    one.blob.release(Range(fact.stop, one.stop))
                    one.stop = fact.stop
            case Finished():
                self._governor.served()
                self._return(one)
            case Failed():
                self._return(one)
                self._failed(one, fact.error, now)

    def _opened(self, one: Assignment, fact: Opened, now: float) -> None:
        one.opened_at = now
        self._first_byte_s = fact.first_byte_s
        one.blob.hosts[one.place.source] = fact.place.host
        one.blob.opening.pop(one.place.source, None)
        self._places.moved(one.place, fact.place, fact.siblings, fact.first_byte_s)
        one.place = fact.place

    def _return(self, one: Assignment) -> None:
        blob = one.blob
        del self._assignments[one.number]
        self._places.left(one.place)
        blob.release(one.left)
        blob.assigned -= 1
        if blob.opening.get(one.place.source) == one.number:
            del blob.opening[one.place.source]

    def _failed(self, one: Assignment, error: HeadraceError, now: float) -> None:
        blob, source = one.blob, one.place.source
        if blob.dead:
            return
        blob.last_error[source] = error
        if isinstance(error, RangeIgnored):
            blob.whole_only.add(source)
            return
        if isinstance(error, NotFound | AccessDenied) or (isinstance(error, SourceError) and error.permanent):
            blob.rejected[source] = error
            return
        if not isinstance(error, SourceError):
            self._give_up(blob, error)
            return
        if isinstance(error, Busy) or (one.fruitless and isinstance(error, Unreachable)):
            self._governor.trouble(now)
        wait = self._places.failed(one.place, error, now, self._chance())
        if blob.trying_since is None:
            blob.trying_since = now
        if error.retry_after_s is not None:
            self._obey(blob, error, now + wait)
        self._outbox.append(Retry(blob.key, one.place, error, wait))

    def _obey(self, blob: BlobPlan, error: SourceError, until: float) -> None:
        """A server named the time: waiting for it is no failure, but nobody waits for ever."""
        blob.trying_since = max(until, blob.trying_since or until)
        asked = error.retry_after_s or 0.0
        if asked > self._limits.give_up_s and len(blob.sources) == 1:
            blob.rejected[blob.sources[0]] = type(error)(
                f"{error.message}; it asks to come back in {asked:.0f} s",
                hint="try again then, or name another source with --source",
            )

    # What becomes of blobs

    def _mismatched(self, fact: Mismatched) -> None:
        blob = self._blobs.get(fact.blob)
        if blob is None or blob.dead:
            return
        suspects = blob.mismatched()
        if suspects is None:
            self._give_up(blob, fact.error)
        else:
            self._outbox.append(Forget(blob.key, suspects))

    def _judge(self, blob: BlobPlan, now: float) -> None:
        if blob.dead or blob.complete:
            return
        waited = 0.0 if blob.trying_since is None else now - blob.trying_since
        if not blob.sources or waited >= self._limits.give_up_s:
            self._give_up(blob, blob.failure())
        elif blob.landed and not blob.assigned and blob.whole_only.issuperset(blob.sources):
            # Nobody left can continue in the middle: begin again as one stream.
            everything = RangeSet([Range(0, blob.size)])
            blob.forget(everything)
            self._outbox.append(Forget(blob.key, everything))

    def _give_up(self, blob: BlobPlan, error: HeadraceError) -> None:
        self._outbox.append(GiveUp(blob.key, error))
        self._bury(blob.key)

    def _bury(self, key: str) -> None:
        blob = self._blobs.pop(key, None)
        if blob is not None:
            blob.dead = True
            self._outbox.extend(Cancel(one.number) for one in self._assignments.values() if one.blob is blob)

    # What idle lanes do

    def _fetches(self, now: float) -> Iterator[Order]:
        for blob in self._blobs.values():
            while len(self._assignments) < self._governor.allowed:
                order = None if blob.complete else self._next_fetch(blob, now)
                if order is None:
                    break
                yield order

    def _next_fetch(self, blob: BlobPlan, now: float) -> Fetch | None:
        free = blob.free(self._limits.window_bytes)
        if free is None:
            return None
        for source in blob.sources:
            if source in blob.opening:
                continue
            place = self._places.choose(source, blob.hosts.get(source, ""), now)
            if place is None:
                continue
            if source not in blob.whole_only:
                overhead = _FIRST_BYTES_WORTH * self._places.first_byte_s(place) * self._places.rate(place)
                length = segment_bytes(len(free), self._governor.allowed, overhead, self._limits)
                return self._assign(blob, Range(free.start, free.start + length), place, whole=False)
            if blob.untouched():
                return self._assign(blob, Range(0, blob.size), place, whole=True)
        return None

    def _assign(self, blob: BlobPlan, wanted: Range, place: Place, *, whole: bool) -> Fetch:
        self._numbers += 1
        one = Assignment(self._numbers, blob, wanted, place, whole=whole)
        self._assignments[one.number] = one
        blob.claim(wanted)
        self._places.taken(place)
        if place.source not in blob.hosts:
            blob.opening[place.source] = one.number
        return Fetch(one.number, blob.key, wanted, place, whole, self._places.patience_s(place))

    def _thefts(self, now: float) -> Iterator[Order]:
        idle = self._governor.allowed - len(self._assignments)
        idle -= sum(one.shortening for one in self._assignments.values())
        for _ in range(idle):
            victim = max(self._assignments.values(), key=lambda one: self._gain_s(one, now), default=None)
            if victim is None or self._gain_s(victim, now) <= 0:
                return
            victim.shortening = True
            yield Shorten(victim.number, victim.position + len(victim.left) // 2)

    def _gain_s(self, one: Assignment, now: float) -> float:
        """Seconds won if an idle lane took the back half of this assignment; 0 where it may not be taken."""
        left, rate = len(one.left), one.rate(now)
        helpless = one.shortening or one.whole or one.opened_at is None or one.blob.dead
        if helpless or left < 2 * self._limits.segment_least_bytes:
            return 0.0
        if self._places.choose(one.place.source, one.place.host, now) is None:
            return 0.0
        helper = self._places.rate(one.place) or 1.0
        first_byte_s = self._places.first_byte_s(one.place)
        alone = left / max(rate, 1.0)
        together = max(alone / 2, first_byte_s + left / 2 / helper)
        return max(0.0, alone - together - first_byte_s)
