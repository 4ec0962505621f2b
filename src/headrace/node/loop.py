"""The event loop of a node, which knows how long it attended to nothing new."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

_NOTED_S = 0.005

Listener = Callable[[float], None]


class WatchedSelector(selectors.DefaultSelector):
    """A selector that tells `listener` of every turn of its loop that took 5 ms or more, in seconds.

    A turn is all that is done between two looks at the sockets. Measured where it happens: a timer that comes late
    tells less, and wakes a node that has nothing to do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listener: Listener | None = None
        self._looked_at = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        took_s = time.monotonic() - self._looked_at
        if took_s >= _NOTED_S and self.listener is not None:
            self.listener(took_s)
        found = super().select(timeout)
        self._looked_at = time.monotonic()
        return found


def run(main: Callable[[WatchedSelector], Coroutine[Any, Any, None]]) -> None:
    """As `asyncio.run`, with a selector that `main` may listen to."""
    selector = WatchedSelector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main(selector))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()
