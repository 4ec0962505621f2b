"""A manifest that could do harm is refused before anything is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from headrace.errors import BadManifest, HeadraceError, NoSpace
from headrace.testing import ChaosHub, write_repo

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

GIT = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
SHA = "0" * 64


def file(path: Any, size: Any = 0, oid: Any = GIT, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": size, "oid": oid, **more}


HOSTILE = {
    "parent": [file("../x")],
    "deep parent": [file("a/../../x")],
    "absolute": [file("/x")],
    "nul": [file("a\0b")],
    "dot": [file("./x")],
    "empty": [file("")],
    "empty part": [file("a//b")],
    "no text": [file(7)],
    "surrogate": [file("\ud800")],
    "too long": [file("x" * 300)],
    "file and folder": [file("a"), file("a/b")],
    "twice": [file("a"), file("a")],
    "negative": [file("a", -1)],
    "absurd": [file("a", 2**53)],
    "float": [file("a", 1.5)],
    "text size": [file("a", "1")],
    "no size": [file("a", None)],
    "true size": [file("a", size=True)],
    "short digest": [file("a", 0, "abc")],
    "digest with a path": [file("a", 0, "../../../../etc/passwd")],
    "upper case": [file("a", 0, GIT.upper())],
    "no digest": [file("a", 0, None)],
    "bad lfs digest": [file("a", 5, GIT, lfs={"oid": "x" * 64, "size": 5})],
    "lfs is a list": [file("a", 5, GIT, lfs=[])],
    "no object": ["a"],
}


def everything_in(folder: Path) -> list[str]:
    return sorted(str(Path(at, name)) for at, _, names in os.walk(folder) for name in names)


def commit_of(hub: ChaosHub, repo: str) -> str:
    with urlopen(f"{hub.endpoint}/api/models/{repo}") as answer:
        return str(json.load(answer)["sha"])


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("dest", [None, "dest"])
def test_it_is_refused_before_anything_is_written(
    name: str, dest: str | None, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/evil", {"config.json": b"{}"}, tree_extra=HOSTILE[name])
    commit = commit_of(hub, "org/evil")
    before = everything_in(tmp_path)
    for revision in ("main", commit):  # the first is told by the repo's info, the second by its tree
        with pytest.raises(BadManifest) as caught:
            pull(f"org/evil@{revision}", dest=dest and tmp_path / dest)
        assert caught.value.code == "bad_manifest"
        assert everything_in(tmp_path) == before


@pytest.mark.parametrize("answer", [{"no": "list"}, "text", 5])
def test_a_tree_that_is_no_list_is_refused(answer: Any, root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/evil", {"config.json": b"{}"}, tree_replace=[answer])
    with pytest.raises(HeadraceError):
        pull(f"org/evil@{commit_of(hub, 'org/evil')}")


def test_a_size_no_disk_has_is_a_question_of_space(root: Path, hub: ChaosHub, pull: Puller) -> None:
    huge = file("model.safetensors", 2**52, GIT, lfs={"oid": SHA, "size": 2**52, "pointerSize": 130})
    write_repo(root, "org/huge", {"config.json": b"{}"}, tree_extra=[huge])
    with pytest.raises(NoSpace, match=r"4096.0 TiB \(4,503,599,627,37\d,\d{3} bytes\)"):
        pull("org/huge")
    assert hub.log().blob_bytes == 0


def test_a_name_among_our_own_files_is_refused_where_it_would_meet_them(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/odd", {".cache": b"a file where our folder must be"})
    with pytest.raises(BadManifest, match=r"\.cache"):
        pull("org/odd", dest=tmp_path / "dest")
    write_repo(root, "org/evil", {".cache/headrace/verified.jsonl": b"[]", "config.json": b"{}"})
    before = everything_in(tmp_path)
    with pytest.raises(BadManifest, match=r"\.cache/headrace"):
        pull("org/evil", dest=tmp_path / "dest")
    assert everything_in(tmp_path) == before
    snapshot = pull("org/evil")
    assert (snapshot.path / ".cache/headrace/verified.jsonl").read_bytes() == b"[]"
