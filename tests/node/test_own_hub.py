"""A directory of repos, served as a hub of its own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from headrace.manifest import Digest
from headrace.node.memory.catalog import Row
from headrace.node.memory.gitids import commit_id
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import BIG, NASTY, TINY, Reply, ask

WEIGHTS = content(5_000_003, seed=11)
FILES = {
    "README.md": b"---\nlicense: mit\npipeline_tag: fill-mask\ntags:\n- ours\n---\n# hi\n",
    "config.json": b'{"hidden": 1}',
    "sub/deep/notes.txt": b"notes",
    "sub.txt": b"sorts oddly",
    NASTY: b"nasty",
    "new\nline.txt": b"odd",
    "model.safetensors": WEIGHTS,
}
Run = Callable[..., subprocess.CompletedProcess[str]]
Serve = Callable[..., NodeProcess]


def put_repo(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files that nobody has touched for a while."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def team(tmp_path: Path) -> Path:
    put_repo(tmp_path / "team/acme/m", FILES)
    put_repo(tmp_path / "team/datasets/acme/d", {"train.txt": b"text"})
    put_repo(tmp_path / "team/solo", {"a.txt": b"alone"})
    return tmp_path / "team"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve({"team": DIR}, **options)`; all nodes of one test share a data folder."""
    with ExitStack() as stack:

        def start(sources: Mapping[str, Any], **options: Any) -> NodeProcess:
            places = {name: str(place) for name, place in sources.items()}
            return stack.enter_context(NodeProcess(tmp_path / "node", places, **{"ref_ttl": 0, **options}))

        yield start


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 15
    while not (found := look()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def sha(node: NodeProcess, repo: str = "acme/m", revision: str = "main") -> str:
    reply = ask(f"{node.endpoint}/api/models/{repo}/revision/{revision}")
    assert reply.status == 200, reply.body
    return str(reply.json()["sha"])


def get(node: NodeProcess, path: str, revision: str = "main", repo: str = "acme/m") -> Reply:
    return ask(f"{node.endpoint}/{repo}/resolve/{revision}/{path}")


def git(folder: Path, *arguments: str, given: bytes = b"") -> str:
    who = {"NAME": "Headrace", "EMAIL": "headrace@localhost", "DATE": "@0 +0000"}
    env = {f"GIT_{role}_{name}": text for role in ("AUTHOR", "COMMITTER") for name, text in who.items()}
    command = ["git", "-c", "core.quotePath=false", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **env}, input=given, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def commit_by_git(folder: Path, files: Mapping[str, bytes], large: set[str]) -> str:
    folder.mkdir()
    git(folder, "init", "-q")
    for name, data in files.items():
        kept = data
        if name in large:
            oid = hashlib.sha256(data).hexdigest()
            kept = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()
            )
        blob = git(folder, "hash-object", "-w", "--stdin", given=kept)
        git(folder, "update-index", "-z", "--index-info", given=f"100644 {blob}\t{name}\0".encode())
    return git(folder, "commit-tree", git(folder, "write-tree"), given=b"The files as they are\n")


