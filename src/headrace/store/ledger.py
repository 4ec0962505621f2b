"""The ledger: which files were verified, so that nothing is hashed twice while it stays the same file.

One JSON line per file in the workshop: digest, size, inode, modification time in nanoseconds, and where the file
is, seen from the workshop. Appended in one write, so that processes may share it; a torn line is skipped. A ledger
that has doubled since is rewritten without what is no longer so, atomically; its first line then says how large
it was. Who may not write the shared ledger, another user's, keeps one beside it; all are read.

Losing lines costs time, never correctness.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.manifest import Digest
from headrace.store.disk import scratch, write_all

_CHUNK_BYTES = 4 * 1024 * 1024
_OTHERS = re.compile(r"verified\.\d+\.jsonl")
_SMALL_BYTES = 1024 * 1024  # not worth compacting: read in milliseconds

_Identity = tuple[str, int, int, int]
"""Digest, size, inode and modification time in nanoseconds."""


@dataclass
class _Page:
    """How far one file of the ledger was read; `lean_bytes` is what it had after it was last compacted."""

    inode: int = 0
    read_bytes: int = 0
    lean_bytes: int = 0


class Ledger:
    """The verified files of one workshop."""

    def __init__(self, workshop: Path) -> None:
        self._workshop = workshop
        self._shared = workshop / "verified.jsonl"
        self._own = workshop / f"verified.{os.geteuid()}.jsonl"
        self._pages: dict[Path, _Page] = {}
        self._known: set[_Identity] = set()
        # Hashed to something else: not hashed again while it is the same file.
        self._wrong: set[_Identity] = set()
        self._read_on()

    def record(self, path: Path, digest: Digest) -> None:
        """Remember that the file was verified."""
        identity = _identity(path, digest)
        if identity is None or identity in self._known:
            return
        self._known.add(identity)
        line = _line(identity, os.path.relpath(path, self._workshop))
        for page in (self._shared, self._own):
            try:
                self._workshop.mkdir(parents=True, exist_ok=True)
                end = _append(page, line)
            except OSError:  # another user's, read-only or full
                continue
            known = self._pages.get(page, _Page())
            if end > max(_SMALL_BYTES, 2 * known.lean_bytes):
                self._compact(page)
            return

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
        if _identity(path, digest) == identity:  # nobody changed it while it was read
            self.record(path, digest)
        return True

    def _read_on(self) -> None:
        with suppress(OSError):  # there is none, or it is not for us to see
            others = [name for name in os.listdir(self._workshop) if _OTHERS.fullmatch(name)]  # noqa: PTH208  # names suffice
            for name in (self._shared.name, *others):
                path = self._workshop / name
                with suppress(OSError):
                    self._read_page(path, self._pages.setdefault(path, _Page()))

    def _read_page(self, path: Path, page: _Page) -> None:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_ino != page.inode or facts.st_size < page.read_bytes:  # it was compacted
                page.inode, page.read_bytes = facts.st_ino, 0
            file.seek(page.read_bytes)
            raw = file.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        if page.read_bytes == 0:
            with suppress(ValueError):
                page.lean_bytes = int(whole.partition(b"\n")[0])
        page.read_bytes += len(whole)
        self._known.update(identity for identity, _ in _parsed(whole))

    def _compact(self, path: Path) -> None:
        """Leave out what is said twice and what is no longer so, once a ledger has doubled. Never fails.

        Lines that others append to the old file meanwhile are carried over; of what comes later still, a hash is
        lost.
        """
        with suppress(OSError), path.open("rb") as file:
            self._read_page(path, page := self._pages.setdefault(path, _Page()))
            if page.read_bytes < max(_SMALL_BYTES, 2 * page.lean_bytes):
                return
            raw = file.read()
            entries = dict(_parsed(raw))
            lean = b"".join(_line(*one) for one in entries.items() if self._is_so(*one))
            fresh = scratch(self._workshop, "verified")
            try:
                _append(fresh, b"%d\n" % len(lean) + lean)
                fresh.replace(path)
            finally:
                with suppress(OSError):
                    fresh.unlink()
            late = file.read()
            if late:
                _append(path, late)

    def _is_so(self, identity: _Identity, where: str) -> bool:
        try:
            facts = (self._workshop / where).stat()
        except (OSError, ValueError):
            return False
        return identity[1:] == (facts.st_size, facts.st_ino, facts.st_mtime_ns)


def _parsed(raw: bytes) -> Iterator[tuple[_Identity, str]]:
    for line in raw.splitlines():
        try:
            digest, size, inode, modified_ns, where = json.loads(line)
            identity = (digest, size, inode, modified_ns)
            hash(identity)
        except (ValueError, TypeError, RecursionError):  # a torn line, now and then
            continue
        yield identity, str(where)


def _line(identity: _Identity, where: str) -> bytes:
    return json.dumps([*identity, where]).encode() + b"\n"


def _append(path: Path, lines: bytes) -> int:
    """Append to a file; how long it is then is the answer."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        write_all(fd, lines)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


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


def _identity(path: Path, digest: Digest) -> _Identity | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return str(digest), facts.st_size, facts.st_ino, facts.st_mtime_ns
