"""Requests that are being answered, and how they end when the node does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Ongoing:
    """Knows all requests under way. Belongs to one event loop.

    The web server's own way would wait twice as long as it is told: once for answers, once more for tasks.
    """

    def __init__(self) -> None:
        self._answers: dict[asyncio.Task[object], asyncio.Future[None]] = {}

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While the current task answers a request."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is answered by a task")
        answered = self._answers[task] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._answers[task]
            answered.set_result(None)

    async def end(self, farewell_s: float) -> None:
        """Give them so many seconds, and cancel those that take longer."""
        if self._answers:
            await asyncio.wait(list(self._answers.values()), timeout=farewell_s)
        for task in self._answers:
            task.cancel()
