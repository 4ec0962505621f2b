"""Block lists: who gets them, that they are right, and that a file which has rotted has none."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from headrace.blocklist import BLOCK_SIZE, BLOCKS, BLOCKS_PATH, BlockList, parse_blocks
from headrace.errors import Corrupt
from headrace.manifest import Digest, Entry
from headrace.metrics import Metrics
from headrace.names import Repo
from headrace.node.access.caller import ANYBODY, Callers
from headrace.node.access.gate import Gate
from headrace.node.access.rules import Rules
from headrace.node.access.tokens import AdminToken, KnownTokens, TokenBook
from headrace.node.api.app import Services, create_app
from headrace.node.api.blobs import BlobApi
from headrace.node.api.blocks import BlockApi
from headrace.node.api.capability import LIFE_S, Capabilities, Purpose, Shown, node_key
from headrace.node.api.ongoing import Ongoing
from headrace.node.api.outside import Outside
from headrace.node.body.blobs import BlobStore
from headrace.node.body.blocks import BlockLists
from headrace.node.body.tree import DataTree
from headrace.node.memory.database import Database
from headrace.node.memory.freshness import Freshness, Grade
from headrace.node.memory.inventory import SqlInventory
from headrace.node.memory.standing import Resolved
from headrace.node.process import NodeProcess
from headrace.node.threads import Threads
from headrace.testing import ChaosHub, content
from headrace.wire import BLOCK_BYTES
from tests.node.asking import BIG, BIG_FILE, Reply, ask
from tests.node.conftest import Rig

REPO, DIGEST = Repo("org/tiny"), Digest("sha256", hashlib.sha256(BIG).hexdigest())


class Cleared:
    """Knows of nobody who may not have what is here."""

    async def is_cleared(self, _digest: Digest, _repo: Repo) -> bool:
        return True


def hashes_of(data: bytes) -> bytes:
    starts = range(0, len(data), BLOCK_BYTES)
    return b"".join(hashlib.sha256(data[at : at + BLOCK_BYTES]).digest() for at in starts)


def way_to(url: str) -> str:
    """Where a node has the list of the file at this URL."""
    return ask(url, "HEAD").headers[BLOCKS.lower()]


def list_of(node: NodeProcess, url: str) -> Reply:
    return ask(node.endpoint + way_to(url))


def test_a_file_of_several_blocks_leads_to_its_list(calm: NodeProcess) -> None:
    url = calm.endpoint + BIG_FILE
    asked: tuple[dict[str, Any], ...] = ({}, {"Range": "bytes=5-9"}, {"If_None_Match": f'"{DIGEST.hex}"'})
    for headers in asked:
        assert ask(url, **headers).headers[BLOCKS.lower()].startswith(f"{BLOCKS_PATH}{DIGEST}?")
    reply = list_of(calm, url)
    assert reply.status == 200
    assert reply.body == hashes_of(BIG)
    told = parse_blocks(
        DIGEST,
        len(BIG),
        {
            BLOCK_SIZE: str(BLOCK_BYTES),
            "Content-Digest": reply.headers["content-digest"],
            "X-Linked-Size": reply.headers["x-linked-size"],
            "ETag": reply.headers["etag"],
        },
        reply.body,
    )
    assert len(told) == 3


def test_other_answers_lead_nowhere(calm: NodeProcess) -> None:
    for path in ("config.json", "weights/model-00002-of-00002.safetensors", "absent.bin"):
        assert BLOCKS.lower() not in ask(f"{calm.endpoint}/org/tiny/resolve/main/{path}").headers
    for path in ("/org/gated/resolve/main/weights.bin", "/org/private/resolve/main/secret.bin"):
        assert BLOCKS.lower() not in ask(calm.endpoint + path, "HEAD").headers


def test_a_capability_ends_with_the_belief_that_everybody_may_read() -> None:
    capabilities, shown = Capabilities(b"k" * 32), Shown(DIGEST, REPO)
    for readable_until, expected in ((1030.0, 30), (1001.0, 1), (5000.0, 60)):
        (until,) = parse_qs(capabilities.query(Purpose.BLOCKS, shown, 1000.0, readable_until))["until"]
        assert int(until) - 1000 == expected
    assert capabilities.query(Purpose.BLOCKS, shown, 1000.0, 1000.0) == ""


def test_a_link_to_a_list_ends_with_the_belief_that_everybody_may_read(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub, visibility_ttl=20)
    began = time.time()
    (until,) = parse_qs(urlsplit(way_to(node.endpoint + BIG_FILE)).query)["until"]
    assert int(until) <= time.time() + 20
    assert int(until) >= int(began) + 5


def test_who_was_not_shown_the_file_learns_nothing(
    hub: ChaosHub, start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + BIG_FILE).body == BIG
    query = urlsplit(way_to(node.endpoint + BIG_FILE)).query
    (until,), (proof,) = parse_qs(query)["until"], parse_qs(query)["proof"]
    other = f"sha256:{'0' * 64}"
    capabilities, shown = Capabilities(node_key(tmp_path / "node")), Shown(DIGEST, REPO)
    began, end = time.time() - LIFE_S, time.time()
    expired = capabilities.query(Purpose.BLOCKS, shown, began, end)
    repo = "repo=models%2Forg%2Ftiny"
    of_blob = capabilities.query(Purpose.BLOBS, shown, end, end + 60)
    refusals = [
        ask(f"{node.endpoint}{BLOCKS_PATH}{tail}")
        for tail in (
            str(DIGEST),
            other,
            f"{DIGEST}?{repo}&until={until}",
            f"{DIGEST}?until={until}&proof={proof}",
            f"{DIGEST}?repo=models%2Forg%2Fx&until={until}&proof={proof}",
            f"{DIGEST}?{repo}&until={int(until) + 60}&proof={proof}",
            f"{DIGEST}?{repo}&until={until}&proof={proof[:-1]}{'1' if proof[-1] == '0' else '0'}",
            f"{DIGEST}?{repo}&until={until}&proof=p%C3%A4%FF",
            f"{DIGEST}?{repo}&until=%D9%A1&proof={proof}",
            f"{DIGEST}?{expired}",
            f"{DIGEST}?{of_blob}",
            f"{other}?{query}",
            f"..%2F..%2Fcapability.key?{query}",
            f"sha256:..%2F..%2Fcapability.key?{query}",
        )
    ]
    assert {(one.status, one.body) for one in refusals} == {(403, refusals[0].body)}
    assert "valid" in refusals[0].headers["x-error-message"]
    assert ask(f"{node.endpoint}{BLOCKS_PATH}").status == 404
    assert ask(f"{node.endpoint}{BLOCKS_PATH}{DIGEST}?{query}").status == 200


def test_what_is_not_here_as_a_whole_has_no_list(rig: Rig) -> None:
    reply = list_of(rig.node, rig.big_url)
    assert reply.status == 404
    assert rig.fetched == 0
    assert ask(rig.big_url).body == rig.big
    assert list_of(rig.node, rig.big_url).body == hashes_of(rig.big)


def test_a_file_that_has_rotted_gets_no_list_and_is_fetched_again(
    hub: ChaosHub, start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = start_node(hub)
    url = node.endpoint + BIG_FILE
    assert ask(url).body == BIG
    blob = DataTree(tmp_path / "node").blob(DIGEST)
    facts = blob.stat()
    with blob.open("r+b") as file:
        file.seek(5_000_000)
        file.write(bytes([BIG[5_000_000] ^ 1]))
    os.utime(blob, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a disk does it
    assert list_of(node, url).status == 404
    assert ask(url).body == BIG
    assert list_of(node, url).body == hashes_of(BIG)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """A store with the large file in it."""
    layout = DataTree(tmp_path)
    layout.prepare()
    blob = layout.blob(DIGEST)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(BIG)
    return BlobStore(layout, SqlInventory(Database.in_folder(tmp_path)))


def test_a_list_is_kept_as_long_as_its_file_stays_the_same(store: BlobStore) -> None:
    lists, blob = BlockLists(store), store.layout.blob(DIGEST)
    assert lists.kept(DIGEST) is None
    made = lists.make(DIGEST)
    assert made == lists.kept(DIGEST) == BlockList(DIGEST, len(BIG), hashes_of(BIG))
    os.utime(blob)
    assert lists.kept(DIGEST) is None
    assert lists.make(DIGEST) == lists.kept(DIGEST) == made
    blob.unlink()
    assert lists.kept(DIGEST) is None
    assert lists.make(DIGEST) is None
    assert not store.layout.blocks(DIGEST).exists()


def test_a_kept_list_that_has_rotted_is_none(store: BlobStore) -> None:
    lists, path = BlockLists(store), store.layout.blocks(DIGEST)
    made = lists.make(DIGEST)
    raw = path.read_bytes()
    for at in (3, len(raw) - 1):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert lists.kept(DIGEST) is None
    path.write_bytes(raw)
    assert lists.kept(DIGEST) == made


def test_a_wrong_file_that_was_replaced_meanwhile_is_not_put_away(store: BlobStore) -> None:
    blob = store.layout.blob(DIGEST)
    store.record(DIGEST)
    seen = store._inventory.verified(DIGEST)
    assert seen is not None
    fresh = blob.with_suffix(".new")
    fresh.write_bytes(BIG)
    fresh.replace(blob)
    store.put_away(DIGEST, seen)
    assert blob.exists()


class SlowLists(BlockLists):
    """Lists that take as long to make as a test likes."""

    def __init__(self, store: BlobStore) -> None:
        super().__init__(store)
        self.may_end = threading.Event()
        self.begun = 0

    def make(self, digest: Digest) -> BlockList | None:
        self.begun += 1
        self.may_end.wait(20)
        return super().make(digest)


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
def test_while_a_list_is_made_everybody_is_told_to_come_again(
    store: BlobStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lists, capabilities = SlowLists(store), Capabilities(b"k" * 32)
    caplog.set_level(logging.DEBUG)

    async def talk() -> list[tuple[int, str | None, bytes]]:
        threads = Threads()
        api = BlockApi(lists, capabilities, Cleared(), threads)  # type: ignore[arg-type]  # asked for no more
        at = Resolved(REPO, "c" * 40, ANYBODY, Freshness(Grade.HIT), 0.0, time.time() + 60)
        way = api.header(Entry("big.bin", len(BIG), DIGEST), at)[BLOCKS]
        ask: Any = None  # for what is not asked here
        blobs = BlobApi(ask, ask, capabilities, ask, threads)
        tokens = KnownTokens(TokenBook(Database.in_folder(tmp_path)), threads)
        gate = Gate(Rules(), tokens, AdminToken.in_folder(tmp_path))
        services = Services(
            Callers(b"k"), ask, ask, blobs, api, Metrics(), ask, ask, 3, Outside(()), Ongoing(), gate, {}
        )
        async with TestServer(create_app(services)) as server, ClientSession() as session:

            async def get() -> tuple[int, str | None, bytes]:
                async with session.get(server.make_url(way)) as reply:
                    return reply.status, reply.headers.get("Retry-After"), await reply.read()

            told = await asyncio.gather(get(), get(), get())
            lists.may_end.set()
            last = await get()
        threads.close()
        return [*told, last]

    *early, last = asyncio.run(talk())
    assert {(status, wait) for status, wait, _ in early} == {(503, "1")}
    assert last == (200, None, hashes_of(BIG))
    assert lists.begun == 1
    told = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith("headrace"))
    assert BLOCKS_PATH in told
    assert "proof" not in told


def test_the_key_is_the_owners_and_the_same_for_all(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: node_key(tmp_path), range(8)))
    assert len(keys) == 1
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(Corrupt, match="is no key"):
        node_key(tmp_path)


def test_content_of_other_sizes_is_no_list() -> None:
    data = content(1000)
    digest = Digest("sha256", hashlib.sha256(data).hexdigest())
    assert len(BlockList(digest, 1000, hashes_of(data))) == 1
    assert len(BlockList(digest, 0, b"")) == 0
