"""What tests of partials do to one another's files, and see of them."""

from __future__ import annotations

from collections.abc import Callable

from headrace.layout import WorkshopLayout
from headrace.ranges import Range
from headrace.store.lease import LeaseWatch
from headrace.store.partial import JOURNALLED_FROM_BYTES, Partial, claim_partial

Claim = Callable[[WorkshopLayout, int], Partial]

SIZE = JOURNALLED_FROM_BYTES + 1000
HALF = Range(0, SIZE // 2)


def seize(layout: WorkshopLayout, size: int) -> Partial:
    """What a watcher on another machine does to a holder that has been silent for too long."""
    now = [0.0]
    for held in layout.folder.glob("*.lease.*"):
        held.write_text("{}")  # from there nobody can tell whether the holder lives
    watch = LeaseWatch(layout, lambda: now[0])
    assert watch.acquire() is None
    now[0] = 100.0
    lease = watch.acquire()
    assert lease is not None
    assert not lease.inherited
    return claim_partial(layout.folder, layout.digest, size, lease)


def litter(layout: WorkshopLayout) -> list[str]:
    return sorted((path.name for path in layout.folder.iterdir()), reverse=True)


def contents(partial: Partial, count: int) -> bytes:
    buffer = memoryview(bytearray(count))
    partial.readinto(buffer, 0)
    return bytes(buffer)
