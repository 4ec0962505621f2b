"""A node answers as the hub does."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import BIG, BIG_FILE, NASTY, TINY, Reply, ask

COMMIT_HEADER = "x-repo-commit"


def ask_both(node: NodeProcess, hub: ChaosHub, target: str) -> tuple[Any, Any]:
    return ask(node.endpoint + target).json(), ask(hub.endpoint + target).json()


@pytest.mark.parametrize(
    "target",
    [
        "/api/models/org/tiny",
        "/api/models/org/tiny?blobs=true",
        "/api/models/org/tiny/revision/main",
        "/api/models/org/tiny/revision/refs%2Fpr%2F1",
        "/api/models/org/tiny?expand=tags&expand=sha",
        "/api/models/legacy",
        "/api/datasets/org/data",
        "/api/spaces/org/app/revision/main?blobs=True",
        "/api/models/org/tiny/refs?include_prs=1",
        "/api/models/org/tiny/commits/main",
    ],
)
def test_facts_about_a_repo_are_the_hubs(calm: NodeProcess, calm_hub: ChaosHub, target: str) -> None:
    node, hub = ask_both(calm, calm_hub, target)
    assert node == hub


def all_pages(endpoint: str, target: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    url: str | None = endpoint + target
    while url is not None:
        assert url.startswith(endpoint)
        reply = ask(url)
        assert reply.status == 200, reply.body
        rows += reply.json()
        link = reply.headers.get("link")
        url = link.partition("<")[2].partition(">")[0] if link else None
    return rows


def by_path(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kept = [
        {key: value for key, value in row.items() if (key, row["type"]) != ("oid", "directory")}
        for row in rows
    ]
    return {row["path"]: row for row in kept}


@pytest.mark.parametrize(
    "target",
    [
        "/api/models/org/tiny/tree/main?recursive=true&expand=false",
        "/api/models/org/tiny/tree/main?recursive=True&expand=True",
        "/api/models/org/tiny/tree/main",
        "/api/models/org/tiny/tree/main?limit=1",
        "/api/models/org/tiny/tree/main/weights",
        "/api/models/org/tiny/tree/main/sub%20dir?recursive=true",
        "/api/models/org/tiny/tree/feature%2Fslash",
        "/api/datasets/org/data/tree/main",
        "/api/models/legacy/tree/main/nested",
    ],
)
def test_a_tree_is_the_hubs_page_by_page(calm: NodeProcess, calm_hub: ChaosHub, target: str) -> None:
    mirrored, original = all_pages(calm.endpoint, target), all_pages(calm_hub.endpoint, target)
    assert by_path(mirrored) == by_path(original)
    assert len(mirrored) == len(original)


def test_paths_info_takes_a_form_and_json(calm: NodeProcess, calm_hub: ChaosHub) -> None:
    target = "/api/models/org/tiny/paths-info/main"
    form = "&".join(
        f"paths={quote(path, safe='')}" for path in ("config.json", NASTY, "weights", "absent")
    ).encode()
    posted = json.dumps({"paths": ["config.json", NASTY, "weights", "absent"], "expand": False}).encode()
    for body, kind in ((form, "application/x-www-form-urlencoded"), (posted, "application/json")):
        mirrored = ask(calm.endpoint + target, "POST", body, Content_Type=kind)
        original = ask(calm_hub.endpoint + target, "POST", body, Content_Type=kind)
        assert by_path(mirrored.json()) == by_path(original.json())


def test_a_file_that_leads_elsewhere_is_never_named(calm: NodeProcess) -> None:
    for target in ("/api/models/org/tiny/tree/main?recursive=true", "/api/models/org/tiny?blobs=true"):
        assert b"xet" not in ask(calm.endpoint + target).body.lower()
    assert ask(calm.endpoint + "/api/models/org/tiny/xet-read-token/main").status == 404


def test_head_tells_all_a_client_needs(calm: NodeProcess, calm_hub: ChaosHub) -> None:
    ours = ask(calm.endpoint + BIG_FILE, "HEAD")
    hubs = ask(calm_hub.endpoint + BIG_FILE, "HEAD")
    assert (ours.status, ours.body) == (200, b"")
    assert ours.headers["content-length"] == ours.headers["x-linked-size"] == str(len(BIG))
    assert ours.headers["etag"] == ours.headers["x-linked-etag"] == hubs.headers["x-linked-etag"]
    assert ours.headers[COMMIT_HEADER] == hubs.headers[COMMIT_HEADER]
    assert ours.headers["accept-ranges"] == "bytes"
    assert "location" not in ours.headers


@pytest.mark.parametrize("path", [NASTY, "new\nline.txt", "empty.txt", "config.json"])
def test_any_name_is_served_in_place(calm: NodeProcess, path: str) -> None:
    reply = ask(calm.endpoint + f"/org/tiny/resolve/main/{quote(path)}")
    assert (reply.status, reply.body) == (200, TINY[path])
    assert "\n" not in reply.headers["content-disposition"]


@pytest.mark.parametrize(
    "target",
    [
        "/org/tiny/resolve/refs%2Fpr%2F1/config.json",
        "/org/tiny/resolve/refs/pr/1/config.json",
        "/org/tiny/resolve/feature%2Fslash/config.json",
        "/datasets/org/data/resolve/main/README.md",
        "/spaces/org/app/resolve/main/app.py",
        "/legacy/resolve/main/nested/only.txt",
    ],
)
def test_revisions_and_kinds(calm: NodeProcess, target: str) -> None:
    expected = {"pr": b"{}", "feature": b"[]", "data": b"# data", "app": b"pass", "legacy": b"old"}
    reply = ask(calm.endpoint + target)
    assert reply.status == 200
    assert reply.body == next(text for word, text in expected.items() if word in target)


def test_the_hubs_own_cache_route_works_without_query(calm: NodeProcess) -> None:
    commit = ask(calm.endpoint + "/org/tiny/resolve/main/config.json", "HEAD").headers[COMMIT_HEADER]
    reply = ask(calm.endpoint + f"/api/resolve-cache/models/org/tiny/{commit}/config.json")
    assert (reply.status, reply.body) == (200, TINY["config.json"])


SIZE = len(BIG)
RANGES = [
    ("bytes=0-0", 206, (0, 1)),
    ("bytes=100-199", 206, (100, 200)),
    (f"bytes={SIZE - 10}-", 206, (SIZE - 10, SIZE)),
    ("bytes=-7", 206, (SIZE - 7, SIZE)),
    (f"bytes=5-{SIZE + 99}", 206, (5, SIZE)),
    ("bytes=9-5", 200, (0, SIZE)),
    ("bytes=0-1,5-6", 200, (0, SIZE)),
    ("lines=1-2", 200, (0, SIZE)),
]


def check_range(reply: Reply, status: int, span: tuple[int, int]) -> None:
    assert reply.status == status
    assert reply.body == BIG[slice(*span)]
    assert reply.headers.get("content-range") == (
        f"bytes {span[0]}-{span[1] - 1}/{SIZE}" if status == 206 else None
    )


@pytest.mark.parametrize(("asked", "status", "span"), RANGES)
def test_ranges_of_a_warm_file(calm: NodeProcess, asked: str, status: int, span: tuple[int, int]) -> None:
    assert ask(calm.endpoint + BIG_FILE).body == BIG
    check_range(ask(calm.endpoint + BIG_FILE, Range=asked), status, span)


def test_ranges_beyond_the_end(calm: NodeProcess) -> None:
    reply = ask(calm.endpoint + BIG_FILE, Range=f"bytes={SIZE}-")
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{SIZE}")


def test_conditional_requests(calm: NodeProcess) -> None:
    etag = ask(calm.endpoint + BIG_FILE, "HEAD").headers["etag"]
    assert ask(calm.endpoint + BIG_FILE, If_None_Match=etag).status == 304
    assert ask(calm.endpoint + BIG_FILE, Range="bytes=1-2", If_Range=etag).status == 206
    assert ask(calm.endpoint + BIG_FILE, Range="bytes=1-2", If_Range='"other"').status == 200


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/org/tiny/resolve/main/absent.json", 404, "EntryNotFound"),
        ("/org/tiny/resolve/main/weights", 404, "EntryNotFound"),
        (
            "/api/models/org/tiny/tree/main/additional_chat_templates?recursive=False&expand=False",
            404,
            "EntryNotFound",
        ),
        ("/org/tiny/resolve/absent/config.json", 404, "RevisionNotFound"),
        ("/api/models/org/tiny/revision/absent", 404, "RevisionNotFound"),
        (f"/org/tiny/resolve/{'0' * 40}/config.json", 404, "RevisionNotFound"),
        ("/api/models/org/absent", 401, "RepoNotFound"),
        ("/org/absent/resolve/main/config.json", 401, "RepoNotFound"),
        ("/nothing/like/that", 404, None),
        ("/api/nothing", 404, None),
        ("/org/tiny/resolve/main/..%2F..%2Fetc%2Fpasswd", 404, "EntryNotFound"),
        ("/org/tiny/resolve/..%2F..%2Fx/config.json", 404, None),
        ("/..%2F..%2Fetc/passwd/resolve/main/x", 404, None),
        ("/org/tiny/resolve/main/%ff", 404, None),
    ],
)
def test_errors_are_the_hubs(calm: NodeProcess, target: str, status: int, code: str | None) -> None:
    for method in ("GET", "HEAD"):
        reply = ask(calm.endpoint + target, method)
        assert (reply.status, reply.headers.get("x-error-code")) == (status, code)
        if code == "EntryNotFound":
            assert len(reply.headers[COMMIT_HEADER]) == 40
        if method == "GET":
            assert reply.json()["error"]


def test_what_is_no_business_of_the_hub_stays_here(calm: NodeProcess, calm_hub: ChaosHub) -> None:
    assert ask(calm.endpoint + "/api/telemetry/x/y", "HEAD").status in (200, 204)
    assert ask(calm.endpoint + "/api/agent-harnesses").json() == {"standardEnvVars": [], "harnesses": {}}
    assert ask(calm.endpoint + "/api/whoami-v2", Authorization="Bearer hf_good").status == 401
    paths = [request.path for request in calm_hub.log().requests]
    assert not [path for path in paths if "telemetry" in path or "agent" in path or "whoami" in path]


def test_other_methods_are_refused(calm: NodeProcess) -> None:
    assert ask(calm.endpoint + "/api/models/org/tiny", "DELETE").status == 405
    assert ask(calm.endpoint + BIG_FILE, "PUT", b"x").status == 405


def test_health(calm: NodeProcess) -> None:
    assert ask(calm.endpoint + "/healthz").status == 200
    assert ask(calm.endpoint + "/readyz").status == 200


def test_no_credentials_reach_the_hub_for_what_everybody_may_read(
    calm: NodeProcess, calm_hub: ChaosHub
) -> None:
    for target in ("/api/models/org/tiny", BIG_FILE, "/api/models?search=tiny"):
        assert ask(calm.endpoint + target, Authorization="Bearer hf_good").status == 200
    asked = [request for request in calm_hub.log().requests if "tiny" in request.path]
    assert asked
    assert not [request for request in asked if request.authorization_present]
