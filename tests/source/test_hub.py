"""A hub is asked exactly, believed little, and followed only where it may lead."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    BadManifest,
    BrokenStream,
    Busy,
    EntryNotFound,
    HeadraceError,
    NotFound,
    RangeIgnored,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
    Unreachable,
)
from headrace.ranges import Range
from headrace.source.addresses import Resolver
from headrace.source.http import Dialer, HttpSession
from tests.source.conftest import (
    COMMIT,
    DATA,
    FILE,
    REPO,
    Heard,
    Script,
    Serve,
    always,
    answer,
    ask_for,
    hub,
    partial_answer,
    read_all,
)

SOME, ALL = Range(100, 200), Range(0, len(DATA))
OID = "e" * 40
TREE = f"/api/models/org/model/tree/{COMMIT}"
INFO = "/api/models/org/model/revision/main?blobs=true"


def file(path: str) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": 1, "oid": OID}


def page(*paths: str, link: str | None = None) -> bytes:
    """A page of the tree."""
    headers = {"Link": f'<{link}>; rel="next"'} if link else {}
    return answer(200, json.dumps([file(path) for path in paths]).encode(), **headers)


def by_target(table: dict[str, bytes]) -> Script:
    """Answers by the request's target; its longest beginning counts."""

    def script(heard: Heard, connection: socket.socket) -> bool:
        found = max((key for key in table if heard.target.startswith(key)), key=len, default=None)
        connection.sendall(table[found] if found is not None else answer(404))
        return True

    return script


