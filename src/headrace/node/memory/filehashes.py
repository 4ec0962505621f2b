"""What files of a directory hash to: each is hashed once while it stays the same file.

By which path a digest is known does not matter for what it is: it is content. A record that is lost costs a hash.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import sqlalchemy as sa

from headrace.errors import NoSpace
from headrace.manifest import Digest
from headrace.node.memory.database import Database
from headrace.node.memory.schema import hashed
from headrace.source.directory import Directory, Identity
from headrace.store.ledger import digest_in

_WRITTEN_EVERY_S = 2.0
_QUICK_BYTES = 64 * 1024 * 1024  # what is less does not queue behind what takes minutes
_NICENESS = 10

_log = logging.getLogger("headrace.node")


@dataclass(frozen=True)
class Wanted:
    """A file that is to be hashed: its place below the directory, what it was when it was seen, and by what algorithm."""

    place: str
    identity: Identity
    algorithm: str


@dataclass
class Hashing:
    """Files of one repo that are being hashed, in the background."""

    repo: str
    wanted: Sequence[Wanted]
    bytes_done: int = 0
    files_done: int = 0
    failure: str | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def bytes_all(self) -> int:
        """Bytes to be read."""
        return sum(one.identity.size for one in self.wanted)


_Queue = queue.SimpleQueue[Hashing | None]


class FileHashes:
    """Keeps them in the database, repo by repo; `repo` is any name for one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, repo: str) -> Mapping[tuple[str, str], tuple[str, Digest]]:
        """By place and algorithm: the identity of the file that was hashed, and its digest."""
        rows = self._database.all(sa.select(hashed).where(hashed.c.repo == repo))
        return {(row.place, row.algorithm): (row.identity, Digest.parse(row.digest)) for row in rows}

    def keep(self, repo: str, found: Mapping[Wanted, Digest]) -> None:
        """Remember these. A disk that is full has them hashed again another time."""
        if not found:
            return
        rows = [
            {
                "repo": repo,
                "place": one.place,
                "algorithm": one.algorithm,
                "identity": str(one.identity),
                "digest": str(digest),
            }
            for one, digest in found.items()
        ]
        with suppress(NoSpace), self._database.writing() as connection:
            _delete(connection, repo, [(one.place, one.algorithm) for one in found])
            connection.execute(sa.insert(hashed), rows)

    def forget(self, repo: str, gone: Iterable[tuple[str, str]]) -> None:
        """These places, hashed by these algorithms, are no more."""
        with suppress(NoSpace), self._database.writing() as connection:
            _delete(connection, repo, gone)

    def forget_others(self, owner: str, repos: Collection[str]) -> None:
        """Of all repos whose names begin with `owner`, remember these alone."""
        rows = self._database.all(sa.select(hashed.c.repo).distinct())
        gone = [row.repo for row in rows if row.repo.startswith(owner) and row.repo not in repos]
        if gone:
            with suppress(NoSpace), self._database.writing() as connection:
                for repo in gone:
                    connection.execute(sa.delete(hashed).where(hashed.c.repo == repo))


def _delete(connection: sa.Connection, repo: str, gone: Iterable[tuple[str, str]]) -> None:
    one = sa.and_(
        hashed.c.repo == repo,
        hashed.c.place == sa.bindparam("at"),
        hashed.c.algorithm == sa.bindparam("by"),
    )
    connection.execute(sa.delete(hashed).where(one), [{"at": place, "by": by} for place, by in gone])


class Hasher:
    """Hashes in the background, one repo after another, the quick ones by themselves. Safe to share between threads."""

    def __init__(self, directory: Directory, hashes: FileHashes) -> None:
        self._directory = directory
        self._hashes = hashes
        self._lock = threading.Lock()
        self._running: dict[str, Hashing] = {}
        self._closed = threading.Event()
        self._queues = {is_quick: _Queue() for is_quick in (True, False)}
        for one in self._queues.values():
            threading.Thread(target=self._serve, args=(one,), daemon=True, name="hasher").start()

    def run(self, repo: str, wanted: Sequence[Wanted]) -> Hashing:
        """Have these hashed; where this repo is being hashed already, that comes first."""
        with self._lock:
            running = self._running.get(repo)
            if running is None:
                running = self._running[repo] = Hashing(repo, wanted)
                self._queues[running.bytes_all <= _QUICK_BYTES].put(running)
            return running

    def close(self) -> None:
        """Stop soon."""
        self._closed.set()
        for one in self._queues.values():
            one.put(None)

    def _serve(self, turns: _Queue) -> None:
        with suppress(OSError, AttributeError):  # who serves goes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (work := turns.get()) is not None:
            try:
                self._hash_all(work)
            except Exception:  # noqa: BLE001  # the thread's outermost frame: who asks is told that it failed
                work.failure = "the node failed to hash it"
                _log.exception("%s could not be hashed", work.repo)
            with self._lock:
                del self._running[work.repo]
            work.done.set()

    def _hash_all(self, work: Hashing) -> None:
        found: dict[Wanted, Digest] = {}
        written_at = time.monotonic()
        for one in work.wanted:
            if self._closed.is_set():
                return
            try:
                digest = self._hash(one, work)
            except OSError as error:
                work.failure = f"{one.place!r} cannot be read: {error.strerror}"
                break
            if digest is not None:
                found[one] = digest
            work.files_done += 1
            if time.monotonic() - written_at > _WRITTEN_EVERY_S:
                self._hashes.keep(work.repo, found)
                found, written_at = {}, time.monotonic()
        self._hashes.keep(work.repo, found)

    def _hash(self, one: Wanted, work: Hashing) -> Digest | None:
        """What it hashes to; None where it is not the file that was seen, or changes meanwhile."""
        before = work.bytes_done
        try:
            fd = self._directory.open(one.place)
        except FileNotFoundError:
            return None
        try:
            if Identity.of(os.fstat(fd)) != one.identity:
                return None

            def tell(done: int) -> None:
                work.bytes_done = before + done

            digest = Digest(one.algorithm, digest_in(fd, one.algorithm, tell))
            return digest if Identity.of(os.fstat(fd)) == one.identity else None
        finally:
            os.close(fd)
