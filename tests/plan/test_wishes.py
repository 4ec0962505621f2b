"""What somebody waits for goes first, and those who read in order do not starve for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.plan.orders import Finished, Landed, Shorten, Shortened, Wished
from headrace.ranges import Range
from tests.plan.play import A0, LIMITS, Play, fetched, only

FAIR = replace(LIMITS, fair=True, segment_bytes=100, segment_least_bytes=100, window_bytes=5000)


def busy(lanes: int, size: int = 10_000, segment: int = 100, *, fair: bool = True) -> Play:
    """A blob whose lanes are all at work, and bring ten bytes a second each."""
    play = Play(replace(FAIR, fair=fair, lanes_at_start=lanes, lanes_most=lanes, segment_bytes=segment))
    play.add(size)
    play.open(1)
    for number in range(2, lanes + 1):
        play.open(number, A0)
    play.now = 1.0
    for number in range(1, lanes + 1):
        start = play.fetches[number].range.start
        play.land(number, start, start + 10)
    play.look()
    return play


def done(play: Play, number: int) -> list[tuple[int, int, str]]:
    one = play.fetches[number].range
    return fetched(play.tell(Landed(number, Range(one.start + 10, one.stop)), Finished(number)))


def test_an_idle_lane_serves_a_wish_first_and_outside_the_window() -> None:
    play = busy(4)
    play.tell(Wished("b", Range(9000, 9300)))
    assert done(play, 1) == [(9000, 9100, "A")]


def test_as_many_lanes_are_kept_for_the_frontier() -> None:
    play = busy(4)
    play.tell(Wished("b", Range(9000, 9800)))
    starts = [done(play, number)[0][0] for number in (1, 2, 3, 4)]
    assert len([start for start in starts if start >= 9000]) == 2


def test_a_wish_for_what_is_next_anyway_changes_nothing() -> None:
    play, other = busy(2, segment=50), busy(2, segment=50)
    play.tell(Wished("b", Range(play.fetches[2].range.stop, 1000)))
    assert done(play, 1) == done(other, 1)


def test_what_landed_or_is_on_its_way_soon_is_not_wished_for() -> None:
    play = busy(2)
    assert play.tell(Wished("b", Range(0, 15))) == []
    assert play.wait(0.5) == []
    assert play.tell(Wished("gone", Range(0, 15))) == []


def test_a_wish_outlives_the_lane_that_fails_it() -> None:
    play = busy(2)
    play.tell(Wished("b", Range(9000, 9050)))
    assert done(play, 1) == [(9000, 9050, "A")]
    play.open(3, A0)
    assert fetched(play.tell(Shortened(3, 9010), Landed(3, Range(9000, 9010)), Finished(3))) == [
        (9010, 9050, "A")
    ]


def test_a_lane_that_comes_late_to_where_a_reader_waits_lets_go_of_it() -> None:
    play = busy(2, size=400)
    far = play.fetches[2].range
    order = only(play.tell(Wished("b", Range(far.start + 60, far.stop))), Shorten)
    assert order == Shorten(2, far.start + 60)


def test_a_wish_is_ceded_a_lane_where_none_is_free_soon() -> None:
    play = busy(2)
    assert play.tell(Wished("b", Range(9000, 9100))) == []
    ceded = only(play.wait(0.4), Shorten)
    stop = play.fetches[ceded.number].range.start + 10
    assert ceded.stop == stop
    play.tell(Shortened(ceded.number, stop))
    assert fetched(play.tell(Finished(ceded.number))) == [(9000, 9100, "A")]
    assert not play.plan._assignments[3].ceded


@pytest.mark.parametrize(("far", "fair", "stops"), [(25, True, 1), (25, False, 0), (60, False, 1)])
def test_who_wants_all_of_it_waits_longer_than_others_before_much_is_sent_in_vain(
    far: int,
    fair: bool,  # noqa: FBT001
    stops: int,
) -> None:
    play = busy(2, size=400, fair=fair)
    late = play.fetches[2].range
    orders = play.tell(Wished("b", Range(late.start + far, late.stop)))
    assert [one for one in orders if isinstance(one, Shorten)] == [Shorten(2, late.start + far)] * stops


@pytest.mark.parametrize(
    ("left", "fair", "ceded"), [(5, True, 1), (1, True, 0), (5, False, 0), (50, False, 1)]
)
def test_no_lane_is_ceded_where_one_is_free_soon(left: int, fair: bool, ceded: int) -> None:  # noqa: FBT001
    play = busy(2, fair=fair)
    play.plan._blobs["b"].vain_bytes = 50  # as much as may be without a thought
    play.tell(Wished("b", Range(9000, 9100)))
    ranges = [play.fetches[number].range for number in (1, 2)]
    play.now = 1.0 + (len(ranges[0]) - 10 - left) / 10
    play.tell(*(Landed(n, Range(one.start + 10, one.stop - left)) for n, one in enumerate(ranges, 1)))
    assert len([one for one in play.plan._assignments.values() if one.ceded]) == ceded


def test_where_a_lane_could_not_be_ceded_another_one_is() -> None:
    play = busy(3)
    play.tell(Wished("b", Range(9000, 9100)))
    refusing = only(play.wait(0.4), Shorten)
    other = only(play.tell(Shortened(refusing.number, play.fetches[refusing.number].range.stop)), Shorten)
    assert other.number != refusing.number


@pytest.mark.parametrize(
    ("landed", "fair", "taken"), [(100, True, 0), (100, False, 1), (130, False, 0), (10, True, 1)]
)
def test_little_is_sent_in_vain_unless_much_is_won(landed: int, fair: bool, taken: int) -> None:  # noqa: FBT001
    play = Play(replace(LIMITS, fair=fair, lanes_at_start=2, lanes_most=2))
    play.plan._limits = replace(play.plan._limits, segment_least_bytes=200)
    play.add(400)
    play.open(1)
    play.open(2, A0)
    play.plan._limits = replace(LIMITS, fair=fair)
    play.now = 1.0
    play.land(2, 200, 200 + landed)
    orders = play.tell(Landed(1, Range(0, 200)), Finished(1)) + play.wait(0.3)
    assert len([one for one in orders if isinstance(one, Shorten)]) == taken
