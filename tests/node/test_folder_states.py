"""What a directory's repo holds now: hashed once, in the background, and never while somebody writes to it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from headrace.errors import Busy, UsageError
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.config import Folder, NodeConfig, Upstream, parse_source
from headrace.node.memory.catalog import SqlCatalog
from headrace.node.memory.database import Database
from headrace.node.memory.filehashes import FileHashes, Wanted
from headrace.node.memory.folderorigin import FolderOrigin
from headrace.node.memory.folderstate import FolderStates, State
from headrace.node.memory.modelcard import facts_of, head_of
from headrace.node.memory.origins import NoHub, Origins
from headrace.node.threads import Threads
from headrace.source.directory import Directory, Identity, RepoFolder

REPO, HERE = Repo("acme/m"), RepoFolder("acme/m", is_cached=False)


@pytest.fixture
def hashes(tmp_path: Path) -> FileHashes:
    return FileHashes(Database.in_folder(tmp_path))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "team/acme/m").mkdir(parents=True)
    for name in ("a.txt", "b.bin"):
        put(tmp_path / "team/acme/m" / name, b"old")
    return tmp_path / "team"


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def never(_commit: str) -> bool:
    return False


def read(states: FolderStates) -> State:
    end = time.monotonic() + 20
    while (state := tried(states)) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return state


def tried(states: FolderStates) -> State | None:
    try:
        state = states.read(REPO, HERE, None, never)
    except Busy:
        return None
    assert isinstance(state, State)
    return state


def test_who_does_not_want_to_wait_is_told_how_far_it_is(root: Path, hashes: FileHashes) -> None:
    with (root / "acme/m/large.bin").open("wb") as file:
        file.truncate(300_000_000)
    time.sleep(0.4)
    states = FolderStates("team", Directory(root), hashes, wait_s=0.0)
    with pytest.raises(Busy, match=r"acme/m is being read: \d of 3 files, 0\.\d of 0\.3 GB") as told:
        states.read(REPO, HERE, None, never)
    assert told.value.retry_after_s
    assert len(read(states).entries) == 3


def test_a_file_is_hashed_once_while_it_is_the_same(root: Path, hashes: FileHashes) -> None:
    first = read(FolderStates("team", Directory(root), hashes))
    known = hashes.known("team:models/acme/m")
    assert set(known) == {("acme/m/a.txt", Digest.GIT_BLOB_SHA1), ("acme/m/b.bin", Digest.SHA256)}
    path, other = root / "acme/m/b.bin", Digest(Digest.SHA256, "f" * 64)
    wanted = Wanted("acme/m/b.bin", Identity.of(path.stat()), Digest.SHA256)
    hashes.keep("team:models/acme/m", {wanted: other})
    again = read(FolderStates("team", Directory(root), hashes))
    assert [one.digest for one in again.entries] == [first.entries[0].digest, other]
    os.utime(path)
    assert read(FolderStates("team", Directory(root), hashes)) == replace(first, modified_s=ANY)


def test_a_change_that_leaves_size_and_time_is_seen(root: Path, hashes: FileHashes) -> None:
    path = root / "acme/m/a.txt"
    states = FolderStates("team", Directory(root), hashes)
    first, facts = read(states), path.stat()
    put(path, b"new")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert read(states).commit != first.commit


def test_a_file_that_is_written_to_is_not_believed_yet(root: Path, hashes: FileHashes) -> None:
    states = FolderStates("team", Directory(root), hashes, wait_s=0.0)
    put(root / "acme/m/a.txt", b"just now")
    with pytest.raises(Busy, match="being written"):
        states.read(REPO, HERE, None, never)
    assert read(states).entries


def test_what_was_removed_is_forgotten(root: Path, hashes: FileHashes) -> None:
    states = FolderStates("team", Directory(root), hashes)
    read(states)
    (root / "acme/m/b.bin").unlink()
    read(states)
    assert [place for place, _ in hashes.known("team:models/acme/m")] == ["acme/m/a.txt"]
    states.forget_others([Repo("acme/other")])
    assert not hashes.known("team:models/acme/m")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("team=/srv/models", Folder("team", Path("/srv/models"))),
        ("team=./models", Folder("team", Path.cwd() / "models")),
        ("hub=https://hub.example", Upstream("hub", "https://hub.example")),
    ],
)
def test_a_path_is_told_from_a_url(text: str, found: Folder | Upstream) -> None:
    assert parse_source(text) == found


def test_a_path_may_begin_at_home() -> None:
    assert parse_source("team=~/models") == Folder("team", Path("~/models").expanduser())


def test_a_relative_path_to_a_folder_needs_no_dot(root: Path) -> None:
    assert parse_source(f"team={os.path.relpath(root)}") == Folder("team", Path.cwd() / os.path.relpath(root))


@pytest.mark.parametrize("text", ["team", "=/srv", "team=", "team=no such place"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_source(text)


def test_a_name_is_given_once(root: Path) -> None:
    with pytest.raises(UsageError, match="one name"):
        NodeConfig((Upstream("one", "http://127.0.0.1:9"),), root, folders=(Folder("one", root),))


class Hanging(FolderOrigin):
    """A directory on a disk that does not answer any more."""

    def has(self, repo: Repo) -> bool:
        threading.Event().wait(30)
        return super().has(repo)


def test_a_disk_that_hangs_keeps_nobody_else_waiting(root: Path, hashes: FileHashes, tmp_path: Path) -> None:
    directory = Directory(root)
    catalog = SqlCatalog(Database.in_folder(tmp_path))
    hanging = Hanging("team", directory, FolderStates("team", directory, hashes), catalog)
    while not hanging.had(REPO):
        time.sleep(0.01)

    async def ask() -> tuple[bool, bool]:
        threads = Threads()
        origins = Origins(NoHub(), [hanging], threads, 5.0, 60.0)
        asked = [
            asyncio.ensure_future(origins.of(repo))
            for repo in (REPO, *(Repo(f"other/{n}") for n in range(30)))
        ]
        done, _ = await asyncio.wait(asked, timeout=10)
        told = [one.result() is origins.hub for one in asked] if len(done) == len(asked) else []
        threads.close()
        return told[:1] == [False], bool(told) and all(told[1:])

    assert asyncio.run(ask()) == (True, True)


CARD = """---
# a comment
license: "apache-2.0"
language: [en, 'de']
tags:
  - ours
  - two words
library_name: transformers
pipeline_tag: text-generation
model-index:
- name: x
  results: []
---
# Title
tags: not these
"""


def test_a_readme_says_what_a_repo_is() -> None:
    told = facts_of(head_of(CARD))
    assert told["pipeline_tag"] == "text-generation"
    assert told["tags"] == [
        "transformers",
        "text-generation",
        "ours",
        "two words",
        "en",
        "de",
        "license:apache-2.0",
    ]


@pytest.mark.parametrize(
    "text", ["", "# no head\n", "---\nunfinished: yes\n", "---\n---\n", "---\n- x\n: y\n---\n"]
)
def test_a_readme_may_say_nothing(text: str) -> None:
    assert facts_of(head_of(text)) == {"tags": []}
