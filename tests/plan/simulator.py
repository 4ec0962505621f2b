"""An engine that is not there: plays imaginary lanes, sources and hashers against a plan, and checks every order.

Time goes in steps; all chance comes from one seeded generator, so a run can be repeated.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from headrace.errors import (
    BadAnswer,
    BrokenStream,
    Busy,
    DigestMismatch,
    HeadraceError,
    Interrupted,
    NotFound,
    RangeIgnored,
    Stalled,
    Unreachable,
)
from headrace.plan.fetch import FetchPlan
from headrace.plan.limits import Limits
from headrace.plan.orders import (
    Added,
    Cancel,
    Ended,
    Failed,
    Fetch,
    Finished,
    Forget,
    GiveUp,
    Hashed,
    Landed,
    Lied,
    Matched,
    Mismatched,
    Opened,
    Order,
    Place,
    Retry,
    Returned,
    Shorten,
    Shortened,
    Struck,
    Wished,
)
from headrace.ranges import Range, RangeSet

STEP_S = 0.25
NEVER = float("inf")


@dataclass(frozen=True)
class SimSource:
    """A source: ill until `well_at` in the way `illness` says, and then as fast as `rate` on each connection.

    All its connections together bring no more than `line`; more than `borne` of them share a quarter of what so
    many would bring. Its last address is slower by the factor `crawls`. Between the instants `gone` neither it nor
    any connection to it says a word. Of what lands, `lies` is the share that is wrong; at `lying_address` alone,
    where one is given.
    """

    name: str
    rate: int = 100
    first_byte_s: float = 0.25
    illness: str = "none"
    well_at: float = 0.0
    ranges: bool = True
    hosts: int = 1
    addresses: int = 1
    slow_from: float = NEVER
    lies: float = 0.0
    lying_address: str = ""
    line: float = NEVER
    borne: int = 10**6
    crawls: float = 1.0
    gone: tuple[float, float] = (NEVER, NEVER)


@dataclass(frozen=True)
class SimBlob:
    size: int
    have: tuple[Range, ...] = ()
    added_at: float = 0.0
    ended_at: float = NEVER
    bad_have: bool = False
    wishes: tuple[tuple[float, Range], ...] = ()  # when somebody waits for what


@dataclass
class _Work:
    blob: SimBlob
    landed: RangeSet
    frontier: int = 0
    fetched: int = 0
    forgotten: int = 0
    wrong: RangeSet = field(default_factory=RangeSet)
    wronged: set[str] = field(default_factory=set)
    resumed: RangeSet = field(default_factory=RangeSet)
    outcome: HeadraceError | str | None = None
    outcome_at: float = 0.0
    mismatches: int = 0
    last_byte_at: float = 0.0


@dataclass
class _Lane:
    order: Fetch
    source: SimSource
    place: Place
    position: int
    stop: int
    silent_since: float
    opens_at: float
    opened: bool = False
    cancelled: bool = False
    asked_to_stop: int | None = None
    credit: float = 0.0


class Simulation:
    """Runs until every blob is published, given up or ended."""

    def __init__(
        self,
        sources: list[SimSource],
        blobs: list[SimBlob],
        limits: Limits,
        *,
        seed: int = 0,
        hash_rate: int = 10**6,
        prompt: bool = True,
        step_s: float = STEP_S,
        jitter: float = 0.5,
    ) -> None:
        self.chance = Random(seed)
        self.sources = {source.name: source for source in sources}
        self.limits = limits
        self.plan = FetchPlan(limits, self.chance.random)
        self.works = {f"blob{number}": _Work(blob, RangeSet(blob.have)) for number, blob in enumerate(blobs)}
        self.waiting = [*self.works]
        self.active: list[str] = []
        self.lanes: dict[int, _Lane] = {}
        self.now = 0.0
        self.step_s = step_s
        self.jitter = jitter
        self.brought: dict[Place, int] = {}
        self.hash_rate = hash_rate
        self.prompt = prompt
        self.set_aside: dict[Place, float] = {}
        self.known: set[Place] = {Place(source.name) for source in sources}
        self.opens: Counter[str] = Counter()
        self.orders_of_second: Counter[int] = Counter()
        self.most_lanes = 0
        self.log: list[tuple[float, Order]] = []
        self.lied: dict[str, float] = {}  # who was said to lie, and when

    def run(self, until_s: float) -> None:
        while self.waiting or self.active or self.lanes:
            assert self.now < until_s, f"not done after {until_s} s: {self.plan}, {self.works}"
            self.step()
        assert self.plan.done
        assert self.plan.orders(self.now) == []

    def step(self) -> None:
        self._begin_and_end()
        lanes = list(self.lanes.values())
        self.chance.shuffle(lanes)
        for lane in lanes:
            self._advance(lane)
        for name in list(self.active):
            self._hash(name)
        orders = self.plan.orders(self.now)
        for order in orders:
            self._perform(order)
        self._check()
        self.now += self.step_s

    def _begin_and_end(self) -> None:
        for name in list(self.waiting):
            work = self.works[name]
            if self.now >= work.blob.added_at and self.plan.wants_blobs:
                self.waiting.remove(name)
                self.active.append(name)
                if work.blob.bad_have:
                    work.resumed = work.landed.copy()
                work.last_byte_at = self.now
                self.plan.take(Added(name, work.blob.size, work.landed, tuple(self.sources)), self.now)
        for name in self.active:
            for at, wanted in self.works[name].blob.wishes:
                if self.now - self.step_s < at <= self.now:
                    self.plan.take(Wished(name, wanted), self.now)
        for name in list(self.active):
            if self.now >= self.works[name].blob.ended_at:
                self._end(name, "ended")

    def _end(self, name: str, outcome: HeadraceError | str) -> None:
        self.active.remove(name)
        self.works[name].outcome = outcome
        self.works[name].outcome_at = self.now
        self.plan.take(Ended(name), self.now)

    # Lanes

    def _advance(self, lane: _Lane) -> None:
        number = lane.order.number
        if lane.cancelled:
            if self.prompt or self.chance.random() < 0.5:
                self._fail(
                    lane, self.chance.choice([Interrupted("stop"), BrokenStream("cut"), Unreachable("cut")])
                )
            return
        if self._is_silent(lane):
            return
        if not lane.opened and not self._open(lane):
            return
        if lane.asked_to_stop is not None and self.chance.random() < 0.7:
            self._shorten(lane)
        ill = self.now < lane.source.well_at
        self._carry(lane)
        if lane.position == lane.stop:
            del self.lanes[number]
            self.plan.take(Finished(number), self.now)
        elif ill and lane.source.illness == "breaks":
            self._fail(lane, BrokenStream("reset"))

    def _is_silent(self, lane: _Lane) -> bool:
        source = lane.source
        gone = source.gone[0] <= self.now < source.gone[1]
        silent = lane.opened and self.now < source.well_at and source.illness == "silent"
        if (gone or silent) and self.now - lane.silent_since >= lane.order.patience_s:
            self._fail(lane, Stalled("silent"))
        return gone or silent

    def _carry(self, lane: _Lane) -> None:
        lane.credit += self._rate(lane) * self.step_s * self.chance.uniform(1 - self.jitter, 1 + self.jitter)
        count = min(int(lane.credit), lane.stop - lane.position)
        if count:
            lane.credit -= count
            self._land(lane, count)

    def _rate(self, lane: _Lane) -> float:
        source = lane.source
        together = sum(one.source is source and one.opened for one in self.lanes.values())
        rate = source.rate / (20 if self.now >= source.slow_from and lane.place.address == "a0" else 1)
        if lane.place.address == f"a{source.addresses - 1}":
            rate *= source.crawls
        if together > source.borne:
            return source.borne * source.rate / 4 / together
        return min(rate, source.line / together)

    def _open(self, lane: _Lane) -> bool:
        source, ill = lane.source, self.now < lane.source.well_at
        errors: dict[str, HeadraceError] = {
            "unreachable": Unreachable("no route"),
            "busy": Busy("503"),
            "asks": Busy("429", retry_after_s=7.0),
            "asks nothing": Busy("429", retry_after_s=0.0),
            "asks too much": Busy("429", retry_after_s=3600.0),
            "missing": NotFound("404"),
            "html": BadAnswer("html"),
        }
        if ill and source.illness in errors:
            self._fail(lane, errors[source.illness])
            return False
        if ill and source.illness == "dark":
            if self.now - lane.silent_since >= lane.order.patience_s:
                self._fail(lane, Stalled("no first byte"))
            return False
        if self.now < lane.opens_at:
            return False
        if not source.ranges and not lane.order.whole:
            self._fail(lane, RangeIgnored("200"))
            return False
        self.opens[source.name] += 1
        host = f"h{self.opens[source.name] // 5 % source.hosts}.{source.name}"
        siblings = tuple(f"a{index}" for index in range(source.addresses))
        address = lane.place.address if lane.place.host == host else self.chance.choice(siblings)
        lane.place = Place(source.name, host, address)
        self.known.update(Place(source.name, host, one) for one in siblings)
        lane.opened, lane.silent_since = True, self.now
        self.plan.take(Opened(lane.order.number, lane.place, siblings, source.first_byte_s), self.now)
        return True

    def _shorten(self, lane: _Lane) -> None:
        reach = min(lane.stop, lane.position + self.chance.randrange(8))
        assert lane.asked_to_stop is not None
        lane.stop = min(lane.stop, max(lane.asked_to_stop, reach))
        lane.asked_to_stop = None
        self.plan.take(Shortened(lane.order.number, lane.stop), self.now)

    def _land(self, lane: _Lane, count: int) -> None:
        arrived = Range(lane.position, lane.position + count)
        lane.position += count
        lane.silent_since = self.now
        self.brought[lane.place] = self.brought.get(lane.place, 0) + count
        work = self.works[lane.order.blob]
        if lane.order.blob in self.active:
            assert list(work.landed.gaps(arrived)) == [arrived], "fetched twice"
            work.landed.add(arrived)
            work.fetched += count
            work.last_byte_at = self.now
            if self._is_wrong(lane):
                work.wrong.add(arrived)
                work.wronged.add(lane.source.name)
        self.plan.take(Landed(lane.order.number, arrived), self.now)

    def _is_wrong(self, lane: _Lane) -> bool:
        source = lane.source
        here = source.lying_address in ("", lane.place.address)
        return source.lies > 0 and here and self.chance.random() < source.lies

    def _fail(self, lane: _Lane, error: HeadraceError) -> None:
        del self.lanes[lane.order.number]
        self.plan.take(Failed(lane.order.number, error), self.now)

    # Hashing

    def _hash(self, name: str) -> None:
        work = self.works[name]
        frontier = min(work.landed.end_of_run(0), work.frontier + max(1, int(self.hash_rate * self.step_s)))
        if frontier != work.frontier:
            work.frontier = frontier
            self.plan.take(Hashed(name, frontier), self.now)
        if work.frontier < work.blob.size:
            return
        if work.resumed or work.wrong:
            work.mismatches += 1
            work.frontier = 0
            self.plan.take(Mismatched(name, DigestMismatch("wrong bytes")), self.now)
        else:
            self.plan.take(Matched(name), self.now)
            self._end(name, "published")

    # Orders

    def _perform(self, order: Order) -> None:
        self.log.append((self.now, order))
        if not isinstance(order, Retry):
            self.orders_of_second[int(self.now)] += 1
        match order:
            case Fetch():
                self._fetch(order)
            case Shorten():
                lane = self.lanes[order.number]
                assert lane.asked_to_stop is None
                assert lane.position <= order.stop < lane.stop
                lane.asked_to_stop = order.stop
                if self.prompt:
                    self._shorten(lane)
            case Cancel():
                self.lanes[order.number].cancelled = True
            case Forget():
                self._forget(order)
            case Retry():
                self.set_aside[order.place] = self.now + order.in_s
            case Lied():
                assert order.source in self.works[order.blob].wronged, "a slander"
                assert order.source not in self.lied
                self.lied[order.source] = self.now
            case Struck() | Returned():
                assert order.source in self.sources
            case GiveUp():
                assert order.blob in self.active
                self._end(order.blob, order.error)

    def _fetch(self, order: Fetch) -> None:
        work, limits = self.works[order.blob], self.limits
        assert order.blob in self.active
        assert order.number not in self.lanes
        assert order.range
        assert list(work.landed.gaps(order.range)) == [order.range], "landed already"
        for other in self.lanes.values():
            done = other.position == other.stop
            apart = done or order.range.stop <= other.position or other.stop <= order.range.start
            assert other.order.blob != order.blob or apart, "two lanes on one byte"
        if order.whole:
            assert not work.landed
            assert order.range == Range(0, work.blob.size)
        else:
            # Word of hashing from before a forget may be on its way still: what the plan believes counts.
            frontier = max(work.frontier, self.plan._blobs[order.blob].frontier)
            near = order.range.stop <= frontier + limits.window_bytes
            assert near or any(one.start <= order.range.start < one.stop for _, one in work.blob.wishes)
        assert limits.patience_s <= order.patience_s <= limits.patience_most_s
        assert order.place in self.known
        assert self.set_aside.get(order.place, 0.0) <= self.now + 1e-6, "asked while set aside"
        if order.place.host:
            there = sum(lane.place.host == order.place.host for lane in self.lanes.values())
            assert there < limits.lanes_per_host
        source = self.sources[order.place.source]
        opens_at = self.now + source.first_byte_s
        place, position, stop = order.place, order.range.start, order.range.stop
        self.lanes[order.number] = _Lane(order, source, place, position, stop, self.now, opens_at)

    def _forget(self, order: Forget) -> None:
        work = self.works[order.blob]
        before = work.landed.total
        for one in order.ranges:
            for known in (work.landed, work.resumed, work.wrong):
                known.remove(one)
        work.forgotten += before - work.landed.total
        work.frontier = 0

    # What must hold at any time

    def _check(self) -> None:
        assert len(self.lanes) <= self.limits.lanes_most
        self.most_lanes = max(self.most_lanes, len(self.lanes))
        assert self.orders_of_second[int(self.now)] <= 60 * (self.limits.lanes_most + len(self.works))
        plan = self.plan
        assert set(plan._blobs) == set(self.active)
        assert set(plan._assignments) == set(self.lanes)
        for name, blob in plan._blobs.items():
            work = self.works[name]
            assert blob.landed == work.landed
            live = [lane for lane in self.lanes.values() if lane.order.blob == name]
            assert blob.assigned == len(live)
            taken = work.landed.copy()
            for lane in live:
                taken.add(Range(lane.position, lane.stop))
            assert blob._taken == taken, "a byte is lost or held twice"
            held = sum(lane.stop - lane.position for lane in live)
            assert taken.total == work.landed.total + held
            assert blob.frontier <= work.landed.end_of_run(0)
        busy = Counter(lane.place for lane in self.lanes.values())
        records = plan._places._records.items()
        assert {place: record.busy for place, record in records if record.busy} == busy

    def fetches(self) -> list[tuple[float, Fetch]]:
        """When which lane was sent where."""
        return [(at, order) for at, order in self.log if isinstance(order, Fetch)]

    def check_published(self, name: str) -> None:
        work = self.works[name]
        assert work.outcome == "published", f"{name}: {work.outcome!r}"
        assert work.fetched == work.blob.size - RangeSet(work.blob.have).total + work.forgotten
