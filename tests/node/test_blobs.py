"""What a node gives out as verified."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from headrace.errors import DigestMismatch
from headrace.manifest import Digest, Entry
from headrace.node.body.blobs import BlobStore, Verified, identity_of
from headrace.node.body.bodies import LOOK_BYTES, RESERVE_BYTES, Stored
from headrace.node.body.rechecks import Recheck
from headrace.node.body.tree import DataTree
from headrace.node.fill.fill import Disrupted
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import SqlInventory
from headrace.wire import BLOCK_BYTES
from tests.node.checks import NO_CHECKS

DATA = b"water" * 1000
DIGEST = Digest(Digest.SHA256, hashlib.sha256(DATA).hexdigest())
SIZE = len(DATA)
ENTRY = Entry("a.bin", SIZE, DIGEST)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    tree = DataTree(tmp_path)
    tree.prepare()
    database = Database.in_folder(tmp_path)
    yield BlobStore(tree, SqlInventory(database))
    database.close()


def put(store: BlobStore, data: bytes) -> Path:
    path = store.layout.blob(DIGEST)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def given_out(store: BlobStore) -> bytes | None:
    verified = store.open(DIGEST, SIZE)
    if verified is None:
        return None
    with verified.file as file:
        return file.read()


def found(file: BinaryIO) -> Verified:
    return Verified(file, identity_of(os.fstat(file.fileno())))


def test_who_reads_a_file_that_is_found_to_have_rotted_is_cut_off(tmp_path: Path) -> None:
    path, size = tmp_path / "blob", 3 * LOOK_BYTES
    path.touch()
    os.truncate(path, size)
    doubted = False

    async def is_doubted() -> bool:
        return doubted

    async def read(body: Stored) -> None:
        nonlocal doubted
        assert await body.reach(5, size) == LOOK_BYTES + 5
        assert await body.reach(size - 2 * BLOCK_BYTES, size) == size - RESERVE_BYTES
        assert await body.reach(size - 5, size) == size
        path.unlink()  # to make room
        assert await body.reach(5, size) == LOOK_BYTES + 5
        doubted = True
        with pytest.raises(Disrupted):
            await body.reach(5, size)

    with path.open("rb") as file:
        asyncio.run(read(Stored(found(file), is_doubted, Recheck(NO_CHECKS, ENTRY, completes=True))))


@pytest.mark.parametrize("change", ["edited", "truncated"])
def test_who_reads_a_file_that_is_changed_is_cut_off(change: str, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(DATA)

    async def is_doubted() -> bool:
        return False

    with path.open("rb") as file:
        body = Stored(found(file), is_doubted, Recheck(NO_CHECKS, ENTRY, completes=True))
        assert asyncio.run(body.reach(0, SIZE)) == SIZE
        time.sleep(0.01)  # file systems tick
        if change == "edited":
            with path.open("r+b") as other:
                other.write(b"W")
        else:
            os.truncate(path, SIZE // 2)
        with pytest.raises(Disrupted):
            asyncio.run(body.reach(0, SIZE))


def test_nothing_is_given_out_that_was_not_verified(store: BlobStore) -> None:
    assert (store.is_there(DIGEST), given_out(store)) == (False, None)
    put(store, DATA)
    assert (store.is_there(DIGEST), given_out(store)) == (True, None)
    store.check(DIGEST, SIZE)
    assert given_out(store) == DATA


def test_what_the_worker_published_is_given_out_at_once(store: BlobStore) -> None:
    put(store, DATA)
    store.record(DIGEST)
    assert given_out(store) == DATA


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"!", b"W" + DATA[1:], b""])
def test_what_is_wrong_is_put_away(store: BlobStore, data: bytes) -> None:
    path = put(store, DATA)
    store.record(DIGEST)
    path.write_bytes(data)
    assert given_out(store) is None
    store.check(DIGEST, SIZE)
    assert not path.exists()


def test_another_size_in_a_promise_costs_no_right_content(store: BlobStore) -> None:
    put(store, DATA)
    assert store.open(DIGEST, SIZE + 1) is None
    with pytest.raises(DigestMismatch, match="promised"):
        store.check(DIGEST, SIZE + 1)
    assert given_out(store) == DATA


def test_a_file_that_went_away_is_no_error(store: BlobStore) -> None:
    store.check(DIGEST, SIZE)
    store.record(DIGEST)
    assert given_out(store) is None
