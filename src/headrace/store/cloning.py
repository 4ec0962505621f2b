"""Content of one file in another: shared blocks where the file system can (reflink), else copied bytes."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.ranges import Range
from headrace.store.disk import scratch, write_all

_FICLONE = 0x40049409  # linux/fs.h: the new file shares all blocks of the old one
_PIECE_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def clone(source: int, target: int) -> bool:
    """Let `target` be all of `source`, without moving a byte; False where that is not possible.

    Raises `OSError` where it is, and the disk is full or failing.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _FATAL:
            raise
        return False
    return True


def can_clone(source: Path, folder: Path) -> bool:
    """Whether a copy in this folder would take no room: tried. What cannot be tried is taken for no."""
    fresh = scratch(folder, "copy")
    try:
        with source.open("rb") as file, fresh.open("xb") as target:
            return clone(file.fileno(), target.fileno())
    except OSError:
        return False
    finally:
        with suppress(OSError):
            fresh.unlink()


def copy_run(source: int, target: int, run: Range, alive: Callable[[], None]) -> None:
    """Copy the bytes of a run to the same place in another file; `alive` is called every 16 MiB. Raises `OSError`."""
    position, by_kernel = run.start, hasattr(os, "copy_file_range")
    while position < run.stop:
        alive()
        most = min(_PIECE_BYTES, run.stop - position)
        if by_kernel:
            try:
                count = os.copy_file_range(source, target, most, position, position)
            except OSError as error:
                if error.errno in _FATAL:
                    raise
                by_kernel = False
                continue
        else:
            data = os.pread(source, min(most, _CHUNK_BYTES), position)
            write_all(target, data, at=position)
            count = len(data)
        if not count:
            raise OSError(errno.EIO, "it is shorter than it was")
        position += count
