"""How sources stand: who lied, who is back, who was struck for which reason; users hear of each matter once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from headrace.errors import HeadraceError
from headrace.plan.assignment import Assignment
from headrace.plan.blob import BlobPlan
from headrace.plan.limits import Limits
from headrace.plan.orders import Cancel, Forget, Lied, Matched, Order, Returned, Struck


class Standing:
    """What became known of the sources of one engine.

    Attributes:
        liars: those that gave wrong bytes where others gave right ones.
    """

    def __init__(self, limits: Limits) -> None:
        self._worth_telling_s = limits.patience_s  # a shorter absence nobody noticed
        self._cheap_bytes = limits.segment_bytes  # costs no more than a request
        self._failing_since: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()
        self.liars: set[str] = set()

    def struck(self, blob: BlobPlan, source: str, error: HeadraceError) -> Iterator[Order]:
        """A source cannot give a blob. Of an only source the error that ends the blob tells all there is."""
        if blob.has_choice and (source, error.code) not in self._told:
            self._told.add((source, error.code))
            yield Struck(blob.key, source, error)

    def failed(self, source: str, now: float) -> None:
        """A lane failed there."""
        self._failing_since.setdefault(source, now)

    def delivered(self, source: str, now: float) -> Iterator[Order]:
        """Bytes came from there."""
        since = self._failing_since.pop(source, now) if self._failing_since else now
        if now - since >= self._worth_telling_s:
            yield Returned(source, now - since)

    def matched(
        self, fact: Matched, blobs: Mapping[str, BlobPlan], assignments: Iterable[Assignment]
    ) -> Iterator[Order]:
        """A blob matched at last: who gave wrong bytes of it is set aside for all blobs, those to come among them."""
        blob = blobs.get(fact.blob)
        for lie in blob.matched(fact.lies) if blob is not None else ():
            if lie.source not in self.liars:
                self.liars.add(lie.source)
                yield Lied(fact.blob, lie.source, lie.bytes)
                yield from self._disowned(lie.source, blobs.values(), assignments)

    def _disowned(
        self, source: str, blobs: Iterable[BlobPlan], assignments: Iterable[Assignment]
    ) -> Iterator[Order]:
        for one in assignments:
            if one.place.source == source and source not in one.blob.sources and not one.recalled:
                one.recalled = True
                yield Cancel(one.number)
        for blob in blobs:
            again = blob.disown(source, self._cheap_bytes)
            if again is not None:
                yield Forget(blob.key, again)
