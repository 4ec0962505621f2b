"""Taking space before it is needed, and taking content over from another file."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

from headrace.ranges import Range, RangeSet
from headrace.store.cloning import clone, copy_run

_DEFAULT_MODE = 0
FLUSHED_BYTES = 64 * 1024 * 1024


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
    """Bring runs of one file to the same places of another, and onto the disk.

    `alive` is called every now and then, between pieces that any disk takes in less than others wait for a sign of
    life: what was only copied would be flushed at the end, which takes minutes for a large file. Raises `OSError`.
    """
    alive()
    if not clone(old, new):
        for run in runs:
            for start in range(run.start, run.stop, FLUSHED_BYTES):
                copy_run(old, new, Range(start, min(start + FLUSHED_BYTES, run.stop)), alive)
                alive()
                os.fdatasync(new)
    alive()


def _load_libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.restype = ctypes.c_int
    except (OSError, AttributeError, TypeError):
        return None
    return libc


_LIBC = _load_libc()
