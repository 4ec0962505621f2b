"""A node that may take so much of the disk, under traffic of much more."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import headrace
from headrace.errors import SourceFull
from headrace.node.process import NodeProcess
from headrace.plan.eviction import Care
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.node.asking import ask, open_stream
from tests.node.keeping import Folder, assert_agrees, taken
from tests.pull.mounts import in_memory

MIB = 1024 * 1024
StartNode = Callable[..., NodeProcess]


def url(node: NodeProcess, path: str) -> str:
    return f"{node.endpoint}/org/x/resolve/main/{path}"


def figures(node: NodeProcess) -> dict[str, float]:
    told = ask(node.endpoint + "/metrics").body.decode()
    return {one.name: one.value for family in text_string_to_metric_families(told) for one in family.samples}


def wait_until(holds: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass
class Sampler:
    """Looks at a folder all along."""

    root: Path
    most: int = 0
    looks: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most, self.looks = max(self.most, taken(self.root)), self.looks + 1

    @contextmanager
    def looking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@pytest.mark.parametrize(
    ("quota", "traffic", "size"),
    [(25 * MIB, 60 * MIB, MIB), pytest.param(250 * MIB, 600 * MIB, 10 * MIB, marks=pytest.mark.soak)],
    ids=["small", "real"],
)
def test_a_quota_holds_under_traffic_and_every_byte_is_right(
    quota: int, traffic: int, size: int, tmp_path: Path, start_node: StartNode
) -> None:
    data, wanted = tmp_path / "node", random.Random(1)
    files = {f"{seed}.bin": content(size + seed * 1000, seed) for seed in range(traffic // size)}
    files |= {f"{seed}.json": b"%d" % seed for seed in range(20)}
    write_repo(tmp_path / "hub", "org/x", files)
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, quota=quota, free_space=0)
        order = [*files, *wanted.sample(sorted(files), len(files) // 2)]
        wanted.shuffle(order)
        sampler = Sampler(data)
        with sampler.looking(), ThreadPoolExecutor(4) as crowd:
            answers = crowd.map(lambda path: ask(url(node, path)).body == files[path], order)
            assert all(answers)
        assert sampler.looks
        assert sampler.most <= quota
        found = figures(node)
        assert found["headrace_evicted_bytes_total"] > traffic - quota - size
        assert found["headrace_quota_bytes"] == quota
        assert found["headrace_free_bytes"] > 0
        wait_until(lambda: figures(node)["headrace_blob_bytes"] <= 0.9 * quota, 5)
        node.stop()
        assert_agrees(data)


def test_what_is_read_may_be_more_and_goes_when_it_was_read(tmp_path: Path, start_node: StartNode) -> None:
    data, quota, size = tmp_path / "node", 20 * MIB, 9 * MIB
    files = {f"{seed}.bin": content(size, seed) for seed in range(4)}
    write_repo(tmp_path / "hub", "org/x", files)
    with ChaosHub(tmp_path / "hub") as hub, ExitStack() as readers:
        node = start_node(hub, quota=quota, free_space=0)
        streams = [readers.enter_context(open_stream(url(node, path))) for path in files]
        first = [stream.read(1000) for stream in streams]
        wait_until(lambda: taken(data) >= 4 * size, 20)
        time.sleep(1.5)  # the disk is looked after meanwhile
        assert [one + stream.read() for one, stream in zip(first, streams, strict=True)] == [*files.values()]
        readers.close()
        wait_until(lambda: taken(data) <= quota, 5)
        wait_until(lambda: figures(node)["headrace_blob_bytes"] <= quota, 5)


def test_what_nobody_reads_any_more_is_not_fetched_on_beyond_the_quota(
    tmp_path: Path, start_node: StartNode
) -> None:
    data, quota, size = tmp_path / "node", 20 * MIB, 9 * MIB
    files = {f"{seed}.bin": content(size, seed) for seed in range(3)}
    write_repo(tmp_path / "hub", "org/x", files)
    with ChaosHub(tmp_path / "hub") as hub, ExitStack() as readers:
        hub.set_faults(Fault("rate", rate=300_000))
        node = start_node(hub, quota=quota, free_space=0, grace=3600)
        streams = [readers.enter_context(open_stream(url(node, path))) for path in files]
        assert all(stream.read(1000) for stream in streams)
        wait_until(lambda: taken(data) >= 3 * size, 10)
        readers.close()
        wait_until(lambda: taken(data) <= quota, 5)
        hub.clear_faults()
        for path, body in files.items():
            assert ask(url(node, path)).body == body


def test_a_file_larger_than_the_quota_is_refused_at_once_and_nothing_goes_for_it(
    tmp_path: Path, start_node: StartNode
) -> None:
    files = {"warm.bin": content(2 * MIB, 1), "big.bin": content(9 * MIB, 2), "small.json": b"{}"}
    write_repo(tmp_path / "hub", "org/x", files)
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, quota=8 * MIB, free_space=0)
        assert ask(url(node, "warm.bin")).body == files["warm.bin"]
        hub.clear_log()
        for reply in (ask(url(node, "big.bin")), ask(url(node, "big.bin"), Range="bytes=0-9")):
            assert reply.status == HTTPStatus.INSUFFICIENT_STORAGE
            assert reply.json() == {"error": reply.headers["x-error-message"]}
            assert str(9 * MIB) in reply.json()["error"]
            assert str(8 * MIB) in reply.json()["error"]
        with pytest.raises(SourceFull, match=str(8 * MIB)):  # and it is not asked again for a minute
            headrace.pull("org/x", include="big.bin", sources=node.endpoint, dest=tmp_path / "pulled")
        for path in ("small.json", "warm.bin"):
            assert ask(url(node, path)).body == files[path]
        assert hub.settled_log().blob_bytes == 2
        assert figures(node)["headrace_evicted_blobs_total"] == 0
        assert figures(node)["headrace_no_room_total"] == 3
        head = ask(url(node, "big.bin"), "HEAD")
        assert head.status == HTTPStatus.OK


def test_so_much_of_a_small_disk_stays_free(tmp_path: Path, start_node: StartNode) -> None:
    files = {f"{seed}.bin": content(2 * MIB, seed) for seed in range(20)}
    write_repo(tmp_path / "hub", "org/x", files)
    floor = 12 * MIB
    with in_memory(tmp_path / "node", "size=32m") as disk, ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, free_space=floor)
        for path, body in files.items():
            assert ask(url(node, path)).body == body
            facts = os.statvfs(disk)
            assert facts.f_bavail * facts.f_frsize >= floor - 2 * MIB  # small ones may have some of it
        wait_until(lambda: figures(node)["headrace_free_bytes"] >= floor, 5)
        assert ask(url(node, "19.bin")).headers["cache-status"].startswith("headrace; hit")
        node.stop()


def test_what_was_used_when_outlives_the_node(tmp_path: Path, start_node: StartNode) -> None:
    files = {f"{seed}.bin": content(2 * MIB, seed) for seed in range(6)}
    write_repo(tmp_path / "hub", "org/x", files)
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub)
        for path in (*files, "0.bin"):
            assert ask(url(node, path)).body == files[path]
        node.stop()
        node = start_node(hub, quota=11 * MIB, free_space=0)
        wait_until(lambda: figures(node)["headrace_evicted_blobs_total"] > 0, 10)
        hub.clear_log()
        assert ask(url(node, "0.bin")).body == files["0.bin"]
        assert hub.settled_log().blob_bytes == 0
        assert ask(url(node, "1.bin")).body == files["1.bin"]
        assert hub.settled_log().blob_bytes == 2 * MIB


def test_nobody_walks_the_blobs_to_look_after_them(tmp_path: Path) -> None:
    folder = Folder(tmp_path, Care(quota=20_000, free_space=0))
    held = [folder.put(1000, seed, seed) for seed in range(30)]
    listed: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("os.listdir", "os.scandir"):
            listed.append(str(arguments[0]))

    sys.addaudithook(watch)
    folder.keeper.begin()
    folder.keeper.tend([])
    folder.keeper.admit(held[0], 1000)
    folder.keeper.settle()
    watching = False
    assert folder.keeper.account.evicted_files > 0
    assert listed
    assert not [path for path in listed if not path.startswith(str(folder.tree.workshop))]