def test_a_folder_is_a_hub_whose_ids_are_gits_own(team: Path, serve: Serve, tmp_path: Path) -> None:
    node = serve({"team": team})
    info = ask(f"{node.endpoint}/api/models/acme/m?blobs=true").json()
    assert info["sha"] == commit_by_git(tmp_path / "git", FILES, {"model.safetensors"})
    assert {one["rfilename"] for one in info["siblings"]} == set(FILES)
    assert info["pipeline_tag"] == "fill-mask"
    assert {"ours", "license:mit"} <= set(info["tags"])
    by_name = {one["rfilename"]: one for one in info["siblings"]}
    assert by_name["model.safetensors"]["lfs"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert by_name["config.json"]["blobId"] == git(
        tmp_path, "hash-object", "--stdin", given=FILES["config.json"]
    )
    for name, data in FILES.items():
        reply = ask(f"{node.endpoint}/acme/m/resolve/main/{_quoted(name)}")
        assert (reply.status, reply.body) == (200, data)
        assert reply.headers["x-repo-commit"] == info["sha"]
    part = ask(f"{node.endpoint}/acme/m/resolve/main/model.safetensors", Range="bytes=4000000-4000009")
    assert (part.status, part.body) == (206, WEIGHTS[4_000_000:4_000_010])
    assert ask(f"{node.endpoint}/datasets/acme/d/resolve/main/train.txt").body == b"text"
    assert get(node, "a.txt", repo="solo").body == b"alone"


def _quoted(name: str) -> str:
    return quote(name)


def test_an_empty_repo_is_gits_empty_tree(tmp_path: Path) -> None:
    assert commit_id([]) == commit_by_git(tmp_path / "git", {}, set())
    row = Row("a", 0, Digest(Digest.GIT_BLOB_SHA1, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"))
    assert commit_id([row]) == commit_by_git(tmp_path / "other", {"a": b""}, set())


def test_what_is_not_there_is_refused_as_hubs_do(team: Path, serve: Serve) -> None:
    (team / "acme/m/passwd").symlink_to("/etc/passwd")
    node = serve({"team": team})
    told = {
        "/api/models/acme/none": (401, "RepoNotFound"),
        "/acme/none/resolve/main/config.json": (401, "RepoNotFound"),
        "/api/models/acme/m/revision/v2": (404, "RevisionNotFound"),
        f"/acme/m/resolve/{'0' * 40}/config.json": (404, "RevisionNotFound"),
        "/acme/m/resolve/main/none.txt": (404, "EntryNotFound"),
        "/acme/m/resolve/main/passwd": (404, "EntryNotFound"),
        "/acme/m/resolve/main/..%2F..%2Fsolo%2Fa.txt": (404, "EntryNotFound"),
        "/acme/m/resolve/main/../../solo/a.txt": (404, "EntryNotFound"),
        "/acme/m/resolve/main/sub": (404, "EntryNotFound"),
        "/api/models/acme/m/discussions": (404, None),
        "/api/models/acme/m/tree/main/none": (404, "EntryNotFound"),
        "/api/papers/1": (404, None),
    }
    found = {}
    for target in told:
        reply = ask(node.endpoint + target)
        found[target] = (reply.status, reply.headers.get("x-error-code"))
    assert found == told


def test_lists_branches_and_history_are_told(team: Path, serve: Serve) -> None:
    node = serve({"team": team})
    first = sha(node)
    put_repo(team / "acme/m", {"config.json": b'{"hidden": 2}'})
    second = until(lambda: (now := sha(node)) != first and now)
    refs = ask(f"{node.endpoint}/api/models/acme/m/refs").json()
    assert refs["branches"] == [{"name": "main", "ref": "refs/heads/main", "targetCommit": second}]
    assert [one["id"] for one in ask(f"{node.endpoint}/api/models/acme/m/commits/main").json()] == [
        second,
        first,
    ]
    whole = ask(f"{node.endpoint}/api/models/acme/m/tree/main?recursive=true").json()
    expanded = ask(f"{node.endpoint}/api/models/acme/m/tree/main?recursive=true&expand=true").json()
    assert {one["path"]: one["oid"] for one in whole} == {one["path"]: one["oid"] for one in expanded}
    assert all(one["lastCommit"]["id"] == second for one in expanded)
    assert ask(f"{node.endpoint}/api/models/acme/m?expand=tags").json().keys() == {
        "_id",
        "id",
        "modelId",
        "tags",
    }
    posted = json.dumps({"paths": ["sub", "config.json", "none"], "expand": True}).encode()
    rows = ask(
        f"{node.endpoint}/api/models/acme/m/paths-info/main", "POST", posted, Content_Type="application/json"
    ).json()
    assert {row["path"] for row in rows} == {"sub", "config.json"}
    names = {
        query: [one["id"] for one in ask(f"{node.endpoint}/api/{query}").json()]
        for query in (
            "models",
            "models?search=SOL",
            "models?author=acme",
            "datasets",
            "models?limit=1",
            "spaces",
        )
    }
    assert names == {
        "models": ["acme/m", "solo"],
        "models?search=SOL": ["solo"],
        "models?author=acme": ["acme/m"],
        "datasets": ["acme/d"],
        "models?limit=1": ["acme/m"],
        "spaces": [],
    }


def test_a_change_makes_a_commit_and_what_was_served_before_stays(team: Path, serve: Serve) -> None:
    node = serve({"team": team})
    first = sha(node)
    assert get(node, "model.safetensors").body == WEIGHTS
    changed = content(5_000_003, seed=12)
    put_repo(team / "acme/m", {"model.safetensors": changed})
    second = until(lambda: (now := sha(node)) != first and now)
    assert get(node, "model.safetensors", first).body == WEIGHTS
    reply = get(node, "model.safetensors")
    assert (reply.body, reply.headers["x-repo-commit"]) == (changed, second)
    assert reply.headers["etag"] == f'"{hashlib.sha256(changed).hexdigest()}"'
    # The same content is the same commit: that somebody touched it means nothing.
    put_repo(team / "acme/m", {"model.safetensors": WEIGHTS})
    assert until(lambda: sha(node) == first)
    os.utime(team / "acme/m/config.json")
    (team / "acme/m/.cache").mkdir()
    time.sleep(0.4)
    assert sha(node) == first
    (team / "acme/m/sub.txt").unlink()
    assert until(lambda: sha(node) not in (first, second))
    assert get(node, "sub.txt").status == 404


def test_a_version_that_is_gone_is_never_given_wrong(team: Path, serve: Serve) -> None:
    node = serve({"team": team}, give_up=2)
    first = sha(node)
    put_repo(team / "acme/m", {"model.safetensors": content(5_000_003, seed=13), "config.json": b"{}"})
    until(lambda: sha(node) != first)
    for name in ("config.json", "model.safetensors"):
        try:
            reply = get(node, name, first)
        except OSError:
            continue  # the connection was reset before its end
        assert reply.status in (502, 503, 504)
    assert get(node, "config.json").body == b"{}"


def test_what_is_being_written_is_waited_for(team: Path, serve: Serve) -> None:
    node = serve({"team": team})
    path = team / "acme/m/config.json"
    commits = set()
    with path.open("wb") as file:
        end = time.monotonic() + 2.5
        first = None
        while time.monotonic() < end:
            file.write(b"x" * 100)
            file.flush()
            reply = ask(f"{node.endpoint}/api/models/acme/m/revision/main") if first is None else None
            if reply is not None and reply.status == 503:
                first = reply
            elif reply is not None:
                commits.add(reply.json()["sha"])
    assert first is None or "Retry-After".lower() in first.headers
    settled = until(
        lambda: (r := ask(f"{node.endpoint}/api/models/acme/m/revision/main")).status == 200 and r
    )
    size = {one["path"]: one["size"] for one in ask(f"{node.endpoint}/api/models/acme/m/tree/main").json()}
    assert size["config.json"] == path.stat().st_size
    assert settled.json()["sha"]


def test_a_repo_that_is_removed_is_refused_and_a_new_one_is_found(team: Path, serve: Serve) -> None:
    node = serve({"team": team}, visibility_ttl=0)
    first = sha(node)
    assert get(node, "config.json", first).status == 200
    (team / "acme/m").rename(team / "acme/n")
    until(lambda: ask(f"{node.endpoint}/api/models/acme/m").status == 401)
    assert get(node, "config.json", first).status == 401
    assert until(lambda: ask(f"{node.endpoint}/api/models/acme/n").status == 200)
    assert sha(node, "acme/n") == first


def test_while_the_disk_is_away_what_is_known_is_served(team: Path, serve: Serve, hub: ChaosHub) -> None:
    node = serve({"team": team, "hub": hub.endpoint}, visibility_ttl=1)
    first = sha(node)
    assert get(node, "config.json").status == 200
    team.rename(team.parent / "unmounted")
    team.mkdir()
    time.sleep(1.2)
    reply = until(lambda: (r := get(node, "config.json")).headers.get("x-hf-warning") and r)
    assert (reply.status, reply.body) == (200, FILES["config.json"])
    assert get(node, "a.txt", repo="solo").status == 502  # nobody had asked for it
    assert get(node, "config.json", repo="org/tiny").status == 200
    team.rmdir()
    (team.parent / "unmounted").rename(team)
    assert until(lambda: get(node, "a.txt", repo="solo").status == 200)
    assert sha(node) == first
    assert not [one for one in hub.settled_log().requests if "solo" in one.path or "acme" in one.path]


def test_a_directory_and_a_hub_do_not_know_each_other(team: Path, serve: Serve, tmp_path: Path) -> None:
    root = tmp_path / "hub"
    write_repo(root, "acme/m", {"config.json": b"of the hub"})
    write_repo(root, "org/tiny", TINY)
    write_repo(root, "old/name", {"x": b"x"}, renamed_to="acme/m")
    with ChaosHub(root) as hub:
        node = serve({"team": team, "hub": hub.endpoint})
        assert get(node, "config.json").body == FILES["config.json"]
        assert get(node, "config.json", repo="org/tiny").body == TINY["config.json"]
        commit = sha(node)
        assert ask(f"{node.endpoint}/api/models/acme/m/discussions").status == 404
        asked = [one.path for one in hub.settled_log().requests]
        assert not [path for path in asked if "acme" in path]
        # By another name of the hub's nothing gets to where a repo of ours is.
        assert ask(f"{node.endpoint}/api/models/old/name").status in (401, 404)
        assert sha(node) == commit
        ids = [one["id"] for one in ask(f"{node.endpoint}/api/models").json()]
        assert ids == ["acme/m", "solo", "org/tiny"]
    # The hub is gone: what is the team's is none of its business.
    assert get(node, "config.json").body == FILES["config.json"]
    assert get(node, "model.safetensors").body == WEIGHTS
    assert get(node, "a.txt", repo="solo").status == 200
    (team / "solo").rename(team / ".gone")
    assert until(lambda: get(node, "a.txt", repo="solo").status == 401)
    assert [one["id"] for one in ask(f"{node.endpoint}/api/models?author=acme").json()] == ["acme/m"]


def test_the_first_directory_that_has_a_repo_is_asked(team: Path, serve: Serve, tmp_path: Path) -> None:
    put_repo(tmp_path / "second/acme/m", {"config.json": b"second"})
    put_repo(tmp_path / "second/acme/other", {"config.json": b"other"})
    node = serve({"team": team, "second": tmp_path / "second"})
    assert get(node, "config.json").body == FILES["config.json"]
    assert get(node, "config.json", repo="acme/other").body == b"other"


def test_hashes_outlast_a_restart(team: Path, serve: Serve) -> None:
    node = serve({"team": team})
    first = sha(node)
    node.stop()
    path = team / "acme/m/model.safetensors"
    read_at = path.stat().st_atime_ns
    again = serve({"team": team})
    assert sha(again) == first
    assert path.stat().st_atime_ns == read_at


@pytest.mark.parametrize("place", ["/nowhere/at/all", "./nowhere"])
def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path, place: str) -> None:
    command = [
        sys.executable,
        "-m",
        "headrace.node",
        "--data",
        str(tmp_path / "d"),
        "--listen",
        "127.0.0.1:0",
    ]
    done = subprocess.run(
        [*command, "--source", f"team={place}"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "cannot be served" in done.stderr
    assert os.strerror(errno.ENOENT) in done.stderr


# Hub caches


@pytest.fixture
def cached(shelf: Path, tmp_path: Path, stock_client: Run) -> tuple[Path, dict[str, Any]]:
    """A cache that a real client has filled from a hub, and what that hub says of a repo."""
    with ChaosHub(shelf) as hub:
        script = "from huggingface_hub import snapshot_download as s; s('org/tiny'); s('org/tiny', revision='refs/pr/1')"
        done = stock_client(hub.endpoint, "-c", script, HF_HUB_DISABLE_XET="1")
        assert done.returncode == 0, done.stderr
        told = ask(f"{hub.endpoint}/api/models/org/tiny?blobs=true").json()
        told["pr"] = ask(f"{hub.endpoint}/api/models/org/tiny/revision/refs%2Fpr%2F1").json()["sha"]
    return tmp_path / "hf", told


def test_a_cache_of_hub_clients_is_served_as_the_hub_had_it(
    cached: tuple[Path, dict[str, Any]], serve: Serve
) -> None:
    home, hub = cached
    node = serve({"team": home})
    told = ask(f"{node.endpoint}/api/models/org/tiny?blobs=true").json()
    assert told["sha"] == hub["sha"]
    assert sorted(told["siblings"], key=str) == sorted(hub["siblings"], key=str)
    assert get(node, "weights/model-00001-of-00002.safetensors", repo="org/tiny").body == BIG
    assert sha(node, "org/tiny", "refs%2Fpr%2F1") == hub["pr"]
    assert get(node, "config.json", hub["pr"], "org/tiny").body == b"{}"
    refs = ask(f"{node.endpoint}/api/models/org/tiny/refs?include_prs=1").json()
    assert [one["targetCommit"] for one in refs["branches"] + refs["pullRequests"]] == [hub["sha"], hub["pr"]]


def test_a_cache_that_gets_more_files_of_a_commit_is_seen_to(
    cached: tuple[Path, dict[str, Any]], serve: Serve
) -> None:
    home, hub = cached
    snapshot = home / "hub/models--org--tiny/snapshots" / hub["sha"]
    (snapshot / "config.json").rename(home / "away")
    node = serve({"team": home})
    assert get(node, "config.json", repo="org/tiny").status == 404
    assert get(node, "empty.txt", repo="org/tiny").status == 200
    assert len(ask(f"{node.endpoint}/api/models/org/tiny/tree/main").json())
    (home / "away").rename(snapshot / "config.json")
    until(lambda: get(node, "config.json", repo="org/tiny").status == 200)
    assert ask(f"{node.endpoint}/api/models/org/tiny/tree/main?recursive=true").status == 200


def test_a_file_that_is_damaged_is_not_served_and_named_in_the_log_alone(
    cached: tuple[Path, dict[str, Any]], serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    home, hub = cached
    blob = (home / "hub/models--org--tiny/snapshots" / hub["sha"] / "config.json").resolve()
    blob.write_bytes(b"rotten")
    node = serve({"team": home})
    reply = get(node, "config.json", repo="org/tiny")
    assert reply.status == 503
    assert blob.name not in str(reply)
    node.stop()
    assert blob.name in capfd.readouterr().err


# Real clients


def test_real_clients_use_it_as_they_use_a_hub(
    team: Path, serve: Serve, stock_client: Run, tmp_path: Path
) -> None:
    script = """
import sys
from huggingface_hub import HfApi, HfFileSystem, snapshot_download
api, fs = HfApi(), HfFileSystem()
info = api.model_info("acme/m", files_metadata=True)
assert [r.target_commit for r in api.list_repo_refs("acme/m").branches] == [info.sha]
assert [m.id for m in api.list_models(search="m", author="acme")] == ["acme/m"]
assert api.list_repo_commits("acme/m")[0].commit_id == info.sha
assert "acme/m/sub/deep/notes.txt" in fs.find("acme/m")
assert fs.cat("acme/m/config.json") == b'{"hidden": 1}'
assert fs.open("acme/m/model.safetensors").read(10) == open(sys.argv[1], "rb").read(10)
assert not api.file_exists("acme/m", "none")
print(snapshot_download("acme/m", revision=info.sha))
"""
    node = serve({"team": team}, ref_ttl=60)
    model = str(team / "acme/m/model.safetensors")
    done = stock_client(node.endpoint, "-c", script, model, HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr
    got = Path(done.stdout.strip())
    assert {str(one.relative_to(got)): one.read_bytes() for one in got.rglob("*") if one.is_file()} == FILES


@pytest.mark.soak
def test_transformers_load_from_it(serve: Serve, stock_client: Run, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="to be loaded by it")
    pytest.importorskip("torch", reason="to be loaded with it")
    scripts = Path(__file__).parents[1] / "clients/scripts"
    (tmp_path / "team/acme/bert").mkdir(parents=True)
    made = stock_client("http://127.0.0.1:9", str(scripts / "make_bert.py"), str(tmp_path / "team/acme/bert"))
    assert made.returncode == 0, made.stderr
    node = serve({"team": tmp_path / "team"}, ref_ttl=60)
    script = str(scripts / "load_transformers.py")
    done = stock_client(node.endpoint, script, "acme/bert", str(tmp_path / "got"), HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr
    told, tensors = (
        json.loads(done.stdout.splitlines()[-1]),
        json.loads(made.stdout.splitlines()[-1])["tensors"],
    )
    assert told["there"]["tensors"] == told["offline"]["tensors"] == tensors


def test_pulls_and_locks_work_from_it(team: Path, serve: Serve, tmp_path: Path) -> None:
    node = serve({"team": team}, ref_ttl=60)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HEADRACE_"))}
    env |= {
        "HF_ENDPOINT": node.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HEADRACE_CONFIG": str(tmp_path / "none"),
    }

    def headrace(*arguments: str) -> None:
        command = [sys.executable, "-m", "headrace", *arguments]
        done = subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr

    headrace("pull", "acme/m", "--dest", str(tmp_path / "got"))
    got = tmp_path / "got"
    assert {name: (got / name).read_bytes() for name in FILES} == FILES
    headrace("lock", "acme/m", "-o", "locked")
    assert sha(node) in (tmp_path / "locked").read_text()
