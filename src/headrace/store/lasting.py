"""Names that outlast a loss of power: a file's content is synced by its descriptor, its name by its folder's."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

SETTLE_S = 0.5
"""How long the names of small files may be without it: a sync for each of a thousand would outlast their fetching."""

_CANNOT = (errno.EINVAL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EBADF, errno.EOPNOTSUPP)
_FOLDERS_MOST = 64


def settle(folder: Path) -> None:
    """Make the names in a folder outlast a loss of power, and the names that lead to it. Raises `OSError`.

    Where a file system cannot do that for folders (some in user space), nothing is done.
    """
    _sync(folder)
    _settle_above(folder)


class Settling:
    """Folders whose newest names may be lost with the power, since that costs little."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Know of none, as a forked child does: its parent settles what it noted, and may have been at it just then."""
        self._lock = threading.Lock()
        self._folders: set[Path] = set()
        self._settled_at = float("-inf")

    def add(self, folder: Path) -> None:
        """Note that a name came into a folder; settle all that were noted if it is time.

        Raises `OSError` for this folder alone: what another's disk does is told to whoever ends there.
        """
        now = time.monotonic()
        with self._lock:
            self._folders.add(folder)
            if now - self._settled_at < SETTLE_S and len(self._folders) < _FOLDERS_MOST:
                return
            self._settled_at = now
        failed = self._settle_all()
        error = failed.pop(folder, None)
        with self._lock:
            self._folders.update(failed)
        if error is not None:
            raise error

    def settle(self) -> None:
        """Settle all that were noted. Raises the first `OSError`; the others are settled all the same."""
        for error in self._settle_all().values():
            raise error

    def _settle_all(self) -> dict[Path, OSError]:
        with self._lock:
            folders, self._folders = self._folders, set()
        failed = {}
        for folder in folders:
            try:
                settle(folder)
            except OSError as error:  # noqa: PERF203  # at most 64
                failed[folder] = error
        return failed


SETTLING = Settling()
"""Shared by all that is published in this process: whoever ends last settles for all."""
os.register_at_fork(after_in_child=SETTLING.begin)


def _settle_above(folder: Path) -> None:
    """Settle the names of a folder and of those above it; each once, since folders are rarely made anew."""
    with suppress(OSError):
        facts = folder.stat()
        while folder != folder.parent:
            this, above = (facts.st_dev, facts.st_ino), folder.parent.stat()
            if this in _settled or above.st_dev != facts.st_dev:
                return
            _sync(folder.parent)
            _settled.add(this)
            folder, facts = folder.parent, above


_settled: set[tuple[int, int]] = set()
"""Device and inode of folders whose own names are settled."""


def _sync(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # it may be written but not read; or it is gone, and its names with it
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(fd)
