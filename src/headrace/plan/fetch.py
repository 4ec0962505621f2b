"""The plan of a transfer: which lane fetches which bytes of which blob from which place, and when it is hopeless.

Theory of operation. `take()` is told a fact, `orders()` says what to do next; the engine calls the second after
each batch of the first and on every tick. An idle lane takes the lowest free segment inside a window ahead of
some blob's frontier, blobs in the order they were added. Until a source's answer for a blob has begun only one
lane asks it, so that a redirect is followed once. With no segment free, an idle lane takes the back half of the
assignment that would end last, if that gains; of the last few bytes all, by cancelling a lane that crawls. A
place that fails rests; a source that cannot have the content is struck from the blob; a blob that got no byte
for too long is given up, where time counts only while it is the sources that are waited for.

Invariants: a byte is in `landed`, or in exactly one assignment, or free; an assignment's bytes become free only
when its lane has answered; at most `allowed` assignments exist; memory is bounded by blobs and assignments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import nlargest, nsmallest

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    Busy,
    HeadraceError,
    Interrupted,
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
    Fetch,
    Finished,
    Forget,
    GiveUp,
    Hashed,
    Landed,
    LaneFact,
    Located,
    Matched,
    Mismatched,
    Opened,
    Order,
    Place,
    Retry,
    Shorten,
    Shortened,
    Told,
)
from headrace.plan.places import Door, Places
from headrace.plan.standing import Standing
from headrace.ranges import Range

_FIRST_BYTES_WORTH = 40
"""A segment lasts at least this many times the wait for its first byte: at most 2.5 % of a lane's time is waiting."""

_CLOCK_S = 0.2  # how exactly the plan knows for how long a blob has waited
_OBEDIENCE = 1.1  # times `give_up_s`: what servers may ask for in all, and the tenth that is added to it
_RESTFUL_S = 0.05  # how often work is looked for while bytes just land
_SETTLED_S = 0.5  # a younger connection says nothing about its speed yet
_REFUSED_S = 1.0  # a lane that could not stop early is not asked again sooner
_RELIEVED_S = 0.1  # taking bytes from a lane must win more: what is on its way to it already is sent in vain
_RECALLED_S = 2.0  # dropping a connection that works must win more than this; no younger one is dropped


