"""Who may read what is not for everybody: by their own token, as long as the source says so, and nobody else."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.api.capability import Capabilities, Purpose, Shown, node_key
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import Reply, ask
from tests.node.test_access import DOORS

StartNode = Callable[..., NodeProcess]
MAY, OTHER = "hf_s3cret_of_one_who_may", "hf_s3cret_of_somebody_else"
NOTES, BIG = b"notes", content(6_000_000, seed=77)
TARGET = "/org/x/resolve/main/notes.txt"
WAYS = {"private": {"private": True}, "gated": {"gated": "auto"}}


def bearer(token: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {token}"}


def refused(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.headers.get("x-error-code")


def shut(hub_root: Path, repo: str, **settings: object) -> None:
    """What the hub says of a repo from now on."""
    (hub_root / "models" / repo / ".hub.json").write_text(json.dumps(settings))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_repo(tmp_path / "hub", "org/x", {"notes.txt": NOTES, "big.bin": BIG}, private=True)
    return tmp_path / "hub"


@pytest.fixture
def hub(root: Path) -> Iterator[ChaosHub]:
    with ChaosHub(root, tokens={MAY: ["org/*"], OTHER: ["other/*"]}) as hub:
        yield hub


@pytest.mark.parametrize("way", WAYS)
def test_every_door_opens_to_who_may_and_to_nobody_else(
    root: Path, hub: ChaosHub, start_node: StartNode, way: str
) -> None:
    folder = next(path.parent for path in root.rglob(".hub.json"))
    (folder / ".hub.json").write_text(json.dumps(WAYS[way]))
    node = start_node(hub, visibility_ttl=2)
    commit = ask(node.endpoint + TARGET, "HEAD", **bearer(MAY)).headers["x-repo-commit"]
    stranger = {"Host": "hub.example", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "hub.example"}
    anonymous, without = {"private": (401, 404), "gated": (401, 403)}[way]
    code = {"private": "RepoNotFound", "gated": "GatedRepo"}[way]
    doors = [(method, target.format(commit=commit), headers) for method, target, headers in DOORS]
    doors += [
        ("GET", f"/org/x/resolve/{commit[:7]}/notes.txt", {}),
        ("GET", "/org/x/raw/main/notes.txt", {}),
        ("GET", "/org/x/resolve/main/notes.txt?download=true", {}),
    ]
    for method, target, headers in doors:
        told = ask(node.endpoint + target, method, **headers, **bearer(MAY))
        assert told.status in (200, 206), target
        for shown, status in (
            ({}, anonymous),
            (bearer(OTHER), without),
            ({**bearer(OTHER), **stranger}, without),
        ):
            reply = ask(node.endpoint + target, method, **{**headers, **shown})
            assert refused(reply) == (status, code), (target, shown)
            assert NOTES not in reply.body
        wrong = ask(node.endpoint + target, method, **headers, **bearer("hf_wrong"))
        assert (wrong.status, wrong.headers["x-error-message"]) == (
            401,
            "Invalid credentials in Authorization header",
        )
        for garbage in ("Basic dXNlcjpwYXNz", "Bearer", f"Bearer {MAY} {MAY}", f"Token {MAY}"):
            assert ask(node.endpoint + target, method, **headers, Authorization=garbage).status == 401
    for target in (
        "/ORG/X/resolve/main/notes.txt",
        "//org/x/resolve/main/notes.txt",
        "/org//x/resolve/main/notes.txt",
    ):
        assert ask(node.endpoint + target, **bearer(OTHER)).status in (401, 403, 404)
        assert ask(node.endpoint + target).status in (401, 403, 404)


@pytest.mark.parametrize("ttl_s", [2, pytest.param(60, marks=pytest.mark.soak)])
def test_who_loses_the_right_loses_the_files_and_what_becomes_public_is(
    ttl_s: int, root: Path, hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(hub, ref_ttl=ttl_s, visibility_ttl=ttl_s)
    assert ask(node.endpoint + TARGET, **bearer(MAY)).body == NOTES
    hub.clear_log()
    assert ask(node.endpoint + TARGET, **bearer(MAY)).body == NOTES
    assert hub.settled_log().blob_bytes == 0
    hub.set_tokens({MAY: [], OTHER: ["org/*"]})
    time.sleep(ttl_s + 0.1)
    assert refused(ask(node.endpoint + TARGET, **bearer(MAY))) == (404, "RepoNotFound")
    assert ask(node.endpoint + TARGET, **bearer(OTHER)).body == NOTES
    hub.set_tokens({})
    time.sleep(ttl_s + 0.1)
    reply = ask(node.endpoint + TARGET, **bearer(OTHER))
    assert (reply.status, reply.headers["x-error-message"]) == (
        401,
        "Invalid credentials in Authorization header",
    )
    folder = next(path.parent for path in root.rglob(".hub.json"))
    (folder / ".hub.json").write_text("{}")
    time.sleep(ttl_s + 0.1)
    assert ask(node.endpoint + TARGET).body == NOTES
    assert ask(node.endpoint + TARGET, **bearer("hf_wrong")).body == NOTES  # nobody's token is shown for it
    (folder / ".hub.json").write_text(json.dumps({"private": True}))
    time.sleep(ttl_s + 0.1)
    assert refused(ask(node.endpoint + TARGET)) == (401, "RepoNotFound")


@pytest.mark.parametrize("ttl_s", [1, pytest.param(60, marks=pytest.mark.soak)])
def test_without_its_source_a_node_lets_in_only_whom_its_owner_wants(
    ttl_s: int, hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(hub, visibility_ttl=ttl_s, patience=2)
    assert ask(node.endpoint + TARGET, **bearer(MAY)).body == NOTES
    hub.stop()
    time.sleep(ttl_s + 0.1)
    assert refused(ask(node.endpoint + TARGET, **bearer(MAY))) == (404, "RepoNotFound")
    assert refused(ask(node.endpoint + TARGET)) == (401, "RepoNotFound")
    node.stop()
    lenient = start_node(hub, visibility_ttl=ttl_s, patience=2, offline_grants=600)
    assert ask(lenient.endpoint + TARGET, **bearer(MAY)).body == NOTES
    assert refused(ask(lenient.endpoint + TARGET, **bearer(OTHER))) == (404, "RepoNotFound")
    assert refused(ask(lenient.endpoint + TARGET)) == (401, "RepoNotFound")


def test_a_token_is_for_the_trusted_source_and_is_written_down_nowhere(
    root: Path, hub: ChaosHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ChaosHub(root, tokens={MAY: ["org/*"]}) as mirror:
        sources = {"hub": hub.endpoint, "mirror": mirror.endpoint}
        with NodeProcess(tmp_path / "node", sources, log_level="debug") as node:
            big = ask(node.endpoint + "/org/x/resolve/main/big.bin", **bearer(MAY))
            assert big.body == BIG
            assert ask(node.endpoint + TARGET, **bearer(MAY)).body == NOTES
            blob = ask(node.endpoint + big.headers["x-headrace-blob"])
            assert blob.body == BIG
            found = [path for path in (tmp_path / "node").rglob("*") if path.is_file()]
            assert not [path for path in found if MAY.encode() in path.read_bytes()]
        assert not [path for path in found if path.exists() and MAY.encode() in path.read_bytes()]
        assert mirror.settled_log().requests == ()  # it does not even hear the name
    told = hub.settled_log().requests
    assert {request.host for request in told if request.authorization_present} == {"hub"}
    assert [request for request in told if request.host == "cdn"]
    assert not [request for request in told if MAY in request.path]
    out = capfd.readouterr()
    assert MAY not in out.out + out.err
    assert "route=resolve" in out.err


def test_a_capability_opens_a_blob_and_nothing_else_does(
    hub: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(hub)
    head = ask(node.endpoint + "/org/x/resolve/main/big.bin", "HEAD", **bearer(MAY))
    way = head.headers["x-headrace-blob"]
    assert ask(node.endpoint + way).status == 404  # it is not here
    assert ask(node.endpoint + "/org/x/resolve/main/big.bin", **bearer(MAY)).body == BIG
    assert ask(node.endpoint + way).body == BIG
    part = ask(node.endpoint + way, Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, BIG[1000:2000])
    assert ask(node.endpoint + way, "HEAD").headers["content-length"] == str(len(BIG))
    assert ask(node.endpoint + way, Range="bytes=99999999-").status == 416
    path, _, query = way.partition("?")
    none = [
        f"{path}?{query[:-1]}{'1' if query[-1] == '0' else '0'}",
        path,
        path.replace("sha256", "git-blob-sha1"),
    ]
    none += [path.replace("blobs", "blocks") + "?" + query, f"/_headrace/blobs/sha256:{'0' * 64}?{query}"]
    for other in none:
        for shown in ({}, bearer(MAY)):
            assert ask(node.endpoint + other, **shown).status == 403
    big = Shown(Digest(Digest.SHA256, hashlib.sha256(BIG).hexdigest()), Repo("org/x"))
    capabilities, now = Capabilities(node_key(tmp_path / "node")), time.time()
    over = capabilities.query(Purpose.BLOBS, big, now - 60, now - 1)
    assert ask(f"{node.endpoint}{path}?{over}").status == 403
    good = capabilities.query(Purpose.BLOBS, big, now, now + 60)
    assert ask(f"{node.endpoint}{path}?{good}", "HEAD").status == 200


def test_one_callers_refusal_is_not_anothers(root: Path, hub: ChaosHub, start_node: StartNode) -> None:
    hub.set_tokens({MAY: ["org/*"], OTHER: ["org/*"]})
    node = start_node(hub, visibility_ttl=60)
    target = node.endpoint + "/org/x/resolve/main/big.bin"
    assert ask(target, "HEAD", **bearer(MAY)).status == 200
    assert ask(target, "HEAD", **bearer(OTHER)).status == 200
    hub.set_tokens({OTHER: ["org/*"]})
    assert ask(target, **bearer(MAY)).status in (401, 403, 404, 502)  # believed, and of no use
    assert ask(target, **bearer(OTHER)).body == BIG
