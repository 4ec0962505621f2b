"""Callbacks of a prefetch: in order, under no lock, and whatever they do harms nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from headrace.events import BlobPublished, BytesHashed, Done, Event, PullStarted
from headrace.facade.audience import Audience
from headrace.facade.prefetch import Prefetch
from headrace.load.arrival import Arrival
from headrace.ranges import Range
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.load.watching import MIB, WEIGHTS, until, weights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosHub]:
    """A hub with one file, which takes half a second."""
    write_repo(tmp_path / "hub", "org/model", {"config.json": b"{}", WEIGHTS: content(4 * MIB)})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with ChaosHub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        running.set_faults(Fault("total", rate=8 * MIB))
        yield running


def test_everything_is_told_in_order_before_who_waits_goes_on(hub: ChaosHub) -> None:
    heard: list[Event] = []
    with headrace.prefetch("org/model", on_event=heard.append) as coming:
        coming.finish()
    assert isinstance(heard[0], PullStarted)
    assert isinstance(heard[-1], Done)
    frontiers = [one.frontier for one in heard if isinstance(one, BytesHashed)]
    assert frontiers == sorted(frontiers)


def test_a_slow_callback_holds_nobody_up_and_may_call_back(hub: ChaosHub) -> None:
    others: list[threading.Thread] = []
    done: list[bool] = []

    def slow(_: Event) -> None:
        if not others:
            others.append(threading.Thread(target=coming.finish, daemon=True))
            others[0].start()
            others[0].join(20)
            done.append(not others[0].is_alive())
            done.append(coming.finish().files == 2)

    coming: Prefetch = headrace.prefetch("org/model", on_event=slow)
    with coming:
        coming.finish()
    assert done == [True, True]


def test_one_that_fails_is_left_out(hub: ChaosHub, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Event] = []

    def failing(event: Event) -> None:
        calls.append(event)
        raise ZeroDivisionError

    with headrace.prefetch("org/model", on_event=failing) as coming:
        assert coming.finish().files == 2
    assert len(calls) == 1
    assert "left out from now on" in caplog.text


def test_one_that_reads_of_the_file_that_is_waited_for_is_not_waited_for_in_vain(hub: ChaosHub) -> None:
    arrivals: list[Arrival] = []
    read: list[bytes] = []

    def reading(_: Event) -> None:
        if arrivals and not read:
            read.append(arrivals[0].reach(Range(0, MIB)).read(Range(0, MIB)))

    def wait() -> None:
        with headrace.prefetch("org/model", on_event=reading) as coming:
            arrivals.append(coming.arrival(weights(coming)))
            arrivals[0].settle()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert read == [content(4 * MIB)[:MIB]]


def test_one_that_waits_for_another_reader_lets_that_one_read(hub: ChaosHub) -> None:
    arrivals: list[Arrival] = []
    others: list[threading.Thread] = []

    def waiting(_: Event) -> None:
        if arrivals and not others:
            others.append(threading.Thread(target=arrivals[0].reach, args=(Range(0, MIB),), daemon=True))
            others[0].start()
            others[0].join(20)
            others.extend(one for one in others[:1] if one.is_alive())

    with headrace.prefetch("org/model", on_event=waiting) as coming:
        arrivals.append(coming.arrival(weights(coming)))
        arrivals[0].settle()
    assert len(others) == 1


def test_an_outcome_is_told_whoever_has_left_meanwhile() -> None:
    entered, left = threading.Event(), threading.Event()
    heard: list[Event] = []

    def slow(event: Event) -> None:
        heard.append(event)
        entered.set()
        left.wait(20)

    audience = Audience([slow])
    audience.take(BytesHashed("", 0))
    teller = threading.Thread(target=audience.tell)
    teller.start()
    assert entered.wait(20)
    audience.take(BytesHashed("", 1))
    audience.take(BlobPublished("", "", 0, 0))
    audience.tell()  # and this one goes
    left.set()
    teller.join()
    assert isinstance(heard[-1], BlobPublished)


def test_who_closes_tells_what_came_in_the_end(hub: ChaosHub) -> None:
    heard: list[Event] = []
    with headrace.prefetch("org/model", on_event=heard.append) as coming:
        until(lambda: coming.is_over or "done" in repr(coming))
    assert isinstance(heard[-1], Done)
