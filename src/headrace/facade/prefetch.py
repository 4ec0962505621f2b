"""`prefetch`: a repo's files on their way, brought by a process of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from headrace.errors import HeadraceError, Interrupted, LoadError
from headrace.events import Event
from headrace.facade.client import Snapshot, several
from headrace.facade.dialogue import Doubt, Listed, Order, Over, Planned, Settled, Wish
from headrace.layout import WorkshopLayout
from headrace.load.arrival import NO_PROOF, Arrival, Proof
from headrace.load.needed import Need
from headrace.manifest import Entry
from headrace.ranges import Range
from headrace.settings import Settings, load_settings
from headrace.store.onlooker import Onlooker

_Answer = TypeVar("_Answer")
_LOOK_S = 0.005
_FAREWELL_S = 5.0  # a prefetcher ends by itself before


class Prefetch:
    """Files on their way. For any thread, but for one process: a child that was forked starts its own.

    Waits raise what the pull raised. `close` it, or use it as a context manager: what has landed by then is kept.
    """

    def __init__(self, order: Order, on_event: Callable[[Event], None] | None = None) -> None:
        """Begin, and return at once. Raises `LoadError` where there is no Python to run."""
        self._on_event = on_event
        self._lock = threading.RLock()
        self._planned: Planned | None = None
        self._settled: set[str] = set()
        self._proofs: dict[str, Proof] = {}
        self._snapshot: Snapshot | None = None
        self._error: HeadraceError | None = None
        self._arrivals: dict[Entry, Arrival] = {}
        self._owner = os.getpid()
        self._process, self._line = _start()
        self._line.send(order)

    def __repr__(self) -> str:
        state = self._error or self._snapshot or self._planned or "not planned yet"
        return f"<Prefetch {state}>"

    def plan(self) -> Planned:
        """Wait until it is known what will come."""
        return self._wait(lambda: self._planned)

    def finish(self) -> Snapshot:
        """Wait until everything is in place and verified."""
        return self._wait(lambda: self._snapshot)

    def settle(self, entries: Iterable[Entry]) -> None:
        """Wait until these are in place and verified."""
        digests = {str(entry.digest) for entry in entries}
        self._wait(lambda: digests <= self._settled or None)

    def is_on_demand(self, entry: Entry) -> bool:
        """Wait until it is known whether only what is wished of a planned file will come."""
        self.plan()
        return self._wait(lambda: self.proof(entry)).on_demand

    def arrival(self, entry: Entry) -> Arrival:
        """One of the planned files, to be read while it comes."""
        workshop = self.plan().workshop
        with self._lock:
            if entry not in self._arrivals:
                onlooker = Onlooker(WorkshopLayout(workshop, entry.digest), entry.size)
                self._arrivals[entry] = Arrival(entry, onlooker, self)
            return self._arrivals[entry]

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._line.closed

    def close(self) -> None:
        """Let it end: with what it has, where it is not done."""
        with self._lock:
            if self._line.closed:
                return
            self._line.close()
            if self._owner == os.getpid():
                _see_off(self._process)

    def __enter__(self) -> Prefetch:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # As a `Carrier`

    def check(self) -> None:
        """See `Carrier.check`."""
        with self._lock:
            self._hear()
            if self._error is not None:
                raise self._error

    def verified(self, entry: Entry) -> Path | None:
        """See `Carrier.verified`."""
        if self._planned is None or str(entry.digest) not in self._settled:
            return None
        return self._planned.root / entry.path

    def proof(self, entry: Entry) -> Proof | None:
        """See `Carrier.proof`."""
        if self._planned is None:
            return None
        digest = str(entry.digest)
        return self._proofs.get(digest) if digest in self._planned.asked else NO_PROOF

    def wish(self, entry: Entry, wanted: Range, *, urgent: bool = True) -> None:
        """See `Carrier.wish`."""
        self._say(Wish(entry.digest, wanted, urgent))

    def doubt(self, entry: Entry, block: int) -> None:
        """See `Carrier.doubt`."""
        self._say(Doubt(entry.digest, block))

    def _say(self, word: object) -> None:
        with self._lock, suppress(OSError):  # it has ended; `check` says how
            self._line.send(word)

    def _wait(self, answer: Callable[[], _Answer | None]) -> _Answer:
        while True:
            self.check()
            found = answer()
            if found is not None:
                return found
            time.sleep(_LOOK_S)

    def _hear(self) -> None:
        """Take what it has told since the last time."""
        try:
            while self._error is None and self._snapshot is None and self._line.poll():
                self._take(self._line.recv())
        except (EOFError, OSError) as error:
            closed = self._line.closed
            self._error = (
                Interrupted("the prefetch was closed")
                if closed
                else LoadError(f"the process that fetches ended: {_end_of(self._process) or error}")
            )

    def _take(self, word: object) -> None:
        match word:
            case Planned():
                self._planned = word
            case Settled():
                self._settled.add(word.digest)
            case Listed():
                self._proofs[word.digest] = word.proof
            case Over(outcome=HeadraceError() as error):
                self._error = error
            case Over(outcome=Snapshot() as snapshot):
                self._snapshot = snapshot
            case Event() if self._on_event is not None:
                self._on_event(word)


def prefetch(
    repo: str,
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Prefetch:
    """Begin to bring a model's files, and return at once; `load` and `streaming` go on with what is on its way.

    Call it before the imports that take long. It runs in a process of its own, which ends with this one.

    Args:
        repo: as for `pull`.
        sources: as for `pull`.
        settings: as for `pull`.
        on_event: as for `pull`, but called by whoever waits for the files, while it waits.

    Raises:
        UsageError: as for `pull`, of settings and sources that make no sense.
        LoadError: no process can be started.
    """
    return begin(Order(settings or load_settings(), several(sources), repo, Need.A_MODEL), on_event)


_Key = tuple[str, Path, Need, bool, int]

_under_way: dict[_Key, Prefetch] = {}


def begin(order: Order, on_event: Callable[[Event], None] | None = None) -> Prefetch:
    """The prefetch that is under way for the same, or a new one."""
    if is_under_way(order):
        return _under_way[_key(order)]
    made = _under_way[_key(order)] = Prefetch(replace(order, tells=on_event is not None), on_event)
    return made


def is_under_way(order: Order) -> bool:
    """Whether a prefetch of the same was begun and not yet closed."""
    known = _under_way.get(_key(order))
    return known is not None and not known.is_closed


def _key(order: Order) -> _Key:
    return order.repo, order.settings.cache, order.need, order.on_demand, os.getpid()


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    if not sys.executable:
        raise LoadError("this program does not know which Python runs it", hint="use headrace.pull instead")
    ours, theirs = socket.socketpair()
    # This process may have found the package by other means than an environment that is inherited.
    search = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "headrace.facade.prefetcher", str(theirs.fileno())]
    try:
        process = subprocess.Popen(  # our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": search, "PYTHONSAFEPATH": "1"},
        )
    except OSError as error:
        ours.close()
        raise LoadError(f"cannot start {sys.executable}: {error.strerror}") from error
    finally:
        theirs.close()
    return process, Connection(ours.detach())


def _see_off(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_FAREWELL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of(process: subprocess.Popen[bytes]) -> str:
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(_FAREWELL_S)
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return ""
