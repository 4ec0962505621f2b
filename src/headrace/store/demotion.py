"""Demotion: a published file that turned out to be wrong becomes the partial of its own content again.

Nothing is changed under a final name, and nothing that is sound is fetched again: what is known to be right is in the
journal, and whoever wants the content goes on from there, until the whole hashes to its digest.
"""

from __future__ import annotations

import os
from pathlib import Path

from headrace.layout import WorkshopLayout
from headrace.ranges import RangeSet
from headrace.store.journal import Journal, JournalHeader, Vouched
from headrace.store.lasting import settle
from headrace.store.lease import LeaseWatch, boot_id

_HOW = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def demote(final: Path, layout: WorkshopLayout, size: int, sound: RangeSet) -> bool:
    """Take the file from its final name and make it the partial of content of this size, of which `sound` is right.

    False, and nothing was done, where somebody else is at work on that content. A kill in between leaves the file
    where it was, or a partial whose journal is believed only if the file has the right size.

    Raises:
        OSError, StoreError: the disk refused; the file may be under either name.
    """
    lease = LeaseWatch(layout).acquire()
    if lease is None:
        return False
    try:
        fd = os.open(final, _HOW)
        try:
            facts = os.fstat(fd)
            header = JournalHeader(str(layout.digest), size, facts.st_ino, boot_id())
            # What was published was on disk before: of what is sound there is nothing left to be synced.
            Journal(layout.journal, header, Vouched(sound, sound)).close()
            final.replace(layout.partial)
            if facts.st_size != size:
                os.ftruncate(fd, size)
        finally:
            os.close(fd)
        settle(layout.folder)
        settle(final.parent)
        lease.succeed()
    finally:
        lease.release()
    return True
