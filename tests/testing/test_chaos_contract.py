"""The hub's wire contract, header by header, over raw HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import pytest

from headrace.testing import ChaosHub, content, write_repo
from headrace.testing.ranged import Unsatisfiable, parse_range

Ask = Callable[..., Any]
SHARD = "weights/model-00001-of-00002.safetensors"
NASTY = "sub dir/päth +%20#?&='\"[x].txt"


@pytest.fixture
def sha(calm: ChaosHub, ask: Ask) -> str:
    return str(ask(f"{calm.endpoint}/api/models/org/tiny").json()["sha"])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_large_file_is_redirected_with_all_a_client_must_know(
    calm: ChaosHub, ask: Ask, sha: str, method: str
) -> None:
    reply = ask(f"{calm.endpoint}/org/tiny/resolve/main/{SHARD}", method)
    digest = hashlib.sha256(content(3_000_000, seed=1)).hexdigest()
    assert reply.status == 302
    assert reply.headers["x-repo-commit"] == sha
    assert reply.headers["x-linked-etag"] == f'"{digest}"'
    assert reply.headers["x-linked-size"] == "3000000"
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["etag"].strip('"') != digest
    assert int(reply.headers["content-length"]) < 3_000_000
    target = urlsplit(reply.headers["location"])
    assert f"{target.scheme}://{target.netloc}" == calm.cdn
    assert target.hostname != urlsplit(calm.endpoint).hostname


def test_xet_is_offered_where_a_repo_says_so(calm: ChaosHub, ask: Ask) -> None:
    base = f"{calm.endpoint}/api/models/org/xet"
    rows = {one["path"]: one for one in ask(f"{base}/tree/main").json()}
    named = ask(f"{base}/paths-info/main", "POST", b"paths=large.bin").json()
    large = ask(f"{calm.endpoint}/org/xet/resolve/main/large.bin", "HEAD").headers
    assert rows["large.bin"]["xetHash"] == named[0]["xetHash"] == large["x-xet-hash"]
    assert "xetHash" not in rows["config.json"]
    target = re.fullmatch(r'<(.+)>; rel="xet-auth"', large["link"])
    assert target is not None
    token = ask(target.group(1))
    assert token.json()["casUrl"] == token.headers["x-xet-cas-url"] == f"{calm.cdn}/xet"
    plain = ask(f"{calm.endpoint}/org/tiny/resolve/main/{SHARD}", "HEAD").headers
    assert {"x-xet-hash", "link"} & set(plain) == set()
    assert ask(f"{calm.endpoint}/api/models/org/tiny/xet-read-token/main").status == 404


def test_the_cdn_serves_ranges_under_an_etag_of_its_own(calm: ChaosHub, ask: Ask) -> None:
    url = ask(f"{calm.endpoint}/org/tiny/resolve/main/{SHARD}").headers["location"]
    data = content(3_000_000, seed=1)
    whole, first, last = ask(url), ask(url, Range="bytes=0-0"), ask(url, Range="bytes=-5")
    assert (whole.status, whole.body) == (200, data)
    assert (first.status, first.body) == (206, data[:1])
    assert first.headers["content-range"] == "bytes 0-0/3000000"
    assert last.body == data[-5:]
    assert hashlib.sha256(data).hexdigest() not in whole.headers["etag"]
    assert "x-repo-commit" not in whole.headers
    head = ask(url, "HEAD")
    assert (head.headers["content-length"], head.body) == ("3000000", b"")


def test_the_cdn_refuses_addresses_that_were_changed_or_have_expired(
    calm: ChaosHub, shelf: Path, ask: Ask
) -> None:
    url = ask(f"{calm.endpoint}/org/tiny/resolve/main/{SHARD}").headers["location"]
    assert ask(url[:-1] + ("0" if url[-1] != "0" else "1")).status == 403
    assert ask(url.replace("Expires=1", "Expires=9")).status == 403
    assert ask(url.partition("?")[0]).status == 403
    with ChaosHub(shelf, url_lifetime_s=0) as hasty:
        late = ask(f"{hasty.endpoint}/org/tiny/resolve/main/{SHARD}").headers["location"]
        assert ask(late).status == 403


@pytest.mark.parametrize("path", ["config.json", "empty.txt", NASTY])
def test_a_small_file_is_redirected_to_the_same_host(calm: ChaosHub, ask: Ask, sha: str, path: str) -> None:
    source = f"{calm.endpoint}/org/tiny/resolve/main/{quote(path)}"
    reply = ask(source)
    location = reply.headers["location"]
    assert reply.status == 307
    assert reply.headers["x-repo-commit"] == sha
    assert location.startswith(f"/api/resolve-cache/models/org/tiny/{sha}/")
    for target in (location, location.partition("?")[0]):  # old clients lose the query
        file = ask(urljoin(source, target))
        oid = hashlib.sha1(b"blob %d\0" % len(file.body) + file.body).hexdigest()
        assert file.status == 200
        assert file.headers["etag"] == f'"{oid}"'
        assert file.headers["x-repo-commit"] == sha
        assert file.headers["content-length"] == str(len(file.body))


def test_a_client_that_has_the_file_is_told_so(calm: ChaosHub, ask: Ask, sha: str) -> None:
    url = f"{calm.endpoint}/api/resolve-cache/models/org/tiny/{sha}/config.json"
    etag = ask(url).headers["etag"]
    again = ask(url, If_None_Match=etag)
    assert (again.status, again.body) == (304, b"")
    assert ask(url, Range="bytes=0-1", If_Range='"other"').status == 200


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=3-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-0", 0)])
def test_ranges_beyond_the_end(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, size)


def test_a_range_beyond_the_end_is_a_416(calm: ChaosHub, ask: Ask, sha: str) -> None:
    reply = ask(f"{calm.endpoint}/api/resolve-cache/models/org/tiny/{sha}/config.json", Range="bytes=99-")
    assert (reply.status, reply.headers["content-range"]) == (416, "bytes */13")


def test_info_lists_the_files(calm: ChaosHub, ask: Ask, sha: str) -> None:
    info = ask(f"{calm.endpoint}/api/models/org/tiny/revision/main?blobs=true").json()
    files = {sibling["rfilename"]: sibling for sibling in info["siblings"]}
    assert (info["id"], info["sha"], info["private"], info["gated"]) == ("org/tiny", sha, False, False)
    assert (info["tags"], info["pipeline_tag"]) == (["a-tag"], "fill-mask")
    assert files[SHARD]["lfs"]["sha256"] == hashlib.sha256(content(3_000_000, seed=1)).hexdigest()
    assert files["config.json"]["size"] == 13
    assert ".hub.json" not in files
    narrow = ask(f"{calm.endpoint}/api/models/org/tiny?expand=sha&expand=tags").json()
    assert set(narrow) == {"_id", "id", "modelId", "sha", "tags"}


def test_the_tree_is_flat_or_deep(calm: ChaosHub, ask: Ask) -> None:
    tree = f"{calm.endpoint}/api/models/org/tiny/tree/main"
    deep = {entry["path"]: entry for entry in ask(f"{tree}?recursive=True&expand=true").json()}
    assert set(deep) == {
        "new\nline.txt",
        "config.json",
        "empty.txt",
        SHARD,
        SHARD.replace("1-", "2-"),
        NASTY,
        "weights",
        "sub dir",
    }
    assert deep["weights"]["type"] == "directory"
    assert deep[SHARD]["lfs"]["size"] == 3_000_000
    assert deep[SHARD]["oid"] != deep[SHARD]["lfs"]["oid"]
    assert "lastCommit" in deep["config.json"]
    flat = {entry["path"] for entry in ask(tree).json()}
    assert flat == {"new\nline.txt", "config.json", "empty.txt", "weights", "sub dir"}
    below = {entry["path"] for entry in ask(f"{tree}/{quote('sub dir', safe='')}").json()}
    assert below == {NASTY}


def test_a_folder_that_is_not_there(calm: ChaosHub, ask: Ask, sha: str) -> None:
    reply = ask(f"{calm.endpoint}/api/models/org/tiny/tree/main/additional_chat_templates?recursive=False")
    assert (reply.status, reply.headers["x-error-code"]) == (404, "EntryNotFound")
    assert reply.headers["x-repo-commit"] == sha


def test_the_tree_comes_in_pages(tmp_path: Path, ask: Ask) -> None:
    write_repo(tmp_path, "org/many", {f"{number:02}.txt": b"" for number in range(7)})
    with ChaosHub(tmp_path, page_size=3) as hub:
        url, seen = f"{hub.endpoint}/api/models/org/many/tree/main?recursive=true&expand=false", []
        while url:
            reply = ask(url)
            seen.append([entry["path"] for entry in reply.json()])
            url = reply.headers.get("link", "").removesuffix('>; rel="next"').removeprefix("<")
        assert [len(page) for page in seen] == [3, 3, 1]
        assert [path for page in seen for path in page] == [f"{number:02}.txt" for number in range(7)]


def test_hostile_trees_are_given_as_written(tmp_path: Path, ask: Ask) -> None:
    entry = {"type": "file", "path": "../../evil", "size": -1, "oid": None}
    write_repo(tmp_path, "org/extra", {"a.txt": b""}, tree_extra=[entry])
    write_repo(tmp_path, "org/lies", {"a.txt": b""}, tree_replace=[entry, "not an entry"])
    with ChaosHub(tmp_path) as hub:
        extra = ask(f"{hub.endpoint}/api/models/org/extra/tree/main").json()
        assert [row["path"] for row in extra] == ["a.txt", "../../evil"]
        assert ask(f"{hub.endpoint}/api/models/org/lies/tree/main").json() == [entry, "not an entry"]


def test_paths_info_takes_forms_and_json(calm: ChaosHub, ask: Ask) -> None:
    url = f"{calm.endpoint}/api/models/org/tiny/paths-info/main"
    paths = ["config.json", "weights", "absent", NASTY]
    form = ask(url, "POST", urlencode({"paths": paths, "expand": False}, doseq=True).encode())
    text = json.dumps({"paths": paths, "expand": True}).encode()
    posted = ask(url, "POST", text, Content_Type="application/json")
    for reply in (form, posted):
        assert [row["path"] for row in reply.json()] == ["config.json", "weights", NASTY]
    assert "lastCommit" in posted.json()[0]
    assert "lastCommit" not in form.json()[0]
    assert ask(url, "POST", b"[", Content_Type="application/json").status == 400


def test_revisions_with_slashes(calm: ChaosHub, ask: Ask) -> None:
    for revision in ("refs%2Fpr%2F1", "refs/pr/1", "feature%2Fslash"):
        reply = ask(f"{calm.endpoint}/org/tiny/resolve/{revision}/config.json")
        assert reply.status == 307, revision
    sha = ask(f"{calm.endpoint}/api/models/org/tiny/revision/refs%2Fpr%2F1").json()["sha"]
    refs = ask(f"{calm.endpoint}/api/models/org/tiny/refs?include_prs=1").json()
    assert [branch["name"] for branch in refs["branches"]] == ["main", "feature/slash"]
    assert refs["pullRequests"] == [{"name": "refs/pr/1", "ref": "refs/pr/1", "targetCommit": sha}]
    assert ask(f"{calm.endpoint}/api/models/org/tiny/commits/{sha}").json()[0]["id"] == sha


@pytest.mark.parametrize(
    ("route", "file"),
    [("legacy", "nested/only.txt"), ("datasets/org/data", "README.md"), ("spaces/org/app", "app.py")],
)
def test_bare_names_datasets_and_spaces(calm: ChaosHub, ask: Ask, route: str, file: str) -> None:
    source = f"{calm.endpoint}/{route}/resolve/main/{file}"
    reply = ask(source)
    assert reply.status == 307
    assert ask(urljoin(source, reply.headers["location"])).status == 200
    api = route if "/" in route else f"models/{route}"
    assert ask(f"{calm.endpoint}/api/{api}").json()["id"] == route.partition("s/")[2] or route
    assert ask(f"{calm.endpoint}/api/{api}/tree/main?recursive=true").status == 200


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/api/models/org/absent", None, 401, "RepoNotFound"),
        ("/api/models/org/absent", "hf_good", 404, "RepoNotFound"),
        ("/absent/resolve/main/a", None, 401, "RepoNotFound"),
        ("/api/models/org/private", None, 401, "RepoNotFound"),
        ("/api/models/org/private", "hf_other", 404, "RepoNotFound"),
        ("/api/models/org/private", "hf_good", 200, None),
        ("/org/private/resolve/main/secret.bin", "hf_good", 302, None),
        ("/org/private/resolve/main/secret.bin", "hf_other", 404, "RepoNotFound"),
        ("/api/models/org/gated", None, 200, None),
        ("/org/gated/resolve/main/weights.bin", None, 401, "GatedRepo"),
        ("/org/gated/resolve/main/weights.bin", "hf_other", 403, "GatedRepo"),
        ("/org/gated/resolve/main/weights.bin", "hf_good", 302, None),
        ("/api/models/org/gated/auth-check", "hf_other", 403, "GatedRepo"),
        ("/api/models/org/tiny/auth-check", None, 200, None),
        ("/api/models/org/off", None, 403, None),
        ("/api/models/org/tiny", "hf_bad", 401, None),
        ("/api/models/org/tiny/revision/absent", None, 404, "RevisionNotFound"),
        ("/org/tiny/resolve/absent/a", None, 404, "RevisionNotFound"),
        ("/org/tiny/resolve/main/absent", None, 404, "EntryNotFound"),
        ("/api/whoami-v2", None, 401, None),
        ("/api/whoami-v2", "hf_other", 200, None),
        ("/api/telemetry/x", "hf_bad", 204, None),
        ("/api/agent-harnesses", None, 200, None),
        ("/api/models/org/tiny/xet-read-token/main", None, 404, None),
        ("/org/tiny/resolve/main/../../private/secret.bin", None, 404, "EntryNotFound"),
    ],
)
def test_who_gets_what(
    calm: ChaosHub, ask: Ask, path: str, token: str | None, status: int, code: str | None
) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    for method in ("GET", "HEAD"):
        reply = ask(calm.endpoint + path, method, **headers)
        assert (reply.status, reply.headers.get("x-error-code")) == (status, code)
        assert ("x-error-message" in reply.headers) == (status >= 400)
        assert "x-xet-hash" not in reply.headers


def test_the_message_for_a_bad_token_is_the_one_clients_look_for(calm: ChaosHub, ask: Ask) -> None:
    reply = ask(f"{calm.endpoint}/api/models/org/tiny", Authorization="Bearer hf_bad")
    assert reply.headers["x-error-message"] == "Invalid credentials in Authorization header"


def test_a_cached_route_is_guarded_too(calm: ChaosHub, ask: Ask) -> None:
    sha = ask(f"{calm.endpoint}/api/models/org/private", Authorization="Bearer hf_good").json()["sha"]
    url = f"{calm.endpoint}/api/resolve-cache/models/org/private/{sha}/notes.txt"
    assert ask(url, Authorization="Bearer hf_good").status == 200
    assert ask(url).status == 401


def test_an_absent_file_carries_the_commit(calm: ChaosHub, ask: Ask, sha: str) -> None:
    assert ask(f"{calm.endpoint}/org/tiny/resolve/main/absent", "HEAD").headers["x-repo-commit"] == sha


def test_names_cannot_forge_headers(calm: ChaosHub, ask: Ask) -> None:
    reply = ask(f"{calm.endpoint}/org/tiny/resolve/main/a%0d%0aX-Forged:%20yes%c3%a9")
    assert reply.status == 404
    assert "x-forged" not in reply.headers


def test_a_file_name_with_a_newline(tmp_path: Path, ask: Ask) -> None:
    write_repo(tmp_path, "org/odd", {"a\nb.txt": b"odd", "c\nd.bin": b"large"})
    with ChaosHub(tmp_path) as hub:
        for path, data in (("a%0Ab.txt", b"odd"), ("c%0Ad.bin", b"large")):
            source = f"{hub.endpoint}/org/odd/resolve/main/{path}"
            assert ask(urljoin(source, ask(source).headers["location"])).body == data
