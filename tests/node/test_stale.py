"""Branches move, hubs go away: what a node believes, and for how long."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace
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
    hub: ChaosHub, start_node: Callable[..., NodeProcess], capfd: pytest.CaptureFixture[str]
) -> None:
    node = start_node(hub, ref_ttl=0, visibility_ttl=0, patience=2)
    assert ask(node.endpoint + BIG_FILE).body == BIG
    assert b'headrace_source_up{source="hub"} 1.0' in ask(node.endpoint + "/metrics").body
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
    assert b'headrace_source_up{source="hub"} 0.0' in ask(node.endpoint + "/metrics").body
    assert capfd.readouterr().err.count("hub cannot be asked (unreachable)") == 1


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


@pytest.mark.parametrize("how", ["truncated", "types", "empty"])
def test_a_hub_that_talks_nonsense_is_not_believed(
    how: str, hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub, ref_ttl=0, visibility_ttl=0)
    target = node.endpoint + "/org/tiny/resolve/main/config.json"
    assert ask(target).status == 200
    hub.set_faults(Fault("json", host="hub", how=how))
    reply = ask(target)
    assert (reply.status, reply.body) == (200, TINY["config.json"])
    assert "x-hf-warning" in reply.headers
    if how == "truncated":
        assert ask(f"{node.endpoint}/api/models?search=tiny").status == 502


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
    resumed = ask(node.endpoint + BIG_FILE, Range="bytes=100-")
    assert (resumed.status, resumed.body) == (200, BIG)  # what is before may have come from the damaged one
    assert 0 < hub.log().blob_bytes <= len(BIG)  # only what is wrong, where it is known what is


SOUND = """
import sys
from huggingface_hub import snapshot_download
from safetensors.numpy import load_file
for revision in sys.argv[1:]:
    folder = snapshot_download("org/model", revision=revision)
    print(revision, int(load_file(f"{folder}/model.safetensors")["w"].sum()))
