"""A process beside another: it works while that one lives, and ends with it, whatever that one becomes by exec.

It is nobody's child, so that the other never hears of its end, and holds nothing of the other's open but standard
error. It stays in the other's process group: what stops or continues a job of a shell stops and continues it, too.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Protocol

from headrace.cli.words import safe
from headrace.wire import redacted

_FAREWELL_S = 3.0  # what hangs longer is a disk, and the journal has the rest
_LOOK_S = 0.2
_ENDS_AT = 3  # the descriptor that says when the other has ended
_DESCRIPTORS_MOST = 65536


class Work(Protocol):
    """What is done beside a process."""

    def run(self) -> None:
        """Do it."""

    def stop(self) -> None:
        """End it in order. On another thread."""


def beside_this_process(work: Work) -> None:
    """Do the work in a process of its own, until it is done or this process has ended. Returns at once.

    To be called before there are threads. Raises `OSError` where no process can be made.
    """
    other = os.getpid()
    end = _end_of(other)  # opened before anybody could take its number
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        if end is not None:
            os.close(end)
        return
    try:
        if os.fork() == 0:
            _become_alone(end)
            threading.Thread(target=_end_with, args=(other, end is not None, work), daemon=True).start()
            work.run()
    except BaseException as error:  # noqa: BLE001  # above is the command's own code, which must not go on twice
        with suppress(OSError):
            why = safe(redacted(repr(error)))
            os.write(2, f"headrace: what was to be done beside the command failed: {why}\n".encode())
    finally:
        os._exit(0)


def _end_of(process: int) -> int | None:
    """A descriptor that is readable once the process has ended; None where there is no such thing (Linux before 5.3)."""
    if sys.platform != "linux":
        return None
    with suppress(OSError):
        return os.pidfd_open(process)
    return None


def _become_alone(end: int | None) -> None:
    # Ctrl-C and Ctrl-\ reach all that a terminal has in front; the command says what comes of it.
    for ignored in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # who reads the command's output would wait for our end, too
    if end is not None and end != _ENDS_AT:
        os.dup2(end, _ENDS_AT)
    first = _ENDS_AT if end is None else _ENDS_AT + 1
    os.closerange(first, min(os.sysconf("SC_OPEN_MAX"), _DESCRIPTORS_MOST))


def _end_with(other: int, is_told: bool, work: Work) -> None:  # noqa: FBT001  # of a thread's arguments none has a name
    if is_told:
        select.select([_ENDS_AT], [], [])
    else:
        while _lives(other):
            time.sleep(_LOOK_S)
    os.dup2(0, 2)  # who reads the command's errors waits for nobody else
    work.stop()
    time.sleep(_FAREWELL_S)
    os._exit(0)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it has another user by now
    return True
