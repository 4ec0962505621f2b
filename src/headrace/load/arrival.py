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
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Proof:
    """What is known of a file before all of it is here.

    Attributes:
        blocks: what its blocks hash to, on the trusted source's word; None where nobody said.
        on_demand: whether nothing of it comes but what is wished. It is never verified as a whole, so it has `blocks`.
    """

    blocks: BlockList | None = None
    on_demand: bool = False


NO_PROOF = Proof()


class Carrier(Protocol):
    """Who sees to it that files arrive. For any thread."""

    def check(self) -> None:
        """See what it has to tell, and tell users: to be called under no lock, as they may call back.

        Raises:
            HeadraceError: nothing will arrive any more, and why.
        """

    def verified(self, entry: Entry) -> Path | None:
        """Where the file is in place and verified; None while it is not."""

    def proof(self, entry: Entry) -> Proof | None:
        """What is known of it before all is here; None while that is not known."""

    def wish(self, entry: Entry, wanted: Range, *, urgent: bool = True) -> None:
        """Somebody waits for these bytes, or will where it is not `urgent`: they had better come first."""

    def doubt(self, entry: Entry, block: int) -> None:
        """A block does not match the block list: it has to be fetched again. It may be said again and again."""


class Arrival:
    """One file on its way. For any thread.

    Attributes:
        entry: what it will be.
        progress: is told of waits; None where nobody wants to hear of them.
    """

    def __init__(self, entry: Entry, onlooker: Onlooker, carrier: Carrier) -> None:
        self.entry = entry
        self.progress: Progress | None = None
        self._onlooker = onlooker
        self._carrier = carrier
        self._lock = threading.Lock()
        self._final: OpenFile | None = None
        self._given: list[tuple[OpenFile, RangeSet]] = []
        self._proved: set[int] = set()  # blocks of the file that is read now
        self._proving: set[int] = set()  # those that some thread hashes
        self._proved_in: OpenFile | None = None
        self._doubted: dict[int, float] = {}  # blocks that did not match, and when that was seen
        self._is_undone = False  # whether proved bytes were given out, then forgotten

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

    @property
    def is_on_demand(self) -> bool:
        """Whether nothing of it comes but what is wished, as far as is known."""
        proof = self._carrier.proof(self.entry)
        return proof is not None and proof.on_demand

    def count(self) -> int:
        """How much of it is there by now. Raises as `reach`."""
        self._carrier.check()
        with self._lock:
            self._look()
        return self.landed_bytes

    def reach(self, wanted: Range) -> OpenFile:
        """Wait until these bytes may be read, and say where.

        Raises:
            HeadraceError: they will not come, as the carrier says.
            DigestMismatch: what was read before was not what was promised.
        """
        file = self._found(wanted)
        if file is not None:
            return file
        began, is_wished = time.monotonic(), False
        with self._waiting():
            while (file := self._found(wanted)) is None:
                if not is_wished and (self.is_on_demand or time.monotonic() - began >= _WISH_S):
                    is_wished = True
                    proof = self._carrier.proof(self.entry) or NO_PROOF
                    self._carrier.wish(self.entry, self._widened(wanted, proof))
                self._tell()
                time.sleep(_LOOK_S)
        return file

    def has_landed(self, wanted: Range) -> bool:
        """Whether `reach` would not wait. Raises as that."""
        return self._found(wanted) is not None

    def expect(self, wanted: Range) -> None:
        """These bytes will be reached for: a file that comes on demand has them come before."""
        proof = self._carrier.proof(self.entry)
        if proof is not None and proof.on_demand:
            self._carrier.wish(self.entry, self._widened(wanted, proof), urgent=False)

    def settle(self) -> OpenFile:
        """Wait until the whole is verified and in place. What was read until then can be relied upon from now on.

        Of a file that comes on demand only the blocks that were read count. They are proved once more where bytes of
        the file were forgotten since.

        Raises:
            HeadraceError: it will not come, as the carrier says.
            DigestMismatch: what was read was something else.
        """
        file = self._complete()
        if file is not None:
            return file
        with self._lock:
            given = list(self._given[-1][1]) if self._given else []
        # Where nothing was read its beginning stands for that: there may be no file yet.
        reached = [self.reach(part) for part in given or [Range(0, min(1, self.entry.size))]][-1]
        kept = self._kept(reached)
        self._prove_former()
        return kept

    def _kept(self, reached: OpenFile) -> OpenFile:
        """See to it that nobody writes over what was given out: it may be used as long as this program lives."""
        with self._lock:
            if self._final is None:
                self._onlooker.lend()
        # Somebody may be about to forget bytes of it, and had not seen that it is lent: which ones is told soon.
        self._wait(lambda: self._final is not None or not self._onlooker.retracted)
        return self._final or reached

    def _complete(self) -> OpenFile | None:
        """Wait for the verified file; None where it comes on demand, and may never be whole."""
        self._wait(lambda: self._final is not None or self.is_on_demand)
        return self._final

    def _wait(self, is_so: Callable[[], bool]) -> None:
        """Look until this is so; it is asked under the lock."""
        if self._is_seen(is_so):
            return
        with self._waiting():
            while not self._is_seen(is_so):
                self._tell()
                time.sleep(_LOOK_S)

    def _is_seen(self, is_so: Callable[[], bool]) -> bool:
        self._carrier.check()
        with self._lock:
            self._look()
            return is_so()

    def _waiting(self) -> AbstractContextManager[None]:
        return self.progress.waiting() if self.progress is not None else nullcontext()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress.tell()

    def _found(self, wanted: Range) -> OpenFile | None:
        """The file to read these bytes in, if they are there and proved; what can be proved now is."""
        while True:
            self._carrier.check()
            with self._lock:
                file, block = self._seek(wanted)
            if file is None or block is None:
                return file
            self._prove(file, block)  # not under the lock: readers hash side by side

    def _seek(self, wanted: Range) -> tuple[OpenFile | None, int | None]:
        """The file to read these bytes in, if they are there; with a block of it that the caller has to prove first."""
        self._look()
        if self._final is not None:
            return self._final, None
        file, proof = self._onlooker.file, self._carrier.proof(self.entry)
        # Under a list what is retracted is accepted as soon as it is told in full: until then nothing is worth hashing.
        if file is None or proof is None or self._onlooker.retracted:
            return None, None
        pages = self._widened(wanted, proof)
        if proof.blocks is None:
            if not self._onlooker.landed.covers(pages):
                return None, None
        else:
            if self._proved_in is not file:
                self._begin_anew(file)
            numbers = range(pages.start // BLOCK_BYTES, -(-pages.stop // BLOCK_BYTES))
            lacking = [number for number in numbers if number not in self._proved]
            if lacking:
                return self._provable(file, lacking)
        self._note(file, pages)
        return file, None

    def _provable(self, file: OpenFile, lacking: list[int]) -> tuple[OpenFile | None, int | None]:
        """One of these blocks that has landed, and that nobody hashes yet."""
        rested = time.monotonic() - _DOUBT_S
        for number in lacking:
            if number in self._proving or self._doubted.get(number, float("-inf")) > rested:
                continue
            if self._onlooker.landed.covers(block_at(number, self.entry.size)):
                self._proving.add(number)
                return file, number
        return None, None

    def _begin_anew(self, file: OpenFile) -> None:
        """What was proved, or is being proved, is of another file or of bytes that were fetched again."""
        self._proved_in, self._proved, self._proving = file, set(), set()

    def _look(self) -> None:
        if self._final is not None:
            return
        path = self._carrier.verified(self.entry)  # asked first: what is retracted until then is seen
        self._onlooker.look()
        proof = self._carrier.proof(self.entry)
        has_blocks = proof is not None and proof.blocks is not None
        if self._onlooker.retracted and (has_blocks or not self._given):
            # What was given out was proved, and it is rarely that which is retracted: by who has no list, and doubts all.
            self._is_undone |= self._is_taken_back()
            self._onlooker.accept()
            self._proved_in = None
        if self._is_undone and self.is_on_demand:
            raise self._wrong()
        if path is not None:
            # Told when it is mended: then another load will do.
            if self._is_undone or (self._given and self._onlooker.retracted and not has_blocks):
                raise self._wrong()
            self._final = self._agreed(_opened(path, self.entry.size))

    def _agreed(self, final: OpenFile) -> OpenFile:
        """The verified file, under the descriptor that is known. Raises `DigestMismatch`: what was read is another."""
        for file, given in self._given:
            if not file.is_same(final) and not _agree(file, final, given):
                raise DigestMismatch(f"what was read of {self.entry.path!r} is not what was verified")
        # The same file needs no second mapping.
        return next((file for file, _ in self._given if file.is_same(final)), final)

    def _is_taken_back(self) -> bool:
        """Whether bytes that were given out were forgotten: others may stand there while somebody copies a tensor."""
        given, taken_back = self._given[-1:], self._onlooker.taken_back
        return any(
            file is self._onlooker.file and any(map(taken_back.touches, ranges)) for file, ranges in given
        )

    def _wrong(self) -> DigestMismatch:
        return DigestMismatch(
            f"what arrived of {self.entry.path!r} was not what was promised, and had been read already",
            hint="load once more: what is wrong is fetched again",
        )

    def _note(self, file: OpenFile, pages: Range) -> None:
        if not self._given or self._given[-1][0] is not file:
            self._given.append((file, RangeSet()))
        self._given[-1][1].add(pages)

    def _widened(self, wanted: Range, proof: Proof) -> Range:
        """To whole pages; under a block list to whole blocks."""
        unit = mmap.PAGESIZE if proof.blocks is None else BLOCK_BYTES
        stop = min(self.entry.size, -(-wanted.stop // unit) * unit)
        return Range(min(wanted.start // unit * unit, stop), stop)

    def _prove_former(self) -> None:
        """Hash what was given out of files that another took the place of. Raises `DigestMismatch`: it has changed.

        Who wrote to such a file may have forgotten bytes of it at the end, and its journal is gone.
        """
        with self._lock:
            proof, now = self._carrier.proof(self.entry), self._final or self._onlooker.file
            former = [(file, list(ranges)) for file, ranges in self._given if file is not now]
        blocks = proof.blocks if proof is not None else None
        if blocks is None or all(_is_as_listed(*one, blocks) for one in former):
            return
        with self._lock:
            self._is_undone = True
        raise self._wrong()

    def _prove(self, file: OpenFile, number: int) -> None:
        """See whether a block is what the trusted block list says."""
        proof, proving = self._carrier.proof(self.entry), self._proving
        blocks = proof.blocks if proof is not None else None
        is_right = False
        try:
            found = _hash(file, block_at(number, self.entry.size))
            is_right = blocks is not None and found == blocks.hash_of(number)
        finally:
            with self._lock:
                is_of_now = proving is self._proving
                proving.discard(number)
                if is_right and is_of_now:
                    self._proved.add(number)
                elif not is_right:
                    self._doubted[number] = time.monotonic()
        if not is_right:
            self._carrier.doubt(self.entry, number)


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


def _is_as_listed(file: OpenFile, ranges: Iterable[Range], blocks: BlockList) -> bool:
    """Whether the blocks of which these ranges are made are what the list says."""
    numbers = (n for part in ranges for n in range(part.start // BLOCK_BYTES, -(-part.stop // BLOCK_BYTES)))
    return all(_hash(file, block_at(n, blocks.size)) == blocks.hash_of(n) for n in numbers)


def _agree(one: OpenFile, other: OpenFile, ranges: RangeSet) -> bool:
    """Whether two files have the same bytes there."""
    return all(_hash(one, part) == _hash(other, part) for part in ranges)
