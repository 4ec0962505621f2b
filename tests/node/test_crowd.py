"""Many clients of one cold file: one of them pays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.crowd import download


def test_a_hundred_clients_cost_one_fetch(tmp_path: Path, start_node: Callable[..., NodeProcess]) -> None:
    big = content(32 * 1024 * 1024)
    write_repo(tmp_path / "hub", "org/big", {"big.safetensors": big})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub)
        clients = download(f"{node.endpoint}/org/big/resolve/main/big.safetensors", big, 100)
        assert [client.is_done for client in clients] == [True] * 100
        brought = hub.settled_log().bytes_of(hashlib.sha256(big).hexdigest())
    assert len(big) <= brought <= 1.01 * len(big)
