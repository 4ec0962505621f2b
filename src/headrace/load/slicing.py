"""Which bytes of a tensor an index reaches: what has to be there before that part of it can be taken."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from headrace.ranges import Range


def part_of(shape: Sequence[int], size: int, index: Any) -> Range:
    """The bytes, of a tensor of `size` bytes in C order, between the first and the last that `tensor[index]` reads.

    Slices of the first dimension are contiguous; of the others what lies between is included. All of it where the
    index is none of integers, slices and an ellipsis, where it is out of range (which is for the library to say), or
    where elements are no whole bytes.
    """
    everything, count = Range(0, size), prod(shape)
    spans = _spans(shape, index if isinstance(index, tuple) else (index,))
    if spans is None or not count or size % count:
        return everything
    if not all(spans):
        return Range(0, 0)
    first = last = 0
    for length, span in zip(shape, spans, strict=True):
        first = first * length + min(span[0], span[-1])
        last = last * length + max(span[0], span[-1])
    width = size // count
    return Range(first * width, (last + 1) * width)


def _spans(shape: Sequence[int], index: tuple[Any, ...]) -> list[range] | None:
    """What is read along each dimension; None where that is not known."""
    if any(isinstance(one, bool) or not (one is ... or isinstance(one, int | slice)) for one in index):
        return None
    named = [one for one in index if one is not ...]
    if len(named) > len(shape) or len(index) - len(named) > 1:
        return None
    before = index.index(...) if len(named) < len(index) else len(named)
    rest = [slice(None)] * (len(shape) - len(named))
    spans = []
    for length, one in zip(shape, [*named[:before], *rest, *named[before:]], strict=True):
        if isinstance(one, slice):
            spans.append(range(*one.indices(length)))
        elif -length <= one < length:
            spans.append(range(one % length, one % length + 1))
        else:
            return None
    return spans
