"""The exit codes: a table that scripts rely on.

    0 done · 1 a bug of ours · 2 usage · 10 not found · 11 access denied · 12 no source could deliver
    13 integrity · 14 storage · 15 load · 130 interrupted, by Ctrl-C or SIGTERM

Of `lock --check`, 1 is an answer: something moved.

SIGTERM shares 130 with Ctrl-C: both mean "stopped from outside, everything kept, the same command goes on", and
a script that retries needs to know that once.
"""

from __future__ import annotations

from headrace.cli.interrupt import INTERRUPTED
from headrace.errors import (
    AccessDenied,
    HeadraceError,
    IntegrityError,
    Interrupted,
    LoadError,
    NotFound,
    SourceError,
    StoreError,
    UsageError,
)

BUG = 1

EXITS: dict[type[HeadraceError], int] = {
    UsageError: 2,
    NotFound: 10,
    AccessDenied: 11,
    SourceError: 12,
    IntegrityError: 13,
    StoreError: 14,
    LoadError: 15,
    Interrupted: INTERRUPTED,
}


def exit_code(error: type[HeadraceError]) -> int:
    """The exit code of an error class: that of the family it belongs to."""
    return next((EXITS[family] for family in error.__mro__ if family in EXITS), BUG)
