"""Whoever lies, however often, about whatever: the right bytes or none, nobody slandered, bounded traffic."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import DigestMismatch
from headrace.plan.limits import Limits
from headrace.ranges import Range
from tests.plan.simulator import SimBlob, SimSource, Simulation

LIMITS = Limits(
    lanes_at_start=2,
    lanes_most=8,
    lanes_per_host=5,
    window_bytes=200,
    segment_bytes=40,
    segment_least_bytes=10,
    blobs_at_once=4,
    patience_s=5.0,
)
CI = settings(settings.get_profile("plan"), max_examples=60)
SOAK = settings(settings.get_profile("plan"), max_examples=3000, derandomize=False)

seeds = st.integers(0, 2**32)
sizes = st.one_of(st.sampled_from([1, 10, 11, 20, 199, 200, 201]), st.integers(1, 700))


@st.composite
def blobs(draw: st.DrawFn, *, resumed: bool = False) -> list[SimBlob]:
    made = []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(sizes)
        cuts = sorted(draw(st.lists(st.integers(0, size), max_size=4))) if resumed else []
        have = tuple(Range(start, stop) for start, stop in zip(cuts[::2], cuts[1::2], strict=False))
        added_at = draw(st.sampled_from([0.0, 0.0, 2.0, 9.0]))
        made.append(SimBlob(size, have, added_at, bad_have=bool(have) and draw(st.booleans())))
    return made


@st.composite
def sources(draw: st.DrawFn, kinds: list[str]) -> list[SimSource]:
    """One of each kind, in any order of trust."""
    made = []
    for name, kind in zip("ABCDE", draw(st.permutations(kinds)), strict=False):
        one = SimSource(name, rate=draw(st.sampled_from([30, 100, 1000])), addresses=draw(st.integers(1, 3)))
        if kind == "always":
            one = replace(one, lies=1.0)
        elif kind == "sometimes":
            one = replace(one, lies=draw(st.sampled_from([0.05, 0.3])))
        elif kind == "at one address":
            one = replace(one, lies=1.0, addresses=2, lying_address="a1")
        made.append(one)
    return made


def played(who: list[SimSource], what: list[SimBlob], seed: int) -> Simulation:
    """To the end; no slander on the way (the simulation sees to that), and no more traffic than is promised."""
    simulation = Simulation(who, what, LIMITS, seed=seed)
    simulation.run(until_s=4000)
    for work in simulation.works.values():
        assert work.fetched <= work.blob.size * (2 * len(who) + 1), "more than 2 n times was fetched again"
    return simulation


LIARS = [
    ["always", "honest", "honest"],
    ["always", "always", "honest"],
    ["sometimes", "honest", "honest"],
    ["sometimes", "always", "honest"],
    ["at one address", "honest"],
    ["always", "sometimes", "at one address", "honest", "honest"],
]


@CI
@given(st.sampled_from(LIARS).flatmap(sources), blobs(resumed=True), seeds)
def test_an_honest_source_among_liars_prevails(who: list[SimSource], what: list[SimBlob], seed: int) -> None:
    simulation = played(who, what, seed)
    for name in simulation.works:
        simulation.check_published(name)


@pytest.mark.soak
@SOAK
@given(st.sampled_from(LIARS).flatmap(sources), blobs(resumed=True), seeds)
def test_an_honest_source_among_liars_prevails_soak(
    who: list[SimSource], what: list[SimBlob], seed: int
) -> None:
    simulation = played(who, what, seed)
    for name in simulation.works:
        simulation.check_published(name)


@CI
@given(
    st.sampled_from([["always", "honest", "honest"], ["always", "honest"]]).flatmap(sources), blobs(), seeds
)
def test_one_liar_whose_bytes_were_in_a_blob_is_named_and_asked_no_more(
    who: list[SimSource], what: list[SimBlob], seed: int
) -> None:
    simulation = played(who, what, seed)
    (liar,) = [source.name for source in who if source.lies]
    gave = any(liar in work.wronged for work in simulation.works.values())
    assert set(simulation.lied) == ({liar} if gave else set())
    told_at = simulation.lied.get(liar, float("inf"))
    late = [at for at, order in simulation.fetches() if order.place.source == liar and at > told_at]
    assert late == []


@CI
@given(blobs(), seeds, st.integers(2, 5))
def test_where_all_lie_nothing_is_published_and_nobody_named(
    what: list[SimBlob], seed: int, count: int
) -> None:
    simulation = played([SimSource(name, lies=1.0) for name in "ABCDE"[:count]], what, seed)
    for work in simulation.works.values():
        assert isinstance(work.outcome, DigestMismatch)
    assert simulation.lied == {}


@CI
@given(blobs(), seeds)
def test_an_only_source_that_always_lies_is_given_up_and_never_named(what: list[SimBlob], seed: int) -> None:
    simulation = played([SimSource("A", lies=1.0)], what, seed)
    for work in simulation.works.values():
        assert isinstance(work.outcome, DigestMismatch)
        assert work.mismatches == 3
    assert simulation.lied == {}


@CI
@given(st.sampled_from(["missing", "html", "unreachable"]), blobs(), seeds)
def test_a_liar_that_is_the_last_one_left_is_still_asked(
    illness: str, what: list[SimBlob], seed: int
) -> None:
    """It lies once in a while, and nobody else has the content: what it gives is tried as often as that of one alone."""
    who = [SimSource("A", illness=illness, well_at=float("inf")), SimSource("B", lies=0.02)]
    simulation = played(who, what, seed)
    for work in simulation.works.values():
        assert work.outcome == "published" or isinstance(work.outcome, DigestMismatch)
