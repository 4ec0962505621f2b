"""Carries events from whoever emits them to whoever subscribed, on a thread of its own.

A slow subscriber delays others, never a lane: beyond a bound droppable events are skipped, outcomes are kept. A
subscriber that raises is told about once and not called again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from headrace.events import Event

_PENDING_MOST = 4096

Subscriber = Callable[[Event], None]


class Dispatcher:
    """One queue, one thread. Use as a context manager: leaving it delivers every outcome that is pending.

    Of what is droppable and pending then, the last of each kind about each file: what says how far a file is was true
    in the end. What adds up, as `BytesLanded` does, falls short.
    """

    def __init__(self, subscribers: tuple[Subscriber, ...]) -> None:
        self._subscribers = list(subscribers)
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="events")
        self._closing = False

    def emit(self, event: Event) -> None:
        """Take an event; returns at once. See `events.Emit`."""
        if event.droppable and self._queue.qsize() > _PENDING_MOST:
            return
        self._queue.put(event)

    def __enter__(self) -> Dispatcher:  # noqa: PYI034  # typing.Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._queue.put(None)
        self._thread.join()  # as long as a subscriber takes: outcomes are not dropped

    def _serve(self) -> None:
        pending: list[Event] = []
        while (event := self._queue.get()) is not None:
            if self._closing:
                pending.append(event)
            else:
                hand_over(event, self._subscribers)
        last_words = {_subject(event): event for event in pending if event.droppable}
        for event in pending:
            if not event.droppable or last_words[_subject(event)] is event:
                hand_over(event, self._subscribers)


def _subject(event: Event) -> tuple[object, ...]:
    """What an event is about: of two about the same, the later one counts."""
    return type(event), getattr(event, "digest", ""), getattr(event, "path", "")


def hand_over(event: Event, subscribers: list[Subscriber]) -> None:
    """Call all of them. One that raises is told about, and taken from the list."""
    for subscriber in subscribers.copy():
        try:
            subscriber(event)
        except Exception:  # noqa: BLE001, PERF203  # it is somebody else's code
            _complain("a subscriber of events failed and is left out from now on")
            subscribers.remove(subscriber)


def _complain(text: str) -> None:
    import logging  # noqa: PLC0415  # takes longer to import than many a pull takes, and is hardly ever needed

    logging.getLogger("headrace").exception(text)  # noqa: LOG004  # called where the exception is handled
