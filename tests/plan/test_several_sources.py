"""What is promised of several sources together, played at the scale of real ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from headrace.errors import Busy
from headrace.plan.limits import MIB, Limits
from headrace.plan.orders import Fetch, Place, Retry
from tests.plan.play import Play
from tests.plan.simulator import NEVER, SimBlob, SimSource, Simulation

CI = settings(settings.get_profile("plan"), max_examples=5, phases=[Phase.generate])
MEGABIT = 125_000
STEP_S = 0.1
GIB = 1024 * MIB

rates = st.sampled_from([50, 100, 200, 400])
first_bytes = st.sampled_from([0.02, 0.15])


def on_line(name: str, megabits: int, **facts: object) -> SimSource:
    """A source whose line is the limit, not its connections."""
    line = megabits * MEGABIT
    return replace(SimSource(name, rate=line, line=line, first_byte_s=0.02), **facts)  # type: ignore[arg-type]


def play(sources: list[SimSource], size: int, limits: Limits | None = None, seed: int = 0) -> Simulation:
    simulation = Simulation(
        sources, [SimBlob(size)], limits or Limits(), seed=seed, hash_rate=10**10, step_s=STEP_S, jitter=0.1
    )
    simulation.run(until_s=600)
    simulation.check_published("blob0")
    return simulation


@CI
@given(st.lists(rates, min_size=2, max_size=4), first_bytes, st.integers(0, 99))
def test_several_lines_bring_nearly_the_sum_of_each(lines: list[int], first_byte_s: float, seed: int) -> None:
    sources = [
        on_line(name, line, first_byte_s=first_byte_s) for name, line in zip("ABCD", lines, strict=False)
    ]
    total = sum(lines) * MEGABIT
    size = 10 * total
    took_s = play(sources, size, seed=seed).now
    assert took_s <= size / total / 0.93 + 4 * STEP_S


@CI
@given(first_bytes, st.integers(0, 99))
def test_the_fastest_source_falls_silent_and_others_take_over(first_byte_s: float, seed: int) -> None:
    lines = {"A": 100, "B": 200, "C": 400}
    sources = [on_line(name, line, first_byte_s=first_byte_s) for name, line in lines.items()]
    sources[2] = replace(sources[2], gone=(5.0, NEVER))
    size = 10 * 700 * MEGABIT
    simulation = play(sources, size, seed=seed)
    ideal_s = 5.0 + (size - 5 * 700 * MEGABIT) / (300 * MEGABIT)
    assert simulation.now <= ideal_s + 5
    told = [at for at, order in simulation.log if isinstance(order, Retry) and order.place.source == "C"]
    assert 5 < told[0] <= 8
    sent = {o.number: o for at, o in simulation.log if isinstance(o, Fetch)}
    after = [o for at, o in simulation.log if isinstance(o, Fetch) and at > 8 and o.place.source == "C"]
    assert all(len(one.range) <= 2 * MIB for one in after)
    assert sent


@CI
@given(st.integers(0, 99), st.sampled_from([10.0, 30.0, 47.3]))
def test_a_source_that_comes_back_is_used_again(seed: int, back_at: float) -> None:
    sources = [on_line("A", 50), on_line("B", 400, gone=(3.0, back_at))]
    simulation = Simulation(
        sources, [SimBlob(3 * GIB)], Limits(), seed=seed, hash_rate=10**10, step_s=STEP_S, jitter=0.1
    )
    while simulation.now < back_at:
        simulation.step()
    before = sum(count for place, count in simulation.brought.items() if place.source == "B")
    while simulation.now < back_at + 30:
        simulation.step()
    after = sum(count for place, count in simulation.brought.items() if place.source == "B")
    assert after - before >= 10 * 400 * MEGABIT


@CI
@given(st.integers(0, 99), st.sampled_from([2, 3]), st.sampled_from([2, 8]))
def test_an_address_that_crawls_costs_next_to_nothing(seed: int, addresses: int, rate_mb: int) -> None:
    source = SimSource("A", rate=rate_mb * 10**6, first_byte_s=0.02, addresses=addresses, crawls=0.01)
    size = 16 * rate_mb * 10**6 * 10
    alone_s = play([replace(source, addresses=1, crawls=1.0)], size, seed=seed).now
    assert play([source], size, seed=seed).now <= 1.10 * alone_s


@CI
@given(st.integers(0, 99), st.sampled_from([2, 3, 4, 6, 8, 12]), st.booleans())
def test_a_throttle_that_collapses_is_kept_below(seed: int, borne: int, two: bool) -> None:  # noqa: FBT001
    rate = 2 * 10**6
    sources = [SimSource("A", rate=rate, first_byte_s=0.05, borne=borne)]
    sources += [SimSource("B", rate=rate, first_byte_s=0.05)] if two else []
    best = rate * (borne + 16 * two)
    size = 45 * best
    assert play(sources, size, seed=seed).now <= 45 / 0.8


@CI
@given(st.permutations([400, 40, 8, 4]), st.integers(0, 99))
def test_lanes_go_where_they_win_most(kinds: list[int], seed: int) -> None:
    """One line that one lane fills, three sources limited per connection: 32 lanes for what would bear 64."""
    sources = [
        on_line(name, kind) if kind == 400 else SimSource(name, rate=kind * MEGABIT, first_byte_s=0.02)
        for name, kind in zip("ABCD", kinds, strict=True)
    ]
    best = (400 + 16 * 40 + 12 * 8) * MEGABIT
    size = 45 * best
    assert play(sources, size, seed=seed).now <= 45 / 0.85


def test_a_source_that_brings_next_to_nothing_is_left_alone() -> None:
    sources = [on_line("A", 400), SimSource("B", rate=1000, first_byte_s=0.02)]
    simulation = play(sources, GIB)
    assert simulation.now <= 1.05 * GIB / (400 * MEGABIT)
    late = [o for at, o in simulation.log if isinstance(o, Fetch) and at > 5 and o.place.source == "B"]
    assert len(late) <= 1


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_the_end_is_reached_together(share: float) -> None:
    sources = [on_line("A", 400), on_line("B", int(400 * share))]
    simulation = play(sources, GIB)
    assert simulation.now <= GIB / ((1 + share) * 400 * MEGABIT) / 0.95


def test_sources_that_lead_to_one_host_share_its_lanes() -> None:
    simulation = play([on_line("A", 100)], 100 * MIB)
    assert Place("A") in simulation.known


def test_a_source_that_is_slow_to_begin_is_waited_for_at_last_where_lanes_are_idle() -> None:
    sources = [
        SimSource("A", rate=20_000, first_byte_s=0.05),
        SimSource("B", rate=5 * MIB, first_byte_s=4.5),
        SimSource("C", illness="asks too much", well_at=NEVER),
    ]
    assert play(sources, 40 * MIB, Limits(lanes_most=4, lanes_per_host=2)).now < 120


def test_a_blob_is_not_given_up_while_who_could_bring_it_is_busy_with_others() -> None:
    sources = [
        SimSource("A", rate=100_000, first_byte_s=0.05),
        SimSource("B", rate=100_000, illness="missing", well_at=0.5, gone=(0.5, NEVER)),
    ]
    blobs = [SimBlob(20 * MIB), SimBlob(MIB // 2, added_at=1.0)]
    limits = Limits(lanes_most=2, blobs_at_once=2)
    simulation = Simulation(sources, blobs, limits, hash_rate=10**10, step_s=STEP_S, jitter=0.1)
    simulation.run(until_s=600)
    for name in simulation.works:
        simulation.check_published(name)


def test_who_asks_for_too_long_a_pause_leaves_the_blob_to_those_that_come_after() -> None:
    """The least trusted source lied, and the one that is to be asked first for its bytes wants to be left alone."""
    sources = [
        SimSource("A", illness="asks too much", well_at=NEVER),
        SimSource("B", rate=MIB, first_byte_s=2.5),
        SimSource("C", rate=MIB, first_byte_s=0.1, lies=1.0),
    ]
    simulation = Simulation(sources, [SimBlob(MIB), SimBlob(4 * MIB)], Limits(lanes_most=2), hash_rate=10**10)
    simulation.run(until_s=200)
    for name in simulation.works:
        simulation.check_published(name)


def test_who_only_ever_failed_others_makes_room_too() -> None:
    """The one to be asked first after a lie fails all the time, and hardly ever has its turn at this blob."""
    plan = Play(Limits(lanes_most=4))
    plan.add(1000, sources="ABC")
    blob = plan.plan._blobs["b"]
    blob._suspicion._asked = ("A",)
    blob.relent({"A": Busy("503")})
    assert blob.sources == ["B"]
