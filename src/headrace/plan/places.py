"""What is known of each place, and which one to ask next.

Theory of operation. A lane goes where another one would bring most: to the place with the best rate for the lanes
that are there. What was never measured is given the benefit of the doubt, but of a host with several addresses all
lanes go to the one that answered first, and one lane tries each of the others with little, until it is known what
they bring: one that crawls costs a lane and a small segment, not half of all. A place that failed is tried by one
lane too, before others follow.

A place is parked, that is gets no lane, where its least segment would end long after everything else, or where
all the lanes it may have would not bring a thirtieth of what comes. The best place is never parked. One that is
parked as too slow is tried again now and then: it may have been a bad time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from headrace.errors import HeadraceError, SourceError, Stalled
from headrace.plan.limits import Limits
from headrace.plan.orders import Place
from headrace.plan.retry import pause_s

_SMOOTHING = 0.3  # weight of the newest measurement in the running means
_HOSTS_KEPT = 64  # some sources answer from ever new hosts
_WORTH = 0.03  # of all that comes: who brings less together is not worth its requests
_TRIED_AGAIN_S = 20.0  # after so long a place that was too slow may have become better
_PROBED_S = 4.0  # nearer to the end a place that failed is not tried any more: it would only keep bytes
_LATE = 1.5  # times the end of everything else, and …
_LATE_S = 0.25  # … so much: an end that is estimated is not exact

Door = tuple[str, str]
"""A source, and the host that is known to answer for it (empty where none is yet)."""


@dataclass(frozen=True)
class Outlook:
    """What all lanes bring together, bytes/s, and for how many seconds there is something left at that rate."""

    rate: float = 0.0
    left_s: float = float("inf")


UNKNOWN = Outlook()


@dataclass
class _Record:
    busy: int = 0
    tried_at: float = float("-inf")  # when a lane was last sent there
    failures: int = 0  # in a row, since the last byte
    silences: int = 0
    until: float = float("-inf")  # set aside until then
    asked_s: float = 0.0  # the rest it asked for itself
    rate: float = 0.0  # bytes/s of one lane
    first_byte_s: float = 0.0
    parked: bool = False  # too slow to be of use

    def ready(self, now: float) -> bool:
        """Whether a lane may be sent there; after a failure one lane tries it before others follow."""
        return self.until <= now and not (self.failures and self.busy)


class Places:
    """Keeps a record per place. The addresses of one host are judged each for itself: they differ in speed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._records: dict[Place, _Record] = {}
        self._addresses: dict[Door, tuple[Place, ...]] = {}  # the one that answered first is first
        self._at_source: Counter[str] = Counter()
        self._at_host: Counter[str] = Counter()
        self._complaints: dict[str, HeadraceError] = {}  # source → its last error, until it delivers again

    def taken(self, place: Place, now: float = 0.0) -> None:
        """A lane was sent there."""
        self._of(place).tried_at = now
        self._count(place, 1)

    def left(self, place: Place) -> None:
        """A lane came back from there."""
        self._count(place, -1)

    def moved(self, asked: Place, found: Place, siblings: Sequence[str], first_byte_s: float) -> None:
        """A lane sent to `asked` is being answered by `found`; where they differ the asked one led there."""
        record = self._of(found)
        record.tried_at = max(record.tried_at, self._of(asked).tried_at)
        self._count(asked, -1)
        self._count(found, 1)
        record.first_byte_s = _mean(record.first_byte_s, first_byte_s)
        if found.host:
            first = self._behind((found.source, found.host))[0].address
            kept = [first] if first in siblings else []
            addresses = dict.fromkeys((*kept, found.address, *siblings))
            self._learn(found, tuple(Place(found.source, found.host, one) for one in addresses))

    def delivered(self, place: Place, rate: float) -> bool:
        """Bytes came: the place is well, at `rate` bytes/s on this lane (0: too early to say).

        Whether it was not well before is the answer.
        """
        record = self._of(place)
        if rate:
            record.rate = _mean(record.rate, rate)
        if not record.failures and place.source not in self._complaints:
            return False
        for healed in (record, self._of(Place(place.source))):
            healed.failures = healed.silences = 0
        self._complaints.pop(place.source, None)
        return True

    def disappointed(self, place: Place, rate: float) -> None:
        """A lane there was too slow to be waited for, and the reason may lie there."""
        record = self._of(place)
        record.rate += _SMOOTHING * (rate - record.rate)

    def failed(
        self, place: Place, error: SourceError, now: float, chance: float, least_s: float = 0.0
    ) -> float:
        """Set the place aside; for how many seconds is the answer, at least `least_s`.

        Lanes that fail together have failed once.
        """
        record = self._of(place)
        if record.until <= now:
            record.failures += 1
            record.silences += isinstance(error, Stalled)
            if place.host:
                self._of(Place(place.source)).failures += 1
        self._complaints[place.source] = error
        asked_s = error.retry_after_s
        wait = pause_s(
            max(1, record.failures), chance=chance, most_s=self._limits.pause_most_s, asked_s=asked_s
        )
        wait = max(wait, least_s)
        if now + wait > record.until:
            record.until, record.asked_s = now + wait, asked_s or 0.0
        if asked_s is not None and self.lost((place.source, place.host), now):
            # Whoever was not led to this host yet would be led there now.
            entrance = self._of(Place(place.source))
            entrance.until, entrance.asked_s = max(entrance.until, record.until), record.asked_s
        return record.until - now

    def choose(
        self, doors: Iterable[Door], now: float, outlook: Outlook = UNKNOWN, full: Collection[str] = ()
    ) -> Place | None:
        """Where to send one more lane, or None while none of the `doors` may be asked; `full` are sources that may not.

        The place that would serve another lane best: rate over lanes, where an unmeasured one is given the
        benefit of the doubt, and a source's failures in a row weigh like lanes; among equals the first.
        """
        ready: list[tuple[_Record, int, Place]] = []
        best = self._best(doors := tuple(doors))
        for source, host in doors:
            room = source not in full and self._room(source, host)
            unproven = self._of(Place(source)).failures
            places = self._behind((source, host))
            for place in places if room else ():
                record = self._of(place)
                if record.ready(now) and self._may_follow(place, places[0], now):
                    ready.append((record, 1 + record.busy + unproven, place))
        ready = [known for known in ready if not self._is_parked(known[0], best, now, outlook)]
        if not ready:
            return None
        usual = best.rate or 1.0
        return max(ready, key=lambda known: (known[0].rate or usual) / known[1])[2]

    def _best(self, doors: Iterable[Door]) -> _Record:
        """What is known of the place with the best rate, of those that do not fail."""
        records = (self._of(place) for door in doors for place in self._behind(door))
        return max((one for one in records if not one.failures), key=lambda one: one.rate, default=_Record())

    def is_on_trial(self, place: Place) -> bool:
        """Whether little is to be asked for there: it failed, was too slow, or a sibling is known and it is not."""
        record = self._of(place)
        siblings = self._behind((place.source, place.host))
        unknown = not record.rate and place != siblings[0]
        return bool(record.failures) or unknown or record.parked

    def has_siblings(self, place: Place) -> bool:
        """Whether its host has other addresses."""
        return len(self._behind((place.source, place.host))) > 1

    def best_sibling(self, place: Place, now: float) -> Place | None:
        """The address of the same host that brings most and may be asked, where there are others."""
        siblings = self._behind((place.source, place.host))
        if len(siblings) < 2:  # noqa: PLR2004  # itself
            return None
        ready = [one for one in siblings if one != place and self._of(one).ready(now)]
        return max(ready, key=self.rate, default=None)

    def silences(self, place: Place) -> int:
        """How often it was silent, in a row."""
        return self._of(place).silences

    def _may_follow(self, place: Place, first: Place, now: float) -> bool:
        """Whether a lane may join those that are there: many only where something is known of what it brings."""
        record = self._of(place)
        return bool(record.rate) or not record.busy or place == first or not self._of(first).ready(now)

    def _is_parked(self, record: _Record, best: _Record, now: float, outlook: Outlook) -> bool:
        record.parked = False
        if not best.rate or record is best:
            return False
        if record.failures and outlook.left_s < _PROBED_S:
            return True
        if not record.rate:
            return False
        least = self._limits.segment_least_bytes
        here_s = record.first_byte_s + least / record.rate
        there_s = outlook.left_s + best.first_byte_s + least / best.rate
        if here_s > _LATE * there_s + _LATE_S:
            return True
        if record.rate * self._limits.lanes_per_host >= _WORTH * outlook.rate:
            return False
        record.parked = True
        return bool(record.busy) or now - record.tried_at < _TRIED_AGAIN_S

    def rest(self, doors: Iterable[Door], now: float) -> tuple[float, float]:
        """When the first of these may be asked again, and the pause it asked for (0: none); (now, 0) if some may."""
        records = [self._of(place) for door in doors for place in self._behind(door)]
        if not records or any(record.ready(now) for record in records):
            return now, 0.0
        first = min(records, key=lambda record: record.until)
        return first.until, first.asked_s

    def lost(self, door: Door, now: float) -> bool:
        """Whether no address of this host may be asked: another host may answer by now."""
        return not any(self._of(place).ready(now) for place in self._behind(door))

    def complaint(self, source: str) -> HeadraceError | None:
        """The last error there since it last delivered."""
        return self._complaints.get(source)

    def lanes(self, source: str) -> int:
        """Lanes at work there."""
        return self._at_source[source]

    def patience_s(self, place: Place) -> float:
        """How long silence is borne there; the longer, the more often the place was silent without a byte between."""
        longest = self._limits.patience_most_s
        return min(longest, self._limits.patience_s * 2.0 ** min(self._of(place).silences, 8))

    def rate(self, place: Place) -> float:
        """Bytes/s one lane gets there; 0 where nothing was measured."""
        return self._of(place).rate

    def first_byte_s(self, place: Place) -> float:
        """Seconds from request to first byte there; 0 where nothing was measured."""
        return self._of(place).first_byte_s

    def _room(self, source: str, host: str) -> bool:
        """Whether the host has a lane left; lanes that still look for their host may all be led to this one."""
        most = self._limits.lanes_per_host
        if not host:
            return self._at_source[source] < most
        return self._at_host[host] + self._of(Place(source)).busy < most

    def _behind(self, door: Door) -> tuple[Place, ...]:
        return self._addresses.get(door) or (Place(door[0]),)

    def _learn(self, found: Place, addresses: tuple[Place, ...]) -> None:
        door = (found.source, found.host)
        gone = set(self._addresses.pop(door, ())).difference(addresses)
        self._addresses[door] = addresses
        if len(self._addresses) > _HOSTS_KEPT:
            gone.update(self._addresses.pop(next(iter(self._addresses))))
        for place in gone:
            if not self._of(place).busy:
                del self._records[place]

    def _count(self, place: Place, lanes: int) -> None:
        self._of(place).busy += lanes
        self._at_source[place.source] += lanes
        if place.host:
            self._at_host[place.host] += lanes
            if not self._at_host[place.host]:
                del self._at_host[place.host]

    def _of(self, place: Place) -> _Record:
        record = self._records.get(place)
        if record is None:
            record = self._records[place] = _Record()
        return record


def _mean(old: float, new: float) -> float:
    return new if old == 0 else old + _SMOOTHING * (new - old)
