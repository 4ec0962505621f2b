"""A lane: one thread that holds one connection at a time and carries bytes from it into a partial.

The bytes go from the socket through a pipe into the file, or, where they must be looked at on the way (TLS), through
one reused buffer; all these calls release the interpreter lock. A lane never decides anything: it reports, and stops where it is told.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from headrace.errors import BrokenStream, HeadraceError, SourceError
from headrace.plan.orders import Failed, Finished, Landed, Located, Opened, Place
from headrace.ranges import Range
from headrace.source.contract import Request, Source, Stream
from headrace.source.http import Dialer, HttpSession
from headrace.store.partial import Partial
from headrace.transfer.pipe import Pipe, open_pipe

BUFFER_BYTES = 1024 * 1024
_GRASP_BYTES = 64 * 1024
_GRASP = 4  # times what came last is received next at most: what a slow lane holds on to can be taken from it sooner
REPORT_BYTES = 4 * 1024 * 1024
REPORT_S = 0.1
"""A lane reports what landed at least this often; what was not reported is lost when the process is killed."""

Report = Located | Opened | Landed | Finished | Failed


@dataclass
class Errand:
    """One assignment on its way: a range to carry, whose end may come nearer while it is carried."""

    number: int
    request: Request
    source: Source
    partial: Partial
    position: int = field(init=False)
    heard_at: float = field(
        init=False, default_factory=time.monotonic
    )  # for the engine: of it, or told of its silence
    _stop: int = field(init=False)
    _reach: int = field(init=False)  # bytes before this may already be on their way into the buffer
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.position = self._reach = self.request.range.start
        self._stop = self.request.range.stop

    def reserve(self, most: int) -> int:
        """Decide how many bytes to receive next; 0 at the end. These can no longer be taken away."""
        with self._lock:
            count = min(most, self._stop - self.position)
            self._reach = self.position + count
            return count

    def shorten(self, stop: int) -> int:
        """Stop at `stop`, or where the bytes being received end; what it came to is the answer."""
        with self._lock:
            self._stop = min(self._stop, max(stop, self._reach))
            return self._stop


class Lane:
    """One carrying thread. `run` errands one at a time; reports go to `report`, from this thread."""

    def __init__(self, name: str, dialer: Dialer, report: Callable[[Report], None]) -> None:
        self._session = HttpSession(dialer)
        self._report = report
        self._errands: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
        self._pipe: Pipe | None = None
        self.errand: Errand | None = None
        threading.Thread(target=self._serve, daemon=True, name=name).start()

    def run(self, errand: Errand) -> None:
        """Begin an errand; the lane must be idle."""
        self.errand = errand
        self._session.revive()
        self._errands.put(errand)

    def cancel(self) -> None:
        """Drop the connection; the errand fails."""
        self._session.abort()

    def retire(self) -> None:
        """End the thread once it is idle."""
        self._errands.put(None)

    def _serve(self) -> None:
        while (errand := self._errands.get()) is not None:
            try:
                self._carry(errand)
            except HeadraceError as error:  # noqa: PERF203  # once an errand
                self._report(Failed(errand.number, error))
            except Exception as error:  # noqa: BLE001  # a lane must answer; this is the thread's outermost frame
                self._report(Failed(errand.number, _surprise(errand, error)))
            else:
                self._report(Finished(errand.number))
        self._session.close()
        self._drop_pipe()

    def _carry(self, errand: Errand) -> None:
        began = time.monotonic()
        stream = errand.source.open(
            errand.request, self._session, lambda: self._report(Located(errand.number))
        )
        try:
            place = Place(errand.source.name, stream.host, stream.address)
            self._report(Opened(errand.number, place, stream.siblings, time.monotonic() - began))
            reported, reported_at = errand.position, time.monotonic()
            try:
                grasp = _GRASP_BYTES
                while count := errand.reserve(grasp):
                    count = self._pass_on(stream, errand, count)
                    grasp = min(BUFFER_BYTES, max(_GRASP_BYTES, _GRASP * count))
                    errand.position += count
                    now = time.monotonic()
                    if errand.position - reported >= REPORT_BYTES or now - reported_at >= REPORT_S:
                        self._report(Landed(errand.number, Range(reported, errand.position)))
                        reported, reported_at = errand.position, now
            finally:
                if errand.position > reported:
                    self._report(Landed(errand.number, Range(reported, errand.position)))
        finally:
            stream.close()

    def _pass_on(self, stream: Stream, errand: Errand, most: int) -> int:
        """Carry up to `most` bytes from the stream into the partial; how many is the answer."""
        if self._pipe is None:
            self._pipe = open_pipe()
        if self._pipe is not None and (count := stream.splice(self._pipe.entry, most)) is not None:
            self._empty_pipe(self._pipe, errand, count)
            return count
        count = stream.readinto(self._buffer[:most])
        if not count:  # the length was not announced, and it was not what was promised
            raise BrokenStream(f"{stream.host} ended the answer at byte {errand.position}")
        errand.partial.write(self._buffer[:count], errand.position)
        return count

    def _empty_pipe(self, pipe: Pipe, errand: Errand, count: int) -> None:
        try:
            errand.partial.take(pipe.exit, count, errand.position)
        except BaseException:
            self._drop_pipe()  # with what is left in it
            raise

    def _drop_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    @cached_property
    def _buffer(self) -> memoryview:
        """Made when it is needed: where bytes go through a pipe it hardly ever is."""
        return memoryview(bytearray(BUFFER_BYTES))


def _surprise(errand: Errand, error: Exception) -> SourceError:
    """An error of ours in a source: told as that source's failure, so that others can still deliver."""
    return SourceError(f"{errand.source.name} failed unexpectedly: {type(error).__name__}: {error}")