"""


def away(how: str, hub: ChaosHub) -> None:
    """Let the hub be away: gone, hanging, or complaining at whatever it is asked."""
    if how == "down":
        hub.stop()
    elif how == "hanging":
        os.kill(hub.pid, signal.SIGSTOP)
    else:
        hub.set_faults(Fault("status", host="any", status=503))


def weights(number: int) -> bytes:
    """A safetensors file with one tensor `w` of four floats."""
    head = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(head)) + head + struct.pack("<4f", *[number] * 4)


@pytest.mark.parametrize("how", ["down", "hanging", "503"])
def test_every_cached_revision_still_pulls_and_loads(
    how: str, tmp_path: Path, start_node: Callable[..., NodeProcess], stock_client: Callable[..., Any]
) -> None:
    write_repo(tmp_path / "hub", "org/model", {"model.safetensors": weights(1), "config.json": b"{}"})
    write_repo(tmp_path / "hub", "org/model", {"model.safetensors": weights(3)}, revision="refs/pr/1")
    write_repo(tmp_path / "hub", "org/cold", {"config.json": b"{}"})
    with ChaosHub(tmp_path / "hub") as hub:
        endpoint = hub.endpoint
        node = start_node(hub, ref_ttl=0, visibility_ttl=0, patience=1)
        known = ("main", "refs/pr/1")
        first = [ask(f"{node.endpoint}/api/models/org/model/revision/{one}").json()["sha"] for one in known]
        for commit in first:
            assert ask(f"{node.endpoint}/org/model/resolve/{commit}/model.safetensors").status == 200
        ask(f"{node.endpoint}/org/model/resolve/main/config.json")
        write_repo(tmp_path / "hub", "org/model", {"model.safetensors": weights(2)})
        assert ask(f"{node.endpoint}/org/model/resolve/main/model.safetensors").body == weights(2)
        away(how, hub)
        node.stop()
        with NodeProcess(
            tmp_path / "node", {"hub": endpoint}, ref_ttl=0, visibility_ttl=0, patience=1
        ) as again:
            result = stock_client(again.endpoint, "-c", SOUND, "main", first[0], first[1], "refs/pr/1")
            told = [line.split() for line in result.stdout.splitlines()]
            assert told == [["main", "8"], [first[0], "4"], [first[1], "12"], ["refs/pr/1", "12"]], (
                result.stderr
            )
            settings = headrace.load_settings({"HF_ENDPOINT": again.endpoint}, cache=tmp_path / "cache")
            for revision, number in (("main", 2), (first[0], 1), ("refs/pr/1", 3)):
                snapshot = headrace.pull(f"org/model@{revision}", settings=settings)
                assert (snapshot.path / "model.safetensors").read_bytes() == weights(number)
            for cold in (
                "/org/cold/resolve/main/config.json",
                "/api/models/org/cold",
                "/org/model/resolve/other/model.safetensors",
                f"/org/model/resolve/{'0' * 40}/model.safetensors",
            ):
                reply = ask(again.endpoint + cold)
                assert reply.status in (502, 503, 504), cold
        if how == "hanging":
            os.kill(hub.pid, signal.SIGCONT)


def test_an_outage_costs_one_wait_and_not_one_each(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub, ref_ttl=0, visibility_ttl=0, patience=1.5)
    known = ["/api/models/org/tiny", "/api/models/org/tiny/revision/refs%2Fpr%2F1", "/api/models/legacy"]
    for target in known:
        assert ask(node.endpoint + target).status == 200
    hub.clear_log()
    hub.set_faults(Fault("latency", host="any", delay_s=60))
    first = ask(node.endpoint + known[0])
    assert first.headers["cache-status"].endswith("detail=stale-if-error")
    for target in known * 10:
        reply = ask(node.endpoint + target)
        assert reply.status == 200
        assert "cannot be asked" in reply.headers["x-hf-warning"]
    refused = [ask(node.endpoint + f"/api/models/org/cold{number}") for number in range(30)]
    assert {reply.status for reply in refused} <= {503, 504}
    assert all(1 <= int(reply.headers["retry-after"]) <= 5 for reply in refused)
    # Sixty requests: one that waited, and one that tried again each time five seconds had passed.
    assert len(hub.log().requests) <= 4


def test_an_answer_that_comes_too_late_is_there_for_the_next_one(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub, patience=0.5)
    hub.set_faults(Fault("latency", host="hub", delay_s=2.5, times=1))
    target = node.endpoint + "/org/tiny/resolve/main/config.json"
    reply = ask(target, "HEAD")
    assert (reply.status, reply.headers["retry-after"]) == (504, "1")
    deadline = time.monotonic() + 10
    while ask(target, "HEAD").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert hub.log().count(path_glob="/api/*") == 1


def test_a_list_of_files_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    write_repo(tmp_path / "hub", "org/empty", {})  # what is in it stands in its tree alone
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, patience=1)
        assert ask(node.endpoint + "/api/models/org/empty").status == 200
        hub.set_faults(Fault("latency", host="hub", delay_s=60))
        assert ask(node.endpoint + "/org/empty/resolve/main/a.txt").status in (503, 504)
        hub.clear_faults()


def test_a_hub_that_recovers_is_asked_again_while_the_node_runs(
    shelf: Path, start_node: Callable[..., NodeProcess], free_ports: tuple[int, int]
) -> None:
    hub = ChaosHub(shelf, ports=free_ports)
    with hub:
        node = start_node(hub, ref_ttl=0, visibility_ttl=0)
        target = node.endpoint + "/api/models/org/tiny"
        assert ask(target).status == 200
    assert "x-hf-warning" in ask(target).headers
    with hub:
        deadline = time.monotonic() + 12
        while "x-hf-warning" in ask(target).headers:
            assert time.monotonic() < deadline
            time.sleep(0.2)
