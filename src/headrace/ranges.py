"""Byte ranges and sets of them: the arithmetic under plans, partials and journals.

All ranges are half open, `[start, stop)`, in bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Range:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a range: {self.start}..{self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    def __bool__(self) -> bool:
        return self.stop > self.start

    def __str__(self) -> str:
        return f"{self.start}..{self.stop}"


class RangeSet:
    """A mutable set of bytes, kept as sorted ranges that neither touch nor overlap.

    Starts and stops live in two parallel lists so that every question is a bisection.
    """

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for one in ranges:
            self.add(one)

    def add(self, new: Range) -> None:
        """Add the bytes of `new`; those already here stay."""
        if not new:
            return
        first = bisect_left(self._stops, new.start)
        last = bisect_right(self._starts, new.stop)
        start, stop = new.start, new.stop
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def remove(self, gone: Range) -> None:
        """Take away the bytes of `gone`; those not here are no matter."""
        if not gone:
            return
        first = bisect_right(self._stops, gone.start)
        last = bisect_left(self._starts, gone.stop)
        if first >= last:
            return
        left, right = self._starts[first], self._stops[last - 1]
        kept = [(left, gone.start)] if left < gone.start else []
        kept += [(gone.stop, right)] if gone.stop < right else []
        self._starts[first:last] = [start for start, _ in kept]
        self._stops[first:last] = [stop for _, stop in kept]

    def covers(self, wanted: Range) -> bool:
        """Whether every byte of `wanted` is here."""
        return not wanted or self.end_of_run(wanted.start) >= wanted.stop

    def touches(self, other: Range) -> bool:
        """Whether any byte of `other` is here."""
        index = bisect_right(self._stops, other.start)
        return bool(other) and index < len(self._starts) and self._starts[index] < other.stop

    def end_of_run(self, position: int) -> int:
        """The first byte at or after `position` that is not here."""
        index = bisect_right(self._starts, position) - 1
        if index >= 0 and self._stops[index] > position:
            return self._stops[index]
        return position

    def gaps(self, within: Range) -> Iterator[Range]:
        """The ranges inside `within` that are not here, in order."""
        position = within.start
        index = bisect_right(self._stops, position)
        while position < within.stop:
            if index == len(self._starts) or self._starts[index] >= within.stop:
                yield Range(position, within.stop)
                return
            if self._starts[index] > position:
                yield Range(position, self._starts[index])
            position = self._stops[index]
            index += 1

    def copy(self) -> RangeSet:
        """An independent set of the same bytes."""
        twin = RangeSet()
        twin._starts, twin._stops = self._starts.copy(), self._stops.copy()
        return twin

    @property
    def total(self) -> int:
        """How many bytes are here."""
        return sum(self._stops) - sum(self._starts)

    def __iter__(self) -> Iterator[Range]:
        return (Range(start, stop) for start, stop in zip(self._starts, self._stops, strict=True))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<RangeSet {' '.join(map(str, self)) or 'empty'}>"
