"""Events reach whoever subscribed: outcomes always, progress when there is time."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from headrace.events import BytesHashed, Checking, Event, Warned
from headrace.transfer.dispatch import Dispatcher


def test_outcomes_are_delivered_however_slow_the_subscriber_is() -> None:
    """Leaving waits for outcomes, and not for progress that nobody needs any more but the last."""
    heard: list[Event] = []
    leaving = threading.Event()

    def slow(event: Event) -> None:
        assert leaving.wait(30)
        heard.append(event)

    with Dispatcher((slow,)) as dispatcher:
        for number in range(100):
            dispatcher.emit(Warned("topic", str(number)))
            dispatcher.emit(BytesHashed("digest", number))
        threading.Timer(1.0, leaving.set).start()  # after the block below has been left, or soon
    assert [event.message for event in heard if isinstance(event, Warned)] == [str(n) for n in range(100)]
    assert [event for event in heard if isinstance(event, BytesHashed)] == [BytesHashed("digest", 99)]


def test_of_each_file_the_last_word_is_delivered() -> None:
    heard: list[Event] = []
    leaving = threading.Event()

    def slow(event: Event) -> None:
        assert leaving.wait(30)
        heard.append(event)

    last = [
        BytesHashed("one", 9),
        BytesHashed("another", 9),
        Checking("a", "same", 9, 9),
        Checking("b", "same", 9, 9),
    ]
    with Dispatcher((slow,)) as dispatcher:
        dispatcher.emit(Warned("topic", "held up by this"))
        for event in last:
            dispatcher.emit(replace(event))
        for event in last:
            dispatcher.emit(event)
        threading.Timer(1.0, leaving.set).start()  # after the block below has been left, or soon
    assert [id(event) for event in heard[1:]] == [id(event) for event in last]


def test_a_subscriber_that_fails_is_left_out_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError(event)

    with Dispatcher((broken, heard.append)) as dispatcher:
        dispatcher.emit(Warned("a", "1"))
        dispatcher.emit(Warned("a", "2"))
    assert len(heard) == 2
    assert caplog.text.count("a subscriber of events failed") == 1
