"""What becomes of bytes, places and blobs when sources fail: the decisions of a plan, one at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import (
    AccessDenied,
    AllSourcesFailed,
    BrokenStream,
    Busy,
    DigestMismatch,
    HeadraceError,
    NoSpace,
    NotFound,
    RangeIgnored,
    Stalled,
    Unreachable,
)
from headrace.plan.orders import (
    Cancel,
    Ended,
    Failed,
    Fetch,
    Finished,
    Forget,
    GiveUp,
    Landed,
    Mismatched,
    Order,
    Place,
    Retry,
)
from headrace.ranges import Range
from tests.plan.play import A0, LIMITS, Play, fetched, only


def test_a_source_that_failed_rests_and_says_for_how_long() -> None:
    play = Play()
    play.add()
    retry = only(play.fail(1, Unreachable("no")), Retry)
    assert retry.in_s == pytest.approx(0.125)
    assert fetched(play.wait(0.1)) == []
    assert len(fetched(play.wait(0.1))) == 1


def test_after_a_failure_one_lane_tries_before_others_follow() -> None:
    play = Play()
    play.add()
    play.open(1)
    for number in (1, 2, 3, 4):
        play.fail(number, BrokenStream("reset"))
    assert len(fetched(play.wait(5))) == 1
    play.open(5, A0)
    assert len(fetched(play.land(5, 0, 5))) == 3


def test_lanes_that_fail_together_have_failed_once() -> None:
    play = Play()
    play.add()
    play.open(1)
    waits = [only(play.fail(number, Stalled("silent")), Retry).in_s for number in (1, 2, 3, 4)]
    assert waits == pytest.approx([0.125] * 4)
    assert only(play.wait(1), Fetch).patience_s == 10


def test_silence_is_borne_longer_each_time_up_to_a_limit() -> None:
    play = Play()
    play.add()
    borne = [1, *range(2, 6)]
    seen = []
    for number in borne:
        play.fail(number, Stalled("silent"))
        seen.append(only(play.wait(5), Fetch).patience_s)
    assert seen == [10, 20, 30, 30, 30]


def test_the_only_source_is_never_set_aside_longer_than_five_seconds() -> None:
    play = Play(replace(LIMITS, give_up_s=1e6), chance=0.999)
    play.add()
    for number in range(1, 30):
        assert only(play.fail(number, Unreachable("no")), Retry).in_s <= 5
        assert len(fetched(play.wait(5.1))) == 1


def test_retry_after_is_obeyed() -> None:
    play = Play()
    play.add()
    assert only(play.fail(1, Busy("429", retry_after_s=20)), Retry).in_s == pytest.approx(21)
    assert play.add(blob="other") == []
    assert play.wait(20.9) == []
    assert len(fetched(play.wait(0.2))) == 1


def test_retry_after_at_a_known_host_holds_for_who_would_be_led_there() -> None:
    play = Play()
    play.add()
    play.open(1)
    play.fail(2, Busy("429", retry_after_s=20))
    assert fetched(play.add(blob="other")) == []


def test_a_time_of_nothing_is_no_invitation_to_hammer() -> None:
    play = Play()
    play.add()
    assert only(play.fail(1, Busy("429", retry_after_s=0)), Retry).in_s > 0.1


def test_more_than_a_minute_is_not_waited_for_and_the_error_says_how_long_it_would_be() -> None:
    play = Play()
    play.add()
    error = only(play.fail(1, Busy("429", retry_after_s=300)), GiveUp).error
    assert isinstance(error, Busy)
    assert "come back in 315 s" in error.message
    assert isinstance(only(play.add(blob="other"), GiveUp).error, Busy)


def test_who_asks_for_a_minute_is_waited_for_while_others_deliver() -> None:
    play = Play()
    play.add(sources="AB")
    orders = play.fail(1, Busy("429", retry_after_s=300)) + play.open(2)
    assert not any(isinstance(order, GiveUp) for order in orders)
    assert {source for _, _, source in fetched(orders)} == {"B"}


def test_a_source_that_does_not_have_it_is_not_asked_again() -> None:
    play = Play()
    play.add(sources="AB")
    play.fail(1, NotFound("404"))
    play.fail(2, AccessDenied("403"))
    assert play.plan.done


@pytest.mark.parametrize("error", [NotFound("404"), AccessDenied("403")])
def test_the_verdict_of_the_only_source_is_raised_itself(error: HeadraceError) -> None:
    play = Play()
    play.add()
    assert only(play.fail(1, error), GiveUp).error is error


def test_the_verdicts_of_several_are_told_together() -> None:
    play = Play()
    play.add(sources="AB")
    gone, denied = NotFound("404"), AccessDenied("403", hint="log in")
    error = only(play.fail(1, gone) + play.fail(2, denied), GiveUp).error
    assert isinstance(error, AllSourcesFailed)
    assert error.causes == {"A": gone, "B": denied}
    assert error.hint == "log in"


def test_sources_that_said_nothing_at_all_are_told_as_silent() -> None:
    """No lane has failed yet: the patience with each is longer than that with all."""
    play = Play(replace(LIMITS, give_up_s=6.0, patience_s=30.0))
    play.add(sources="AB")
    error = only(play.wait(7.0), GiveUp).error
    assert isinstance(error, AllSourcesFailed)
    assert "A sent nothing for 6 s; B sent nothing for 6 s" in error.message
    assert {source: type(cause) for source, cause in error.causes.items()} == {"A": Stalled, "B": Stalled}


def test_without_sources_there_is_no_hope() -> None:
    assert isinstance(only(Play().add(sources=""), GiveUp).error, AllSourcesFailed)


def test_a_full_disk_ends_the_blob_at_once() -> None:
    play = Play()
    play.add()
    play.open(1)
    full = NoSpace("full")
    orders = play.fail(1, full)
    assert only(orders, GiveUp).error is full
    assert [order.number for order in orders if isinstance(order, Cancel)] == [2, 3, 4]


def test_what_was_decided_about_a_blob_does_not_outlive_it() -> None:
    play = Play()
    play.add()
    assert play.tell(Failed(1, NoSpace("full")), Ended("b")) == []
    assert play.plan.done


def test_lanes_that_answered_meanwhile_are_not_cancelled() -> None:
    play = Play()
    play.add()
    assert play.tell(Ended("b"), Failed(1, BrokenStream("cut"))) == []


def test_late_answers_for_an_ended_blob_are_taken_calmly() -> None:
    play = Play()
    play.add()
    assert [type(order) for order in play.tell(Ended("b"))] == [Cancel]
    assert play.open(1) == play.land(1, 0, 5) == play.tell(Mismatched("b", DigestMismatch("x"))) == []
    assert play.fail(1, NoSpace("full")) == play.tell(Finished(99)) == []
    assert play.plan.done
    assert play.plan.wants_blobs


def test_a_blob_that_waits_for_lanes_is_not_given_up() -> None:
    play = Play(replace(LIMITS, lanes_at_start=1, lanes_most=1))
    play.add(10**6, blob="big")
    play.open(1)
    play.add(10, blob="small")
    for second in range(1, 100):
        assert play.land(1, second - 1, second) == []
        assert play.wait(1) == []


def test_a_blob_whose_bytes_wait_for_the_hasher_is_not_given_up() -> None:
    play = Play(replace(LIMITS, window_bytes=50, lanes_at_start=1, lanes_most=1))
    orders = play.add(100) + play.open(1)
    while fetched(orders):
        one = only(orders, Fetch)
        orders = play.tell(Landed(one.number, one.range), Finished(one.number))
    assert play.wait(100) == []


def test_a_pause_of_the_whole_program_is_not_counted() -> None:
    play = Play()
    play.add()
    play.wait(1)
    play.now += 3600
    assert play.look() == []


def test_a_source_without_ranges_begins_again_as_one_stream() -> None:
    play = Play()
    play.add(100, have=(Range(0, 50),))
    orders = play.fail(1, RangeIgnored("200"))
    assert list(only(orders, Forget).ranges) == [Range(0, 100)]
    whole = only(orders, Fetch)
    assert whole.whole
    assert whole.range == Range(0, 100)


def test_a_source_that_answers_even_the_whole_with_something_else_is_struck() -> None:
    play = Play()
    play.add(100)
    play.fail(1, RangeIgnored("200"))
    assert isinstance(only(play.fail(2, RangeIgnored("200")), GiveUp).error, RangeIgnored)


def test_one_slip_of_a_source_that_does_ranges_costs_nothing_that_landed() -> None:
    play = Play()
    play.add(100)
    play.open(1)
    play.land(1, 0, 10)
    for number in sorted(play.fetches):
        orders = play.fail(number, RangeIgnored("200"))
        assert not any(isinstance(order, Forget) for order in orders)
    assert only(play.wait(1), Fetch).range.start == 10


def test_who_does_ranges_goes_before_who_does_not() -> None:
    play = Play()
    play.add(sources="AB")
    play.fail(1, RangeIgnored("200"))
    assert [source for _, _, source in fetched(play.open(2))] == ["B", "B", "B"]


def test_one_stream_is_the_last_resort_when_those_with_ranges_are_dead() -> None:
    play = Play()
    play.add(100, sources="AB", have=(Range(0, 10),))
    play.fail(1, RangeIgnored("200"))
    orders: list[Order] = []
    number = 2
    while not any(isinstance(order, Forget) for order in orders):
        assert play.now < 40
        orders = play.fail(number, Unreachable("no")) if number in play.plan._assignments else play.wait(0.1)
        number = max(play.fetches)
    assert any(order.whole and order.place.source == "A" for order in play.fetches.values()) or any(
        order.whole for order in play.wait(5) if isinstance(order, Fetch)
    )


def test_a_stream_that_always_breaks_at_the_same_place_is_given_up() -> None:
    play = Play()
    play.add(100)
    orders = play.fail(1, RangeIgnored("200"))
    while not any(isinstance(order, GiveUp) for order in orders):
        assert play.now < 200
        whole = [order for order in orders if isinstance(order, Fetch)]
        if whole:
            play.open(whole[0].number)
            play.land(whole[0].number, 0, 50)
            play.now += 5
            orders = play.fail(whole[0].number, BrokenStream("reset"))
        else:
            orders = play.wait(0.1)


def complete(play: Play) -> None:
    """All of blob `b` lands, each source delivering what it was sent for."""
    for _ in range(100):
        live = [number for number in play.fetches if number in play.plan._assignments]
        if not live:
            return
        for number in live:
            order = play.fetches[number]
            play.open(number)
            play.tell(Landed(number, order.range), Finished(number))


def test_bytes_from_before_a_restart_are_suspected_first_then_all_then_the_promise() -> None:
    play, wrong = Play(), DigestMismatch("wrong")
    play.add(100, have=(Range(20, 40),))
    complete(play)
    again = []
    for _ in range(3):
        orders = play.tell(Mismatched("b", wrong))
        again.append(list(only(orders, Forget).ranges))
        complete(play)
    assert again == [[Range(20, 40)], [Range(0, 100)], [Range(0, 100)]]
    assert only(play.tell(Mismatched("b", wrong)), GiveUp).error is wrong


def test_of_several_sources_one_is_tried_alone_and_struck_if_it_is_guilty() -> None:
    play, wrong = Play(), DigestMismatch("wrong")
    play.add(100, sources="AB")
    complete(play)
    before = len(play.fetches)
    orders = play.tell(Mismatched("b", wrong))
    assert 0 < only(orders, Forget).ranges.total < 100  # what A gave is kept
    complete(play)
    assert {order.place.source for number, order in play.fetches.items() if number > before} == {"A"}
    before = len(play.fetches)
    play.tell(Mismatched("b", wrong))
    complete(play)
    assert {order.place.source for number, order in play.fetches.items() if number > before} == {"B"}


def test_a_source_tried_alone_that_does_not_deliver_makes_room_for_others() -> None:
    play, wrong = Play(), DigestMismatch("wrong")
    play.add(100, sources="AB")
    complete(play)
    orders = play.tell(Mismatched("b", wrong))
    while not any(isinstance(order, Fetch) and order.place.source == "B" for order in orders):
        assert play.now < 60
        orders = []
        for number in [n for n in play.fetches if n in play.plan._assignments]:
            orders += play.fail(number, Unreachable("no"))
        orders += play.wait(0.5)


def test_the_wrong_digest_of_nothing_is_final() -> None:
    play = Play()
    play.add(0)
    assert isinstance(only(play.tell(Mismatched("b", DigestMismatch("x"))), GiveUp).error, DigestMismatch)


def test_a_source_that_is_gone_from_its_host_is_looked_for_anew() -> None:
    play = Play()
    play.add()
    play.open(1)
    orders = [order for number in (2, 3, 4) for order in play.fail(number, Unreachable("gone"))]
    assert only(orders, Fetch).place == Place("A")


def test_when_the_guilty_source_is_struck_already_nobody_is_left() -> None:
    play = Play(replace(LIMITS, segment_least_bytes=100))
    play.add(100)
    play.open(1)
    play.tell(Landed(1, Range(0, 100)), Failed(1, NotFound("404, after all")))
    assert isinstance(only(play.tell(Mismatched("b", DigestMismatch("x"))), GiveUp).error, DigestMismatch)


def test_a_source_without_a_host_is_a_place_itself() -> None:
    play = Play()
    play.add()
    assert {order.place for order in play.open(1, Place("A")) if isinstance(order, Fetch)} == {Place("A")}


def test_who_asks_for_too_long_a_pause_while_it_still_delivers_is_named() -> None:
    play = Play(replace(LIMITS, lanes_most=2, segment_bytes=100))
    play.add(1000, have=(Range(200, 1000),))
    play.open(1)
    other = max(play.fetches)
    asked = play.fetches[1].range
    play.fail(other, Busy("A says 429", retry_after_s=3600.0))
    orders = [*play.land(1, 0, asked.stop), *play.tell(Finished(1)), *play.wait(1)]
    assert "A is busy; it asks to come back in" in str(only(orders, GiveUp).error)
