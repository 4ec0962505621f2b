"""What came wrong once: nobody may join a part of it to what comes right later."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.events import BlobFailed, BlobStarted, BytesForgotten, BytesLanded
from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.node.access.holders import Holders
from headrace.node.body.blobs import BlobStore
from headrace.node.body.tree import DataTree
from headrace.node.config import NodeConfig, Upstream
from headrace.node.disk.keeper import Keeper
from headrace.node.disk.pins import Pins
from headrace.node.disk.stock import Stock
from headrace.node.fill.fills import Fills
from headrace.node.fill.link import WorkerLink
from headrace.node.fill.order import Order
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import Held, SqlInventory
from headrace.node.process import NodeProcess
from headrace.node.threads import Threads
from headrace.plan.eviction import Care
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.store.lease import LeaseWatch, boot_id
from headrace.testing import ChaosHub, Fault, content, write_repo
from headrace.wire import BLOCK_BYTES
from tests.node.asking import ask, open_stream

StartNode = Callable[..., NodeProcess]
DATA = content(2 * BLOCK_BYTES, seed=11)
DIGEST = hashlib.sha256(DATA).hexdigest()
PATH = "/org/two/resolve/main/two.safetensors"


@pytest.mark.parametrize("until", ["it is fetched anew", "it is right"])
def test_a_doubt_outlives_a_node_that_never_heard_of_it(
    until: str, tmp_path: Path, start_node: StartNode, free_ports: tuple[int, int]
) -> None:
    write_repo(tmp_path / "hub", "org/two", {"two.safetensors": DATA})
    with ChaosHub(tmp_path / "hub") as hub:
        place = {"listen": f"127.0.0.1:{free_ports[0]}", "lanes": 4}
        node = start_node(hub, **place)
        hub.set_faults(Fault("flip", offset=1_000_000, times=1), Fault("total", rate=4_000_000))
        with open_stream(node.endpoint + PATH) as response:
            wrong = response.read(2_000_000)
            assert wrong != DATA[: len(wrong)]
            os.kill(node.pid, signal.SIGSTOP)
            wanted = len(DATA) + 500_000 if until == "it is fetched anew" else 2 * len(DATA)
            while hub.log().bytes_of(DIGEST) < wanted:
                time.sleep(0.05)
            if until == "it is right":
                while not list(tmp_path.rglob(f"blobs/**/{DIGEST}")):
                    time.sleep(0.05)
            os.kill(node.pid, signal.SIGKILL)
        node.stop()
        node = start_node(hub, **place)
        hub.clear_faults()
        reply = ask(node.endpoint + PATH, Range=f"bytes={len(wrong)}-")
        assert reply.status == 200
        assert reply.body == DATA


CONTENT = Content(
    Repo("org/two"), "c" * 40, Entry("two.safetensors", len(DATA), Digest(Digest.SHA256, DIGEST))
)
KEY = str(CONTENT.entry.digest)


class SlowInventory(SqlInventory):
    """Writes down what is held when the test lets it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Database.in_folder(folder))
        self.free = threading.Event()

    def hold(self, digest: Digest, held: Held | None) -> None:
        assert self.free.wait(10)
        super().hold(digest, held)


def make_fills(folder: Path) -> tuple[Fills, SqlInventory]:
    """The fills of a node whose worker has yet to start."""
    inventory = SqlInventory(Database.in_folder(folder))
    return fills_with(folder, inventory), inventory


def fills_with(folder: Path, inventory: SqlInventory) -> Fills:
    layout = DataTree(folder)
    layout.prepare()
    link = WorkerLink(NodeConfig((Upstream("hub", "http://127.0.0.1:9"),), folder), ["true"])
    database = Database.in_folder(folder)
    holders = Holders(database)
    holders.began(CONTENT.entry.digest, CONTENT.repo)
    keeper = Keeper(layout, Stock(database), Pins(database), Care())
    return Fills(BlobStore(layout, inventory), inventory, holders, link, Threads(), 60.0, keeper)


def an_hour_passes(fills: Fills, inventory: SqlInventory) -> None:
    fills._doubted.clear()
    inventory.doubt(CONTENT.entry.digest, 1.0)


