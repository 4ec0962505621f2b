"""Parts of a cache or a folder that lie on another disk, and other things in the way: known before the first byte."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.errors import StoreError
from headrace.events import Checking
from headrace.testing import ChaosHub, content, write_repo
from tests.pull.mounts import in_memory

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

FILES = {"config.json": b"{}", "sub/model.safetensors": content(9_000_000)}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """Another disk."""
    with in_memory(tmp_path / "disk", "size=64m") as disk:
        yield disk


@pytest.fixture(params=["link", "mount"])
def moved(request: pytest.FixtureRequest, other: Path, pull: Puller) -> Iterator[Path]:
    """A repo's folder that is elsewhere: on another disk by a link, or by a mount."""
    folder = pull.cache / "models--org--model"
    pull.cache.mkdir()
    if request.param == "link":
        folder.symlink_to(other)
        yield folder
        return
    # Of the same device: a file cannot be renamed across mounts all the same.
    (pull.cache.parent / "elsewhere").mkdir()
    folder.mkdir()
    subprocess.run(["mount", "--bind", str(pull.cache.parent / "elsewhere"), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_repo_that_was_moved_to_another_disk_is_pulled_there(
    moved: Path, root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str]
) -> None:
    write_repo(root, "org/model", FILES)
    snapshot = pull("org/model")
    assert {path: (snapshot.path / path).read_bytes() for path in FILES} == FILES
    hub.clear_log()
    assert pull("org/model").network_bytes == 0
    assert hub.settled_log().blob_bytes == 0
    assert not list(pull.cache.glob(".locks/headrace/*.partial"))
    told = hf("cache", "ls", cache=pull.cache)
    assert "org/model" in told
    assert "corrupt" not in told.lower()


def test_what_is_known_of_a_moved_repo_is_not_hashed_again(
    moved: Path, root: Path, hub: ChaosHub, pull: Puller
) -> None:
    write_repo(root, "org/model", FILES)
    pull("org/model")
    assert pull("org/model").network_bytes == 0
    assert pull.heard(Checking) == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_part_that_was_moved_alone_is_refused_before_the_first_byte(
    *, is_folder: bool, other: Path, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    part = tmp_path / "out" / "sub" if is_folder else pull.cache / "models--org--model" / "blobs"
    part.parent.mkdir(parents=True)
    part.symlink_to(other)
    with pytest.raises(StoreError, match="another disk") as caught:
        pull("org/model", dest=tmp_path / "out" if is_folder else None)
    assert "whole folder" in (caught.value.hint or "")
    assert hub.settled_log().blob_bytes == 0
    assert not list(other.iterdir())


@pytest.mark.parametrize("obstacle", ["file", "dangling", "folder"])
def test_what_stands_in_the_way_is_told_before_the_first_byte(
    obstacle: str, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    out = tmp_path / "out"
    out.mkdir()
    if obstacle == "file":
        (out / "sub").touch()
    elif obstacle == "dangling":
        (out / "sub").symlink_to("nowhere")
    else:
        (out / "sub" / "model.safetensors").mkdir(parents=True)
    with pytest.raises(StoreError, match="sub") as caught:
        pull("org/model", dest=out)
    assert "out of the way" in (caught.value.hint or "")
    assert hub.settled_log().blob_bytes == 0


def test_what_is_in_place_on_another_disk_stands_in_nobodys_way(
    other: Path, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    (other / "model.safetensors").write_bytes(FILES["sub/model.safetensors"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(other)
    assert pull("org/model", dest=tmp_path / "out").network_bytes == len(FILES["config.json"])
