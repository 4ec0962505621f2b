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
        self._is_telling = False

    def take(self, event: Event) -> None:
        """Keep it until `tell`; returns at once."""
        if not (event.droppable and len(self._untold) > _PENDING_MOST):
            self._untold.append(event)

    def tell(self) -> None:
        """Tell what was taken by now: to be called under no lock. Where somebody is telling, that one goes on with it."""
        with self._lock:
            many = 0 if self._is_telling else len(self._untold)
            if not many:
                return
            self._is_telling = True
        try:
            for _ in range(
                many
            ):  # no more: what comes meanwhile must not keep this one from what it waits for
                hand_over(self._untold.popleft(), self._subscribers)
        finally:
            self._is_telling = False
