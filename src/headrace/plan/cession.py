"""Which lane is ceded to a blob that has none, where blobs are wanted by different people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from headrace.plan.assignment import Assignment
from headrace.plan.blob import BlobPlan
from headrace.plan.limits import Limits
from headrace.plan.orders import Order, Shorten
from headrace.plan.places import Places

_SOON_S = 0.2  # how long a blob without a lane may wait for one, and hardly anybody notices


class Cessions:
    """Finds lanes to be ceded."""

    def __init__(self, limits: Limits, places: Places) -> None:
        self._limits = limits
        self._places = places

    def orders(
        self, blobs: Mapping[str, BlobPlan], assignments: Collection[Assignment], now: float
    ) -> Iterator[Order]:
        """A blob without a lane gets one from whoever has most, now and not when a long segment ends."""
        starved = sum(self._starves(blob, now) for blob in blobs.values())
        owed = sum(one.shortening for one in assignments)
        for _ in range(starved - owed):
            richest = max(blobs.values(), key=lambda blob: blob.assigned)
            lanes = [one for one in assignments if one.blob is richest and not one.shortening]
            able = [one for one in lanes if one.can_stop(now) and _lasts(one, now)]
            if len(lanes) <= 1 or not able:
                return
            ceding = max(able, key=lambda one: len(one.left))
            ceding.shortening = True
            yield Shorten(ceding.number, ceding.position)

    def _starves(self, blob: BlobPlan, now: float) -> bool:
        if blob.assigned or blob.complete or blob.free(self._limits) is None:
            return False
        return self._places.choose(blob.doors(whole=False), now) is not None


def _lasts(one: Assignment, now: float) -> bool:
    """Whether its lane would not be free soon by itself: stopped, what is on its way to it is sent in vain."""
    rate = one.rate(now)
    return rate > 0 and len(one.left) > rate * _SOON_S
