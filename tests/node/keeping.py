"""A data folder with what takes care of it, without a node around it; and what must hold of any."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo
from headrace.node.body.blobs import BlobStore
from headrace.node.body.tree import DataTree
from headrace.node.disk.keeper import Keeper
from headrace.node.disk.pins import Pins
from headrace.node.disk.stock import Stock
from headrace.node.memory.catalog import SqlCatalog
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import SqlInventory
from headrace.plan.eviction import Care
from headrace.testing import content


class Folder:
    """A node's data folder. `database` is opened anew by each, as by another process."""

    def __init__(self, root: Path, care: Care) -> None:
        self.tree = DataTree(root)
        self.tree.prepare()
        self.database = Database.in_folder(root)
        self.inventory = SqlInventory(self.database)
        self.store = BlobStore(self.tree, self.inventory)
        self.stock = Stock(self.database)
        self.pins = Pins(self.database)
        self.catalog = SqlCatalog(self.database)
        self.keeper = Keeper(self.tree, self.stock, self.pins, care)

    def put(self, size: int, seed: int, used_at: float) -> Digest:
        """A verified blob that was used then."""
        data = content(size, seed)
        digest = Digest(Digest.SHA256, hashlib.sha256(data).hexdigest())
        path = self.tree.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.store.record(digest)
        self.inventory.used({digest: used_at})
        return digest

    def put_partial(self, size: int, seed: int) -> Digest:
        """A half fetched file that nobody has, and nobody knows of."""
        digest = Digest(Digest.SHA256, hashlib.sha256(content(size, seed)).hexdigest())
        with self.tree.unfinished(digest).partial.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        return digest

    def has(self, *digests: Digest) -> list[bool]:
        """Which of them have a file and a row; never one without the other."""
        found = [self.tree.blob(one).exists() for one in digests]
        assert found == [self.inventory.verified(one) is not None for one in digests]
        return found

    def list(self, repo: Repo, commit: str, *digests: Digest) -> None:
        """Have the catalog know that a commit holds these."""
        entries = tuple(Entry(f"{one.hex}.bin", 1, one) for one in digests)
        self.catalog.keep_manifest(Manifest(repo, "main", commit, entries, "hub"))


def flip(path: Path, position: int = 0) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(position)
        was = file.read(1)[0]
        file.seek(position)
        file.write(bytes([was ^ 1]))


def taken(root: Path) -> int:
    """What blobs and half fetched files take on disk."""
    files = {}  # by inode: what is published has two names for a moment
    for path in [*root.glob("blobs/*/*/*"), *root.glob("workshop/*.partial")]:
        with suppress(FileNotFoundError):
            facts = path.lstat()
            files[facts.st_ino] = facts.st_blocks * 512
    return sum(files.values())


def assert_agrees(root: Path) -> None:
    """Index and disk say the same: no file without a row, no row without a file, but for what was arriving."""
    with closing(sqlite3.connect(root / "catalog.sqlite")) as connection:
        rows = dict(connection.execute("SELECT digest, size FROM blobs"))
        arriving = dict(connection.execute("SELECT digest, weight FROM arrivals"))
        told = {name: (count, weight) for name, count, weight in connection.execute("SELECT * FROM totals")}
    files = {
        f"{path.parent.parent.name}:{path.name}": path.stat().st_size
        for path in (root / "blobs").rglob("*")
        if path.is_file()
    }
    assert files.keys() - rows.keys() <= arriving.keys()
    assert rows.items() <= files.items()
    partials = {path.name.partition(".")[0] for path in (root / "workshop").glob("*.partial")}
    assert partials <= {digest.partition(":")[2] for digest in arriving}
    assert told.get("blobs", (0, 0)) == (len(rows), sum(rows.values()))
    assert told.get("arrivals", (0, 0)) == (len(arriving), sum(arriving.values()))