def test_an_hour_begins_when_the_fill_ends_however_long_it_took(tmp_path: Path) -> None:
    async def act() -> None:
        fills, inventory = make_fills(tmp_path)
        fills.read(Order(CONTENT), resumes=False)
        for event in (
            BlobStarted("two.safetensors", KEY, len(DATA), 0),
            BytesLanded(KEY, 0, len(DATA), "hub"),
            BytesForgotten(KEY, 0, len(DATA)),
        ):
            fills.take(event)
        await fills.close(4.0)
        an_hour_passes(fills, inventory)
        assert await fills.is_doubted(CONTENT.entry.digest)
        fills.take(BlobFailed("two.safetensors", KEY, "all_sources_failed", "nobody delivers it"))
        assert len(fills) == 0
        assert await fills.is_doubted(CONTENT.entry.digest)
        await fills.close(4.0)
        an_hour_passes(fills, inventory)
        assert not await fills.is_doubted(CONTENT.entry.digest)
        # It is begun again, and those who were cut off have not been given anything right since.
        inventory.hold(CONTENT.entry.digest, Held(0, boot_id()))
        fills.read(Order(CONTENT), resumes=False)
        await fills.close(4.0)
        assert await fills.is_doubted(CONTENT.entry.digest)

    asyncio.run(act())


def begun(fills: Fills, stop: int) -> asyncio.Task[int]:
    """Somebody reads what has landed up to there."""
    reader = fills.read(Order(CONTENT), resumes=False)
    fills.take(BytesLanded(KEY, 0, stop, ""))
    fills.take(BlobStarted("two.safetensors", KEY, len(DATA), stop))
    return asyncio.ensure_future(reader.reach(Range(0, stop)))


def test_nobody_is_given_a_byte_before_it_is_written_down_what_is_held(tmp_path: Path) -> None:
    async def act() -> None:
        inventory = SlowInventory(tmp_path)
        fills = fills_with(tmp_path, inventory)
        reading = begun(fills, 100)
        await asyncio.sleep(0.2)
        assert not reading.done()
        inventory.free.set()
        assert await reading == 100
        assert inventory.held(CONTENT.entry.digest) == Held(len(DATA) - 1, boot_id())

    asyncio.run(act())


def test_what_is_held_is_read_after_what_is_still_being_written(tmp_path: Path) -> None:
    async def act() -> None:
        inventory = SlowInventory(tmp_path)
        fills = fills_with(tmp_path, inventory)
        inventory.free.set()
        assert await begun(fills, BLOCK_BYTES) == BLOCK_BYTES
        inventory.free.clear()
        moving = asyncio.ensure_future(fills.hold(CONTENT.entry.digest, 0))
        await asyncio.sleep(0)
        fills.take(BlobFailed("two.safetensors", KEY, "all_sources_failed", "nobody delivers it"))
        reading = begun(fills, len(DATA))
        await asyncio.sleep(0.2)
        assert not reading.done()
        inventory.free.set()
        await moving
        await fills.close(4.0)
        await asyncio.sleep(0.1)
        assert not reading.done()  # its first block is held, and all others may have been given

    asyncio.run(act())


def test_a_file_that_somebody_put_there_is_looked_at_first(tmp_path: Path, start_node: StartNode) -> None:
    write_repo(tmp_path / "hub", "org/two", {"two.safetensors": DATA})
    with ChaosHub(tmp_path / "hub") as hub, ThreadPoolExecutor() as pool:
        node = start_node(hub)
        layout = DataTree(tmp_path / "node")
        lease = LeaseWatch(layout.unfinished(CONTENT.entry.digest)).acquire()
        assert lease is not None
        asking = pool.submit(ask, node.endpoint + PATH)
        time.sleep(0.5)  # the worker waits for us
        blob = layout.blob(CONTENT.entry.digest)
        blob.parent.mkdir(parents=True)
        blob.write_bytes(bytes(len(DATA)))
        lease.release()
        assert asking.result().body == DATA


def test_a_beginning_that_is_right_is_not_joined_to_an_end_that_was_wrong(
    tmp_path: Path, start_node: StartNode
) -> None:
    write_repo(tmp_path / "hub", "org/two", {"two.safetensors": DATA})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub)
        hub.set_faults(Fault("flip", offset=len(DATA) - 5, times=1), Fault("total", rate=8_000_000))
        end = ask(node.endpoint + PATH, Range=f"bytes={BLOCK_BYTES}-{len(DATA) - 1}")
        assert end.status == 206
        assert end.body != DATA[BLOCK_BYTES:]
        beginning = ask(node.endpoint + PATH, Range=f"bytes=0-{BLOCK_BYTES - 1}")
        assert (beginning.status, beginning.body) == (200, DATA)
