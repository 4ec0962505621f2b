"""Content in other folders of this disk: what is found, what it costs, and what does no harm."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.manifest import Digest, Entry
from headrace.store import shelves as module
from headrace.store.shelves import Found, Shelves
from headrace.testing import content
from tests.conftest import Instead

DATA = content(300_000)
OLD_NS = 10**18


def entry(path: str, data: bytes) -> Entry:
    return Entry(path, len(data), Digest(Digest.SHA256, hashlib.sha256(data).hexdigest()))


def git_entry(path: str, data: bytes) -> Entry:
    digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return Entry(path, len(data), Digest(Digest.GIT_BLOB_SHA1, digest))


class Searcher:
    """Searches one folder; counts what is hashed."""

    def __init__(self, base: Path) -> None:
        self.cache = base / "cache"
        self.folder = base / "folder"
        self.folder.mkdir()
        self.hashed: dict[str, int] = {}
        self.warnings: list[str] = []

    def __call__(self, *wanted: Entry) -> dict[str, Path]:
        self.hashed, self.warnings = {}, []
        found = Shelves(self.cache, [self.folder]).search(wanted, self._tell, self.warnings.append)
        return {one.path: self._of(place) for one, place in found.items()}

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(OLD_NS, OLD_NS))
        return path

    def _tell(self, one: Entry, done: int) -> None:
        self.hashed[one.path] = self.hashed.get(one.path, 0) + (done == one.size)

    def _of(self, found: Found) -> Path:
        assert found.place == self.folder
        return found.sound.path


@pytest.fixture
def search(tmp_path: Path) -> Searcher:
    return Searcher(tmp_path)


def test_content_is_found_under_any_name_and_hashed_once(search: Searcher) -> None:
    path = search.put("deep/er/other name.bin", DATA)
    search.put("same size.bin", content(len(DATA), seed=1))
    search.put("other size.bin", DATA[1:])
    assert search(entry("model.safetensors", DATA)) == {"model.safetensors": path}
    assert 1 <= search.hashed["model.safetensors"] <= 2
    assert search(entry("model.safetensors", DATA)) == {"model.safetensors": path}
    assert search.hashed == {}
    assert [one.name for one in search.folder.iterdir()] != []


def test_the_ledger_lies_in_our_cache_and_nothing_in_the_folder(search: Searcher) -> None:
    search.put("model.bin", DATA)
    before = {path: path.lstat().st_mtime_ns for path in (search.folder, *search.folder.rglob("*"))}
    search(entry("model.bin", DATA))
    assert {path: path.lstat().st_mtime_ns for path in (search.folder, *search.folder.rglob("*"))} == before
    assert (search.cache / ".locks" / "headrace" / "verified.jsonl").exists()


def test_small_files_are_found_by_the_digest_of_git(search: Searcher) -> None:
    path = search.put("config.json", b"{}")
    assert search(git_entry("config.json", b"{}"), entry("config.sha", b"{}")) == {
        "config.json": path,
        "config.sha": path,
    }


def test_shards_of_one_size_are_hashed_once_each(search: Searcher) -> None:
    shards = {f"model-{n}.safetensors": content(50_000, seed=n) for n in range(20)}
    for name, data in shards.items():
        search.put(f"renamed {name[::-1]}", data)
    found = search(*(entry(name, data) for name, data in shards.items()))
    assert {name: path.read_bytes() for name, path in found.items()} == shards
    assert sum(search.hashed.values()) == 20


def test_a_likely_name_is_tried_first(search: Searcher) -> None:
    for n in range(1, 8):
        search.put(f"a{n}.pth", content(len(DATA), seed=n))
    wanted = entry("resnet.pth", DATA)
    path = search.put(f"zz/resnet50-{wanted.digest.hex[:8]}.pth", DATA)
    assert search(wanted) == {"resnet.pth": path}
    assert search.hashed == {"resnet.pth": 1}


def test_hashing_in_vain_ends_where_fetching_would_be_cheaper(search: Searcher, instead: Instead) -> None:
    instead(module, _VAIN_LEAST_BYTES=0)
    for n in range(1, 9):
        search.put(f"{n}.bin", content(len(DATA), seed=n))
    assert search(entry("model.bin", DATA)) == {}
    assert search.hashed["model.bin"] <= 3
    search(entry("model.bin", DATA))
    search(entry("model.bin", DATA))
    assert search(entry("model.bin", DATA)) == {}  # by now all are known
    assert search.hashed == {}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _cyclic(path: Path) -> None:
    path.symlink_to(path.name)


def _folder_above(path: Path) -> None:
    path.symlink_to("..")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_pipe, _socket, _dangling, _cyclic, _folder_above, _device])
def test_what_is_no_file_is_passed_by(search: Searcher, make: Callable[[Path], None]) -> None:
    path = search.put("x/model.bin", DATA)
    make(search.folder / "x" / "a")
    assert search(entry("a", DATA), entry("empty", b"")) == {"a": path}


def test_a_file_that_a_link_leads_to_is_used(search: Searcher, tmp_path: Path) -> None:
    (tmp_path / "far").write_bytes(DATA)
    (search.folder / "near").symlink_to(tmp_path / "far")
    assert search(entry("model.bin", DATA)) == {"model.bin": search.folder / "near"}


def test_what_may_not_be_read_is_passed_by(search: Searcher) -> None:
    search.put("closed.bin", DATA).chmod(0)
    search.put("closed/model.bin", DATA).parent.chmod(0)
    found = search(entry("model.bin", DATA))
    (search.folder / "closed").chmod(0o700)
    assert found == {} or os.geteuid() == 0


def test_unfinished_files_of_downloads_are_passed_by(search: Searcher) -> None:
    for name in ("a.incomplete", ".cache/headrace/b", ".locks/headrace/c", "d.partial"):
        search.put(name, content(len(DATA), seed=3))
    search(entry("model.bin", DATA))
    assert search.hashed == {}


def test_a_file_that_changes_while_it_is_hashed_is_not_what_it_was(search: Searcher) -> None:
    path = search.put("model.bin", DATA)

    class Writing(Searcher):
        def _tell(self, one: Entry, done: int) -> None:
            path.write_bytes(DATA + b"more")

    writing = Writing.__new__(Writing)
    writing.__dict__.update(search.__dict__)
    assert writing(entry("model.bin", DATA)) == {}


def test_a_huge_tree_is_looked_at_in_part_and_that_is_told(search: Searcher, instead: Instead) -> None:
    instead(module, NAMES_MOST=10)
    top = search.put("top.bin", DATA)
    for n in range(20):
        search.put(f"deep/{n}", b"x")
    assert search(entry("a", DATA)) == {"a": top}
    assert [str(search.folder) in told for told in search.warnings] == [True]
    instead(module, NAMES_MOST=100, _SILENCE_S=-1.0)
    assert search(entry("a", DATA)) == {"a": top}
    assert ["takes long" in told for told in search.warnings] == [True]
    instead(module, LOOK_S=-1.0)
    assert search(entry("a", DATA)) == {}
    assert search.warnings != []


def test_no_folder_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = [tmp_path / "gone", tmp_path / "file"]
    assert Shelves(tmp_path / "cache", places).search([entry("a", DATA)], lambda *_: None, pytest.fail) == {}
