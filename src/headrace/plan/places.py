"""What is known of each place, and which one to ask next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.errors import HeadraceError, SourceError, Stalled
from headrace.plan.limits import Limits
from headrace.plan.orders import Place
from headrace.plan.retry import pause_s

_SMOOTHING = 0.3  # weight of the newest measurement in the running means


@dataclass
class _Record:
    busy: int = 0
    failures: int = 0  # in a row, since the last byte
    silences: int = 0
    until: float = 0.0  # set aside until then
    rate: float = 0.0  # bytes/s of one lane
    first_byte_s: float = 0.0


class Places:
    """Keeps a record per place. The addresses of one host are judged each for itself: they differ in speed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._records: dict[Place, _Record] = {}
        self._addresses: dict[tuple[str, str], tuple[str, ...]] = {}

    def taken(self, place: Place) -> None:
        """A lane was sent there."""
        self._of(place).busy += 1

    def left(self, place: Place) -> None:
        """A lane came back from there."""
        self._of(place).busy -= 1

    def moved(self, asked: Place, found: Place, siblings: Sequence[str], first_byte_s: float) -> None:
        """A lane sent to `asked` is being answered by `found`; where they differ the asked one led there."""
        self._addresses[found.source, found.host] = tuple(siblings)
        self.left(asked)
        self.taken(found)
        record = self._of(found)
        record.first_byte_s = _mean(record.first_byte_s, first_byte_s)

    def delivered(self, place: Place, rate: float) -> None:
        """Bytes came: the place is well, at `rate` bytes/s on this lane."""
        record = self._of(place)
        record.failures = record.silences = 0
        record.rate = _mean(record.rate, rate)
        self._of(Place(place.source)).failures = 0

    def failed(self, place: Place, error: HeadraceError, now: float, chance: float) -> float:
        """Set the place aside; for how many seconds is the answer."""
        record = self._of(place)
        record.failures += 1
        record.silences += isinstance(error, Stalled)
        asked_s = error.retry_after_s if isinstance(error, SourceError) else None
        wait = pause_s(record.failures, chance=chance, most_s=self._limits.pause_most_s, asked_s=asked_s)
        record.until = max(record.until, now + wait)
        return wait

    def choose(self, source: str, host: str, now: float) -> Place | None:
        """The place of this source and host to send one more lane to, or None while none may be asked.

        Of several addresses the one that would serve another lane best: rate over lanes, where an unmeasured
        address is given the benefit of the doubt.
        """
        addresses = self._addresses.get((source, host), ("",)) if host else ("",)
        places = [Place(source, host, address) for address in addresses]
        if self._of(Place(source)).until > now:
            return None
        if self._busy(source, host) >= self._limits.lanes_per_host:
            return None
        ready = [place for place in places if self._of(place).until <= now]
        best = max((self._of(place).rate for place in places), default=0.0) or 1.0
        return max(ready, key=lambda p: (self._of(p).rate or best) / (self._of(p).busy + 1), default=None)

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

    def _busy(self, source: str, host: str) -> int:
        """Lanes at a host; where it is not known yet, at the source, which may lead all of them to one host."""
        return sum(r.busy for p, r in self._records.items() if p.source == source and host in ("", p.host))

    def _of(self, place: Place) -> _Record:
        return self._records.setdefault(place, _Record())


def _mean(old: float, new: float) -> float:
    return new if old == 0 else old + _SMOOTHING * (new - old)
