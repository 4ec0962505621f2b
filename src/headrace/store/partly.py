"""The note that lies beside a partial which somebody may have read for good, or of which only a part is wanted.

Who reads under a block list need not wait for the whole: a model may be made, and live on, of a file that is written
still. What stands there must not change then, whatever anybody comes to think of it. So the note is left by who
settles for what it read, and by a holder who brings only a part; whoever finds it begins a file of its own, with what
that one has.

Such a holder may never have the rest, and may wait for somebody who waits for just that: ranks of one model meet at
every step. So whoever finds the lease taken writes here that all of it is wanted, and from then on the holder brings it
like any other blob.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from headrace.layout import WorkshopLayout

_ALL = b"all"


def begin(layout: WorkshopLayout) -> None:
    """Leave the note, and nothing asked. For the holder of the lease. Raises `OSError`."""
    layout.partly.write_bytes(b"")


def lend(layout: WorkshopLayout) -> None:
    """Leave the note, if there is none. For who reads. Raises `OSError`."""
    with suppress(FileExistsError):  # another user's says the same
        layout.partly.touch(exist_ok=False)


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


@contextmanager
def taken_off(layout: WorkshopLayout) -> Iterator[None]:
    """Give the partial's name to another file in here: the note is gone, and there again where that fails.

    Raises `OSError`.
    """
    was_lent = is_lent(layout)
    layout.partly.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if was_lent:
                lend(layout)
        raise


def is_lent(layout: WorkshopLayout) -> bool:
    """Whether the partial may be mapped by somebody who takes it for settled."""
    return layout.partly.exists()
