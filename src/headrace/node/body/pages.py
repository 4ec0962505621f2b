"""What of a file is in memory already, and the rest read by whoever may wait for a disk.

The probe is preadv2(2) with RWF_NOWAIT, which fails where it would have to wait. Many file systems do not know it
(FUSE, NFS, tmpfs): of them nothing is ever said to be in memory, so that all of it is read by threads.
"""

from __future__ import annotations

import os
from typing import BinaryIO

READ_BYTES = 256 * 1024
"""Read at once by a thread, and held in memory until the client has taken it."""

_PROBED_EVERY = 256 * 1024  # what is read ahead comes and goes in pieces not much smaller
_AHEAD_BYTES = 8 * 1024 * 1024
_ADVISED_BYTES = 512 * 1024  # of more at once the kernel reads only a part


class Pages:
    """A file as it is read from front to back for one client."""

    def __init__(self, file: BinaryIO) -> None:
        self._number = file.fileno()
        self._probe = bytearray(1)
        self._tells = True
        self._advised = 0

    def warm(self, position: int, stop: int) -> int:
        """Up to where, from `position`, bytes are in memory, as far as a byte here and there tells. Never waits."""
        at = position
        while at < stop:
            if not self._is_warm(at):
                return at
            at = min(stop, at + _PROBED_EVERY)
        return stop if self._is_warm(stop - 1) else max(position, stop - _PROBED_EVERY)

    def at_hand(self, position: int, stop: int) -> bytes | None:
        """These bytes, if all are in memory. Never waits."""
        buffer = bytearray(stop - position)
        try:
            count = os.preadv(self._number, [buffer], position, os.RWF_NOWAIT)
        except OSError:
            return None
        return bytes(buffer) if count == len(buffer) else None

    def read(self, position: int, stop: int) -> bytes:
        """Bytes from `position` on, at most `READ_BYTES`, while the disk goes on with what follows. For threads."""
        self._advised = max(self._advised, position)
        while self._advised < min(stop, position + _AHEAD_BYTES):
            os.posix_fadvise(self._number, self._advised, _ADVISED_BYTES, os.POSIX_FADV_WILLNEED)
            self._advised += _ADVISED_BYTES
        return os.pread(self._number, min(stop - position, READ_BYTES), position)

    def _is_warm(self, position: int) -> bool:
        if not self._tells:
            return False
        try:
            return os.preadv(self._number, [self._probe], position, os.RWF_NOWAIT) > 0
        except BlockingIOError:
            return False
        except OSError:
            self._tells = False
            return False
