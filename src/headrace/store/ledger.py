"""The ledger: which files were verified, so that nothing is hashed twice while it stays the same file.

One JSON line per file in the workshop: digest, size, inode, modification time in nanoseconds, where the file is,
seen from the workshop, and its device where that is not the workshop's. Appended in one write, so that processes may
share it; a torn line is skipped. A ledger that has doubled since is rewritten without what is no longer so,
atomically; its first line then says how large it was. Who may not write the shared ledger, another user's, keeps one
beside it; all are read.

Losing lines costs time, never correctness.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from headrace.manifest import Digest
from headrace.store.disk import device_of, keep, scratch, write_all

_CHUNK_BYTES = 4 * 1024 * 1024
_OTHERS = re.compile(r"verified\.\d+\.jsonl")
_SMALL_BYTES = 1024 * 1024  # not worth compacting: read in milliseconds

_RACY_NS = 50_000_000  # file systems that tick coarsely stamp two writes within one tick alike
_UNABLE = (errno.EROFS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)

_Identity = tuple[str, int, int, int, int]
"""Digest, size, inode, modification time in nanoseconds; the device, 0 where it is the workshop's.

Device numbers may change when a machine starts: those of a moved folder then cost a hash, those of others nothing.
"""


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
        self._by_file: dict[tuple[int, ...], list[str]] | None = None  # the same, once somebody asks by file
        # Hashed to something else: not hashed again while it is the same file.
        self._wrong: set[_Identity] = set()
        self._read_on()

    def record(self, path: Path, facts: os.stat_result, digest: Digest) -> None:
        """Remember that a file was verified: the one with these facts, whatever has its name by now."""
        identity = self._identity(facts, digest)
        if identity in self._known:
            return
        self._learn((identity,))
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

    def check(
        self, path: Path, digest: Digest, size: int, progress: Callable[[int], None]
    ) -> os.stat_result | None:
        """The facts of the file if it has this content: by the ledger, else by hashing it once.

        `progress` gets the bytes done. What cannot be read, or changes meanwhile, does not have it; nor has what the
        disk fails to keep. Whoever goes on with the file compares the facts: its name may mean another one by then.
        """
        try:
            facts = path.stat()
        except OSError:
            return None
        identity = self._identity(facts, digest)
        if facts.st_size != size or identity in self._wrong or not stat.S_ISREG(facts.st_mode):
            return None
        if identity not in self._known:
            self._read_on()  # another process may have verified it meanwhile
        if identity in self._known:
            return facts
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return self._verify(fd, path, digest, progress)
            finally:
                os.close(fd)
        return None

    def identify(
        self, path: Path, size: int, algorithm: str, progress: Callable[[int], None]
    ) -> tuple[Digest, os.stat_result] | None:
        """What a file of this size hashes to, and its facts: by the ledger, else by hashing it once.

        None where there is no such file, or as `check` has it.
        """
        try:
            facts = path.stat()
        except OSError:
            return None
        if facts.st_size != size or not stat.S_ISREG(facts.st_mode):
            return None
        if self._by_file is None:
            self._by_file = {}
            self._learn(self._known.copy())
        for known in self._by_file.get(self._seen(facts), ()):
            if known.startswith(f"{algorithm}:"):
                return Digest.parse(known), facts
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                began_ns, facts = time.time_ns(), os.fstat(fd)
                digest = Digest(algorithm, digest_in(fd, algorithm, progress))
                sound = self._noted(fd, path, digest, (began_ns, facts), progress)
                return None if sound is None else (digest, sound)
            finally:
                os.close(fd)
        return None

    def _verify(
        self, fd: int, path: Path, digest: Digest, progress: Callable[[int], None]
    ) -> os.stat_result | None:
        """Hash an open file; `check`. Raises `OSError` where it cannot be read or is not kept."""
        began_ns, facts = time.time_ns(), os.fstat(fd)
        identity = self._identity(facts, digest)
        if digest_in(fd, digest.algorithm, progress) != digest.hex:
            self._wrong.add(identity)
            return None
        return self._noted(fd, path, digest, (began_ns, facts), progress)

    def _noted(
        self,
        fd: int,
        path: Path,
        digest: Digest,
        before: tuple[int, os.stat_result],
        progress: Callable[[int], None],
    ) -> os.stat_result | None:
        """Record what an open file hashed to, if it is still what it was `before`: when that began, and its facts."""
        began_ns, facts = before
        is_kept = _is_kept(fd, lambda: progress(facts.st_size))
        if not same_file(facts, os.fstat(fd)) or not same_file(facts, path.stat()):
            return None
        if is_kept and abs(began_ns - facts.st_mtime_ns) > _RACY_NS:
            self.record(path, facts, digest)
        return facts

    def _learn(self, identities: Iterable[_Identity]) -> None:
        if self._by_file is None:
            self._known.update(identities)
            return
        for identity in identities:
            self._known.add(identity)
            self._by_file.setdefault(identity[1:], []).append(identity[0])

    def _identity(self, facts: os.stat_result, digest: Digest) -> _Identity:
        return str(digest), *self._seen(facts)

    def _seen(self, facts: os.stat_result) -> tuple[int, int, int, int]:
        device = 0 if facts.st_dev == self._device else facts.st_dev
        return facts.st_size, facts.st_ino, facts.st_mtime_ns, device

    @cached_property
    def _device(self) -> int:
        return device_of(self._workshop)

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
        self._learn(identity for identity, _ in _parsed(whole))

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
        return identity[1:] == self._seen(facts)


def _parsed(raw: bytes) -> Iterator[tuple[_Identity, str]]:
    for line in raw.splitlines():
        try:
            digest, size, inode, modified_ns, where, *elsewhere = json.loads(line)
            identity = (digest, size, inode, modified_ns, elsewhere[0] if elsewhere else 0)
            hash(identity)
        except (ValueError, TypeError, RecursionError):  # a torn line, now and then
            continue
        yield identity, str(where)


def _line(identity: _Identity, where: str) -> bytes:
    *seen, device = identity
    return json.dumps([*seen, where, device] if device else [*seen, where]).encode() + b"\n"


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
    with path.open("rb", buffering=0) as file:
        return digest_in(file.fileno(), algorithm, progress)


def digest_in(fd: int, algorithm: str, progress: Callable[[int], None]) -> str:
    """The hex digest of an open file, read once; `progress` gets the bytes done. Raises `OSError`."""
    size = os.fstat(fd).st_size
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, size + 1)))
    state, done = new_hash(algorithm, size), 0
    # A file that grows is another one by now; whoever writes to it might never end.
    while done <= size and (count := os.preadv(fd, [buffer], done)):
        state.update(buffer[:count])
        done += count
        progress(done)
    return state.hexdigest()


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether these are facts of the same file with the same content."""
    return os.path.samestat(one, other) and (one.st_size, one.st_mtime_ns) == (
        other.st_size,
        other.st_mtime_ns,
    )


def _is_kept(fd: int, beat: Callable[[], None]) -> bool:
    """Whether the content of a file outlasts a loss of power, as far as can be told; it is made to.

    Another client may have written it this moment. Then its size and times might outlast its bytes, and a record
    of it would vouch for zeros. Raises `OSError` where the disk failed: what was read may be gone the next time.
    """
    try:
        keep(fd, beat)
    except OSError as error:
        if error.errno in _UNABLE:
            return False
        raise
    return True
