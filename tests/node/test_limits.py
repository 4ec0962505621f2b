"""Buckets of requests, and whose they are. Time is the test's own."""

from __future__ import annotations

import pytest

from headrace.node.access.limits import Bucket, Clients, Streams, whose
from headrace.wire import rate_limit


def test_a_bucket_is_emptied_and_fills_within_a_minute() -> None:
    bucket = Bucket(60, 60.0, 0.0)
    assert [bucket.take(0.0) for _ in range(61)] == [True] * 60 + [False]
    assert not bucket.take(0.5)
    assert bucket.take(1.5)
    assert sum(bucket.take(1000.0) for _ in range(200)) == 60


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = Bucket(60, 0.0, 100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(50.9)


@pytest.mark.parametrize(("most", "wait_s", "then"), [(60, 5, 5), (1200, 5, 100), (6, 10, 1), (1, 60, 1)])
def test_who_waits_as_told_finds_some(most: int, wait_s: int, then: int) -> None:
    bucket = Bucket(most, 0.0, 0.0)
    assert bucket.wait_s(0.0) == wait_s
    assert sum(bucket.take(float(wait_s)) for _ in range(most)) == then


def test_headers_are_read_as_hubs_are() -> None:
    bucket = Bucket(60, 0.0, 0.0)
    told = rate_limit(bucket.headers(0.0))
    assert told is not None
    assert (told.left, told.reset_s, told.limit, told.window_s) == (0, 5.0, 60, 60.0)
    told = rate_limit(Bucket(60, 30.0, 0.0).headers(0.0))
    assert told is not None
    assert (told.left, told.reset_s) == (30, 30.0)


def test_of_very_many_clients_the_last_are_remembered() -> None:
    clients = Clients(10, clients_most=100)
    for index in range(1000):
        clients.bucket(str(index), 0.0).take(0.0)
        clients.bucket("steady", 0.0).take(0.0)
    assert len(clients) == 100
    assert not clients.bucket("steady", 0.0).take(0.0)


def test_streams_are_counted_and_forgotten() -> None:
    streams = Streams()
    with streams.one_more("a"), streams.one_more("a"):
        assert (streams["a"], streams["b"]) == (2, 0)
    assert streams["a"] == 0


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_whose_an_address_is(address: str, client: str) -> None:
    assert whose(address) == client
