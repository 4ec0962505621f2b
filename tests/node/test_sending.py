"""How content leaves a node: from memory, from a disk that takes its time, and when something is wrong with either."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import http.client
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestServer

from headrace.manifest import Digest, Entry
from headrace.metrics import HIT, Metrics
from headrace.node.body.handover import Handover
from headrace.node.body.pages import READ_BYTES, Pages
from headrace.node.body.sender import Sender
from headrace.node.body.tree import DataTree
from headrace.node.loop import WatchedSelector, run
from headrace.node.process import NodeProcess
from headrace.node.threads import Threads
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import BIG, BIG_FILE, ask, open_stream
from tests.node.conftest import Rig
from tests.pull.mounts import in_user_space

StartNode = Callable[..., NodeProcess]
MIB = 1024 * 1024


def blob_of(data: bytes, folder: Path) -> Path:
    """The file of a node's own that holds this content."""
    return DataTree(folder).blob(Digest(Digest.SHA256, hashlib.sha256(data).hexdigest()))


def until(condition: Callable[[], object], patience_s: float = 20) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def drop_pages(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_disk_that_does_not_answer_keeps_only_those_waiting_who_need_it(
    hub: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + BIG_FILE).body == BIG
    with in_user_space(tmp_path / "fuse") as (point, faults):
        blob = blob_of(BIG, tmp_path / "node")
        slow = shutil.move(blob.parent, point / "slow")
        blob.parent.symlink_to(slow)
        assert ask(node.endpoint + BIG_FILE).body == BIG  # hashed anew: it is another file than was verified
        faults.held = 1
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(ask(node.endpoint + BIG_FILE).body))
        reader.start()
        until(lambda: faults.waiting)
        assert ask(node.endpoint + "/healthz").status == 200
        assert ask(node.endpoint + "/org/tiny/resolve/main/config.json").body == b'{"hidden": 1}'
        assert not got
        faults.held = 0
        reader.join()
        assert got == [BIG]


def test_what_is_not_in_memory_is_seen_and_read(tmp_path: Path) -> None:
    data = content(3 * MIB)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                pytest.skip("this file system does not say what is in memory")
        pages = Pages(file)
        assert pages.warm(0, len(data)) == len(data)
        assert pages.at_hand(MIB, MIB + 10) == data[MIB : MIB + 10]
        drop_pages(path)
        assert Pages(file).at_hand(MIB, MIB + 10) is None
        drop_pages(path)
        pages = Pages(file)
        assert pages.warm(MIB, len(data)) == MIB
        assert pages.bring(MIB, len(data)) == len(data)
        assert pages.warm(MIB, len(data)) == len(data)
        assert pages.read(MIB, len(data)) == data[MIB : MIB + READ_BYTES]
        assert pages.read(len(data) - 5, len(data)) == data[-5:]
        assert pages.bring(len(data), len(data) + 5) == len(data)


@pytest.mark.parametrize("wanted", [None, (0, 9), (4_000_000, 8_999_999)], ids=["all", "little", "much"])
def test_dropped_pages_come_as_they_were(rig: Rig, rough_data: Path, wanted: tuple[int, int] | None) -> None:
    assert ask(rig.big_url).body == rig.big
    drop_pages(blob_of(rig.big, rough_data))
    if wanted is None:
        assert ask(rig.big_url).body == rig.big
    else:
        first, last = wanted
        assert ask(rig.big_url, Range=f"bytes={first}-{last}").body == rig.big[first : last + 1]


def test_one_connection_serves_large_and_small_in_turn(rig: Rig) -> None:
    connection = http.client.HTTPConnection(urlsplit(rig.node.endpoint).netloc, timeout=20)
    for _ in range(2):
        for url, data in ((rig.big_url, rig.big), (rig.small_url, rig.small)):
            connection.request("GET", urlsplit(url).path)
            assert connection.getresponse().read() == data
    connection.close()


def test_a_client_that_asks_twice_before_it_reads_gets_both(rig: Rig) -> None:
    assert ask(rig.big_url).body == rig.big
    parts = urlsplit(rig.big_url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode()
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as sock:
        sock.sendall(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
        came = bytearray()
        while block := sock.recv(MIB):
            came += block
    first = came.index(b"\r\n\r\n") + 4
    assert came[first : first + len(rig.big)] == rig.big
    assert came.endswith(rig.big)
    assert came.count(b"HTTP/1.1 200 OK") == 2


def test_a_file_that_becomes_shorter_ends_in_a_reset(
    hub: ChaosHub, shelf: Path, start_node: StartNode, tmp_path: Path
) -> None:
    large = content(40 * MIB, seed=77)
    write_repo(shelf, "org/large", {"large.safetensors": large})
    node = start_node(hub)
    url = node.endpoint + "/org/large/resolve/main/large.safetensors"
    assert ask(url).body == large
    with open_stream(url) as response:
        assert response.read(10) == large[:10]
        os.truncate(blob_of(large, tmp_path / "node"), 4096)
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)) as caught:
            response.read()
    assert caught.type is ConnectionResetError
    assert ask(node.endpoint + "/healthz").status == 200


def test_the_loop_tells_how_long_it_attended_to_nothing_else() -> None:
    heard: list[float] = []

    async def main(selector: WatchedSelector) -> None:
        await asyncio.sleep(0)
        selector.listener = heard.append
        time.sleep(0.02)  # noqa: ASYNC251 - what must not be done is what is measured
        await asyncio.sleep(0)

    run(main)
    assert max(heard) >= 0.02


def test_long_turns_are_among_the_metrics(calm: NodeProcess) -> None:
    told = ask(calm.endpoint + "/metrics").body.decode()
    assert "headrace_loop_longest_turn_seconds" in told
    assert 'headrace_loop_turn_seconds_bucket{le="0.05"}' in told


class Away:
    """A file on a disk far away, which does not answer any more."""

    origin = HIT

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)

    async def stored(self, _entry: Entry, *, completes: bool = False) -> Away:
        del completes
        return self

    async def is_doubted(self, _digest: Digest) -> bool:
        return False

    async def reach(self, position: int, _stop: int) -> int:
        if position:
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        return MIB

    def file(self) -> BinaryIO:
        return self._file

    def from_disk(self) -> None:
        return

    def close(self) -> None:
        self._file.close()


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
def test_a_disk_that_times_out_is_not_taken_for_a_client_that_left(tmp_path: Path) -> None:
    path, data = tmp_path / "file", content(2 * MIB)
    path.write_bytes(data)
    entry = Entry("file", len(data), Digest(Digest.SHA256, hashlib.sha256(data).hexdigest()))

    async def act() -> None:
        away: Any = Away(path)
        sender = Sender(away, Threads(), Metrics(), Handover("", lambda _: False))

        async def answer(request: web.Request) -> web.StreamResponse:
            request["began"] = time.monotonic()
            return await sender.send_stored(request, entry, {}, None)

        app = web.Application()
        app.router.add_get("/", answer)
        async with TestServer(app) as place, ClientSession(timeout=ClientTimeout(total=5)) as session:
            with pytest.raises((ClientError, ConnectionResetError)):
                async with session.get(place.make_url("/")) as reply:
                    await reply.read()

    asyncio.run(act())
