"""Wishes: bytes of a blob that somebody waits for, wherever in it they are.

Theory of operation. Whoever reads far from the frontier would wait for all that is before. So what such a reader
needs is fetched first, outside the window too, in pieces not longer than a usual segment. Where wishes and frontier
both want lanes, each gets every other one: who reads in order must not starve for those who do not. A wish for what
is next in order anyway is none. One in the midst of a segment on its way waits for the lane that has it if that is
there soon; otherwise the lane lets go of the rest. A wish is fulfilled when its bytes have landed, not before: a lane
that fails gives them back. Every other lane also goes to whichever blob somebody waits for, before the blobs' turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.ranges import Range, RangeSet

_KEPT = 256  # older wishes wait for their turn in the order of the file
_HEARD_S = 0.2  # so long a wish may wait for a lane that becomes free by itself


@dataclass(frozen=True)
class _Wish:
    range: Range
    since: float


class Wishes:
    """What readers of one blob wait for. `lanes` counts the lanes that were sent for it."""

    def __init__(self) -> None:
        self.lanes = 0
        self._wishes: list[_Wish] = []

    def __bool__(self) -> bool:
        return bool(self._wishes)

    def add(self, wanted: Range, now: float) -> None:
        """Somebody waits for the first of these bytes, and will want the others."""
        self._wishes = [*self._wishes, _Wish(wanted, now)][-_KEPT:]

    def points(self, landed: RangeSet) -> Iterator[int]:
        """Where readers wait; what has landed is forgotten."""
        if self._wishes:
            self._wishes = [one for one in self._wishes if not landed.covers(one.range)]
        return (one.range.start for one in self._wishes)

    def next(self, taken: RangeSet, free: Range | None, assigned: int) -> Range | None:
        """What a lane should fetch first, of what nobody fetches; None where that is `free`, the next in order.

        `assigned` lanes are at work for the blob.
        """
        if free is not None and 2 * self.lanes > assigned:
            return None
        found = next(self._open(taken), None)
        if found is None or (free is not None and found[1].start == free.start):
            return None
        return found[1]

    def starve(self, taken: RangeSet, assigned: int, now: float) -> bool:
        """Whether a wish has waited for a lane for as long as it may, and would get the next one."""
        if assigned and 2 * self.lanes >= assigned:
            return False
        return any(now - one.since >= _HEARD_S for one, _ in self._open(taken))

    def _open(self, taken: RangeSet) -> Iterator[tuple[_Wish, Range]]:
        for one in self._wishes:
            gap = next(taken.gaps(one.range), None)
            if gap is not None:
                yield one, gap
