"""What block lists say, how far it is followed, and who is asked then."""

from __future__ import annotations

from headrace.blocklist import block_at
from headrace.plan.marks import Marks, marks_of
from headrace.plan.suspicion import Lie, Suspicion
from headrace.ranges import Range, RangeSet
from headrace.wire import BLOCK_BYTES

SIZE = 3 * BLOCK_BYTES + 10


def marks(*ranges: Range, believed: bool) -> Marks:
    return Marks(RangeSet(ranges), believed)


def suspicion(*given: str) -> Suspicion:
    """Of a blob of a byte for each letter, which says who gave it; A is trusted most, C least."""
    one = Suspicion(len(given), "ABC", RangeSet(), set())
    for at, source in enumerate(given):
        one.gave(source, Range(at, at + 1))
    return one


def test_the_trusted_sources_list_is_the_only_one() -> None:
    told = marks_of({"B": [0, 1], "A": [3]}, "A", SIZE)
    assert told == Marks(RangeSet([block_at(3, SIZE)]), believed=True)
    assert told.ranges.total == 10


def test_lists_of_others_are_taken_together_and_are_advice() -> None:
    told = marks_of({"B": [0], "C": [1]}, "A", SIZE)
    assert told == Marks(RangeSet([Range(0, 2 * BLOCK_BYTES)]), believed=False)


def test_a_list_that_finds_nothing_wrong_says_nothing() -> None:
    assert marks_of({"A": [], "B": []}, "A", SIZE) is None
    told = marks_of({"A": [], "B": [2]}, "A", SIZE)
    assert told is not None
    assert not told.believed


def test_what_is_marked_is_fetched_from_those_that_did_not_give_it() -> None:
    one = suspicion(*"ABCB")
    assert list(one.mismatched("ABC", marks(Range(1, 2), believed=True)) or ()) == [Range(1, 2)]
    assert one.asked("ABC") == ["A", "C"]
    one.gave("C", Range(1, 2))
    assert list(one.mismatched("ABC", marks(Range(1, 2), believed=True)) or ()) == [Range(1, 2)]
    assert one.asked("ABC") == ["A"]


def test_a_list_that_helps_nobody_does_not_go_on_for_ever() -> None:
    one, fetched = suspicion(*"ABCB"), 0
    told = marks(Range(0, 4), believed=True)
    while (doubted := one.mismatched("ABC", told)) is not None:
        fetched += doubted.total
        for each in doubted:
            one.gave(one.asked("ABC")[0], each)
    assert fetched <= 7 * 4


def test_advice_is_followed_once_and_then_the_least_trusted_is_doubted() -> None:
    one = suspicion(*"ABCB")
    told = marks(Range(0, 1), believed=False)
    assert one.mismatched("ABC", told) == told.ranges
    assert one.asked("ABC") == ["B", "C"]
    one.gave("B", Range(0, 1))
    assert list(one.mismatched("ABC", told) or ()) == [Range(2, 3)]
    assert one.asked("ABC") == ["A", "B"]


def test_a_lie_is_told_where_it_is_proved_and_not_where_it_was_marked() -> None:
    one = suspicion(*"ABCB")
    one.mismatched("ABC", marks(Range(0, 2), believed=False))
    one.gave("C", Range(0, 2))
    assert one.matched() == []
    assert one.matched([Lie("B", 1)]) == [Lie("B", 1)]


def test_of_an_only_source_a_lie_is_no_news() -> None:
    one = Suspicion(4, "A", RangeSet(), set())
    one.gave("A", Range(0, 4))
    one.mismatched("A", marks(Range(0, 2), believed=True))
    assert one.asked("A") == ["A"]
    assert one.matched([Lie("A", 2)]) == []
