"""An onlooker: reads a partial that somebody else writes, in this process or in any other.

What the journal vouches for is in the page cache, and may be read through whichever name or descriptor. A file that
is replaced, by who took over from a silent holder, is another file: what was read of the former one has yet to be
compared with what is published in the end. Bytes that were forgotten leave a retraction behind, which outlives journal
and partial (`retraction.py`).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from headrace.layout import WorkshopLayout
from headrace.ranges import Range, RangeSet
from headrace.store.disk import storing
from headrace.store.journal import JournalHeader, Tail
from headrace.store.lease import boot_id
from headrace.store.partly import lend
from headrace.store.retraction import is_begun, retraction

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DESCRIPTORS = Path("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")  # noqa: PTH112


class OpenFile:
    """A file that stays the same one whatever becomes of its name; closed when nobody has it any more."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self._fd)

    def __repr__(self) -> str:
        return f"<OpenFile {self._fd}>"

    @classmethod
    def at(cls, path: Path) -> OpenFile:
        """The file of this name, through links, too. Raises `OSError`."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def path(self) -> Path:
        """A name under which this process can open it, as long as this object lives."""
        return _DESCRIPTORS / str(self._fd)

    @property
    def size(self) -> int:
        """In bytes, now."""
        return self.facts.st_size

    @property
    def facts(self) -> os.stat_result:
        """What the file system says of it, now."""
        return os.fstat(self._fd)

    def is_same(self, other: OpenFile) -> bool:
        """Whether both are one file."""
        return os.path.samestat(os.fstat(self._fd), os.fstat(other._fd))

    def read(self, wanted: Range) -> bytes:
        """These bytes; fewer where the file ends before. Raises `OSError`."""
        return os.pread(self._fd, len(wanted), wanted.start)


class Onlooker:
    """What is to be seen of one unfinished blob. For one thread; nothing is written but the word that it is lent.

    Attributes:
        file: the partial that was there at the last look, under whichever name it is now; None before there was one.
        landed: what of it may be read.
        retracted: whether bytes that may have been read before are believed no more.
    """

    def __init__(self, layout: WorkshopLayout, size: int) -> None:
        self.file: OpenFile | None = None
        self.landed = RangeSet()
        self.retracted = False
        self._layout = layout
        self._size = size
        self._inode = 0
        self._tail: Tail | None = None
        self._word = self._accepted = retraction(layout)

    def look(self) -> None:
        """See what has changed: `landed` is what could be read before the last word that `retracted` tells of."""
        while True:
            before = self._word
            self._see()
            self._word = retraction(self._layout)
            if self._word == before:  # what was forgotten from here on, another word will tell
                break
        # One that was swept away, as nobody needs it any more, takes nothing back.
        self.retracted |= self._word not in ("", self._accepted) or is_begun(self._word)
        if not self.retracted and self._tail is not None:
            self._tail.taken_back = RangeSet()  # what nobody saw of its journal took nothing back

    @property
    def taken_back(self) -> RangeSet:
        """What of `file` was retracted since `accept`: all that it may be, where its journal was not seen in time."""
        return self._tail.taken_back if self._tail is not None else RangeSet()

    def accept(self) -> None:
        """Nothing was read so far: what was retracted before the last look is nobody's concern.

        Where somebody is about to retract, `retracted` stays as it is.
        """
        if not is_begun(self._word):
            self.retracted = False
            self._accepted = self._word
            if self._tail is not None:
                self._tail.taken_back = RangeSet()

    def lend(self) -> None:
        """Have `file` stay as it is: what was read of it is kept for good.

        Look once more after this: what is not retracted by then stands. Raises `StoreError`: nobody can be told.
        """
        with storing(self._layout.partly):
            lend(self._layout)

    def _see(self) -> None:
        with suppress(OSError):  # there is none yet, or none any more: what was seen stays readable
            facts = self._layout.partial.lstat()
            if facts.st_ino != self._inode and facts.st_size == self._size:
                self._open()
        if self._tail is not None:
            self.retracted |= self._tail.read()
            self.landed = self._tail.landed

    def _open(self) -> None:
        fd = os.open(self._layout.partial, _FLAGS)
        file, facts = OpenFile(fd), os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != self._size:
            return
        header = JournalHeader(str(self._layout.digest), self._size, facts.st_ino, boot_id())
        self.file, self._inode = file, facts.st_ino
        self._tail = Tail(self._layout.journal, header)
