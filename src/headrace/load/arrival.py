"""A file on its way to this disk, read where it has landed.

Theory of operation. Somebody brings the file: a process of our own, or another's that was there first. Here it is only
looked on. A range may be read when the whole pages it lies in have landed: a tensor is a view of a private mapping, and
whoever writes to it gets a copy of its pages, in which nothing arrives any more. Under a trusted block list a range
may be read when the blocks it lies in match. Without one nothing is certain before the whole was verified, so
`settle` comes before anybody may rely on what was read, and says whether that was what is published.
"""

from __future__ import annotations

import hashlib
import mmap
import threading
import time
from pathlib import Path
from typing import Protocol

from headrace.blocklist import BlockList, block_at
from headrace.errors import DigestMismatch, StoreError
from headrace.load.progress import Progress
from headrace.manifest import Entry
from headrace.ranges import Range, RangeSet
from headrace.store.onlooker import Onlooker, OpenFile
from headrace.wire import BLOCK_BYTES

_LOOK_S = 0.004  # how often it is looked what has landed, while somebody waits for it
_WISH_S = 0.05  # what has not come by then does not come by itself
_DOUBT_S = 0.2  # how often a block that is wrong is looked at again
_PIECE_BYTES = 1024 * 1024


class Carrier(Protocol):
    """Who sees to it that files arrive. For any thread."""

    def check(self) -> None:
        """See what it has to tell.

        Raises:
            HeadraceError: nothing will arrive any more, and why.
        """

    def verified(self, entry: Entry) -> Path | None:
        """Where the file is in place and verified; None while it is not."""

    def blocks(self, entry: Entry) -> BlockList | None:
        """What its blocks hash to, on the trusted source's word; None where nobody said."""

    def wish(self, entry: Entry, wanted: Range) -> None:
        """Somebody waits for these bytes: they had better come first."""

    def doubt(self, entry: Entry, block: int) -> None:
        """A block does not match the block list: it has to be fetched again."""


