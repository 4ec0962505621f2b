"""Questions to an origin: each asked once for all who want to know the same, none waited for longer than a client would.

The question goes on without who stops waiting, and the next one finds the answer. What is not there is known for some
seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

from headrace.errors import AccessDenied, Busy, NotFound, Stalled
from headrace.node.memory.origin import Origin
from headrace.node.memory.recent import ABSENT, Recent
from headrace.node.threads import Threads

T = TypeVar("T")

REFUSED_TTL_S = 10.0
"""A repo that was just published should not stay refused for a minute."""

_HASTE_S = 0.5  # how long a source is waited for that has just been away, where something is known
_LEAST_S = 1.0  # how long the second question of a request is waited for at least
_JUST_BEGUN = 0.9  # of its patience is left to who has not waited for anything yet
_QUESTIONS_MOST = 2000  # under way at once; more than that is an attack, or an outage not yet noticed
_REFUSALS_MOST = 10_000


class Questions:
    """Asks one origin. Belongs to one event loop. Keys say what is asked: who may hear different answers differ."""

    def __init__(
        self,
        origin: Origin,
        threads: Threads,
        patience_s: float,
        refused_ttl_s: float,
        run: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        """`patience_s`: what a client waits; `refused_ttl_s`: for how long is believed that something is not there.

        `run` puts a question on a thread; else it is one of those that ask sources.
        """
        self.origin = origin
        self._run = run or threads.source
        self.refusals = Recent(_REFUSALS_MOST)
        self._threads = threads
        self.patience_s = patience_s
        self._refused_ttl_s = min(REFUSED_TTL_S, refused_ttl_s)
        self._under_way = 0

    def wait_s(self, deadline: float, *, is_known: bool = False) -> float:
        """How long to wait for the next answer to who waits until `deadline`; not long where something `is_known`."""
        left_s = deadline - asyncio.get_running_loop().time()
        if left_s > self.patience_s * _JUST_BEGUN:
            left_s = self.patience_s
        left_s = max(left_s, min(_LEAST_S, self.patience_s))
        return min(_HASTE_S, left_s) if is_known and self.origin.outage.lasts else left_s

    async def asked(self, key: Hashable, wait_s: float, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask the source, together with all who want to know the same; wait no longer than `wait_s`."""
        self.origin.outage.look()  # not even for those who are still waiting for an answer
        asked_at = time.monotonic()
        waiting = self._threads.once((key, self.origin.outage.failures), ask)
        try:
            return await asyncio.wait_for(waiting, wait_s)
        except (asyncio.TimeoutError, TimeoutError):
            told = f"the source cannot be asked now: it has not answered for {wait_s:.1f} s"
            error = Stalled(told, retry_after_s=1.0)
            if wait_s >= self.patience_s or self.origin.outage.lasts:
                self.origin.outage.late(asked_at, error)
            raise error from None

    async def ask(self, question: Callable[..., T], *arguments: Any) -> T:
        """Put a question of the origin's, on a thread. Raises `SourceError`, and what the question does."""
        asked_at = self.origin.outage.enter()
        if self._under_way >= _QUESTIONS_MOST:
            raise Busy("the source is being asked too much at once", retry_after_s=1.0)
        self._under_way += 1
        try:
            answer: T = await self._run(self.origin.put, asked_at, question, *arguments)
        finally:
            self._under_way -= 1
        return answer

    def remember(self, key: Hashable, error: NotFound | AccessDenied) -> None:
        """Have `recall` raise this for a while."""
        kind, message = type(error), error.message
        self.refusals.put(key, lambda: kind(message), self._refused_ttl_s)

    def recall(self, key: Hashable) -> None:
        """Raise what the source said to this question a moment ago, if that was a refusal."""
        refuse = self.refusals.get(key)
        if refuse is not ABSENT:
            raise refuse()

    async def noted(self, key: Hashable, question: Callable[..., T], *arguments: Any) -> T:
        """As `ask`; a refusal is remembered, whoever still waits for it."""
        try:
            return await self.ask(question, *arguments)
        except (NotFound, AccessDenied) as error:
            self.remember(key, error)
            raise
