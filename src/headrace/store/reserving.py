"""Taking space before it is needed, and taking content over from another file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable

from headrace.ranges import Range, RangeSet

_DEFAULT_MODE = 0
_FICLONE = 0x40049409  # linux/fs.h: the new file shares all blocks of the old one
_PIECE_BYTES = 16 * 1024 * 1024


def reserve(fd: int, size: int) -> bool:
    """Take space for real, where the file system has a call for it: else False.

    Python offers only posix_fallocate, whose emulation in glibc writes every block. Raises `OSError`.
    """
    if _LIBC is None:
        return False
    while _LIBC.fallocate(fd, _DEFAULT_MODE, ctypes.c_longlong(0), ctypes.c_longlong(size)) != 0:
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def take_over(old: int, new: int, runs: RangeSet, alive: Callable[[], None]) -> None:
    """Copy runs of one file to the same places of another: without moving bytes where the file system can.

    `alive` is called every now and then. Raises `OSError`.
    """
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError:
        for run in runs:
            _copy(old, new, run, alive)


def _copy(old: int, new: int, run: Range, alive: Callable[[], None]) -> None:
    position, by_kernel = run.start, hasattr(os, "copy_file_range")
    while position < run.stop:
        alive()
        most = min(_PIECE_BYTES, run.stop - position)
        if by_kernel:
            try:
                count = os.copy_file_range(old, new, most, position, position)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
                by_kernel = False
                continue
        else:
            count = os.pwrite(new, os.pread(old, min(most, 1 << 20), position), position)
        if not count:
            raise OSError(errno.EIO, "it is shorter than what was recorded of it")
        position += count


def _load_libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.restype = ctypes.c_int
    except (OSError, AttributeError, TypeError):
        return None
    return libc


_LIBC = _load_libc()
