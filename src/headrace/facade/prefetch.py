"""`prefetch`: a repo's files on their way, brought by a process of their own."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from headrace.errors import HeadraceError, Interrupted, LoadError, UsageError
from headrace.events import Event
from headrace.facade.audience import Audience
from headrace.facade.client import Snapshot, several
from headrace.facade.companion import Companion, NoCompanion
from headrace.facade.dialogue import Doubt, Listed, Order, Over, Planned, Settled, Wish
from headrace.facade.waiting import Waiting
from headrace.layout import WorkshopLayout
from headrace.load.arrival import NO_PROOF, Arrival, Proof
from headrace.load.needed import Need
from headrace.manifest import Entry
from headrace.names import parse_address
from headrace.ranges import Range
from headrace.settings import Settings, load_settings
from headrace.store.onlooker import Onlooker

_Answer = TypeVar("_Answer")
_Key = tuple[object, ...]
_log = logging.getLogger("headrace.load")
_LOOK_S = 0.005
_AGAIN_MOST = 2  # what kills three of them will kill the next one


class Prefetch:
    """Files on their way. For any thread, but for one process: a child that was forked starts its own.

    Waits raise what the pull raised. A process that was killed or stopped is followed by another one, which goes on
    with what has landed. `close` it, or use it as a context manager, where the last to leave closes it: what has
    landed by then is kept.
    """

    def __init__(self, order: Order, on_event: Callable[[Event], None] | None = None) -> None:
        """Begin, and return at once. Raises `NoCompanion`."""
        self._order = order
        self._audience = Audience((Waiting(order.repo).take, *((on_event,) if on_event else ())))
        self._lock = threading.RLock()
        self._planned: Planned | None = None
        self._settled: set[str] = set()
        self._proofs: dict[str, Proof] = {}
        self._listed: set[str] = set()
        self._snapshot: Snapshot | None = None
        self._error: HeadraceError | None = None
        self._arrivals: dict[Entry, Arrival] = {}
        self._asked: dict[Wish | Doubt, None] = {}  # in order, for who comes after a process that died
        self._owner = os.getpid()
        self._begun = self._users = 0
        self._companion = self._begin()

    def __repr__(self) -> str:
        if self._error is not None:
            state = f"failed: {self._error}"
        elif self._snapshot is not None:
            state = f"done, {self._snapshot.path}"
        elif self._planned is not None:
            here = sum(str(one.digest) in self._settled for one in self._planned.manifest.entries)
            state = f"{here} of {len(self._planned.manifest.entries)} files are here"
        else:
            state = "not planned yet"
        return f"<Prefetch {self._order.repo}: {state}>"

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
    def is_used(self) -> bool:
        """Whether somebody uses it as a context manager."""
        return self._users > 0

    @property
    def is_over(self) -> bool:
        """Whether it failed or was closed: who wants the files has to begin another one."""
        with self._lock:
            self._hear()
            return self._error is not None

    def close(self) -> None:
        """Let it end: with what it has, where it is not done. Who still waits for more gets `Interrupted`."""
        if not self._is_ours:  # whoever had the lock when this process was forked has it here for ever
            return
        with self._lock:
            self._end()
        self._audience.tell()

    def leave(self) -> bool:
        """Undo one `__enter__`; whether that was the last one: then it is to be closed."""
        if not self._is_ours:
            return False
        with self._lock:
            self._users -= 1
            return not self._users

    def __enter__(self) -> Prefetch:  # noqa: PYI034  # typing.Self came with Python 3.11
        self._require_ours()
        with self._lock:
            self._users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_ours:
            return
        with self._lock:  # nobody joins what is about to be closed
            if self.leave():
                self._end()
        self._audience.tell()

    # As a `Carrier`

    def check(self) -> None:
        """See `Carrier.check`."""
        self._require_ours()
        _forgotten.end()
        with self._lock:
            self._hear()
            error = self._error
        self._audience.tell()
        if error is not None:
            raise error

    def verified(self, entry: Entry) -> Path | None:
        """See `Carrier.verified`."""
        if self._planned is None or str(entry.digest) not in self._settled:
            return None
        return self._planned.root / entry.path

    def proof(self, entry: Entry) -> Proof | None:
        """See `Carrier.proof`."""
        if self._planned is None:
            return None
        return self._proofs.get(str(entry.digest))

    def wish(self, entry: Entry, wanted: Range, *, urgent: bool = True) -> None:
        """See `Carrier.wish`."""
        self._say(Wish(entry.digest, wanted, urgent))

    def doubt(self, entry: Entry, block: int) -> None:
        """See `Carrier.doubt`."""
        self._say(Doubt(entry.digest, block))

    @property
    def _is_ours(self) -> bool:
        return self._owner == os.getpid()

    def _require_ours(self) -> None:
        if not self._is_ours:
            raise UsageError("a prefetch is for the process that began it", hint="begin another one here")

    def _end(self) -> None:
        self._hear()
        if self._error is None and self._snapshot is None:
            self._error = Interrupted(f"the prefetch of {self._order.repo} was closed")
            self._companion.end()
        self._arrivals.clear()  # they know this object, too: files would stay open until Python finds that out

    def _say(self, word: Wish | Doubt) -> None:
        self._require_ours()
        with self._lock, suppress(OSError):  # it has ended; `check` sees to that
            self._asked[word] = None
            self._companion.say(word)

    def _wait(self, answer: Callable[[], _Answer | None]) -> _Answer:
        while True:
            self.check()
            found = answer()
            if found is not None:
                return found
            time.sleep(_LOOK_S)

    def _hear(self) -> None:
        """Take what it has told since the last time; where it can tell no more, begin another one."""
        while self._error is None and self._snapshot is None:
            try:
                word = self._companion.hear()
            except (EOFError, OSError):
                self._go_on(self._companion.end())
                continue
            if word is not None:
                self._take(word)
            elif self._companion.is_stopped():
                self._go_on(self._companion.end(0.0))
            else:
                return
        self._companion.end(0.0)  # it has done what it was for

    def _go_on(self, code: int) -> None:
        """Its process has ended before it was done: begin another one, unless that would end likewise."""
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        told = self._companion.last_words
        if code >= 0 or self._begun > _AGAIN_MOST:
            often = f" {self._begun} times, in the end" if self._begun > 1 else ""
            message = f"the process that fetches ended{often} {how}{told and ': '}{told}"
            # While nobody knows what would come, nobody has anything of it, and can do without.
            self._error = LoadError(message) if self._planned is not None else NoCompanion(message)
            return
        _log.warning(
            "the process that fetches %s ended %s; another one goes on with what has landed",
            self._order.repo,
            how,
        )
        try:
            self._companion = self._begin()
        except LoadError as error:
            self._error = error

    def _begin(self) -> Companion:
        self._begun += 1
        settings = self._order.settings
        companion = Companion(filter(None, (settings.token, settings.modelscope_token)))
        with suppress(OSError):  # it has ended already; `_hear` sees to that
            for word in (self._again(), *self._asked):
                companion.say(word)
        return companion

    def _again(self) -> Order:
        """What is ordered: where the first one said that a file comes as a whole, no later one may bring a part of it."""
        come_whole = any(not self._proofs[digest].on_demand for digest in self._listed)
        return replace(self._order, on_demand=False) if come_whole else self._order

    def _plan(self, planned: Planned) -> None:
        before = self._planned
        if before is not None and before.manifest.entries != planned.manifest.entries:
            self._error = LoadError(
                f"{planned.manifest.repo} changed while it was fetched: {before.manifest.commit} became "
                f"{planned.manifest.commit}",
                hint="load it once more, or name the commit: REPO@COMMIT",
            )
        else:
            self._planned = before or planned
            # What was once said stays: it is by that that bytes were given out.
            for entry in planned.manifest.entries:
                if str(entry.digest) not in planned.asked:
                    self._proofs.setdefault(str(entry.digest), NO_PROOF)

    def _take(self, word: object) -> None:
        match word:
            case Planned():
                self._plan(word)
            case Settled():
                self._settled.add(word.digest)
            case Listed():
                self._proofs.setdefault(word.digest, word.proof)
                self._listed.add(word.digest)
            case Over(outcome=HeadraceError() as error):
                self._error = error
            case Over(outcome=Snapshot() as snapshot):
                self._snapshot = snapshot
            case Event():
                self._audience.take(word)


def prefetch(
    repo: str,
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Prefetch:
    """Begin to bring a model's files, and return at once; `load` and `streaming` go on with what is on its way.

    Call it before the imports that take long. It runs in a process of its own, which ends with this one. Who goes on
    with it names the same sources: with others, or none, another one begins, which fetches nothing twice.

    Args:
        repo: as for `pull`.
        sources: as for `pull`.
        settings: as for `pull`.
        on_event: as for `pull`, but called by whoever waits for the files, while it waits. Others do not wait for it.

    Raises:
        UsageError: as for `pull`, of settings and sources that make no sense.
        LoadError: no process can be started; `load` and `streaming` do without it.
    """
    order = Order(settings or load_settings(), several(sources), repo, Need.A_MODEL)
    order.settings.carriers(order.sources)
    parse_address(repo)
    return _under_way.begin(order, on_event)


class _UnderWay:
    """The prefetches of this process that others may join."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def find(self, order: Order) -> Prefetch | None:
        """The one of the same."""
        with self._lock:
            known = self._known.get(_key(order))
            return None if known is None or known.is_over else known

    @contextmanager
    def joined(self, order: Order, on_event: Callable[[Event], None] | None) -> Iterator[Prefetch]:
        """The one of the same, or a new one; when its last user has left, it is closed and known no more."""
        with self._lock:
            coming = self._begin(order, on_event).__enter__()
        try:
            yield coming
        finally:
            with self._lock:  # nobody joins what is about to be closed
                is_last = coming.leave()
                if is_last and self._known.get(_key(order)) is coming:
                    del self._known[_key(order)]
            if is_last:
                coming.close()  # its process has seconds to end in: others need not wait for that

    def begin(self, order: Order, on_event: Callable[[Event], None] | None) -> Prefetch:
        """The one of the same, or a new one."""
        with self._lock:
            return self._begin(order, on_event)

    def _begin(self, order: Order, on_event: Callable[[Event], None] | None) -> Prefetch:
        known = self.find(order)
        if known is None:
            known = Prefetch(replace(order, tells=on_event is not None), on_event)
            self._known[_key(order)] = known
        return known

    def _forget(self) -> None:
        self._lock = (
            threading.RLock()
        )  # another thread may have had the former one when this process was forked
        self._known: dict[_Key, Prefetch] = {}


