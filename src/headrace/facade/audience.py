"""An audience: who hears of a prefetch. The program's own code is among it, which may take long, fail, and call back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from headrace.events import Event
from headrace.transfer.dispatch import Subscriber, hand_over

_PENDING_MOST = 4096


class Audience:
    """Events in their order, told by whoever waits. There is no thread for it: the program may fork. For any thread."""

    def __init__(self, subscribers: Iterable[Subscriber]) -> None:
        self._subscribers = list(subscribers)
        self._lock = threading.Lock()
        self._untold: deque[Event] = deque()
        self._outcomes = 0  # how many of these have to be told, whoever has left meanwhile
        self._is_telling = False

    def take(self, event: Event) -> None:
        """Keep it until `tell`; returns at once."""
        with self._lock:
            if not (event.droppable and len(self._untold) > _PENDING_MOST):
                self._untold.append(event)
                self._outcomes += not event.droppable

    def tell(self) -> None:
        """Tell what was taken by now: to be called under no lock. Where somebody is telling, that one goes on with it.

        What comes meanwhile and is droppable is left to the next one: it must not keep this one from what it waits for.
        """
        with self._lock:
            if self._is_telling:
                return
            self._is_telling, many = True, len(self._untold)
        try:
            while (event := self._next(many)) is not None:
                many -= 1
                hand_over(event, self._subscribers)
        except BaseException:  # an interrupt
            self._is_telling = False
            raise

    def _next(self, many: int) -> Event | None:
        with self._lock:
            if many <= 0 and not self._outcomes:
                self._is_telling = False  # under the same lock: who takes one from here on tells it
                return None
            event = self._untold.popleft()
            self._outcomes -= not event.droppable
            return event
