"""Lanes of several hosts, silence where others deliver, and what idle lanes take: one decision at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import Busy, Interrupted, NotFound, Stalled, Unreachable
from headrace.plan.hosts import Hosts
from headrace.plan.limits import MIB, Limits
from headrace.plan.orders import Cancel, Fetch, GiveUp, Landed, Opened, Place, Retry
from headrace.plan.patience import borne_s
from headrace.plan.theft import Helper, Laggard, best_relief
from headrace.ranges import Range
from tests.plan.play import Play, only

LIMITS = Limits()
INF = float("inf")


def answering(*doors: tuple[str, str]) -> Hosts:
    hosts = Hosts(LIMITS, lambda _: 0)
    hosts.survey(doors, INF)
    for source, _ in doors:
        hosts.answered(source, 0.02)
    hosts.survey(doors, INF)
    return hosts


def test_each_host_climbs_to_its_own_top() -> None:
    hosts = answering(("A", "h"), ("B", "g"))
    assert [gate.governor._most for gate in hosts.gates] == [16, 16]
    assert hosts.expected == 32


def test_a_complaint_of_one_host_is_nobody_elses() -> None:
    hosts = answering(("A", "h"), ("B", "g"))
    hosts.of("A").governor.trouble(0.0)
    assert [gate.governor.allowed for gate in hosts.gates] == [2, 4]


def test_more_hosts_than_there_may_be_lanes_for_share_them() -> None:
    hosts = answering(("A", "h"), ("B", "g"), ("C", "f"))
    assert sorted(gate.governor._most for gate in hosts.gates) == [10, 11, 11]
    assert all(gate.governor.curious for gate in hosts.gates)


def test_who_wins_most_by_a_lane_comes_first_and_who_needs_few_keeps_them() -> None:
    doors = ("A", "h"), ("B", "g"), ("C", "f")
    hosts = answering(*doors)
    for gate, winning, allowed in zip(hosts.gates, (5.0, 1.0, 0.0), (11, 11, 4), strict=True):
        gate.governor.winning, gate.governor.allowed, gate.governor._climbing = winning, allowed, False
    for _ in range(3):
        hosts.survey(doors, INF)
        for gate in hosts.gates[:2]:
            gate.governor.allowed = gate.governor._most  # it used what it got
    most = [gate.governor._most for gate in hosts.gates]
    assert most[0] == 16
    assert most[2] >= 4
    assert sum(most) == 32


def test_sources_that_lead_to_one_host_share_its_governor() -> None:
    hosts = answering(("A", "h"), ("B", "h"))
    assert hosts.of("A") is hosts.of("B")
    assert hosts.of("A").governor._most == 16


def test_a_host_that_is_lost_gets_one_lane_and_the_others_all_they_bear() -> None:
    doors = ("A", "h"), ("B", "g"), ("C", "f")
    hosts = answering(*doors)
    hosts.lose("C")
    assert [gate.governor._most for gate in hosts.gates] == [16, 16, 1]
    hosts.answered("C", 0.02)
    hosts.survey(doors, INF)
    assert hosts.of("C").governor._most == 10


def test_nothing_is_kept_free_for_a_host_that_never_answers() -> None:
    doors = ("A", "h"), ("B", "g")
    hosts = Hosts(replace(LIMITS, lanes_most=2, lanes_at_start=2), lambda _: 0)
    hosts.survey(doors, INF)
    hosts.answered("A", 0.02)
    hosts.survey(doors, INF)
    assert [gate.governor._most for gate in hosts.gates] == [2, 1]
    assert hosts.allowed == 2


def test_a_host_that_still_brings_bytes_for_another_source_is_not_lost() -> None:
    lanes = {"A": 0, "B": 4, "C": 4}
    doors = ("A", "h"), ("B", "h"), ("C", "g")
    hosts = Hosts(LIMITS, lambda source: lanes[source])
    for _ in range(2):
        hosts.survey(doors, INF)
        hosts.answered("B", 0.02)
        hosts.answered("C", 0.02)
    hosts.lose("A")
    hosts.survey(doors, INF)
    assert [gate.governor._most for gate in hosts.gates] == [16, 16]


def two_sources() -> Play:
    """Two lanes at each of two sources that have answered."""
    play = Play(replace(LIMITS, lanes_most=4, lanes_per_host=2, segment_least_bytes=10))
    play.add(10**9, sources="AB")
    play.open(1, Place("A", "h", "a0"))
    play.open(2, Place("B", "g", "b0"), ("b0",))
    play.wait(0.3)
    for number, order in list(play.fetches.items()):
        if number > 2:
            play.open(number, order.place, (order.place.address,))
    return play


def deliver(play: Play, source: str, seconds: float) -> list[object]:
    """Bytes come on all lanes of one source."""
    orders: list[object] = []
    for _ in range(round(seconds / 0.1)):
        for number, order in list(play.fetches.items()):
            one = play.plan._assignments.get(number)
            if one is not None and order.place.source == source:
                orders += play.land(number, one.position, one.position + 1000)
        orders += play.wait(0.1)
    return orders


def test_what_falls_silent_while_others_deliver_is_set_aside_at_once() -> None:
    play = two_sources()
    deliver(play, "A", 0.5)
    deliver(play, "B", 0.1)
    assert not [order for order in deliver(play, "A", 1.9) if isinstance(order, Retry)]
    orders = deliver(play, "A", 0.6)
    told = only(orders, Retry)  # type: ignore[arg-type]
    assert told.place.source == "B"
    assert isinstance(told.error, Stalled)
    assert told.in_s >= LIMITS.pause_most_s / 2
    silent = {number for number, order in play.fetches.items() if order.place.source == "B"}
    assert {order.number for order in orders if isinstance(order, Cancel)} == silent


def test_where_nothing_comes_from_anywhere_nobody_is_to_blame() -> None:
    play = two_sources()
    deliver(play, "A", 0.5)
    assert not [order for order in play.wait(4.5) if isinstance(order, Retry | Cancel)]


def test_the_only_source_that_has_a_blob_is_waited_for_while_others_bring_other_blobs() -> None:
    play = Play(replace(LIMITS, lanes_per_host=2, segment_least_bytes=10))
    play.add(100, sources="AB")
    play.fail(next(n for n, one in play.fetches.items() if one.place.source == "B"), NotFound("404"))
    play.add(10**9, sources="B", blob="other")
    play.open(max(play.fetches), Place("B", "g", "b0"), ("b0",))
    assert not [order for order in deliver(play, "B", 4.5) if isinstance(order, Retry | Cancel)]


def test_a_blob_that_nobody_brings_quickly_is_waited_for_at_last() -> None:
    play = Play(replace(LIMITS, lanes_per_host=4))
    play.add(10**6, sources="AB", blob="slow")
    for source in "AB":
        play.add(2 * MIB, sources=source, blob=f"quick at {source}")
    asked: dict[int, float] = {}
    longest_s = 0.0
    for _ in range(400):
        orders = play.wait(0.1)
        for number, order in list(play.fetches.items()):
            one = play.plan._assignments.get(number)
            if one is None:
                asked.pop(number, None)
            elif order.blob == "slow":
                longest_s = max(longest_s, play.now - asked.setdefault(number, play.now))
            elif one.opened_at is None:
                here = Place(order.place.source, f"h{order.place.source}", "a0")
                orders += play.tell(Opened(number, here, ("a0",), 0.1))
            else:
                orders += play.land(number, one.position, one.position + 1000)
        assert not [one for one in orders if isinstance(one, GiveUp)]
        for number in [one.number for one in orders if isinstance(one, Cancel)]:
            play.fail(number, Interrupted("recalled"))
    assert longest_s >= 8


def test_the_only_source_is_waited_for() -> None:
    play = Play(LIMITS)
    play.add(10**9)
    play.open(1)
    orders = [order for _ in range(45) for order in [*play.land(1, 0, 10), *play.wait(0.1)]]
    assert not [order for order in orders if isinstance(order, Retry | Cancel)]


def test_who_comes_back_is_tried_with_little() -> None:
    play = two_sources()
    for _ in range(10):
        deliver(play, "A", 0.1)
        deliver(play, "B", 0.1)
    deliver(play, "A", 2.5)
    for number, order in list(play.fetches.items()):
        if order.place.source == "B":
            play.fail(number, Stalled("as told"))
    before = len(play.fetches)
    deliver(play, "A", 6)
    tried = [order for number, order in play.fetches.items() if number > before and order.place.source == "B"]
    assert [len(order.range) for order in tried[:1]] == [10]


@pytest.mark.parametrize(
    ("first_byte_s", "silences", "expected"), [(0.0, 0, 2.0), (1.0, 0, 4.0), (0.0, 1, 4.0), (0.0, 9, 10.0)]
)
def test_silence_is_borne_for_longer_where_answers_take_long(
    first_byte_s: float, silences: int, expected: float
) -> None:
    assert borne_s(first_byte_s, silences) == expected


def test_equals_share_what_is_left() -> None:
    gain, kept = best_relief(Laggard(1000, 10.0, 9.0, 0), Helper(10.0, 0.0), 100)
    assert kept == 500
    assert gain == pytest.approx(49.9)


def test_both_end_together_whatever_their_speeds() -> None:
    _, kept = best_relief(Laggard(1000, 10.0, 9.0, 0), Helper(40.0, 0.0), 100)
    assert kept == 200


def test_small_pieces_are_taken_only_from_the_slow() -> None:
    assert best_relief(Laggard(100, 10.0, 1.0, 0), Helper(15.0, 0.0), 100)[0] <= 0
    assert best_relief(Laggard(100, 10.0, 1.0, 0), Helper(40.0, 0.0), 100)[1] == 20
    assert best_relief(Laggard(100, 10.0, 1.0, 0), Helper(40.0, 0.0, elsewhere=False), 100)[0] <= 0


def test_a_crawling_connection_is_dropped_once_it_is_old_enough() -> None:
    assert best_relief(Laggard(100, 1.0, 1.0, 0), Helper(1.5, 0.0), 100)[0] == 0
    gain, kept = best_relief(Laggard(100, 1.0, 3.0, 0), Helper(100.0, 0.0), 100)
    assert kept is None
    assert gain == pytest.approx(96.0)


def test_an_address_that_rests_leaves_its_siblings_alone() -> None:
    play = Play(LIMITS)
    play.add(10**9)
    play.open(1, Place("A", "h", "a0"), ("a0", "a1"))
    play.wait(0.2)
    (second,) = [n for n, order in play.fetches.items() if order.place.address == "a1"]
    orders = play.fail(second, Busy("429", retry_after_s=20)) + play.wait(2)
    assert {order.place.address for order in orders if isinstance(order, Fetch)} <= {"a0"}
    play.tell(Landed(1, Range(0, 10)))
    assert not [o for o in play.wait(1) if isinstance(o, Fetch) and o.place.address == "a1"]


def test_a_lone_lane_that_cannot_reach_its_host_loses_it() -> None:
    play = two_sources()
    for number, order in list(play.fetches.items()):
        if order.place.source == "B":
            play.fail(number, Unreachable("gone"))
    play.wait(1)
    (probe,) = [n for n in play.plan._assignments if play.fetches[n].place.source == "B"]
    play.fail(probe, Unreachable("gone"))
    assert not play.plan._hosts.of("B").answers
