"""Hashing at the frontier: each blob is hashed in order, from the page cache, as its first bytes stand."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from headrace.errors import StoreError
from headrace.manifest import Digest
from headrace.ranges import Range
from headrace.store.ledger import new_hash
from headrace.store.partial import Partial

_STEP_BYTES = 32 * 1024 * 1024  # a step reports when it is done: progress, and a turn for other blobs
_BUFFER_BYTES = 1024 * 1024
_HASHED_AT_ONCE = 8  # faster than what the network brings, and each has a buffer


@dataclass(frozen=True)
class Step:
    """A hashing step is over. `error` where the disk could not be read."""

    frontier: int
    generation: int
    error: StoreError | None = None


@dataclass(frozen=True)
class Crashed:
    """A task raised what no task should."""

    error: Exception


@dataclass(frozen=True)
class Answer:
    """What became of a task, for whom it was run: the very object, since a digest may come again."""

    owner: object
    result: object


class Hasher:
    """Follows one blob's frontier; at most one step is under way at any time."""

    def __init__(self, digest: Digest, partial: Partial, size: int) -> None:
        self._digest = digest
        self._partial = partial
        self._size = size
        self.busy = False
        self._generation = 0
        self.frontier = 0
        self._state = new_hash(digest.algorithm, size)

    def restart(self) -> None:
        """Begin again at zero; a step still under way is of an older generation and does not count."""
        self._generation += 1
        self.frontier = 0
        self._state = new_hash(self._digest.algorithm, self._size)

    def takes(self, step: Step) -> bool:
        """Whether a step that ended counts; moves the frontier if it does."""
        self.busy = False
        if step.generation != self._generation:
            return False
        self.frontier = step.frontier
        return True

    def hexdigest(self) -> str:
        """What the bytes before the frontier hash to."""
        return self._state.hexdigest()

    def step(self, stop: int) -> Callable[[], Step]:
        """The next piece of work: hash up to `stop`, or as far as one step goes. For another thread to run."""
        self.busy = True
        start, state, generation = self.frontier, self._state, self._generation
        stop = min(stop, start + _STEP_BYTES)

        def work() -> Step:
            try:
                _feed(self._partial, Range(start, stop), state.update)
            except StoreError as error:
                return Step(start, generation, error)
            return Step(stop, generation)

        return work


def hash_of(partial: Partial, wanted: Range) -> bytes:
    """The sha256 of some bytes of a partial, as 32 bytes. For any thread. Raises `StoreError`."""
    state = hashlib.sha256()
    _feed(partial, wanted, state.update)
    return state.digest()


def _feed(partial: Partial, wanted: Range, take: Callable[[memoryview], None]) -> None:
    position, buffer = wanted.start, _own_buffer()
    while position < wanted.stop:
        count = partial.readinto(buffer[: min(len(buffer), wanted.stop - position)], position)
        if count == 0:
            raise StoreError(f"{partial.path} is shorter than what was written to it")
        take(buffer[:count])
        position += count


class Workers:
    """Threads for work that would hold the engine up, begun when there is work that no other is free for.

    Daemon threads, unlike those of `concurrent.futures`: a program that is told to stop does not wait for a
    disk to sync.
    """

    def __init__(self, report: Callable[[Answer], None], most: int | None = None) -> None:
        """At most `most` threads; without it as many as keep up with any disk and have a processor each."""
        self._report = report
        self._tasks: queue.SimpleQueue[tuple[object, Callable[[], object]] | None] = queue.SimpleQueue()
        self._most = most or min(_HASHED_AT_ONCE, _processors())
        self._free = threading.Semaphore(0)
        self._count = 0

    def run(self, owner: object, task: Callable[[], object]) -> None:
        """Run a task on some thread and report what it returns, or that it `Crashed`. For one thread to call."""
        if self._count < self._most and not self._free.acquire(blocking=False):
            threading.Thread(target=self._serve, daemon=True, name=f"worker {self._count}").start()
            self._count += 1
        self._tasks.put((owner, task))

    def close(self) -> None:
        """Let the threads end after what they were given."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _serve(self) -> None:
        while (given := self._tasks.get()) is not None:
            owner, task = given
            try:
                result = task()
            except Exception as error:  # noqa: BLE001  # a task must answer; this is the thread's outermost frame
                result = Crashed(error)
            self._free.release()
            self._report(Answer(owner, result))


def _processors() -> int:
    """How many this process may use: a container's are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_local = threading.local()


def _own_buffer() -> memoryview:
    """This thread's buffer, made once: a fresh megabyte for each step would cost a tenth of the hashing."""
    if not hasattr(_local, "buffer"):
        _local.buffer = memoryview(bytearray(_BUFFER_BYTES))
    buffer: memoryview = _local.buffer
    return buffer
