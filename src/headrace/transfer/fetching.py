"""The fetching half of a pull: what is missing becomes jobs of one engine, and these become files in place."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from headrace.errors import HeadraceError, Interrupted, Locked
from headrace.events import Emit, Warned, WritingInOrder
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry
from headrace.plan.limits import Limits
from headrace.store import partly
from headrace.store.contract import Store
from headrace.store.disk import storing
from headrace.store.lease import Lease, LeaseWatch
from headrace.store.leftovers import remove_partial, sweep
from headrace.store.medium import medium_of
from headrace.store.partial import Partial, claim_partial
from headrace.store.space import check_space
from headrace.transfer.awaited import Awaited
from headrace.transfer.engine import Engine
from headrace.transfer.job import NotYet
from headrace.transfer.pull import Carriers, Pull

_LOOK_S = 0.2  # a signal that comes right before a wait begins is seen only after it
_FAREWELL_S = 0.7  # what may pass between Ctrl-C and the end, with that before; users count one second


class Fetching:
    """One engine at work for one pull.

    Attributes:
        received: source name → bytes that came from it.
    """

    def __init__(self, pull: Pull, store: Store, carriers: Carriers, emit: Emit) -> None:
        self._pull = pull
        self._store = store
        self._carriers = carriers
        self._emit = emit
        self.received: dict[str, int] = {}

    def run(self, missing: Sequence[Sequence[Entry]]) -> None:
        """Fetch lists of entries that share a digest. Errors as `Pull.fetch`."""
        workshop = self._store.workshop
        sweep(workshop)
        for warning in check_space(
            workshop, [one for entries in missing for one in self._store.names(entries)]
        ):
            self._emit(Warned("space", warning))
        sources = {source.name: source for source in self._carriers.sources}
        engine = Engine(sources, self._carriers.dialer, self._limits(), self._emit, self._pull.trusted)
        self.received = engine.received
        outcome = _Outcome(engine)
        # Where bytes turn out wrong, whose list it is is believed longest; then those that were named first.
        names = tuple(sorted(sources, key=lambda name: name != self._pull.trusted))
        for entries in missing:
            kind = _SparingPullJob if entries[0].digest in self._pull.on_demand else _PullJob
            engine.add(kind(self._pull, self._store, entries, outcome, self._emit, names))
        self._pull.steer(engine)
        _drive(engine)
        if outcome.error is not None:
            raise outcome.error
        outcome.see_whether_to_go_on()

    def _limits(self) -> Limits:
        medium = medium_of(self._store.workshop)
        if not medium.in_order:
            return self._carriers.limits
        self._emit(WritingInOrder(str(self._store.workshop), medium.kind.value, medium.why))
        return self._carriers.limits.sequential()


class _Outcome:
    """The first failure ends the whole pull: half a model is of no use, and what landed is kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.error: HeadraceError | None = None

    def failed(self, error: HeadraceError) -> None:
        if self.error is None:
            self.error = error
            self._engine.stop()

    def see_whether_to_go_on(self) -> None:
        """Raises `Interrupted` where nobody waits for the rest any more."""
        if self._engine.told_to_stop:
            raise Interrupted("the pull is over")


class _PullJob:
    """One blob of a pull; see `Job`."""

    def __init__(
        self,
        pull: Pull,
        store: Store,
        entries: Sequence[Entry],
        outcome: _Outcome,
        emit: Emit,
        sources: tuple[str, ...],
    ) -> None:
        self._pull = pull
        self._store = store
        self._entries = entries
        self._outcome = outcome
        self._layout = WorkshopLayout(store.workshop, entries[0].digest)
        self._watch = LeaseWatch(self._layout)
        self._awaited = Awaited(entries[0], self._layout, emit)
        self._is_published = False
        self._kept_bytes = 0  # that a former attempt had brought
        self.content = pull.content(entries[0])
        self.sources = sources

    def begin(self) -> Partial | NotYet:
        entry = self._entries[0]
        lease = self._watch.acquire()
        if lease is None:
            self._awaited.tell(self._watch.holder)
            partly.ask_for_all(self._layout)
            return NotYet.HELD
        try:
            is_here = self._pull.place_again(self._entries, lambda: self._alive(lease))
            if is_here:  # who put it there may have been killed before it had removed these
                with suppress(OSError):
                    remove_partial(self._layout, lease)
        except BaseException:
            lease.release()
            raise
        if is_here:
            lease.release()
            return NotYet.HERE
        try:
            return claim_partial(
                self._store.workshop, entry.digest, entry.size, lease, self._outcome.see_whether_to_go_on
            )
        except Locked:
            return NotYet.HELD

    def publish(self, partial: Partial) -> None:
        self._store.publish(partial, self._entries)
        self._is_published = True
        self._kept_bytes = partial.have.total

    def doubt(self) -> None:
        """See `Job.doubt`: nobody has seen any of it yet."""

    def ended(self, error: HeadraceError | None) -> None:
        if error is not None:
            self._outcome.failed(error)
        elif self._is_published:
            self._pull.published(self._entries, self._kept_bytes)

    def _alive(self, lease: Lease) -> None:
        self._outcome.see_whether_to_go_on()
        lease.beat(time.monotonic())


class _SparingPullJob(_PullJob):
    """One of which only what is wished is fetched; see `Sparing`."""

    def begin(self) -> Partial | NotYet:
        partial = super().begin()
        if isinstance(partial, Partial):
            try:
                with storing(self._layout.folder):
                    partly.begin(self._layout)
            except BaseException:
                partial.close()
                raise
        return partial

    def wants_all(self) -> bool:
        """See `Sparing.wants_all`."""
        return partly.is_asked_for(self._layout)


def _drive(engine: Engine) -> None:
    """Run an engine to its end, on a thread of its own.

    Python raises an interrupt between any two steps of the main thread: there it would tear the engine's state,
    and in a notebook, which lives on, leave leases behind that nobody can take over.
    """
    failures: list[BaseException] = []
    over = (
        threading.Event()
    )  # a join that was interrupted takes the thread for ended from then on (CPython 3.11)

    def work() -> None:
        try:
            engine.run(until_idle=True)
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=work, daemon=True, name="engine")
    try:
        thread.start()
        while not over.wait(_LOOK_S):
            pass
    except KeyboardInterrupt:
        engine.stop()
        over.wait(_FAREWELL_S)  # beyond that it ends behind our back
        raise Interrupted(
            "interrupted; what was fetched is kept", hint="the same pull continues where this one ended"
        ) from None
    if failures:
        raise failures[0]
