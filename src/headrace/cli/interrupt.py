"""Ctrl-C: the first stops in order, the second at once. SIGTERM counts as one, so services stop in order too."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""See `exits`, which is not imported here: what is answered at once begins with this module."""

_SHOW_CURSOR = b"\x1b[?25h\r\n"


@contextmanager
def in_two_stages() -> Iterator[None]:
    """While this holds, the first signal raises `KeyboardInterrupt` and the next ends the process.

    A signal that whoever started us had ignored (`nohup`, a background job of a script) stays ignored.
    """
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    ours = [one for one, handler in before.items() if handler is not signal.SIG_IGN]

    def first(*_: object) -> None:
        for one in ours:
            signal.signal(one, _end_at_once)
        raise KeyboardInterrupt

    for one in ours:
        signal.signal(one, first)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, before[one])


def _end_at_once(*_: object) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR)  # bars hide it, and will not come to show it again
    os._exit(INTERRUPTED)
