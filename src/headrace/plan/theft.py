"""What an idle lane takes from one that is at work.

Theory of operation. With no free bytes left, an idle lane relieves the assignment where that wins most time. The
one that is relieved keeps what it will have brought when the helper, after its first byte, has brought the rest: so
both end together, whatever their speeds and wherever they are. Little is taken from equals, since a request costs
more than it brings; from a lane at a place half as fast or slower even small pieces are worth one, at the end, when
everybody waits for it. What is on its way in vain counts, too, where blobs are wanted by different people, or where
a helper would use the same line: no more of it than a small share of the blob, unless much is won. Where bytes cannot
be divided any more, a connection that crawls is dropped and its rest fetched anew, if that is sure to win.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import NamedTuple

from headrace.plan.assignment import Assignment, rate_of
from headrace.plan.hosts import Hosts
from headrace.plan.limits import Limits
from headrace.plan.orders import Cancel, Order, Place, Shorten
from headrace.plan.places import Outlook, Places

_RELIEVED_S = 0.1  # taking bytes from a lane must win more: what is on its way to it already is sent in vain
_MUCH_S = 2.0  # more than a small share of a blob is sent in vain only where so much is won …
_SOME_S = 0.5  # … or so much, where one person wants the bytes and the helper shares the laggard's line
_RECALLED_S = 2.0  # dropping a connection that works must win more than this; no younger one is dropped
_FASTER = 2.0  # a helper so much faster is worth a request for a piece …
_PIECES = 8  # … of this part of what usually is
_CRAWLS = 20.0  # an address whose lanes are slower than those of another by this factor is left


@dataclass(frozen=True)
class Helper:
    """What may be expected of the place where an idle lane would go: bytes/s, and seconds to a first byte.

    `elsewhere`: it is another place than the laggard's. One place's lanes differ for reasons that a fresh one shares.
    """

    rate: float
    first_byte_s: float
    elsewhere: bool = True


@dataclass(frozen=True)
class Laggard:
    """An assignment that may be relieved.

    Attributes:
        left: bytes that it has still to bring.
        rate: bytes/s, not below 1.
        age_s: since its first byte.
        recalls: how many of its blob's lanes were recalled in vain.
    """

    left: int
    rate: float
    age_s: float
    recalls: int


def kept_bytes(laggard: Laggard, helper: Helper, least_bytes: float) -> int | None:
    """How many bytes a laggard keeps so that both end together; None where they cannot be divided."""
    if laggard.left < 2 * least_bytes:
        return None
    even = laggard.rate * (helper.first_byte_s * helper.rate + laggard.left) / (laggard.rate + helper.rate)
    return min(int(even), laggard.left - int(least_bytes))


def gain_s(laggard: Laggard, helper: Helper, kept: int | None) -> float:
    """Seconds won by relieving the laggard so that it keeps `kept` bytes; not above 0 where it may not be."""
    alone = laggard.left / laggard.rate
    if kept is not None:
        helped = helper.first_byte_s + (laggard.left - kept) / helper.rate
        return alone - max(kept / laggard.rate, helped) - _RELIEVED_S
    if laggard.age_s < _RECALLED_S * 2.0 ** min(laggard.recalls, 6):
        return 0.0
    return alone - 2 * (helper.first_byte_s + laggard.left / helper.rate) - _RECALLED_S


def best_relief(laggard: Laggard, helper: Helper, least_bytes: int) -> tuple[float, int | None]:
    """The seconds won in the best way, and what the laggard keeps then."""
    kept = kept_bytes(laggard, helper, least_bytes)
    gain = gain_s(laggard, helper, kept)
    if kept is None and gain <= 0 and helper.elsewhere and helper.rate >= _FASTER * laggard.rate:
        kept = kept_bytes(laggard, helper, least_bytes / _PIECES)
        gain = gain_s(laggard, helper, kept)
    return gain, kept


class _Relief(NamedTuple):
    """A theft that would gain."""

    gain_s: float
    number: int
    kept: int | None
    helper: Place


class Thefts:
    """Finds what idle lanes should take, and which lanes should stop where there are too many."""

    def __init__(self, limits: Limits, places: Places, hosts: Hosts) -> None:
        self._limits = limits
        self._places = places
        self._hosts = hosts

    def orders(self, assignments: dict[int, Assignment], outlook: Outlook, now: float) -> Iterator[Order]:
        """Relieve those where it wins most; each idle lane helps one."""
        owed = Counter(one.helper for one in assignments.values() if one.helper)
        idle = self._hosts.idle - owed.total()
        while idle > 0:
            full = {*self._hosts.full, *(one for one in owed if self._hosts.room(one) <= owed[one])}
            best = max(self._reliefs(assignments.values(), outlook, full, now), default=None)
            if best is None:
                return
            owed[best.helper.source] += 1
            idle -= 1
            yield self._relieve(assignments[best.number], best, now)

    def retreats(self, assignments: Collection[Assignment], now: float) -> Iterator[Order]:
        """Where fewer lanes are allowed than are at work, the slowest stop now and not when a long segment ends.

        Where different people want the bytes, short ones end: what is on its way would be sent in vain. So do those at
        an address that crawls, where the host has another: they would hold places in vain.
        """
        for gate in self._hosts.gates:
            if self._hosts.busy(gate) <= gate.governor.allowed:
                continue
            lanes = [one for one in assignments if one.place.source in gate.sources and not one.leaves]
            able = [
                one
                for one in lanes
                if one.can_stop(now) and (not self._limits.fair or one.lasts(_MUCH_S, now))
            ]
            surplus = max(0, len(lanes) - gate.governor.allowed)
            for one in nsmallest(surplus, able, key=lambda one: rate_of(one, self._places, now)):
                one.shortening = True
                yield Shorten(one.number, one.position)
        for one in assignments:
            if one.is_settled(now) and one.can_stop(now) and self._crawls(one.place, now):
                one.shortening = True
                yield Shorten(one.number, one.position)

    def _crawls(self, place: Place, now: float) -> bool:
        best = self._places.best_sibling(place, now)
        return best is not None and _CRAWLS * self._places.rate(place) < self._places.rate(best)

    def _reliefs(
        self, assignments: Collection[Assignment], outlook: Outlook, full: Collection[str], now: float
    ) -> Iterator[_Relief]:
        helpers: dict[str, Place | None] = {}
        for one in assignments:
            if one.leaves or one.blob.dead or one.has_refused(now):
                continue
            if one.blob.key not in helpers:
                doors = one.blob.doors(whole=False)
                helpers[one.blob.key] = self._places.choose(doors, now, outlook, full)
            relief = self._relief(one, helpers[one.blob.key], now)
            if relief is not None:
                yield relief

    def _relief(self, one: Assignment, place: Place | None, now: float) -> _Relief | None:
        """What is won if an idle lane went to this place and relieved an assignment there; None if nothing is."""
        if place is None or one.opened_at is None or self._places.is_on_trial(place):
            return None
        rate = rate_of(one, self._places, now)
        if not rate and not one.is_settled(now):
            return None
        laggard = Laggard(len(one.left), max(rate, 1.0), now - one.opened_at, one.blob.recalls)
        first_byte_s = self._places.first_byte_s(place)
        helper = Helper(self._places.rate(place) or rate or 1.0, first_byte_s, place != one.place)
        gain, kept = best_relief(laggard, helper, self._limits.segment_least_bytes)
        worth = gain > (0.0 if self._may_waste(one, kept) else self._much_s(one, place))
        return _Relief(gain, one.number, kept, place) if worth else None

    def _may_waste(self, one: Assignment, kept: int | None) -> bool:
        return one.blob.affords(one.vain_bytes(one.position + (kept or 0)))

    def _much_s(self, one: Assignment, place: Place) -> float:
        if self._limits.fair:
            return _MUCH_S
        return _SOME_S if place == one.place else 0.0

    def _relieve(self, one: Assignment, relief: _Relief, now: float) -> Order:
        one.helper = relief.helper.source
        one.blob.vain_bytes += one.vain_bytes(one.position + (relief.kept or 0))
        if relief.kept is not None:
            one.shortening = True
            return Shorten(one.number, one.position + relief.kept)
        one.recalled = True
        one.blob.recalls += one.fruitless
        self._places.disappointed(one.place, one.rate(now))
        return Cancel(one.number)
