"""The note that lies beside a partial of which only a part is wanted.

Its holder may never have the rest, and may wait for somebody who waits for just that: ranks of one model meet at every
step. So whoever finds the lease taken writes here that all of it is wanted, and from then on the holder brings it like
any other blob. The note stays when the holder ends: its program may use what is mapped for as long as it lives, so the
next holder begins a file of its own, with what that one has.
"""

from __future__ import annotations

from contextlib import suppress

from headrace.layout import WorkshopLayout

_ALL = b"all"


def begin(layout: WorkshopLayout) -> None:
    """Leave the note. For the holder of the lease. Raises `OSError`."""
    layout.partly.write_bytes(b"")


def ask_for_all(layout: WorkshopLayout) -> None:
    """Have whoever holds the lease bring all of it. Never fails: who cannot say it waits for the holder to end."""
    with suppress(OSError), layout.partly.open("r+b") as note:  # none is begun: most holders bring everything
        note.write(_ALL)


def is_asked_for(layout: WorkshopLayout) -> bool:
    """Whether somebody waits for all of it."""
    try:
        return layout.partly.stat().st_size > 0
    except OSError:
        return True  # nobody would find it any more


def was_left(layout: WorkshopLayout) -> bool:
    """Whether the partial is that of a holder who wanted only a part, and may be mapped still."""
    return layout.partly.exists()
