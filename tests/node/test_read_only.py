"""A mirror changes nothing, says so, and says what to do; what is passed on is asked once."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.manifest import Digest
from headrace.node.memory.catalog import Row
from headrace.node.memory.gitids import tree_ids
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, write_repo
from tests.node.asking import BIG_FILE, ask


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("POST", "/api/repos/create", "GET, HEAD"),
        ("DELETE", "/api/repos/delete", "GET, HEAD"),
        ("POST", "/api/models/org/tiny/commit/main", "GET, HEAD"),
        ("POST", "/api/models/org/tiny/preupload/main", "GET, HEAD"),
        ("PUT", "/api/models/org/tiny/settings", "GET, HEAD"),
        ("POST", "/api/models/org/tiny/discussions", "GET, HEAD"),
        ("POST", "/api/models/org/private/discussions", "GET, HEAD"),
        ("PATCH", "/api/collections/ada/x", "GET, HEAD"),
        ("POST", "/uploads", "GET, HEAD"),
        ("PUT", BIG_FILE, "GET, HEAD"),
        ("GET", "/api/models/org/tiny/paths-info/main", "POST"),
        ("POST", "/org/tiny.git/info/lfs/objects/batch", "GET, HEAD"),
        ("GET", "/org/tiny.git/info/refs?service=git-receive-pack", "GET, HEAD"),
        ("GET", "/datasets/org/data/info/refs?service=git-receive-pack", "GET, HEAD"),
        ("POST", "/org/tiny.git/git-receive-pack", "GET, HEAD"),
    ],
)
def test_writes_are_refused_with_a_hint(
    calm: NodeProcess, calm_hub: ChaosHub, method: str, target: str, allowed: str
) -> None:
    before = len(calm_hub.log().requests)
    reply = ask(calm.endpoint + target, method, b"{}" if method != "GET" else None)
    assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert "hub itself" in reply.headers["x-error-message"]
    assert b"hub itself" in reply.body
    assert len(calm_hub.log().requests) == before


def test_git_is_told_in_its_own_words(calm: NodeProcess, tmp_path: Path) -> None:
    url = f"{calm.endpoint}/org/tiny"
    command = ["git", "-c", "protocol.version=2", "clone", "--quiet", url, str(tmp_path / "clone")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert result.returncode != 0
    assert "this mirror does not speak git" in result.stderr


def test_the_stock_clients_upload_says_why(
    calm: NodeProcess, stock_client: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pytest.importorskip("huggingface_hub", reason="the stock client is what this test runs")
    script = """
from huggingface_hub import HfApi
HfApi(token="hf_x").upload_file(path_or_fileobj=b"x", path_in_repo="a", repo_id="org/tiny")
"""
    result = stock_client(calm.endpoint, "-c", script)
    assert result.returncode != 0
    assert "405" in result.stderr
    assert "this mirror only reads" in result.stderr


def test_what_owners_are_told_is_not_asked(calm: NodeProcess, calm_hub: ChaosHub) -> None:
    calm_hub.clear_log()
    for target in ("/api/whoami-v2", "/api/settings/webhooks", "/api/jobs/org", "/api/spaces/zero-gpu/quota"):
        assert ask(calm.endpoint + target).headers["x-error-message"] == "Invalid username or password."
        reply = ask(calm.endpoint + target, Authorization="Bearer hf_good")
        assert (reply.status, "ask the hub itself" in reply.headers["x-error-message"]) == (401, True)
    assert calm_hub.log().requests == ()


def test_talk_about_repos_that_are_not_for_everybody_is_refused(calm: NodeProcess) -> None:
    for repo, status in (("org/private", 401), ("org/gated", 401), ("org/off", 403)):
        for verb in ("discussions", "likers", "treesize/main/", "anything"):
            assert ask(f"{calm.endpoint}/api/models/{repo}/{verb}").status == status


def test_many_who_ask_the_same_cost_one_question(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub)
    hub.set_faults(Fault("latency", delay_s=1.0))
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, [f"{node.endpoint}/api/models?search=tiny"] * 8))
    assert len({reply.body for reply in replies}) == 1
    assert hub.log().count(path_glob="/api/models") == 1


def test_a_source_that_is_away_is_said_to_be(hub: ChaosHub, start_node: Callable[..., NodeProcess]) -> None:
    node = start_node(hub)
    assert ask(f"{node.endpoint}/api/models/org/tiny").status == 200
    hub.stop()
    for target in ("/api/models?search=tiny", "/api/models/org/tiny/discussions"):
        reply = ask(node.endpoint + target)
        assert reply.status in (502, 504)
        assert "cannot be asked" in reply.headers["x-error-message"]
    form = b"paths=config.json&expand=true"
    reply = ask(f"{node.endpoint}/api/models/org/tiny/paths-info/main", "POST", form)
    assert reply.status in (200, 502)


def test_a_file_of_very_many_is_answered_for_before_all_are_listed(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    names = {f"d/{number:03d}.json": b"%d" % number for number in range(150)}
    # What the repo's info tells of its files is not enough, so that the tree must be asked, page by page.
    write_repo(tmp_path / "hub", "org/many", names, tree_extra=[{"type": "file", "path": "odd"}])
    with ChaosHub(tmp_path / "hub", page_size=1, latency_s=0.1) as hub:
        node = start_node(hub, patience=2)
        url = f"{node.endpoint}/org/many/resolve/main/d"
        reply = ask(f"{url}/042.json", "HEAD")
        assert (reply.status, reply.headers["content-length"]) == (200, "2")
        assert ask(f"{url}/absent", "HEAD").headers["x-error-code"] == "EntryNotFound"
        assert ask(f"{url}/042.json").body == b"42"
        assert 0 < hub.log().count(path_glob="*/tree/*") < len(names)


def test_ids_of_folders_are_gits_own(tmp_path: Path) -> None:
    files = {"a.txt": b"1", "a/b": b"2", "a/c.d/e": b"3", "a0": b"4", "ü/ö": b"5", "a/b.c": b"6"}
    rows = []
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        rows.append(Row(path, len(data), Digest(Digest.GIT_BLOB_SHA1, oid)))
    subprocess.run(["git", "init", "--quiet", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    tree = subprocess.run(["git", "write-tree"], cwd=tmp_path, check=True, capture_output=True, text=True)
    listing = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-tree", "-rtd", tree.stdout.strip()],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    expected = {line.split("\t")[1]: line.split()[2] for line in listing.stdout.splitlines()}
    assert tree_ids(rows) == expected
