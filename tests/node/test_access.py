"""What is not for everybody is refused, by every door, whatever the node has of it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, write_repo
from tests.node.asking import ask

DOORS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/org/x/resolve/main/notes.txt", {}),
    ("HEAD", "/org/x/resolve/main/notes.txt", {}),
    ("GET", "/org/x/resolve/main/notes.txt", {"Range": "bytes=0-1"}),
    ("GET", "/org/x/resolve/{commit}/notes.txt", {}),
    ("HEAD", "/org/x/resolve/{commit}/notes.txt", {}),
    ("GET", "/org/x/resolve/{commit}/notes.txt", {"Range": "bytes=2-"}),
    ("GET", "/api/resolve-cache/models/org/x/{commit}/notes.txt", {}),
    ("GET", "/api/models/org/x", {}),
    ("GET", "/api/models/org/x/revision/{commit}", {}),
    ("GET", "/api/models/org/x?blobs=true", {}),
    ("GET", "/api/models/org/x?expand=tags", {}),
    ("GET", "/api/models/org/x/tree/main?recursive=true", {}),
    ("GET", "/api/models/org/x/tree/{commit}?recursive=true&expand=true", {}),
    ("GET", "/api/models/org/x/refs", {}),
    ("GET", "/api/models/org/x/commits/main", {}),
    ("GET", "/api/models/org/x/auth-check", {}),
    ("POST", "/api/models/org/x/paths-info/main", {}),
)
REFUSALS: dict[str, tuple[dict[str, Any], int, int, str | None]] = {
    "private": ({"private": True}, 401, 404, "RepoNotFound"),
    "gated": ({"gated": "auto"}, 401, 403, "GatedRepo"),
    "disabled": ({"disabled": True}, 403, 403, None),
}


@pytest.mark.parametrize("way", REFUSALS)
def test_what_was_public_and_is_cached_is_refused_once_it_is_not(
    tmp_path: Path, start_node: Callable[..., NodeProcess], way: str
) -> None:
    settings, anonymous, signed_in, code = REFUSALS[way]
    folder = write_repo(tmp_path / "hub", "org/x", {"notes.txt": b"notes"})
    with ChaosHub(tmp_path / "hub", tokens={"t": []}) as hub:
        node = start_node(hub, ref_ttl=0, visibility_ttl=0)
        commit = ask(node.endpoint + "/org/x/resolve/main/notes.txt", "HEAD").headers["x-repo-commit"]
        for method, target, headers in DOORS:
            reply = ask(node.endpoint + target.format(commit=commit), method, **headers)
            assert reply.status in (200, 206), target
        (folder / ".hub.json").write_text(json.dumps(settings))
        for method, target, headers in DOORS:
            reply = ask(node.endpoint + target.format(commit=commit), method, **headers)
            assert (reply.status, reply.headers.get("x-error-code")) == (anonymous, code), target
            assert b"notes" not in reply.body
            reply = ask(
                node.endpoint + target.format(commit=commit), method, Authorization="Bearer t", **headers
            )
            assert (reply.status, reply.headers.get("x-error-code")) == (signed_in, code), target
        if way == "disabled":
            assert reply.headers["x-error-message"] == "Access to this resource is disabled."
        hub.stop()  # what was refused stays refused when nobody can be asked
        for method, target, headers in DOORS:
            reply = ask(node.endpoint + target.format(commit=commit), method, **headers)
            assert (reply.status, reply.headers.get("x-error-code")) == (anonymous, code), target


@pytest.mark.parametrize(
    ("repo", "status", "code"),
    [("org/private", 401, "RepoNotFound"), ("org/gated", 401, "GatedRepo"), ("org/off", 403, None)],
)
def test_what_never_was_public_is_refused(
    calm: NodeProcess, repo: str, status: int, code: str | None
) -> None:
    for target in (f"/api/models/{repo}", f"/{repo}/resolve/main/notes.txt", f"/api/models/{repo}/tree/main"):
        reply = ask(calm.endpoint + target)
        assert (reply.status, reply.headers.get("x-error-code")) == (status, code)


def test_a_repo_stays_public_for_no_longer_than_was_said(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    folder = write_repo(tmp_path / "hub", "org/x", {"notes.txt": b"notes"})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, ref_ttl=60, visibility_ttl=60)
        target = node.endpoint + "/org/x/resolve/main/notes.txt"
        assert ask(target).status == 200
        (folder / ".hub.json").write_text(json.dumps({"private": True}))
        assert ask(target).status == 200
        node.stop()
        strict = start_node(hub, ref_ttl=60, visibility_ttl=0)
        assert ask(strict.endpoint + "/org/x/resolve/main/notes.txt").status == 401


def test_the_stock_clients_own_errors(calm: NodeProcess, stock_client: Callable[..., object]) -> None:
    script = """
