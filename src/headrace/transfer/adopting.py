"""The near half of a pull: what is missing in its place, and lies elsewhere on this disk, is copied from there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from headrace.errors import NoSpace, ReadOnly, StoreError
from headrace.events import Emit, Warned
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry
from headrace.store.cloning import can_clone
from headrace.store.contract import Progress, Store
from headrace.store.lease import LeaseWatch
from headrace.store.leftovers import remove_partial
from headrace.store.shelves import Found
from headrace.store.space import check_space


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


def adopt(store: Store, entries: Sequence[Entry], found: Found, progress: Progress, emit: Emit) -> bool:
    """Copy what was found to all these names; whether it could be.

    A file that is gone, changed or cannot be read is told of, and left to be fetched.

    Raises:
        NoSpace, ReadOnly: the disk of the store refused.
    """
    try:
        if not store.adopt(found.sound, entries, progress):
            return False
    except (NoSpace, ReadOnly):
        raise
    except StoreError as error:
        emit(Warned("reuse", f"{found.sound.path} cannot be reused: {error.message}"))
        return False
    _forget_partial(WorkshopLayout(store.workshop, entries[0].digest))
    return True


def _forget_partial(layout: WorkshopLayout) -> None:
    """Remove what an earlier attempt fetched of content that is in place now, unless another process is at it."""
    if not os.path.lexists(layout.partial):
        return
    with suppress(OSError, StoreError):
        lease = LeaseWatch(layout).acquire()
        if lease is not None:
            try:
                remove_partial(layout, lease)
            finally:
                lease.release()
