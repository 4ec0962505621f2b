"""Paths are those that hub clients compute."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from huggingface_hub.file_download import repo_folder_name

from headrace.layout import HubCacheLayout, WorkshopLayout
from headrace.manifest import Digest
from headrace.names import Repo, RepoKind

DIGEST = Digest(Digest.SHA256, "b2" * 32)
COMMIT = "c" * 40


@pytest.mark.parametrize("kind", RepoKind)
@pytest.mark.parametrize("name", ["gpt2", "org/name", "o.r-g/n_a-m.e"])
def test_a_repo_has_the_hubs_folder(name: str, kind: RepoKind) -> None:
    layout = HubCacheLayout(Path("/cache"), Repo(name, kind))
    assert layout.folder == Path("/cache", repo_folder_name(repo_id=name, repo_type=kind.value))
    assert layout.ref("refs/pr/1") == layout.folder / "refs/refs/pr/1"
    assert layout.blob(DIGEST) == layout.folder / "blobs" / DIGEST.hex
    assert layout.snapshot(COMMIT) == layout.folder / "snapshots" / COMMIT


@pytest.mark.parametrize("root", ["/cache", "cache", "."])
@pytest.mark.parametrize("path", ["a", "dir/sub/a b", "..hidden/a"])
def test_links_are_relative_and_lead_to_the_blob(root: str, path: str) -> None:
    layout = HubCacheLayout(Path(root), Repo("org/name"))
    target = layout.link_target(path, DIGEST)
    assert not PurePosixPath(target).is_absolute()
    assert target == "../" * (2 + path.count("/")) + f"blobs/{DIGEST.hex}"
    link = layout.link(COMMIT, path)
    assert Path(os.path.normpath(link.parent / target)) == Path(os.path.normpath(layout.blob(DIGEST)))


def test_the_workshop_lies_where_cache_tools_do_not_look() -> None:
    assert HubCacheLayout(Path("/cache"), Repo("a")).workshop == Path("/cache/.locks/headrace")
    shop = WorkshopLayout(Path("/w"), DIGEST)
    names = {shop.partial, shop.journal, shop.lease(1), shop.lease(2)}
    assert len(names) == 4
    assert all(path.parent == Path("/w") and path.name.startswith(DIGEST.hex) for path in names)
