"""Jobs that have not begun: in whose turn, and what becomes of those that nobody wants any more."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import HeadraceError
from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.plan.orders import Wished
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.store.partial import Partial
from headrace.transfer.job import NotYet, key_of
from headrace.transfer.turns import Turns


@dataclass
class Want:
    """A job of which nothing but its content matters."""

    content: Content
    sources: tuple[str, ...] = ()

    def begin(self) -> Partial | NotYet:
        return NotYet.HELD

    def publish(self, partial: Partial) -> None: ...

    def doubt(self) -> None: ...

    def ended(self, error: HeadraceError | None) -> None: ...


def job(letter: str) -> Want:
    return Want(Content(Repo("org/x"), "c" * 40, Entry(letter, 1, Digest(Digest.SHA256, letter * 64))))


def test_two_begin_at_once_and_those_that_are_held_come_back() -> None:
    turns, a, b, c = Turns(), job("a"), job("b"), job("c")
    for one in (a, b, c):
        turns.add(one)
    assert [turns.next(0.0), turns.next(0.0), turns.next(0.0)] == [a, b, None]
    assert turns.began(a)
    turns.hold(a)
    assert turns.next(0.1) is c
    assert turns.began(b)
    assert turns.next(0.1) is None
    assert (turns.next(0.3), turns.beginning, len(turns)) == (a, 2, 2)


def test_what_nobody_wants_any_more_is_dropped_wherever_it_is() -> None:
    turns, jobs = Turns(), [job(letter) for letter in "abc"]
    for one in jobs:
        turns.add(one)
    beginning = turns.next(0.0)
    assert beginning is jobs[0]
    turns.hold(jobs[0])
    keys = [key_of(one.content.entry.digest) for one in jobs]
    assert turns.drop(keys[1]) == [jobs[1]]
    assert turns.drop(keys[0]) == [jobs[0]]
    assert not turns.began(jobs[0])
    assert turns.drop("nobody's") == []
    assert (turns.next(1.0), turns.next(1.0)) == (jobs[2], None)
    assert turns.began(jobs[2])
    assert not turns


def test_whose_bytes_somebody_waits_for_begins_next_also_where_it_is_full() -> None:
    turns, jobs = Turns(), [job(letter) for letter in "abc"]
    for one in jobs:
        turns.add(one)
    keys = [key_of(one.content.entry.digest) for one in jobs]
    assert turns.next(0.0, is_full=True) is None
    wished = Wished(keys[2], Range(0, 1))
    turns.wish(wished)
    turns.wish(Wished("nobody's", Range(0, 1)))
    assert turns.next(0.0, is_full=True) is jobs[2]
    assert turns.next(0.0, is_full=True) is None
    assert turns.next(0.0) is jobs[0]
    assert turns.wishes(keys[2]) == [wished]  # for the plan, which knows it from now on
    assert turns.wishes(keys[2]) == []


def test_what_was_wished_of_a_blob_that_is_held_is_kept() -> None:
    turns, a = Turns(), job("a")
    turns.add(a)
    turns.next(0.0)
    turns.began(a)
    turns.hold(a)
    turns.wish(Wished(key_of(a.content.entry.digest), Range(0, 1)))
    assert turns.next(1.0, is_full=True) is a
