"""Caches that are not ours alone: read-only ones, and those that a group of users shares."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.exits import exit_code
from headrace.errors import ReadOnly
from headrace.events import Warned
from headrace.layout import WorkshopLayout
from headrace.testing import ChaosHub, content, write_repo
from tests.pull.mounts import in_memory
from tests.store.conftest import sha256

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

FILES = {"config.json": b'{"a": 1}', "model.safetensors": content(5_000_000), "sub/b.json": b"[]"}
ALICE, BOB, TEAM = 61_001, 61_002, 61_000

# Everything is imported, and used once, before the rights are given up: the interpreter may lie where only its
# owner reads.
AS_USER = """
import json, os, sys, tempfile
import headrace
from headrace.events import Event, as_json
repo, dest, uid, umask = json.loads(sys.argv[1])
headrace.pull(repo, dest=tempfile.mkdtemp(), settings=headrace.load_settings(cache=tempfile.mkdtemp()))
os.setgroups([61000]); os.setgid(61000); os.setuid(uid); os.umask(umask)
told = []
try:
    snapshot = headrace.pull(repo, dest=dest, on_event=told.append)
    said = {"path": str(snapshot.path), "network": snapshot.network_bytes, "reused": snapshot.reused_bytes}
except headrace.HeadraceError as error:
    said = {"code": error.code, "message": error.message, "hint": error.hint}
print(json.dumps({**said, "checked": sum(type(event).__name__ == "Checking" for event in told)}))
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A cache folder of a group: setgid, writable for it."""
    if os.geteuid() != 0:
        pytest.skip("only root can be several users")
    base = Path(tempfile.mkdtemp(prefix="headrace-shared-"))
    base.chmod(0o755)
    cache = base / "cache"
    cache.mkdir()
    os.chown(cache, 0, TEAM)
    cache.chmod(0o2775)
    yield cache
    shutil.rmtree(base)


def pull_as(
    uid: int, cache: Path, *, repo: str = "org/model", dest: Path | None = None, umask: int = 0o002
) -> Any:
    """What a pull of another user said."""
    wanted = json.dumps([repo, dest and str(dest), uid, umask])
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HOME": str(cache.parent)}
    done = subprocess.run(
        [sys.executable, "-c", AS_USER, wanted], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_one_member_of_a_group_pulls_the_others_use_and_may_change(
    shared: Path, root: Path, hub: ChaosHub
) -> None:
    write_repo(root, "org/model", FILES)
    assert "path" in pull_as(ALICE, shared)
    for path in shared.rglob("*"):
        facts = path.lstat()
        assert facts.st_gid == TEAM, path
        assert stat.S_ISLNK(facts.st_mode) or facts.st_mode & stat.S_IWGRP, path
    seen = pull_as(BOB, shared)
    assert (seen["network"], seen["checked"]) == (0, 0)
    write_repo(root, "org/model", {**FILES, "new.json": b"new"})
    assert pull_as(BOB, shared)["network"] == len(b"new")
    assert pull_as(ALICE, shared)["network"] == 0


def test_files_that_only_their_owner_may_write_stop_nobody(shared: Path, root: Path, hub: ChaosHub) -> None:
    """The folder is the group's, what the first user made in it is not, folders apart."""
    write_repo(root, "org/model", FILES)
    pull_as(ALICE, shared, umask=0o002)
    for path in shared.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)
    workshop = shared / ".locks" / "headrace"
    data = content(6_000_000, seed=5)
    write_repo(root, "org/other", {"model.safetensors": data})
    layout = WorkshopLayout(workshop, sha256(data))
    for path in (layout.partial, layout.journal):
        path.write_bytes(b"another user's")
        os.chown(path, ALICE, TEAM)
        path.chmod(0o644)
    seen = pull_as(BOB, shared, repo="org/other")
    assert seen.get("network") == len(data), seen
    assert (Path(seen["path"]) / "model.safetensors").read_bytes() == data
    assert (workshop / f"verified.{BOB}.jsonl").exists()
    again = pull_as(BOB, shared, repo="org/other")
    assert (again["network"], again["checked"]) == (0, 0)
    assert pull_as(ALICE, shared, repo="org/other")["checked"] == 0


def test_a_cache_of_another_user_is_used_and_not_written(shared: Path, root: Path, hub: ChaosHub) -> None:
    write_repo(root, "org/model", FILES)
    write_repo(root, "org/other", {"x.bin": b"x"})
    shared.chmod(0o755)
    os.chown(shared, ALICE, TEAM)
    pull_as(ALICE, shared, umask=0o022)
    before = {path: path.lstat().st_mtime_ns for path in shared.rglob("*")}
    assert pull_as(BOB, shared)["network"] == 0
    said = pull_as(BOB, shared, repo="org/other")
    assert said["code"] == "read_only", said
    assert str(shared) in said["message"]
    assert "`dest`" in said["hint"]
    assert {path: path.lstat().st_mtime_ns for path in shared.rglob("*")} == before


def test_what_a_secretive_user_made_is_told_of_and_not_stumbled_over(
    shared: Path, root: Path, hub: ChaosHub
) -> None:
    write_repo(root, "org/model", FILES)
    assert "path" in pull_as(ALICE, shared, umask=0o077)
    said = pull_as(BOB, shared)
    assert said["code"] == "read_only", said
    assert "belongs to another" in said["message"]
    assert "`dest`" in said["hint"]


def test_a_read_only_cache_is_used_and_not_written(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    with in_memory(tmp_path / "disk", "size=64m") as disk:
        pull.cache = disk / "cache"
        pull("org/model")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        hub.clear_log()
        assert pull("org/model").network_bytes == 0
        assert pull.heard(Warned) == []
        moved = write_repo(root, "org/model", {**FILES, "new.json": b"new"})
        with pytest.raises(ReadOnly, match=f"{pull.cache} is read-only") as caught:
            pull("org/model")
        assert exit_code(type(caught.value)) == 14
        assert "HF_HUB_CACHE" in (caught.value.hint or "")
        assert "`dest`" in (caught.value.hint or "")
        assert hub.settled_log().blob_bytes == 0
        assert pull("org/model", dest=tmp_path / "out").network_bytes == len(b"new")
        assert moved.exists()
        with pytest.raises(ReadOnly):
            pull("org/model", dest=disk / "out")


def test_a_branch_that_cannot_be_written_down_is_told(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    write_repo(root, "org/model", FILES, revision="next")
    with in_memory(tmp_path / "disk", "size=64m") as disk:
        pull.cache = disk / "cache"
        commit = pull("org/model@next").commit
        pull(f"org/model@{commit}")
        (next(pull.cache.glob("models--*")) / "refs" / "next").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert pull("org/model@next").commit == commit
        assert [event.topic for event in pull.heard(Warned)] == ["cache"]
