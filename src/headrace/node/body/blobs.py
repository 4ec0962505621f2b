"""Blobs on a node's disk: one verified file per digest.

What is given out is a file that was hashed here and has not been touched since, and who reads it holds it, so that it
stays meanwhile. One that was touched is hashed before it is given out; one that is wrong loses its name, and what is
sound of it is the beginning of its next fetch.
"""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.blocklist import BlockList, block_at
from headrace.errors import DigestMismatch, NoSpace, StoreError
from headrace.manifest import Digest
from headrace.node.body.lists import ListFolder
from headrace.node.body.reading import (
    AtOnce,
    NotPlain,
    Pace,
    Reading,
    are_right,
    opened,
    read_through,
    reading_from,
)
from headrace.node.body.tree import DataTree
from headrace.node.disk.holding import hold
from headrace.node.memory.inventory import Identity, Inventory
from headrace.ranges import Range, RangeSet
from headrace.store.demotion import demote
from headrace.store.partial import JOURNALLED_FROM_BYTES


class Finding(enum.Enum):
    """What became of a file that was looked at."""

    SOUND = "it hashes to its digest"
    WRONG = "it does not, and was taken away"
    ABSENT = "there is none"
    CHANGED = "it changed while it was read"


@dataclass(frozen=True)
class Verified:
    """A verified file, open for reading, and what told it from others when that was seen."""

    file: BinaryIO
    identity: Identity


