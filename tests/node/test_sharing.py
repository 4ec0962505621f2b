"""What is here is given to another repo's readers only if that repo holds it: a digest in a list is only a claim."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.node.asking import Reply, ask, open_stream

StartNode = Callable[..., NodeProcess]
TOKEN: dict[str, Any] = {"Authorization": "Bearer hf_owner"}
BIG, OTHER = content(6_000_000, seed=5), content(6_000_000, seed=6)
SMALL, FALSE = b"a small secret", b"a small  guess"
SHA256 = hashlib.sha256(BIG).hexdigest()
SHA1 = hashlib.sha1(b"blob %d\x00" % len(SMALL) + SMALL, usedforsecurity=False).hexdigest()
FILES = {"big.bin": BIG, "small.txt": SMALL}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One repo for its owner alone, one with the same for everybody, one that says so and lies."""
    root = tmp_path / "hub"
    write_repo(root, "org/closed", FILES, private=True)
    write_repo(root, "org/open", FILES)
    claims = {"big.bin": SHA256, "small.txt": SHA1}
    write_repo(root, "org/liar", {"big.bin": OTHER, "small.txt": FALSE}, digests=claims)
    return root


def get(node: NodeProcess, repo: str, path: str, **headers: Any) -> Reply:
    return ask(f"{node.endpoint}/{repo}/resolve/main/{path}", **headers)


def content_bytes(hub: ChaosHub) -> int:
    return hub.settled_log().blob_bytes


@pytest.mark.parametrize("path", FILES)
def test_what_came_by_somebodys_rights_is_for_who_can_show_that_they_have_it(
    root: Path, start_node: StartNode, path: str
) -> None:
    with ChaosHub(root, tokens={"hf_owner": ["org/*"]}) as hub:
        node = start_node(hub)
        assert get(node, "org/closed", path, **TOKEN).body == FILES[path]
        claimed = ask(f"{node.endpoint}/org/liar/resolve/main/{path}", "HEAD")
        assert claimed.status == 200  # what a list says, it says to everybody
        hub.clear_log()
        for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=5-"}, TOKEN):
            reply = get(node, "org/liar", path, **headers)
            assert (reply.status, "org/liar" in reply.json()["error"]) == (502, True)
        assert ask(node.endpoint + claimed.headers["x-headrace-blob"]).status == 404
        if blocks := claimed.headers.get("x-headrace-blocks"):
            assert ask(node.endpoint + blocks).status == 404
        hub.clear_log()
        assert get(node, "org/open", path).body == FILES[path]
        assert content_bytes(hub) == (65536 if path == "big.bin" else len(SMALL))
        hub.clear_log()
        assert get(node, "org/open", path).body == FILES[path]
        assert get(node, "org/closed", path, **TOKEN).body == FILES[path]
        assert content_bytes(hub) == 0
        # Everybody may have the large one now, from another repo. Small files are each repo's own.
        assert get(node, "org/liar", path).status == (200 if path == "big.bin" else 502)


@pytest.mark.parametrize("path", FILES)
def test_what_everybody_may_have_its_owner_may(root: Path, start_node: StartNode, path: str) -> None:
    with ChaosHub(root, tokens={"hf_owner": ["org/*"]}) as hub:
        node = start_node(hub)
        assert get(node, "org/open", path).body == FILES[path]
        hub.clear_log()
        assert get(node, "org/closed", path, **TOKEN).body == FILES[path]
        assert content_bytes(hub) == (0 if path == "big.bin" else len(SMALL))
        assert get(node, "org/closed", path).status == 401


def test_what_is_on_its_way_by_somebodys_rights_is_not_joined(root: Path, start_node: StartNode) -> None:
    with ChaosHub(root, tokens={"hf_owner": ["org/*"]}) as hub, ThreadPoolExecutor() as pool:
        hub.set_faults(Fault("total", rate=1_500_000))
        node = start_node(hub, patience=1)
        owner = pool.submit(get, node, "org/closed", "big.bin", **TOKEN)
        time.sleep(1.0)
        for repo in ("org/liar", "org/open"):
            reply = get(node, repo, "big.bin")
            assert (reply.status, reply.headers.get("retry-after")) == (503, "5")
        assert owner.result().body == BIG
        assert get(node, "org/liar", "big.bin").status == 502
        assert get(node, "org/open", "big.bin").body == BIG


def test_what_was_left_half_way_is_not_continued_for_others(
    root: Path, start_node: StartNode, tmp_path: Path
) -> None:
    with ChaosHub(root, tokens={"hf_owner": ["org/*"]}) as hub:
        hub.set_faults(Fault("total", rate=1_500_000))
        node = start_node(hub, patience=1, grace=0.1)
        with open_stream(f"{node.endpoint}/org/closed/resolve/main/big.bin", **TOKEN) as stream:
            stream.read(500_000)
        time.sleep(1.0)
        node.stop()
        again = start_node(hub, patience=1, grace=0.1)
        reply = get(again, "org/liar", "big.bin")
        assert reply.status in (502, 503)
        hub.clear_faults()
        assert get(again, "org/closed", "big.bin", **TOKEN).status in (200, 503)
        deadline = time.monotonic() + 20
        while get(again, "org/closed", "big.bin", **TOKEN).body != BIG:
            assert time.monotonic() < deadline
        assert get(again, "org/liar", "big.bin").status == 502
    with sqlite3.connect(tmp_path / "node/catalog.sqlite") as catalog:
        rows = catalog.execute("SELECT repo FROM holders WHERE proven = 1").fetchall()
    assert rows == [("models/org/closed",)]


def test_who_claims_first_has_nothing_of_what_comes_later(root: Path, start_node: StartNode) -> None:
    with ChaosHub(root, tokens={"hf_owner": ["org/*"]}) as hub:
        node = start_node(hub, patience=2)
        head = ask(f"{node.endpoint}/org/liar/resolve/main/small.txt", "HEAD")
        assert get(node, "org/liar", "small.txt").status == 502
        assert get(node, "org/closed", "small.txt", **TOKEN).body == SMALL
        assert get(node, "org/liar", "small.txt").status == 502
        assert ask(node.endpoint + head.headers["x-headrace-blob"]).status == 404


def test_nothing_is_proved_while_the_source_is_away(root: Path, start_node: StartNode) -> None:
    with ChaosHub(root, tokens={"hf_owner": ["org/*"]}) as hub:
        node = start_node(hub, patience=2)
        assert get(node, "org/closed", "big.bin", **TOKEN).body == BIG
        assert ask(f"{node.endpoint}/org/open/resolve/main/big.bin", "HEAD").status == 200
        hub.stop()
        assert get(node, "org/open", "big.bin").status in (502, 504)
        assert get(node, "org/closed", "big.bin", **TOKEN).body == BIG
