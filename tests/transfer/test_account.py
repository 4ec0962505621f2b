"""What an account says, from events alone: no clock, no sockets."""

from __future__ import annotations

import json

import pytest

from headrace.events import (
    BytesForgotten,
    BytesLanded,
    Event,
    SegmentClosed,
    SegmentFailed,
    SegmentOpened,
    SourceLied,
    SourceStruck,
    as_json,
)
from headrace.transfer.account import Account, Bookkeeper, SourceAccount

MIB = 1024 * 1024


def account_of(*events: tuple[float, Event], names: str = "AB", end: float = 10.0) -> Account:
    books = Bookkeeper(names, 0.0)
    for now, event in events:
        books.take(event, now)
    return books.account(end)


def answer(
    source: str, began: float, ended: float, start: int, stop: int, *, asked: int = 0, code: str = ""
) -> list[tuple[float, Event]]:
    """One answer of a source, from its request to its end; `asked` is where it was to end, if not at `stop`."""
    opened = SegmentOpened("D", start, asked or stop, source, "a", 0.5)
    closed = SegmentClosed("D", start, asked or stop, stop, source, code)
    return [(began + 0.5, opened), (ended, BytesLanded("D", start, stop, source)), (ended, closed)]


def of(account: Account, name: str) -> SourceAccount:
    return next(one for one in account.sources if one.name == name)


def test_a_source_is_at_work_while_any_of_its_answers_is_under_way() -> None:
    first, second = answer("A", 0, 4, 0, 8 * MIB), answer("A", 2, 6, 8 * MIB, 12 * MIB)
    one = of(account_of(*sorted(first + second, key=lambda told: told[0])), "A")
    assert (one.bytes, one.work_s, one.lanes_most, one.answers) == (12 * MIB, 6.0, 2, 2)
    assert one.rate == pytest.approx(2 * MIB)
    assert one.first_byte_s == pytest.approx(0.5)
    assert one.share == 1.0


def test_an_answer_that_never_began_is_no_work() -> None:
    one = of(account_of((3.0, SegmentClosed("D", 0, 9, 0, "A", "busy"))), "A")
    assert (one.work_s, one.answers, one.lanes_most, one.segments_given_away) == (0.0, 0, 0, 0)


def test_what_others_were_given_is_counted_and_what_failed_is_not() -> None:
    given = answer("A", 0, 1, 0, 10, asked=20) + answer("A", 1, 2, 20, 30, asked=40, code="interrupted")
    failed = answer("A", 2, 3, 40, 50, asked=60, code="broken_stream")
    assert of(account_of(*given, *failed), "A").segments_given_away == 2


def test_bytes_fetched_again_are_laid_to_those_who_gave_them() -> None:
    account = account_of(
        *answer("A", 0, 1, 0, 60),
        *answer("B", 0, 1, 60, 100),
        (2.0, BytesForgotten("D", 50, 100)),
        (3.0, SourceLied("B", "model.bin", "D", 40)),
    )
    assert (of(account, "A").refetched_bytes, of(account, "B").refetched_bytes) == (10, 40)
    assert account.refetched_bytes == 50
    assert [one.name for one in account.sources if one.lied_about] == ["B"]


def test_reasons_are_kept_once_for_each_code_and_retries_are_counted() -> None:
    account = account_of(
        (1.0, SourceStruck("B", "a", "D", "bad_answer", "other content")),
        (1.0, SourceStruck("B", "b", "E", "bad_answer", "other content again")),
        (2.0, SegmentFailed("a", "D", "A", "", "busy", "answers 503", 1.0)),
    )
    assert of(account, "B").reasons == ("other content",)
    assert (of(account, "A").retries, of(account, "A").trouble, account.retries) == (1, "answers 503", 1)


def test_what_was_saved_is_reckoned_by_the_best_sources_own_rate() -> None:
    account = account_of(*answer("A", 0, 10, 0, 100 * MIB), *answer("B", 0, 10, 100 * MIB, 150 * MIB))
    assert account.best == "A"
    assert account.saved_s == pytest.approx(5.0)  # 150 MiB at 10 MiB/s, in 10 s


@pytest.mark.parametrize(
    "events",
    [
        answer("A", 0, 10, 0, 100 * MIB),
        answer("A", 0, 0.9, 0, 10 * MIB) + answer("B", 0, 0.9, 10 * MIB, 12 * MIB),
        answer("A", 0, 10, 0, 100 * MIB) + answer("B", 9, 10, 100 * MIB, 101 * MIB),
    ],
    ids=["an only source", "too short to tell", "hardly anything saved"],
)
def test_where_it_cannot_be_known_nothing_is_said_to_be_saved(events: list[tuple[float, Event]]) -> None:
    account = account_of(*events)
    assert (account.best, account.saved_s) == ("", 0.0)


def test_it_is_told_as_plain_json() -> None:
    told = json.loads(json.dumps(as_json(account_of(*answer("A", 0, 1, 0, 60)).event())))
    assert set(told["sources"]) == {"A", "B"}
    assert told["sources"]["A"]["bytes"] == 60
    assert told["sources"]["B"]["answers"] == 0
