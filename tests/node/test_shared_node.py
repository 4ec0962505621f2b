"""A node for a team: its own tokens at the door, callers' tokens for the hub behind it, a directory beside that."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import Reply, ask
from tests.node.test_gate import create
from tests.node.test_own_hub import put_repo, until
from tests.node.test_rot import OFTEN
from tests.node.test_workers import ask_of

MAY, OTHER = "hf_of_one_who_may", "hf_of_somebody_else"
CLOSED, OURS, FALSE = (content(5_000_000, seed=seed) for seed in (31, 32, 33))
SHA256 = hashlib.sha256(OURS).hexdigest()
PRIVATE, TEAM, CLAIM = "org/closed", "acme/m", "org/liar"


class Shared:
    """A hub, a mirror of it, a directory, and a node of all three with two tokens: `all` is not for all of it."""

    def __init__(self, hub: ChaosHub, mirror: ChaosHub, team: Path, data: Path) -> None:
        self.hub, self.mirror, self.team = hub, mirror, team
        data.mkdir()
        self.data, self.all = data, create(data, "all", "org/*", "acme/*")
        self.hubs = create(data, "hubs", "org/*")
        sources = {"hub": hub.endpoint, "mirror": mirror.endpoint, "team": str(team)}
        self.node = NodeProcess(data, sources, log_level="debug")

    def get(self, repo: str, *words: str, method: str = "GET") -> Reply:
        """A repo's large file, with a token of these words."""
        return self.at(f"/{repo}/resolve/main/big.bin", *words, method=method)

    def at(self, target: str, *words: str, method: str = "GET") -> Reply:
        """What is at a path, with such a token."""
        shown: dict[str, Any] = {"Authorization": f"Bearer {':'.join(words)}"} if words else {}
        return ask(self.node.endpoint + target, method, **shown)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    root = tmp_path / "hub"
    write_repo(root, PRIVATE, {"big.bin": CLOSED}, private=True)
    write_repo(root, "other/x", {"big.bin": CLOSED}, private=True)
    write_repo(root, CLAIM, {"big.bin": FALSE}, digests={"big.bin": SHA256})
    team = tmp_path / "team"
    put_repo(team / TEAM, {"big.bin": OURS, "config.json": b"{}"})
    put_repo(team / "acme/copy", {"big.bin": CLOSED})
    tokens = {MAY: ["org/*", "other/*"], OTHER: []}
    with ChaosHub(root, tokens=tokens) as hub, ChaosHub(root, tokens=tokens) as mirror:
        shared = Shared(hub, mirror, team, tmp_path / "node")
        with shared.node:
            yield shared


def test_a_file_is_for_whom_the_node_and_its_source_let_in(shared: Shared) -> None:
    assert shared.get(PRIVATE, shared.all, MAY).body == CLOSED
    assert shared.get(PRIVATE, shared.hubs, MAY).body == CLOSED
    # By the hub's word, to who may come in …
    assert shared.get(PRIVATE, shared.all).status == 401
    assert shared.get(PRIVATE, shared.all, OTHER).status == 404
    # … by the node's, to whom the hub would let in.
    for reply in (shared.get(PRIVATE), shared.get(PRIVATE, MAY)):
        assert 'realm="headrace"' in reply.headers["www-authenticate"]
    assert shared.get("other/x", shared.all, MAY).status == 403
    # What a directory has is for whom the node lets in, whatever else they show.
    for shown in ("", MAY, "hf_wrong"):
        assert shared.get(TEAM, shared.all, shown).body == OURS
    assert shared.get(TEAM, shared.hubs, MAY).status == 403
    assert shared.get(TEAM).status == shared.get(TEAM, MAY).status == 401


def test_no_cache_between_keeps_what_is_for_who_shows_a_token(shared: Shared) -> None:
    target = f"/{TEAM}/resolve/main/config.json"
    apart: dict[str, Any] = {"X-Headrace-Token": shared.all}
    told = [ask(shared.node.endpoint + target, **apart), shared.at(f"/api/models/{TEAM}", shared.all)]
    told += [shared.get(TEAM, shared.all), shared.get(PRIVATE, shared.all, MAY, method="HEAD")]
    assert {(one.status, one.headers.get("cache-control")) for one in told} == {(200, "private")}


