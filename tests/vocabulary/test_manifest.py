"""Nothing of a hostile file list is used; every legal name is."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BadManifest
from headrace.manifest import SIZE_LIMIT, Digest, Entry, Manifest, entries_of, in_fetch_order
from headrace.names import Repo

SHA1, SHA256, COMMIT = "a1" * 20, "b2" * 32, "c" * 40


def file(path: Any = "f", size: Any = 1, oid: Any = SHA1, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": size, "oid": oid, **more}


def manifest(*raw: Any) -> Manifest:
    return Manifest(Repo("org/name"), "main", COMMIT, entries_of(raw), "hub")


HOSTILE_PATHS = [
    *("", "/", "/x", "x/", "../x", "a/..", "a/../b", "..", ".", "./a", "a/.", "a/./b", "a//b"),
    *("\0", "a\0b", "\udc80", "a/\ud800", "x" * 256, "é" * 128, "a/" * 2000 + "a"),
    *(None, 1, ["a"], b"a"),
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_refuses_paths(path: Any) -> None:
    with pytest.raises(BadManifest):
        manifest(file("good"), file(path))


@pytest.mark.parametrize("size", [-1, True, False, 1.0, float("nan"), "1", None, SIZE_LIMIT, 10**30, [1]])
def test_refuses_sizes(size: Any) -> None:
    with pytest.raises(BadManifest):
        manifest(file(size=size))
    with pytest.raises(BadManifest):
        manifest(file(lfs={"oid": SHA256, "size": size}))
    with pytest.raises(BadManifest):
        Entry("f", size, Digest.parse(f"sha256:{SHA256}"))


@pytest.mark.parametrize(
    "oid", ["", "a" * 39, "a" * 41, "A" * 40, "g" * 40, SHA1 + "\n", 1, None, [], SHA256]
)
def test_refuses_digests(oid: Any) -> None:
    with pytest.raises(BadManifest):
        manifest(file(oid=oid))
    with pytest.raises(BadManifest):
        manifest(file(lfs={"oid": oid if oid != SHA256 else SHA1, "size": 1}))


@pytest.mark.parametrize("lfs", ["x", 1, [], True, {}, {"oid": SHA256}, {"size": 1}])
def test_refuses_large_file_facts(lfs: Any) -> None:
    with pytest.raises(BadManifest):
        manifest(file(lfs=lfs))


@pytest.mark.parametrize("item", [None, 1, "f", ["f"], {}, {"path": "f"}])
def test_refuses_what_is_no_entry(item: Any) -> None:
    with pytest.raises(BadManifest):
        manifest(item)


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b"), ("a", "a-b", "a/b")])
def test_refuses_what_cannot_stand_side_by_side(paths: tuple[str, ...]) -> None:
    with pytest.raises(BadManifest):
        manifest(*map(file, paths))


@pytest.mark.parametrize("commit", ["", "main", "C" * 40, "c" * 39, "../x"])
def test_refuses_what_is_no_commit(commit: str) -> None:
    with pytest.raises(BadManifest):
        Manifest(Repo("org/name"), "main", commit, (), "hub")


def test_a_long_list_with_a_duplicate_is_refused_at_once() -> None:
    with pytest.raises(BadManifest, match="'zzz' is listed twice"):
        manifest(*(file(f"{number}") for number in range(60_000)), file("zzz"), file("zzz"))


@pytest.mark.parametrize(
    "path",
    [
        *(
            "ünï/日本語.bin",
            "a b",
            "a+b",
            "100%",
            "a%2fb",
            "a\nb",
            ".gitattributes",
            "..hidden",
            "...",
            "a..b",
        ),
        *(
            "a\\b",
            "C:\\x",
            "-rf",
            "~",
            "$HOME",
            "a:b",
            "*",
            "x" * 255,
            "a/b/c/d",
            "\x1b[31m",
            "CON",
            "é" * 127,
        ),
    ],
)
def test_accepts_nasty_but_legal_names(path: str) -> None:
    entry = manifest(file(path)).entry(path)
    assert entry is not None
    assert entry.path == path


def test_reads_a_tree_answer() -> None:
    one = manifest(
        file("b", 3, lfs={"oid": SHA256, "size": 10**9}),
        {"type": "directory", "path": "../ignored", "oid": "x", "size": 0},
        file("a", 0),
    )
    assert [entry.path for entry in one.entries] == ["a", "b"]
    assert one.entries[0].digest == Digest(Digest.GIT_BLOB_SHA1, SHA1)
    assert one.entries[1].digest == Digest(Digest.SHA256, SHA256)
    assert one.total_bytes == 10**9
    assert one.entry("c") is None
    assert one.entry("a") is one.entries[0]


def test_digests_are_written_as_they_are_read() -> None:
    for text in (f"sha256:{SHA256}", f"git-blob-sha1:{SHA1}"):
        assert str(Digest.parse(text)) == text
    assert Digest.of_etag(SHA256).algorithm == "sha256"
    assert Digest.of_etag(SHA1).algorithm == "git-blob-sha1"
    for text in ("", "sha256", f"md5:{SHA1}", f"sha256:{SHA1}", f"sha256:{SHA256}\n", f"SHA256:{SHA256}"):
        with pytest.raises(BadManifest):
            Digest.parse(text)
    with pytest.raises(BadManifest):
        Digest.of_etag("..")


names = st.text("aAb.*", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
globs = st.lists(st.text("aAb.*?/[]!\\", max_size=5), max_size=3)


def _stand_together(candidates: list[str]) -> list[str]:
    return [
        p for p in dict.fromkeys(candidates) if not any(other.startswith(f"{p}/") for other in candidates)
    ]


@given(st.lists(paths, max_size=6).map(_stand_together), globs, globs)
def test_selects_as_hub_clients_do(listed: list[str], include: list[str], exclude: list[str]) -> None:
    chosen = manifest(*map(file, listed)).select(include, exclude)
    expected = filter_repo_objects(
        sorted(listed), allow_patterns=include or None, ignore_patterns=exclude or None
    )
    assert [entry.path for entry in chosen.entries] == list(expected)


def test_selection_keeps_what_was_said_about_the_commit() -> None:
    chosen = manifest(file("a.bin"), file("dir/b.bin"), file("c.txt")).select(["*.bin"], ["dir/"])
    assert [entry.path for entry in chosen.entries] == ["a.bin"]
    assert (chosen.commit, chosen.source) == (COMMIT, "hub")


@given(st.lists(st.text("m-²٣019.", min_size=1, max_size=12), unique=True))
def test_any_names_can_be_put_in_order_and_numbers_count_as_numbers(names: list[str]) -> None:
    entries = [Entry(f"x{name}", 1, Digest.of_etag(SHA1)) for name in names]
    ordered = in_fetch_order(entries)
    assert {entry.path for entry in ordered} == {entry.path for entry in entries}
    assert in_fetch_order(reversed(ordered)) == ordered


def test_small_files_do_not_wait_for_large_ones() -> None:
    sizes = {
        "model-10.bin": 2**30,
        "model-2.bin": 2**30,
        "a/notes.txt": 9,
        "sub/config.json": 5,
        "model-3.bin": 7,
    }
    entries = [Entry(path, size, Digest.of_etag(SHA1)) for path, size in sizes.items()]
    ordered = [entry.path for entry in in_fetch_order(entries)]
    assert ordered == ["sub/config.json", "a/notes.txt", "model-3.bin", "model-2.bin", "model-10.bin"]