import json
from huggingface_hub import HfApi
seen = {}
for repo in ("org/private", "org/gated", "org/off", "org/absent"):
    api = HfApi(token=False)
    outcomes = []
    for call in (lambda: api.repo_info(repo), lambda: api.hf_hub_download(repo, "notes.txt")):
        try:
            call()
            outcomes.append(None)
        except Exception as error:
            outcomes.append(type(error).__name__)
    seen[repo] = outcomes
print(json.dumps(seen))
"""
    result = stock_client(calm.endpoint, "-c", script)
    seen = json.loads(result.stdout.splitlines()[-1])  # type: ignore[attr-defined]
    assert seen == {
        "org/private": ["RepositoryNotFoundError"] * 2,
        "org/gated": ["GatedRepoError"] * 2,
        "org/off": ["DisabledRepoError", "LocalEntryNotFoundError"],  # the latter as with the hub itself
        "org/absent": ["RepositoryNotFoundError"] * 2,
    }


def test_a_commit_of_a_repo_without_main_is_readable(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    write_repo(tmp_path / "hub", "org/odd", {"a.txt": b"a"}, revision="trunk")
    with ChaosHub(tmp_path / "hub") as hub:
        commit = ask(f"{hub.endpoint}/api/models/org/odd/revision/trunk").json()["sha"]
        node = start_node(hub)
        assert ask(f"{node.endpoint}/org/odd/resolve/{commit}/a.txt").body == b"a"
        assert ask(f"{node.endpoint}/org/odd/resolve/{'0' * 40}/a.txt").status == 404


@pytest.mark.parametrize(("first", "second"), [("ORG/X", "org/x"), ("org/x", "ORG/X"), ("ORG/x", "org/X")])
def test_another_name_of_a_repo_opens_nothing(
    tmp_path: Path, start_node: Callable[..., NodeProcess], first: str, second: str
) -> None:
    folder = write_repo(tmp_path / "hub", "org/x", {"notes.txt": b"notes"})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, ref_ttl=0, visibility_ttl=0, patience=2)
        targets = [f"{node.endpoint}/{name}/resolve/main/notes.txt" for name in (first, second)]
        for target in targets:
            assert ask(target).body == b"notes"
        (folder / ".hub.json").write_text(json.dumps({"private": True}))
        assert ask(targets[1]).status == 401
        hub.stop()
        for target in targets:
            assert ask(target).status == 401
    with sqlite3.connect(tmp_path / "node/catalog.sqlite") as catalog:
        assert catalog.execute("SELECT repo FROM commits").fetchall() == [("models/org/x",)]


def test_a_repo_that_got_its_name_back_is_known_by_it(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    folder = write_repo(tmp_path / "hub", "org/x", {"notes.txt": b"notes"})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, visibility_ttl=3)
        target = f"{node.endpoint}/org/x/resolve/main/notes.txt"
        folder.rename(folder.with_name("X"))
        assert ask(target).status == 200
        folder.with_name("X").rename(folder)
        time.sleep(3.1)
        assert ask(target).status == 200
        hub.clear_log()
        assert ask(target).status == 200
        assert hub.log().requests == ()
