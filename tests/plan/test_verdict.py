"""What was measured becomes a verdict with a reason, without a clock or a network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.plan.verdict import (
    Age,
    Facts,
    Freshness,
    Grade,
    Past,
    Rung,
    freshness,
    judge,
    next_rung,
)

DAY = 24 * 3600.0
FINE = Facts(
    "near",
    "http://near.example",
    host="near.example",
    address="192.0.2.1",
    has_repo=True,
    commit="c",
    freshness=Freshness(Age.SAME, 0, 0.0),
    has_file=True,
    ranges=True,
    rungs=(Rung(1, 10e6), Rung(2, 19e6), Rung(4, 20e6)),
)
HISTORY = (Past("c", 9 * DAY), Past("b", 8 * DAY), Past("a", 5 * DAY))


@pytest.mark.parametrize(
    ("own", "trusted", "expected"),
    [
        ("c", "c", Freshness(Age.SAME, 0, 0.0)),
        ("b", "c", Freshness(Age.BEHIND, 1, DAY)),
        ("a", "c", Freshness(Age.BEHIND, 2, 4 * DAY)),
        ("x", "c", Freshness(Age.OTHER)),
        ("c", "b", Freshness(Age.OTHER)),  # ahead: the trusted source has not said so
        (None, "c", Freshness()),
        ("c", None, Freshness()),
    ],
)
def test_freshness_by_the_trusted_history(own: str | None, trusted: str | None, expected: Freshness) -> None:
    assert freshness(own, trusted, HISTORY) == expected


def test_freshness_without_times_or_history() -> None:
    assert freshness("a", "c", [Past("c"), Past("a")]) == Freshness(Age.BEHIND, 1, None)
    assert freshness("a", "c", []) == Freshness(Age.OTHER)
    assert str(Freshness(Age.BEHIND, 1, DAY)) == "is behind by 1 commit, 1 day"


def test_what_is_fine_is_good_and_says_how_many_connections_it_bears() -> None:
    (one,) = judge([FINE])
    assert one.grade is Grade.GOOD
    assert (FINE.rate_one, FINE.best, FINE.borne) == (10e6, Rung(4, 20e6), 4)


@pytest.mark.parametrize(
    ("change", "grade", "word"),
    [
        ({"failure": "no route"}, Grade.UNUSABLE, "no route"),
        ({"rungs": ()}, Grade.UNKNOWN, "not measured"),
        ({"rungs": (Rung(1, 0.0, "HTTP 429"),)}, Grade.UNUSABLE, "429"),
        ({"rungs": (Rung(1, 0.0),)}, Grade.UNUSABLE, "no byte"),
        ({"has_file": False, "freshness": Freshness(Age.BEHIND, 3, None)}, Grade.UNUSABLE, "3 commits"),
        ({"freshness": Freshness(Age.BEHIND, 1, 2 * DAY)}, Grade.USABLE, "2 days"),
        ({"freshness": Freshness(Age.OTHER)}, Grade.USABLE, "another commit"),
        ({"freshness": Freshness()}, Grade.GOOD, "gives the file"),
        ({"redirects_to": "cdn.example"}, Grade.GOOD, "files come from cdn.example"),
        ({"ranges": False}, Grade.USABLE, "whole"),
        ({"skew_s": -7200.0}, Grade.USABLE, "2 hours behind"),
        ({"skew_s": 60.0}, Grade.GOOD, "1 minute ahead"),
        (
            {"rungs": (Rung(1, 9e6), Rung(2, 5e6, "HTTP 503"))},
            Grade.USABLE,
            "2 connections are too many: HTTP 503",
        ),
        (
            {"rungs": (*FINE.rungs, Rung(8, 1e6, "reset"))},
            Grade.GOOD,
            "8 connections are too many: reset",
        ),
    ],
)
def test_verdicts(change: dict[str, object], grade: Grade, word: str) -> None:
    (one,) = judge([replace(FINE, **change)])  # type: ignore[arg-type]
    assert (one.grade, word in one.reason) == (grade, True), one.reason


def test_a_slow_one_is_judged_by_the_best_and_order_is_by_merit() -> None:
    slow = replace(FINE, source="slow", rungs=(Rung(1, 1e6),))
    middling = replace(FINE, source="middling", rungs=(Rung(1, 5e6),))
    dead = replace(FINE, source="dead", failure="dead", rungs=())
    probed = judge([dead, slow, middling, FINE])
    assert [(one.facts.source, one.grade) for one in probed] == [
        ("near", Grade.GOOD),
        ("middling", Grade.GOOD),
        ("slow", Grade.USABLE),
        ("dead", Grade.UNUSABLE),
    ]
    assert "5 %" in probed[2].reason


def test_connections_that_were_too_many_are_not_borne() -> None:
    fallen = replace(FINE, rungs=(Rung(1, 10e6), Rung(2, 20e6), Rung(4, 6e6)))
    assert fallen.borne == 2
    refused = replace(FINE, rungs=(Rung(1, 10e6), Rung(2, 20e6, "reset")))
    assert refused.borne == 1


@pytest.mark.parametrize(
    ("climbed", "most", "expected"),
    [
        ((), 16, 1),
        ((), 1, 1),
        ((Rung(1, 10e6),), 16, 2),
        ((Rung(1, 10e6),), 1, None),
        ((Rung(1, 10e6), Rung(2, 10.5e6)), 16, None),
        ((Rung(1, 10e6), Rung(2, 20e6)), 3, None),
        ((Rung(1, 10e6), Rung(2, 20e6)), 16, 4),
        ((Rung(1, 10e6), Rung(2, 20e6, "HTTP 429")), 16, None),
        (tuple(Rung(count, count * 1e6) for count in (1, 2, 4, 8, 16)), 32, None),
    ],
)
def test_connections_are_added_while_they_pay(
    climbed: tuple[Rung, ...], most: int, expected: int | None
) -> None:
    assert next_rung(climbed, most) == expected
