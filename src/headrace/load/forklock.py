"""A lock of a program that may fork: another thread may have it at that moment, and the child has no such thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager


class ForkLock:
    """A lock that a forked child has anew. It lives as long as the program."""

    def __init__(self, kind: Callable[[], AbstractContextManager[bool]] = threading.Lock) -> None:
        """`kind` makes one: `threading.RLock`, where who has it may take it again."""
        self._kind = kind
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def held(self) -> AbstractContextManager[bool]:
        """The lock of this process: who has it while it forks lets go of that very one."""
        return self._lock

    def _renew(self) -> None:
        self._lock = self._kind()
