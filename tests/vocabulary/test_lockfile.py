"""Lock files: stable text, checked like any manifest, and clear about what is wrong where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BadManifest, HeadraceError, RepoNotFound, RevisionNotFound, UsageError
from headrace.lockfile import Lock
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo, RepoKind

A, B = "a" * 40, "b" * 40
SHA, GIT = Digest(Digest.SHA256, "0" * 64), Digest(Digest.GIT_BLOB_SHA1, "1" * 40)
FILES = (Entry("config.json", 2, GIT), Entry("sub/model.safetensors", 90_000, SHA))


def manifest(name: str, revision: str = "main", commit: str = A, kind: str = "model") -> Manifest:
    return Manifest(Repo(name, RepoKind(kind)), revision, commit, FILES, "hub")


LOCK = Lock("x.lock", (manifest("org/b", "v1", B), manifest("org/b"), manifest("org/a", kind="dataset")))
TEXT = """{
  "headrace_lock": 1,
  "repos": [
    {
      "kind": "model",
      "name": "org/model",
      "revision": "main",
      "commit": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "files": [
        {"path": "config.json", "size": 2, "digest": "git-blob-sha1:1111111111111111111111111111111111111111"},
        {"path": "sub/model.safetensors", "size": 90000, "digest": "sha256:%s"}
      ]
    }
  ]
}
""" % ("0" * 64)


def test_the_text_is_as_written_down_and_reads_back() -> None:
    assert Lock("x.lock", (manifest("org/model"),)).render() == TEXT
    (one,) = Lock.parse(TEXT, "x.lock").manifests
    assert (one.repo.name, one.revision, one.commit, one.entries, one.source) == (
        *("org/model", "main", A, FILES),
        "x.lock",
    )


def test_the_order_of_what_was_asked_makes_no_other_text() -> None:
    turned = Lock("y.lock", tuple(reversed(LOCK.manifests)))
    assert turned.render() == LOCK.render()
    assert Lock.parse(LOCK.render(), "x").render() == LOCK.render()
    assert Lock.parse(Lock("", ()).render(), "x").manifests == ()


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), unique=True, max_size=5
    )
)
def test_any_path_reads_back_and_the_text_is_ascii_a_line_a_file(paths: list[str]) -> None:
    try:
        one = Manifest(Repo("org/x"), "main", A, tuple(Entry(path, 1, SHA) for path in sorted(paths)), "x")
    except BadManifest:
        return
    text = Lock("x", (one,)).render()
    assert text.isascii()
    assert text.count("\n") == len(text.splitlines()) == (13 + len(paths) if paths else 12)
    assert Lock.parse(text, "x").manifests == (one,)


def test_the_repo_and_revision_that_are_asked_are_found() -> None:
    assert LOCK.manifest("org/b").commit == A  # several are locked, and main is the default
    assert LOCK.manifest("org/b@v1").commit == B
    assert LOCK.manifest(f"org/b@{B}").revision == B
    assert LOCK.manifest("datasets/org/a").repo.kind is RepoKind.DATASET
    with pytest.raises(RepoNotFound, match="model org/a") as missing:
        LOCK.manifest("org/a")
    assert "dataset org/a" in (missing.value.hint or "")
    with pytest.raises(RevisionNotFound, match=r"main \(aaaaaaaaaaaa\), not at 'v2'"):
        LOCK.manifest("org/b@v2")
    with pytest.raises(UsageError, match=r"v1 .* and v2"):
        Lock("x", (manifest("org/b", "v1", B), manifest("org/b", "v2", A))).manifest("org/b")
    assert Lock("x", (manifest("org/b", "v1", B),)).manifest("org/b").commit == B


def changed(*where: str | int, to: Any) -> str:
    top: Any = json.loads(TEXT)
    at = top
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = to
    return json.dumps(top)


REPO, FILE = ("repos", 0), ("repos", 0, "files", 1)


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("", UsageError, "x.lock, line 1"),
        (TEXT[: len(TEXT) // 2], UsageError, "x.lock, line 10"),
        (TEXT.replace('"name": "org/model",', "<<<<<<< HEAD"), UsageError, "x.lock, line 6"),
        ("[]", UsageError, "no lock file"),
        ("null", UsageError, "no lock file"),
        ("[" * 100_000, UsageError, "x.lock"),
        ("9" * 10_000, UsageError, "x.lock"),
        ('{"a": NaN}', UsageError, "NaN"),
        ('{"repos": 1, "repos": 2}', UsageError, "'repos' is there twice"),
        (changed("headrace_lock", to=2), UsageError, "version 2"),
        (changed("headrace_lock", to=True), UsageError, "headrace_lock"),
        (changed("headrace_lock", to="1"), UsageError, "headrace_lock"),
        (changed("more", to=1), UsageError, "unknown key 'more'"),
        (changed("repos", to={}), UsageError, "repos is no list"),
        (changed("repos", to=[1]), UsageError, r"repos\[0\] is no object"),
        (changed("repos", to=json.loads(TEXT)["repos"] * 2), UsageError, r"repos\[1\].*twice"),
        (changed(*REPO, "kind", to="cat"), UsageError, r"repos\[0\]\.kind is 'cat'"),
        (changed(*REPO, "name", to="../up"), UsageError, r"repos\[0\]: '\.\./up'"),
        (changed(*REPO, "revision", to="../up"), UsageError, r"repos\[0\]: '\.\./up'"),
        (changed(*REPO, "commit", to="main"), BadManifest, r"repos\[0\]: .*no commit"),
        (changed(*REPO, "commit", to=None), UsageError, r"repos\[0\]\.commit is no text"),
        (changed(*REPO, "extra", to=1), UsageError, r"repos\[0\] has an unknown key 'extra'"),
        (
            changed(*FILE, "path", to="../../escaped"),
            BadManifest,
            r"repos\[0\]\.files\[1\]: '\.\./\.\./escaped'",
        ),
        (changed(*FILE, "path", to="/etc/passwd"), BadManifest, r"files\[1\]"),
        (changed(*FILE, "path", to="config.json"), BadManifest, r"repos\[0\]: 'config.json' is listed twice"),
        (changed(*FILE, "path", to="config.json/x"), BadManifest, "both a file and a folder"),
        (changed(*FILE, "size", to=-1), BadManifest, r"files\[1\]: .*impossible size"),
        (changed(*FILE, "size", to=2**53), BadManifest, r"files\[1\]: .*impossible size"),
        (changed(*FILE, "size", to=1.0), BadManifest, r"files\[1\]: .*impossible size"),
        (changed(*FILE, "size", to=True), BadManifest, r"files\[1\]: .*impossible size"),
        (changed(*FILE, "digest", to="md5:00"), BadManifest, r"files\[1\]: not a digest"),
        (changed(*FILE, "digest", to=7), UsageError, r"files\[1\]\.digest is no text"),
        (changed(*FILE, to={}), UsageError, r"files\[1\] has no 'path'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, kind: type[HeadraceError], told: str) -> None:
    with pytest.raises(kind, match=told):
        Lock.parse(text, "x.lock")
