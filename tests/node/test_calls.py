"""What a request line asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from headrace.names import Repo, RepoKind
from headrace.node.api.calls import Call, Chore, is_git, parse_call
from headrace.node.config import Upstream, parse_listen
from headrace.wire import api_path, is_loopback, resolve_path

SHA = "a" * 40


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/models/org/x", Call("info", Repo("org/x"))),
        ("/api/models/gpt2", Call("info", Repo("gpt2"))),
        ("/api/models/gpt2/tree/main", Call("tree", Repo("gpt2"))),
        ("/api/models/org/x/tree/v1/a%2Fb", Call("tree", Repo("org/x"), "v1", "a/b")),
        ("/api/models/org/x/tree/v1/a/b/", Call("tree", Repo("org/x"), "v1", "a/b")),
        (
            "/api/datasets/org/x/revision/refs%2Fpr%2F1",
            Call("info", Repo("org/x", RepoKind.DATASET), "refs/pr/1"),
        ),
        ("/api/models/org/x/revision/feature%2Fslash", Call("info", Repo("org/x"), "feature/slash")),
        ("/api/models/org/x/refs", Call("refs", Repo("org/x"))),
        ("/org/x/resolve/main/a/b.txt", Call("resolve", Repo("org/x"), "main", "a/b.txt")),
        ("/gpt2/resolve/main/a%0Ab", Call("resolve", Repo("gpt2"), "main", "a\nb")),
        (
            "/spaces/org/x/resolve/refs/pr/1/a",
            Call("resolve", Repo("org/x", RepoKind.SPACE), "refs/pr/1", "a"),
        ),
        (f"/api/resolve-cache/models/gpt2/{SHA}/a", Call("resolve", Repo("gpt2"), SHA, "a")),
        (
            f"/api/resolve-cache/datasets/o/x/{SHA}/a/b",
            Call("resolve", Repo("o/x", RepoKind.DATASET), SHA, "a/b"),
        ),
        ("/org/x/raw/main/a.txt", Call("raw", Repo("org/x"), "main", "a.txt")),
        ("/api/models", Chore("models", "/api/models")),
        ("/api/whoami-v2", Chore("owners", "")),
        ("/api/jobs/hardware", Chore("jobs", "/api/jobs/hardware")),
        ("/api/jobs/org", Chore("owners", "")),
        ("/api/telemetry/a/b", Chore("telemetry", "/api/telemetry/a/b")),
        ("/api/spaces/templates", Chore("spaces", "/api/spaces/templates")),
        ("/api/users/a%20b/likes", Chore("users", "/api/users/a%20b/likes")),
        ("/papers/2501.00001.md", Chore("paper-text", "/papers/2501.00001.md")),
        ("/papers/2501.00001", None),
        (
            "/api/models/gpt2/discussions/3",
            Call("passed", Repo("gpt2"), path="/api/models/gpt2/discussions/3"),
        ),
        (
            "/api/models/org/x/anything/else",
            Call("passed", Repo("org/x"), path="/api/models/org/x/anything/else"),
        ),
        ("/api/spaces/org/x/secrets", Call("owners", Repo("org/x", RepoKind.SPACE))),
        (
            "/api/datasets/org/x/parquet/en/train/7.parquet",
            Call("resolve", Repo("org/x", RepoKind.DATASET), "refs/convert/parquet", "en/train/0007.parquet"),
        ),
        ("/api/models/org/x/xet-read-token/main", None),
        ("/api/kernels/org/x/xet-read-token/main", None),
        (
            "/api/models/gpt2/treesize/refs%2Fpr%2F1/",
            Call("passed", Repo("gpt2"), path="/api/models/gpt2/treesize/refs%2Fpr%2F1/"),
        ),
        ("/api/users/jwt/overview", Chore("users", "/api/users/jwt/overview")),
        ("/gpt2/resolve/main/info/refs", Call("resolve", Repo("gpt2"), "main", "info/refs")),
        ("/api/users/..%2Fmodels/overview", None),
        ("/api/users/a%2Fxet-read-token", None),
        ("/api/users/../overview", None),
        ("/api/models%2Forg%2Fx", None),
        ("/api/models%2Forg%2Fx/discussions", None),
        ("/api", None),
        ("/api/", None),
        ("/", None),
        ("/org/x", None),
        ("/org/x/resolve/main", None),
        ("/org/x/resolve/main/", None),
        ("/a/b/c/resolve/main/x", None),
        ("/org/x/blob/main/a", None),
        ("/..%2Fx/resolve/main/a", None),
        ("/org/x/resolve/..%2F/a", None),
        ("/api/models/org/x/revision/a/b", None),
        ("/org/x/resolve/main/%ff", None),
        ("/api/resolve-cache/models/org/x", None),
    ],
)
def test_paths(path: str, expected: object) -> None:
    assert parse_call(path) == expected


def test_what_git_asks() -> None:
    for path in (
        "/org/x.git/info/refs",
        "/org/x/info/refs",
        "/datasets/org/x/git-upload-pack",
        "/gpt2.git/info/lfs/locks",
    ):
        assert is_git(path)
    for path in (
        "/gpt2/resolve/main/info/refs",
        "/org/x/raw/main/git-receive-pack",
        "/api/models/org/x/refs",
    ):
        assert not is_git(path)


PARTS = st.text(min_size=1).filter(lambda text: "/" not in text and text not in (".", ".."))
PATHS = st.lists(PARTS.filter(str.isprintable), min_size=1, max_size=4).map("/".join)


@given(PATHS, st.sampled_from(["main", "refs/pr/1", "feature/slash", SHA]), st.sampled_from(list(RepoKind)))
def test_what_clients_write_is_read_back(path: str, revision: str, kind: RepoKind) -> None:
    repo = Repo("org/name.x", kind)
    assert parse_call(resolve_path(repo, revision, path)) == Call("resolve", repo, revision, path)
    assert parse_call(api_path(repo, "tree", revision, path)) == Call("tree", repo, revision, path)


@given(st.text())
def test_any_path_means_something_or_nothing(path: str) -> None:
    assert isinstance(parse_call(f"/{path}"), Call | Chore | None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8090", ("127.0.0.1", 8090)),
        ("[::1]:0", ("::1", 0)),
        ("localhost", ("localhost", 8090)),
        ("[::1]", ("::1", 8090)),
    ],
)
def test_addresses_to_listen_on(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:x", "host:70000", "::1:80"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse_listen(text)


def test_sources_are_name_and_url() -> None:
    assert Upstream.parse("hub=HTTPS://Hub.example/") == Upstream("hub", "https://hub.example")
    for text in ("hub", "=https://x", "hub=", "hub=ftp://x"):
        with pytest.raises(UsageError):
            Upstream.parse(text)


def test_who_can_reach_it() -> None:
    assert parse_listen("8091") == ("127.0.0.1", 8091)
    assert [is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "host.example")] == [
        True,
        True,
        True,
        False,
        False,
    ]
