"""A partial: the one preallocated file a blob's bytes land in, until it is renamed to its final name.

Lanes write, hashers read, one owner keeps the journal and publishes. Nothing is merged or copied; nothing is
under a final name before its digest matched.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
from contextlib import suppress
from pathlib import Path

from headrace.errors import Locked
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.ranges import Range, RangeSet
from headrace.store.disk import scratch, storing
from headrace.store.journal import Journal, JournalHeader, read_journal
from headrace.store.lease import Lease, boot_id

JOURNALLED_FROM_BYTES = 4 * 1024 * 1024
"""Smaller blobs have no journal: a kill may cost up to 4 MiB a lane anyway, and a thousand small files are fast."""

_DEFAULT_MODE = 0
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Partial:
    """An open partial, held by a lease.

    Attributes:
        have: the bytes that were here when it was opened.
    """

    def __init__(self, layout: WorkshopLayout, size: int, lease: Lease) -> None:
        """Open the partial of a former holder where that is safe, else begin one.

        Raises:
            NoSpace: the file system cannot hold it.
        """
        self.path = layout.partial
        self.size = size
        self._layout = layout
        self._lease = lease
        self.have = RangeSet()
        self._journal: Journal | None = None
        with storing(self.path):
            if not lease.inherited:
                self.path.unlink(missing_ok=True)
            self._fd = self._open()
            try:
                is_former = self._preallocate()
                if size >= JOURNALLED_FROM_BYTES:
                    header = JournalHeader(str(layout.digest), size, os.fstat(self._fd).st_ino, boot_id())
                    self.have = read_journal(layout.journal, header) if is_former else RangeSet()
                    self._journal = Journal(layout.journal, header, self.have)
            except BaseException:
                os.close(self._fd)
                raise

    def __repr__(self) -> str:
        return f"<Partial {self._layout.digest.hex[:12]} {self.have.total}/{self.size}>"

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`. For any thread.

        Raises:
            NoSpace, StoreError: the disk did not take it.
        """
        with storing(self.path):
            while data:
                count = os.pwrite(self._fd, data, offset)
                data, offset = data[count:], offset + count

    def readinto(self, buffer: memoryview, offset: int) -> int:
        """Read what is at `offset`; how many bytes is the answer. For any thread."""
        with storing(self.path):
            return os.preadv(self._fd, [buffer], offset)

    def landed(self, arrived: Range) -> None:
        """Record bytes that were written. For the owner."""
        if self._journal is not None:
            with storing(self._layout.journal):
                self._journal.landed(arrived)

    def forget(self, ranges: RangeSet) -> None:
        """Record that these bytes are not believed any more. For the owner."""
        if self._journal is not None:
            with storing(self._layout.journal):
                self._journal.forgotten(ranges)

    def beat(self, now: float) -> None:
        """Keep the lease alive. For the owner, on every tick."""
        self._lease.beat(now)

    def publish(self, final: Path) -> None:
        """Give the file its final name, its bytes safely on disk before. The caller has verified them.

        Raises:
            Locked: another process took the blob over.
            StoreError: the disk refused.
        """
        with storing(final):
            os.fdatasync(self._fd)
            final.parent.mkdir(parents=True, exist_ok=True)
            self._rename(final)
        self._forget_all()
        self.close()

    def close(self) -> None:
        """Keep what has landed for the next time and let others have the blob."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with suppress(
            OSError
        ):  # some file systems tell of a failed write only now; the digest will tell, too
            os.close(fd)
        if self._journal is not None:
            self._journal.close()
        self._lease.release()

    def drop(self) -> None:
        """Close, and keep nothing."""
        self._forget_all()
        self.close()

    def _open(self) -> int:
        """Open the file, or a fresh one in place of what has been published: its holder died before the unlinking."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, 0o666)
        except PermissionError:  # another user's, who shares the folder
            self.path.unlink()
            fd = os.open(self.path, flags, 0o666)
        if os.fstat(fd).st_nlink > 1:
            for link in self._layout.folder.glob(f"{self.path.name}.*"):
                link.unlink(missing_ok=True)
            if os.fstat(fd).st_nlink > 1:
                os.close(fd)
                self.path.unlink()
                fd = os.open(self.path, flags, 0o666)
        return fd

    def _rename(self, final: Path) -> None:
        """Give our inode its final name: by now there may be another under the partial's, of who took over.

        Only a second link tells for sure which one it is that is renamed, however long we sleep in between.
        """
        mine = scratch(self._layout.folder, self.path.name)
        try:
            os.link(self.path, mine)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            mine = self.path
        try:
            if not (self._lease.still_held() and os.path.samestat(mine.stat(), os.fstat(self._fd))):
                raise Locked(f"another process took over {final.name} while this one was paused")
            mine.replace(final)
        finally:
            if mine != self.path:
                mine.unlink(missing_ok=True)

    def _forget_all(self) -> None:
        """Remove partial and journal, unless they are somebody else's by now."""
        with suppress(OSError):  # they are a hint, no more
            if self._lease.still_held():
                self.path.unlink(missing_ok=True)
                self._layout.journal.unlink(missing_ok=True)

    def _preallocate(self) -> bool:
        """Take the space now, so that a full disk is found out before the first byte and not at 99 %.

        Whether it had been taken before is the answer: a file of another size is none of ours, or was harmed.
        """
        is_former = os.fstat(self._fd).st_size == self.size
        if not is_former:
            os.ftruncate(self._fd, 0)
        try:
            if self.size and not _fallocate(self._fd, self.size):
                os.ftruncate(self._fd, self.size)
        except OSError:
            if not is_former:
                os.ftruncate(self._fd, 0)  # a failed attempt may have taken all there was
            raise
        return is_former


def claim_partial(workshop: Path, digest: Digest, size: int, lease: Lease) -> Partial:
    """The partial of a blob whose lease was acquired; the lease is released if it cannot be opened."""
    try:
        return Partial(WorkshopLayout(workshop, digest), size, lease)
    except BaseException:
        lease.release()
        raise


def landed_bytes(layout: WorkshopLayout, size: int) -> int:
    """How many bytes of somebody's partial its journal vouches for."""
    try:
        inode = layout.partial.stat().st_ino
    except OSError:
        return 0
    return read_journal(layout.journal, JournalHeader(str(layout.digest), size, inode, boot_id())).total


def _fallocate(fd: int, size: int) -> bool:
    """Reserve space for real. Python offers only posix_fallocate, whose emulation in glibc writes every block."""
    if _LIBC is None:
        return False
    while _LIBC.fallocate(fd, _DEFAULT_MODE, ctypes.c_longlong(0), ctypes.c_longlong(size)) != 0:
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def _load_libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6", use_errno=True)
        libc.fallocate.restype = ctypes.c_int
    except (OSError, AttributeError):
        return None
    return libc


_LIBC = _load_libc()
