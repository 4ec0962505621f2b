"""Whatever lanes, sources and hashers do, in whatever order: bytes are kept straight and every blob ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import AllSourcesFailed, Busy, NotFound
from headrace.plan.limits import Limits
from headrace.ranges import Range
from tests.plan.simulator import NEVER, STEP_S, SimBlob, SimSource, Simulation

LIMITS = Limits(
    lanes_at_start=2,
    lanes_most=8,
    lanes_per_host=5,
    window_bytes=200,
    segment_least_bytes=10,
    blobs_at_once=4,
    patience_s=5.0,
)
PASSING = ["none", "silent", "breaks", "unreachable", "busy", "asks", "asks nothing", "dark"]
STRIKING = ["missing", "html"]

SIZES = st.one_of(st.sampled_from([0, 1, 9, 10, 11, 19, 20, 21, 199, 200, 201]), st.integers(0, 700))
CI = settings(settings.get_profile("plan"), max_examples=40)
SOAK = settings(settings.get_profile("plan"), max_examples=3000, derandomize=False)


@st.composite
def blobs(draw: st.DrawFn, *, wanted: bool = True) -> list[SimBlob]:
    made = []
    for _ in range(draw(st.integers(1, 6))):
        size = draw(SIZES)
        cuts = sorted(draw(st.lists(st.integers(0, size), max_size=4)))
        have = tuple(Range(start, stop) for start, stop in zip(cuts[::2], cuts[1::2], strict=False))
        ended_at = NEVER if wanted else draw(st.sampled_from([NEVER, 0.0, 1.0, 3.0, 20.0]))
        wishes = tuple(
            (draw(st.sampled_from([0.0, 1.0, 2.5, 9.5])), Range(start, draw(st.integers(start, size))))
            for start in draw(st.lists(st.integers(0, size), max_size=3))
        )
        added_at = draw(st.sampled_from([0.0, 0.0, 1.0, 9.0]))
        made.append(SimBlob(size, have, added_at, ended_at, wishes=wishes))
    return made


@st.composite
def sources(draw: st.DrawFn, illnesses: list[str], well_at: float, most: int = 3) -> list[SimSource]:
    return [
        SimSource(
            name,
            rate=draw(st.sampled_from([8, 30, 100, 1000])),
            first_byte_s=draw(st.sampled_from([0.0, 0.25, 1.0])),
            illness=draw(st.sampled_from(illnesses)),
            well_at=min(well_at, draw(st.sampled_from([0.5, 3.0, 10.0, well_at])))
            if well_at < NEVER
            else NEVER,
            ranges=draw(st.sampled_from([True, True, True, False])),
            hosts=draw(st.integers(1, 3)),
            addresses=draw(st.integers(1, 3)),
            slow_from=draw(st.sampled_from([NEVER, 0.0, 4.0])),
        )
        for name in "ABC"[: draw(st.integers(1, most))]
    ]


hash_rates = st.sampled_from([10, 100, 10**6])
seeds = st.integers(0, 2**32)


def every_blob_completes(
    who: list[SimSource], what: list[SimBlob], seed: int, hash_rate: int, *, prompt: bool
) -> None:
    limits = replace(LIMITS, fair=bool(seed % 2))
    simulation = Simulation(who, what, limits, seed=seed, hash_rate=hash_rate, prompt=prompt)
    simulation.run(until_s=6000)
    for name in simulation.works:
        simulation.check_published(name)


recovering = given(sources(PASSING, 25.0), blobs(), seeds, hash_rates, st.booleans())


@CI
@recovering
def test_sources_that_recover_deliver_every_byte_once(
    who: list[SimSource],
    what: list[SimBlob],
    seed: int,
    hash_rate: int,
    prompt: bool,  # noqa: FBT001
) -> None:
    every_blob_completes(who, what, seed, hash_rate, prompt=prompt)


@pytest.mark.soak
@SOAK
@recovering
def test_sources_that_recover_deliver_every_byte_once_soak(
    who: list[SimSource],
    what: list[SimBlob],
    seed: int,
    hash_rate: int,
    prompt: bool,  # noqa: FBT001
) -> None:
    every_blob_completes(who, what, seed, hash_rate, prompt=prompt)


@CI
@given(sources(PASSING + STRIKING, NEVER, most=2), blobs(), seeds)
def test_one_good_source_is_enough(ill: list[SimSource], what: list[SimBlob], seed: int) -> None:
    good = SimSource("good", rate=50)
    for who in ([good, *ill], [*ill, good]):
        every_blob_completes(who, what, seed, 10**6, prompt=True)


@CI
@given(sources(["dark", "unreachable", "busy", "asks nothing"], NEVER), blobs(), seeds)
def test_sources_that_never_recover_are_given_up_in_time(
    who: list[SimSource], what: list[SimBlob], seed: int
) -> None:
    limits = replace(LIMITS, blobs_at_once=6)
    simulation = Simulation(who, what, limits, seed=seed)
    simulation.run(until_s=300)
    for work in simulation.works.values():
        if work.landed.total == work.blob.size:
            assert work.outcome == "published"
        else:
            assert isinstance(work.outcome, AllSourcesFailed)
            assert set(work.outcome.causes) <= set(simulation.sources)
            assert work.outcome.causes
            waited = work.outcome_at - work.blob.added_at
            assert limits.give_up_s - STEP_S <= waited <= limits.give_up_s + 2 * limits.patience_most_s


@CI
@given(sources(["asks"], NEVER), blobs(), seeds)
def test_sources_that_ask_for_patience_for_ever_are_given_up_too(
    who: list[SimSource], what: list[SimBlob], seed: int
) -> None:
    simulation = Simulation(who, what, replace(LIMITS, blobs_at_once=6), seed=seed)
    simulation.run(until_s=250)
    for work in simulation.works.values():
        assert work.outcome == "published" or isinstance(work.outcome, AllSourcesFailed)


@CI
@given(sources(["missing"], NEVER), blobs(), seeds)
def test_what_no_source_has_is_given_up_at_once(who: list[SimSource], what: list[SimBlob], seed: int) -> None:
    simulation = Simulation(who, what, LIMITS, seed=seed)
    simulation.run(until_s=60)
    for work in simulation.works.values():
        if work.outcome != "published":
            assert isinstance(work.outcome, NotFound if len(who) == 1 else AllSourcesFailed)


@CI
@given(blobs(), seeds)
def test_an_hour_is_not_waited_for(what: list[SimBlob], seed: int) -> None:
    source = SimSource("A", illness="asks too much", well_at=NEVER)
    simulation = Simulation([source], what, LIMITS, seed=seed)
    simulation.run(until_s=60)
    for work in simulation.works.values():
        if work.outcome != "published":
            assert isinstance(work.outcome, Busy)
            assert "come back in" in work.outcome.message


@CI
@given(sources(PASSING, 25.0), blobs(wanted=False), seeds, hash_rates)
def test_blobs_may_end_at_any_time(
    who: list[SimSource], what: list[SimBlob], seed: int, hash_rate: int
) -> None:
    simulation = Simulation(who, what, LIMITS, seed=seed, hash_rate=hash_rate, prompt=False)
    simulation.run(until_s=6000)
    assert {work.outcome for work in simulation.works.values()} <= {"published", "ended"}


@CI
@given(blobs(), seeds)
def test_bytes_spoilt_on_disk_are_fetched_again_and_no_others(what: list[SimBlob], seed: int) -> None:
    simulation = Simulation(
        [SimSource("A")], [replace(one, bad_have=True) for one in what], LIMITS, seed=seed
    )
    simulation.run(until_s=600)
    for name, work in simulation.works.items():
        simulation.check_published(name)
        assert work.fetched == work.blob.size
