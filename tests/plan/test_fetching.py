"""Which lane fetches what: the decisions of a plan while all is well, one at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import (
    Busy,
    Interrupted,
    RangeIgnored,
    Unreachable,
)
from headrace.plan.assignment import segment_bytes
from headrace.plan.orders import (
    Added,
    Cancel,
    Fetch,
    Finished,
    Hashed,
    Landed,
    Located,
    Place,
    Shorten,
    Shortened,
)
from headrace.ranges import Range, RangeSet
from tests.plan.play import A0, LIMITS, Play, fetched, only


def test_one_lane_asks_until_it_is_known_who_answers() -> None:
    play = Play()
    assert len(fetched(play.add())) == 1
    assert fetched(play.wait(1)) == []
    assert len(fetched(play.open(1))) == 3


def test_as_soon_as_the_way_is_known_the_others_follow() -> None:
    play = Play()
    play.add()
    assert len(fetched(play.tell(Located(1)))) == 3
    assert fetched(play.fail(2, Unreachable("its host is gone"))) == []
    assert fetched(play.fail(3, Unreachable("its host is gone"))) == []


def test_the_lowest_free_bytes_come_first_in_even_shares() -> None:
    play = Play()
    orders = play.add() + play.open(1)
    assert fetched(orders) == [(0, 250, "A"), (250, 500, "A"), (500, 750, "A"), (750, 1000, "A")]
    assert [order.place for order in orders if isinstance(order, Fetch)] == [Place("A"), A0, A0, A0]


def test_several_blobs_share_the_lanes() -> None:
    play = Play(replace(LIMITS, lanes_most=8))
    both = Added("x", 200, RangeSet(), ("A",)), Added("y", 600, RangeSet(), ("A",))
    # Eight lanes are expected: a hundred bytes for each, so that none of them has but a sliver to fetch.
    assert fetched(play.tell(*both)) == [(0, 100, "A"), (0, 100, "A")]
    assert fetched(play.open(1)) == [(100, 200, "A")]


def test_several_sources_begin_at_once() -> None:
    assert [source for _, _, source in fetched(Play().add(sources="ABC"))] == ["A", "B", "C"]


def test_blobs_are_begun_in_the_order_they_were_added() -> None:
    play = Play()
    assert fetched(play.add(5, blob="x") + play.add(5, blob="y")) == [(0, 5, "A"), (0, 5, "A")]
    assert [order.blob for order in play.fetches.values()] == ["x", "y"]


def test_what_is_here_is_not_fetched() -> None:
    play = Play()
    orders = play.add(100, have=(Range(0, 40), Range(50, 100))) + play.open(1)
    assert fetched(orders) == [(40, 50, "A")]
    assert fetched(play.add(0, blob="empty")) == []
    assert "2 blobs, 1 of 4 lanes" in repr(play.plan)


@pytest.mark.parametrize(
    ("run", "share", "overhead", "expected"),
    [
        (1000, 500, 1, 200),  # the usual
        (1000, 500, 0, 400),  # twice that while nothing is known of the first byte's wait
        (1000, 100, 1, 100),  # but no more than a share
        (1000, 900, 400, 400),  # so much that the first byte's wait is negligible
        (1000, 700, 400, 700),  # and no second request for less than that
        (1000, 3, 1, 10),  # what is worth a request
        (205, 500, 1, 205),  # and no sliver left over
        (5, 2, 1, 5),
    ],
)
def test_segments_have_a_measure(run: int, share: float, overhead: float, expected: int) -> None:
    assert segment_bytes(run, share, overhead, replace(LIMITS, segment_bytes=200)) == expected


def test_nothing_is_fetched_beyond_the_window() -> None:
    play = Play(replace(LIMITS, window_bytes=100, lanes_most=1, lanes_at_start=1))
    play.add(1000)
    play.open(1)
    first = play.fetches[1]
    orders = play.tell(Landed(1, first.range), Finished(1))
    while fetched(orders):
        one = only(orders, Fetch)
        orders = play.tell(Landed(one.number, one.range), Finished(one.number))
    assert max(order.range.stop for order in play.fetches.values()) == 100
    assert fetched(play.tell(Hashed("b", 9))) == []  # not worth a request yet
    assert fetched(play.tell(Hashed("b", 10))) == [(100, 110, "A")]


def test_late_word_from_the_hasher_moves_the_frontier_only_over_what_is_here() -> None:
    play = Play()
    play.add(100)
    play.open(1)
    play.tell(Landed(1, Range(0, 10)), Hashed("b", 60), Hashed("gone", 5))
    assert play.plan._blobs["b"].frontier == 10


def busy_pair(left: int = 100) -> Play:
    """Two lanes on one blob: the first is done at once, the second crawls with `left` bytes to go."""
    play = Play(replace(LIMITS, lanes_at_start=2, lanes_most=2, window_bytes=2 * left))
    play.plan._limits = replace(play.plan._limits, segment_least_bytes=left)
    play.add(2 * left)
    play.open(1)
    play.open(2, A0)
    play.plan._limits = LIMITS
    play.now = 1.0
    play.land(1, 0, left)
    return play


def test_an_idle_lane_takes_so_much_that_both_end_together() -> None:
    play = busy_pair(100)
    play.land(2, 100, 104)
    play.now = 2.0
    order = only(play.tell(Finished(1)), Shorten)
    assert (order.number, order.stop) == (2, 106)  # it was a crawling one
    assert fetched(play.wait(1)) == []  # nothing belongs to two lanes
    assert fetched(play.tell(Shortened(2, 160))) == [(160, 200, "A")]


def test_nothing_is_taken_that_would_not_gain() -> None:
    play = busy_pair(100)
    play.land(2, 100, 199)
    assert play.tell(Finished(1)) == []
    assert play.wait(0.3) == []


def test_a_lane_that_cannot_stop_early_is_not_pestered() -> None:
    play = busy_pair(100)
    play.land(2, 100, 104)
    play.now = 2.0
    only(play.tell(Finished(1)), Shorten)
    assert play.tell(Shortened(2, 200)) == []
    assert play.wait(0.8) == []
    only(play.wait(0.5), Shorten)


def test_a_lane_that_crawls_over_the_last_bytes_is_replaced() -> None:
    play = busy_pair(15)
    play.land(2, 15, 16)
    assert play.tell(Finished(1)) == []  # so little is not divided at one place
    orders = play.wait(5)
    assert only(orders, Cancel).number == 2
    play.land(2, 16, 17)
    assert fetched(play.fail(2, Interrupted("as told"))) == [(17, 30, "A")]
    assert play.plan._places.complaint("A") is None


def test_where_fewer_lanes_are_allowed_the_slowest_stop() -> None:
    play = Play()
    play.add()
    for number in (1, 2, 3, 4):
        play.open(number, A0)
    play.now = 1.0
    for number, count in ((1, 50), (2, 5), (3, 6), (4, 50)):
        play.land(number, 250 * (number - 1), 250 * (number - 1) + count)
    orders = play.fail(4, Busy("429"))  # of four lanes two are left, and three are at work
    assert only(orders, Shorten) == Shorten(2, 255)
    assert fetched(play.tell(Shortened(2, 260))) == []
    assert fetched(play.tell(Landed(2, Range(255, 260)), Finished(2))) == []
    assert [order for order in play.wait(0.5) if isinstance(order, Shorten)] == []


def test_two_sources_that_lead_to_one_host_bear_no_more_lanes() -> None:
    play = Play(replace(LIMITS, lanes_most=8, lanes_per_host=3))
    play.add(sources="AB")
    assert play.plan._hosts.expected == 6
    for number in (1, 2):
        play.open(number, replace(play.fetches[number].place, host="h", address="a0"))
    play.wait(0.3)
    assert play.plan._hosts.expected == 3


def test_a_blob_that_must_wait_takes_no_lane_from_others() -> None:
    play = Play(replace(LIMITS, fair=True))
    play.add(blob="parts")
    for number in (1, 2, 3, 4):
        play.open(number, A0)
    assert play.add(sources="W", blob="whole") == []  # a lane may be free in a moment
    for number in (1, 2, 3, 4):
        play.land(number, play.fetches[number].range.start, play.fetches[number].range.start + 1)
    ceded = only(play.wait(0.3), Shorten).number
    play.tell(Shortened(ceded, play.fetches[ceded].range.start), Finished(ceded))
    play.fail(5, RangeIgnored("200"))
    orders = play.fail(6, Busy("503", retry_after_s=30.0))  # it was asked for as a whole, and rests
    assert [order for order in orders + play.wait(0.4) if isinstance(order, Shorten)] == []
