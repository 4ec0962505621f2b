"""Repos on disk: which folders they are, and what they are worth."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from headrace.testing import content, write_repo
from headrace.testing.catalog import Catalog, Commit, Repo


def head(root: Path, name: str, kind: str = "model") -> Commit:
    catalog = Catalog(root)
    commit = catalog.commit(repo_of(catalog, name, kind), "main")
    assert commit is not None
    return commit


def repo_of(catalog: Catalog, name: str, kind: str = "model") -> Repo:
    repo = catalog.repo(kind, name)
    assert repo is not None
    return repo


def test_digests_are_sha256_for_large_files_and_gits_blob_id_for_others(tmp_path: Path) -> None:
    write_repo(tmp_path, "org/a", {"model.bin": b"weights", "config.json": b"{}"})
    entries = head(tmp_path, "org/a").entries
    assert entries["model.bin"].digest == hashlib.sha256(b"weights").hexdigest()
    assert entries["config.json"].digest == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert not entries["config.json"].lfs


def test_a_large_file_is_lfs_whatever_its_name(tmp_path: Path) -> None:
    write_repo(tmp_path, "org/a", {"vocab.txt": b"12345"}, lfs_min_bytes=5)
    assert head(tmp_path, "org/a").entries["vocab.txt"].lfs


def test_the_commit_follows_the_content(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, "org/a", {"a.txt": b"one"})
    catalog = Catalog(tmp_path)
    first = catalog.commit(repo_of(catalog, "org/a"), "main")
    assert first is not None
    assert head(tmp_path, "org/a").sha == first.sha
    (folder / "a.txt").write_bytes(b"two!")
    second = catalog.commit(repo_of(catalog, "org/a"), "main")
    assert second is not None
    assert second.sha != first.sha
    assert catalog.commit(repo_of(catalog, "org/a"), first.sha) is None
    assert catalog.entry(repo_of(catalog, "org/a"), first.sha, "a.txt") == (None, None)
    assert catalog.commit(repo_of(catalog, "org/a"), second.sha[:7]) == second


def test_an_edited_tree_answer_is_another_commit(tmp_path: Path) -> None:
    write_repo(tmp_path, "org/a", {"a.txt": b"one"})
    plain = head(tmp_path, "org/a").sha
    write_repo(tmp_path, "org/a", {"a.txt": b"one"}, tree_extra=[{"path": "../b"}])
    assert head(tmp_path, "org/a").sha != plain


def test_a_bare_repo_is_told_from_an_organisation(tmp_path: Path) -> None:
    write_repo(tmp_path, "gpt", {"nested/weights.bin": b"1"})
    write_repo(tmp_path, "org/a", {"a.txt": b"1"})
    catalog = Catalog(tmp_path)
    assert catalog.repo("model", "gpt") is not None
    assert catalog.repo("model", "gpt/nested") is None
    assert catalog.repo("model", "org") is None


@pytest.mark.parametrize("name", ["", "..", "../models/org", "org/..", "org/a@v1", "org/a/b", "org\0/a"])
def test_names_cannot_leave_the_shelf(tmp_path: Path, name: str) -> None:
    write_repo(tmp_path, "org/a", {"a.txt": b"1"})
    write_repo(tmp_path, "org/a", {"a.txt": b"2"}, revision="v1")
    assert Catalog(tmp_path).repo("model", name) is None


def test_revisions_may_hold_slashes(tmp_path: Path) -> None:
    write_repo(tmp_path, "org/a", {"a.txt": b"1"}, revision="refs/pr/1")
    assert list(repo_of(Catalog(tmp_path), "org/a").revisions) == ["refs/pr/1"]


def test_a_digest_can_be_taken_on_trust(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, "org/a", {}, digests={"huge.bin": "ab" * 32})
    with (folder / "huge.bin").open("wb") as file:
        os.truncate(file.fileno(), 60 << 30)
    entry = head(tmp_path, "org/a").entries["huge.bin"]
    assert (entry.size, entry.digest) == (60 << 30, "ab" * 32)


def test_an_unknown_setting_is_an_error(tmp_path: Path) -> None:
    write_repo(tmp_path, "org/a", {}, privat=True)
    with pytest.raises(ValueError, match="privat"):
        Catalog(tmp_path).repo("model", "org/a")


def test_content_is_the_same_every_time() -> None:
    assert content(3_000_000, seed=7)[:1000] == content(1000, seed=7)
    assert content(1000, seed=7) != content(1000, seed=8)