class Names(Resolver):
    """Some hosts have chosen addresses, and an address is its own."""

    def __init__(self, **hosts: str) -> None:
        super().__init__()
        self._hosts = {name.replace("_", "."): address for name, address in hosts.items()}

    def addresses(self, host: str, check: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        return (self._hosts.get(host, host),)


# Bytes


@pytest.mark.parametrize(("wanted", "whole"), [(SOME, False), (ALL, False), (ALL, True)])
def test_the_bytes_asked_for_come(
    wanted: Range, *, whole: bool, serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    server = serve(always(answer(200, DATA) if whole else partial_answer(wanted)))
    stream = hub(server.url, dialer).open(ask_for(wanted, whole=whole), session)
    assert read_all(stream, len(wanted)) == DATA[wanted.start : wanted.stop]
    stream.close()
    assert server.heard[0].headers.get("range") == (
        None if whole else f"bytes={wanted.start}-{wanted.stop - 1}"
    )
    assert server.heard[0].headers["accept-encoding"] == "identity"


WRONG: list[tuple[bytes, type[HeadraceError]]] = [
    (answer(206, DATA[100:200]), BadAnswer),
    (answer(206, DATA[:100], Content_Range=f"bytes 0-99/{len(DATA)}"), BadAnswer),
    (answer(206, DATA[100:200], Content_Range="bytes 100-199/7"), BadAnswer),
    (answer(206, DATA[100:200], Content_Range="bytes 100-199/*"), BadAnswer),
    (answer(206, DATA[100:200], Content_Range="lines 100-199/5120"), BadAnswer),
    (answer(206, DATA[100:199], Content_Range=f"bytes 100-199/{len(DATA)}"), BadAnswer),
    (
        answer(206, DATA[100:200], Content_Range=f"bytes 100-199/{len(DATA)}", Content_Encoding="gzip"),
        BadAnswer,
    ),
    (answer(200, DATA), RangeIgnored),
    (answer(204), BadAnswer),
    (answer(304), BadAnswer),
    (answer(416), BadAnswer),
    (answer(400), BadAnswer),
    (answer(404), EntryNotFound),
    (answer(404, X_Error_Code="RepoNotFound"), RepoNotFound),
    (answer(404, X_Error_Code="RevisionNotFound"), RevisionNotFound),
    (answer(403, X_Error_Code="GatedRepo"), AccessDenied),
    (answer(403), AccessDenied),
    (answer(401), RepoNotFound),
    (answer(408), Busy),
    (answer(429, Retry_After="7"), Busy),
    (answer(500), Busy),
    (answer(503), Busy),
]


@pytest.mark.parametrize(("raw", "error"), WRONG, ids=range(len(WRONG)))
def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    raw: bytes, error: type[HeadraceError], serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    with pytest.raises(error) as caught:
        hub(serve(always(raw)).url, dialer).open(ask_for(SOME), session)
    assert type(caught.value) is error
    assert "\n" not in caught.value.message
    if b"Retry-After" in raw:
        assert isinstance(caught.value, SourceError)
        assert caught.value.retry_after_s == 7


def test_a_web_page_is_no_file(serve: Serve, dialer: Dialer, session: HttpSession) -> None:
    html = b"<html>log in</html>"
    for raw in (
        answer(200, html, Content_Type="text/html"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<html\r\n0\r\n\r\n",
    ):
        with pytest.raises(BadAnswer):
            hub(serve(always(raw)).url, dialer).open(ask_for(ALL, whole=True), session)


# Redirects


def test_a_token_stays_at_home(serve: Serve, session: HttpSession) -> None:
    cdn = serve(always(partial_answer(SOME)))
    home = serve(always(answer(302, Location=f"http://127.0.0.1:{cdn.port}/signed?x=1")))
    source = hub(home.url, Dialer(), token="hf_secret")
    for _ in range(2):
        source.open(ask_for(SOME), session).close()
    assert [heard.headers.get("authorization") for heard in home.heard] == ["Bearer hf_secret"]
    assert [heard.headers.get("authorization") for heard in cdn.heard] == [None, None]
    assert [heard.headers["range"] for heard in cdn.heard] == ["bytes=100-199"] * 2


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/moved?a=b&c=%2F", "/moved?a=b&c=%2F"),
        ("moved", f"/org/model/resolve/{COMMIT}/moved"),
        ("?again=1", f"{FILE}?again=1"),
        ("/a b", "/a%20b"),
        ("/\u00c3\u00bc", "/%C3%BC"),  # UTF-8 in a head that is read as latin-1
        ("//{host}/elsewhere", "/elsewhere"),
    ],
)
def test_a_redirect_is_followed(
    location: str, target: str, serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    def script(heard: Heard, connection: socket.socket) -> bool:
        host = heard.headers["host"]
        first = len(server.heard) == 1
        connection.sendall(
            answer(307, Location=location.format(host=host)) if first else partial_answer(SOME)
        )
        return True

    server = serve(script)
    hub(server.url, dialer).open(ask_for(SOME), session).close()
    assert [heard.target for heard in server.heard] == [FILE, target]


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "ftp://x/y",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://h:99999/",
        "javascript:1",
        FILE,
    ],
)
def test_a_redirect_to_nowhere_is_refused(
    location: str | None, serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    server = serve(always(answer(302, Location=location)))
    with pytest.raises(BadAnswer):
        hub(server.url, dialer).open(ask_for(SOME), session)
    assert len(server.heard) <= 10


def test_a_redirect_with_a_long_body_is_followed(serve: Serve, dialer: Dialer, session: HttpSession) -> None:
    cdn = serve(always(partial_answer(SOME)))
    home = serve(always(answer(302, b"x" * 500_000, Location=cdn.url)))
    hub(home.url, dialer).open(ask_for(SOME), session).close()
    assert len(cdn.heard) == 1


def test_other_content_is_refused_before_it_is_fetched(
    serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    cdn = serve(always(partial_answer(SOME)))
    home = serve(always(answer(302, Location=cdn.url, X_Linked_Etag='"' + "0" * 64 + '"')))
    with pytest.raises(BadAnswer, match="other content"):
        hub(home.url, dialer).open(ask_for(SOME), session)
    assert cdn.heard == []


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/", "http://10.1.2.3/", "http://169.254.169.254/", "http://inner.test/"]
)
def test_a_public_place_may_not_lead_into_this_network(target: str) -> None:
    names = Names(hub_test="93.184.216.34", inner_test="192.168.1.1", outer_test="93.184.216.35")
    source = hub("http://hub.test", Dialer(names))
    with pytest.raises(BadAnswer, match="private"):
        source.home.target("http://hub.test/x", target)
    assert source.home.target("http://hub.test/x", "http://outer.test/y") == "http://outer.test/y"
    assert source.home.target("http://outer.test/x", "http://hub.test/y") == "http://hub.test/y"


def test_a_place_in_this_network_may_lead_there_again_and_again(serve: Serve, session: HttpSession) -> None:
    last = serve(always(partial_answer(SOME)))
    moved = []

    def script(heard: Heard, connection: socket.socket) -> bool:
        moved.append(heard)
        connection.sendall(partial_answer(SOME) if len(moved) == 1 else answer(302, Location=last.url))
        return True

    middle = serve(script)
    home = serve(always(answer(302, Location=middle.url)))
    source = hub(home.url, Dialer())
    for _ in range(2):  # the second time it begins at the remembered address, which is not its own
        source.open(ask_for(SOME), session).close()
    assert (len(home.heard), len(middle.heard), len(last.heard)) == (1, 2, 1)


def test_a_remembered_address_that_is_refused_or_gone_is_asked_for_again(
    serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    def refusing_later(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(partial_answer(SOME) if len(cdn.heard) == 1 else answer(403))
        return True

    cdn = serve(refusing_later)
    another = serve(always(partial_answer(SOME)))
    leads_to = [cdn.url]

    def leading(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(answer(302, Location=leads_to[0]))
        return True

    home = serve(leading)
    source = hub(home.url, dialer)
    source.open(ask_for(SOME), session).close()
    leads_to[0] = another.url
    source.open(ask_for(SOME), session).close()
    assert (len(home.heard), len(cdn.heard), len(another.heard)) == (2, 2, 1)
    another.close()
    leads_to[0] = serve(always(partial_answer(SOME))).url
    with pytest.raises((Unreachable, BrokenStream)):
        source.open(ask_for(SOME), HttpSession(dialer))
    while len(home.heard) < 3:  # it was renewed just now: a second must pass
        with contextlib.suppress(Unreachable, BrokenStream):
            source.open(ask_for(SOME), session).close()
        time.sleep(0.05)
    source.open(ask_for(SOME), session).close()
    assert len(home.heard) == 3


# Metadata


SIBLING = {"rfilename": "a", "size": 3, "blobId": "b" * 40}


@pytest.mark.parametrize(
    "siblings",
    [None, [], "text", [{"rfilename": "a"}], [SIBLING, {"rfilename": "b", "size": 1}], [SIBLING, 5]],
)
def test_where_a_repos_info_does_not_tell_its_files_the_tree_is_asked(
    siblings: Any, serve: Serve, dialer: Dialer
) -> None:
    facts = answer(200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())
    table = {INFO: facts, TREE: page("a", "b")}
    server = serve(by_target(table))
    manifest = hub(server.url, dialer).manifest(REPO, "main")
    assert [entry.path for entry in manifest.entries] == ["a", "b"]


def test_a_repos_info_that_tells_its_files_is_enough(serve: Serve, dialer: Dialer) -> None:
    lfs = {"sha256": "c" * 64, "size": 5, "pointerSize": 130}
    siblings = [{"rfilename": "b", "size": 9, "blobId": "d" * 40, "lfs": lfs}, SIBLING]
    facts = answer(200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())
    server = serve(by_target({INFO: facts}))
    manifest = hub(server.url, dialer).manifest(REPO, "main")
    assert [(entry.path, entry.size, str(entry.digest)) for entry in manifest.entries] == [
        ("a", 3, f"git-blob-sha1:{'b' * 40}"),
        ("b", 5, f"sha256:{'c' * 64}"),
    ]


def test_pages_are_asked_for_at_home_whatever_the_link_says(serve: Serve, dialer: Dialer) -> None:
    prefix = "/hf"
    far = f"https://huggingface.co{TREE}?recursive=true&expand=false&cursor=two"
    server = serve(
        by_target(
            {
                f"{prefix}/api/models/org/model/revision/main": answer(
                    200, json.dumps({"sha": COMMIT}).encode()
                ),
                f"{prefix}{TREE}?": page("a", link=far),
                f"{prefix}{TREE}?recursive=true&expand=false&cursor=two": page("b"),
            }
        )
    )
    manifest = hub(server.url + prefix, dialer).manifest(REPO, "main")
    assert [entry.path for entry in manifest.entries] == ["a", "b"]
    assert len(server.heard) == 3
    assert server.connections == 1


@pytest.mark.parametrize("link", [f"{TREE}?recursive=true&expand=false", f"{TREE}?cursor=1"])
def test_pages_in_circles_are_refused(link: str, serve: Serve, dialer: Dialer) -> None:
    count = iter(range(1000))

    def script(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(page(f"f{next(count)}", link=link))
        return True

    server = serve(script)
    with pytest.raises(BadManifest, match="circles"):
        hub(server.url, dialer).manifest(REPO, COMMIT)
    assert len(server.heard) <= 2


@pytest.mark.parametrize("link", ["http://[", "no link", "#", f"{TREE}"])
def test_a_list_that_says_it_goes_on_but_not_where_is_refused(
    link: str, serve: Serve, dialer: Dialer
) -> None:
    server = serve(always(page("a", link=link)))
    with pytest.raises(BadManifest):
        hub(server.url, dialer).manifest(REPO, COMMIT)


BAD: list[tuple[bytes, type[HeadraceError]]] = [
    (b"", BadAnswer),
    (b"<html></html>", BadAnswer),
    (b"[" * 200_000, BadAnswer),
    (b"\xff\xfe", BadAnswer),
    (b"{}", BadManifest),
    (b"5", BadManifest),
    (b"[5]", BadManifest),
    (b"[[]]", BadManifest),
    (b'[{"type": "file"}]', BadManifest),
    (b'[{"path": {}, "size": 1, "oid": 5}]', BadManifest),
    (b'[{"path": "a", "size": 1e400, "oid": "x"}]', BadManifest),
    (b'[{"path": "a", "size": ' + b"9" * 5000 + b', "oid": "x"}]', HeadraceError),
    (b'[{"path": "a", "size": NaN, "oid": "x"}]', BadManifest),
]


@pytest.mark.parametrize(("body", "error"), BAD, ids=range(len(BAD)))
def test_a_tree_that_is_none_is_refused(
    body: bytes, error: type[HeadraceError], serve: Serve, dialer: Dialer
) -> None:
    server = serve(always(answer(200, body)))
    with pytest.raises(error):
        hub(server.url, dialer).manifest(REPO, COMMIT)


@pytest.mark.parametrize("facts", [[], {}, 5, {"sha": 5}, {"sha": "main"}, {"sha": "../" * 13 + "x"}])
def test_a_revision_that_is_no_commit_is_refused(facts: Any, serve: Serve, dialer: Dialer) -> None:
    server = serve(
        by_target({"/api/models/org/model/rev": answer(200, json.dumps(facts).encode()), "/": page("a")})
    )
    with pytest.raises(BadManifest):
        hub(server.url, dialer).manifest(REPO, "main")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (answer(404, X_Error_Code="RepoNotFound"), RepoNotFound),
        (answer(404, X_Error_Code="RevisionNotFound"), RevisionNotFound),
        (answer(404), NotFound),
        (answer(401), RepoNotFound),
        (answer(403, X_Error_Code="GatedRepo", X_Error_Message="ask first"), AccessDenied),
        (answer(500), Busy),
    ],
)
def test_a_refusal_says_what_to_do(
    raw: bytes, error: type[HeadraceError], serve: Serve, dialer: Dialer
) -> None:
    server = serve(always(raw))
    with pytest.raises(error) as caught:
        hub(server.url, dialer).manifest(REPO, "main")
    assert "hub" in caught.value.message


def test_a_signature_is_never_shown(serve: Serve, dialer: Dialer, session: HttpSession) -> None:
    cdn = serve(always(answer(302, Location="ftp://x/?signature=secret")))
    home = serve(always(answer(302, Location=f"{cdn.url}/f?signature=secret")))
    with pytest.raises(BadAnswer) as caught:
        hub(home.url, dialer).open(ask_for(SOME), session)
    assert "secret" not in caught.value.message


OTHER = {"X_Linked_Etag": '"' + "0" * 64 + '"', "X_Repo_Commit": "d" * 40}
LOGIN = b"<html>log in</html>"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (
            answer(206, DATA[100:200], Content_Range=f"bytes 100-199/{len(DATA)}", **OTHER),
            "that of commit dddddd",
        ),
        (answer(200, LOGIN, Content_Type="text/html"), "a web page"),
        (answer(206, DATA[100:150], Content_Range="bytes 100-149/150"), "with 150 bytes, not"),
        (answer(416, b"", Content_Range="bytes */50"), "with 50 bytes, not"),
    ],
    ids=["another commit", "a web page", "a shorter file", "a much shorter file"],
)
def test_something_else_is_called_what_it_is(
    raw: bytes, told: str, serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    with pytest.raises(BadAnswer, match=told):
        hub(serve(always(raw)).url, dialer).open(ask_for(SOME), session)


def test_a_file_that_is_a_web_page_by_its_type_alone_is_taken(
    serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    """Some servers call everything so that they know no better word for."""
    right = answer(200, DATA, Content_Type="text/html")
    stream = hub(serve(always(right)).url, dialer).open(ask_for(ALL, whole=True), session)
    with contextlib.closing(stream):
        assert read_all(stream, len(DATA)) == DATA
