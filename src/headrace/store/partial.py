"""A partial: the one preallocated file a blob's bytes land in, until it is renamed to its final name.

Lanes write, hashers read, one owner keeps the journal and publishes. Nothing is merged or copied; nothing is
under a final name before its digest matched.

The file of a holder that is certainly dead is worked on further. One that was only silent might wake up and write:
what it had recorded is taken over into a file of our own, and only its name is lost to it. So it is where somebody may
have read the file for good (`partly.py`): bytes that landed there are never written over.

What a loss of power leaves: records that were followed by a SYNC, begun every `SYNC_EVERY_S`. Content is on disk
before it has its final name, and the name before partial and journal are forgotten.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from headrace.errors import Locked, NoSpace, StoreError
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.ranges import Range, RangeSet
from headrace.store.disk import scratch, storing, write_all
from headrace.store.journal import Journal, JournalHeader, Vouched, inode_in, read_journal
from headrace.store.lasting import SETTLING, settle
from headrace.store.lease import Lease, boot_id
from headrace.store.partly import is_lent, taken_off
from headrace.store.reserving import reserve, take_over
from headrace.store.retraction import end_retraction, retracting

JOURNALLED_FROM_BYTES = 4 * 1024 * 1024
"""Smaller blobs have no journal: a kill may cost up to 4 MiB a lane anyway, and a thousand small files are fast."""

SYNC_EVERY_S = 0.5
"""What landed is safe from a loss of power after this and the time a sync takes: within a second, the design says."""

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Partial:
    """An open partial, held by a lease.

    Attributes:
        have: the bytes that were here when it was opened.
    """

    def __init__(
        self, layout: WorkshopLayout, size: int, lease: Lease, alive: Callable[[], None] = lambda: None
    ) -> None:
        """Open the partial of a former holder where that is safe, else begin one with what it had recorded.

        May take as long as copying that; the lease is kept alive meanwhile. `alive` is called now and then, and may
        raise to have it end.

        Raises:
            NoSpace: the file system cannot hold it.
            Locked: another process took the blob over while this one was paused.
        """
        self.path = layout.partial
        self.size = size
        self._layout = layout
        self._lease = lease
        self._alive = alive
        self._journal: Journal | None = None
        self._writing = threading.RLock()  # the kernel writes a file one by one, and who waits there spins
        self._syncing = threading.RLock()  # a sync and the end of the file exclude one another
        self._asked_at = time.monotonic()
        self._settled = self._distrusted = False
        self.have = RangeSet()
        with storing(self.path):
            try:
                self._fd = self._begin() if size < JOURNALLED_FROM_BYTES else self._open()
            except OSError:
                self._mine()  # whoever takes over tidies up: what failed may be that
                raise
        lease.succeed()

    def __repr__(self) -> str:
        return f"<Partial {self._layout.digest.hex[:12]} {self.have.total}/{self.size}>"

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`. For any thread.

        Raises:
            NoSpace, StoreError: the disk did not take it.
        """
        with storing(self.path), self._writing:
            write_all(self._fd, data, at=offset)

    def take(self, pipe: int, count: int, offset: int) -> None:
        """Write `count` bytes that are in a pipe at `offset`. For any thread. Raises as `write`."""
        with storing(self.path), self._writing:
            while count:
                try:
                    moved = os.splice(pipe, self._fd, count, offset_dst=offset)
                except OSError as error:
                    if error.errno not in _NO_SPLICE:
                        raise
                    data = os.read(pipe, count)
                    self.write(memoryview(data), offset)
                    moved = len(data)
                count, offset = count - moved, offset + moved

    def readinto(self, buffer: memoryview, offset: int) -> int:
        """Read what is at `offset`; how many bytes is the answer. For any thread."""
        with storing(self.path):
            return os.preadv(self._fd, [buffer], offset)

    def landed(self, arrived: Range) -> None:
        """Record bytes that were written. For the owner."""
        if self._journal is not None:
            with storing(self._layout.journal):
                self._journal.landed(arrived)

    def forget(self, ranges: RangeSet, *, refuted: bool = False) -> None:
        """Record that these bytes are not believed any more. For the owner.

        Where somebody may have read the file for good, it stays as it is and this goes on in another. That takes as long
        as copying it; not for what was `refuted`, every block of it, by a list that readers go by, too.

        Raises:
            NoSpace: the file system cannot hold both.
            Locked: another process took the blob over. Nobody would hear that what was read of this file is not to be
                believed, and in the end only what stands here by then is compared.
        """
        if self._journal is not None:
            with storing(self._layout.journal):
                self._mine()
                # Who settles for what it read leaves the note, then looks for the word: one of us sees the other's.
                with retracting(self._layout) as end:
                    if is_lent(self._layout) and not refuted:
                        self._leave(self._journal, ranges, end)
                    else:
                        self._journal.forgotten(ranges)

    def beat(self, now: float) -> None:
        """Keep the lease alive. For the owner, on every tick."""
        self._lease.beat(now)

    def wants_sync(self, now: float) -> bool:
        """Whether it is time for a `sync`; asked for once each time. For the owner, on every tick."""
        if self._journal is None or not self._journal.unsynced or now - self._asked_at < SYNC_EVERY_S:
            return False
        self._asked_at = now
        return True

    def sync(self) -> None:
        """Make what has landed outlast a loss of power. For any thread: it may take its time.

        Raises:
            Locked: another process took the blob over.
            StoreError: the disk failed, and may have lost what it had taken: no record since the last time is
                trusted any more, and this file cannot be published.
        """
        with self._syncing:
            if self._journal is None or self._fd < 0 or self._distrusted:
                return
            with storing(self.path):
                self._mine()  # who was taken over need not fetch the rest
            mark = self._journal.mark()
            try:
                with storing(self.path):
                    os.fdatasync(self._fd)
                    if not self._settled:
                        settle(self._layout.folder)
                        self._settled = True
                    self._journal.synced(mark)
            except StoreError:
                self._distrust()
                raise

    def publish(self, final: Path) -> os.stat_result:
        """Give the file its final name, its bytes safely on disk before. The caller has verified them.

        The facts of this very file are the answer: by now its name may mean another one.

        Raises:
            Locked: another process took the blob over.
            StoreError: the disk refused.
        """
        with self._syncing:
            if self._distrusted:
                raise StoreError(f"cannot publish {final}: the disk failed to keep what it was given")
            try:
                with storing(final):
                    os.fdatasync(self._fd)
            except StoreError:
                self._distrust()
                raise
            with storing(final):
                final.parent.mkdir(parents=True, exist_ok=True)
                self._rename(final)
                if self._journal is None:
                    SETTLING.add(final.parent)
                else:
                    settle(final.parent)
            facts = os.fstat(self._fd)
            self._forget_all()
            self.close()
            return facts

    def close(self) -> None:
        """Keep what has landed for the next time and let others have the blob."""
        with self._syncing:
            fd, self._fd = self._fd, -1
            if fd < 0:
                return
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

    # Opening

    def _open(self) -> int:
        """A file with a journal: the former one, or one of our own that has what the former had."""
        self._tidy()
        if self._lease.inherited and not is_lent(self._layout):
            fd = self._reopen()
            if fd is not None:
                return fd
        try:
            return self._replace(self._former())
        except NoSpace:
            # What a holder that is gone had recorded is kept: with more space it is gone on with.
            is_kept = self._lease.inherited and landed_bytes(self._layout, self.size)
            if is_kept or not self.path.exists():
                raise
            # Both do not fit. If its holder is dead, the former one's space is free once it has no name.
            self._mine().unlink()
            return self._replace(None)

    def _begin(self) -> int:
        """An empty file under the partial's name."""
        self._mine().unlink(missing_ok=True)
        fd = os.open(self.path, _NEW, 0o666)
        try:
            self._preallocate(fd)
        except BaseException:
            os.close(fd)
            self.path.unlink(missing_ok=True)
            raise
        return fd

    def _reopen(self) -> int | None:
        """The former file, if it is recorded, as it was left and nobody's published one: for us alone to write to."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None  # there is none, or it is another user's
        try:
            facts = os.fstat(fd)
            is_plain = stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1
            vouched = read_journal(self._layout.journal, self._header(fd))
            # Without a record all would be fetched again, into the very file that somebody may have read.
            if is_plain and facts.st_size == self.size and vouched.landed:
                self._preallocate(fd)
                self._record(fd, vouched)
                self.have = vouched.landed
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _former(self) -> int | None:
        """The former file, to read what it has."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        facts = os.fstat(fd)
        if stat.S_ISREG(facts.st_mode) and facts.st_size == self.size:
            return fd
        os.close(fd)
        return None

    def _replace(self, former: int | None) -> int:
        """A new file in place of the former one, with the content that is recorded of that."""
        try:
            with self._fresh() as fd:
                vouched = Vouched()
                runs = RangeSet()
                if former is not None:
                    runs = read_journal(self._layout.journal, self._header(former)).landed
                if former is not None and runs:
                    with suppress(OSError):  # what cannot be read there is fetched
                        take_over(former, fd, runs, self._still_alive)
                        self._preallocate(fd)
                        os.fdatasync(fd)
                        vouched = Vouched(runs, runs)
                self._record(fd, vouched)
                if vouched.landed:
                    settle(self._layout.folder)
                self.have = vouched.landed
        finally:
            if former is not None:
                os.close(former)
        return fd

    @contextmanager
    def _fresh(self) -> Iterator[int]:
        """A new file that is filled and recorded in here, and then has the name of the former one.

        The journal has its name first: whoever comes after a kill in between finds the file by its inode. The note about
        the former one goes before the new one is seen: one that is left from then on is about that.
        """
        fresh, before = scratch(self._layout.folder, self.path.name), self._journal
        fd = os.open(fresh, _NEW, 0o666)
        try:
            self._preallocate(fd)
            yield fd
            mine = self._mine()
            with taken_off(self._layout):
                fresh.replace(mine)
        except BaseException:
            if self._journal is not None and self._journal is not before:
                self._journal.close()
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise

    def _leave(self, journal: Journal, doubted: RangeSet, unsay: Callable[[], None]) -> None:
        """Go on in a file of our own that has all of this one but the bytes that are doubted.

        Lanes write meanwhile, and tell of it later: so nothing is written before all that was is copied, recorded or not.
        """
        everything = RangeSet([Range(0, self.size)])
        for one in doubted:
            everything.remove(one)
        with self._syncing, self._writing:
            try:
                with storing(self.path), self._fresh() as fd:
                    take_over(self._fd, fd, everything, lambda: self._lease.beat(time.monotonic()))
                    self._preallocate(fd)
                    os.fdatasync(fd)
                    known = journal.vouched.landed
                    for one in doubted:
                        known.remove(one)
                    self._record(fd, Vouched(known, known))
                    settle(self._layout.folder)
            except BaseException:
                self._stay(journal)
                with suppress(OSError, StoreError):
                    unsay()
                raise
            os.dup2(fd, self._fd, inheritable=False)  # who reads meanwhile has the one or the other
            os.close(fd)
            journal.close()

    def _stay(self, journal: Journal) -> None:
        """Keep to this file after all: its journal may have lost its name to that of one that came to nothing."""
        with suppress(OSError, StoreError):
            if self._journal is not journal:
                journal.close()
                self._record(self._fd, journal.vouched)

    def _still_alive(self) -> None:
        self._alive()
        self._lease.beat(time.monotonic())

    def _record(self, fd: int, vouched: Vouched) -> None:
        """Begin the journal of a file; not of one whose name has come to mean that of who took over."""
        self._mine()
        self._journal = Journal(self._layout.journal, self._header(fd), vouched)
        end_retraction(self._layout)

    def _header(self, fd: int) -> JournalHeader:
        return JournalHeader(str(self._layout.digest), self.size, os.fstat(fd).st_ino, boot_id())

    def _tidy(self) -> None:
        """Finish or undo what a killed holder was about: a second link while publishing, a copy while taking over."""
        partial, journal = f"{self.path.name}.", f"{self._layout.journal.name}."
        strays = [path for path in self._layout.folder.iterdir() if path.name.startswith((partial, journal))]
        if not strays:
            return
        self._mine()
        recorded = inode_in(self._layout.journal)
        for stray in strays:
            with suppress(OSError):
                here = self.path.stat().st_ino if self.path.exists() else None
                if stray.name.startswith(partial) and stray.lstat().st_ino == recorded != here:
                    stray.replace(self._mine())
                else:
                    stray.unlink()

    def _mine(self) -> Path:
        """The partial's name, for doing something to it: not after it has come to belong to somebody else."""
        if not self._lease.still_held():
            raise Locked(f"another process took over {self.path.name} while this one was paused")
        return self.path

    def _preallocate(self, fd: int) -> None:
        """Take the space now, so that a full disk is found out before the first byte and not at 99 %."""
        with storing(self.path):
            if self.size and not reserve(fd, self.size):
                os.ftruncate(fd, self.size)

    # The end

    def _rename(self, final: Path) -> None:
        """Give our inode its final name: by now there may be another under the partial's, of who took over.

        Only under a name that nobody else uses it is certain which one is renamed, however long we sleep in between.
        """
        mine = scratch(self._layout.folder, self.path.name)
        is_moved = self._set_aside(mine)
        try:
            if not (self._lease.still_held() and os.path.samestat(mine.stat(), os.fstat(self._fd))):
                raise Locked(f"another process took over {final.name} while this one was paused")
            mine.replace(final)
        finally:
            with suppress(OSError):
                if is_moved and not os.path.lexists(self.path):
                    mine.rename(self.path)  # it was not to be published, or not ours
                else:
                    mine.unlink()

    def _set_aside(self, mine: Path) -> bool:
        """Give what has the partial's name one that nobody else uses; where there are no links, only that (True)."""
        try:
            os.link(self.path, mine)
        except OSError as error:
            self._mine()
            if error.errno not in _NO_HARD_LINKS:
                raise
            self.path.rename(mine)
            return True
        return False

    def _distrust(self) -> None:
        self._distrusted = True
        if self._journal is None:
            return
        try:
            with self._retracting():
                self._journal.distrust()
        except OSError:
            with suppress(OSError):
                if self._lease.still_held():
                    self._layout.journal.unlink(missing_ok=True)

    def _retracting(self) -> AbstractContextManager[object]:
        """Leave word for who may have read what is about to be forgotten: not for those of who took over."""
        return retracting(self._layout) if self._lease.still_held() else nullcontext()

    def _forget_all(self) -> None:
        """Remove partial and journal, unless they are somebody else's by now."""
        with suppress(OSError):  # they are a hint, no more
            if self._lease.still_held():
                self.path.unlink(missing_ok=True)
                self._layout.journal.unlink(missing_ok=True)
                self._layout.partly.unlink(missing_ok=True)


def claim_partial(
    workshop: Path, digest: Digest, size: int, lease: Lease, alive: Callable[[], None] = lambda: None
) -> Partial:
    """The partial of a blob whose lease was acquired; the lease is released if it cannot be opened. See `Partial`."""
    try:
        return Partial(WorkshopLayout(workshop, digest), size, lease, alive)
    except BaseException:
        lease.release()
        raise


def landed_bytes(layout: WorkshopLayout, size: int) -> int:
    """How many bytes of somebody's partial its journal vouches for."""
    try:
        inode = layout.partial.stat().st_ino
    except OSError:
        return 0
    expected = JournalHeader(str(layout.digest), size, inode, boot_id())
    return read_journal(layout.journal, expected).landed.total
