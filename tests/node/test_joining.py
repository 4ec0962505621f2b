"""What came wrong once: nobody may join a part of it to what comes right later."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
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
