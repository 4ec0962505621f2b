"""Hashing at the frontier: each blob is hashed in order, from the page cache, as its first bytes stand."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from headrace.errors import StoreError
from headrace.manifest import Digest
from headrace.store.ledger import new_hash
from headrace.store.partial import Partial

_STEP_BYTES = 32 * 1024 * 1024  # a step reports when it is done: progress, and a turn for other blobs
_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Step:
    """A hashing step is over. `error` where the disk could not be read."""

    blob: str
    frontier: int
    generation: int
    error: StoreError | None = None


@dataclass(frozen=True)
class Crashed:
    """A task for a blob raised what no task should."""

    blob: str
    error: Exception


class Hasher:
    """Follows one blob's frontier; at most one step is under way at any time."""

    def __init__(self, blob: str, digest: Digest, partial: Partial, size: int) -> None:
        self._blob = blob
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
            position = start
            buffer = _own_buffer()
            try:
                while position < stop:
                    count = self._partial.readinto(buffer[: min(len(buffer), stop - position)], position)
                    if count == 0:
                        error = StoreError(f"{self._partial.path} is shorter than what was written to it")
                        return Step(self._blob, start, generation, error)
                    state.update(buffer[:count])
                    position += count
            except StoreError as error:
                return Step(self._blob, start, generation, error)
            return Step(self._blob, position, generation)

        return work


class Workers:
    """Threads for work that would hold the engine up. As many as there are processors where none says otherwise.

    Daemon threads, unlike those of `concurrent.futures`: a program that is told to stop does not wait for a
    disk to sync.
    """

    def __init__(self, report: Callable[[object], None], count: int | None = None) -> None:
        self._report = report
        self._tasks: queue.SimpleQueue[tuple[str, Callable[[], object]] | None] = queue.SimpleQueue()
        self._count = count or os.cpu_count() or 1
        for index in range(self._count):
            threading.Thread(target=self._serve, daemon=True, name=f"worker {index}").start()

    def run(self, blob: str, task: Callable[[], object]) -> None:
        """Run a task for a blob on some thread and report what it returns, or that it `Crashed`."""
        self._tasks.put((blob, task))

    def close(self) -> None:
        """Let the threads end after what they were given."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _serve(self) -> None:
        while (given := self._tasks.get()) is not None:
            blob, task = given
            try:
                result = task()
            except Exception as error:  # noqa: BLE001  # a task must answer; this is the thread's outermost frame
                result = Crashed(blob, error)
            self._report(result)


_local = threading.local()


def _own_buffer() -> memoryview:
    """This thread's buffer, made once: a fresh megabyte for each step would cost a tenth of the hashing."""
    if not hasattr(_local, "buffer"):
        _local.buffer = memoryview(bytearray(_BUFFER_BYTES))
    buffer: memoryview = _local.buffer
    return buffer