class BlobStore:
    """Gives out verified files. Methods block; for threads.

    Attributes:
        bereft: is told of content whose file was wrong and was taken away; on whichever thread.
    """

    def __init__(self, layout: DataTree, inventory: Inventory) -> None:
        self.layout = layout
        self.lists = ListFolder(layout)
        self.bereft: Callable[[Digest], None] = lambda _: None
        self._inventory = inventory
        self._condemning = threading.Lock()  # what one has found wrong, another may have put away and mended
        self._condemned: dict[
            Digest, Identity
        ] = {}  # wrong files that are there, as long as the disk keeps them

    def open(self, digest: Digest, size: int) -> Verified | None:
        """The verified file, open for reading; None where there is none, or one that must be hashed first.

        Raises:
            StoreError: it cannot be read.
        """
        path = self.layout.blob(digest)
        try:
            with reading_from(path):
                file = opened(path)
        except (FileNotFoundError, NotPlain):
            return None
        is_there, identity = hold(file), identity_of(os.fstat(file.fileno()))
        # The open file is what was checked: what is put in its place later cannot be what is sent.
        if is_there and identity.size == size and self._is_verified(digest, identity):
            self._inventory.use(digest)
            return Verified(file, identity)
        file.close()
        return None

    def is_there(self, digest: Digest) -> bool:
        """Whether there is anything under this digest, verified or not."""
        return os.path.lexists(self.layout.blob(digest))

    def identity(self, digest: Digest) -> Identity | None:
        """What is there under this digest, verified or not; None where nothing can be seen."""
        with suppress(OSError):
            return _identity_at(self.layout.blob(digest))
        return None

    def check(self, digest: Digest, size: int) -> None:
        """Hash a file that is not as it was recorded; one that is wrong is put away, to be fetched again.

        Raises:
            DigestMismatch: the content is right, and has another size: what promises this one is wrong.
            StoreError: it cannot be read.
        """
        if self._verified(digest) is None:
            self.examine(digest)
        found = self._verified(digest)
        if found is not None and found.size != size:
            raise DigestMismatch(f"{digest} is content of {found.size} bytes, and {size} are promised")

    def examine(self, digest: Digest, pace: Pace | None = None) -> Finding:
        """Hash a file, whatever is recorded of it: one that is right is recorded, one that is wrong is put away.

        In the same reading it gets its block list, so that it can be mended by blocks once it rots.

        Raises:
            StoreError: it cannot be read.
        """
        path, recorded = self.layout.blob(digest), self._inventory.verified(digest)
        try:
            with reading_from(path):
                file = opened(path)
        except FileNotFoundError:
            self.lists.drop(digest)
            if recorded is not None:
                self._inventory.lost(digest, recorded)
            return Finding.ABSENT
        except NotPlain:
            self._withdraw(digest, 0, lambda: False)
            return Finding.WRONG
        with file:
            before = identity_of(os.fstat(file.fileno()))
            with reading_from(path):
                reading = read_through(file.fileno(), digest.algorithm, before.size, pace or AtOnce())
            # To read takes long, and must not keep what has to make room. What was found is about a file that stays.
            hold(file)
            after = identity_of(os.fstat(file.fileno()))
            if not before == after == self.identity(digest):
                return Finding.CHANGED
            return self._judged(digest, before, reading)

    def _judged(self, digest: Digest, identity: Identity, reading: Reading) -> Finding:
        """Record what a reading of a file shows that is held."""
        if reading.whole != digest.hex:
            self.put_away(digest, identity, reading)
            return Finding.WRONG
        if len(reading.blocks) > 1:
            self.lists.keep(BlockList(digest, identity.size, b"".join(reading.blocks)), identity)
        self._inventory.verify(digest, identity)
        return Finding.SOUND

    def is_right(self, digest: Digest, part: Range) -> bool:
        """Whether the blocks of a file in which these bytes lie are right; so they are where no list says otherwise.

        Raises:
            StoreError: it cannot be read.
        """
        path = self.layout.blob(digest)
        try:
            with reading_from(path), opened(path) as file:
                told = self.lists.of_file(digest, identity_of(os.fstat(file.fileno())))
                return told is None or are_right(file.fileno(), told, part)
        except (FileNotFoundError, NotPlain):
            return True  # it is another one by now

    def put_away(self, digest: Digest, seen: Identity, reading: Reading | None = None) -> None:
        """Take away a file that was found to be wrong, whatever was recorded of it.

        What of it is sound, as far as a reading shows that, is where its next fetch begins. Not what has come to its
        place meanwhile.

        Raises:
            StoreError: it cannot be taken away.
        """
        with self._condemning:
            if self.identity(digest) != seen:
                return
            self._condemned[digest] = seen
            told = self.lists.of_content(digest)
            if reading is None or told is None:
                self._withdraw(digest, seen.size, lambda: False)
            else:
                self._withdraw(digest, told.size, lambda: self._demoted(told, seen, reading))
            del self._condemned[digest]

    def record(self, digest: Digest) -> None:
        """Remember a file that the worker has verified and published this moment."""
        try:
            self._inventory.verify(digest, _identity_at(self.layout.blob(digest)))
        except OSError:
            return  # gone or unreadable: found out, and hashed, when it is asked for

    def _verified(self, digest: Digest) -> Identity | None:
        identity = self.identity(digest)
        return identity if identity is not None and self._is_verified(digest, identity) else None

    def _is_verified(self, digest: Digest, found: Identity) -> bool:
        recorded = self._inventory.verified(digest)
        is_wrong = self._condemned.get(digest) == found
        return not is_wrong and recorded is not None and recorded.is_still(found)

    def _demoted(self, told: BlockList, seen: Identity, reading: Reading) -> bool:
        """Keep what is sound of a wrong file; whether there was anything is the answer."""
        if told.size < JOURNALLED_FROM_BYTES:
            return False
        differing = set(told.differs(reading.blocks))
        sound = [number for number in range(min(len(told), len(reading.blocks))) if number not in differing]
        if len(sound) == len(told) and told.size == seen.size:
            self.lists.drop(told.digest)  # it says that what is wrong is right
            return False
        runs = RangeSet(block_at(number, told.size) for number in sound)
        if not runs:
            return False
        with suppress(OSError, StoreError):  # then it has to be fetched as a whole
            return demote(self.layout.blob(told.digest), self.layout.unfinished(told.digest), told.size, runs)
        return False

    def _withdraw(self, digest: Digest, size: int, demoted: Callable[[], bool]) -> None:
        """Take away what has the name: `demoted` makes a partial of it, where it can.

        It is written down before, so that the catalog knows of what is there whenever a process dies.
        """
        self.layout.mark_doubt(digest)  # somebody may have been given a part of it
        withdrawn_at = None
        with suppress(NoSpace):  # then all of it goes, and makes some
            withdrawn_at = self._inventory.withdraw(digest, size)
        if withdrawn_at is None or not demoted():
            self.layout.clear(digest)
            if withdrawn_at is not None:
                self._inventory.removed(digest, withdrawn_at)
        self.bereft(digest)


def _identity_at(path: Path) -> Identity:
    return identity_of(path.lstat())


def identity_of(facts: os.stat_result) -> Identity:
    """What tells this file from others."""
    return Identity(facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
