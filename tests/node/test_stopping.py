"""Fills that end early: because nobody wants them any more, or because everything was killed."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.node.asking import ask, open_stream

StartNode = Callable[..., NodeProcess]
MIB = 1024 * 1024
BIG = content(16 * MIB, seed=7)
DIGEST = hashlib.sha256(BIG).hexdigest()
PATH = "/org/big/resolve/main/big.safetensors"


def make_hub(tmp_path: Path) -> ChaosHub:
    write_repo(tmp_path / "hub", "org/big", {"big.safetensors": BIG})
    return ChaosHub(tmp_path / "hub")


def settles(hub: ChaosHub, patience_s: float = 10.0) -> bool:
    """Whether the hub stops sending."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if all(one.ended_s is not None for one in hub.log().requests if one.blob == DIGEST):
            return True
        time.sleep(0.05)
    return False


def test_what_nobody_wants_is_stopped_and_continued_when_somebody_does(
    tmp_path: Path, start_node: StartNode
) -> None:
    with make_hub(tmp_path) as hub:
        node = start_node(hub, grace=0.3)
        hub.set_faults(Fault("total", rate=3_000_000))
        with open_stream(node.endpoint + PATH) as response:
            assert response.read(1000) == BIG[:1000]
            time.sleep(0.6)
            assert not settles(hub, 0)  # it is read still
        assert settles(hub)
        before = hub.log().bytes_of(DIGEST)
        assert before < len(BIG) // 2
        hub.clear_faults()
        assert ask(node.endpoint + PATH).body == BIG
        # What was on its way to sixteen lanes when they stopped came in vain.
        assert len(BIG) <= hub.settled_log().bytes_of(DIGEST) < len(BIG) + before


def test_who_comes_back_in_time_finds_it_going_on(tmp_path: Path, start_node: StartNode) -> None:
    with make_hub(tmp_path) as hub:
        node = start_node(hub, grace=0.6)
        hub.set_faults(Fault("total", rate=4_000_000))
        with open_stream(node.endpoint + PATH) as response:
            response.read(1000)
        time.sleep(0.2)
        with open_stream(node.endpoint + PATH) as response:
            response.read(1000)
            time.sleep(0.6)
            assert not settles(hub, 0)


def test_bytes_far_from_the_frontier_are_fetched_first(tmp_path: Path, start_node: StartNode) -> None:
    with make_hub(tmp_path) as hub:
        node = start_node(hub)
        assert ask(node.endpoint + PATH, "HEAD").status == 200
        hub.set_faults(Fault("total", rate=2_000_000))
        at = len(BIG) * 9 // 10
        with open_stream(node.endpoint + PATH) as leader:
            assert leader.read(1000) == BIG[:1000]
            assert ask(node.endpoint + PATH, Range=f"bytes={at}-{at + 999}").body == BIG[at : at + 1000]
            assert ask(node.endpoint + PATH, Range="bytes=-8").body == BIG[-8:]
            assert ask(node.endpoint + PATH, Range="bytes=-65536").body == BIG[-65536:]
            assert hub.log().bytes_of(DIGEST) < len(BIG) * 2 // 3


def read_on(url: str, got: bytearray) -> None:
    """Resume as hub clients do."""
    with (
        contextlib.suppress(ConnectionError, http.client.IncompleteRead),
        open_stream(url, Range=f"bytes={len(got)}-") as response,
    ):
        if response.status == 200:
            got.clear()
        while chunk := response.read1(65536):
            got += chunk


def test_a_killed_node_goes_on_where_it_was(
    tmp_path: Path, start_node: StartNode, free_ports: tuple[int, int]
) -> None:
    pull = [sys.executable, "-m", "headrace", "pull", "org/big", "--quiet"]
    with make_hub(tmp_path) as hub:
        place = {"listen": f"127.0.0.1:{free_ports[0]}", "lanes": 4}
        node = start_node(hub, **place)
        env = {**os.environ, "HF_ENDPOINT": node.endpoint, "HF_HOME": str(tmp_path / "home")}
        hub.set_faults(Fault("rate", rate=2_000_000))
        follower = subprocess.Popen([*pull, "--dest", str(tmp_path / "dest")], env=env)
        got = bytearray()
        with open_stream(node.endpoint + PATH) as response:
            got += response.read(2 * MIB)
            for pid in (node.worker, node.pid):
                os.kill(pid, signal.SIGKILL)
        assert settles(hub)
        node.stop()
        start_node(hub, **place)
        hub.clear_faults()
        while len(got) < len(BIG):
            read_on(node.endpoint + PATH, got)
        assert got == BIG
        assert follower.wait(30) == 0
        assert (tmp_path / "dest" / "big.safetensors").read_bytes() == BIG
        # A second of traffic a lane, and what lay in sockets.
        assert hub.settled_log().bytes_of(DIGEST) <= len(BIG) + 4 * (2_000_000 + 1_000_000)