class _Forgotten:
    """Ends of what users forgot. Python collects wherever it is, perhaps under a lock that an end needs: they wait."""

    def __init__(self) -> None:
        self._ends: deque[Callable[[], None]] = deque()
        self._is_exiting = False
        atexit.register(self._exit)

    def take(self, end: Callable[[], None]) -> None:
        """Call it soon; takes no lock."""
        self._ends.append(end)
        if self._is_exiting:  # finalizers may be called before or after `_exit`
            self.end()

    def end(self) -> None:
        """Call what waits: to be called under no lock."""
        while self._ends:
            try:
                end = self._ends.popleft()
            except IndexError:  # another thread was there first
                return
            end()

    def _exit(self) -> None:
        self._is_exiting = True
        self.end()


_under_way = _UnderWay()
_forgotten = _Forgotten()


def end_soon(end: Callable[[], None]) -> None:
    """Have this done when somebody next waits for a prefetch or joins one, or the program ends. For finalizers."""
    _forgotten.take(end)


def joined(order: Order, on_event: Callable[[Event], None] | None = None) -> AbstractContextManager[Prefetch]:
    """The prefetch that is under way for the same, or a new one; the last who leaves closes it."""
    _forgotten.end()
    return _under_way.joined(order, on_event)


def under_way(order: Order) -> Prefetch | None:
    """The prefetch of the same that was begun and has neither failed nor been closed, for who only looks at it."""
    _forgotten.end()
    return _under_way.find(order)


def is_under_way(order: Order) -> bool:
    """Whether there is such a one."""
    return under_way(order) is not None


def _key(order: Order) -> _Key:
    # Another hub may mean something else by that name, another user may be let see less, and who named the sources
    # wants these. What two of them have in common is fetched once all the same.
    settings = order.settings
    what = order.repo, settings.cache, order.need, order.on_demand
    return (
        *what,
        order.sources,
        settings["use"],
        settings.hf_endpoint,
        settings.token,
        settings.modelscope_token,
    )
