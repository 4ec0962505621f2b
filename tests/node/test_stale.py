"""Branches move, hubs go away: what a node believes, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, write_repo
from tests.node.asking import BIG, BIG_FILE, TINY, ask


@pytest.mark.parametrize(("ttl", "second"), [(0, b"new"), (60, b"old")])
def test_a_branch_is_believed_for_its_time(
    tmp_path: Path, start_node: Callable[..., NodeProcess], ttl: int, second: bytes
) -> None:
    write_repo(tmp_path / "hub", "org/x", {"a.txt": b"old"})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, ref_ttl=ttl)
        first = ask(node.endpoint + "/org/x/resolve/main/a.txt")
        write_repo(tmp_path / "hub", "org/x", {"a.txt": b"new"})
        later = ask(node.endpoint + "/org/x/resolve/main/a.txt")
        by_commit = ask(node.endpoint + f"/org/x/resolve/{first.headers['x-repo-commit']}/a.txt")
    assert (first.body, later.body, by_commit.body) == (b"old", second, b"old")
    assert (first.headers["x-repo-commit"] == later.headers["x-repo-commit"]) is (ttl > 0)


def test_with_the_hub_away_what_is_known_is_served_and_says_so(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub, ref_ttl=0, visibility_ttl=0, patience=0.5)
    assert ask(node.endpoint + BIG_FILE).body == BIG
    tree = "/api/models/org/tiny/tree/main?recursive=true"
    info = "/api/models/org/tiny"
    fresh = {target: ask(node.endpoint + target) for target in (tree, info)}
    hub.stop()
    for target in (tree, info, BIG_FILE):
        stale = ask(node.endpoint + target)
        assert stale.status == 200
        assert "cannot be asked" in stale.headers["x-hf-warning"]
        assert stale.headers["age"].isdecimal()
        assert stale.body == (fresh[target].body if target in fresh else BIG)
    for target in (
        "/org/tiny/resolve/main/config.json",
        "/api/models/org/data",
        "/org/tiny/resolve/v2/a.txt",
    ):
        reply = ask(node.endpoint + target)
        assert reply.status in (502, 503, 504), target
        error = reply.json()["error"]
        assert "cannot" in error
        # What is remembered of the outage was said about somebody else's repo.
        assert "/resolve/" in target or "://" not in error
    assert ask(node.endpoint + BIG_FILE, "HEAD").status == 200


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_only_complains_is_away(
    hub: ChaosHub, start_node: Callable[..., NodeProcess], status: int
) -> None:
    node = start_node(hub, ref_ttl=0, visibility_ttl=0)
    assert ask(node.endpoint + "/org/tiny/resolve/main/config.json").status == 200
    hub.set_faults(Fault("status", host="any", status=status, delay_s=7))
    assert ask(node.endpoint + "/org/tiny/resolve/main/config.json").body == TINY["config.json"]
    unknown = ask(node.endpoint + "/api/datasets/org/data")
    assert (unknown.status, unknown.headers["retry-after"]) == (503, "7")


def test_a_hub_that_is_back_is_noticed(
    tmp_path: Path, shelf: Path, start_node: Callable[..., NodeProcess], free_ports: tuple[int, int]
) -> None:
    hub = ChaosHub(shelf, ports=free_ports)
    with hub:
        node = start_node(hub, ref_ttl=0, visibility_ttl=0)
        assert ask(node.endpoint + "/api/models/org/tiny").status == 200
    assert "x-hf-warning" in ask(node.endpoint + "/api/models/org/tiny").headers
    node.stop()
    with hub:
        again = start_node(hub, ref_ttl=0, visibility_ttl=0)
        assert "x-hf-warning" not in ask(again.endpoint + "/api/models/org/tiny").headers


def test_a_restarted_node_asks_for_no_byte_again(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + BIG_FILE).body == BIG
    assert node.stop() == 0
    hub.clear_log()
    assert ask(start_node(hub).endpoint + BIG_FILE).body == BIG
    assert hub.log().requests == ()


def test_a_damaged_blob_is_fetched_again(
    hub: ChaosHub, start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + BIG_FILE).body == BIG
    (blob,) = (tmp_path / "node/blobs/sha256").glob("??/*")
    hub.clear_log()
    blob.write_bytes(BIG)  # another time on it, the same content: hashed, and good
    assert ask(node.endpoint + BIG_FILE).body == BIG
    assert hub.log().blob_bytes == 0
    blob.write_bytes(b"\0" + BIG[1:])
    assert ask(node.endpoint + BIG_FILE).body == BIG
    assert hub.log().blob_bytes == len(BIG)
