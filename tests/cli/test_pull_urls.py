"""`headrace pull URL…`, as it is typed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.quick import quick_pull
from headrace.testing import FakeTree, content
from headrace.testing.tree import sums
from tests.cli.shell import Shell

DATA = content(3_000_000, seed=8)
HEX = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeTree]:
    folder = tmp_path_factory.mktemp("www")
    for where in ("plain", "listed"):
        (folder / where).mkdir()
        (folder / where / "model.zip").write_bytes(DATA)
    sums(folder / "listed")
    with FakeTree(folder) as running:
        yield running


def test_a_file_lands_in_the_working_directory(headrace: Shell, tree: FakeTree) -> None:
    urls = [f"{tree.endpoint}/plain/model.zip?key=s3cr3t", f"{tree.endpoint}/listed/model.zip"]
    told = headrace("pull", *urls, "--sha256", HEX)
    assert told.code == 0, told.err
    assert told.lines == ["model.zip"]
    assert (headrace.folder / "model.zip").read_bytes() == DATA
    assert "verified by the digest in --sha256" in told.err
    assert "s3cr3t" not in told.err + told.out


def test_json_ends_with_what_it_came_to(headrace: Shell, tree: FakeTree, tmp_path: Path) -> None:
    told = headrace("pull", f"{tree.endpoint}/listed/model.zip", "--dest", str(tmp_path / "d"), "--json")
    done = told.events[-1]
    assert (done["event"], done["repo"], done["files"], done["bytes"]) == ("done", "model.zip", 1, len(DATA))
    assert done["path"] == str(tmp_path / "d" / "model.zip")
    assert (sum(done["sources"].values()), done["network_bytes"], done["commit"]) == (
        len(DATA),
        len(DATA),
        "",
    )
    started = next(one for one in told.events if one["event"] == "pull_started")
    assert (started["kind"], started["trusted"]) == (
        "file",
        f"SHA256SUMS of {tree.endpoint.partition('//')[2]}",
    )


def test_a_dry_run_touches_nothing(headrace: Shell, tree: FakeTree) -> None:
    told = headrace("pull", f"{tree.endpoint}/listed/model.zip", "--dry-run", "-q")
    assert (told.code, told.lines, told.err) == (0, ["fetch    2.9 MiB  model.zip"], "")
    assert not (headrace.folder / "model.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["URL/plain/model.zip"], ["promises no digest", "with --sha256,"]),
        (["URL/plain/model.zip", "org/tiny"], ["'org/tiny' is no URL"]),
        (["URL/plain/model.zip", "--include", "*"], ["--include is for repos"]),
        (["URL/plain/model.zip", "--source", "hf-mirror"], ["--source is for repos"]),
        (["URL/plain/model.zip", "--type", "dataset"], ["--type is for repos"]),
        (["URL/plain/model.zip", "--sha256", "abc"], ["is no sha256", "64 hex"]),
        (["org/tiny", "--sha256", HEX], ["--sha256 is for URLs"]),
        (["URL/plain/model.zip", "--checksum=sha-256=x"], ["--sha256 HEX"]),
        (["ftp://host/file"], ["is no http(s) URL"]),
    ],
)
def test_what_makes_no_sense_is_told(
    arguments: list[str], words: list[str], headrace: Shell, tree: FakeTree
) -> None:
    told = headrace("pull", *(one.replace("URL", tree.endpoint) for one in arguments))
    assert told.code == 2, told.err
    assert all(word in told.err for word in words), told.err


@pytest.mark.parametrize("words", [["http://host.test/a"], ["http://host.test/a", "http://host.test/b"]])
def test_the_quick_way_steps_aside(words: list[str]) -> None:
    assert quick_pull(["pull", "-q", *words]) is None


def test_a_url_that_is_not_there(headrace: Shell, tree: FakeTree) -> None:
    told = headrace("pull", f"{tree.endpoint}/gone.zip?key=s3cr3t", "--sha256", HEX)
    assert told.code == 10
    assert "s3cr3t" not in told.err