class FetchPlan:
    """Decides for all blobs of one engine. `chance` gives uniform numbers in [0, 1)."""

    def __init__(self, limits: Limits, chance: Callable[[], float]) -> None:
        self._limits = limits
        self._chance = chance
        self._places = Places(limits)
        self._governor = LaneGovernor(limits)
        self._standing = Standing(limits)
        self._blobs: dict[str, BlobPlan] = {}
        self._assignments: dict[int, Assignment] = {}
        self._numbers = 0
        self._first_byte_s = 0.0  # the last one seen anywhere: the scale of an epoch, no more
        self._outbox: list[Order] = []
        self._clock = float("-inf")
        self._landed_at = float("-inf")  # when anything came last
        self._upset: dict[str, None] = {}  # blobs to be judged at once, after what happened to them
        self._stirred = False  # whether lanes, bytes or places may be free that were not before
        self._sent_at = float("-inf")  # when work for idle lanes was looked for last

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
        self._stirred |= not isinstance(fact, Landed | Hashed)
        match fact:
            case Added():
                self._blobs[fact.blob] = BlobPlan(fact, self._standing.liars)
                self._see_reach()
                self._upset[fact.blob] = None
            case Hashed():
                if (blob := self._blobs.get(fact.blob)) is not None:
                    blob.hashed(fact.frontier)
                    self._stirred |= not blob.assigned
            case Mismatched():
                self._mismatched(fact)
            case Matched():
                self._outbox += self._standing.matched(fact.blob, self._blobs, self._assignments.values())
            case Ended():
                self._bury(fact.blob)
                # Whoever ended it has let go of it: nothing that was decided before must reach it now.
                self._outbox = [
                    order
                    for order in self._outbox
                    if isinstance(order, Cancel | Shorten | Told) or order.blob != fact.blob
                ]
            case _:
                if (assignment := self._assignments.get(fact.number)) is not None:
                    self._take_from_lane(assignment, fact, now)

    def orders(self, now: float) -> list[Order]:
        """What to do now."""
        passed = now - self._clock
        due = passed >= _CLOCK_S
        if due:
            self._clock = now
            for blob in self._blobs.values():
                self._pass(blob, min(passed, self._limits.patience_s))
            self._see_reach()
            self._upset.update(dict.fromkeys(self._blobs))
        upset = [self._blobs[key] for key in self._upset if key in self._blobs]
        self._upset.clear()
        for blob in upset:
            self._judge(blob, now)
        if self._stirred or upset or now - self._sent_at >= _RESTFUL_S:
            self._stirred, self._sent_at = False, now
            self._outbox.extend(self._fetches(now))
            self._outbox.extend(self._thefts(now))
            if self._limits.fair:
                self._outbox.extend(self._cessions(now))
        if self._governor.look(now, len(self._assignments), self._first_byte_s):
            self._outbox.extend(self._fetches(now))
            self._outbox.extend(self._thefts(now))
        self._outbox.extend(self._retreats(now))
        for blob in upset:
            self._note(blob, now)
        orders, self._outbox = self._outbox, []
        return [one for one in orders if not isinstance(one, Cancel) or one.number in self._assignments]

    def _see_reach(self) -> None:
        """Tell the governor how many lanes the hosts bear that the blobs of now may be had from."""
        ways = {way for blob in self._blobs.values() for way in blob.ways}
        located = {source for source, host in ways if host}
        hosts = {host or source for source, host in ways if host or source not in located}
        if hosts:
            self._governor.reach(self._limits.lanes_per_host * len(hosts))

    @property
    def _owed(self) -> int:
        """Lanes that are idle only until another has let go of bytes for them."""
        return sum(one.shortening for one in self._assignments.values())

    # What lanes report

    def _take_from_lane(self, one: Assignment, fact: LaneFact, now: float) -> None:
        match fact:
            case Located():
                one.blob.locate(one.place.source)
            case Opened():
                self._opened(one, fact, now)
            case Landed():
                one.blob.land(fact.range, one.place.source)
                one.landed(fact.range.stop, now)
                self._landed_at = now
                self._outbox += self._standing.delivered(one.place.source, now)
                self._governor.landed(len(fact.range))
                self._stirred |= self._places.delivered(one.place, one.rate(now))
            case Shortened():
                one.shortening = False
                if fact.stop < one.stop:
                    one.blob.release(Range(fact.stop, one.stop))
                    one.stop = fact.stop
                else:
                    one.refused_at = now
            case Finished():
                self._governor.served()
                self._places.delivered(one.place, one.pace(now))
                self._return(one)
            case _:
                self._return(one)
                self._failed(one, fact.error, now)

    def _opened(self, one: Assignment, fact: Opened, now: float) -> None:
        blob, source = one.blob, one.place.source
        self._first_byte_s = fact.first_byte_s
        self._governor.answered()
        blob.hosts[source] = fact.place.host
        blob.locate(source)
        if not one.whole:
            blob.parted.add(source)
        self._places.moved(one.place, fact.place, fact.siblings, fact.first_byte_s)
        one.opened(fact.place, now)

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
        if blob.dead or (one.recalled and isinstance(error, SourceError | Interrupted)):
            return
        self._upset[blob.key] = None
        blob.last_error[source] = error
        if isinstance(error, RangeIgnored) and not one.whole and source not in blob.parted:
            blob.whole_only.add(source)
            self._outbox += self._standing.struck(blob, source, error)
        elif self._struck(one, error):
            blob.rejected[source] = error
            self._outbox += self._standing.struck(blob, source, error)
        elif isinstance(error, SourceError):
            self._set_aside(one, error, now)
        else:
            self._give_up(blob, error)

    def _struck(self, one: Assignment, error: HeadraceError) -> bool:
        """Whether the source is of no more use for this blob.

        Nonsense is, from one of several. The last one is borne with for a while: a captive portal, a broken cache
        on the way or a hub that is being restarted answer nonsense, and then stop to.
        """
        if isinstance(error, BadAnswer) and one.blob.sources == [one.place.source]:
            return one.blob.waited_s >= self._limits.give_up_s / 2
        if isinstance(error, SourceError):
            return error.permanent or (isinstance(error, RangeIgnored) and one.whole)
        return isinstance(error, NotFound | AccessDenied)

    def _set_aside(self, one: Assignment, error: SourceError, now: float) -> None:
        blob, source = one.blob, one.place.source
        self._standing.failed(source, now)
        dead = isinstance(error, Unreachable)
        refused = isinstance(error, Busy) or (dead and one.fruitless)
        if refused and self._places.lanes(source):  # a lone lane was not one too many
            self._governor.trouble(now)
        wait = self._places.failed(one.place, error, now, self._chance())
        host = blob.hosts.get(source)
        if host and dead and one.opened_at is None and self._places.lost((source, host), now):
            blob.lose(source)  # it may have moved
        self._outbox.append(Retry(blob.key, one.place, error, wait))

    # What becomes of blobs

    def _mismatched(self, fact: Mismatched) -> None:
        blob = self._blobs.get(fact.blob)
        if blob is None:
            return
        suspects = blob.mismatched()
        if suspects is None:
            self._give_up(blob, fact.error)
        else:
            self._outbox.append(Forget(blob.key, suspects))

    def _pass(self, blob: BlobPlan, seconds: float) -> None:
        """Time has passed. Leaving a source alone as it asked is no failure, but nobody waits for ever."""
        if blob.waits and blob.obeys and blob.asked_s < self._limits.give_up_s * _OBEDIENCE:
            blob.asked_s += seconds
        elif blob.waits:
            blob.waited_s += seconds

    def _judge(self, blob: BlobPlan, now: float) -> None:
        if blob.complete:
            return
        patience_s = self._limits.give_up_s
        desperate = blob.waited_s >= patience_s / 2
        if desperate:
            blob.relent()
            blob.whole_only.update(
                s for s in blob.sources if isinstance(blob.last_error.get(s), RangeIgnored)
            )
        if not blob.sources or blob.waited_s >= patience_s:
            self._despair(blob)
            return
        streams = blob.whole_only.intersection(blob.sources)
        if blob.landed and not blob.assigned and streams and (desperate or len(streams) == len(blob.sources)):
            # Nobody left can continue in the middle: begin again as one stream.
            everything = blob.restart(now, patience_s)
            if everything is None:
                self._despair(blob)
            else:
                self._outbox.append(Forget(blob.key, everything))

    def _note(self, blob: BlobPlan, now: float) -> None:
        """See whether it is the sources that a blob waits for: not for lanes, nor for what landed to be hashed."""
        blob.waits, blob.obeys = blob.assigned > 0 and not blob.complete, False
        if blob.assigned or blob.free(self._limits) is None:
            return
        doors = blob.doors(whole=False) + (blob.doors(whole=True) if blob.untouched() else [])
        until, asked_s = self._places.rest(doors, now)
        # While nothing comes on any lane, to wait for a lane is to wait for the sources.
        barren = now - self._landed_at >= self._limits.patience_s
        blob.waits, blob.obeys = until > now or barren, asked_s > 0
        if min(asked_s, until - now) > self._limits.give_up_s:
            for source, _ in doors:
                error = self._places.complaint(source)
                blob.rejected[source] = Busy(
                    f"{error}; it asks to come back in {until - now:.0f} s",
                    hint="try again then, or name another source with --source",
                )
            self._despair(blob)

    def _despair(self, blob: BlobPlan) -> None:
        told = ((source, self._places.complaint(source)) for source in blob.sources)
        self._give_up(blob, blob.failure({source: error for source, error in told if error is not None}))

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
        shut: set[tuple[Door, ...]] = set()  # what one blob is refused, others like it need not ask for
        wanting = list(self._blobs.values())
        while wanting and len(self._assignments) < self._governor.allowed:
            blob = min(wanting, key=lambda one: one.assigned) if self._limits.fair else wanting[0]
            order = self._next_fetch(blob, shut, now)
            if order is None:
                wanting.remove(blob)
            else:
                yield order

    def _cessions(self, now: float) -> Iterator[Order]:
        """A blob without a lane gets one from whoever has most, now and not when a long segment ends."""
        starved = sum(self._starves(blob, now) for blob in self._blobs.values())
        for _ in range(starved - self._owed):
            richest = max(self._blobs.values(), key=lambda blob: blob.assigned)
            lanes = [one for one in self._assignments.values() if one.blob is richest and not one.shortening]
            able = [one for one in lanes if self._can_stop(one, now)]
            if len(lanes) <= 1 or not able:
                return
            ceding = max(able, key=lambda one: len(one.left))
            ceding.shortening = True
            yield Shorten(ceding.number, ceding.position)

    def _retreats(self, now: float) -> Iterator[Order]:
        """Where fewer lanes are allowed than are at work, the slowest stop now and not when a long segment ends."""
        lanes = [one for one in self._assignments.values() if not one.shortening]
        surplus = len(lanes) - self._governor.allowed
        if surplus <= 0:
            return
        able = [one for one in lanes if self._can_stop(one, now)]
        for one in nsmallest(surplus, able, key=lambda one: one.rate(now)):
            one.shortening = True
            yield Shorten(one.number, one.position)

    def _can_stop(self, one: Assignment, now: float) -> bool:
        if one.opened_at is None or one.whole or one.recalled or one.shortening:
            return False
        return bool(one.left) and now - one.refused_at >= _REFUSED_S

    def _starves(self, blob: BlobPlan, now: float) -> bool:
        if blob.assigned or blob.complete or blob.free(self._limits) is None:
            return False
        return self._places.choose(blob.doors(whole=False), now) is not None

    def _next_fetch(self, blob: BlobPlan, shut: set[tuple[Door, ...]], now: float) -> Fetch | None:
        doors = tuple(blob.doors(whole=False))
        if doors in shut and not blob.whole_only:
            return None
        free = blob.free(self._limits)
        if free is None:
            return None
        place = self._places.choose(doors, now)
        if place is None:
            shut.add(doors)
            place = self._places.choose(blob.doors(whole=True), now) if blob.untouched() else None
            return None if place is None else self._assign(blob, Range(0, blob.size), place, whole=True)
        overhead = _FIRST_BYTES_WORTH * self._places.first_byte_s(place) * self._places.rate(place)
        idle = max(1, self._governor.expected - len(self._assignments))
        share = sum(one.unclaimed_bytes for one in self._blobs.values()) / idle
        length = segment_bytes(len(free), share, overhead, self._limits)
        return self._assign(blob, Range(free.start, free.start + length), place, whole=False)

    def _assign(self, blob: BlobPlan, wanted: Range, place: Place, *, whole: bool) -> Fetch:
        self._numbers += 1
        one = Assignment(self._numbers, blob, wanted, place, whole=whole)
        self._assignments[one.number] = one
        blob.claim(wanted)
        self._places.taken(place)
        if place.source not in blob.located:
            blob.opening[place.source] = one.number
        return Fetch(one.number, blob.key, wanted, place, whole, self._places.patience_s(place))

    def _thefts(self, now: float) -> Iterator[Order]:
        idle = self._governor.allowed - len(self._assignments) - self._owed
        if idle <= 0:
            return
        helpers: dict[str, Place | None] = {}
        gains: list[tuple[float, int]] = []
        for one in self._assignments.values():
            if one.shortening or one.recalled or one.blob.dead or now - one.refused_at < _REFUSED_S:
                continue
            if one.blob.key not in helpers:
                helpers[one.blob.key] = self._places.choose(one.blob.doors(whole=False), now)
            gain = self._gain_s(one, helpers[one.blob.key], now)
            if gain > 0:
                gains.append((gain, one.number))
        for _, number in nlargest(idle, gains):
            yield self._relieve(self._assignments[number], now)

    def _gain_s(self, one: Assignment, helper: Place | None, now: float) -> float:
        """Seconds won if an idle lane went to `helper`; not above 0 where it may not.

        It would take the back half, or all if that is little and a fresh connection at least twice as fast.
        """
        if helper is None or one.opened_at is None:
            return 0.0
        settled = now - one.opened_at >= _SETTLED_S
        rate = one.rate(now) if settled else self._places.rate(one.place)
        if not rate and not settled:
            return 0.0
        left, first_byte_s = len(one.left), self._places.first_byte_s(helper)
        alone, fresh = left / max(rate, 1.0), left / (self._places.rate(helper) or rate or 1.0)
        if self._divisible(one):
            return alone - max(alone / 2, first_byte_s + fresh / 2) - first_byte_s - _RELIEVED_S
        if now - one.opened_at < _RECALLED_S * 2.0 ** min(one.blob.recalls, 6):
            return 0.0
        return alone - 2 * (first_byte_s + fresh) - _RECALLED_S

    def _divisible(self, one: Assignment) -> bool:
        return len(one.left) >= 2 * self._limits.segment_least_bytes

    def _relieve(self, one: Assignment, now: float) -> Order:
        if self._divisible(one):
            one.shortening = True
            return Shorten(one.number, one.position + len(one.left) // 2)
        one.recalled = True
        one.blob.recalls += one.fruitless
        self._places.disappointed(one.place, one.rate(now))
        return Cancel(one.number)
