"""Who gets the end of a file that had to be read from the disk, while it is being checked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headrace.manifest import Digest, Entry
from headrace.node.body.blobs import BlobStore, Finding
from headrace.node.body.bodies import RESERVE_BYTES, Stored
from headrace.node.body.rechecks import Recheck, Rechecks
from headrace.node.body.tree import DataTree
from headrace.node.fill.fill import Disrupted
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import SqlInventory
from headrace.node.threads import Threads
from headrace.ranges import Range
from headrace.testing import content

DATA = content(1_000_000)
DIGEST = Digest(Digest.SHA256, hashlib.sha256(DATA).hexdigest())
SIZE = len(DATA)
ENTRY = Entry("a.bin", SIZE, DIGEST)


class SlowStore(BlobStore):
    """A store whose checks end when a test lets them."""

    def __init__(self, folder: Path) -> None:
        layout = DataTree(folder)
        layout.prepare()
        self.database = Database.in_folder(folder)
        super().__init__(layout, SqlInventory(self.database))
        self.may_end = threading.Event()
        self.begun = 0
        path = layout.blob(DIGEST)
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        self.record(DIGEST)

    def examine(self, digest: Digest, pace: object = None) -> Finding:
        self.begun += 1
        self.may_end.wait(20)
        return super().examine(digest)

    async def is_doubted(self) -> bool:
        return self.layout.doubt(DIGEST).exists()


Talk = Callable[[SlowStore, Rechecks], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Talk], None]:
    """Plays readers of one file."""

    def run(talk: Talk) -> None:
        async def main() -> None:
            threads, store = Threads(), SlowStore(tmp_path)
            await talk(store, Rechecks(store, threads))
            store.may_end.set()
            threads.close()
            store.database.close()

        asyncio.run(main())

    return run


def reader(store: SlowStore, rechecks: Rechecks, *, completes: bool = True) -> Stored:
    verified = store.open(DIGEST, SIZE)
    assert verified is not None
    return Stored(verified, store.is_doubted, Recheck(rechecks, ENTRY, completes=completes))


async def give_way() -> None:
    for _ in range(5):
        await asyncio.sleep(0.01)


def test_only_who_began_a_check_need_not_wait_for_its_end(play: Callable[[Talk], None]) -> None:
    async def talk(store: SlowStore, rechecks: Rechecks) -> None:
        first, second, part = (reader(store, rechecks, completes=one < 2) for one in range(3))
        first.from_disk()
        second.from_disk()
        part.from_disk()
        assert await part.reach(0, SIZE) == SIZE - RESERVE_BYTES
        assert await part.reach(SIZE - RESERVE_BYTES, SIZE) == SIZE
        assert await second.reach(0, SIZE) == SIZE - RESERVE_BYTES
        waiting = asyncio.create_task(second.reach(SIZE - RESERVE_BYTES, SIZE))
        assert await first.reach(0, SIZE) == SIZE - RESERVE_BYTES
        assert await first.reach(SIZE - RESERVE_BYTES, SIZE) == SIZE  # after two seconds
        assert not waiting.done()
        store.may_end.set()
        assert await waiting == SIZE
        assert store.begun == 1
        first.from_disk()  # it was a moment ago
        assert rechecks.running(DIGEST) is None
        for body in (first, second, part):
            body.close()

    play(talk)


def test_who_waits_for_what_turns_out_to_be_wrong_is_cut_off(play: Callable[[Talk], None]) -> None:
    async def talk(store: SlowStore, rechecks: Rechecks) -> None:
        path = store.layout.blob(DIGEST)
        path.write_bytes(DATA[::-1])
        store.record(DIGEST)
        first, second = reader(store, rechecks), reader(store, rechecks)
        first.from_disk()
        waiting = [asyncio.create_task(one.reach(SIZE - RESERVE_BYTES, SIZE)) for one in (first, second)]
        await give_way()
        store.may_end.set()
        for one in waiting:
            with pytest.raises(Disrupted):
                await one
        assert not path.exists()
        first.close()
        second.close()

    play(talk)


def test_who_has_just_opened_what_is_put_away_is_cut_off(play: Callable[[Talk], None]) -> None:
    async def talk(store: SlowStore, rechecks: Rechecks) -> None:
        store.layout.blob(DIGEST).write_bytes(DATA[::-1])
        store.record(DIGEST)
        store.may_end.set()
        verified = store.open(DIGEST, SIZE)
        assert verified is not None
        assert store.examine(DIGEST) is Finding.WRONG
        body = Stored(verified, store.is_doubted, Recheck(rechecks, ENTRY, completes=True))
        with pytest.raises(Disrupted):
            await body.reach(0, SIZE)
        body.close()

    play(talk)


@pytest.mark.parametrize("done", ["edited", "linked"])
def test_who_reads_what_is_touched_gets_its_end_when_it_is_known_what_was_done(
    done: str, play: Callable[[Talk], None], tmp_path: Path
) -> None:
    async def talk(store: SlowStore, rechecks: Rechecks) -> None:
        path, body = store.layout.blob(DIGEST), reader(store, rechecks)
        await asyncio.sleep(0.01)  # file systems tick
        if done == "edited":
            times = path.stat()
            with path.open("r+b") as file:
                file.write(b"other")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        else:
            (tmp_path / "backup").hardlink_to(path)
        assert await body.reach(0, SIZE) == SIZE - RESERVE_BYTES
        waiting = asyncio.create_task(body.reach(SIZE - RESERVE_BYTES, SIZE))
        await give_way()
        assert not waiting.done()
        store.may_end.set()
        if done == "edited":
            with pytest.raises(Disrupted):
                await waiting
        else:
            assert await waiting == SIZE
            reader(store, rechecks).close()  # it is given out again without being hashed
        body.close()

    play(talk)


def test_after_a_failure_of_the_disk_it_is_checked_in_any_case(play: Callable[[Talk], None]) -> None:
    async def talk(store: SlowStore, rechecks: Rechecks) -> None:
        store.may_end.set()
        body = reader(store, rechecks, completes=False)
        await body.failed()
        await body.failed()
        assert store.begun == 2
        rechecks.begin_part(ENTRY, Range(5, 10))  # by what list?
        await give_way()
        assert store.begun == 2
        body.close()

    play(talk)
