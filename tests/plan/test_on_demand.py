"""What is fetched on demand, which blob is served when somebody waits, and what a doubt makes of a blob."""

from __future__ import annotations

from dataclasses import replace

from headrace.errors import DigestMismatch
from headrace.plan.marks import Marks
from headrace.plan.orders import (
    Added,
    Doubted,
    Finished,
    Forget,
    GiveUp,
    Landed,
    Shorten,
    Widened,
    Wished,
)
from headrace.ranges import Range, RangeSet
from tests.plan.play import A0, LIMITS, Play, fetched, only

ERROR = DigestMismatch("wrong")


def sparing(size: int = 1000, lanes: int = 4) -> Play:
    play = Play(replace(LIMITS, lanes_at_start=lanes, lanes_most=lanes))
    play.tell(Added("b", size, RangeSet(), ("A",), on_demand=True))
    return play


def done(play: Play, number: int) -> list[tuple[int, int, str]]:
    return fetched(play.tell(Landed(number, play.fetches[number].range), Finished(number)))


def test_nothing_comes_that_is_not_wished_and_all_that_is() -> None:
    play = sparing(lanes=1)
    assert play.wait(1.0) == []
    assert fetched(play.tell(Wished("b", Range(300, 340)))) == [(300, 340, "A")]
    play.open(1)
    assert play.tell(Wished("b", Range(320, 400), urgent=False)) == []
    assert done(play, 1) == [(340, 400, "A")]
    assert done(play, 2) == []
    assert play.wait(120.0) == []  # however long nobody wants more: it is not given up


def test_who_waits_goes_before_who_will() -> None:
    play = sparing(lanes=1)
    play.tell(Wished("b", Range(900, 950)))
    play.open(1)
    play.tell(Wished("b", Range(100, 200), urgent=False), Wished("b", Range(500, 540)))
    assert done(play, 1) == [(500, 540, "A")]
    assert done(play, 2) == [(100, 200, "A")]


def test_more_wishes_than_are_remembered_as_urgent_are_fulfilled() -> None:
    play = sparing(100_000, lanes=1)
    for start in range(0, 30_000, 100):
        play.tell(Wished("b", Range(start, start + 20)))
    number = 1
    play.open(number)
    while done(play, number):
        number += 1
    assert sum(len(one.range) for one in play.fetches.values()) == 300 * 20


def test_when_all_is_wanted_it_is_fetched_like_any_other() -> None:
    play = sparing(lanes=1)
    play.tell(Wished("b", Range(300, 340)))
    play.open(1)
    done(play, 1)
    assert fetched(play.tell(Widened("b"))) == [(0, 300, "A")]
    assert done(play, 2) == [(340, 1000, "A")]


def test_the_head_of_a_later_blob_comes_before_the_rest_of_the_first() -> None:
    play = Play(replace(LIMITS, lanes_at_start=2, lanes_most=2, segment_bytes=100))
    play.add()
    play.open(1)
    play.open(2, A0)
    play.tell(*(Added(name, 1000, RangeSet(), ("A",)) for name in "cd"))
    play.tell(Wished("c", Range(0, 20)), Wished("d", Range(0, 30)))
    assert done(play, 1) == [(0, 20, "A")]
    assert play.fetches[3].blob == "c"
    play.open(3, A0)
    done(play, 2)
    assert play.fetches[4].blob == "b"  # whose turn it is
    assert done(play, 3) == [(0, 30, "A")]
    assert play.fetches[5].blob == "d"


def test_a_lane_is_ceded_to_the_head_of_a_later_blob() -> None:
    play = Play(replace(LIMITS, lanes_at_start=4, lanes_most=4, window_bytes=100_000))
    play.add(100_000)
    play.open(1)
    for number in range(2, 5):
        play.open(number, A0)
    play.now = 1.0
    for number in range(1, 5):
        start = play.fetches[number].range.start
        play.land(number, start, start + 10)
    play.look()
    play.tell(Added("c", 100_000, RangeSet(), ("A",)), Wished("c", Range(0, 20)))
    ceded = only(play.wait(0.4), Shorten)
    assert play.fetches[ceded.number].blob == "b"


def doubt(start: int, stop: int) -> Doubted:
    return Doubted("b", ERROR, Marks(RangeSet([Range(start, stop)]), believed=True))


def test_what_is_doubted_comes_from_somebody_else() -> None:
    play = Play(replace(LIMITS, lanes_at_start=1, lanes_most=1))
    play.add(sources="AB")
    play.open(1)
    giver, one = play.fetches[1].place.source, play.fetches[1].range
    play.land(1, one.start, one.start + 10)
    assert only(play.tell(doubt(0, 10)), Forget).ranges == RangeSet([Range(0, 10)])
    assert {source for _, _, source in done(play, 1)} == {"AB".replace(giver, "")}


def test_an_only_source_is_borne_with_twice_for_each_block() -> None:
    play = Play(replace(LIMITS, lanes_at_start=1, lanes_most=1))
    play.add(sources="A")
    play.open(1)
    play.land(1, 0, 30)
    for _ in range(2):
        play.tell(doubt(0, 10))
        play.tell(doubt(20, 30))
    assert only(play.tell(doubt(0, 10)), GiveUp).error is ERROR
