"""The plan of a transfer: which lane fetches which bytes of which blob from which place, and when it is hopeless.

Theory of operation. `take()` is told a fact, `orders()` says what to do next; the engine calls the second after
each batch of the first and on every tick. An idle lane goes where another lane would bring most (`places`), as far
as that source may have one more (`hosts`, `lanes`), and takes the lowest free segment inside a window ahead of some
blob's frontier, blobs in the order they were added; what somebody waits for goes first (`wishes`). A segment is not
longer than what that place brings until everything else ends, so that quick and slow places end together. Until a
source's answer for a blob has begun only one lane asks it, so that a redirect is followed once. With no segment free,
an idle lane relieves the assignment that would end last, if that gains, wherever that is (`theft`). A lane that is
silent while others deliver is recalled (`patience`). A place that fails rests; a source that cannot have the content
is struck from the blob; a blob that got no byte for too long is given up, where time counts only while it is the
sources that are waited for.

Invariants: a byte is in `landed`, or in exactly one assignment, or free; an assignment's bytes become free only
when its lane has answered; at most `allowed` assignments exist; memory is bounded by blobs and assignments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    Busy,
    HeadraceError,
    Interrupted,
    NotFound,
    RangeIgnored,
    SourceError,
    Stalled,
    Unreachable,
)
from headrace.plan.assignment import Assignment, rate_of, segment_bytes
from headrace.plan.blob import BlobPlan
from headrace.plan.cession import Cessions
from headrace.plan.hosts import Gate, Hosts
from headrace.plan.limits import Limits
from headrace.plan.orders import (
    Added,
    Cancel,
    Doubted,
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
    Widened,
    Wished,
)
from headrace.plan.patience import Patience, borne_s
from headrace.plan.places import Door, Outlook, Places
from headrace.plan.precedence import in_turn
from headrace.plan.standing import Standing
from headrace.plan.theft import Thefts
from headrace.ranges import Range

_FIRST_BYTES_WORTH = 40
"""A segment lasts at least this many times the wait for its first byte: at most 2.5 % of a lane's time is waiting."""

_CLOCK_S = 0.2  # how exactly the plan knows for how long a blob has waited
_OBEDIENCE = 1.1  # times `give_up_s`: what servers may ask for in all, and the tenth that is added to it
_RESTFUL_S = 0.05  # how often work is looked for while bytes just land
_SMOOTHING = 0.2  # weight of the last fifth of a second in the goodput
_FIRST_TASTE = 4  # of several sources each is first asked for this part of a usual segment
_ABSENT = (
    0.5  # the least part of the longest pause for which one is set aside that was silent where others deliver
)


