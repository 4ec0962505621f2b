"""The account of a pull: what each source did, at what rate, and why not more; from its events, each with its time.

All times are seconds, sizes bytes, rates bytes a second. A source is at work while any of its answers is under way,
so its rate is what it gave over that time, whatever the others did meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from headrace.events import (
    BlobPublished,
    BlobRepaired,
    BytesForgotten,
    BytesLanded,
    Event,
    Explained,
    SegmentClosed,
    SegmentFailed,
    SegmentOpened,
    SourceLied,
    SourceStruck,
)
from headrace.ranges import Range, RangeSet

_TELLING_S = 1.0  # a source that was at work for less showed no rate to reckon with
_TELLING_SHARE = 0.05  # nor one that gave less of the bytes
_WORTH_S = 1.0  # less is not worth the word "saved"
_SELF_INFLICTED = frozenset({"interrupted"})  # codes of answers that we dropped ourselves
_REASONS_MOST = 4


@dataclass(frozen=True)
class SourceAccount:
    """What one source did.

    Attributes:
        bytes: all that came from it, what was fetched again among them.
        share: of the bytes of all sources, 0 to 1.
        work_s: for how long any of its answers was under way.
        rate: bytes a second while it was at work; 0 where it gave nothing.
        lanes_most: how many of its answers were under way at once.
        first_byte_s: the mean wait for the first byte of an answer; 0 where none began.
        answers: how many began.
        retries: failures after which it was asked again.
        segments_given_away: how often others were given what it had not sent yet.
        refetched_bytes: bytes it gave that were not believed, and fetched again.
        lied_about: a file of which it gave wrong bytes, others giving right ones; empty if there is none.
        reasons: why it was of no use for some file, or for all: what was said first of each kind.
        trouble: the last failure, in words.
    """

    name: str
    bytes: int
    share: float
    work_s: float
    rate: float
    lanes_most: int
    first_byte_s: float
    answers: int
    retries: int
    segments_given_away: int
    refetched_bytes: int
    lied_about: str
    reasons: tuple[str, ...]
    trouble: str


@dataclass(frozen=True)
class Account:
    """What all sources did; `best` and `saved_s` as in `Explained`."""

    sources: tuple[SourceAccount, ...]
    seconds: float
    retries: int
    refetched_bytes: int
    best: str
    saved_s: float
    repairs: tuple[BlobRepaired, ...] = ()

    def event(self) -> Explained:
        """The account, as it is told."""
        records = {one.name: _record(one) for one in self.sources}
        return Explained(
            round(self.seconds, 3),
            self.retries,
            self.refetched_bytes,
            self.best,
            round(self.saved_s, 1),
            records,
            tuple(_repair(one) for one in self.repairs),
        )


@dataclass
class _Ledger:
    """What is known of one source while the pull lasts."""

    bytes: int = 0
    lanes: int = 0
    lanes_most: int = 0
    busy_since: float = 0.0
    idle_since: float = float("-inf")
    work_s: float = 0.0
    answers: int = 0
    waited_s: float = 0.0
    retries: int = 0
    given_away: int = 0
    refetched: int = 0
    lied_about: str = ""
    reasons: dict[str, str] = field(default_factory=dict)
    trouble: str = ""

    def opened(self, now: float, first_byte_s: float) -> None:
        if not self.lanes:
            # Its wait may have begun while another answer was under way: that time is counted already.
            self.busy_since = max(now - first_byte_s, self.idle_since)
        self.lanes += 1
        self.lanes_most = max(self.lanes_most, self.lanes)
        self.answers += 1
        self.waited_s += first_byte_s

    def closed(self, now: float) -> None:
        if self.lanes:  # an answer that failed before it began was not counted
            self.lanes -= 1
            if not self.lanes:
                self.work_s += now - self.busy_since
                self.idle_since = now

    def worked_s(self, now: float) -> float:
        return self.work_s + (now - self.busy_since if self.lanes else 0.0)


class Bookkeeper:
    """Keeps the account. `names` are the sources that may be asked, the most trusted first.

    For one thread: that which emits the events of an engine.
    """

    def __init__(self, names: Iterable[str], now: float) -> None:
        self._began = self._now = now
        self._ledgers = {name: _Ledger() for name in names}
        self._open: dict[tuple[str, str, int], None] = {}  # digest, source, start: answers under way
        self._given: dict[str, dict[str, RangeSet]] = {}  # digest → source → what is here from it
        self._refetched = 0
        self._repairs: list[BlobRepaired] = []
        self._takers: dict[type[Event], Callable[[Any], None]] = {
            SegmentOpened: self._segment_opened,
            SegmentClosed: self._segment_closed,
            BytesLanded: self._bytes_landed,
            BytesForgotten: self._bytes_forgotten,
            SegmentFailed: self._segment_failed,
            SourceStruck: self._source_struck,
            SourceLied: self._source_lied,
            BlobPublished: self._blob_published,
            BlobRepaired: self._repairs.append,
        }

    def take(self, event: Event, now: float) -> None:
        """Enter an event."""
        taker = self._takers.get(type(event))
        if taker is not None:
            self._now = now
            taker(event)

    def account(self, now: float) -> Account:
        """What it has come to."""
        total = sum(one.bytes for one in self._ledgers.values())
        sources = tuple(_closed_account(name, one, total, now) for name, one in self._ledgers.items())
        seconds = now - self._began
        best, saved_s = _saved(sources, total - self._refetched, seconds)
        retries = sum(one.retries for one in sources)
        return Account(sources, seconds, retries, self._refetched, best, saved_s, tuple(self._repairs))

    def _of(self, source: str) -> _Ledger:
        return self._ledgers.setdefault(source, _Ledger())

    def _segment_opened(self, event: SegmentOpened) -> None:
        self._open[event.digest, event.source, event.start] = None
        self._of(event.source).opened(self._now, event.first_byte_s)

    def _segment_closed(self, event: SegmentClosed) -> None:
        ledger = self._of(event.source)
        if (event.digest, event.source, event.start) in self._open:
            del self._open[event.digest, event.source, event.start]
            ledger.closed(self._now)
        if event.reached < event.stop and (not event.code or event.code in _SELF_INFLICTED):
            ledger.given_away += 1

    def _bytes_landed(self, event: BytesLanded) -> None:
        self._of(event.source).bytes += event.stop - event.start
        given = self._given.setdefault(event.digest, {}).setdefault(event.source, RangeSet())
        given.add(Range(event.start, event.stop))

    def _bytes_forgotten(self, event: BytesForgotten) -> None:
        self._refetched += event.stop - event.start
        for source, given in self._given.get(event.digest, {}).items():
            before = given.total
            given.remove(Range(event.start, event.stop))
            self._of(source).refetched += before - given.total

    def _segment_failed(self, event: SegmentFailed) -> None:
        ledger = self._of(event.source)
        ledger.retries += 1
        ledger.trouble = event.message

    def _source_struck(self, event: SourceStruck) -> None:
        reasons = self._of(event.source).reasons
        if len(reasons) < _REASONS_MOST:
            reasons.setdefault(event.code, event.message)

    def _source_lied(self, event: SourceLied) -> None:
        self._of(event.source).lied_about = event.path

    def _blob_published(self, event: BlobPublished) -> None:
        self._given.pop(event.digest, None)


def _closed_account(name: str, one: _Ledger, total: int, now: float) -> SourceAccount:
    work_s = one.worked_s(now)
    return SourceAccount(
        name=name,
        bytes=one.bytes,
        share=one.bytes / total if total else 0.0,
        work_s=work_s,
        rate=one.bytes / work_s if one.bytes and work_s > 0 else 0.0,
        lanes_most=one.lanes_most,
        first_byte_s=one.waited_s / one.answers if one.answers else 0.0,
        answers=one.answers,
        retries=one.retries,
        segments_given_away=one.given_away,
        refetched_bytes=one.refetched,
        lied_about=one.lied_about,
        reasons=tuple(one.reasons.values()),
        trouble=one.trouble,
    )


def _saved(sources: tuple[SourceAccount, ...], needed: int, seconds: float) -> tuple[str, float]:
    """The best source and what was saved against it alone; ("", 0) where that cannot be told.

    Alone it would have taken as long as the bytes take at the rate it showed. Where all share one narrow line that
    is too long, as none shows what it could do alone: hence "about", and nothing where the sum is hardly more.
    """
    honest = [one for one in sources if one.bytes and not one.lied_about]
    proven = [one for one in honest if one.work_s >= _TELLING_S and one.share >= _TELLING_SHARE]
    if len(honest) < 2 or not proven:  # noqa: PLR2004 - against an only source there is nothing to compare
        return "", 0.0
    best = max(proven, key=lambda one: one.rate)
    saved_s = needed / best.rate - seconds
    return (best.name, saved_s) if saved_s >= _WORTH_S else ("", 0.0)


def _repair(one: BlobRepaired) -> dict[str, Any]:
    told = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    return told | {"gave": dict(one.gave), "mended": dict(one.mended)}


def _record(one: SourceAccount) -> dict[str, Any]:
    rounded = {"share": round(one.share, 4), "work_s": round(one.work_s, 3), "rate": round(one.rate)}
    record = dataclasses.asdict(one) | rounded | {"first_byte_s": round(one.first_byte_s, 4)}
    del record["name"]
    return record
