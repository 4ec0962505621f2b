"""Which place is asked next, and how many lanes are worth having."""

from __future__ import annotations

import pytest

from headrace.errors import Stalled, Unreachable
from headrace.plan.lanes import LaneGovernor
from headrace.plan.limits import Limits
from headrace.plan.orders import Place
from headrace.plan.places import Outlook, Places
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


def test_a_place_that_was_too_slow_is_tried_again_only_now_and_then() -> None:
    places = open_places("a0")
    places.delivered(at("a0"), 1e6)
    doors, outlook, slow = [DOOR, ("B", "g")], Outlook(1e9, 600.0), at("b0", "B", "g")
    places.taken(Place("B"), 1000.0)
    places.moved(Place("B"), slow, ("b0",), 0.1)
    places.delivered(slow, 100_000.0)
    places.left(slow)
    for _ in range(3):
        places.taken(at("a0"))
    assert places.choose(doors, 1019.0, outlook) is None
    assert places.choose(doors, 1021.0, outlook) == slow
    places.taken(slow, 1021.0)
    places.moved(slow, slow, ("b0",), 0.1)
    places.left(slow)
    assert places.choose(doors, 1040.0, outlook) is None


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
    """A line of `capacity` on which one lane gets at most `each`; beyond `borne` lanes it brings a tenth."""

    def __init__(self, capacity: int, each: int, borne: int = 99) -> None:
        self.governor = LaneGovernor(Limits())
        self.capacity, self.each, self.borne = capacity, each, borne
        self.now = 0.0
        self._answered = 0

    def run(self, seconds: float) -> list[int]:
        seen = []
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            lanes = self.governor.allowed
            for _ in range(self._answered, lanes):
                self.governor.answered()
            self._answered = max(self._answered, lanes)
            brought = min(self.capacity, self.each * lanes) // 10
            self.governor.landed(brought if lanes <= self.borne else brought // 10)
            self.governor.look(self.now, lanes, 0.02)
            seen.append(self.governor.allowed)
        return seen


def test_lanes_climb_by_doubling_as_they_are_answered() -> None:
    line = Line(10**9, 10**6)
    assert line.governor.expected == 32
    assert line.run(0.5)[:4] == [8, 16, 32, 32]
    assert set(line.run(60)) == {32, 16}  # fewer are tried now and then, and given up again
    assert line.governor.expected == 32


def test_lanes_that_are_not_answered_are_not_doubled() -> None:
    governor = LaneGovernor(Limits())
    for step in range(4):
        assert not governor.look(step, 4, 0.02)
        governor.answered()
    assert governor.look(4.0, 4, 0.02)


def test_no_more_lanes_than_the_hosts_bear() -> None:
    line = Line(10**9, 10**6)
    line.governor.reach(16)
    assert max(line.run(60)) == 16
    line.governor.reach(48)
    line.run(60)
    assert line.governor.allowed == 32


def test_lanes_that_only_share_what_there_is_are_given_up() -> None:
    line = Line(4 * 10**6, 10**6)
    seen = line.run(120)
    assert max(seen) == 32
    assert max(seen[200:]) <= 5  # a little more is tried now and then
    assert seen[200:].count(4) > 0.9 * len(seen[200:])


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
    line.run(5)
    line.governor.trouble(line.now)
    assert max(line.run(3)) == 16
    line.run(30)
    assert line.governor.allowed == 32


def test_goodput_that_collapses_without_a_word_halves_the_lanes() -> None:
    line = Line(10**9, 10**6)
    line.run(3)
    line.borne = 20
    assert set(line.run(3)[-10:]) == {16}
    seen = line.run(120)
    assert seen.count(16) + seen.count(20) > 0.8 * len(seen)


def test_a_line_that_grows_slow_for_all_costs_no_lanes_for_long() -> None:
    line = Line(10**9, 10**6)
    line.run(3)
    line.each = 10**5
    assert 16 in line.run(2)
    line.each = 10**6
    assert line.run(30)[-1] == 32


def test_one_lane_cannot_be_too_many() -> None:
    line = Line(10**9, 10**6)
    line.governor.reach(1)
    line.run(3)
    line.each = 10**5
    line.run(3)
    line.each = 10**6
    line.governor.reach(16)
    assert line.run(10)[-1] == 16


def test_small_files_make_no_collapse_of_what_follows() -> None:
    line = Line(10**9, 10**6)
    for _ in range(50):
        line.run(0.1)
        for _ in range(40):
            line.governor.served()  # ten times what the line brings in bytes
    assert min(line.run(3)) == 32


def test_a_trial_begins_when_lanes_have_stopped() -> None:
    governor = LaneGovernor(Limits(lanes_at_start=4, lanes_most=4))
    governor.trouble(0.0)
    for step in range(1, 40):
        governor.landed(10**6)
        governor.look(step * 0.1, 4, 0.02)  # two are allowed, four are still at it
    assert governor.allowed == 2


def test_an_epoch_needs_all_lanes() -> None:
    line = Line(10**9, 10**6)
    line.run(3)
    for step in range(1000):
        assert not line.governor.look(line.now + step * 0.1, 31 if step % 3 == 0 else 32, 0.02)
    assert line.governor.allowed == 32


def test_requests_that_end_count_as_work() -> None:
    governor = LaneGovernor(Limits())
    for step in range(600):
        for _ in range(governor.allowed):
            governor.answered()
            governor.served()
        governor.look(step * 0.1, governor.allowed, 0.02)
        assert step < 3 or governor.allowed >= 16
    assert governor.allowed == 32


def test_a_trial_ends_where_more_lanes_may_be_climbed_to() -> None:
    governor = LaneGovernor(LIMITS)
    governor.reach(2)
    governor.allowed, governor._climbing, governor._before = 2, False, (4, 1000.0)
    governor.reach(4)
    for step in range(1, 100):
        governor.landed(1000)
        governor.look(step * 0.1, governor.allowed, 0.01)
    assert governor.allowed == 4
