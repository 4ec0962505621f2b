"""Catalogs of earlier versions, as these wrote them, become today's on the first start; a copy stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headrace.errors import NoSpace
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.disk.pins import Pins
from headrace.node.disk.stock import Stock
from headrace.node.memory.catalog import Ref, SqlCatalog
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import Held, Identity, SqlInventory
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import TINY, ask
from tests.pull.mounts import in_memory

REPO, COMMIT, MANY = Repo("org/x"), "c" * 40, 50
# As the code of version 2 made it.
VERSION_2 = """
CREATE TABLE answers ("key" TEXT NOT NULL, body TEXT NOT NULL, link TEXT, at FLOAT NOT NULL,
                      weight BIGINT DEFAULT '0' NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE blobs (digest TEXT NOT NULL, size BIGINT NOT NULL, inode BIGINT NOT NULL, modified_ns BIGINT NOT NULL,
                    PRIMARY KEY (digest));
CREATE TABLE commits (id INTEGER NOT NULL, repo TEXT NOT NULL, "commit" TEXT NOT NULL, source TEXT NOT NULL,
                      PRIMARY KEY (id), UNIQUE (repo, "commit"));
CREATE TABLE doubts (digest TEXT NOT NULL, until FLOAT NOT NULL, PRIMARY KEY (digest));
CREATE TABLE entries (commit_id INTEGER NOT NULL, path TEXT NOT NULL, folder TEXT NOT NULL, size BIGINT NOT NULL,
                      digest TEXT, PRIMARY KEY (commit_id, path));
CREATE TABLE held (digest TEXT NOT NULL, block BIGINT NOT NULL, boot TEXT NOT NULL, PRIMARY KEY (digest));
CREATE TABLE refs (repo TEXT NOT NULL, revision TEXT NOT NULL, "commit" TEXT NOT NULL, at FLOAT NOT NULL,
                   PRIMARY KEY (repo, revision));
CREATE TABLE repos (repo TEXT NOT NULL, visibility TEXT NOT NULL, at FLOAT NOT NULL, PRIMARY KEY (repo));
CREATE TABLE schema (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE totals (name TEXT NOT NULL, rows BIGINT NOT NULL, weight BIGINT NOT NULL, PRIMARY KEY (name));
CREATE INDEX repos_by_age ON repos (at);
CREATE INDEX refs_by_age ON refs (at);
CREATE INDEX entries_by_folder ON entries (commit_id, folder, path);
CREATE INDEX answers_by_age ON answers (at);
INSERT INTO schema VALUES (2);
INSERT INTO repos VALUES ('models/org/x', 'public', 1.0);
INSERT INTO totals VALUES ('repos', 1, 0), ('refs', 1, 0), ('answers', 1, 1000);
"""


def digest(number: int) -> Digest:
    return Digest(Digest.SHA256, f"{number:064x}")


def version_2(folder: Path, filling: int = 1000) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "catalog.sqlite"
    with closing(sqlite3.connect(file)) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript(VERSION_2)
        old.execute("INSERT INTO refs VALUES ('models/org/x', 'main', ?, 2.0)", (COMMIT,))
        old.execute("INSERT INTO commits VALUES (7, 'models/org/x', ?, 'hub')", (COMMIT,))
        for number in range(MANY):
            told = (f"{number}.bin", str(digest(number)))
            old.execute("INSERT INTO entries VALUES (7, ?, '', 100, ?)", told)
            old.execute("INSERT INTO blobs VALUES (?, 100, 5, ?)", (told[1], (number + 1) * 10**9))
        old.execute("INSERT INTO held VALUES (?, 4, 'a boot')", (str(digest(999)),))
        old.execute("INSERT INTO answers VALUES ('/api/x', ?, NULL, 3.0, 1000)", ("x" * filling,))
        old.commit()
    return file


def version_of(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        (found,) = connection.execute("SELECT version FROM schema").fetchone()
        return int(found)


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Database]:
    version_2(tmp_path)
    database = Database.in_folder(tmp_path)
    yield database
    database.close()


def test_what_version_2_knew_is_known_counted_and_of_an_age(upgraded: Database, tmp_path: Path) -> None:
    catalog, inventory, stock = SqlCatalog(upgraded), SqlInventory(upgraded), Stock(upgraded)
    assert catalog.ref(REPO, "main") == Ref(COMMIT, 2.0)
    row = catalog.entry(REPO, COMMIT, "3.bin")
    assert row is not None
    assert row.digest == digest(3)
    assert inventory.verified(digest(3)) == Identity(100, 5, 4 * 10**9)
    assert inventory.held(digest(999)) == Held(4, "a boot")
    counts = stock.counts()
    assert (counts.files, counts.blobs) == (MANY, MANY * 100)
    assert [one.digest for one in stock.oldest(None, 3)] == [digest(0), digest(1), digest(2)]
    inventory.withdraw(digest(3), 100)
    assert stock.counts().blobs == (MANY - 1) * 100
    Pins(upgraded).pin(REPO, "main")
    assert len(Pins(upgraded).blobs()) == MANY - 1
    stock.tidy()
    assert inventory.held(digest(999)) is not None  # as old as the upgrade
    assert version_of(tmp_path / "catalog.sqlite") == 3


def test_a_copy_of_what_was_stays_until_the_next_time(upgraded: Database, tmp_path: Path) -> None:
    copy = tmp_path / "catalog.sqlite.v2"
    assert version_of(copy) == 2
    with closing(sqlite3.connect(copy)) as old:
        assert old.execute("SELECT count(*) FROM blobs").fetchone() == (MANY,)
    copied_at = copy.stat().st_mtime_ns
    Database.in_folder(tmp_path).close()
    assert copy.stat().st_mtime_ns == copied_at
    assert {path.name for path in tmp_path.glob("catalog.sqlite.*")} == {copy.name}


def test_an_older_copy_makes_room_for_the_new_one(tmp_path: Path) -> None:
    version_2(tmp_path)
    (tmp_path / "catalog.sqlite.v1").write_bytes(b"old")
    Database.in_folder(tmp_path).close()
    assert {path.name for path in tmp_path.glob("catalog.sqlite.*")} == {"catalog.sqlite.v2"}


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = version_2(tmp_path)
    with closing(sqlite3.connect(file)) as old:
        before = list(old.iterdump())
        old.execute("CREATE TABLE blobs_by_use (stands INTEGER)")  # where an index is to be
        old.commit()
    with pytest.raises(Exception, match="blobs_by_use"):
        Database.in_folder(tmp_path)
    with closing(sqlite3.connect(file)) as old:
        old.execute("DROP TABLE blobs_by_use")
        old.commit()
        assert list(old.iterdump()) == before
    Database.in_folder(tmp_path).close()
    assert version_of(file) == 3


def test_without_room_for_the_copy_nothing_is_changed(tmp_path: Path) -> None:
    with in_memory(tmp_path / "node", "size=4m") as disk:
        file = version_2(disk, 1_500_000)
        filler = disk / "filler"
        filler.write_bytes(bytes(1_000_000))
        with pytest.raises(NoSpace, match="version 2 cannot be copied"):
            Database.in_folder(disk)
        assert version_of(file) == 2
        filler.unlink()
        Database.in_folder(disk).close()
        assert version_of(file) == 3


def test_a_node_starts_in_the_folder_of_an_earlier_one(
    tmp_path: Path, hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    version_2(tmp_path / "node")
    node = start_node(hub)
    assert ask(node.endpoint + "/org/tiny/resolve/main/config.json").body == TINY["config.json"]
