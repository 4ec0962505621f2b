"""The near half of a pull: what is missing in its place, and lies elsewhere on this disk, is copied from there."""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from contextlib import suppress

from headrace.errors import NoSpace, ReadOnly, StoreError
from headrace.events import Emit, Warned
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry
from headrace.store.cloning import can_clone
from headrace.store.contract import Progress, Store
from headrace.store.lease import Lease, LeaseWatch
from headrace.store.leftovers import remove_partial
from headrace.store.shelves import Found
from headrace.store.space import check_space
from headrace.transfer.awaited import Awaited


class Outcome(enum.Enum):
    """What became of a blob that was found."""

    COPIED = "it is in place now"
    HERE = "another process has put it in place"
    HELD = "another process is at it; ask again soon"
    LOST = "it is not what was found any more"


def check_room(
    store: Store, found: Sequence[tuple[Sequence[Entry], Found]], missing: Sequence[Sequence[Entry]]
) -> list[str]:
    """Make sure that there is room for all that is copied and all that is fetched, before the first byte.

    Copies whose blocks the file system shares take none. Messages and errors as `check_space`.
    """
    shares: dict[int, bool] = {}
    copied = []
    for entries, one in found:
        device = one.sound.facts.st_dev
        if device not in shares:
            shares[device] = can_clone(one.sound.path, store.workshop)
        if not shares[device]:
            copied += [entry for entry in store.names(entries) if not store.holds(entry)]
    fetched = [entry for entries in missing for entry in store.names(entries)]
    return check_space(store.workshop, [*copied, *fetched])


class Adoption:
    """One blob that was found elsewhere, and its way into the store. Two processes never copy the same."""

    def __init__(
        self, store: Store, entries: Sequence[Entry], found: Found, progress: Progress, emit: Emit
    ) -> None:
        self.entries = entries
        self.place = str(found.place or "")
        self._store = store
        self._found = found
        self._progress = progress
        self._emit = emit
        self._layout = WorkshopLayout(store.workshop, entries[0].digest)
        self._watch = LeaseWatch(self._layout)
        self._awaited = Awaited(entries[0], self._layout, emit)

    def attempt(self) -> Outcome:
        """Copy the content to all its names, unless another process is at it.

        A file that is gone, changed or cannot be read is told of, and left to be fetched.

        Raises:
            StoreError: the disk of the store refused.
        """
        lease = self._watch.acquire()
        if lease is None:
            self._awaited.tell(self._watch.holder)
            return Outcome.HELD
        try:
            return self._under(lease)
        finally:
            lease.release()

    def _under(self, lease: Lease) -> Outcome:
        def alive(entry: Entry, done: int) -> None:
            lease.beat(time.monotonic())
            self._progress(entry, done)

        if self._store.reuse(self.entries, alive):  # by another process, since it was looked for
            return Outcome.HERE
        try:
            if not self._store.adopt(self._found.sound, self.entries, alive):
                return self._lost("it is not what it was any more")
        except (NoSpace, ReadOnly):
            raise
        except StoreError as error:
            return self._lost(error.message)
        with suppress(OSError):  # what an earlier attempt fetched of it
            remove_partial(self._layout, lease)
        return Outcome.COPIED

    def _lost(self, why: str) -> Outcome:
        self._emit(Warned("reuse", f"{self._found.sound.path} cannot be reused: {why}"))
        return Outcome.LOST
