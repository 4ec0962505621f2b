"""Hub cache and folder: what is in the way, who is there at the same time, and what is remembered."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from headrace.errors import BadManifest, RevisionNotFound, StoreError
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo
from headrace.store import cloning, space
from headrace.store.contract import Store
from headrace.store.copying import Sound
from headrace.store.folder import Folder
from headrace.store.hubcache import HubCache, recall
from headrace.store.partial import Partial
from tests.store.conftest import sha256

Claim = Callable[[WorkshopLayout, int], Partial]

REPO = Repo("org/model")
COMMIT, OTHER = "a" * 40, "b" * 40


def entry(path: str, data: bytes) -> Entry:
    return Entry(path, len(data), sha256(data))


def listing(files: dict[str, bytes], revision: str = "main", commit: str = COMMIT) -> Manifest:
    return Manifest(REPO, revision, commit, tuple(entry(path, data) for path, data in files.items()), "hub")


def put(store: Store, claim: Claim, data: bytes, entries: Sequence[Entry]) -> None:
    """Bring content in as a pull does."""
    partial = claim(WorkshopLayout(store.workshop, entries[0].digest), len(data))
    partial.write(memoryview(data), 0)
    try:
        store.publish(partial, entries)
    finally:
        partial.close()


def put_all(store: Store, claim: Claim, files: dict[str, bytes]) -> None:
    store.prepare(listing({}))
    for path, data in files.items():
        put(store, claim, data, [entry(path, data)])


def ignore(_: Entry, __: int) -> None:
    """Nobody wants to know how far it is."""


ODD = {"new\nline": b"1", "sub dir/tab\t": b"2", "-rf": b"3", "a" * 255: b"4", "...": b"5", "x/y/z/ü": b"6"}


@pytest.mark.parametrize("kind", ["cache", "folder"])
def test_odd_names_arrive(kind: str, tmp_path: Path, claim: Claim) -> None:
    store = HubCache(tmp_path, listing(ODD)) if kind == "cache" else Folder(tmp_path)
    put_all(store, claim, ODD)
    assert {path: (store.root(COMMIT) / path).read_bytes() for path in ODD} == ODD
    assert [path.name for path in store.workshop.iterdir() if path.name != ".gitignore"] == ["verified.jsonl"]


@pytest.mark.parametrize("kind", ["cache", "folder"])
@pytest.mark.parametrize("obstacle", ["folder", "link", "dangling", "loop", "file"])
def test_what_stands_in_a_files_place_is_replaced_or_told(
    obstacle: str, kind: str, tmp_path: Path, claim: Claim
) -> None:
    store: Store = HubCache(tmp_path, listing({"x": b"data"})) if kind == "cache" else Folder(tmp_path)
    store.prepare(listing({}))
    place = store.root(COMMIT) / "x"
    (tmp_path / "elsewhere").write_bytes(b"else")
    targets = {"link": tmp_path / "elsewhere", "dangling": Path("nowhere"), "loop": Path("x")}
    if obstacle == "folder":
        place.mkdir()
        with pytest.raises(StoreError):
            put(store, claim, b"data", [entry("x", b"data")])
        assert not list(store.workshop.glob("link.*"))
        return
    if obstacle == "file":
        place.write_bytes(b"older")
    else:
        place.symlink_to(targets[obstacle])
    put(store, claim, b"data", [entry("x", b"data")])
    assert place.read_bytes() == b"data"
    assert (tmp_path / "elsewhere").read_bytes() == b"else"


@pytest.mark.parametrize("kind", ["cache", "folder"])
def test_a_file_or_a_loop_where_a_folder_must_be_is_told(kind: str, tmp_path: Path, claim: Claim) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for root in (tmp_path / "file" / "below", tmp_path / "loop" / "below", tmp_path / "file"):
        store: Store = HubCache(root, listing({"x": b"1"})) if kind == "cache" else Folder(root)
        assert not store.holds(entry("x", b"1"))
        with pytest.raises(StoreError):
            store.prepare(listing({}))


def test_a_folder_where_a_blob_must_be_is_told_whatever_its_size(tmp_path: Path, claim: Claim) -> None:
    (tmp_path / "models--org--model" / "blobs").mkdir(parents=True)
    data = b"x" * (tmp_path / "models--org--model" / "blobs").stat().st_size
    (tmp_path / "models--org--model" / "blobs" / sha256(data).hex).mkdir()
    store = HubCache(tmp_path, listing({"x": data}))
    store.prepare(listing({}))
    assert not store.reuse([entry("x", data)], ignore)
    with pytest.raises(StoreError):
        put(store, claim, data, [entry("x", data)])


def test_two_revisions_at_once_share_blobs(tmp_path: Path, claim: Claim) -> None:
    old, new = {"a": b"same", "b": b"old"}, {"a": b"same", "b": b"new"}
    for commit, files in ((COMMIT, old), (OTHER, new)):
        store = HubCache(tmp_path, listing(files, commit=commit))
        store.prepare(listing({}))
        for path, data in files.items():
            if not store.reuse([entry(path, data)], ignore):
                put(store, claim, data, [entry(path, data)])
        store.finish(listing(files, commit=commit))
    assert len(list((tmp_path / "models--org--model" / "blobs").iterdir())) == 3
    assert (tmp_path / "models--org--model" / "refs" / "main").read_text() == OTHER


def test_threads_that_finish_the_same_commit_do_not_meet(tmp_path: Path, claim: Claim) -> None:
    files = {f"f{n}": b"same" for n in range(30)}
    entries = [entry(path, data) for path, data in files.items()]
    first = HubCache(tmp_path, listing(files))
    first.prepare(listing({}))
    put(first, claim, b"same", entries[:1])
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        store = HubCache(tmp_path, listing(files))
        barrier.wait()
        try:
            assert store.reuse(entries, ignore)
            for n in range(20):
                store.finish(listing(files, revision=f"branch-{n}"))
        except BaseException as error:  # noqa: BLE001  # a thread must tell
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all((first.root(COMMIT) / path).read_bytes() == b"same" for path in files)


@pytest.mark.parametrize("order", [("feature", "feature/x"), ("feature/x", "feature"), ("a/b/c", "a")])
def test_a_branch_may_have_become_a_folder_of_branches(order: tuple[str, str], tmp_path: Path) -> None:
    for revision in order:
        whole = listing({"a": b"1"}, revision=revision)
        store = HubCache(tmp_path, whole)
        store.prepare(listing({}))
        store.finish(whole)
    refs = tmp_path / "models--org--model" / "refs"
    assert (refs / order[1]).read_text() == COMMIT
    assert [path for path in refs.rglob("*") if path.is_file()] == [refs / order[1]]


def test_among_the_refs_there_are_only_refs(tmp_path: Path, claim: Claim) -> None:
    whole = listing({"a": b"1"})
    store = HubCache(tmp_path, whole)
    store.prepare(listing({}))
    (tmp_path / "models--org--model" / "refs" / "main").mkdir(parents=True)
    (tmp_path / "models--org--model" / "refs" / "main" / "x").touch()
    store.finish(whole)
    assert [path.name for path in (tmp_path / "models--org--model" / "refs").iterdir()] == ["main"]


def test_it_recalls_what_it_was_told(tmp_path: Path) -> None:
    whole = listing({"a": b"1", "b": b"2"})
    store = HubCache(tmp_path, whole)
    store.prepare(listing({}))
    store.finish(whole)
    assert recall(tmp_path, REPO, "main").entries == whole.entries
    assert recall(tmp_path, REPO, COMMIT).entries == whole.entries


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "[[1,2,3]]", '[["a","1","x"]]', '[["../x",1,"sha256:00"]]', "null", "[" * 100_000],
)
def test_a_damaged_list_is_replaced_by_what_the_links_say(text: str, tmp_path: Path, claim: Claim) -> None:
    whole = listing({"a": b"1"})
    store = HubCache(tmp_path, whole)
    put_all(store, claim, {"a": b"1"})
    store.finish(whole)
    (kept,) = store.workshop.glob("manifests/*/*.json")
    kept.write_text(text)
    assert recall(tmp_path, REPO, "main").entries == whole.entries


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"../../../etc", b"short", b"\n"])
def test_a_damaged_ref_is_none(text: bytes, tmp_path: Path) -> None:
    ref = tmp_path / "models--org--model" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_bytes(text)
    with pytest.raises(RevisionNotFound):
        recall(tmp_path, REPO, "main")
    whole = listing({"a": b"1"})
    HubCache(tmp_path, whole).prepare(listing({}))
    HubCache(tmp_path, whole).finish(whole)
    assert ref.read_text() == COMMIT


@pytest.mark.parametrize("revision", ["feature/x", "feature"])
def test_a_ref_that_is_a_folder_or_below_a_file_is_none(revision: str, tmp_path: Path) -> None:
    refs = tmp_path / "models--org--model" / "refs"
    refs.mkdir(parents=True)
    if revision == "feature":
        (refs / "feature").mkdir()
    else:
        (refs / "feature").write_text(COMMIT)
    with pytest.raises(RevisionNotFound):
        recall(tmp_path, REPO, revision)


def test_twins_in_a_folder_are_copies_and_a_damaged_one_is_mended(tmp_path: Path, claim: Claim) -> None:
    store = Folder(tmp_path)
    store.prepare(listing({}))
    twins = [entry("a", b"same"), entry("sub/b", b"same")]
    put(store, claim, b"same", twins)
    (tmp_path / "a").write_bytes(b"edit")
    assert (tmp_path / "sub" / "b").read_bytes() == b"same"
    again = Folder(tmp_path)
    assert not again.reuse(twins, ignore)
    sound = again.find(twins, ignore)
    assert sound is not None
    assert again.adopt(sound, twins, ignore)
    assert again.reuse(twins, ignore)
    assert (tmp_path / "a").read_bytes() == b"same"
    shutil.rmtree(tmp_path / "sub")
    (tmp_path / "a").write_bytes(b"edit")
    assert Folder(tmp_path).find(twins, ignore) is None


def test_a_copy_that_fails_leaves_no_half_of_it(tmp_path: Path, claim: Claim) -> None:
    store = Folder(tmp_path)
    store.prepare(listing({}))
    (tmp_path / "b").mkdir()
    with pytest.raises(StoreError):
        put(store, claim, b"same", [entry("a", b"same"), entry("b", b"same")])
    assert not list(store.workshop.glob("copy.*"))


def test_digests_of_both_kinds_live_in_one_cache(tmp_path: Path) -> None:
    git = hashlib.sha1(b"blob 1\0" + b"1").hexdigest()
    whole = Manifest(REPO, "main", COMMIT, (Entry("a", 1, Digest(Digest.GIT_BLOB_SHA1, git)),), "hub")
    store = HubCache(tmp_path, whole)
    store.prepare(listing({}))
    store.finish(whole)
    assert json.loads(next(store.workshop.glob("manifests/*/*.json")).read_text())[0][2].startswith(
        "git-blob"
    )
    with pytest.raises(BadManifest):
        Digest.of_etag("short")


def test_what_another_pull_puts_in_place_meanwhile_is_not_recorded_as_ours(
    tmp_path: Path, claim: Claim
) -> None:
    class Overtaken:
        """A partial; once it has its name another pull of other content takes that."""

        def __init__(self, partial: Partial) -> None:
            self._partial = partial

        def publish(self, final: Path) -> os.stat_result:
            facts = self._partial.publish(final)
            put(Folder(tmp_path), claim, b"B" * 100, [entry("x", b"B" * 100)])
            return facts

    ours = Folder(tmp_path)
    ours.prepare(listing({}))
    wanted = entry("x", b"A" * 100)
    partial = claim(WorkshopLayout(ours.workshop, wanted.digest), 100)
    partial.write(memoryview(b"A" * 100), 0)
    ours.publish(cast("Partial", Overtaken(partial)), [wanted])
    assert (tmp_path / "x").read_bytes() == b"B" * 100
    assert not Folder(tmp_path).reuse([wanted], ignore)


def _edit(path: Path) -> None:
    path.write_bytes(b"B" * 100)


def _swap_for_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("kind", ["cache", "folder"])
@pytest.mark.parametrize("harm", [_edit, Path.unlink, _swap_for_a_pipe], ids=lambda harm: harm.__name__)
def test_what_is_edited_between_its_check_and_its_copy_is_not_copied(
    harm: Callable[[Path], None], kind: str, tmp_path: Path
) -> None:
    found = tmp_path / "elsewhere"
    found.write_bytes(b"A" * 100)
    os.utime(found, ns=(1, 1))
    sound = Sound(found, found.stat())
    harm(found)
    out, whole = tmp_path / "out", listing({"x": b"A" * 100})
    store: Store = HubCache(out, whole) if kind == "cache" else Folder(out)
    store.prepare(whole)
    assert not store.adopt(sound, whole.entries, ignore)
    assert not (store.root(COMMIT) / "x").exists()
    assert not list(store.workshop.glob("copy.*"))


def test_a_copy_tells_how_far_it_is_and_looks_at_the_room_with_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"A" * (36 * 1024 * 1024)
    store = Folder(tmp_path)
    store.prepare(listing({}))
    (tmp_path / "a").write_bytes(data)
    monkeypatch.setattr(space, "check_space", lambda *_: pytest.fail("the whole preflight, for one copy"))
    told: set[int] = set()

    def tell(one: Entry, done: int) -> None:
        if one.path == "b":
            told.add(done)

    twins = [entry("a", data), entry("b", data)]
    sound = store.find(twins, ignore)
    assert sound is not None
    assert store.adopt(sound, twins, tell)
    assert (tmp_path / "b").read_bytes() == data
    with (tmp_path / "a").open("rb") as source, (tmp_path / "c").open("wb") as target:
        if cloning.clone(source.fileno(), target.fileno()):
            pytest.skip("this file system shares blocks")
    assert told == {16 * 1024 * 1024, 32 * 1024 * 1024, len(data)}