def test_what_a_directory_has_is_not_to_be_had_by_a_digest(shared: Shared) -> None:
    told = shared.get(TEAM, shared.all)
    assert told.body == OURS
    for header in ("x-headrace-blob", "x-headrace-blocks"):
        assert shared.at(told.headers[header], shared.all).status == 200
        assert shared.at(told.headers[header], shared.hubs).status == 403
        assert shared.at(told.headers[header]).status == 401
    claimed = shared.get(CLAIM, shared.hubs, method="HEAD")
    assert claimed.headers["x-linked-etag"] == f'"{SHA256}"'
    assert shared.get(CLAIM, shared.hubs).status == 502
    assert shared.at(claimed.headers["x-headrace-blob"], shared.hubs).status == 404


def test_a_list_names_what_is_for_who_asks(shared: Shared) -> None:
    for token, named in ((shared.all, {TEAM, "acme/copy", CLAIM}), (shared.hubs, {CLAIM})):
        rows = shared.at("/api/models?limit=100", token).json()
        assert {row["id"] for row in rows} == named


@pytest.mark.parametrize("first", [PRIVATE, "acme/copy"])
def test_what_both_have_is_fetched_once_and_proved(shared: Shared, first: str) -> None:
    second = "acme/copy" if first == PRIVATE else PRIVATE
    assert shared.get(first, shared.all, MAY).body == CLOSED
    shared.hub.clear_log()
    assert shared.get(second, shared.all, MAY).body == CLOSED
    assert shared.hub.settled_log().blob_bytes == (65536 if second == PRIVATE else 0)
    shared.hub.clear_log()
    assert shared.get(second, shared.all, MAY).body == CLOSED
    assert shared.hub.settled_log().blob_bytes == 0


def test_each_hears_only_what_is_meant_for_it(shared: Shared, capfd: pytest.CaptureFixture[str]) -> None:
    assert shared.get(PRIVATE, shared.all, MAY).body == CLOSED
    assert shared.get(TEAM, shared.all, MAY).body == OURS
    assert shared.at(f"/api/models/{TEAM}/refs", shared.all, MAY).status == 200
    shared.node.stop()
    requests = shared.hub.settled_log().requests
    assert requests
    assert not [one for one in requests if TEAM in one.path]
    assert len({one.authorization for one in requests if one.authorization_present}) == 1
    assert shared.mirror.settled_log().requests == ()
    out = capfd.readouterr()
    kept = [path.read_bytes() for path in shared.data.rglob("*") if path.is_file()]
    for secret in (MAY, shared.all):
        assert secret not in out.out + out.err
        assert not [one for one in kept if secret.encode() in one]


@pytest.mark.parametrize("served", [0, 1])
def test_what_one_process_has_from_a_directory_another_gives_to_nobody_by_its_digest(
    tmp_path: Path, served: int
) -> None:
    root, team, data = tmp_path / "hub", tmp_path / "team", tmp_path / "node"
    write_repo(root, CLAIM, {"big.bin": FALSE}, digests={"big.bin": SHA256})
    put_repo(team / "acme/other", {"config.json": b"{}"})
    data.mkdir()
    everything, hubs = create(data, "all", "org/*", "acme/*"), create(data, "hubs", "org/*")
    with (
        ChaosHub(root) as hub,
        NodeProcess(data, {"hub": hub.endpoint, "team": str(team)}, workers=2) as node,
    ):
        pids = (node.pid, *node.servers)
        put_repo(team / TEAM, {"big.bin": OURS})  # new: nobody has heard of it when the node starts

        def got(process: int, repo: str, token: str) -> Reply:
            shown: dict[str, Any] = {"Authorization": f"Bearer {token}"}
            return ask_of(node, pids[process], f"/{repo}/resolve/main/big.bin", **shown)

        assert got(served, TEAM, everything).body == OURS
        assert got(1 - served, CLAIM, hubs).status == 502


def test_no_hub_is_asked_for_what_a_directory_had_when_it_has_rotted(shared: Shared) -> None:
    assert shared.get(TEAM, shared.all).body == OURS
    shared.node.stop()
    shared.hub.clear_log()
    shared.mirror.clear_log()
    (blob,) = (path for path in (shared.data / "blobs").rglob(SHA256))
    facts = blob.stat()
    with blob.open("r+b") as file:
        file.write(b"rot")
    os.utime(blob, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    sources = {"hub": shared.hub.endpoint, "mirror": shared.mirror.endpoint, "team": str(shared.team)}
    with NodeProcess(shared.data, sources, scrub_days=OFTEN, scrub_rate=2**30):
        until(lambda: not blob.exists() or hashlib.sha256(blob.read_bytes()).hexdigest() == SHA256)
        until(lambda: blob.exists() and hashlib.sha256(blob.read_bytes()).hexdigest() == SHA256)
    requests = [*shared.hub.settled_log().requests, *shared.mirror.settled_log().requests]
    assert not [one.path for one in requests if TEAM in one.path]