class Arrival:
    """One file on its way. For any thread.

    Attributes:
        entry: what it will be.
        waited_s: for how long somebody waited for its bytes, in all.
        progress: is told of waits; None where nobody wants to hear of them.
    """

    def __init__(self, entry: Entry, onlooker: Onlooker, carrier: Carrier) -> None:
        self.entry = entry
        self.waited_s = 0.0
        self.progress: Progress | None = None
        self._onlooker = onlooker
        self._carrier = carrier
        self._lock = threading.Lock()
        self._final: OpenFile | None = None
        self._given: list[tuple[OpenFile, RangeSet]] = []
        self._proved: set[int] = set()  # blocks of the file that is read now
        self._doubted: dict[int, float] = {}  # blocks that did not match, and when that was seen

    def __repr__(self) -> str:
        return f"<Arrival {self.entry.path}, {self._onlooker.landed.total} of {self.entry.size}>"

    @property
    def name(self) -> str:
        """Its path in the repo."""
        return self.entry.path

    @property
    def size(self) -> int:
        """In bytes, when it is complete."""
        return self.entry.size

    @property
    def landed_bytes(self) -> int:
        """How much of it was there at the last look."""
        return self.entry.size if self._final is not None else self._onlooker.landed.total

    @property
    def final(self) -> OpenFile | None:
        """The verified file, if it was in place at the last look."""
        return self._final

    def count(self) -> int:
        """How much of it is there by now. Raises as `reach`."""
        with self._lock:
            self._look()
        return self.landed_bytes

    def reach(self, wanted: Range) -> OpenFile:
        """Wait until these bytes may be read, and say where.

        Raises:
            HeadraceError: they will not come, as the carrier says.
            DigestMismatch: what was read before was not what was promised.
        """
        began, is_wished = time.monotonic(), False
        try:
            while True:
                with self._lock:
                    file = self._readable(wanted)
                if file is not None:
                    return file
                if not is_wished and time.monotonic() - began >= _WISH_S:
                    is_wished = True
                    self._carrier.wish(self.entry, wanted)
                self._tell()
                time.sleep(_LOOK_S)
        finally:
            self.waited_s += time.monotonic() - began

    def has_landed(self, wanted: Range) -> bool:
        """Whether `reach` would not wait. Raises as that."""
        with self._lock:
            return self._readable(wanted) is not None

    def settle(self) -> OpenFile:
        """Wait until the whole is verified and in place. What was read until then can be relied upon from now on.

        Raises:
            HeadraceError: it will not come, as the carrier says.
            DigestMismatch: what was read was something else.
        """
        began = time.monotonic()
        try:
            while True:
                with self._lock:
                    self._look()
                    if self._final is not None:
                        return self._final
                self._tell()
                time.sleep(_LOOK_S)
        finally:
            self.waited_s += time.monotonic() - began

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress.tell()

    def _readable(self, wanted: Range) -> OpenFile | None:
        """The file to read these bytes in, if they are there."""
        self._look()
        file, pages = self._final, self._widened(wanted)
        if file is None:
            file = self._onlooker.file
            if file is None or self._is_doubtful() or not self._onlooker.landed.covers(pages):
                return None
            if not self._proven(file, pages):
                return None
            self._note(file, pages)
        return file

    def _look(self) -> None:
        self._carrier.check()
        if self._final is not None:
            return
        path = self._carrier.verified(self.entry)  # asked first: what is retracted until then is seen
        self._onlooker.look()
        if self._onlooker.retracted and not self._given:
            self._onlooker.accept()
        if self._given and self._is_doubtful():
            raise DigestMismatch(
                f"what arrived of {self.entry.path!r} was not what was promised, and had been read already",
                hint="it is fetched again: load once more",
            )
        if path is not None:
            final = _opened(path, self.entry.size)
            for file, given in self._given:
                if not file.is_same(final) and not _agree(file, final, given):
                    raise DigestMismatch(f"what was read of {self.entry.path!r} is not what was verified")
            # The same file needs no second mapping.
            self._final = next((file for file, _ in self._given if file.is_same(final)), final)

    def _is_doubtful(self) -> bool:
        """Whether bytes are forgotten without a list that says which of those that were read were right."""
        return self._onlooker.retracted and self._carrier.blocks(self.entry) is None

    def _note(self, file: OpenFile, pages: Range) -> None:
        if not self._given or self._given[-1][0] is not file:
            self._given.append((file, RangeSet()))
        self._given[-1][1].add(pages)

    def _widened(self, wanted: Range) -> Range:
        """To whole pages; under a block list to whole blocks."""
        unit = mmap.PAGESIZE if self._carrier.blocks(self.entry) is None else BLOCK_BYTES
        stop = min(self.entry.size, -(-wanted.stop // unit) * unit)
        return Range(min(wanted.start // unit * unit, stop), stop)

    def _proven(self, file: OpenFile, wanted: Range) -> bool:
        """Whether all these blocks match the trusted block list, where there is one."""
        blocks = self._carrier.blocks(self.entry)
        if blocks is None:
            return True
        if self._given and self._given[-1][0] is not file:
            self._proved.clear()
        numbers = range(wanted.start // BLOCK_BYTES, -(-wanted.stop // BLOCK_BYTES))
        return all(self._matches(file, blocks, number) for number in numbers)

    def _matches(self, file: OpenFile, blocks: BlockList, number: int) -> bool:
        if number in self._proved:
            return True
        now = time.monotonic()
        if now - self._doubted.get(number, float("-inf")) < _DOUBT_S:
            return False
        if _hash(file, block_at(number, self.entry.size)) == blocks.hash_of(number):
            self._proved.add(number)
            return True
        if number not in self._doubted:
            self._carrier.doubt(self.entry, number)
        self._doubted[number] = now
        return False


def _opened(path: Path, size: int) -> OpenFile:
    try:
        file = OpenFile.at(path)
        found = file.size
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if found != size:
        raise StoreError(f"{path} has {found} bytes instead of {size}: somebody changed it")
    return file


def _hash(file: OpenFile, wanted: Range) -> bytes:
    state = hashlib.sha256()
    for start in range(wanted.start, wanted.stop, _PIECE_BYTES):
        state.update(file.read(Range(start, min(wanted.stop, start + _PIECE_BYTES))))
    return state.digest()


def _agree(one: OpenFile, other: OpenFile, ranges: RangeSet) -> bool:
    """Whether two files have the same bytes there."""
    return all(_hash(one, part) == _hash(other, part) for part in ranges)
