"""The rate that lanes keep to together: reckoned with a clock of the test's own."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

import pytest

from headrace.errors import BrokenStream
from headrace.ranges import Range
from headrace.source.contract import Request
from headrace.source.http import Dialer, HttpSession
from headrace.transfer.pacer import BURST_S, Bucket, PacedSource, Pacer
from tests.transfer.conftest import Shelf, content_of

MIB = 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("rate", [100, 300_000, 50 * MIB, 2000 * MIB])
@pytest.mark.parametrize("lanes", [1, 3, 16])
def test_lanes_together_keep_to_the_rate_and_get_equal_parts(rate: int, lanes: int) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    part = max(1, rate // 20)
    shares = [0] * lanes
    due = [(0.0, lane) for lane in range(lanes)]
    paid_at: list[tuple[float, int]] = []
    while due[0][0] < 10:
        clock.now, lane = heapq.heappop(due)
        shares[lane] += part
        at = clock.now + bucket.spend(part)
        paid_at.append((at, part))
        heapq.heappush(due, (at, lane))
    came = sum(count for at, count in paid_at if at <= 10)
    assert came == pytest.approx(10 * rate, rel=0.03)
    assert max(shares) - min(shares) <= part


def test_a_pause_earns_a_burst_and_no_more() -> None:
    clock = Clock()
    bucket = Bucket(1000, clock)
    clock.now = 3600
    assert bucket.spend(int(1000 * BURST_S)) == 0
    assert bucket.spend(500) == pytest.approx(0.5)


def test_what_did_not_come_was_not_spent() -> None:
    clock = Clock()
    bucket = Bucket(1000, clock)
    bucket.spend(1000)
    bucket.give_back(900)
    assert bucket.spend(100) == pytest.approx(0.2)


def test_who_is_cancelled_does_not_wait_on() -> None:
    pacer, cancelled = Pacer(10), threading.Event()
    ended: list[float] = []

    def check() -> None:
        if cancelled.is_set():
            raise BrokenStream("given up")

    def carry() -> None:
        while True:
            pacer.take(MIB, check)

    def lane() -> None:
        with pytest.raises(BrokenStream):
            carry()
        ended.append(time.monotonic())

    threads = [threading.Thread(target=lane) for _ in range(40)]  # the last one waits for four seconds
    for thread in threads:
        thread.start()
    cancelled.set()
    began = time.monotonic()
    for thread in threads:
        thread.join(timeout=20)
    assert len(ended) == 40
    assert max(ended) - began < 2
    assert (
        pacer.take(1, lambda: None) == 1
    )  # what they had paid for was given back: the next does not wait for it


class Counting(Pacer):
    """A pacer that counts what is paid for."""

    paid = 0

    def take(self, most: int, check: Callable[[], None]) -> int:
        self.paid += 1
        return super().take(most, check)


def test_nobody_pays_to_learn_that_bytes_cannot_come_through_a_pipe() -> None:
    pacer, shelf = Counting(1000 * MIB), Shelf({"f": b"bytes"})
    content = content_of(b"bytes", "f")
    request = Request(content, Range(0, 5), whole=True, host="", address="", patience_s=5.0)
    stream = PacedSource(shelf, pacer).open(request, HttpSession(Dialer()))
    assert stream.splice(0, 5) is None
    assert pacer.paid == 0
    assert stream.readinto(memoryview(bytearray(5))) == 5
    assert pacer.paid == 1
