"""The catalog remembers, and says when it cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace.errors import UsageError
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo, RepoKind
from headrace.node.memory.catalog import Catalog, Kept, Ref, Seen, SqlCatalog, Visibility
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import Held, Identity, Inventory, SqlInventory

REPO, COMMIT = Repo("org/x"), "c" * 40
SMALL, LARGE = Digest(Digest.GIT_BLOB_SHA1, "b" * 40), Digest(Digest.SHA256, "a" * 64)
PATHS = ("a.txt", "dir-x", "dir/deep/er.bin", "dir/é.txt", "dir/z", "dir0", "new\nline", "z")
MANIFEST = Manifest(REPO, "main", COMMIT, tuple(Entry(path, 2**40, LARGE) for path in PATHS), "hub")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.in_folder(tmp_path)
    yield database
    database.close()


@pytest.fixture
def catalog(database: Database) -> SqlCatalog:
    return SqlCatalog(database)


@pytest.fixture
def inventory(database: Database) -> SqlInventory:
    return SqlInventory(database)


def test_they_are_what_the_ports_ask_for(catalog: SqlCatalog, inventory: SqlInventory) -> None:
    port: Catalog = catalog
    assert port.seen(REPO) is None
    other: Inventory = inventory
    assert other.verified(LARGE) is None


def test_all_of_it_outlives_the_process(
    database: Database, catalog: SqlCatalog, inventory: SqlInventory, tmp_path: Path
) -> None:
    catalog.see(REPO, Seen(Visibility.PUBLIC, 1.5))
    catalog.see(REPO, Seen(Visibility.GATED, 2.5))
    catalog.point(REPO, "main", Ref(COMMIT, 3.5))
    catalog.keep("/api", Kept("{}", "/next", 4.5))
    inventory.verify(LARGE, Identity(1, 2, 3))
    inventory.doubt(LARGE, 9.0)
    catalog.keep_manifest(MANIFEST)
    database.close()
    later = Database.in_folder(tmp_path)
    again, there = SqlCatalog(later), SqlInventory(later)
    assert again.seen(REPO) == Seen(Visibility.GATED, 2.5)
    assert again.seen(Repo("org/x", RepoKind.DATASET)) is None
    assert again.ref(REPO, "main") == Ref(COMMIT, 3.5)
    assert again.kept("/api") == Kept("{}", "/next", 4.5)
    assert there.verified(LARGE) == Identity(1, 2, 3)
    assert (there.doubted_until(LARGE), there.doubted_until(SMALL)) == (9.0, 0.0)
    assert again.has_manifest(REPO, COMMIT)
    later.close()


def test_what_is_gone_is_forgotten(catalog: SqlCatalog, inventory: SqlInventory) -> None:
    catalog.point(REPO, "main", Ref(COMMIT, 1.0))
    catalog.point(REPO, "main", None)
    inventory.verify(LARGE, Identity(1, 2, 3))
    inventory.withdraw(LARGE, 1)
    assert catalog.ref(REPO, "main") is None
    assert inventory.verified(LARGE) is None


def paths(catalog: SqlCatalog, folder: str, *, deep: bool, after: str = "", most: int = 100) -> list[str]:
    return [row.path for row in catalog.page(REPO, COMMIT, folder, deep=deep, after=after, most=most)]


def test_files_and_folders_are_listed(catalog: SqlCatalog) -> None:
    catalog.keep_manifest(MANIFEST)
    catalog.keep_manifest(MANIFEST)
    everything = sorted([*PATHS, "dir", "dir/deep"], key=str.encode)
    assert paths(catalog, "", deep=True) == everything
    assert paths(catalog, "", deep=False) == ["a.txt", "dir", "dir-x", "dir0", "new\nline", "z"]
    assert paths(catalog, "dir", deep=False) == ["dir/deep", "dir/z", "dir/é.txt"]
    assert paths(catalog, "dir", deep=True) == ["dir/deep", "dir/deep/er.bin", "dir/z", "dir/é.txt"]
    assert paths(catalog, "absent", deep=True) == []
    pages, after = [], ""
    while page := paths(catalog, "", deep=True, after=after, most=3):
        pages += page
        after = page[-1]
    assert pages == everything


def test_entries(catalog: SqlCatalog) -> None:
    catalog.keep_manifest(MANIFEST)
    found = catalog.entry(REPO, COMMIT, "dir/é.txt")
    assert found is not None
    assert (found.size, found.digest) == (2**40, LARGE)
    folder = catalog.entry(REPO, COMMIT, "dir")
    assert folder is not None
    assert folder.digest is None
    assert catalog.entry(REPO, COMMIT, "absent") is None
    assert catalog.entry(REPO, "d" * 40, "z") is None


def test_an_empty_commit_is_known_too(catalog: SqlCatalog) -> None:
    catalog.keep_manifest(Manifest(REPO, "main", COMMIT, (), "hub"))
    assert catalog.has_manifest(REPO, COMMIT)
    assert paths(catalog, "", deep=True) == []


def test_a_catalog_of_a_newer_version_is_left_alone(database: Database, tmp_path: Path) -> None:
    database.close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE schema SET version = 99"))
    engine.dispose()
    with pytest.raises(UsageError, match="99"):
        Database.in_folder(tmp_path)


def test_two_processes_count_each_row_once(tmp_path: Path) -> None:
    databases = [Database.in_folder(tmp_path), Database.in_folder(tmp_path)]
    together = threading.Barrier(len(databases))

    def point(database: Database) -> None:
        catalog = SqlCatalog(database)
        for number in range(100):
            together.wait()
            catalog.point(REPO, f"branch-{number}", Ref(COMMIT, 1.0))

    with ThreadPoolExecutor(len(databases)) as pool:
        list(pool.map(point, databases))
    for database in databases:
        database.close()
    with sa.create_engine(f"sqlite:///{tmp_path / 'catalog.sqlite'}").connect() as connection:
        counted = connection.scalar(sa.text("SELECT rows FROM totals WHERE name = 'refs'"))
        assert counted == connection.scalar(sa.text("SELECT count(*) FROM refs")) == 100


def test_what_a_loss_of_power_must_not_take_is_on_disk_when_it_is_written(
    catalog: SqlCatalog, inventory: SqlInventory
) -> None:
    told: list[int] = []

    def note(connection: sa.Connection) -> None:
        told.append(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    sa.event.listen(sa.Engine, "commit", note)
    try:
        catalog.see(REPO, Seen(Visibility.PUBLIC, 1.5))
        inventory.hold(LARGE, Held(0, "boot"))
        inventory.doubt(LARGE, 9.0)
        inventory.hold(LARGE, None)
    finally:
        sa.event.remove(sa.Engine, "commit", note)
    normal, full = 1, 2
    assert told == [normal, full, full, normal]
