"""Whose bytes are doubted first, who is found to have lied, and what is told of sources: one decision at a time."""

from __future__ import annotations

from headrace.errors import BadAnswer, BrokenStream, DigestMismatch, NotFound, RangeIgnored, Unreachable
from headrace.plan.orders import (
    Cancel,
    Ended,
    Finished,
    Forget,
    GiveUp,
    Landed,
    Lied,
    Matched,
    Mismatched,
    Order,
    Returned,
    Struck,
)
from headrace.plan.suspicion import Lie, Suspicion
from headrace.ranges import Range, RangeSet
from tests.plan.play import LIMITS, Play, only

WRONG = DigestMismatch("wrong")


def suspicion(sources: str, *given: str, resumed: tuple[Range, ...] = ()) -> Suspicion:
    """Of a blob with a byte for each letter, which says who gave it."""
    one = Suspicion(len(given), sources, RangeSet(resumed), set())
    for at, source in enumerate(given):
        if source != "-":
            one.gave(source, Range(at, at + 1))
    return one


def give(one: Suspicion, ranges: RangeSet | None, source: str) -> None:
    for each in ranges or ():
        one.gave(source, each)


def test_the_least_trusted_bytes_go_first_and_who_is_trusted_more_gives_others() -> None:
    one = suspicion("ABC", *"ABCB")
    assert list(one.mismatched("ABC") or ()) == [Range(2, 3)]
    assert one.asked("ABC") == ["A", "B"]
    give(one, RangeSet([Range(2, 3)]), "B")
    assert list(one.mismatched("ABC") or ()) == [Range(1, 4)]
    assert one.asked("ABC") == ["A"]
    assert one.matched() == [Lie("B", 3)]


def test_a_trusted_liar_is_disproved_by_giving_all_and_the_others_try_alone() -> None:
    one = suspicion("ABC", *"AAA")
    everything = one.mismatched("ABC")
    assert everything is not None
    assert everything.total == 3
    assert one.asked("ABC") == ["B"]
    give(one, everything, "B")
    give(one, one.mismatched("ABC"), "C")
    assert one.asked("ABC") == ["C"]
    assert one.matched() == [Lie("A", 3), Lie("B", 3)]


def test_bytes_of_an_earlier_run_are_doubted_before_anybodys_and_prove_nothing() -> None:
    one = suspicion("AB", *"A-B", resumed=(Range(1, 2),))
    assert list(one.mismatched("AB") or ()) == [Range(1, 2)]
    assert one.asked("AB") == ["A", "B"]
    assert one.matched() == []


def test_whose_bytes_are_replaced_along_with_others_is_not_called_a_liar() -> None:
    one = suspicion("AB", *"AB")
    give(one, one.mismatched("AB"), "A")
    one.forget(RangeSet([Range(0, 2)]))
    assert one.matched() == []


def test_who_gave_bytes_and_may_give_no_more_is_doubted_first() -> None:
    one = suspicion("ABC", *"ABC")
    assert list(one.mismatched("BC") or ()) == [Range(0, 1)]
    assert one.asked("BC") == ["B", "C"]


def test_an_only_source_is_borne_with_twice() -> None:
    one = suspicion("A", *"AA")
    for _ in range(2):
        give(one, one.mismatched("A"), "A")
    assert one.mismatched("A") is None
    assert one.matched() == []


def finish(play: Play, blob: str) -> None:
    """All that is being fetched of a blob lands."""
    for _ in range(100):
        live = [
            order
            for number, order in play.fetches.items()
            if number in play.plan._assignments and order.blob == blob
        ]
        if not live:
            return
        for order in live:
            play.open(order.number)
            play.tell(Landed(order.number, order.range), Finished(order.number))


def doubted(play: Play) -> None:
    """All of `first` is here; what B gave of it did not match, and was replaced by A."""
    play.add(100, sources="AB", blob="first")
    finish(play, "first")
    assert any(order.place.source == "B" for order in play.fetches.values())
    play.tell(Mismatched("first", WRONG))
    finish(play, "first")


def lied_about_first(play: Play) -> list[Order]:
    """`first` matches once B's bytes were replaced by A's; what follows from that."""
    doubted(play)
    return play.tell(Matched("first"))


def test_a_liar_is_named_and_asked_for_no_other_blob() -> None:
    play = Play()
    lied = only(lied_about_first(play), Lied)
    assert (lied.blob, lied.source) == ("first", "B")
    assert lied.bytes > 0
    play.tell(Ended("first"))
    before = len(play.fetches)
    play.add(1000, sources="AB", blob="second")
    finish(play, "second")
    assert {order.place.source for number, order in play.fetches.items() if number > before} == {"A"}


def test_what_a_liar_is_sending_of_other_blobs_is_dropped_and_what_it_gave_of_them_fetched_again() -> None:
    play = Play()
    doubted(play)
    play.add(1000, sources="AB", blob="second")
    theirs = next(o for o in play.fetches.values() if o.blob == "second" and o.place.source == "B")
    play.open(theirs.number)
    start = theirs.range.start
    play.land(theirs.number, start, start + 7)
    orders = play.tell(Matched("first"))
    assert theirs.number in {order.number for order in orders if isinstance(order, Cancel)}
    forgotten = only(orders, Forget)
    assert (forgotten.blob, list(forgotten.ranges)) == ("second", [Range(start, start + 7)])


def test_a_liar_that_is_the_last_one_left_is_asked() -> None:
    play = Play()
    lied_about_first(play)
    play.tell(Ended("first"))
    before = len(play.fetches)
    orders = play.add(100, sources="B", blob="second")
    assert not any(isinstance(order, GiveUp) for order in orders)
    assert len(play.fetches) > before


def struck(orders: list[Order]) -> list[tuple[str, str]]:
    return [(order.source, order.error.code) for order in orders if isinstance(order, Struck)]


def test_why_a_source_is_left_out_is_told_once_for_each_reason() -> None:
    play = Play()
    told = []
    for blob, error in (("b", NotFound("404")), ("c", NotFound("404")), ("d", BadAnswer("html"))):
        play.add(sources="BA", blob=blob)
        mine = [o.number for o in play.fetches.values() if o.blob == blob and o.place.source == "B"]
        told += struck(play.fail(mine[0], error))
        play.tell(Ended(blob))
        for number in [*play.plan._assignments]:
            play.fail(number, BrokenStream("cut"))
        play.wait(5)
    assert told == [("B", "not_found"), ("B", "bad_answer")]


def test_who_gives_files_only_as_a_whole_is_told() -> None:
    play = Play()
    play.add(sources="AB")
    assert struck(play.fail(1, RangeIgnored("200"))) == [("A", "range_ignored")]


def test_of_an_only_source_the_error_tells_all() -> None:
    play = Play()
    play.add()
    assert struck(play.fail(1, NotFound("404"))) == []


def test_a_source_that_was_away_for_long_is_told_to_be_back() -> None:
    play = Play()
    play.add()
    number = 1
    while play.now < 6:
        play.fail(number, Unreachable("no"))
        play.wait(5.1)
        number = max(play.fetches)
    play.open(number)
    back = only(play.land(number, 0, 5), Returned)
    assert back.source == "A"
    assert back.after_s >= LIMITS.patience_s
    assert not any(isinstance(order, Returned) for order in play.land(number, 5, 9))


def test_a_stumble_is_not_told() -> None:
    play = Play()
    play.add()
    play.open(1)
    play.fail(2, BrokenStream("reset"))
    assert not any(isinstance(order, Returned) for order in play.land(1, 0, 5))
