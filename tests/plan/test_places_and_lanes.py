"""Which place is asked next, and how many lanes are worth having."""

from __future__ import annotations

import pytest

from headrace.errors import Stalled, Unreachable
from headrace.plan.lanes import LaneGovernor
from headrace.plan.limits import Limits
from headrace.plan.orders import Place
from headrace.plan.places import Places
from headrace.plan.retry import pause_s

LIMITS = Limits(lanes_at_start=4, lanes_most=32, lanes_per_host=3)
DOOR = ("A", "h")


def at(address: str, source: str = "A", host: str = "h") -> Place:
    return Place(source, host, address)


def open_places(*addresses: str, source: str = "A", host: str = "h") -> Places:
    """Places with one lane at the first address."""
    places = Places(LIMITS)
    found = at(addresses[0], source, host)
    places.taken(Place(source))
    places.moved(Place(source), found, addresses, 0.1)
    return places


def test_addresses_of_one_host_are_judged_separately() -> None:
    places = open_places("a0", "a1")
    places.delivered(at("a0"), 100.0)
    assert places.choose([DOOR], 0.0) == at("a1")  # not measured yet: the benefit of the doubt
    places.delivered(at("a1"), 10.0)
    assert places.choose([DOOR], 0.0) == at("a0")
    places.failed(at("a0"), Unreachable("no"), 0.0, 0.5)
    assert places.choose([DOOR], 0.0) == at("a1")
    assert not places.lost(DOOR, 0.0)


def test_lanes_are_shared_out_by_rate_among_sources() -> None:
    places = open_places("a0")
    places.taken(Place("B"))
    places.moved(Place("B"), at("b0", "B", "g"), ("b0",), 0.1)
    places.delivered(at("a0"), 100.0)
    places.delivered(at("b0", "B", "g"), 40.0)
    doors = [DOOR, ("B", "g")]
    assert places.choose(doors, 0.0) == at("a0")
    places.taken(at("a0"))
    places.taken(at("a0"))
    assert places.choose(doors, 0.0) == at("b0", "B", "g")


def test_a_host_takes_only_so_many_lanes_whichever_source_leads_there() -> None:
    places = open_places("a0")
    places.taken(at("a0"))
    places.taken(Place("A"))  # may be led there as well
    assert places.choose([DOOR], 0.0) is None
    assert places.choose([("A", "")], 0.0) is None
    assert places.choose([("B", "")], 0.0) == Place("B")
    places.moved(Place("B"), at("a0", "B"), ("a0",), 0.1)
    places.left(Place("A"))
    places.taken(at("a0"))
    assert places.choose([("B", "h")], 0.0) is None


def test_nobody_to_ask_is_nowhere_to_go() -> None:
    places = Places(LIMITS)
    assert places.choose([], 0.0) is None
    assert places.rest([], 3.0) == (3.0, 0.0)


def test_one_silent_address_is_borne_with_longer_and_the_other_is_not() -> None:
    places = open_places("a0", "a1")
    places.failed(at("a0"), Stalled("silent"), 0.0, 0.5)
    assert (places.patience_s(at("a0")), places.patience_s(at("a1"))) == (10.0, 5.0)
    places.delivered(at("a0"), 1.0)
    assert places.patience_s(at("a0")) == 5.0


def test_what_was_too_slow_to_be_waited_for_counts_for_less() -> None:
    places = open_places("a0")
    places.delivered(at("a0"), 100.0)
    places.disappointed(at("a0"), 0.0)
    assert places.rate(at("a0")) == pytest.approx(70.0)


def test_places_that_are_gone_are_forgotten() -> None:
    places = Places(LIMITS)
    for number in range(1000):
        host = f"h{number}"
        places.taken(Place("A"))
        places.moved(Place("A"), at("a0", host=host), (), 0.1)
        places.left(at("a0", host=host))
    places.taken(Place("A"))
    places.moved(Place("A"), at("a0"), ("a1", "a2"), 0.1)
    places.taken(Place("A"))
    places.moved(Place("A"), at("a3"), ("a3",), 0.1)
    assert len(places._records) < 100
    assert len(places._addresses) < 100
    assert len(places._at_host) == 1


def test_an_unknown_host_is_found_by_asking_the_source() -> None:
    assert Places(LIMITS).choose([("A", "forgotten")], 0.0) == Place("A")


@pytest.mark.parametrize(("failures", "most"), [(1, 0.25), (2, 0.5), (5, 4.0), (6, 5.0), (10**6, 5.0)])
def test_pauses_grow_and_are_jittered(failures: int, most: float) -> None:
    assert pause_s(failures, chance=0.0, most_s=5.0) == 0.0
    assert pause_s(failures, chance=0.5, most_s=5.0) == most / 2


def test_what_a_server_asks_for_is_kept_to() -> None:
    assert pause_s(1, chance=0.5, most_s=5.0, asked_s=100.0) == pytest.approx(105.0)
    assert pause_s(9, chance=0.5, most_s=5.0, asked_s=0.0) == 2.5


class Line:
    """A line of `capacity` on which one lane gets at most `each`."""

    def __init__(self, capacity: int, each: int) -> None:
        self.governor = LaneGovernor(Limits())
        self.capacity, self.each = capacity, each
        self.now = 0.0

    def run(self, seconds: float) -> list[int]:
        seen = []
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            self.governor.landed(min(self.capacity, self.each * self.governor.allowed) // 10)
            self.governor.look(self.now, self.governor.allowed, 0.02)
            seen.append(self.governor.allowed)
        return seen


def test_lanes_grow_while_it_pays() -> None:
    line = Line(10**9, 10**6)
    line.run(10)
    assert line.governor.allowed == 32


def test_lanes_stop_growing_when_it_does_not_pay() -> None:
    line = Line(4 * 10**6, 10**6)
    seen = line.run(60)
    assert max(seen) == 8  # tried once
    assert max(seen[20:]) <= 5  # a little more is tried now and then
    assert seen.count(4) > len(seen) * 0.7


def test_lanes_are_halved_once_a_second_when_a_server_complains() -> None:
    governor = LaneGovernor(Limits(lanes_at_start=16))
    for now in (0.0, 0.1, 0.9):
        governor.trouble(now)
    assert governor.allowed == 8
    for now in (1.0, 2.0, 3.0, 4.0, 5.0):
        governor.trouble(now)
    assert governor.allowed == 1


def test_after_trouble_lanes_come_back_slowly() -> None:
    line = Line(10**9, 10**6)
    line.run(10)
    line.governor.trouble(line.now)
    assert max(line.run(3)) == 16
    line.run(30)
    assert line.governor.allowed == 32


def test_an_epoch_needs_all_lanes() -> None:
    governor = LaneGovernor(Limits())
    for step in range(100):
        governor.landed(10**6)
        assert not governor.look(step * 0.1, 3 if step % 3 == 0 else 4, 0.02)
    assert governor.allowed == 4


def test_requests_that_end_count_as_work() -> None:
    governor = LaneGovernor(Limits())
    for step in range(100):
        for _ in range(governor.allowed):
            governor.served()
        governor.look(step * 0.1, governor.allowed, 0.02)
    assert governor.allowed == 32
