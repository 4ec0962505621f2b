"""What block lists say of bytes that did not match: which blocks to fetch again, and how far that is believed.

A list of the trusted source is believed as its manifest is. One of anybody else is advice: what it marks is fetched
again first, once, and if that does not help whose bytes they are is doubted as if there were no lists. A list by
which everything is right, of bytes that are wrong as a whole, is not one of this content. Nobody is called a liar on
the word of a list: who gave wrong bytes is told by comparing them with those that matched in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.blocklist import block_at
from headrace.ranges import RangeSet


@dataclass(frozen=True)
class Marks:
    """Bytes that are said to be wrong; `believed` where the trusted source says so."""

    ranges: RangeSet
    believed: bool


def marks_of(differing: Mapping[str, Sequence[int]], trusted: str, size: int) -> Marks | None:
    """What the lists come to; None where they say nothing.

    `differing` is for each source with a list the numbers of the blocks that are not as it says, of content of `size`
    bytes that does not match its digest.
    """
    telling = {source: numbers for source, numbers in differing.items() if numbers}
    if trusted in telling:
        telling = {trusted: telling[trusted]}
    ranges = RangeSet(block_at(number, size) for numbers in telling.values() for number in numbers)
    return Marks(ranges, trusted in telling) if ranges else None
