"""Which lane is ceded to a reader that waits, and where different people want them, to a blob that has none.

What is on its way to a lane that is told to stop is sent in vain, so none is that would be free in a moment anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from headrace.plan.assignment import Assignment, rate_of
from headrace.plan.blob import BlobPlan
from headrace.plan.limits import Limits
from headrace.plan.orders import Order, Shorten
from headrace.plan.places import Places

_SOON_S = 0.2  # how long a blob without a lane may wait for one, and hardly anybody notices …
_PATIENT_S = 1.0  # … or so long, where more than a small share of a blob would be sent in vain
_LATE_S = 0.5  # a lane that will be where a reader waits only after this lets go of it …
_MUCH_S = 2.0  # … or after this


class Cessions:
    """Finds lanes to be ceded."""

    def __init__(self, limits: Limits, places: Places) -> None:
        self._limits = limits
        self._places = places

    def orders(
        self, blobs: Mapping[str, BlobPlan], assignments: Collection[Assignment], now: float
    ) -> Iterator[Order]:
        """A reader that waits for what nobody fetches gets a lane from whoever has most, now and not when a long segment ends.

        So does, among different people, a blob without one. The blobs of one person have their turns: there readers
        get half of the lanes at most.
        """
        for blob in blobs.values():
            yield from self._let_go(blob, assignments, now)
        starved = sum(self._starves(blob, now) for blob in blobs.values())
        if not self._limits.fair:
            starved = min(starved, len(assignments) // 2 - sum(one.wished for one in assignments))
        owed = sum(one.ceded for one in assignments)
        for wanted in range(1, starved - owed + 1):
            richest = max(blobs.values(), key=lambda blob: blob.assigned)
            ceding = self._ceding([one for one in assignments if one.blob is richest and not one.ceded], now)
            if ceding is None:
                return
            patience_s = _PATIENT_S if self._is_much(ceding, ceding.position) else _SOON_S
            soon = [one for one in assignments if not one.ceded and one.ends_within(patience_s, now)]
            if wanted > len(soon):
                ceding.ceded = True
                yield _stop(ceding, ceding.position)

    def _ceding(self, lanes: Collection[Assignment], now: float) -> Assignment | None:
        """Which of a blob's would be ceded; it keeps one."""
        able = [one for one in lanes if not one.wished and one.can_stop(now) and one.lasts(_SOON_S, now)]
        return max(able, key=lambda one: len(one.left)) if able and len(lanes) > 1 else None

    def _starves(self, blob: BlobPlan, now: float) -> bool:
        wants = blob.is_waited_for(now) or (
            self._limits.fair and not (blob.assigned or blob.complete or blob.free(self._limits) is None)
        )
        doors = blob.doors(whole=False) if wants else []
        # That its host has no lane left is no reason not to: it gets the one that is ceded.
        return bool(doors) and self._places.rest(doors, now) == (now, 0.0)

    def _let_go(self, blob: BlobPlan, assignments: Collection[Assignment], now: float) -> Iterator[Order]:
        """Have lanes that will be late where readers wait end there, so that others can begin."""
        for point in blob.wishes.points(blob.landed):
            for one in assignments:
                if one.blob is blob and one.position < point < one.stop and one.can_stop(now):
                    rate = rate_of(one, self._places, now)
                    late_s = _MUCH_S if self._is_much(one, point) else _LATE_S
                    if rate and point - one.position > rate * late_s:
                        yield _stop(one, point)

    def _is_much(self, one: Assignment, stop: int) -> bool:
        """Whether one person, who wants all of the blob soon, would have more than a small share of it sent in vain."""
        return not (self._limits.fair or one.blob.affords(one.vain_bytes(stop)))


def _stop(one: Assignment, stop: int) -> Order:
    one.shortening = True
    one.blob.vain_bytes += one.vain_bytes(stop)
    return Shorten(one.number, stop)
