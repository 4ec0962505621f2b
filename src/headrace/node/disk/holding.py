"""Files in use: whoever reads one shares a lock on it, and whoever takes it away must have that lock alone.

The kernel lets go of a lock with the process that has it. Where a file system keeps none, nothing is protected, and
nothing goes wrong: what loses its name is read to its end.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from headrace.errors import NoSpace


class RoomTaken(NoSpace):
    """There would be room, were it not for what is read now."""

    code = "room_taken"


class TooLarge(NoSpace):
    """It would not fit if there were nothing else here."""

    code = "too_large"


def hold(file: BinaryIO) -> bool:
    """Share in its use, until it is closed; whether it still has a name. Waits while it is being taken away."""
    with suppress(OSError):
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)
    return os.fstat(file.fileno()).st_nlink > 0


def share(file: BinaryIO) -> None:
    """As `hold`, for who reads it in any case and must not wait."""
    with suppress(OSError):
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)


def hold_alone(path: Path) -> int | None:
    """A descriptor of a file that nobody reads and nobody begins to read until it is closed; None: somebody does.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be opened, or is a link.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        return fd  # there are no locks here, and nobody else has one
    return fd


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Be the only one, in all processes, that is at something; this file, made if there is none, stands for it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
