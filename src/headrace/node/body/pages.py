"""What of a file is in memory already, and the rest brought there by whoever may wait for a disk.

The probe is preadv2(2) with RWF_NOWAIT, which fails where it would have to wait. Many file systems do not know it
(FUSE, NFS, tmpfs): of them nothing is ever said to be in memory, so that all of it is read by threads.
"""

from __future__ import annotations

import os
from typing import BinaryIO

READ_BYTES = 256 * 1024
"""Read at once by a thread, and held by us until the client has taken it."""

_BROUGHT_BYTES = 2 * 1024 * 1024  # by a thread at once, and held by the kernel
_PROBED_EVERY = 512 * 1024  # each look costs what sending 16 KiB costs; files come and go in large pieces
_LOOKS = 32  # at a file that another process sends
_AHEAD_BYTES = 16 * 1024 * 1024  # so much on its way from a disk keeps it at work
_ADVISED_BYTES = 512 * 1024  # of more at once the kernel reads only a part


class Pages:
    """A file as it is read from front to back for one client."""

    def __init__(self, file: BinaryIO) -> None:
        self._number = file.fileno()
        self._probe = bytearray(1)
        self._brought = 0
        self._advised = 0
        self.are_known = True
        """Whether the file system says what is in memory; believed until it does not."""
        # All reading ahead is done by threads: the kernel's own is begun by whoever sends, and can make it wait.
        os.posix_fadvise(self._number, 0, 0, os.POSIX_FADV_RANDOM)

    def warm(self, position: int, stop: int) -> int:
        """Up to where, from `position`, bytes are in memory, as far as a byte here and there tells. Never waits."""
        if position < self._brought:
            return min(stop, self._brought)
        if position < self._advised:
            return position  # on its way from the disk, and not always in order: looks would tell nothing
        return self._seen(position, stop)

    def seem_warm(self, size: int) -> bool:
        """Whether all of a file of this size is in memory, as far as a few bytes here and there tell. Never waits."""
        last = size - 1
        return all(self._is_warm(last * number // _LOOKS) for number in range(_LOOKS + 1))

    def at_hand(self, position: int, stop: int) -> bytes | None:
        """These bytes, if all are in memory. Never waits."""
        buffer = bytearray(stop - position)
        try:
            count = os.preadv(self._number, [buffer], position, os.RWF_NOWAIT)
        except OSError:
            return None
        return bytes(buffer) if count == len(buffer) else None

    def bring(self, position: int, stop: int) -> int:
        """Get bytes from `position` on into memory, while the disk goes on with what follows; up to where is the answer.

        For threads. The answer is `position` where the file ends there.
        """
        self._advise(position, stop)
        at, end = position, min(stop, position + _BROUGHT_BYTES)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            while at < end and (count := os.sendfile(nowhere, self._number, at, end - at)):
                at += count
        finally:
            os.close(nowhere)
        self._brought = at
        return at

    def read(self, position: int, stop: int) -> bytes:
        """Bytes from `position` on, at most `READ_BYTES`, while the disk goes on with what follows. For threads."""
        self._advise(position, stop)
        return os.pread(self._number, min(stop - position, READ_BYTES), position)

    def _advise(self, position: int, stop: int) -> None:
        self._advised = max(self._advised, position)
        end = min(stop, position + _AHEAD_BYTES)
        if self._advised > position and self._seen(self._advised, end) == end:
            return  # what comes now is in memory: no more threads are needed for it
        while self._advised < end:
            os.posix_fadvise(self._number, self._advised, _ADVISED_BYTES, os.POSIX_FADV_WILLNEED)
            self._advised = min(stop, self._advised + _ADVISED_BYTES)

    def _seen(self, position: int, stop: int) -> int:
        at = position
        if not self._is_warm(at):
            return position
        while at < stop:
            # Both ends of a piece: while somebody else reads it, its beginning is there first.
            following = min(stop, at + _PROBED_EVERY)
            if not self._is_warm(min(following, stop - 1)):
                return at
            at = following
        return stop

    def _is_warm(self, position: int) -> bool:
        if not self.are_known:
            return False
        try:
            return os.preadv(self._number, [self._probe], position, os.RWF_NOWAIT) > 0
        except BlockingIOError:
            return False
        except OSError:
            self.are_known = False
            return False
