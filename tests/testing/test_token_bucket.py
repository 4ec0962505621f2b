"""The rate of a connection, in arithmetic: no socket and no real clock."""

from __future__ import annotations

import pytest

from headrace.testing.bucket import LARGEST_BURST, TokenBucket

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def send(bucket: TokenBucket, clock: Clock, total: int, oversleep_s: float = 0.0) -> float:
    """Send `total` bytes in chunks, sleeping as told, and return the seconds it took."""
    start_s = clock.now_s
    while total > 0:
        count = min(total, bucket.chunk)
        wait_s = bucket.spend(count)
        if wait_s > 0:
            clock.now_s += wait_s + oversleep_s
        total -= count
    return clock.now_s - start_s


@pytest.mark.parametrize("rate", [10_000, 256 * 1024, 2 * MIB, 50 * MIB])
def test_the_long_run_rate_is_within_three_percent(rate: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    assert send(bucket, clock, 20 * rate) == pytest.approx(20, rel=0.03)


def test_waking_up_late_costs_no_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2 * MIB, clock)
    assert send(bucket, clock, 20 * MIB, oversleep_s=0.005) == pytest.approx(10, rel=0.03)


def test_a_new_connection_has_nothing_to_give_away() -> None:
    bucket = TokenBucket(2 * MIB, Clock())
    assert bucket.spend(64 * 1024) == pytest.approx(64 * 1024 / (2 * MIB))


def test_many_short_connections_are_not_faster_than_one() -> None:
    one, many = Clock(), Clock()
    together_s = send(TokenBucket(MIB, one), one, 10 * MIB)
    apart_s = sum(send(TokenBucket(MIB, many), many, MIB // 10) for _ in range(100))
    assert apart_s == pytest.approx(together_s, rel=0.01)


def test_an_idle_connection_saves_up_no_more_than_a_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(2 * MIB, clock)
    send(bucket, clock, MIB)
    clock.now_s += 3600
    assert send(bucket, clock, 2 * MIB) == pytest.approx(1 - bucket.burst / (2 * MIB), abs=0.001)
    assert bucket.burst <= LARGEST_BURST


def test_a_changed_rate_keeps_the_debt() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, clock)
    bucket.spend(1000)
    bucket.rate = 100
    assert bucket.spend(0) == pytest.approx(10)


def test_a_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(0)
