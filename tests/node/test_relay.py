"""What a server knows by itself, and what goes between it and the lead."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from aiohttp import ClientError, ClientSession, web
from aiohttp.test_utils import TestServer

from headrace.errors import Busy, StoreError, UsageError
from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.node.api.doors import inner_doors
from headrace.node.api.ongoing import Ongoing
from headrace.node.api.outside import VIEW, View
from headrace.node.body.blobs import BlobStore
from headrace.node.body.tree import DataTree
from headrace.node.cluster.post import Post, log_told, record_told
from headrace.node.cluster.relay import Here, NotHere, Relay, listen_inside
from headrace.node.config import NodeConfig, Upstream
from headrace.node.fill.order import Order
from headrace.node.front import Front
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import SqlInventory
from headrace.node.threads import Threads
from headrace.source.contract import Content

DATA = b"some content"
DIGEST = Digest(Digest.SHA256, hashlib.sha256(DATA).hexdigest())
CONTENT = Content(Repo("org/x"), "c" * 40, Entry("x.bin", len(DATA), DIGEST))

pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Cleared:
    """Knows of nobody who may not have what is here."""

    async def prove(self, _order: Order, _file: BinaryIO) -> None:
        return


CLEARED: Any = Cleared()


class Moving(SqlInventory):
    """A catalog to which the lead moves a doubt just after a server has looked for it there."""

    def __init__(self, database: Database, layout: DataTree) -> None:
        super().__init__(database)
        self._layout = layout

    def doubted_until(self, digest: Digest) -> float:
        found = super().doubted_until(digest)
        if self._layout.doubt(digest).exists():
            self.doubt(digest, time.time() + 60)
            self._layout.doubt(digest).unlink()
        return found


def test_a_doubt_is_known_while_the_lead_writes_it_down(tmp_path: Path) -> None:
    layout = DataTree(tmp_path)
    layout.prepare()
    inventory = Moving(Database.in_folder(tmp_path), layout)

    async def act() -> None:
        here = Here(BlobStore(layout, inventory), inventory, CLEARED, Threads())
        assert not await here.is_doubted(DIGEST)
        layout.mark_doubt(DIGEST)
        assert await here.is_doubted(DIGEST)
        assert not layout.doubt(DIGEST).exists()
        assert await here.is_doubted(DIGEST)

    asyncio.run(act())


def test_what_was_not_verified_as_it_is_now_is_not_given_out(tmp_path: Path) -> None:
    layout = DataTree(tmp_path)
    layout.prepare()
    inventory = SqlInventory(Database.in_folder(tmp_path))
    store = BlobStore(layout, inventory)

    async def act() -> None:
        here = Here(store, inventory, CLEARED, Threads())
        with pytest.raises(NotHere):
            await here.open(Order(CONTENT))
        blob = layout.blob(DIGEST)
        blob.parent.mkdir(parents=True)
        blob.write_bytes(DATA)
        with pytest.raises(NotHere):
            await here.open(Order(CONTENT))
        store.record(DIGEST)
        body = await here.open(Order(CONTENT))
        assert body.file().read() == DATA
        body.close()

    asyncio.run(act())


def relayed(tmp_path: Path, lead: Handler, talk: Callable[[ClientSession, str], Awaitable[None]]) -> None:
    """Have a client talk to a server that passes everything on to this lead."""

    async def act() -> None:
        sock, path = listen_inside(tmp_path)
        app = web.Application()
        app.router.add_route("*", r"/{path:[\s\S]*}", lead)
        front = Front(app, Ongoing(), inner_doors)
        await front.start()
        await front.open(sock)
        relay = Relay(path)

        async def answer(request: web.Request) -> web.StreamResponse:
            request["view"] = View("http://outside", "203.0.113.9")
            try:
                return await relay.answer(request)
            except Busy as error:
                return web.Response(status=503, text=error.message)

        server = web.Application()
        server.router.add_route("*", r"/{path:[\s\S]*}", answer)
        async with TestServer(server) as place, ClientSession(auto_decompress=False) as session:
            await talk(session, str(place.make_url("")))
        await relay.close()
        await front.drain(0.1)
        sock.close()

    asyncio.run(asyncio.wait_for(act(), 20))


def test_a_request_and_its_answer_go_through_as_they_are(tmp_path: Path) -> None:
    heard: list[tuple[str, str, bytes, Any]] = []

    async def lead(request: web.Request) -> web.StreamResponse:
        heard.append((request.method, request.raw_path, await request.read(), request.headers.copy()))
        headers = {"Content-Encoding": "gzip", "X-Error-Code": "Odd", "Connection": "X-Hop", "X-Hop": "1"}
        return web.Response(status=418, body=b"\x1f\x8bnot really", headers=headers)

    async def talk(session: ClientSession, place: str) -> None:
        told = {"Authorization": "Bearer t", "Connection": "X-Mine", "X-Mine": "1", VIEW: '["forged", "x"]'}
        async with session.post(f"{place}//a%2Fb/%C3%A9?q=%20", data=b"body", headers=told) as answer:
            assert (answer.status, await answer.read()) == (418, b"\x1f\x8bnot really")
            assert answer.headers["X-Error-Code"] == "Odd"
            assert answer.headers["Content-Encoding"] == "gzip"
            assert "X-Hop" not in answer.headers

    relayed(tmp_path, lead, talk)
    ((method, _, body, headers),) = heard
    assert (method, body) == ("POST", b"body")
    assert View.parse(headers[VIEW]) == View("http://outside", "203.0.113.9")
    assert len(headers.getall(VIEW)) == 1
    assert headers["Authorization"] == "Bearer t"
    assert "X-Mine" not in headers


def test_a_path_is_passed_on_as_it_was_sent(tmp_path: Path) -> None:
    heard: list[str] = []

    async def lead(request: web.Request) -> web.StreamResponse:
        heard.append(request.raw_path)
        return web.Response()

    targets = ["//a%2Fb/%c3%A9?q=%20&", "/a/../b?", "/x%00%0a", "/", "/a;b=c?d=http://e/f", "/%23?a=%23"]

    async def talk(session: ClientSession, place: str) -> None:
        del session  # it would tidy up what it sends
        host, _, port = place.removeprefix("http://").rstrip("/").partition(":")
        for target in targets:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert b" 200 " in await reader.readline()
            writer.close()

    relayed(tmp_path, lead, talk)
    assert [one.rstrip("?") for one in heard] == [one.rstrip("?") for one in targets]


@pytest.mark.parametrize("promised", [True, False])
def test_an_answer_that_ends_early_is_reset(tmp_path: Path, promised: bool) -> None:  # noqa: FBT001
    async def lead(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if promised:
            response.content_length = 100
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.close()
        return response

    async def talk(session: ClientSession, place: str) -> None:
        with pytest.raises((ClientError, ConnectionResetError)):
            async with session.get(place) as answer:
                await answer.read()

    relayed(tmp_path, lead, talk)


def test_without_a_lead_there_is_a_clear_answer(tmp_path: Path) -> None:
    async def act() -> None:
        sock, path = listen_inside(tmp_path)
        sock.close()
        relay = Relay(path)
        with pytest.raises(Busy, match="cannot fetch now"):
            await relay.check()
        await relay.close()

    asyncio.run(act())


def test_a_lead_that_is_stuck_keeps_nobody_waiting_who_asks_how_it_does(tmp_path: Path) -> None:
    async def act() -> None:
        sock, path = listen_inside(tmp_path)
        sock.listen()  # and nobody takes what comes
        relay = Relay(path)
        with pytest.raises(Busy, match="cannot fetch now"):
            await relay.check()
        await relay.close()
        sock.close()

    asyncio.run(asyncio.wait_for(act(), 15))


def test_sockets_that_were_left_are_removed_and_others_are_not(tmp_path: Path) -> None:
    left, gone = listen_inside(tmp_path)
    left.close()
    used, kept = listen_inside(tmp_path)
    used.listen()
    assert not gone.exists()
    third, _ = listen_inside(tmp_path)
    assert kept.exists()
    third.close()
    used.close()


def test_where_no_socket_can_be_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no socket can be made"):
        listen_inside(tmp_path / "gone")


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '["a"]', "[[[[", "\ud800"])
def test_what_is_no_view_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        View.parse(text)


def test_a_record_is_logged_by_the_lead_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("headrace.node.test_relay")
    try:
        raise ValueError("on\nlines")  # noqa: TRY301 - for its trace
    except ValueError:
        record = logger.makeRecord(
            logger.name, logging.ERROR, "x.py", 1, "100 %% of %s", ("it",), sys.exc_info(), extra={"bytes": 5}
        )
    log_told(record_told(record))
    (found,) = caplog.records
    assert found.getMessage() == "100 % of it"
    assert found.exc_text is not None
    assert "ValueError: on" in found.exc_text
    assert found.__dict__["bytes"] == 5


def test_what_a_server_is_told_goes_through_a_line(tmp_path: Path) -> None:
    config = NodeConfig((Upstream("hub", "http://127.0.0.1:9"),), tmp_path, workers=3)
    post = Post(config, 7, 8, tmp_path / "x.sock", {"": 30})
    assert b"\n" not in post.as_line()
    assert Post.of_line(post.as_line()) == post


def test_a_socket_of_the_node_is_its_users_alone(tmp_path: Path) -> None:
    sock, path = listen_inside(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sock.family == socket.AF_UNIX
    sock.close()
