"""What the scrubber reads, in which order, and what it makes of it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from headrace.errors import StoreError
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo, RepoKind
from headrace.node.api.refusals import refusal_of
from headrace.node.body.blobs import BlobStore, Finding
from headrace.node.body.tree import DataTree
from headrace.node.disk.scrubber import DAY_S, Scrubber
from headrace.node.disk.scrubbing import Scrubbing
from headrace.node.memory.catalog import Ref, Seen, SqlCatalog, Told, Visibility
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import Identity, SqlInventory
from headrace.node.memory.whereabouts import Whereabouts
from headrace.testing import content
from headrace.wire import BLOCK_BYTES
from tests.node.test_sending import drop_pages
from tests.pull.mounts import in_user_space

DATA = [content(3000, seed) for seed in range(6)]
FAST = Scrubbing(rate=2**40, days=30.0, used_days=1.0)


def digest_of(data: bytes) -> Digest:
    return Digest(Digest.SHA256, hashlib.sha256(data).hexdigest())


class Disk:
    """A store with files in it, and a catalog that a test may write to."""

    def __init__(self, folder: Path, layout: DataTree | None = None) -> None:
        self.folder = folder
        self.layout = layout or DataTree(folder)
        self.layout.prepare()
        self.database = Database.in_folder(folder)
        self.inventory = SqlInventory(self.database)
        self.store = BlobStore(self.layout, self.inventory)
        self.lost: list[Digest] = []
        self.store.bereft = self.lost.append
        self.read: list[int] = []

    def put(self, data: bytes, *, checked_at: float = 0.0, used_at: float = 0.0) -> Path:
        """A file, verified once."""
        path = self.layout.blob(digest_of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.store.record(digest_of(data))
        self.tell("checked_at = ?, used_at = ?", checked_at, used_at, digest=digest_of(data))
        return path

    def tell(self, values: str, *told: float | None, digest: Digest) -> None:
        with closing(sqlite3.connect(self.folder / "catalog.sqlite")) as catalog, catalog:
            catalog.execute(f"UPDATE blobs SET {values} WHERE digest = ?", (*told, str(digest)))

    def holds(self, data: bytes) -> bool:
        """Whether it would be given out."""
        verified = self.store.open(digest_of(data), len(data))
        if verified is not None:
            verified.file.close()
        return verified is not None

    def scrubber(self, bounds: Scrubbing = FAST) -> Scrubber:
        return Scrubber(self.store, self.inventory, bounds, self.read.append)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.database.close()


def order(disk: Disk, most: int = 16) -> list[int]:
    now = time.time()
    due = disk.inventory.unchecked(now - 30 * DAY_S, now - DAY_S, most)
    return [[digest_of(data) for data in DATA].index(one) for one in due]


def test_what_was_used_since_comes_first_then_what_was_hashed_longest_ago(disk: Disk) -> None:
    now = time.time()
    disk.put(DATA[0], checked_at=now - 31 * DAY_S)
    disk.put(DATA[1], checked_at=now - 40 * DAY_S)
    disk.put(DATA[2], checked_at=now - 2 * DAY_S, used_at=now)
    disk.put(DATA[3], checked_at=now - 2 * DAY_S, used_at=now - 3 * DAY_S)
    disk.put(DATA[4], checked_at=now - 3600, used_at=now)
    disk.put(DATA[5])
    assert order(disk) == [2, 5, 1, 0]
    assert order(disk, most=2) == [2, 5]
    assert disk.scrubber().round() == 4
    assert order(disk) == []
    assert sum(disk.read) == 4 * 3000


def test_when_a_file_was_hashed_outlives_the_node(disk: Disk) -> None:
    disk.put(DATA[0])
    assert disk.scrubber().round() == 1
    again = Scrubber(disk.store, SqlInventory(Database.in_folder(disk.folder)), FAST)
    assert again.round() == 0
    assert again.oldest_check_s() < 60
    disk.put(DATA[1])
    again = disk.scrubber(replace(FAST, days=1e6, used_days=1e6))
    assert (again.round(), again.oldest_check_s()) == (0, float("inf"))


def test_a_file_that_an_earlier_version_recorded_is_believed_until_it_is_read(disk: Disk) -> None:
    digest = digest_of(DATA[0])
    path = disk.put(DATA[0])
    disk.tell("changed_ns = ?", None, digest=digest)
    assert disk.holds(DATA[0])
    disk.scrubber().round()
    assert disk.inventory.verified(digest) == disk.store.identity(digest)
    time.sleep(0.01)  # file systems tick
    facts = path.stat()
    path.write_bytes(DATA[1])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert not disk.holds(DATA[0])


def test_what_is_gone_is_forgotten_and_what_is_wrong_is_told(disk: Disk) -> None:
    disk.put(DATA[0]).unlink()
    disk.put(DATA[1]).write_bytes(DATA[2])
    disk.put(DATA[3])
    disk.scrubber().round()
    known = [disk.inventory.verified(digest_of(data)) for data in DATA]
    assert [one is not None for one in known] == [False, False, False, True, False, False]
    assert disk.lost == [digest_of(DATA[1])]
    assert disk.layout.doubt(digest_of(DATA[1])).exists()


def test_a_file_that_cannot_be_told_keeps_no_other_from_its_turn(disk: Disk) -> None:
    disk.put(DATA[0])
    disk.put(DATA[1])

    class Busy(BlobStore):
        def examine(self, digest: Digest, pace: object = None) -> Finding:
            if digest == digest_of(DATA[0]):
                raise StoreError("cannot read it")
            return Finding.CHANGED

    scrubber = Scrubber(Busy(disk.layout, disk.inventory), disk.inventory, FAST)
    assert scrubber.round() == 2
    assert scrubber.round() == 0
    disk.store.check(digest_of(DATA[0]), 3000)
    assert disk.holds(DATA[0])


def test_it_reads_at_its_rate_and_ends_at_once(disk: Disk) -> None:
    disk.put(content(3 * BLOCK_BYTES))
    begun = threading.Event()

    def read(count: int) -> None:
        disk.read.append(count)
        begun.set()

    scrubber = Scrubber(disk.store, disk.inventory, replace(FAST, rate=1024), read)
    scrubber.start()
    assert begun.wait(20)
    scrubber.stop()
    deadline = time.monotonic() + 20
    while any(thread.name == "scrubber" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert disk.read == [BLOCK_BYTES]  # at this rate the next one would come in an hour


def test_with_no_rate_nothing_is_read(disk: Disk) -> None:
    disk.put(DATA[0])
    disk.scrubber(replace(FAST, rate=0)).start()
    assert not any(thread.name == "scrubber" for thread in threading.enumerate())
    assert disk.read == []


def test_reading_leaves_in_memory_what_was_there_and_no_more(disk: Disk) -> None:
    path = disk.put(content(2 * BLOCK_BYTES))
    with path.open("rb") as file:
        if not is_warm(file, 0):
            pytest.skip("this file system does not say what is in memory")
        drop_pages(path)
        disk.scrubber().round()
        assert not is_warm(file, BLOCK_BYTES // 2)
        assert not is_warm(file, BLOCK_BYTES + BLOCK_BYTES // 2)
        file.read()
        disk.tell("checked_at = ?", 0.0, digest=digest_of(content(2 * BLOCK_BYTES)))
        disk.scrubber().round()
        assert is_warm(file, BLOCK_BYTES // 2)
    assert disk.read == [BLOCK_BYTES] * 4


def is_warm(file: BinaryIO, position: int) -> bool:
    """Whether a byte is in memory, as far as that is told."""
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # else the look itself brings more
    try:
        return os.preadv(file.fileno(), [bytearray(1)], position, os.RWF_NOWAIT) > 0
    except OSError:
        return False


def test_a_block_that_the_disk_does_not_give_costs_that_block(tmp_path: Path) -> None:
    data = content(4 * BLOCK_BYTES)
    digest = digest_of(data)
    with in_user_space(tmp_path / "fuse") as (point, faults):
        disk = Disk(tmp_path, DataTree(point))
        path = disk.put(data)
        assert disk.store.examine(digest) is Finding.SOUND
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        faults.spoiled = BLOCK_BYTES + 500_000
        assert disk.store.examine(digest) is Finding.WRONG
        faults.spoiled = 0
        assert not path.exists()
        assert disk.lost == [digest]
        partial = disk.layout.unfinished(digest).partial
        assert partial.read_bytes()[2 * BLOCK_BYTES :] == data[2 * BLOCK_BYTES :]
        assert disk.layout.unfinished(digest).journal.exists()
        disk.database.close()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_file_that_may_not_be_read_is_named_in_the_log_and_the_client_comes_again() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-tests-") as name:
        Path(name).chmod(0o755)
        disk = Disk(Path(name))
        path = disk.put(DATA[0])
        path.chmod(0)
        with as_nobody(), pytest.raises(StoreError, match=f"cannot read {path}") as caught:
            disk.store.open(digest_of(DATA[0]), 3000)
        disk.database.close()
        told = refusal_of(caught.value, signed_in=False)
        assert told.status == 503
        assert name not in told.message
        assert path.exists()


def test_content_is_found_where_it_is_for_everybody(disk: Disk) -> None:
    catalog, digest = SqlCatalog(disk.database), digest_of(DATA[0])
    told = {
        Repo("org/open"): (Visibility.PUBLIC, 1.0),
        Repo("org/later", RepoKind.DATASET): (Visibility.PUBLIC, 2.0),
        Repo("org/closed"): (Visibility.PRIVATE, 3.0),
        Repo("org/gated"): (Visibility.GATED, 4.0),
    }
    for repo, (visibility, at) in told.items():
        manifest = Manifest(repo, "main", "c" * 40, (Entry("a/b.bin", 3000, digest),), "hub")
        catalog.learn(repo, "main", Told(Seen(visibility, at), Ref("c" * 40, at), None, manifest))
    found = Whereabouts(disk.database).public(digest)
    assert [(one.repo, one.commit, one.entry) for one in found] == [
        (repo, "c" * 40, Entry("a/b.bin", 3000, digest))
        for repo in (Repo("org/later", RepoKind.DATASET), Repo("org/open"))
    ]
    assert Whereabouts(disk.database).public(digest_of(DATA[1])) == []


def test_what_a_directory_told_of_is_to_be_had_from_that_alone(disk: Disk) -> None:
    catalog, digest, repo = SqlCatalog(disk.database), digest_of(DATA[0]), Repo("team/x")
    manifest = Manifest(repo, "main", "c" * 40, (Entry("b.bin", 3000, digest),), "team")
    told = Told(Seen(Visibility.PUBLIC, 1.0), Ref("c" * 40, 1.0), None, manifest)
    catalog.learn(repo, "main", told)
    for owner, count in {"team": 1, None: 0, "other": 0}.items():
        whereabouts = Whereabouts(disk.database, ("team", "other"), {repo: owner}.get)
        assert len(whereabouts.public(digest)) == count


def test_an_identity_is_that_of_one_file_only() -> None:
    known = Identity(1, 2, 3, 4)
    assert known.is_still(known)
    assert Identity(1, 2, 3).is_still(known)
    for other in ({"size": 0}, {"inode": 0}, {"modified_ns": 0}, {"changed_ns": 0}):
        assert not known.is_still(replace(known, **other))


def test_a_wrong_file_that_the_disk_does_not_let_go_of_is_given_to_nobody(disk: Disk) -> None:
    digest = digest_of(DATA[0])
    disk.put(DATA[0]).write_bytes(DATA[1])
    disk.store.record(digest)  # it has rotted since: nothing tells
    assert disk.holds(DATA[0])
    disk.layout.doubts.write_text("where nobody can make a folder")
    with pytest.raises(StoreError):
        disk.store.examine(digest)
    assert not disk.holds(DATA[0])
    disk.layout.doubts.unlink()
    assert disk.store.examine(digest) is Finding.WRONG
    disk.put(DATA[0])
    assert disk.holds(DATA[0])
