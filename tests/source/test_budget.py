"""A hub is asked no more than it allows."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.errors import Busy
from headrace.ranges import Range
from headrace.source.budget import Budget
from headrace.source.http import Dialer, HttpSession
from tests.source.conftest import (
    REPO,
    Heard,
    Serve,
    always,
    answer,
    ask_for,
    hub,
    partial_answer,
)

SOME = Range(100, 200)
KEY = ("https", "hub.test", 443)
DATE = "Sun, 22 Nov 2026 10:15:30 GMT"


def told(left: int, reset_s: float, limit: int | None = None) -> dict[str, str]:
    headers = {"RateLimit": f'"resolvers";r={left};t={reset_s:.0f}'}
    return headers | ({"RateLimit-Policy": f'"fixed window";"resolvers";q={limit};w=300'} if limit else {})


def allowed(budget: Budget, key: object = KEY) -> bool:
    try:
        with budget.request(key):
            return True
    except Busy:
        return False


def test_nothing_is_asked_once_nothing_is_left() -> None:
    budget = Budget("hub")
    assert allowed(budget)
    budget.learn(KEY, 200, told(1, 100))
    assert allowed(budget)
    budget.learn(KEY, 200, told(0, 100))
    with pytest.raises(Busy, match="no more requests for 100 s") as caught, budget.request(KEY):
        pass
    assert caught.value.retry_after_s == pytest.approx(100, abs=5)
    assert allowed(budget, "another kind")


def test_a_window_that_is_over_counts_no_more() -> None:
    budget = Budget("hub")
    budget.learn(KEY, 200, told(0, 0))
    assert allowed(budget)
    budget.learn(KEY, 200, told(0, 100))
    budget.learn(KEY, 200, told(50, 300))  # a new one
    assert allowed(budget)


def test_answers_that_overtake_each_other_give_nothing_back() -> None:
    budget = Budget("hub")
    budget.learn(KEY, 200, told(0, 100))
    budget.learn(KEY, 200, told(7, 100))
    assert not allowed(budget)


def test_those_on_their_way_are_counted() -> None:
    budget = Budget("hub", patience_s=0)
    budget.learn(KEY, 200, told(3, 100))
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(budget.request(KEY))
        assert not allowed(budget)
    assert allowed(budget)


def test_a_little_is_left_for_others_behind_the_same_address() -> None:
    budget = Budget("hub", patience_s=0)
    budget.learn(KEY, 200, told(32, 100, limit=3000))
    with budget.request(KEY):
        assert allowed(budget)
        budget.learn(KEY, 200, told(31, 100, limit=3000))
        assert not allowed(budget)
    assert allowed(budget)
    budget.learn(KEY, 200, told(1, 100, limit=3000))
    assert allowed(budget)  # alone: what is left may be had


def test_who_would_touch_the_reserve_waits_for_those_on_their_way() -> None:
    budget, on_its_way = Budget("hub", patience_s=60), threading.Event()
    budget.learn(KEY, 200, told(2, 100, limit=3000))

    def ask() -> bool:
        def check() -> None:
            on_its_way.set()

        with budget.request(KEY, check):
            return True

    with ThreadPoolExecutor(1) as pool:
        with budget.request(KEY):
            waiting = pool.submit(ask)
            assert on_its_way.wait(60)
            assert not waiting.done()
        assert waiting.result(60)


@pytest.mark.parametrize("headers", [told(0, 86400), {"Retry-After": "86400"}])
def test_what_was_told_for_long_is_found_out_by_one_request(headers: dict[str, str]) -> None:
    budget = Budget("hub", believed_s=0.3, obeyed_s=0.3, patience_s=0)
    status = 429 if "Retry-After" in headers else 200
    budget.learn(KEY, status, headers)
    with pytest.raises(Busy) as caught, budget.request(KEY):
        pass
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s <= 0.3
    time.sleep(0.35)
    with budget.request(KEY):  # the probe
        assert not allowed(budget)
        budget.learn(KEY, status, headers)
    assert not allowed(budget)
    time.sleep(0.35)
    with budget.request(KEY):
        budget.learn(KEY, 200, {})
        assert allowed(budget)


def test_a_window_is_believed_for_minutes_and_a_429_is_obeyed() -> None:
    budget = Budget("hub")
    for status, headers, expected in (
        (200, told(0, 86400), 300),
        (429, told(0, 86400), 300),
        (429, {"Retry-After": "86400"}, 86400),
    ):
        budget.learn(KEY, status, headers)
        with pytest.raises(Busy) as caught, budget.request(KEY):
            pass
        assert caught.value.retry_after_s == pytest.approx(expected, abs=30)


def test_a_429_counts_for_all_and_a_503_for_whom_it_met() -> None:
    budget = Budget("hub")
    budget.learn(KEY, 503, {"Retry-After": "100"})
    assert allowed(budget)
    budget.learn(KEY, 429, {"Retry-After": "100"})
    assert not allowed(budget)


def test_many_threads_never_ask_more_than_is_left() -> None:
    budget, spent = Budget("hub"), []
    left = 20
    lock = threading.Lock()
    budget.learn(KEY, 200, told(left, 100))

    def ask(_: int) -> None:
        nonlocal left
        with contextlib.suppress(Busy), budget.request(KEY):
            with lock:
                left -= 1
                spent.append(left)
                now_left = left
            budget.learn(KEY, 200, told(max(0, now_left), 100))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(200)))
    assert min(spent) >= 0


def test_a_spent_budget_is_noticed_before_the_429(serve: Serve, session: HttpSession, dialer: Dialer) -> None:
    def script(heard: Heard, connection: socket.socket) -> bool:
        left = 2 - len(server.heard)
        limit = f'"resolvers";r={max(0, left)};t=100'
        if left < 0:
            connection.sendall(answer(429, RateLimit=limit))
        else:
            reply = partial_answer(SOME).replace(b"\r\n", b"\r\nRateLimit: %s\r\n" % limit.encode(), 1)
            connection.sendall(reply)
        return True

    server = serve(script)
    source = hub(server.url, dialer)
    for _ in range(2):
        source.open(ask_for(SOME), session).close()
    for _ in range(3):
        with pytest.raises(Busy) as caught:
            source.open(ask_for(SOME), session)
        assert caught.value.retry_after_s == pytest.approx(100, abs=10)
    assert len(server.heard) == 2


def test_listings_and_files_have_budgets_of_their_own(
    serve: Serve, session: HttpSession, dialer: Dialer
) -> None:
    def script(heard: Heard, connection: socket.socket) -> bool:
        if heard.target.startswith("/api/"):
            connection.sendall(answer(200, b"[]", RateLimit='"api";r=0;t=100'))
        else:
            connection.sendall(partial_answer(SOME))
        return True

    server = serve(script)
    source = hub(server.url, dialer)
    assert source.manifest(REPO, "a" * 40).entries == ()
    with pytest.raises(Busy):
        source.manifest(REPO, "a" * 40)
    source.open(ask_for(SOME), session).close()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": "Sun, 22 Nov 2026 10:15:50 GMT", "Date": DATE}, 20),
        ({"Retry-After": "Sun, 22 Nov 2026 10:15:00 GMT", "Date": DATE}, 0),
        (
            {"Retry-After": "Sun, 22 Nov 2026 10:15:50 GMT"},
            None,
        ),  # by a clock that may be wrong it says nothing
        ({"RateLimit": '"api";r=0;t=33'}, 33),
    ],
)
def test_a_pause_is_judged_by_the_servers_clock(
    headers: dict[str, str], expected: float | None, serve: Serve, session: HttpSession, dialer: Dialer
) -> None:
    named: dict[str, Any] = {name.replace("-", "_"): value for name, value in headers.items()}
    raw = answer(429, **named)
    with pytest.raises(Busy) as caught:
        hub(serve(always(raw)).url, dialer).open(ask_for(SOME), session)
    assert caught.value.retry_after_s == expected
