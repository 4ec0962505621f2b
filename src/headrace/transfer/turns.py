"""Turns: jobs that have not begun yet, because others come first or another process is at the same blob.

Whose bytes somebody waits for is next. What was wished of a blob is kept until it begins: the plan does not know it
before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from headrace.plan.orders import Wished
from headrace.transfer.job import Job, key_of

_HELD_RETRY_S = 0.2
BEGUN_AT_ONCE = 2
"""Opening what is here may mean to hash or copy it."""


class Turns:
    """Jobs in the order they were added. For one thread."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._held: deque[Job] = deque()
        self._held_until = 0.0
        self._beginning: dict[int, Job] = {}  # by identity: jobs need not be hashable
        self._dropped: set[int] = set()  # those of them that nobody wants any more
        self._wishes: dict[str, list[Wished]] = {}  # by blob

    def __len__(self) -> int:
        return len(self._waiting) + len(self._held) + len(self._beginning)

    @property
    def beginning(self) -> int:
        """Jobs that are being begun now."""
        return len(self._beginning)

    def add(self, job: Job) -> None:
        """Put a job last."""
        self._waiting.append(job)

    def wish(self, wished: Wished) -> None:
        """Somebody waits for bytes of a blob that has not begun, if there is such a job."""
        if any(_key(job) == wished.blob for job in self._all()):
            self._wishes.setdefault(wished.blob, []).append(wished)

    def wishes(self, key: str) -> list[Wished]:
        """A blob begins: what was wished of it until now."""
        return self._wishes.pop(key, [])

    def hold(self, job: Job) -> None:
        """Another process is at its blob: it is tried again soon."""
        self._held.append(job)

    def next(self, now: float, *, is_full: bool = False) -> Job | None:
        """The job to begin now, if there is one; it is beginning until it `began`.

        Where as many are under way as should be, only one that somebody waits for: whose reader has files open itself.
        """
        if is_full and not self._wishes:
            return None
        if now >= self._held_until:
            self._waiting.extend(self._held)
            self._held.clear()
            self._held_until = now + _HELD_RETRY_S
        if not self._waiting or len(self._beginning) >= BEGUN_AT_ONCE:
            return None
        wished = (number for number, one in enumerate(self._waiting) if _key(one) in self._wishes)
        number = next(wished, None) if self._wishes else None
        if is_full and number is None:
            return None
        job = self._waiting[number or 0]
        del self._waiting[number or 0]
        self._beginning[id(job)] = job
        return job

    def began(self, job: Job) -> bool:
        """A job has begun, or could not; whether it is wanted still is the answer."""
        wanted = id(job) not in self._dropped
        self._beginning.pop(id(job), None)
        self._dropped.discard(id(job))
        return wanted

    def drop(self, key: str) -> list[Job]:
        """Want a blob no more; its jobs that need not be waited for are the answer."""
        dropped = [job for job in (*self._waiting, *self._held) if _key(job) == key]
        self._waiting = deque(job for job in self._waiting if _key(job) != key)
        self._held = deque(job for job in self._held if _key(job) != key)
        self._dropped.update(number for number, job in self._beginning.items() if _key(job) == key)
        self._wishes.pop(key, None)
        return dropped

    def _all(self) -> Iterator[Job]:
        return chain(self._waiting, self._held, self._beginning.values())


def _key(job: Job) -> str:
    return key_of(job.content.entry.digest)
