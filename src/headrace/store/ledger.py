"""The ledger of verified files: what was hashed once need not be hashed again while it is the same file.

One JSON line per file in the workshop: digest, size, inode and modification time in nanoseconds. Appended in one
write, so that processes may share it; a torn line is skipped. Losing it costs time, never correctness.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from headrace.manifest import Digest

_CHUNK_BYTES = 4 * 1024 * 1024

_Identity = tuple[str, int, int, int]
"""Digest, size, inode and modification time in nanoseconds."""


class Ledger:
    """The verified files of one workshop."""

    def __init__(self, workshop: Path) -> None:
        self._path = workshop / "verified.jsonl"
        self._read_bytes = 0
        self._known: set[_Identity] = set()
        self._wrong: set[_Identity] = (
            set()
        )  # hashed to something else: not hashed again while it is the same file
        self._read_on()

    def record(self, path: Path, digest: Digest) -> None:
        """Remember that the file was verified."""
        identity = _identity(path, digest)
        if identity is None or identity in self._known:
            return
        self._known.add(identity)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(json.dumps(identity).encode() + b"\n")
        except OSError:
            return  # read-only or full: it will be hashed again next time

    def check(self, path: Path, digest: Digest, size: int, progress: Callable[[int], None]) -> bool:
        """Whether the file has this content: by the ledger, else by hashing it once. `progress` gets bytes done.

        What cannot be read does not have it.
        """
        identity = _identity(path, digest)
        if identity is None or identity[1] != size or identity in self._wrong:
            return False
        if identity not in self._known:
            self._read_on()  # another process may have verified it meanwhile
        if identity in self._known:
            return True
        try:
            got = digest_of(path, digest.algorithm, progress)
        except OSError:
            return False
        if got != digest.hex:
            self._wrong.add(identity)
            return False
        if _identity(path, digest) == identity and _is_kept(path):  # and nobody changed it while it was read
            self.record(path, digest)
        return True

    def _read_on(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                raw = file.read()
        except OSError:
            return
        whole = raw[: raw.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            try:
                digest, size, inode, modified_ns = json.loads(line)
                self._known.add((digest, size, inode, modified_ns))
            except (ValueError, TypeError, RecursionError):  # noqa: PERF203  # a torn line, now and then
                continue


def new_hash(algorithm: str, size: int) -> hashlib._Hash:
    """A hash object for content of this size (git's blob id begins with it)."""
    if algorithm == Digest.SHA256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def digest_of(path: Path, algorithm: str, progress: Callable[[int], None] = lambda _: None) -> str:
    """The hex digest of a file on disk, read once. Raises `OSError` where it cannot be read."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        state = new_hash(algorithm, os.fstat(file.fileno()).st_size)
        done = 0
        while count := file.readinto(buffer):
            state.update(buffer[:count])
            done += count
            progress(done)
    return state.hexdigest()


def _is_kept(path: Path) -> bool:
    """Whether the content of a file outlasts a loss of power; it is made to.

    Another client may have written it this moment. Then its size and times might outlast its bytes, and a record
    of it would vouch for zeros.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.fdatasync(fd)
    except OSError as error:
        return error.errno in (
            errno.EROFS,
            errno.EINVAL,
            errno.EOPNOTSUPP,
        )  # nothing was written there lately
    finally:
        os.close(fd)
    return True


def _identity(path: Path, digest: Digest) -> _Identity | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return str(digest), facts.st_size, facts.st_ino, facts.st_mtime_ns
