"""A RangeSet behaves as the plain set of its bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.ranges import Range, RangeSet

SPAN = 40
some = st.tuples(st.integers(0, SPAN), st.integers(0, SPAN)).map(lambda pair: Range(min(pair), max(pair)))
changes = st.lists(st.tuples(st.booleans(), some), max_size=30)


def built(steps: list[tuple[bool, Range]]) -> tuple[RangeSet, set[int]]:
    ranges, model = RangeSet(), set[int]()
    for adding, one in steps:
        members = set(range(one.start, one.stop))
        if adding:
            ranges.add(one)
            model |= members
        else:
            ranges.remove(one)
            model -= members
    return ranges, model


def members(ranges: list[Range]) -> set[int]:
    return {byte for one in ranges for byte in range(one.start, one.stop)}


@given(changes)
def test_holds_what_was_added_and_not_removed(steps: list[tuple[bool, Range]]) -> None:
    ranges, model = built(steps)
    assert members(list(ranges)) == model
    assert ranges.total == len(model)
    assert bool(ranges) is bool(model)


@given(changes)
def test_ranges_are_sorted_and_never_touch(steps: list[tuple[bool, Range]]) -> None:
    parts = list(built(steps)[0])
    assert all(parts)
    assert all(left.stop < right.start for left, right in pairwise(parts))


@given(changes, some)
def test_answers_as_the_model(steps: list[tuple[bool, Range]], asked: Range) -> None:
    ranges, model = built(steps)
    wanted = set(range(asked.start, asked.stop))
    assert ranges.covers(asked) is (wanted <= model)
    gaps = list(ranges.gaps(asked))
    assert members(gaps) == wanted - model
    assert all(gaps)
    assert ranges.end_of_run(asked.start) == min(set(range(asked.start, SPAN + 2)) - model)


@given(changes, some)
def test_a_copy_is_equal_and_independent(steps: list[tuple[bool, Range]], more: Range) -> None:
    ranges, model = built(steps)
    twin = ranges.copy()
    assert twin == ranges
    twin.add(Range(0, SPAN + 1))
    ranges.remove(more)
    assert twin.total == SPAN + 1
    assert members(list(ranges)) == model - set(range(more.start, more.stop))
    assert twin != ranges


@given(changes)
def test_equality_is_that_of_the_bytes(steps: list[tuple[bool, Range]]) -> None:
    ranges, model = built(steps)
    assert ranges == RangeSet(Range(byte, byte + 1) for byte in model)


@pytest.mark.parametrize(("start", "stop"), [(-1, 0), (2, 1), (-2, -1)])
def test_refuses_what_is_no_range(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Range(start, stop)


def test_an_empty_range_is_false_and_shown_as_the_rest() -> None:
    assert not Range(3, 3)
    assert len(Range(3, 7)) == 4
    assert str(Range(3, 7)) == "3..7"
    assert repr(RangeSet([Range(0, 2), Range(5, 6)])) == "<RangeSet 0..2 5..6>"
    assert repr(RangeSet()) == "<RangeSet empty>"


@given(changes, some)
def test_touches_what_it_has_a_byte_of(steps: list[tuple[bool, Range]], other: Range) -> None:
    ranges, model = built(steps)
    assert ranges.touches(other) is bool(model & members([other]))
