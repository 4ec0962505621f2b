"""A directory of repos: what is found in it, and that nothing outside it ever is."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from headrace.errors import BrokenStream, EntryNotFound, RepoNotFound, UsageError
from headrace.manifest import Digest, Entry
from headrace.names import Repo, RepoKind
from headrace.ranges import Range
from headrace.source.contract import Content, Request
from headrace.source.directory import Directory, DirectorySource, FileStream, RepoFolder
from headrace.source.http import Dialer, HttpSession
from headrace.source.largefiles import LARGE_BYTES, algorithm_of

ANY = Digest(Digest.SHA256, "0" * 64)
COMMIT = "c" * 40
PLAIN = RepoFolder("acme/m", is_cached=False)


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def paths(directory: Directory, place: str) -> list[str]:
    return [leaf.path for leaf in directory.tree(RepoFolder(place, is_cached=False)).leaves]


def test_repos_are_found_where_people_put_them(tmp_path: Path) -> None:
    for place in (
        "acme/a/x",
        "acme/b/deep/x",
        "solo/x",
        "datasets/acme/d/x",
        "spaces/acme/s/x",
        "datasets/bare/x",
    ):
        put(tmp_path / place)
    put(tmp_path / f"models--acme--cached/snapshots/{COMMIT}/x")
    put(tmp_path / f"datasets--squad/snapshots/{COMMIT}/x")
    put(tmp_path / "models--acme--half/blobs/x")
    put(tmp_path / ".hidden/repo/x")
    put(tmp_path / "acme/.git/x")
    put(tmp_path / "top.txt")
    directory = Directory(tmp_path)
    found = {repo.address for repo in directory.repos() if directory.find(repo) is not None}
    assert found == {
        *("acme/a", "acme/b", "solo", "acme/cached"),
        *("datasets/acme/d", "spaces/acme/s", "datasets/bare", "datasets/squad"),
    }
    assert directory.find(Repo("acme/none")) is None
    assert directory.find(Repo("acme")) is None
    assert directory.find(Repo("datasets/acme")) is None
    assert directory.find(Repo("acme/half")) is None


def test_the_home_of_hub_clients_is_served_without_their_tokens(tmp_path: Path) -> None:
    put(tmp_path / f"hub/models--acme--m/snapshots/{COMMIT}/x")
    put(tmp_path / "token", b"hf_secret")
    assert [repo.name for repo in Directory(tmp_path).repos()] == ["acme/m"]


@pytest.mark.parametrize("root", ["none", "file"])
def test_what_is_no_folder_is_refused_at_once(tmp_path: Path, root: str) -> None:
    put(tmp_path / "file")
    with pytest.raises(UsageError):
        Directory(tmp_path / root).check()


def test_hidden_and_unfinished_files_and_what_is_no_file_are_left_out(tmp_path: Path) -> None:
    repo = tmp_path / "acme/m"
    for name in (
        *("a.txt", "sub dir/päth +%20#?&='\"[x].txt", "new\nline", ".gitattributes", "back\\slash"),
        *(".env", ".git/config", ".cache/huggingface/x", "w.safetensors.incomplete", "w.part", "sub/.hidden"),
    ):
        put(repo / name)
    put(Path(os.fsdecode(os.fsencode(repo) + b"/\xff\xfe.txt")))
    os.mkfifo(repo / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(repo / "socket"))
    directory = Directory(tmp_path)
    assert paths(directory, "acme/m") == [
        *(".gitattributes", "a.txt", "back\\slash", "new\nline", "sub dir/päth +%20#?&='\"[x].txt"),
    ]
    (why,) = directory.tree(PLAIN).left_out
    assert "not Unicode" in why


def test_links_are_followed_within_the_directory_only(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/secret.txt", b"secret")
    root = tmp_path / "root"
    repo = root / "acme/m"
    put(repo / "real.txt")
    put(root / "shared/w.bin")
    put(root / "acme/.secret/key")
    links = {
        "near": "real.txt",
        "across": "../../shared/w.bin",
        "absolute": str(outside),
        "up": "../../../outside/secret.txt",
        "gone": "nothing",
        "round": "round",
        "hidden": "../.secret/key",
        "folder": "../../../outside",
        "passwd": "/etc/passwd",
    }
    for name, target in links.items():
        (repo / name).symlink_to(target)
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "acme/away").symlink_to(tmp_path / "outside")
    directory = Directory(root)
    assert paths(directory, "acme/m") == ["across", "near", "real.txt"]
    assert len(directory.tree(PLAIN).left_out) == 7
    assert directory.find(Repo("acme/away")) is None
    assert directory.find(Repo("linked")) is None
    for path in (*links.keys() - {"near", "across"}, "folder/secret.txt", "../../../outside/secret.txt"):
        assert directory.leaf(PLAIN, "", path) is None
    for place in ("acme/m/absolute", "acme/away/secret.txt", "acme/m/folder/secret.txt"):
        with pytest.raises(OSError, match=r"symbolic|Not a directory"):
            directory.open(place)


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "root/acme/m/sub/a.txt", b"right")
    put(tmp_path / "outside/a.txt", b"wrong")
    directory = Directory(tmp_path / "root")
    (leaf,) = directory.tree(PLAIN).leaves
    (tmp_path / "root/acme/m/sub").rename(tmp_path / "root/acme/m/was")
    (tmp_path / "root/acme/m/sub").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"symbolic|Not a directory"):
        directory.open(leaf.place)


def request_of(path: str, size: int, start: int = 0, repo: str = "acme/m") -> Request:
    content = Content(Repo(repo), COMMIT, Entry(path, size, ANY))
    return Request(content, Range(start, size), start == 0, "", "", 5.0)


def test_a_source_gives_the_bytes_that_are_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "acme/m/a.txt", b"0123456789")
    source, session, buffer = (
        DirectorySource("team", Directory(tmp_path)),
        HttpSession(Dialer()),
        bytearray(64),
    )
    stream = source.open(request_of("a.txt", 10, 3), session)
    count = stream.readinto(memoryview(buffer))
    assert bytes(buffer[:count]) == b"3456789"
    assert stream.readinto(memoryview(buffer)) == 0
    stream.close()


def test_a_source_refuses_what_it_has_not_or_not_any_more(tmp_path: Path) -> None:
    put(tmp_path / "acme/m/a.txt", b"0123456789")
    source, session = DirectorySource("team", Directory(tmp_path)), HttpSession(Dialer())
    with pytest.raises(EntryNotFound):
        source.open(request_of("a.txt", 11), session)
    with pytest.raises(EntryNotFound):
        source.open(request_of("b.txt", 10), session)
    with pytest.raises(RepoNotFound):
        source.open(request_of("a.txt", 10, repo="acme/none"), session)
    with pytest.raises(UsageError):
        source.manifest(Repo("acme/m"), "main")


def test_a_disk_that_fails_is_a_source_that_fails(tmp_path: Path) -> None:
    stream = FileStream("team", os.open(tmp_path, os.O_RDONLY), 0, 10)
    with pytest.raises(BrokenStream):
        stream.readinto(memoryview(bytearray(8)))
    stream.close()


def test_a_cached_repo_has_its_branches_and_commits(tmp_path: Path) -> None:
    folder = tmp_path / "models--acme--m"
    for commit in ("a" * 40, "b" * 40):
        put(folder / "blobs" / "1" / commit[:1])
        put(folder / "snapshots" / commit / "x")
    os.utime(folder / "snapshots" / ("a" * 40), ns=(1, 1))
    put(folder / "refs/refs/pr/1", b"a" * 40)
    put(folder / "refs/gone", b"d" * 40)
    put(folder / "refs/odd", b"../../../etc")
    (folder / "refs/link").symlink_to("/etc/hostname")
    directory = Directory(tmp_path)
    found = directory.find(Repo("acme/m", RepoKind.MODEL))
    assert found is not None
    assert directory.refs(found) == {"refs/pr/1": "a" * 40, "main": "b" * 40}
    assert directory.has_commit(found, "a" * 40)
    assert not directory.has_commit(found, "d" * 40)
    assert not directory.has_commit(found, "../../" + "d" * 34)


def test_an_empty_directory_that_was_not_is_taken_for_a_disk_that_is_away(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root / "acme/m/a")
    directory = Directory(root)
    assert directory.is_there()
    (root / "acme").rename(tmp_path / "acme")
    assert not directory.is_there()
    root.rmdir()
    assert not directory.is_there()
    root.mkdir()
    (tmp_path / "acme").rename(root / "acme")
    assert directory.is_there()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert Directory(empty).is_there()


@pytest.mark.parametrize(
    ("path", "size", "large"),
    [
        ("config.json", 100, False),
        ("config.json", LARGE_BYTES, False),
        ("config.json", LARGE_BYTES + 1, True),
        ("model.safetensors", 1, True),
        ("sub/w.gguf", 1, True),
        ("pytorch_model.bin.index.json", 1, False),
        ("tokenizer.model", 1, True),
        ("runs/events.out.tfevents.123", 1, True),
        ("a.tar.gz.part1", 1, True),
        ("saved_model/keras.txt", 1, True),
    ],
)
def test_what_is_large_is_what_hubs_take_for_large(path: str, size: int, *, large: bool) -> None:
    assert algorithm_of(path, size) == (Digest.SHA256 if large else Digest.GIT_BLOB_SHA1)


def test_a_folder_that_is_called_as_in_a_cache_is_none(tmp_path: Path) -> None:
    put(tmp_path / "datasets/snapshots/d/.env")
    put(tmp_path / "datasets/snapshots/d/a.txt")
    put(tmp_path / "datasets/snapshots/d/blobs" / ("a" * 64))
    directory = Directory(tmp_path)
    found = directory.find(Repo("snapshots/d", RepoKind.DATASET))
    assert found is not None
    assert [(one.path, one.named) for one in directory.tree(found).leaves] == [
        ("a.txt", ""),
        (f"blobs/{'a' * 64}", ""),
    ]
    assert directory.leaf(found, COMMIT, ".env") is None


def test_a_snapshot_has_hidden_files_and_names_what_clients_have_named(tmp_path: Path) -> None:
    folder = tmp_path / "models--acme--m"
    put(folder / "blobs" / ("b" * 40))
    snapshot = folder / "snapshots" / COMMIT
    put(snapshot / ".gitignore")
    (snapshot / "sub").mkdir()
    (snapshot / "sub/a.txt").symlink_to(f"../../../blobs/{'b' * 40}")
    (snapshot / "secret").symlink_to(put(tmp_path / ".secret"))
    directory = Directory(tmp_path)
    found = directory.find(Repo("acme/m"))
    assert found is not None
    leaves = directory.tree(found, COMMIT).leaves
    assert [(one.path, one.named) for one in leaves] == [(".gitignore", ""), ("sub/a.txt", "b" * 40)]
    assert [directory.leaf(found, COMMIT, one.path) for one in leaves] == list(leaves)
    assert directory.leaf(found, COMMIT, "secret") is None


def test_a_name_that_git_would_take_is_taken(tmp_path: Path) -> None:
    put(tmp_path / "acme/m/-dash")
    put(tmp_path / "acme/m/~tilde")
    listed = subprocess.run(["ls", str(tmp_path / "acme/m")], capture_output=True, text=True, check=True)
    assert paths(Directory(tmp_path), "acme/m") == sorted(listed.stdout.split())
