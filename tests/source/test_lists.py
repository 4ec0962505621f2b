"""Lists that servers give out: of digests, of folders, of what is where. Hostile ones included."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.errors import BadManifest, BrokenStream, Busy, EntryNotFound, HeadraceError
from headrace.manifest import Digest, Entry
from headrace.source.checksums import digest_of, parse_checksums
from headrace.source.file import safe_name
from headrace.source.index import Indexed, parse_index
from headrace.source.listing import Kept, Listed, Listing

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
HERE = "http://host/models/m%C3%B6del/"


def sha(digits: str) -> Digest:
    return Digest(Digest.SHA256, digits)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{A}  a.bin\n{B} *sub/b c.bin\n", {"a.bin": A, "sub/b c.bin": B}),
        (f"{A.upper()}  ./a.bin\r\n", {"a.bin": A}),
        (f"# made by hand\n\n{A}  a\n", {"a": A}),
        (f"\\{A}  two\\nlines\\\\x\n", {"two\nlines\\x": A}),
        (f"{A}  a\n<html>\n", {}),
        (f"{A[:-1]}  a\n", {}),
        (f"SHA256 (a) = {A}\n", {}),
        ("", {}),
    ],
    ids=range(8),
)
def test_checksum_files(text: str, found: dict[str, str]) -> None:
    assert parse_checksums(text) == {path: sha(digits) for path, digits in found.items()}


def test_a_path_with_two_digests_has_none() -> None:
    with pytest.raises(BadManifest, match="two"):
        parse_checksums(f"{A}  a\n{B}  ./a\n")
    assert parse_checksums(f"{A}  a\n{A}  ./a\n") == {"a": sha(A)}
    assert digest_of(f"{A}  d/a.bin\n{B}  e/a.bin", "a.bin") is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [(f"{A}\n", A), (f"{A}  a.bin", A), (f"{A}  d/a.bin\n{B}  b", A), (f"{B}  b", None), ("no", None)],
)
def test_a_digest_beside_one_file(text: str, digits: str | None) -> None:
    assert digest_of(text, "a.bin") == (sha(digits) if digits else None)


NGINX = """<html>
<head><title>Index of /models/m\xf6del/</title></head>
<body><h1>Index of /</h1><hr><pre><a href="../">../</a>
<a href="sub/">sub/</a>                                        22-Nov-2026 14:00                   -
<a href="a%20b.bin">a b.bin</a>                                    22-Nov-2026 14:00           123456789
<a href="long-name-that-is-cut-short-by-the-index-of-nginx.safetensors">long-name-that-is-cut..&gt;</a> 22-Nov-2026 14:00 7
</pre><hr></body></html>"""
APACHE = """<html><head><title>Index of /models</title></head><body><table>
<tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=S;O=A">Size</a></th></tr>
<tr><td><a href="/models/">Parent Directory</a></td><td>  - </td></tr>
<tr><td><a href="a.bin">a.bin</a></td><td align="right">2026-11-22 14:00  </td><td align="right">1.2M</td></tr>
<tr><td><a href="sub/">sub/</a></td></tr></table></body></html>"""
PYTHON = """<!DOCTYPE HTML><html lang="en"><head><meta charset="utf-8">
<title>Directory listing for /models/</title></head><body><ul>
<li><a href="a.bin">a.bin</a></li><li><a href="link.bin">link.bin@</a></li><li><a href="sub/">sub/</a></li></ul></html>"""
HOSTILE = """<title>Index of /</title><a href="http://elsewhere/x">x</a><a href="//elsewhere/y">y</a>
<a href="javascript:z">z</a><a href="%2e%2e/">up</a><a href="a%2fb">slash</a><a href="/etc/passwd">p</a>
<a href="http://[bad">bad</a><a>none</a><a href="">empty</a><a href="#x">x</a><a href="ok.bin">ok</a>"""


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            NGINX,
            [
                Indexed("sub", is_folder=True),
                Indexed("a b.bin", is_folder=False, size=123456789),
                Indexed(
                    "long-name-that-is-cut-short-by-the-index-of-nginx.safetensors", is_folder=False, size=7
                ),
            ],
        ),
        (APACHE, [Indexed("a.bin", is_folder=False), Indexed("sub", is_folder=True)]),
        (
            PYTHON,
            [
                Indexed("a.bin", is_folder=False),
                Indexed("link.bin", is_folder=False),
                Indexed("sub", is_folder=True),
            ],
        ),
        (HOSTILE, [Indexed("ok.bin", is_folder=False)]),
        ("<![if x]><title>Index of /</title><A class=b HREF=c%26d>c</A>", [Indexed("c&d", is_folder=False)]),
        ("<html><title>Welcome</title><a href='a.bin'>a</a></html>", None),
        ("", None),
    ],
    ids=["nginx", "apache", "python", "hostile", "odd", "page", "empty"],
)
def test_indexes(text: str, rows: list[Indexed] | None) -> None:
    assert parse_index(HERE, "text/html; charset=utf-8", text) == rows
    assert parse_index(HERE, "application/octet-stream", text) is None


@pytest.mark.parametrize("again", ["<a ", "<!--", "<a href='", "<aa", '<a href=" '])
def test_broken_pages_take_no_time(again: str) -> None:
    # Each of these took minutes: whoever reads them tries again at each of a million beginnings.
    assert parse_index(HERE, "text/html", again * 300_000) is None


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            '[{"name": "sub", "type": "directory", "mtime": "x"}, {"name": "a", "type": "file", "size": 5}]',
            [Indexed("sub", is_folder=True), Indexed("a", is_folder=False, size=5)],
        ),
        ('[{"name": "../x", "type": "file", "size": true}]', []),
        ('[{"name": "\\ud800", "type": "file", "size": 1}]', []),
        ('[{"name": "a", "type": "file", "size": 1.5}]', [Indexed("a", is_folder=False)]),
        ('[{"name": 5, "type": "file"}]', None),
        ('{"name": "a"}', None),
        ("[5]", None),
        ("[" * 100_000, None),
        ("nonsense", None),
    ],
    ids=range(9),
)
def test_indexes_in_json(text: str, rows: list[Indexed] | None) -> None:
    assert parse_index(HERE, "application/json", text) == rows


def listing(*files: Listed, folder: str | None = None) -> Listing:
    return Listing("there", "its list", files, folder=folder)


def entry(path: str, digits: str, size: int = 5) -> Entry:
    return Entry(path, size, sha(digits) if len(digits) == 64 else Digest(Digest.GIT_BLOB_SHA1, digits))


@pytest.mark.parametrize(
    ("files", "wanted", "found"),
    [
        ([Listed("x", "1", 5, sha(A)), Listed("a", "2", 5, sha(A))], entry("a", A), "2"),
        ([Listed("x", "1", 5, sha(A))], entry("a", A), "1"),
        ([Listed("x", "1", None, sha(A))], entry("a", A), "1"),
        ([Listed("a", "1", 5, sha(B)), Listed("x", "2", 5, sha(A))], entry("a", A), "2"),
        ([Listed("a", "1", 5, sha(B))], entry("a", "e" * 40), "1"),
        ([Listed("a", "1")], entry("a", A), "1"),
        ([Listed("d/a", "1", 5)], entry("a", A), "1"),
        ([Listed("x", "1", 4, sha(A))], entry("a", A), "nothing with the content"),
        ([Listed("a", "1", 5, sha(B))], entry("a", A), "other content at 'a'"),
        ([Listed("a", "1", 4, sha(B))], entry("a", "e" * 40), "4 bytes, not 5"),
        ([Listed("d/a", "1")], entry("a", A), "nothing with the content"),
        ([], entry("a", A), "nothing with the content"),
    ],
    ids=range(12),
)
def test_a_content_in_a_list(files: list[Listed], wanted: Entry, found: str) -> None:
    try:
        assert listing(*files).find(wanted).url == found
    except EntryNotFound as error:
        assert found in error.message  # noqa: PT017 - either is told by the table


def test_what_is_not_listed_may_still_be_asked_for() -> None:
    assert listing(folder="http://host/x").find(entry("a b/ü", A)).url == "http://host/x/a%20b/%C3%BC"


@pytest.mark.parametrize(
    ("name", "is_safe"),
    [
        *((one, True) for one in ("a.bin", "ü b.bin")),
        *((one, False) for one in ("a/b", "..", ".x", "", "a\\b", "a\nb", "x" * 256, "a\x00", "a\u202eb")),
    ],
)
def test_names_for_files(name: str, is_safe: bool) -> None:  # noqa: FBT001 - a table's column
    assert (safe_name(name) is not None) is is_safe


# Asked once


def never() -> None:
    """Nobody gives up."""


def test_an_answer_is_asked_for_once_by_many() -> None:
    kept, asked, begun = Kept[int](), [], threading.Event()

    def ask() -> int:
        asked.append(1)
        begun.wait(5)
        return 7

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(kept.get, "key", ask, never) for _ in range(8)]
        begun.set()
        assert {one.result() for one in answers} == {7}
    assert len(asked) == 1


def failing(error: HeadraceError, asked: list[int]) -> Callable[[], int]:
    def ask() -> int:
        asked.append(1)
        raise error

    return ask


@pytest.mark.parametrize(("error", "times"), [(EntryNotFound("none"), 1), (Busy("later"), 3)])
def test_that_there_is_none_is_kept_and_that_it_was_away_is_not(error: HeadraceError, times: int) -> None:
    kept, asked = Kept[int](), list[int]()
    for _ in range(3):
        with pytest.raises(type(error), match=error.message):
            kept.get("key", failing(error, asked), never)
    assert len(asked) == times


def test_who_is_given_up_does_not_wait_for_another() -> None:
    kept, begun, over = Kept[int](), threading.Event(), threading.Event()

    def ask() -> int:
        begun.set()
        over.wait(5)
        return 1

    def give_up() -> None:
        raise BrokenStream("given up")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(kept.get, "key", ask, never)
        begun.wait(5)
        with pytest.raises(BrokenStream):
            kept.get("key", ask, give_up)
        over.set()
        assert first.result() == 1