class FetchPlan:
    """Decides for all blobs of one engine. `chance` gives uniform numbers in [0, 1)."""

    def __init__(self, limits: Limits, chance: Callable[[], float]) -> None:
        self._limits = limits
        self._chance = chance
        self._places = Places(limits)
        self._standing = Standing(limits)
        self._hosts = Hosts(limits, self._places.lanes)
        self._patience = Patience()
        self._thefts = Thefts(limits, self._places, self._hosts)
        self._cessions = Cessions(limits, self._places)
        self._blobs: dict[str, BlobPlan] = {}
        self._assignments: dict[int, Assignment] = {}
        self._numbers = 0
        self._outbox: list[Order] = []
        self._clock = float("-inf")
        self._landed_at = float("-inf")  # when anything came last
        self._delivered_at: dict[str, float] = {}  # the same, by source
        self._landed = 0  # bytes since the clock was looked at
        self._goodput = 0.0  # bytes/s of late
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
        return (
            f"<FetchPlan {len(self._blobs)} blobs, {len(self._assignments)} of {self._hosts.allowed} lanes>"
        )

    def take(self, fact: Fact, now: float) -> None:
        """Learn what happened."""
        self._stirred |= not isinstance(fact, Landed | Hashed)
        match fact:
            case Added():
                self._blobs[fact.blob] = BlobPlan(fact, self._standing.liars)
                self._survey(now)
                self._upset[fact.blob] = None
            case Hashed():
                if (blob := self._blobs.get(fact.blob)) is not None:
                    blob.hashed(fact.frontier)
                    self._stirred |= not blob.assigned
            case Mismatched() | Doubted():
                self._mismatched(fact)
            case Wished() | Widened():
                if (blob := self._blobs.get(fact.blob)) is not None:
                    blob.want(fact, now)
            case Matched():
                self._outbox += self._standing.matched(fact, self._blobs, self._assignments.values())
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
            self._goodput += _SMOOTHING * (self._landed / passed - self._goodput)
            self._landed = 0
            self._recall_silent(passed, now)
            self._upset.update(dict.fromkeys(self._blobs))
        if due or self._upset:
            self._survey(now)
        upset = [self._blobs[key] for key in self._upset if key in self._blobs]
        self._upset.clear()
        for blob in upset:
            self._judge(blob, now)
        if self._stirred or upset or now - self._sent_at >= _RESTFUL_S:
            self._stirred, self._sent_at = False, now
            self._employ(now)
            self._outbox.extend(self._cessions.orders(self._blobs, self._assignments.values(), now))
        if self._look(now):
            self._employ(now)
        self._outbox.extend(self._thefts.retreats(self._assignments.values(), now))
        for blob in upset:
            self._note(blob, now)
        orders, self._outbox = self._outbox, []
        return [one for one in orders if not isinstance(one, Cancel) or one.number in self._assignments]

    def _survey(self, now: float) -> None:
        """See from where blobs may be had now, and how many lanes may go there."""
        ways = {way for blob in self._blobs.values() for way in blob.ways}
        self._hosts.survey(ways, self._outlook(now).left_s)

    def _look(self, now: float) -> bool:
        """Have each host's lanes weighed; whether more may run now is the answer."""
        grown = False
        for gate in self._hosts.gates:
            grown |= gate.governor.look(now, self._hosts.busy(gate), gate.first_byte_s)
        return grown

    def _outlook(self, now: float) -> Outlook:
        """What all lanes bring together, and when everything would be here."""
        # Of lanes alone it would be too little where some have just come back.
        rate = max(self._goodput, sum(rate_of(one, self._places, now) for one in self._assignments.values()))
        left = sum(blob.left_bytes for blob in self._blobs.values())
        return Outlook(rate, left / rate) if rate else Outlook()

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
                self._landed_at = self._delivered_at[one.place.source] = now
                self._outbox += self._standing.delivered(one.place.source, now)
                self._landed += len(fact.range)
                self._patience.landed(one.place, now)
                self._gate(one).governor.landed(len(fact.range))
                self._stirred |= self._places.delivered(one.place, one.rate(now))
            case Shortened():
                one.shortening, one.helper = False, ""
                if fact.stop < one.stop:
                    one.blob.release(Range(fact.stop, one.stop))
                    one.stop = fact.stop
                else:
                    one.refused_at, one.ceded = now, False
            case Finished():
                self._gate(one).governor.served()
                self._places.delivered(one.place, one.pace(now))
                self._return(one)
            case _:
                self._return(one)
                self._failed(one, fact.error, now)

    def _opened(self, one: Assignment, fact: Opened, now: float) -> None:
        blob, source = one.blob, one.place.source
        is_news = self._hosts.answered(source, fact.first_byte_s)
        blob.hosts[source] = fact.place.host
        blob.locate(source)
        if not one.whole:
            blob.parted.add(source)
        self._places.moved(one.place, fact.place, fact.siblings, fact.first_byte_s)
        one.opened(fact.place, now)
        if is_news:
            self._survey(now)

    def _gate(self, one: Assignment) -> Gate:
        return self._hosts.of(one.place.source)

    def _return(self, one: Assignment) -> None:
        blob = one.blob
        del self._assignments[one.number]
        self._places.left(one.place)
        blob.release(one.left)
        blob.assigned -= 1
        blob.wishes.lanes -= one.wished
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
            self._gate(one).governor.trouble(now)
        elif dead and one.opened_at is None and not self._places.lanes(source):
            self._hosts.lose(source)
        self._patience.failed(one.place)
        wait = self._places.failed(one.place, error, now, self._chance())
        host = blob.hosts.get(source)
        if host and dead and one.opened_at is None and self._places.lost((source, host), now):
            blob.lose(source)  # it may have moved
        self._outbox.append(Retry(blob.key, one.place, error, wait))

    def _recall_silent(self, passed_s: float, now: float) -> None:
        """Set aside at once what fell silent while others deliver, and let those have all that it was to bring."""
        assignments = self._assignments.values()
        self._patience.count(assignments, passed_s, now)
        places = {one.place for one in assignments}
        left_s = self._outlook(now).left_s if self._hosts.idle else float("inf")
        borne = {
            one: borne_s(self._places.first_byte_s(one), self._places.silences(one), left_s) for one in places
        }
        for place, lanes in self._patience.spent(assignments, borne).items():
            silent_s = max(one.silent_s for one in lanes)
            error = Stalled(f"{place.source} sent nothing for {silent_s:.1f} s, while others deliver")
            self._patience.failed(place)
            least_s = _ABSENT * self._limits.pause_most_s
            wait = self._places.failed(place, error, now, self._chance(), least_s)
            for blob in {one.blob.key: one.blob for one in lanes}.values():
                blob.last_error[place.source] = error
                self._outbox.append(Retry(blob.key, place, error, wait))
            for one in lanes:
                one.recalled = True
                self._outbox.append(Cancel(one.number))
        left = {one.place.source for one in assignments if not one.recalled}
        for source in {one.place.source for one in assignments if one.recalled and one.silent_s} - left:
            self._hosts.lose(source)

    # What becomes of blobs

    def _mismatched(self, fact: Mismatched | Doubted) -> None:
        blob = self._blobs.get(fact.blob)
        if blob is None:
            return
        suspects = blob.refuted(fact)
        if suspects is None:
            self._give_up(blob, fact.error)
        else:
            self._outbox.append(Forget(blob.key, suspects, refuted=fact.refutes(suspects)))

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
            blob.relent(self._heard(blob))
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
        at_work = blob.assigned > 0 and not blob.complete
        blob.waits, blob.obeys = at_work and not self._waits_for_lanes(blob, now), False
        if blob.assigned or blob.free(self._limits) is None:
            return
        doors = blob.doors(whole=False) + (blob.doors(whole=True) if blob.untouched() else [])
        until, asked_s = self._places.rest(doors, now)
        # While nothing comes on any lane, to wait for a lane is to wait for the sources.
        barren = now - self._landed_at >= self._limits.patience_s
        blob.waits, blob.obeys = until > now or barren, asked_s > 0
        if min(asked_s, until - now) > self._limits.give_up_s:
            for source, _ in doors:
                told = self._places.complaint(source) or f"{source} is busy"  # others it may serve meanwhile
                blob.rejected[source] = Busy(
                    f"{told}; it asks to come back in {until - now:.0f} s",
                    hint="try again then, or name another source with `sources`",
                )
            if not blob.sources:
                self._despair(blob)
            self._stirred = True  # those that were not to be asked before these may be now

    def _waits_for_lanes(self, blob: BlobPlan, now: float) -> bool:
        """Whether somebody who never failed it delivers, and has lanes only for other blobs."""
        able = set(blob.sources) - blob.last_error.keys()
        able -= {one.place.source for one in self._assignments.values() if one.blob is blob}
        return any(now - self._delivered_at.get(one, float("-inf")) < self._limits.patience_s for one in able)

    def _despair(self, blob: BlobPlan) -> None:
        self._give_up(blob, blob.failure(self._heard(blob)))

    def _heard(self, blob: BlobPlan) -> dict[str, HeadraceError]:
        told = ((source, self._places.complaint(source)) for source in blob.sources)
        return {source: error for source, error in told if error is not None}

    def _give_up(self, blob: BlobPlan, error: HeadraceError) -> None:
        self._outbox.append(GiveUp(blob.key, error))
        self._bury(blob.key)

    def _bury(self, key: str) -> None:
        blob = self._blobs.pop(key, None)
        if blob is not None:
            blob.dead = True
            self._outbox.extend(Cancel(one.number) for one in self._assignments.values() if one.blob is blob)

    # What idle lanes do

    def _employ(self, now: float) -> None:
        outlook = self._outlook(now)
        self._outbox.extend(self._fetches(outlook, now))
        self._outbox.extend(self._thefts.orders(self._assignments, outlook, now))

    def _fetches(self, outlook: Outlook, now: float) -> Iterator[Order]:
        shut: set[tuple[tuple[Door, ...], frozenset[str]]] = (
            set()
        )  # what one blob is refused, others like it are
        wanting = list(self._blobs.values())
        while wanting and self._hosts.idle:
            blob = in_turn(wanting, self._assignments.values(), fair=self._limits.fair)
            order = self._next_fetch(
                blob, shut, outlook, now, in_turn=self._limits.fair or blob is wanting[0]
            )
            if order is None:
                wanting.remove(blob)
            else:
                yield order

    def _next_fetch(
        self,
        blob: BlobPlan,
        shut: set[tuple[tuple[Door, ...], frozenset[str]]],
        outlook: Outlook,
        now: float,
        *,
        in_turn: bool,
    ) -> Fetch | None:
        doors, full = tuple(blob.doors(whole=False)), self._hosts.full
        if (doors, full) in shut and not blob.whole_only:
            return None
        wish = blob.wish(self._limits, in_turn=in_turn)
        run = wish or blob.free(self._limits)
        if run is None:
            return None
        place = self._places.choose(doors, now, outlook, full)
        if place is None:
            shut.add((doors, full))
            doors = tuple(blob.doors(whole=True)) if blob.untouched() else ()
            place = self._places.choose(doors, now, outlook, full)
            return None if place is None else self._assign(blob, Range(0, blob.size), place, now, whole=True)
        wanted = wish or Range(run.start, run.start + self._length(blob, run, place, outlook))
        return self._assign(blob, wanted, place, now, wished=wanted is wish)

    def _length(self, blob: BlobPlan, free: Range, place: Place, outlook: Outlook) -> int:
        """How much of the free bytes a lane that goes to this place takes."""
        rate = self._places.rate(place)
        # What is far ahead of the frontier must not be held up by a lane that got too much when lanes were few.
        widest = self._limits.window_bytes / self._hosts.expected
        overhead = min(widest, _FIRST_BYTES_WORTH * self._places.first_byte_s(place) * rate)
        idle = max(1, self._hosts.expected - len(self._assignments))
        share = sum(one.unclaimed_bytes for one in self._blobs.values()) / idle
        several = len(blob.sources) > 1 or self._places.has_siblings(place)
        if several and self._places.is_on_trial(place):
            share = 0.0
        elif several and not rate:
            share = min(share, self._limits.segment_bytes / _FIRST_TASTE)
        elif rate:
            share = min(share, rate * outlook.left_s)
        return segment_bytes(len(free), share, overhead, self._limits)

    def _assign(
        self,
        blob: BlobPlan,
        wanted: Range,
        place: Place,
        now: float,
        *,
        whole: bool = False,
        wished: bool = False,
    ) -> Fetch:
        self._numbers += 1
        one = Assignment(self._numbers, blob, wanted, place, whole=whole, wished=wished)
        self._assignments[one.number] = one
        blob.claim(wanted)
        blob.wishes.lanes += wished
        self._places.taken(place, now)
        if place.source not in blob.located:
            blob.opening[place.source] = one.number
        return Fetch(one.number, blob.key, wanted, place, whole, self._places.patience_s(place))
