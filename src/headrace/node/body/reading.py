"""One reading of a file from front to back: what it hashes to, as a whole and block by block."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from headrace.blocklist import HASH_BYTES, BlockList, block_at, blocks_in
from headrace.errors import StoreError
from headrace.ranges import Range
from headrace.store.ledger import new_hash
from headrace.wire import BLOCK_BYTES

# A pipe would not open before somebody wrote to it, and a link leads to what nobody put here.
_HOW = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_FILE = (errno.ELOOP, errno.ENXIO)
_OURS = (errno.EMFILE, errno.ENFILE)  # says nothing about the file


class NotPlain(Exception):
    """What has the name is no plain file: a folder, a link, a pipe."""


class Pace(Protocol):
    """How fast a file is read. Told of each block, before and after; may take its time, or raise to end it."""

    def before(self, fd: int, start: int, stop: int) -> None:
        """These bytes are read next."""

    def after(self, fd: int, start: int, stop: int) -> None:
        """They were read."""


class AtOnce:
    """As fast as it goes: somebody waits."""

    def before(self, fd: int, start: int, stop: int) -> None:
        """See `Pace.before`."""

    def after(self, fd: int, start: int, stop: int) -> None:
        """See `Pace.after`."""


@dataclass(frozen=True)
class Reading:
    """What a file hashed to.

    Attributes:
        whole: its digest, in hex; empty where a part could not be read.
        blocks: the sha256 of each block; empty for those that could not be read.
    """

    whole: str
    blocks: tuple[bytes, ...]


def opened(path: Path) -> BinaryIO:
    """A plain file, open for reading, without ever waiting for it.

    Raises:
        NotPlain: it is something else.
        OSError: there is none, or it may not be read.
    """
    try:
        fd = os.open(path, _HOW)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise NotPlain from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotPlain
    return os.fdopen(fd, "rb", buffering=0)


@contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a reading into our error; that there is no file stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _OURS:
            raise
        raise StoreError(
            f"cannot read {path}: {error.strerror or error}",
            hint="see that the node may read its own data, and what the system's log says of the disk",
        ) from error


def read_through(fd: int, algorithm: str, size: int, pace: Pace) -> Reading:
    """Hash an open file of this size. A block that the disk does not give is noted, and the rest is read all the same.

    Raises:
        OSError: it cannot be read at all.
    """
    buffer, whole, blocks = memoryview(bytearray(BLOCK_BYTES)), new_hash(algorithm, size), []
    is_complete = True
    for start in range(0, size, BLOCK_BYTES):
        stop = min(size, start + BLOCK_BYTES)
        pace.before(fd, start, stop)
        try:
            count = _fill(fd, buffer[: stop - start], start)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            blocks.append(b"")
            is_complete = False
        else:
            whole.update(buffer[:count])
            blocks.append(hashlib.sha256(buffer[:count]).digest())
        pace.after(fd, start, stop)
    return Reading(whole.hexdigest() if is_complete else "", tuple(blocks))


def are_right(fd: int, told: BlockList, part: Range) -> bool:
    """Whether the blocks of an open file in which these bytes lie hash to what a list says. Raises `OSError`."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    for number in range(part.start // BLOCK_BYTES, blocks_in(part.stop)):
        block = block_at(number, told.size)
        try:
            count = _fill(fd, buffer[: len(block)], block.start)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        right = told.hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]
        if hashlib.sha256(buffer[:count]).digest() != right:
            return False
    return True


def _fill(fd: int, buffer: memoryview, position: int) -> int:
    done = 0
    while done < len(buffer) and (count := os.preadv(fd, [buffer[done:]], position + done)):
        done += count
    return done
